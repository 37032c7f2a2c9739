//! A file that takes hours to write, and that can be continued after a kill at any moment.
//!
//! The lines go to `FILE.part`. `FILE.resume` holds the position in the hub. Neither file has to be right to the last
//! line, because the lines tell what is written: an incomplete line is dropped and read again, and an existing line is
//! not written again. Only the complete file gets its name.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use portcullis_registry::durable_file;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::line::Tally;
use crate::exit::{Exit, Failure};
use crate::output::scalar;

/// A file that is being written.
pub(super) struct Unfinished {
    path: PathBuf,
    part: File,
    /// Hashes of the ids of all lines. A million ids take 16 MB.
    written: HashSet<u128>,
    tally: Tally,
    bytes: u64,
    pub(super) place: Cursor,
}

/// The position in the hub of the next lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// The hub. Lines of another hub must not go into the same file.
    pub(super) host: String,
    /// Whether the lines have keys.
    pub(super) with_keys: bool,
    /// Whether all devices are written.
    pub(super) at_modules: bool,
    /// The hub's continuation token; none at the beginning of devices or modules.
    pub(super) continuation: Option<String>,
    /// How many bytes of lines are on stable storage.
    pub(super) bytes: u64,
}

impl Unfinished {
    /// Starts a file, or continues one.
    pub(super) fn open(path: &Path, host: &str, with_keys: bool) -> Result<Self, Failure> {
        if path.exists() {
            return Err(Failure::new(Exit::Conflict, format!("{} exists already", path.display()))
                .with_hint("name another --output-file, or move this file"));
        }
        let begun =
            Cursor { host: host.to_owned(), with_keys, at_modules: false, continuation: None, bytes: 0 };
        let part_path = part(path);
        let failure = |error: io::Error| io_failure(&part_path, &error);
        let file = owned_by_one(&part_path)?;
        let mut unfinished = Self {
            path: path.to_owned(),
            part: file,
            written: HashSet::new(),
            tally: Tally::default(),
            bytes: 0,
            place: begun.clone(),
        };
        if unfinished.part.metadata().map_err(failure)?.len() > 0 {
            unfinished.place = read_cursor(path)?;
            unfinished.check_same(&begun)?;
            unfinished.read_lines()?;
        }
        unfinished.keep_cursor()?;
        Ok(unfinished)
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn has(&self, device: &str, module: Option<&str>) -> bool {
        self.written.contains(&hash(device, module))
    }

    /// Writes a line, unless the file has it.
    pub(super) fn write(&mut self, line: &str) -> Result<(), Failure> {
        let Some((id, parsed)) = read(line) else {
            return Err(Failure::error("the hub's answer has an identity without an id"));
        };
        if !self.written.insert(id) {
            return Ok(());
        }
        let written = self.part.write_all(format!("{line}\n").as_bytes());
        written.map_err(|error| io_failure(&part(&self.path), &error))?;
        self.bytes += line.len() as u64 + 1;
        self.tally.add(&parsed);
        Ok(())
    }

    /// Syncs all lines to storage, then saves the position after them.
    pub(super) fn keep_cursor(&mut self) -> Result<(), Failure> {
        self.part.sync_data().map_err(|error| io_failure(&part(&self.path), &error))?;
        self.place.bytes = self.bytes;
        let path = resume(&self.path);
        let place = serde_json::to_vec(&self.place).map_err(io::Error::from);
        let written = place.and_then(|place| durable_file::replace(&path, &place, 0o600));
        written.map_err(|error| io_failure(&path, &error))
    }

    /// Gives the complete file its name.
    pub(super) fn finish(mut self) -> Result<Tally, Failure> {
        self.keep_cursor()?;
        let end = || -> io::Result<()> {
            durable_file::rename(&part(&self.path), &self.path)?;
            fs::remove_file(resume(&self.path))
        };
        end().map_err(|error| io_failure(&self.path, &error))?;
        Ok(self.tally)
    }

    /// Removes the files if there is no line to continue after.
    pub(super) fn abandon_if_empty(self) {
        if self.bytes == 0 {
            // No identity is in them: a file that stays is gone on with next time.
            let _ = fs::remove_file(part(&self.path));
            let _ = fs::remove_file(resume(&self.path));
        }
    }

    fn check_same(&self, begun: &Cursor) -> Result<(), Failure> {
        let keys = |with_keys: bool| if with_keys { "with" } else { "without" };
        let of = |place: &Cursor| format!("{} {} keys", place.host, keys(place.with_keys));
        if (&self.place.host, self.place.with_keys) == (&begun.host, begun.with_keys) {
            return Ok(());
        }
        let part = part(&self.path);
        let message = format!("{} holds lines of {}, not of {}", part.display(), of(&self.place), of(begun));
        Err(Failure::new(Exit::Conflict, message)
            .with_hint("delete it to start again, or name another --output-file"))
    }

    /// Reads which lines are written, and drops an incomplete line at the end.
    fn read_lines(&mut self) -> Result<(), Failure> {
        let path = part(&self.path);
        let failure = |error: io::Error| io_failure(&path, &error);
        let mut reader = BufReader::new(&self.part);
        let mut line = Vec::new();
        loop {
            line.clear();
            reader.read_until(b'\n', &mut line).map_err(failure)?;
            let whole = line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok());
            let Some((id, parsed)) = whole.and_then(read) else { break };
            self.written.insert(id);
            self.tally.add(&parsed);
            self.bytes += line.len() as u64;
        }
        if self.bytes < self.place.bytes {
            let message = format!("{} is damaged after {} bytes", path.display(), self.bytes);
            return Err(Failure::error(message).with_hint("delete it to start again"));
        }
        self.part.set_len(self.bytes).map_err(failure)?;
        self.part.seek(SeekFrom::End(0)).map_err(failure)?;
        Ok(())
    }
}

/// Opens the part, or creates it readable by its owner only, because it holds keys. Only one process may have it open.
fn owned_by_one(path: &Path) -> Result<File, Failure> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(path).map_err(|error| io_failure(path, &error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err(Failure::new(Exit::Conflict, format!("{} is in use by another process", path.display())))
        }
        Err(TryLockError::Error(error)) => Err(io_failure(path, &error)),
    }
}

fn read_cursor(path: &Path) -> Result<Cursor, Failure> {
    let path = resume(path);
    let text = fs::read_to_string(&path).map_err(|error| {
        io_failure(&path, &error)
            .with_hint("the part cannot be continued without it; delete the part to start again")
    })?;
    serde_json::from_str(&text).map_err(|error| Failure::error(format!("{}: {error}", path.display())))
}

/// The identity of a line as JSON, and the hash of its id.
fn read(line: &str) -> Option<(u128, Value)> {
    let parsed: Value = serde_json::from_str(line).ok()?;
    let device = scalar(&parsed, "/id");
    let module = parsed.get("moduleId").and_then(Value::as_str);
    let id = hash(&device, module);
    (!device.is_empty()).then_some((id, parsed))
}

/// Wide enough that no two ids of a fleet collide. No id contains a `/`.
fn hash(device: &str, module: Option<&str>) -> u128 {
    let digest = Sha256::digest(format!("{device}/{}", module.unwrap_or_default()));
    digest.iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

pub(super) fn part(path: &Path) -> PathBuf {
    path.with_added_extension("part")
}

fn resume(path: &Path) -> PathBuf {
    path.with_added_extension("resume")
}

fn io_failure(path: &Path, error: &io::Error) -> Failure {
    Failure::error(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn open(path: &Path) -> Unfinished {
        Unfinished::open(path, "hub", true).unwrap_or_else(|failure| panic!("{failure}"))
    }

    fn refused(path: &Path, host: &str, with_keys: bool) -> Failure {
        Unfinished::open(path, host, with_keys).err().expect("a refusal")
    }

    #[test]
    fn however_much_of_the_part_is_left_by_a_kill_each_line_is_there_once_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let lines = [r#"{"id":"a"}"#, r#"{"id":"a","moduleId":"m"}"#, r#"{"id":"ü"}"#, r#"{"id":"d"}"#];
        let whole: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let stable = lines[0].len() + 1;
        for cut in stable..=whole.len() {
            let path = directory.path().join(format!("{cut}.txt"));
            let mut file = open(&path);
            file.write(lines[0]).unwrap();
            file.place.continuation = Some("after a".into());
            file.keep_cursor().unwrap();
            for line in &lines[1..] {
                file.write(line).unwrap();
            }
            drop(file);
            OpenOptions::new().write(true).open(part(&path)).unwrap().set_len(cut as u64).unwrap();

            let mut file = open(&path);
            assert_eq!(file.place.continuation.as_deref(), Some("after a"));
            for line in lines {
                file.write(line).unwrap();
            }
            assert!(file.has("a", Some("m")) && !file.has("m", None));
            let tally = file.finish().unwrap();
            assert_eq!((tally.devices, tally.modules), (3, 1));
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
            assert!(!part(&path).exists() && !resume(&path).exists());
        }
    }

    #[test]
    fn zeros_after_a_power_cut_are_dropped_and_a_loss_of_what_was_stable_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices.txt");
        let mut file = open(&path);
        file.write(r#"{"id":"a"}"#).unwrap();
        file.keep_cursor().unwrap();
        drop(file);
        OpenOptions::new().append(true).open(part(&path)).unwrap().write_all(&[0; 4096]).unwrap();
        assert_eq!(open(&path).tally().lines(), 1);
        OpenOptions::new().write(true).open(part(&path)).unwrap().set_len(5).unwrap();
        assert!(refused(&path, "hub", true).to_string().contains("is damaged after 0 bytes"));
    }

    #[test]
    fn lines_of_different_hubs_are_not_mixed_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices.txt");
        let mut file = open(&path);
        file.write(r#"{"id":"a"}"#).unwrap();
        assert!(refused(&path, "hub", true).to_string().contains("by another process"));
        drop(file);
        assert!(
            refused(&path, "other", true)
                .to_string()
                .contains("holds lines of hub with keys, not of other with keys")
        );
        assert_eq!(refused(&path, "hub", false).exit(), Exit::Conflict);
        open(&path).finish().unwrap();
        assert!(refused(&path, "hub", true).to_string().contains("exists already"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\":\"a\"}\n");
    }

    #[test]
    fn others_cannot_read_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("devices.txt");
        open(&path).finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_was_never_begun_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        open(&directory.path().join("devices.txt")).abandon_if_empty();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
