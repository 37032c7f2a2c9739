//! How many rows each table has and what their checksums add up to: a row that is missing, doubled or of an earlier
//! state is found at the next start, though its own checksum fits.
//!
//! The sums are in a table of their own and change in the transaction that changes the rows. Triggers do that, so
//! that no statement can forget; they belong to the writing connection and are made anew each time it opens.
//!
//! To add a table whose rows carry `crc`: name it in `TABLES`, and add each of its rows to `Counted` when loading.

use rusqlite::{Connection, OptionalExtension, params};

use super::row::unusable;
use crate::backend::StoreError;

/// The tables whose rows are counted.
#[derive(Clone, Copy, Debug)]
pub(super) enum CountedTable {
    Meta,
    Identity,
    Subscriptions,
    C2d,
    Delivery,
    Feedback,
}

/// What was counted while loading.
#[derive(Debug, Default)]
pub(super) struct Counted([Sum; TABLES.len()]);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    rows: i64,
    crcs: i64,
}

impl Counted {
    pub(super) fn add(&mut self, table: CountedTable, crc: u32) {
        let sum = &mut self.0[table as usize];
        sum.rows += 1;
        sum.crcs += i64::from(crc);
    }

    /// Refuses when the rows that were read are not those that were written.
    pub(super) fn check(&self, database: &Connection) -> Result<(), StoreError> {
        for (name, counted) in TABLES.iter().zip(self.0) {
            let stored = stored(database, name).map_err(|error| unusable(&error))?;
            if stored != Some(counted) {
                return Err(StoreError::Fatal(format!(
                    "the store is damaged: table {name} has {} rows, and they are not the {} that were written; restore it from a backup",
                    counted.rows,
                    stored.map_or(0, |sum| sum.rows)
                )));
            }
        }
        Ok(())
    }
}

/// Begins to count on the connection that writes. A store that was never counted is counted now.
pub(super) fn begin(database: &Connection) -> Result<(), rusqlite::Error> {
    let transaction = database.unchecked_transaction()?;
    transaction.execute_batch(
        "CREATE TABLE IF NOT EXISTS tally (name TEXT PRIMARY KEY, total INTEGER NOT NULL, crcs INTEGER NOT NULL)
            WITHOUT ROWID;",
    )?;
    for name in TABLES {
        if stored(&transaction, name)?.is_none() {
            let count =
                format!("INSERT INTO tally SELECT '{name}', count(*), coalesce(sum(crc), 0) FROM {name}");
            transaction.execute(&count, [])?;
        }
    }
    transaction.execute("INSERT OR IGNORE INTO tally VALUES (?1, 0, 0)", [COMMITS])?;
    transaction.commit()?;
    // Without this, REPLACE would fire no trigger for the row it replaces.
    database.pragma_update(None, "recursive_triggers", true)?;
    for name in TABLES {
        database.execute_batch(&format!(
            "CREATE TEMP TRIGGER {name}_in AFTER INSERT ON main.{name} BEGIN
                UPDATE tally SET total = total + 1, crcs = crcs + NEW.crc WHERE name = '{name}'; END;
            CREATE TEMP TRIGGER {name}_out AFTER DELETE ON main.{name} BEGIN
                UPDATE tally SET total = total - 1, crcs = crcs - OLD.crc WHERE name = '{name}'; END;
            CREATE TEMP TRIGGER {name}_change AFTER UPDATE ON main.{name} BEGIN
                UPDATE tally SET crcs = crcs - OLD.crc + NEW.crc WHERE name = '{name}'; END;"
        ))?;
    }
    Ok(())
}

/// Counts one more commit, in the transaction that is about to be committed; its number.
pub(super) fn count_commit(database: &Connection) -> Result<u64, rusqlite::Error> {
    database
        .prepare_cached("UPDATE tally SET total = total + 1 WHERE name = ?1 RETURNING total")?
        .query_row([COMMITS], |row| row.get(0))
}

/// The number of the last commit; 0 when none was counted yet.
pub(super) fn commits(database: &Connection) -> Result<u64, rusqlite::Error> {
    let total = database.query_row("SELECT total FROM tally WHERE name = ?1", [COMMITS], |row| row.get(0));
    Ok(total.optional()?.unwrap_or(0))
}

fn stored(database: &Connection, name: &str) -> Result<Option<Sum>, rusqlite::Error> {
    let mut statement = database.prepare_cached("SELECT total, crcs FROM tally WHERE name = ?1")?;
    let sum = statement.query_row(params![name], |row| Ok(Sum { rows: row.get(0)?, crcs: row.get(1)? }));
    sum.optional()
}

/// In the order of `CountedTable`. The table of subscriptions has kept its first name.
const TABLES: [&str; 6] = ["meta", "identity", "session", "c2d", "delivery", "feedback"];
/// The row that counts commits.
const COMMITS: &str = "commits";
