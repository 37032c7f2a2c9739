//! SQLite with group commit and nothing else: the floor for durable writes.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use rusqlite::{Connection, TransactionBehavior};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

type Put = (String, Vec<u8>, oneshot::Sender<()>);

/// Does `writes` writes from `writers` at once, each waiting for its own. Returns the time they take.
pub fn at_once<F, W>(runtime: &Runtime, writes: usize, writers: usize, write: F) -> anyhow::Result<Duration>
where
    F: Fn(usize) -> W + Clone + Send + 'static,
    W: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    runtime.block_on(async {
        let mut running = Vec::new();
        for _ in 0..writers {
            let (next, write) = (Arc::clone(&next), write.clone());
            running.push(tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= writes {
                        return anyhow::Ok(());
                    }
                    write(number).await?;
                }
            }));
        }
        for one in running {
            one.await??;
        }
        anyhow::Ok(())
    })?;
    Ok(began.elapsed())
}

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

    /// Returns once the value is on stable storage.
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
