//! The undo file of an import: for each identity it changes, what was there before, and by what one knows that nobody
//! has changed it since.
//!
//! A line is on stable storage before the change it tells of is asked for. So a file cut by a crash may tell of a
//! change that was never made, never miss one that was. It holds keys, and is the hub's user's alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use portcullis_registry::identity::Identity;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::hub::job_store::blocking;
use crate::hub::reverse_lines::Backwards;
use crate::iothub::identity_json::{Form, write_line};

/// Writes an undo file.
#[derive(Debug)]
pub(super) struct UndoWriter {
    file: Arc<File>,
    unwritten: Vec<u8>,
    scratch: Vec<u8>,
}

/// Reads an undo file from its end.
pub(super) struct UndoReader {
    lines: Backwards,
    /// Whether a whole line was read: those before it had to be whole, too.
    is_whole: bool,
}

/// A line is not as it was written.
#[derive(Debug)]
pub(super) struct Damaged;

/// One change that can be taken back.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Undo<'a> {
    /// The line of the import that asked for it.
    pub(super) line: u64,
    pub(super) id: String,
    #[serde(rename = "moduleId")]
    pub(super) module: Option<String>,
    /// What was there, as a line that asks for exactly this; none when nothing was.
    #[serde(borrow)]
    pub(super) before: Option<&'a RawValue>,
    /// What the import left there; none when nothing.
    pub(super) after: Option<Fingerprint>,
}

/// Tells an identity from any that is not like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct Fingerprint(u128);

impl UndoWriter {
    /// Begins a file that is there after a crash, too. Blocks.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
        if let Some(directory) = path.parent() {
            File::open(directory)?.sync_all()?;
        }
        Ok(Self { file: Arc::new(file), unwritten: Vec::new(), scratch: Vec::new() })
    }

    /// Notes a change; it may be made after `sync`.
    pub(super) fn note(
        &mut self,
        line: u64,
        before: Option<&Identity>,
        after: Option<&Identity>,
    ) -> io::Result<()> {
        let Some(id) = before.or(after).map(|identity| &identity.id) else { return Ok(()) };
        self.scratch.clear();
        if let Some(before) = before {
            write_line(before, Form::Exact, &mut self.scratch);
        }
        let before = match before {
            None => None,
            Some(_) => Some(serde_json::from_slice(&self.scratch)?),
        };
        let undo = Undo {
            line,
            id: id.device.to_string(),
            module: id.module.as_ref().map(ToString::to_string),
            before,
            after: after.map(Fingerprint::of),
        };
        let start = self.unwritten.len();
        self.unwritten.resize(start + CHECKSUM_BYTES, b' ');
        serde_json::to_writer(&mut self.unwritten, &undo)?;
        let checksum = checksum(&self.unwritten[start + CHECKSUM_BYTES..]);
        self.unwritten[start..start + CHECKSUM_BYTES].copy_from_slice(checksum.as_bytes());
        self.unwritten.push(b'\n');
        Ok(())
    }

    /// Returns once everything noted is on stable storage.
    pub(super) async fn sync(&mut self) -> io::Result<()> {
        if self.unwritten.is_empty() {
            return Ok(());
        }
        let (file, mut bytes) = (Arc::clone(&self.file), std::mem::take(&mut self.unwritten));
        self.unwritten = blocking(move || {
            (&*file).write_all(&bytes)?;
            file.sync_data()?;
            bytes.clear();
            Ok(bytes)
        })
        .await?;
        Ok(())
    }
}

impl UndoReader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { lines: Backwards::open(path)?, is_whole: false })
    }

    /// The next change to take back; an error inside for a line that is damaged. At the end of the file, where a crash
    /// leaves such lines, they are passed over: what they tell of was never made.
    pub(super) fn next(&mut self) -> io::Result<Option<Result<Vec<u8>, Damaged>>> {
        while let Some(line) = self.lines.next()? {
            match line.split_at_checked(CHECKSUM_BYTES) {
                Some((sum, json)) if checksum(json).as_bytes() == sum => {
                    self.is_whole = true;
                    return Ok(Some(Ok(json.to_vec())));
                }
                _ if self.is_whole => return Ok(Some(Err(Damaged))),
                _ => {}
            }
        }
        Ok(None)
    }
}

impl Fingerprint {
    pub(super) fn of(identity: &Identity) -> Self {
        let mut line = Vec::with_capacity(512);
        write_line(identity, Form::Exact, &mut line);
        let digest: [u8; 32] = Sha256::digest(&line).into();
        let (half, _) = digest.split_at(16);
        Self(half.iter().fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

impl From<Fingerprint> for String {
    fn from(Fingerprint(number): Fingerprint) -> Self {
        format!("{number:032x}")
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        u128::from_str_radix(&text, 16).map(Self)
    }
}

/// What a line begins with: CRC32C of the rest, and a blank.
fn checksum(json: &[u8]) -> String {
    format!("{:08x} ", crc32c::crc32c(json))
}

const CHECKSUM_BYTES: usize = 9;
