//! SQLite with group commit and nothing around it: the floor for durable writes.

use std::path::Path;
use std::thread;

use anyhow::Context;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

type Put = (String, Vec<u8>, oneshot::Sender<()>);

/// A table of keys and values that one thread writes.
#[derive(Debug)]
pub struct BareStore(mpsc::Sender<Put>);

impl BareStore {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut database = Connection::open(path)?;
        database.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000;
            PRAGMA cache_size = -65536;
            CREATE TABLE identity (dev TEXT PRIMARY KEY, doc BLOB NOT NULL) WITHOUT ROWID;",
        )?;
        let (sender, mut puts) = mpsc::channel(4096);
        thread::spawn(move || {
            let mut batch: Vec<Put> = Vec::new();
            while puts.blocking_recv_many(&mut batch, 1024) > 0 {
                if commit(&mut database, &batch).is_err() {
                    return;
                }
                for (_, _, answer) in batch.drain(..) {
                    let _ = answer.send(());
                }
            }
        });
        Ok(Self(sender))
    }

    /// On stable storage when it returns.
    pub async fn put(&self, key: String, value: Vec<u8>) -> anyhow::Result<()> {
        let (answer, done) = oneshot::channel();
        self.0.send((key, value, answer)).await.ok().context("the writer is gone")?;
        done.await.context("not committed")
    }
}

fn commit(database: &mut Connection, batch: &[Put]) -> rusqlite::Result<()> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut insert = transaction.prepare_cached("INSERT INTO identity VALUES (?1, ?2)")?;
        for (key, value, _) in batch {
            insert.execute((key, value))?;
        }
    }
    transaction.commit()
}
