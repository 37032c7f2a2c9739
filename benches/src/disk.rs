//! The possible contents of a disk after a power loss, from a log of the system calls that wrote to it.
//!
//! The log is strace's and holds every byte. A synced file holds what was written before the sync. Of later writes,
//! each block may be on the disk or not, in any order, in the state that any of the writes left. Blocks of 512 bytes
//! tear what a file system writes, those of 4,096 what it caches. The name of a new file is on the disk once the file
//! is synced, as on ext4, XFS and btrfs. The name of a removed file is gone once the directory is synced. file was
//! synced, as on ext4, XFS and btrfs; a removed one's is gone once the directory was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, bail, ensure};

/// One operation on a file, or one line of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Write {
        file: String,
        offset: usize,
        bytes: Vec<u8>,
    },
    Truncate {
        file: String,
        length: usize,
    },
    Sync {
        file: String,
    },
    /// The directory was synced, so removed names are gone.
    SyncNames,
    Remove {
        file: String,
    },
    /// The program wrote this to its standard output.
    Said(String),
}

/// The files on the disk, and the writes that are pending.
#[derive(Clone, Debug, Default)]
pub struct Disk(BTreeMap<String, File>);

#[derive(Clone, Debug, Default)]
struct File {
    synced: Option<Vec<u8>>,
    pending: Vec<Pending>,
}

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
    Remove,
}

/// Chooses a number below its argument.
pub type Chance<'a> = &'a mut dyn FnMut(usize) -> usize;

impl Disk {
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Write { file, offset, bytes } => {
                let write = Pending::Write { offset: *offset, bytes: bytes.clone() };
                self.0.entry(file.clone()).or_default().pending.push(write);
            }
            Event::Truncate { file, length } => {
                self.0.entry(file.clone()).or_default().pending.push(Pending::Truncate(*length));
            }
            Event::Remove { file } => self.0.entry(file.clone()).or_default().pending.push(Pending::Remove),
            Event::Sync { file } => {
                let file = self.0.entry(file.clone()).or_default();
                file.synced = file.written(&mut |_| 1, usize::MAX);
                if file.synced.is_none() && file.pending.is_empty() {
                    file.synced = Some(Vec::new());
                }
                file.pending.clear();
            }
            Event::SyncNames => self.0.values_mut().for_each(File::sync_name),
            Event::Said(_) => {}
        }
    }

    /// Writes into `directory` what may be left if power is lost now.
    pub fn lose_power(&self, directory: &Path, block: usize, chance: Chance<'_>) -> anyhow::Result<()> {
        for (name, file) in &self.0 {
            if let Some(content) = file.written(chance, block) {
                fs::write(directory.join(name), content)?;
            }
        }
        Ok(())
    }
}

impl File {
    fn sync_name(&mut self) {
        let removed = self.pending.iter().rposition(|pending| matches!(pending, Pending::Remove));
        if let Some(removed) = removed {
            self.synced = None;
            self.pending.drain(..=removed);
        }
    }

    /// The content if those blocks of the pending writes arrive for which `chance` of 2 is 1.
    fn written(&self, chance: Chance<'_>, block: usize) -> Option<Vec<u8>> {
        let mut content = self.synced.clone();
        for pending in &self.pending {
            match pending {
                Pending::Write { offset, bytes } => {
                    for (start, part) in blocks(*offset, bytes, block) {
                        if chance(2) == 1 {
                            let content = content.get_or_insert_default();
                            content.resize(content.len().max(start + part.len()), 0);
                            content[start..start + part.len()].copy_from_slice(part);
                        }
                    }
                }
                Pending::Truncate(length) if chance(2) == 1 => {
                    content.get_or_insert_default().resize(*length, 0)
                }
                Pending::Remove if chance(2) == 1 => content = None,
                Pending::Truncate(_) | Pending::Remove => {}
            }
        }
        content
    }
}

/// The parts of a write, split at the block boundaries of the file.
fn blocks(offset: usize, bytes: &[u8], block: usize) -> Vec<(usize, &[u8])> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    let mut start = offset;
    while !rest.is_empty() {
        let room = if block == usize::MAX { rest.len() } else { block - start % block };
        let (part, after) = rest.split_at(room.min(rest.len()));
        parts.push((start, part));
        start += part.len();
        rest = after;
    }
    parts
}

/// The arguments of strace for a log that `read_log` can parse.
pub const STRACE: &[&str] = &[
    "-f",
    "-qq",
    "-xx",
    "-s",
    "100000000",
    "-e",
    "trace=openat,close,pwrite64,write,ftruncate,fdatasync,fsync,unlink",
    "-e",
    "signal=none",
];

/// Parses strace's log: the operations on the files in `directory`, and the output.
pub fn read_log(log: &str, directory: &Path) -> anyhow::Result<Vec<Event>> {
    let names = directory.to_str().context("a path in UTF-8")?;
    let directory = format!("{names}/");
    let mut begun: HashMap<&str, &str> = HashMap::new();
    let mut open: HashMap<String, String> = HashMap::new();
    let mut events = Vec::new();
    for line in log.lines() {
        let (thread, call) = line.split_once(' ').with_context(|| format!("no call in {line:?}"))?;
        let call = call.trim_start();
        if let Some(beginning) = call.strip_suffix(" <unfinished ...>") {
            begun.insert(thread, beginning);
            continue;
        }
        let joined;
        let call = match call.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>")) {
            Some((_, end)) => {
                joined = format!("{}{end}", begun.remove(thread).context("resumed, never begun")?);
                &joined
            }
            None => call,
        };
        let Some((call, result)) = call.rsplit_once(" = ") else { bail!("no result in {call:?}") };
        if !result.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let (name, arguments) = call.split_once('(').context("no arguments")?;
        let arguments = arguments.trim_end().strip_suffix(')').context("no end")?;
        let arguments: Vec<&str> = arguments.split(", ").collect();
        let first = *arguments.first().context("no argument")?;
        // SQLite creates the files that it maps into memory anew at each start.
        let file = |path: &str| {
            if path == names {
                return Some(String::new());
            }
            let name = path.strip_prefix(&directory).filter(|name| !name.ends_with("-shm"));
            name.map(str::to_owned)
        };
        match name {
            "openat" => {
                let path = text(arguments.get(1).context("no path")?)?;
                match file(&path) {
                    Some(name) => open.insert(result.to_owned(), name),
                    None => open.remove(result),
                };
            }
            "close" => {
                open.remove(first);
            }
            "unlink" => {
                events.extend(file(&text(first)?).map(|file| Event::Remove { file }));
            }
            "write" if first == "1" => events.push(Event::Said(text(arguments[1])?)),
            _ => {
                let Some(file) = open.get(first).cloned() else { continue };
                events.push(match name {
                    "pwrite64" => {
                        let bytes = bytes(arguments[1])?;
                        ensure!(bytes.len().to_string() == result, "a write of which only a part was done");
                        Event::Write { file, offset: arguments[3].parse()?, bytes }
                    }
                    "ftruncate" => Event::Truncate { file, length: arguments[1].parse()? },
                    "fsync" if file.is_empty() => Event::SyncNames,
                    "fdatasync" | "fsync" => Event::Sync { file },
                    other => bail!("{other} on {file}"),
                });
            }
        }
    }
    Ok(events)
}

fn text(quoted: &str) -> anyhow::Result<String> {
    Ok(String::from_utf8(bytes(quoted)?)?)
}

/// Reads `"\x41\x42"`.
fn bytes(quoted: &str) -> anyhow::Result<Vec<u8>> {
    let inside = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let digits = inside.with_context(|| format!("not a whole string: {quoted:.40}"))?.replace("\\x", "");
    ensure!(digits.len() % 2 == 0 && digits.is_ascii(), "not hexadecimal: {quoted:.40}");
    (0..digits.len()).step_by(2).map(|at| Ok(u8::from_str_radix(&digits[at..at + 2], 16)?)).collect()
}

/// The files that a log names.
pub fn files(events: &[Event]) -> BTreeSet<String> {
    let name = |event: &Event| match event {
        Event::Write { file, .. }
        | Event::Truncate { file, .. }
        | Event::Sync { file }
        | Event::Remove { file } => Some(file.clone()),
        Event::SyncNames | Event::Said(_) => None,
    };
    events.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(bytes: &[u8], offset: usize) -> Event {
        Event::Write { file: "f".into(), offset, bytes: bytes.into() }
    }

    fn left(disk: &Disk, arrives: usize) -> Option<Vec<u8>> {
        disk.0["f"].written(&mut |_| arrives, 2)
    }

    #[test]
    fn what_was_synced_stays_and_what_was_not_may_go() {
        let mut disk = Disk::default();
        disk.apply(&write(b"abcd", 0));
        assert_eq!((left(&disk, 0), left(&disk, 1)), (None, Some(b"abcd".to_vec())));
        disk.apply(&Event::Sync { file: "f".into() });
        disk.apply(&write(b"XYZ", 1));
        assert_eq!(left(&disk, 0), Some(b"abcd".to_vec()));
        assert_eq!(left(&disk, 1), Some(b"aXYZ".to_vec()));
        let mut every_other = [1, 0].into_iter().cycle();
        let torn = disk.0["f"].written(&mut |_| every_other.next().unwrap(), 2);
        assert_eq!(torn, Some(b"aXcd".to_vec()));
    }

    #[test]
    fn a_log_is_read_across_threads() {
        let log = r#"7 openat(AT_FDCWD, "\x2f\x64\x2f\x66", O_RDWR|O_CREAT, 0600) = 3
7 pwrite64(3, "\x61\x62", 2, 4 <unfinished ...>
8 write(1, "\x68\x69", 2) = 2
7 <... pwrite64 resumed>) = 2
7 fdatasync(3)                      = 0
8 openat(AT_FDCWD, "\x2f\x65", O_RDONLY) = -1 ENOENT (No such file or directory)
7 close(3) = 0
8 unlink("\x2f\x64\x2f\x66") = 0
8 openat(AT_FDCWD, "\x2f\x64", O_RDONLY) = 3
8 fsync(3) = 0
"#;
        let events = read_log(log, Path::new("/d")).unwrap();
        let file = || "f".to_owned();
        let expected = [
            Event::Said("hi".into()),
            write(b"ab", 4),
            Event::Sync { file: file() },
            Event::Remove { file: file() },
            Event::SyncNames,
        ];
        assert_eq!(events, expected);
        assert_eq!(files(&events).into_iter().collect::<Vec<_>>(), ["f"]);
    }
}
