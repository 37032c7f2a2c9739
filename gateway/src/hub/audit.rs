//! The audit record: who changed what, from where, and how it went. Append-only, one JSON object a line, chained.
//!
//! Each line holds the SHA-256 of the line before it, so that a line changed or taken out later shows. A change is
//! answered after its line is written; lines are synced at least once a second, so a kill loses none and a power cut
//! the last second's at most. A line that cannot be written stops no change: it is counted, and the next line that
//! can be written says how many are missing. Secrets never come here: an entry has no place for one.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use jiff::Timestamp;
use portcullis_registry::id::ETag;
use portcullis_registry::thread;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::auth::{Origin, VerifiedService};
use writer::AuditWriter;

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
    pub etag_before: Option<ETag>,
    pub etag_after: Option<ETag>,
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
            etag_before: None,
            etag_after: None,
            refused: None,
        }
    }
}

/// The record of one hub.
#[derive(Debug)]
pub struct Audit {
    directory: PathBuf,
    lines: mpsc::Sender<QueuedLine>,
    missing: Arc<AtomicU64>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An entry and who waits for it to be written; an end when there is no entry.
struct QueuedLine {
    entry: Option<AuditEntry>,
    written: oneshot::Sender<()>,
}

impl Audit {
    /// Goes on with the record in `directory`, or begins one there.
    pub fn open(directory: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let missing = Arc::new(AtomicU64::new(0));
        let writer = AuditWriter::open(directory, Arc::clone(&missing))?;
        let (lines, queue) = mpsc::channel(LINES_MAX);
        let thread = thread::start("audit-writer", move || writer.run(queue))?;
        Ok(Self { directory: directory.to_owned(), lines, missing, thread: Mutex::new(Some(thread)) })
    }

    /// Adds an entry; returns once it is written, or counted as missing.
    pub async fn record(&self, entry: AuditEntry) {
        let (written, done) = oneshot::channel();
        let line = QueuedLine { entry: Some(entry), written };
        if self.lines.send(line).await.is_err() || done.await.is_err() {
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
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
        let _ = self.lines.blocking_send(QueuedLine { entry: None, written: oneshot::channel().0 });
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the audit record broke off; the last entries may be missing");
        }
    }
}

/// Entries that may wait for the writer.
const LINES_MAX: usize = 1024;
