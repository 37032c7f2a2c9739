//! Brings a store of an older format to today's, whole or not at all.
//!
//! To change the format: raise `SCHEMA_VERSION`, write the new tables in `open`, and a step from the version before here.

use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::load::load_messages_v1;
use super::row::{dev, message_checksum, module, unusable};
use crate::backend::StoreError;

/// The version the store has afterwards. One this program does not know is left as it is.
pub(super) fn migrate(database: &Connection, version: i64) -> Result<i64, StoreError> {
    if version != 1 {
        return Ok(version);
    }
    let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)
        .map_err(|error| unusable(&error))?;
    from_1_to_2(&transaction)?;
    transaction.commit().map_err(|error| unusable(&error))?;
    tracing::info!(from = 1, to = 2, "the store was brought to the current format");
    Ok(2)
}

/// In version 1 a message's number began at 1 in each empty queue; from 2 on no number is ever given twice.
fn from_1_to_2(database: &Connection) -> Result<(), StoreError> {
    database.execute_batch(TABLES_OF_2).map_err(|error| unusable(&error))?;
    let mut insert = database
        .prepare("INSERT INTO c2d_of_2 (seq, dev, mod, gen, crc, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")
        .map_err(|error| unusable(&error))?;
    let mut number = 0;
    load_messages_v1(database, &mut |id, generation, record| {
        number += 1;
        let crc = message_checksum(&id, number, generation, &record);
        insert
            .execute(params![number, dev(&id), module(&id), generation.number(), crc, record])
            .map(drop)
            .map_err(|error| unusable(&error))
    })?;
    drop(insert);
    database.execute_batch(ENDS_OF_1).map_err(|error| unusable(&error))
}

const TABLES_OF_2: &str = "
    CREATE TABLE c2d_of_2 (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL,
        gen INTEGER NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE TABLE delivery (seq INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE feedback (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL,
        crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE INDEX feedback_of ON feedback (dev, mod);";

const ENDS_OF_1: &str = "
    DROP TABLE c2d;
    ALTER TABLE c2d_of_2 RENAME TO c2d;
    CREATE INDEX c2d_queue ON c2d (dev, mod);
    PRAGMA user_version = 2;";
