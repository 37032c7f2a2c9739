//! The thread that writes the record: numbers and chains the lines, and begins a new file when one is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis_registry::durable_file;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::trail::{self, CURRENT};
use super::{AuditEntry, Operation, QueuedLine};

/// The end of the record, as the one thread that writes it holds it.
pub(super) struct AuditWriter {
    directory: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
    next_number: u64,
    /// SHA-256 of the last line, in hex.
    previous: String,
    missing: Arc<AtomicU64>,
    synced: Instant,
}

/// A line as it is written. `previous` is last, for eyes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AuditLineOut<'a> {
    number: u64,
    time: String,
    actor: &'a str,
    source: &'static str,
    ip: String,
    op: Operation,
    target: &'a str,
    etag_before: Option<String>,
    etag_after: Option<String>,
    result: &'a str,
    /// Entries before this one that could not be written.
    #[serde(skip_serializing_if = "is_zero")]
    missing: u64,
    previous: &'a str,
}

impl AuditWriter {
    /// Goes on behind the last whole line. What a cut left of a line is closed off with a line end and stays.
    pub(super) fn open(directory: &Path, missing: Arc<AtomicU64>) -> io::Result<Self> {
        let last = trail::last(directory)?;
        let mut file = append(&directory.join(CURRENT))?;
        let mut bytes = file.metadata()?.len();
        if trail::is_cut(directory)? {
            file.write_all(b"\n")?;
            bytes += 1;
        }
        let (next_number, previous) = match last {
            Some((number, line)) => (number + 1, digest(&line)),
            None => (1, String::new()),
        };
        Ok(Self {
            directory: directory.to_owned(),
            file,
            bytes,
            bytes_max: FILE_BYTES_MAX,
            next_number,
            previous,
            missing,
            synced: Instant::now(),
        })
    }

    pub(super) fn run(mut self, mut queue: mpsc::Receiver<QueuedLine>) {
        let mut batch = Vec::new();
        let mut ending = false;
        while !ending && queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            for QueuedLine { entry, written } in batch.drain(..) {
                let Some(entry) = entry else {
                    ending = true;
                    continue;
                };
                match self.write(&entry) {
                    Ok(()) => _ = written.send(()),
                    // Dropping `written` tells whoever waits; it counts the line as missing.
                    Err(error) => tracing::error!(%error, "a line of the audit record cannot be written"),
                }
            }
            if ending || self.synced.elapsed() >= SYNC_PERIOD {
                self.sync();
            }
        }
    }

    fn write(&mut self, entry: &AuditEntry) -> io::Result<()> {
        if self.bytes >= self.bytes_max {
            self.begin_file()?;
        }
        let missing = self.missing.load(Ordering::Relaxed);
        let mut line = serde_json::to_string(&AuditLineOut {
            number: self.next_number,
            time: entry.time.to_string(),
            actor: &entry.policy,
            source: entry.origin.face.as_str(),
            ip: entry.origin.peer.to_string(),
            op: entry.operation,
            target: &entry.target,
            etag_before: entry.etag_before.as_ref().map(ToString::to_string),
            etag_after: entry.etag_after.as_ref().map(ToString::to_string),
            result: entry.refused.as_deref().unwrap_or(trail::DONE),
            missing,
            previous: &self.previous,
        })?;
        let previous = digest(line.as_bytes());
        line.push('\n');
        self.file.write_all(line.as_bytes()).inspect_err(|_| {
            // Half a line would hide the next one. If it stays, the check of the record finds it; the error that is
            // reported is the one of the line.
            let _ = self.file.set_len(self.bytes);
        })?;
        self.bytes += line.len() as u64;
        self.next_number += 1;
        self.previous = previous;
        self.missing.fetch_sub(missing, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the full file aside under the number of its last line, and drops the oldest beyond the number kept.
    fn begin_file(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let current = self.directory.join(CURRENT);
        durable_file::rename(&current, &self.directory.join(trail::file_name(self.next_number - 1)))?;
        self.file = append(&current)?;
        self.bytes = 0;
        let old = trail::old_files(&self.directory)?;
        for path in old.iter().take(old.len().saturating_sub(FILES_KEPT)) {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn sync(&mut self) {
        self.synced = Instant::now();
        if let Err(error) = self.file.sync_data() {
            tracing::error!(%error, "the audit record cannot be synced");
        }
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn digest(line: &[u8]) -> String {
    Sha256::digest(line).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

const BATCH_MAX: usize = 256;
const SYNC_PERIOD: Duration = Duration::from_secs(1);
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Full files kept beside the current one; the oldest goes first.
const FILES_KEPT: usize = 15;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::super::trail::{AuditFilter, Verified};
    use super::*;
    use crate::auth::{Face, Origin};

    fn entry(target: &str) -> AuditEntry {
        AuditEntry {
            time: Timestamp::UNIX_EPOCH,
            policy: "service".into(),
            origin: Origin { face: Face::Rest, peer: IpAddr::V4(Ipv4Addr::LOCALHOST) },
            operation: Operation::CreateIdentity,
            target: target.into(),
            etag_before: None,
            etag_after: None,
            refused: None,
        }
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let directory = TempDir::new().unwrap();
        let mut writer =
            AuditWriter { bytes_max: 1, ..AuditWriter::open(directory.path(), Arc::default()).unwrap() };
        for number in 0..20 {
            writer.write(&entry(&format!("d{number}"))).unwrap();
        }
        assert_eq!(trail::old_files(directory.path()).unwrap().len(), FILES_KEPT);
        assert_eq!(
            trail::verify(directory.path()).unwrap(),
            Verified { lines: FILES_KEPT as u64 + 1, cut: 0 }
        );
        let wanted = AuditFilter { count: 10, ..AuditFilter::default() };
        assert_eq!(trail::read(directory.path(), &wanted).unwrap().len(), 2);
        let writer = AuditWriter::open(directory.path(), Arc::default()).unwrap();
        assert_eq!(writer.next_number, 21);
    }

    #[test]
    fn lines_that_could_not_be_written_are_told_of_once() {
        let directory = TempDir::new().unwrap();
        let missing = Arc::new(AtomicU64::new(3));
        let mut writer = AuditWriter::open(directory.path(), Arc::clone(&missing)).unwrap();
        writer.write(&entry("d1")).unwrap();
        writer.write(&entry("d2")).unwrap();
        let wanted = AuditFilter { count: 10, ..AuditFilter::default() };
        let lines = trail::read(directory.path(), &wanted).unwrap();
        assert_eq!((lines[0]["missing"].as_u64(), lines[1]["missing"].as_u64()), (Some(3), None));
        assert_eq!(missing.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn t712_a_line_stays_one_line_whatever_is_in_it() {
        let directory = TempDir::new().unwrap();
        let mut writer = AuditWriter::open(directory.path(), Arc::default()).unwrap();
        let refused = Some("a\n\u{1b}[31mb".to_owned());
        writer.write(&AuditEntry { refused, ..entry("d1") }).unwrap();
        let text = fs::read_to_string(directory.path().join(CURRENT)).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
