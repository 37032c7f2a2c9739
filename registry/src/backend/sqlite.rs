//! The embedded backend: one SQLite file, one thread that writes it, group commit.
//!
//! Layout of the directory: `hub.db` with its WAL, `lock` (held while open), and `store.id`, which shows that there is
//! a store and how far it got, so that neither a missing file nor an older one is taken for the registry. Every row
//! carries a CRC32C, and each table's rows are tallied; what does not fit stops the start.
//! After an I/O error nothing is acknowledged any more; a failed sync is never tried again.

use std::fs::File;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, Change, ChangeFeed, Mutation, StoreError, Submitted, Written};
use crate::thread::start;
use apply::{Rejection, apply};
use load::{load, stored_revision};
use mark::Mark;
use open::{open_database, open_directory};
use row::unusable;

mod apply;
mod load;
mod mark;
mod migrate;
mod open;
mod row;
pub(crate) mod snapshot;
mod tally;
#[cfg(test)]
mod tests;

/// The store in one directory.
#[derive(Debug)]
pub struct SqliteBackend {
    writes: mpsc::Sender<PendingWrite>,
    writer: Mutex<Option<StoreWriter>>,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

/// One write, and where its caller waits for the outcome.
#[derive(Debug)]
struct PendingWrite {
    mutations: Vec<Mutation>,
    answer: Option<oneshot::Sender<Result<Vec<Written>, StoreError>>>,
}

/// What only the writing thread touches, once started.
#[derive(Debug)]
struct StoreWriter {
    database: Connection,
    writes: mpsc::Receiver<PendingWrite>,
    mark: Mark,
    next_revision: u64,
    /// Keeps a second process out for as long as it is open.
    _lock: File,
}

impl SqliteBackend {
    /// Opens the store in `directory`, or makes one there when the directory is new or empty.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = open_directory(directory)?;
        let (database, mark) = open_database(directory)?;
        let next_revision = database
            .query_row("SELECT coalesce(max(rev), 0) FROM identity", [], |row| row.get::<_, u64>(0))
            .map_err(|error| unusable(&error))?
            .max(stored_revision(&database)?)
            + 1;
        let (sender, writes) = mpsc::channel(WRITES_MAX);
        let writer = StoreWriter { database, mark, writes, next_revision, _lock: lock };
        Ok(Self { writes: sender, writer: Mutex::new(Some(writer)), thread: Mutex::default() })
    }
}

impl Backend for SqliteBackend {
    fn load(&self, visit: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = guard.as_ref().ok_or(StoreError::Unavailable)?;
        load(&writer.database, visit)
    }

    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError> {
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(StoreError::Unavailable)?;
        let spawned = start("store-writer", move || writer.run(&feed));
        let handle = spawned
            .map_err(|error| StoreError::Fatal(format!("the store's thread cannot be started: {error}")))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(())
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let write = PendingWrite { mutations, answer: Some(answer) };
            self.writes.send(write).await.map_err(|_| StoreError::Unavailable)?;
            outcome.await.map_err(|_| StoreError::Unavailable)?
        })
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        self.writes.try_send(PendingWrite { mutations, answer: None }).is_ok()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.writes.closed())
    }

    fn close(&self) -> Result<(), StoreError> {
        // An empty write makes the writer finish. A writer that has ended takes none, and its thread holds the error.
        let _ = self.writes.blocking_send(PendingWrite { mutations: Vec::new(), answer: None });
        let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        thread.join().unwrap_or_else(|_| Err(StoreError::Fatal("the store's thread panicked".into())))
    }
}

impl StoreWriter {
    /// Writes batch after batch until an empty write comes or the disk fails.
    fn run(mut self, feed: &ChangeFeed) -> Result<(), StoreError> {
        let mut batch = Vec::new();
        let mut finishing = false;
        while !finishing && self.writes.blocking_recv_many(&mut batch, BATCH_WRITES_MAX) > 0 {
            finishing = batch.iter().any(|write| write.mutations.is_empty());
            if let Err(error) = self.write(&mut batch, feed) {
                tracing::error!(%error, "the store failed; nothing is acknowledged any more");
                return Err(error);
            }
        }
        self.writes.close();
        self.finish()
    }

    /// Leaves the files tidy. Nothing acknowledged depends on it: what is in the WAL is as safe as what is in the
    /// database, and the mark is never ahead.
    fn finish(self) -> Result<(), StoreError> {
        let checkpoint = self.database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
        let synced = self.mark.sync();
        let closed = self.database.close().map_err(|(_, error)| error);
        checkpoint.and(closed).map_err(|error| {
            StoreError::Fatal(format!("the store's file could not be tidied up; nothing is lost: {error}"))
        })?;
        synced.map_err(|error| {
            StoreError::Fatal(format!("store.id could not be synced; nothing is lost: {error}"))
        })
    }

    /// One transaction for the whole batch. An error means the store can no longer be trusted.
    fn write(&mut self, batch: &mut Vec<PendingWrite>, feed: &ChangeFeed) -> Result<(), StoreError> {
        match self.commit(batch) {
            Ok(committed) => {
                self.mark.write(committed.number).map_err(|error| {
                    StoreError::Fatal(format!("the mark beside the store cannot be written: {error}"))
                })?;
                committed.publish(batch, feed);
                Ok(())
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                tracing::warn!("the disk is full; writes are refused until it is not");
                batch.drain(..).for_each(|write| write.reply(Err(StoreError::DiskFull)));
                Ok(())
            }
            Err(error) => {
                batch.drain(..).for_each(|write| write.reply(Err(StoreError::Unavailable)));
                Err(unusable(&error))
            }
        }
    }

    fn commit(&mut self, batch: &[PendingWrite]) -> Result<Committed, rusqlite::Error> {
        let mut next_revision = self.next_revision;
        let mut committed = Committed::default();
        let mut transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for write in batch {
            let before = (committed.changes.len(), next_revision);
            match apply_all(&mut transaction, &write.mutations, &mut next_revision, &mut committed.changes) {
                Ok(written) => committed.outcomes.push(Ok(written)),
                Err(Rejection::Refused(error)) => {
                    committed.changes.truncate(before.0);
                    next_revision = before.1;
                    committed.outcomes.push(Err(error));
                }
                Err(Rejection::Database(error)) => return Err(error),
            }
        }
        committed.number = tally::count_commit(&transaction)?;
        transaction.commit()?;
        self.next_revision = next_revision;
        Ok(committed)
    }
}

/// Does all of `mutations` or none of them.
fn apply_all(
    transaction: &mut Transaction<'_>,
    mutations: &[Mutation],
    next_revision: &mut u64,
    changes: &mut Vec<Change>,
) -> Result<Vec<Written>, Rejection> {
    // One alone needs no way back: it is judged before it writes.
    if let [mutation] = mutations {
        return Ok(vec![apply(transaction, mutation, next_revision, changes)?]);
    }
    // Rolls back when dropped.
    let savepoint = transaction.savepoint()?;
    let mut written = Vec::with_capacity(mutations.len());
    for mutation in mutations {
        written.push(apply(&savepoint, mutation, next_revision, changes)?);
    }
    savepoint.commit()?;
    Ok(written)
}

/// What a transaction has done.
#[derive(Debug, Default)]
struct Committed {
    /// One for each write.
    outcomes: Vec<Result<Vec<Written>, StoreError>>,
    changes: Vec<Change>,
    /// Which commit it is.
    number: u64,
}

impl Committed {
    /// Gives the changes to the feed, then answers the callers that wait for them.
    fn publish(self, batch: &mut Vec<PendingWrite>, feed: &ChangeFeed) {
        self.changes.into_iter().for_each(feed);
        for (write, outcome) in batch.drain(..).zip(self.outcomes) {
            write.reply(outcome);
        }
    }
}

impl PendingWrite {
    /// Answers the caller, if one waits.
    fn reply(self, outcome: Result<Vec<Written>, StoreError>) {
        if let Some(answer) = self.answer {
            // The caller may be gone; the write stands.
            let _ = answer.send(outcome);
        }
    }
}

/// Writes that may wait for the writer.
const WRITES_MAX: usize = 4096;
/// Writes in one transaction at most.
const BATCH_WRITES_MAX: usize = 1024;
