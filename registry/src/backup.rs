//! A backup: one file with all that a restored hub needs to serve the same devices, and a checksum over every byte.
//!
//! The file is a line that names the format, a line of JSON (the manifest), the parts one after the other as the
//! manifest lists them, and a line with the SHA-256 of all before it. The first part is a copy of the store; the others
//! are small files of the data directory that the caller names, the CA and the server's keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backend::StoreError;
use crate::backend::sqlite::snapshot;
use crate::durable_file;
use digest::Digested;

mod digest;
#[cfg(test)]
mod tests;

/// What is in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// When it was made, RFC 3339.
    pub created: String,
    /// Devices in the store.
    pub devices: u64,
    /// Modules in the store.
    pub modules: u64,
    /// Cloud-to-device messages waiting.
    pub messages: u64,
    /// The files in it, in the order in which they follow.
    pub parts: Vec<Part>,
}

/// One file in a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its path below the data directory.
    pub name: String,
    /// Its length, in bytes.
    pub bytes: u64,
}

/// Called with how many bytes are done, of how many.
pub type ProgressObserver = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// Why a backup was not made, is not good, or was not restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// There is a file or directory of this name.
    #[error("{0} is there already; nothing is overwritten")]
    Exists(PathBuf),
    /// The file does not begin like a backup.
    #[error("{0} is no backup of this program")]
    NotABackup(PathBuf),
    /// A later version of this program made the file.
    #[error("{0} is a backup in a newer format than this program reads")]
    NewerFormat(PathBuf),
    /// The file is not as it was written.
    #[error("{file} is damaged: {what}")]
    Damaged {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The data directory to restore into is in use.
    #[error("{0} is not empty; restore into a new directory")]
    NotEmpty(PathBuf),
    /// A directory beside it that an earlier restore left when it was killed.
    #[error("{0} was left by a restore that was cut short; remove it")]
    Leftover(PathBuf),
    /// Reading or writing this path failed.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// The store in it, or the store to be copied, cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Makes a backup of the hub in `data_dir`, running or not, in the new file `to`. Of the files `kept`, named by their
/// paths below the data directory, those that are there go along. Everything acknowledged before the call is in it.
pub fn create(
    data_dir: &Path,
    kept: &[&str],
    to: &Path,
    now: Timestamp,
    progress: ProgressObserver,
) -> Result<Manifest, BackupError> {
    let (file, backup) = RemovedUnlessKept::file(to)?;
    let (_, copy) = RemovedUnlessKept::file(&to.with_added_extension("store"))?;
    snapshot::copy(&data_dir.join(STORE), &copy.path, move |done, expected| progress(done, expected))?;
    let counts = snapshot::check(&snapshot::open(&copy.path)?)?;
    let mut parts = vec![Part { name: STORE_PART.into(), bytes: length(&copy.path)? }];
    let mut small = Vec::new();
    for name in kept {
        let path = data_dir.join(name);
        match fs::read(&path) {
            Ok(content) => {
                parts.push(Part { name: (*name).to_owned(), bytes: content.len() as u64 });
                small.extend_from_slice(&content);
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(BackupError::Io(path, error)),
        }
    }
    let manifest = Manifest {
        created: now.to_string(),
        devices: counts.devices,
        modules: counts.modules,
        messages: counts.messages,
        parts,
    };
    let write = || -> io::Result<()> {
        let mut out = Digested::new(BufWriter::new(&file));
        out.write_all(format!("{FORMAT}{VERSION}\n").as_bytes())?;
        out.write_all(serde_json::to_string(&manifest)?.as_bytes())?;
        out.write_all(b"\n")?;
        io::copy(&mut File::open(&copy.path)?, &mut out)?;
        out.write_all(&small)?;
        let (mut out, digest) = out.finish();
        out.write_all(digest.as_bytes())?;
        out.flush()?;
        drop(out);
        file.sync_all()?;
        durable_file::sync_parent(to)
    };
    write().map_err(|error| BackupError::Io(to.to_owned(), error))?;
    backup.keep();
    Ok(manifest)
}

/// Checks every byte and every row of a backup. Takes as much memory as the backup is large.
pub fn verify(file: &Path) -> Result<Manifest, BackupError> {
    let mut backup = OpenedBackup::new(file)?;
    let mut store = None;
    for part in backup.manifest.parts.clone() {
        let mut content = (&mut backup.content).take(part.bytes);
        if part.name == STORE_PART {
            store = Some(snapshot::read(&mut content, part.bytes)?);
        } else {
            io::copy(&mut content, &mut io::sink())
                .map_err(|error| BackupError::Io(file.to_owned(), error))?;
        }
    }
    let manifest = backup.finish()?;
    let store = store.ok_or_else(|| BackupError::NotABackup(file.to_owned()))?;
    check_counts(file, &manifest, snapshot::check(&store)?)?;
    Ok(manifest)
}

/// Restores a backup into the data directory `data_dir`, which must not be there or be empty: all of it or nothing.
pub fn restore(file: &Path, data_dir: &Path, progress: &ProgressObserver) -> Result<Manifest, BackupError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |error| BackupError::Io(path, error)
    };
    match fs::read_dir(data_dir).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(BackupError::NotEmpty(data_dir.to_owned())),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(at(data_dir)(error)),
        Ok(false) | Err(_) => {}
    }
    let mut backup = OpenedBackup::new(file)?;
    let total = backup.manifest.parts.iter().map(|part| part.bytes).sum();
    // Beside the directory, and renamed to it when all of it is on stable storage.
    let staging = RemovedUnlessKept::directory(&data_dir.with_added_extension("restoring"))?;
    let store = staging.path.join(STORE);
    DirBuilder::new().mode(0o700).create(&store).map_err(at(&store))?;
    let mut done = 0;
    for part in backup.manifest.parts.clone() {
        let path = staging.path.join(&part.name);
        let mut content = (&mut backup.content).take(part.bytes);
        let mut write = || -> io::Result<()> {
            let mut out = private(&path)?;
            loop {
                let copied = io::copy(&mut (&mut content).take(COPY_BYTES), &mut out)?;
                done += copied;
                progress(done, total);
                if copied == 0 {
                    return out.sync_all();
                }
            }
        };
        write().map_err(at(&path))?;
    }
    let manifest = backup.finish()?;
    check_counts(file, &manifest, snapshot::adopt(&store)?)?;
    let publish = || -> io::Result<()> {
        durable_file::sync_directory(&store)?;
        durable_file::sync_directory(&staging.path)?;
        durable_file::rename(&staging.path, data_dir)
    };
    publish().map_err(at(data_dir))?;
    staging.keep();
    Ok(manifest)
}

/// A backup that is being read.
struct OpenedBackup {
    file: PathBuf,
    manifest: Manifest,
    content: Digested<BufReader<File>>,
}

impl OpenedBackup {
    /// Reads the manifest. Its sizes are those of the file, so nothing is believed that is not there.
    fn new(file: &Path) -> Result<Self, BackupError> {
        let at = |error| BackupError::Io(file.to_owned(), error);
        let opened = File::open(file).map_err(at)?;
        let length = opened.metadata().map_err(at)?.len();
        let mut content = Digested::new(BufReader::new(opened));
        let format = content.line(LINE_BYTES_MAX).map_err(at)?;
        let version = format.strip_prefix(FORMAT).and_then(|version| version.trim_end().parse::<u32>().ok());
        match version {
            Some(VERSION) => {}
            Some(newer) if newer > VERSION => return Err(BackupError::NewerFormat(file.to_owned())),
            _ => return Err(BackupError::NotABackup(file.to_owned())),
        }
        let line = content.line(LINE_BYTES_MAX).map_err(at)?;
        let damaged = |what: &str| BackupError::Damaged { file: file.to_owned(), what: what.into() };
        let manifest: Manifest =
            serde_json::from_str(&line).map_err(|_| damaged("its list of parts cannot be read"))?;
        if !manifest.parts.iter().all(Part::is_in_data_directory) {
            return Err(damaged("it names a file that belongs to no hub"));
        }
        let parts = manifest.parts.iter().try_fold(0, |sum: u64, part| sum.checked_add(part.bytes));
        let around = (format.len() + line.len() + digest::LINE_BYTES) as u64;
        if parts.and_then(|parts| parts.checked_add(around)) != Some(length) {
            return Err(damaged("it is cut short or too long"));
        }
        Ok(Self { file: file.to_owned(), manifest, content })
    }

    /// Checks the checksum, once all parts are read.
    fn finish(self) -> Result<Manifest, BackupError> {
        let (mut content, digest) = self.content.finish();
        let mut last = String::new();
        content.read_line(&mut last).map_err(|error| BackupError::Io(self.file.clone(), error))?;
        if last != digest {
            let what = "its checksum does not fit".into();
            return Err(BackupError::Damaged { file: self.file, what });
        }
        Ok(self.manifest)
    }
}

impl Part {
    /// The store, or a file directly in the data directory: a restore writes nowhere else.
    fn is_in_data_directory(&self) -> bool {
        let plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        self.name == STORE_PART || self.name.strip_suffix(".pem").is_some_and(plain)
    }
}

/// A file or directory that is removed again unless it is kept.
struct RemovedUnlessKept {
    path: PathBuf,
    kept: bool,
}

impl RemovedUnlessKept {
    fn file(path: &Path) -> Result<(File, Self), BackupError> {
        match private(path) {
            Ok(file) => Ok((file, Self { path: path.to_owned(), kept: false })),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(BackupError::Exists(path.to_owned()))
            }
            Err(error) => Err(BackupError::Io(path.to_owned(), error)),
        }
    }

    fn directory(path: &Path) -> Result<Self, BackupError> {
        match DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(Self { path: path.to_owned(), kept: false }),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(BackupError::Leftover(path.to_owned()))
            }
            Err(error) => Err(BackupError::Io(path.to_owned(), error)),
        }
    }

    fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for RemovedUnlessKept {
    fn drop(&mut self) {
        if !self.kept {
            // The error that stopped the work is on its way to the caller; this one would hide it.
            let _ = fs::remove_file(&self.path).or_else(|_| fs::remove_dir_all(&self.path));
        }
    }
}

/// A new file that only its owner may read.
fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn length(path: &Path) -> Result<u64, BackupError> {
    let metadata = fs::metadata(path).map_err(|error| BackupError::Io(path.to_owned(), error))?;
    Ok(metadata.len())
}

fn check_counts(file: &Path, manifest: &Manifest, counts: snapshot::CopyCounts) -> Result<(), BackupError> {
    let snapshot::CopyCounts { devices, modules, messages } = counts;
    if (devices, modules, messages) == (manifest.devices, manifest.modules, manifest.messages) {
        return Ok(());
    }
    let what = "its rows are not those its manifest counts".into();
    Err(BackupError::Damaged { file: file.to_owned(), what })
}

/// The store's directory below the data directory.
pub const STORE: &str = "store";
const STORE_PART: &str = "store/hub.db";
/// What the first line of a backup begins with; the version follows.
const FORMAT: &str = "portcullis-backup ";
const VERSION: u32 = 1;
const LINE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes between two reports of the progress of a restore.
const COPY_BYTES: u64 = 8 * 1024 * 1024;
