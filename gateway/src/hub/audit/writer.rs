//! The thread that writes the record: numbers and chains the lines, and begins a new file when one is full.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use portcullis_registry::durable_file;
use serde::Serialize;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::effect::{ChangesOut, DetailsOut};
use super::syncer::{self, Syncer};
use super::trail::{self, CURRENT};
use super::{AuditEntry, Operation, QueuedEntries};

/// The end of the record, as the one thread that writes it holds it.
pub(super) struct AuditWriter {
    directory: PathBuf,
    file: Arc<File>,
    bytes: u64,
    bytes_max: u64,
    next_number: u64,
    /// SHA-256 of the last line, in hex.
    previous: String,
    missing: Arc<AtomicU64>,
    /// Whether the last lines could not be written; said once.
    is_failing: bool,
    /// A failed write left half a line that could not be taken back.
    is_cut: bool,
    /// Lines that are written together.
    lines: Vec<u8>,
}

/// A line as it is written. `previous` is last, for eyes. Members that say nothing are left out, as the lines of earlier
/// versions leave out those they did not know.
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
    #[serde(skip_serializing_if = "ChangesOut::is_empty")]
    changes: ChangesOut<'a>,
    #[serde(skip_serializing_if = "DetailsOut::is_empty")]
    details: DetailsOut<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    job: Option<&'a str>,
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
            file: Arc::new(file),
            bytes,
            bytes_max: FILE_BYTES_MAX,
            next_number,
            previous,
            missing,
            is_failing: false,
            is_cut: false,
            lines: Vec::new(),
        })
    }

    /// Writes what comes until the end.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<QueuedEntries>, syncer: Syncer) {
        let mut batch = Vec::new();
        while queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            for queued in batch.drain(..) {
                self.write(queued.entries());
                match queued {
                    // Whoever waits may have gone.
                    QueuedEntries::Written { done, .. } => _ = done.send(()),
                    QueuedEntries::Noted(_) => {}
                    // What waits behind the end is written too; what comes later is refused, and counted.
                    QueuedEntries::End => queue.close(),
                }
            }
            syncer.notify(&self.file);
        }
        syncer.end();
        syncer::sync(&self.file);
    }

    /// The file that is written now.
    pub(super) fn file(&self) -> &Arc<File> {
        &self.file
    }

    /// Writes entries as lines; those that cannot be written are counted as missing.
    fn write(&mut self, entries: &[AuditEntry]) {
        let mut rest = entries;
        while !rest.is_empty() {
            match self.write_first(rest) {
                Ok(count) => {
                    self.is_failing = false;
                    rest = &rest[count..];
                }
                Err(error) => {
                    self.missing.fetch_add(rest.len() as u64, Ordering::Relaxed);
                    if !std::mem::replace(&mut self.is_failing, true) {
                        tracing::error!(%error, "lines of the audit record cannot be written");
                    }
                    return;
                }
            }
        }
    }

    /// Writes the first of these entries, as many as fill the file; how many. On an error none is written.
    fn write_first(&mut self, entries: &[AuditEntry]) -> io::Result<usize> {
        if self.bytes >= self.bytes_max {
            self.begin_file()?;
        }
        let missing = self.missing.load(Ordering::Relaxed);
        let (mut number, mut previous) = (self.next_number, self.previous.clone());
        self.lines.clear();
        if self.is_cut {
            self.lines.push(b'\n');
        }
        let mut count = 0;
        for entry in entries {
            if self.bytes + self.lines.len() as u64 >= self.bytes_max && count > 0 {
                break;
            }
            let start = self.lines.len();
            let missing = if count == 0 { missing } else { 0 };
            serde_json::to_writer(&mut self.lines, &AuditLineOut::new(entry, number, missing, &previous))?;
            previous = digest(&self.lines[start..]);
            self.lines.push(b'\n');
            number += 1;
            count += 1;
        }
        if let Err(error) = (&*self.file).write_all(&self.lines) {
            // Half a line must not take the next one along: it goes, or it is closed off before the next.
            self.is_cut = self.file.set_len(self.bytes).is_err();
            return Err(error);
        }
        self.is_cut = false;
        self.bytes += self.lines.len() as u64;
        self.next_number = number;
        self.previous = previous;
        self.missing.fetch_sub(missing, Ordering::Relaxed);
        Ok(count)
    }

    /// Puts the full file aside under the number of its last line, and drops the oldest beyond the number kept.
    fn begin_file(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        let current = self.directory.join(CURRENT);
        match durable_file::rename(&current, &self.directory.join(trail::file_name(self.next_number - 1))) {
            // An earlier try put it aside and failed behind that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed?,
        }
        self.file = Arc::new(append(&current)?);
        self.bytes = 0;
        self.is_cut = false;
        if let Err(error) = self.drop_old_files() {
            tracing::warn!(%error, "old files of the audit record cannot be removed");
        }
        // The name of the new file is on stable storage before a line in it counts as written.
        File::open(&self.directory)?.sync_all()
    }

    fn drop_old_files(&self) -> io::Result<()> {
        let old = trail::old_files(&self.directory)?;
        old.iter().take(old.len().saturating_sub(FILES_KEPT)).try_for_each(fs::remove_file)
    }
}

impl<'a> AuditLineOut<'a> {
    fn new(entry: &'a AuditEntry, number: u64, missing: u64, previous: &'a str) -> Self {
        let AuditEntry { time, policy, origin, operation, target, job, effect, refused } = entry;
        Self {
            number,
            time: time.to_string(),
            actor: policy,
            source: origin.face.as_str(),
            ip: origin.peer.to_string(),
            op: *operation,
            target,
            etag_before: effect.etag_before.as_ref().map(ToString::to_string),
            etag_after: effect.etag_after.as_ref().map(ToString::to_string),
            changes: ChangesOut(&effect.changes),
            details: DetailsOut(&effect.details),
            job: job.as_deref(),
            result: refused.as_deref().unwrap_or(trail::DONE),
            missing,
            previous,
        }
    }
}

/// SHA-256 in lower-case hex.
pub(super) fn digest(line: &[u8]) -> String {
    let digest = Sha256::digest(line);
    let digit = |half: u8| char::from(HEX_DIGITS[usize::from(half)]);
    digest.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";
const BATCH_MAX: usize = 256;
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Full files kept beside the current one; the oldest goes first.
const FILES_KEPT: usize = 15;

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use jiff::Timestamp;
    use tempfile::TempDir;

    use super::super::effect::{Effect, FieldChange};
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
            job: None,
            effect: Effect::default(),
            refused: None,
        }
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_go() {
        let directory = TempDir::new().unwrap();
        let mut writer =
            AuditWriter { bytes_max: 1, ..AuditWriter::open(directory.path(), Arc::default()).unwrap() };
        for number in 0..20 {
            writer.write(&[entry(&format!("d{number}"))]);
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
    fn a_file_that_was_put_aside_in_vain_is_followed_by_a_new_one() {
        let directory = TempDir::new().unwrap();
        let mut writer =
            AuditWriter { bytes_max: 1, ..AuditWriter::open(directory.path(), Arc::default()).unwrap() };
        writer.write(&[entry("d1")]);
        // As a try leaves it that finds no file handle for the new file.
        let aside = directory.path().join(trail::file_name(1));
        fs::rename(directory.path().join(CURRENT), aside).unwrap();
        writer.write(&[entry("d2"), entry("d3")]);
        assert_eq!(writer.missing.load(Ordering::Relaxed), 0);
        assert_eq!(trail::verify(directory.path()).unwrap(), Verified { lines: 3, cut: 0 });
    }

    #[test]
    fn what_waits_behind_the_end_is_written_and_what_comes_later_is_refused() {
        let directory = TempDir::new().unwrap();
        let writer = AuditWriter::open(directory.path(), Arc::default()).unwrap();
        let syncer = Syncer::start(Arc::clone(writer.file())).unwrap();
        let (sender, queue) = mpsc::channel(8);
        for queued in [QueuedEntries::End, QueuedEntries::Noted(entry("d1"))] {
            assert!(sender.try_send(queued).is_ok());
        }
        writer.run(queue, syncer);
        assert_eq!(trail::verify(directory.path()).unwrap(), Verified { lines: 1, cut: 0 });
        assert!(sender.try_send(QueuedEntries::End).is_err());
    }

    #[test]
    fn half_a_line_takes_no_whole_one_along() {
        let directory = TempDir::new().unwrap();
        let mut writer = AuditWriter::open(directory.path(), Arc::default()).unwrap();
        writer.write(&[entry("d1")]);
        // As a failed write leaves it whose rest cannot be taken back.
        (&*writer.file).write_all(b"{\"number\":2,").unwrap();
        writer.is_cut = true;
        writer.write(&[entry("d2")]);
        assert_eq!(trail::verify(directory.path()).unwrap(), Verified { lines: 2, cut: 1 });
    }

    #[test]
    fn lines_written_together_fill_file_after_file_in_one_chain() {
        let directory = TempDir::new().unwrap();
        let mut writer =
            AuditWriter { bytes_max: 1024, ..AuditWriter::open(directory.path(), Arc::default()).unwrap() };
        let entries: Vec<_> = (0..20).map(|number| entry(&format!("d{number}"))).collect();
        writer.write(&entries);
        let old = trail::old_files(directory.path()).unwrap();
        assert!((2..FILES_KEPT).contains(&old.len()), "{old:?}");
        for path in old {
            let bytes = fs::metadata(path).unwrap().len();
            assert!((1024..2048).contains(&bytes), "{bytes}");
        }
        assert_eq!(trail::verify(directory.path()).unwrap(), Verified { lines: 20, cut: 0 });
    }

    #[test]
    fn a_record_of_an_earlier_version_goes_on_and_its_chain_is_whole() {
        let directory = TempDir::new().unwrap();
        // As they were written before there was anything about what changed.
        let first = concat!(
            r#"{"number":1,"time":"2026-01-01T00:00:00Z","actor":"service","source":"rest","ip":"127.0.0.1","#,
            r#""op":"createIdentity","target":"d1","etagBefore":null,"etagAfter":"AAAAAAAAAAE=","result":"done","previous":""}"#
        );
        let previous: String = Sha256::digest(first).iter().map(|byte| format!("{byte:02x}")).collect();
        let second = first
            .replace("\"number\":1", "\"number\":2")
            .replace("\"previous\":\"\"", &format!("\"previous\":\"{previous}\""));
        fs::write(directory.path().join(CURRENT), format!("{first}\n{second}\n")).unwrap();
        let mut writer = AuditWriter::open(directory.path(), Arc::default()).unwrap();
        let change = FieldChange::Secret { field: "primaryKey" };
        let effect = Effect { changes: vec![change], ..Effect::default() };
        writer.write(&[AuditEntry { effect, ..entry("d1") }]);
        assert_eq!(trail::verify(directory.path()).unwrap(), Verified { lines: 3, cut: 0 });
        let lines =
            trail::read(directory.path(), &AuditFilter { count: 10, ..AuditFilter::default() }).unwrap();
        assert_eq!(trail::effect_text(&lines[1]), "");
        assert_eq!(lines[2]["changes"], serde_json::json!({"primaryKey": "changed"}));
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_next_one_tells() {
        let directory = TempDir::new().unwrap();
        let missing = Arc::new(AtomicU64::new(0));
        let mut writer = AuditWriter::open(directory.path(), Arc::clone(&missing)).unwrap();
        let path = directory.path().join(CURRENT);
        // A file that takes no writes.
        let file = std::mem::replace(&mut writer.file, Arc::new(File::open(&path).unwrap()));
        writer.write(&[entry("d1"), entry("d2")]);
        assert_eq!(missing.load(Ordering::Relaxed), 2);
        writer.file = file;
        writer.write(&[entry("d3")]);
        let lines =
            trail::read(directory.path(), &AuditFilter { count: 10, ..AuditFilter::default() }).unwrap();
        assert_eq!(
            (lines.len(), lines[0]["number"].as_u64(), lines[0]["missing"].as_u64()),
            (1, Some(1), Some(2))
        );
        assert_eq!(missing.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn lines_that_could_not_be_written_are_told_of_once() {
        let directory = TempDir::new().unwrap();
        let missing = Arc::new(AtomicU64::new(3));
        let mut writer = AuditWriter::open(directory.path(), Arc::clone(&missing)).unwrap();
        writer.write(&[entry("d1"), entry("d2")]);
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
        let before = serde_json::json!("a\n\u{1b}[31mb");
        let change = FieldChange::Open { field: "statusReason", before, after: serde_json::Value::Null };
        let effect = Effect { changes: vec![change], ..Effect::default() };
        writer.write(&[AuditEntry { refused, effect, ..entry("d1") }]);
        let text = fs::read_to_string(directory.path().join(CURRENT)).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
