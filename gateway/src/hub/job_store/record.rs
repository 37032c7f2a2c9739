//! What is kept of a job: who asked for what, how far it is, how it ended. It survives the hub's restart; no secret is
//! in it.

use std::time::Duration;

use jiff::Timestamp;
use portcullis_registry::policy::Rights;
use serde::{Deserialize, Serialize};

use crate::auth::VerifiedService;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobKind {
    Import,
    Export,
    /// Takes back what an import changed.
    Rollback,
}

/// How far a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum JobState {
    Enqueued,
    Running,
    Completed,
    Failed,
    Cancelled,
}

/// A file that a job reads or writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFile {
    /// The container, without the query that opens it.
    pub container: String,
    pub file: String,
}

/// A job as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRecord {
    pub id: String,
    pub kind: JobKind,
    pub state: JobState,
    /// The shared access policy that asked for it.
    pub policy: String,
    /// The rights that policy had: who has fewer does not see the job.
    pub(crate) rights: u8,
    /// Nothing is changed; the results tell what would be.
    pub dry_run: bool,
    pub exclude_keys: bool,
    pub input: Option<JobFile>,
    pub output: Option<JobFile>,
    /// The import it takes back.
    pub rollback_of: Option<String>,
    pub created: Timestamp,
    pub started: Option<Timestamp>,
    pub ended: Option<Timestamp>,
    /// Why it failed.
    pub failure: Option<String>,
    /// What its results do not show by themselves.
    pub note: Option<String>,
    pub progress: JobProgress,
}

/// How much is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobProgress {
    /// Bytes or identities; none when nobody knows.
    pub total: Option<u64>,
    /// Of the total.
    pub done: u64,
    /// Lines read, or written.
    pub lines: u64,
    pub counts: LineCounts,
}

/// What became of the lines of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineCounts {
    pub created: u64,
    pub changed: u64,
    pub unchanged: u64,
    pub deleted: u64,
    pub refused: u64,
}

impl JobRecord {
    /// A job that `caller` asks for now.
    pub(crate) fn new(kind: JobKind, caller: &VerifiedService, now: Timestamp) -> Self {
        Self {
            id: new_id(),
            kind,
            state: JobState::Enqueued,
            policy: caller.policy().to_owned(),
            rights: caller.rights().bits(),
            dry_run: false,
            exclude_keys: false,
            input: None,
            output: None,
            rollback_of: None,
            created: now,
            started: None,
            ended: None,
            failure: None,
            note: None,
            progress: JobProgress::default(),
        }
    }

    /// The rights of whoever asked for it.
    pub fn rights(&self) -> Rights {
        Rights::from_bits(self.rights)
    }

    /// How much is done, in percent.
    pub fn percent(&self) -> u64 {
        if self.state == JobState::Completed {
            return 100;
        }
        match self.progress.total {
            Some(total) if total > 0 => (self.progress.done.saturating_mul(100) / total).min(99),
            _ => 0,
        }
    }

    /// How many lines a second it does, or did.
    pub fn lines_per_second(&self, now: Timestamp) -> u64 {
        let millis = self.running_time(now).as_millis().max(1);
        u64::try_from(u128::from(self.progress.lines) * 1000 / millis).unwrap_or(u64::MAX)
    }

    /// How long it will still take if it goes on like this; none when nobody can tell.
    pub fn time_left(&self, now: Timestamp) -> Option<Duration> {
        let total = self.progress.total?;
        if self.state != JobState::Running || self.progress.done == 0 {
            return None;
        }
        let left = total.saturating_sub(self.progress.done) as f64 / self.progress.done as f64;
        Some(self.running_time(now).mul_f64(left))
    }

    fn running_time(&self, now: Timestamp) -> Duration {
        let started = self.started.unwrap_or(now);
        let span = self.ended.unwrap_or(now).duration_since(started);
        Duration::try_from(span).unwrap_or_default()
    }
}

impl JobState {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        match self {
            JobState::Enqueued | JobState::Running => false,
            JobState::Completed | JobState::Failed | JobState::Cancelled => true,
        }
    }

    /// IoT Hub's word.
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Enqueued => "enqueued",
            JobState::Running => "running",
            JobState::Completed => "completed",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
        }
    }
}

impl JobKind {
    pub fn as_str(self) -> &'static str {
        match self {
            JobKind::Import => "import",
            JobKind::Export => "export",
            JobKind::Rollback => "rollback",
        }
    }
}

/// A random id in the form IoT Hub's have.
fn new_id() -> String {
    let hex: String =
        portcullis_registry::random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
