//! The audit record: who changed what, from where, and how it went. Append-only, one JSON object a line, chained.
//!
//! Each line holds the SHA-256 of the line before it, so that a line changed or taken out later shows. A change is
//! answered after its line is written; lines are synced within a second, so a kill loses none and a power cut
//! the last second's at most. A line that cannot be written stops no change: it is counted, and the next line that
//! can be written says how many are missing. Secrets never come here: an entry has no place for one.
//!
//! Changes that are made together are recorded together: one message to the writer, one write and one wait, however
//! many lines. An answer that shows keys does not wait for its line to be written, only for room in the queue.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_registry::thread;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::auth::{Origin, VerifiedService};
use effect::Effect;
use syncer::Syncer;
use writer::AuditWriter;

pub mod effect;
mod syncer;
pub mod trail;
mod writer;

/// What was asked for. The words are a promise to whoever reads the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Operation {
    CreateIdentity,
    UpdateIdentity,
    DeleteIdentity,
    RevealCredential,
    SendMessage,
    PurgeQueue,
    CreatePolicy,
    RegeneratePolicy,
    DeletePolicy,
    EnrolAuthority,
    RenewAuthorityCode,
    VerifyAuthority,
    RemoveAuthority,
    StartJob,
    CancelJob,
    /// With the reason if it failed or was cancelled.
    EndJob,
}

/// One change, done or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEntry {
    pub time: Timestamp,
    /// The shared access policy that asked.
    pub policy: String,
    pub origin: Origin,
    pub operation: Operation,
    /// An identity, as `device` or `device/module`, or another thing's name.
    pub target: String,
    /// The job that did it, if one did.
    pub job: Option<Arc<str>>,
    pub effect: Effect,
    /// Why it was not done.
    pub refused: Option<String>,
}

impl AuditEntry {
    /// Something `caller` asked for and got; the fields may be set otherwise.
    pub fn of(caller: &VerifiedService, operation: Operation, target: String, time: Timestamp) -> Self {
        Self {
            time,
            policy: caller.policy().to_owned(),
            origin: caller.origin(),
            operation,
            target,
            job: None,
            effect: Effect::default(),
            refused: None,
        }
    }
}

/// The record of one hub.
#[derive(Debug)]
pub struct Audit {
    directory: PathBuf,
    queue: mpsc::Sender<QueuedEntries>,
    missing: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// Entries and who waits for them to be written.
enum QueuedEntries {
    Written {
        entries: Vec<AuditEntry>,
        done: oneshot::Sender<()>,
    },
    /// Nobody waits.
    Noted(AuditEntry),
    /// No more come.
    End,
}

impl Audit {
    /// Goes on with the record in `directory`, or begins one there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let missing = Arc::new(AtomicU64::new(0));
        let writer = AuditWriter::open(directory, Arc::clone(&missing))?;
        let syncer = Syncer::start(Arc::clone(writer.file()))?;
        let (queue, entries) = mpsc::channel(QUEUED_MAX);
        let thread = thread::start("audit-writer", move || writer.run(entries, syncer))?;
        Ok(Self { directory: directory.to_owned(), queue, missing, thread: Mutex::new(Some(thread)) })
    }

    /// Adds an entry; returns once it is written, or counted as missing.
    pub async fn record(&self, entry: AuditEntry) {
        self.record_all(vec![entry]).await;
    }

    /// Adds entries in their order, one after the other; returns once they are written, or counted as missing.
    pub async fn record_all(&self, entries: Vec<AuditEntry>) {
        if entries.is_empty() {
            return;
        }
        let (count, (done, written)) = (entries.len() as u64, oneshot::channel());
        // The writer counts what it cannot write. A writer that broke off counts nothing.
        if self.send(QueuedEntries::Written { entries, done }).await && written.await.is_err() {
            self.missing.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Adds an entry without waiting until it is written: for reads, which must not become as slow as the disk. It waits
    /// at most [`ROOM_TIME_MAX`] for room in the queue. An entry that finds none, or that cannot be written, is counted
    /// as missing.
    pub async fn note(&self, entry: AuditEntry) {
        if tokio::time::timeout(ROOM_TIME_MAX, self.send(QueuedEntries::Noted(entry))).await.is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether the writer gets them. After the end of the record it gets none, and they are counted as missing.
    async fn send(&self, entries: QueuedEntries) -> bool {
        let Err(mpsc::error::SendError(unsent)) = self.queue.send(entries).await else { return true };
        self.missing.fetch_add(unsent.entries().len() as u64, Ordering::Relaxed);
        false
    }

    /// Entries that could not be written and that no line tells of yet.
    pub fn missing(&self) -> u64 {
        self.missing.load(Ordering::Relaxed)
    }

    /// Where the record is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes what is left and closes the record. Blocks.
    pub fn close(&self) {
        // Without its thread there is nobody to ask to end; why it ended shows below.
        let _ = self.queue.blocking_send(QueuedEntries::End);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the audit record broke off; the last entries may be missing");
        }
    }
}

impl QueuedEntries {
    fn entries(&self) -> &[AuditEntry] {
        match self {
            QueuedEntries::Written { entries, .. } => entries,
            QueuedEntries::Noted(entry) => std::slice::from_ref(entry),
            QueuedEntries::End => &[],
        }
    }
}

/// How long an entry that nobody waits for may wait for room in the queue.
const ROOM_TIME_MAX: Duration = Duration::from_secs(1);
/// Entries, or entries made together, that may wait for the writer.
const QUEUED_MAX: usize = 1024;
