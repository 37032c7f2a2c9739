//! What became of each line: a file that tells of every one, and one of those that were refused in the form of IoT
//! Hub's `importErrors.log`.

use std::path::Path;

use serde::Serialize;
use tokio::fs::{File, OpenOptions};
use tokio::io::{self, AsyncWriteExt};

use super::line::LineRefusal;
use crate::hub::job_store::record::LineCounts;
use crate::iothub::change::NamedIdentity;

/// What became of one line.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) line: u64,
    pub(super) about: NamedIdentity,
    pub(super) outcome: LineOutcome,
    /// Its tags and desired properties went nowhere.
    pub(super) lost_twin: bool,
}

/// What was done, or would be in a dry run.
#[derive(Debug)]
pub(super) enum LineOutcome {
    Created,
    Changed,
    Unchanged,
    Deleted,
    Refused(LineRefusal),
}

/// Writes the results of a job.
#[derive(Debug)]
pub(super) struct Results {
    results: File,
    refused: File,
    unwritten: Vec<u8>,
    unwritten_refused: Vec<u8>,
    counts: LineCounts,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LineResultOut<'a> {
    line: u64,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<&'static str>,
}

/// IoT Hub's.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusedLineOut<'a> {
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    error_code: u32,
    error_status: &'a str,
}

impl LineOutcome {
    /// Whether the identity is there afterwards, as the line has it.
    pub(super) fn keeps_identity(&self) -> bool {
        match self {
            LineOutcome::Created | LineOutcome::Changed | LineOutcome::Unchanged => true,
            LineOutcome::Deleted | LineOutcome::Refused(_) => false,
        }
    }
}

impl Results {
    /// Begins both files in a job's directory.
    pub(super) async fn create(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        Ok(Self {
            results: options.open(directory.join(RESULTS)).await?,
            refused: options.open(directory.join(REFUSED)).await?,
            unwritten: Vec::new(),
            unwritten_refused: Vec::new(),
            counts: LineCounts::default(),
        })
    }

    pub(super) fn add(&mut self, done: &Done) {
        let counts = &mut self.counts;
        let (outcome, count) = match &done.outcome {
            LineOutcome::Created => ("created", &mut counts.created),
            LineOutcome::Changed => ("changed", &mut counts.changed),
            LineOutcome::Unchanged => ("unchanged", &mut counts.unchanged),
            LineOutcome::Deleted => ("deleted", &mut counts.deleted),
            LineOutcome::Refused(_) => ("refused", &mut counts.refused),
        };
        *count += 1;
        let refusal = match &done.outcome {
            LineOutcome::Refused(refusal) => Some(refusal),
            LineOutcome::Created | LineOutcome::Changed | LineOutcome::Unchanged | LineOutcome::Deleted => {
                None
            }
        };
        let module_id = done.about.module.as_deref();
        let result = LineResultOut {
            line: done.line,
            id: &done.about.device,
            module_id,
            outcome,
            error_code: refusal.map(|refusal| refusal.name),
            error: refusal.map(|refusal| refusal.text.as_str()),
            warning: done.lost_twin.then_some(NO_TWINS),
        };
        push(&mut self.unwritten, &result);
        if let Some(LineRefusal { code, text, .. }) = refusal {
            let nameless = format!("line {}: {text}", done.line);
            let error_status = if done.about.device.is_empty() { &nameless } else { text };
            let refused =
                RefusedLineOut { device_id: &done.about.device, module_id, error_code: *code, error_status };
            push(&mut self.unwritten_refused, &refused);
        }
    }

    /// Writes what was added so far.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        let parts =
            [(&mut self.results, &mut self.unwritten), (&mut self.refused, &mut self.unwritten_refused)];
        for (file, bytes) in parts {
            if !bytes.is_empty() {
                file.write_all(bytes).await?;
                file.flush().await?;
                bytes.clear();
            }
        }
        Ok(())
    }

    /// Returns once both files are on stable storage.
    pub(super) async fn sync(&mut self) -> io::Result<()> {
        self.flush().await?;
        self.results.sync_data().await?;
        self.refused.sync_data().await
    }

    pub(super) fn counts(&self) -> LineCounts {
        self.counts
    }
}

fn push(to: &mut Vec<u8>, line: &impl Serialize) {
    // Writing texts and numbers to memory cannot fail.
    let _ = serde_json::to_writer(&mut *to, line);
    to.push(b'\n');
}

/// What became of each line.
pub const RESULTS: &str = "results.txt";
/// The lines that were refused, under IoT Hub's name.
pub const REFUSED: &str = "importErrors.log";
const NO_TWINS: &str = "this hub keeps no twins: tags and desired properties are not stored";
