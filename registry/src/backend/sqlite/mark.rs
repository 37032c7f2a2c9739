//! The file `store.id`: it shows that there is a store, and holds how many commits it had at least.
//!
//! SQLite takes a damaged commit at the end of its WAL for one that was never finished, and goes on without it. This
//! mark, outside the WAL, distinguishes the two: it is written after each commit is on stable storage and before the
//! commit is acknowledged. It is not synced itself, so after a power cut it may lag behind, which is harmless; it is
//! never ahead.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use super::row::checksum;
use crate::durable_file;

/// The open mark.
#[derive(Debug)]
pub(super) struct Mark(File);

/// What a mark held when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// There was no mark, or one that holds no number yet.
    Nothing,
    Commits(u64),
    Damaged,
}

impl Mark {
    /// Whether a directory has one, and so a store.
    pub(super) fn is_in(directory: &Path) -> bool {
        directory.join(FILE).exists()
    }

    /// Opens the mark, or makes one, on stable storage.
    pub(super) fn open(directory: &Path) -> io::Result<(Self, Marked)> {
        let path = directory.join(FILE);
        let mut options = OpenOptions::new();
        let mut file = match options.read(true).write(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let file = options.create_new(true).mode(0o600).open(&path)?;
                file.sync_all()?;
                durable_file::sync_directory(directory)?;
                file
            }
            opened => opened?,
        };
        let mut text = String::new();
        let read = (&mut file).take(2 * LENGTH as u64).read_to_string(&mut text);
        let marked = match read {
            Err(error) if error.kind() == ErrorKind::InvalidData => Marked::Damaged,
            Err(error) => return Err(error),
            Ok(0) => Marked::Nothing,
            Ok(_) => parse(&text).map_or(Marked::Damaged, Marked::Commits),
        };
        Ok((Self(file), marked))
    }

    /// Writes how many commits there are now.
    pub(super) fn write(&self, commits: u64) -> io::Result<()> {
        match self.0.write_all_at(text(commits).as_bytes(), 0) {
            // A file system that copies on write may have no room for it. The mark then lags, which is harmless.
            Err(error) if error.kind() == ErrorKind::StorageFull => Ok(()),
            written => written,
        }
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// What a directory's mark holds, without opening it for writing.
pub(super) fn read(directory: &Path) -> Marked {
    match std::fs::read_to_string(directory.join(FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Marked::Nothing,
        Err(_) => Marked::Damaged,
        Ok(text) if text.is_empty() => Marked::Nothing,
        Ok(text) => parse(&text).map_or(Marked::Damaged, Marked::Commits),
    }
}

/// Of one length always, so that one write within one sector replaces another.
fn text(commits: u64) -> String {
    let number = format!("{commits:020}");
    let crc = checksum(&[number.as_bytes()]);
    format!("{number} {crc:08x}\n")
}

fn parse(text: &str) -> Option<u64> {
    let commits = text.get(..20)?.parse().ok()?;
    (text == self::text(commits)).then_some(commits)
}

const FILE: &str = "store.id";
const LENGTH: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let good = text(1_234_567);
        assert_eq!((good.len(), parse(&good)), (LENGTH, Some(1_234_567)));
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(String::from_utf8(bytes).map_or(true, |text| parse(&text).is_none()), "{bit}");
        }
        for end in 1..good.len() {
            assert_eq!(parse(&good[..end]), None, "{end}");
        }
    }
}
