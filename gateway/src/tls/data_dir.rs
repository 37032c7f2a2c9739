//! The data directory as a store of small files. Other users cannot read it, and a file in it is complete or absent.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use portcullis_registry::durable_file;

/// The data directory, closed to other users. No other process writes these files while this value lives.
#[derive(Debug)]
pub(super) struct DataDir {
    path: PathBuf,
    /// Holds the lock.
    _handle: File,
}

/// Who may read a new file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mode {
    Public,
    Secret,
}

/// Why the data directory, or a file in it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    #[error("the data directory {0} cannot be created or opened")]
    Open(PathBuf, #[source] io::Error),
    #[error(
        "other users may open the data directory {0}, and the hub cannot change that; make it yours and chmod 700 it"
    )]
    Tighten(PathBuf, #[source] io::Error),
    #[error(
        "other users may open {0}, and it holds files of other programs; name an empty data directory, or chmod 700 this one"
    )]
    NotOurs(PathBuf),
    #[error("{0} cannot be read")]
    Read(PathBuf, #[source] io::Error),
    #[error("{0} is longer than {FILE_BYTES_MAX} bytes, the most allowed")]
    TooLong(PathBuf),
    #[error("{0} cannot be written")]
    Write(PathBuf, #[source] io::Error),
}

impl DataDir {
    /// Opens the directory, or creates it. Closes it to other users.
    pub(super) fn open(path: &Path) -> Result<Self, DataDirError> {
        let cannot_open = |error| DataDirError::Open(path.to_owned(), error);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(cannot_open)?;
        let handle = File::open(path).map_err(cannot_open)?;
        let mode = handle.metadata().map_err(cannot_open)?.permissions().mode();
        if mode & OTHERS != 0 {
            tighten(path)?;
        }
        // Two hubs that start for the first time together would mix their files.
        handle.lock().map_err(cannot_open)?;
        Ok(Self { path: path.to_owned(), _handle: handle })
    }

    /// The text of a file, if it exists. Closes a key to other users.
    pub(super) fn read(&self, name: &str) -> Result<Option<String>, DataDirError> {
        let path = self.path.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(DataDirError::Read(path, error)),
        };
        let mut text = String::new();
        let read = file.metadata().and_then(|metadata| {
            if name.ends_with(KEY_SUFFIX) && metadata.permissions().mode() & OTHERS != 0 {
                tracing::warn!(path = %path.display(), "other users could read a key; the hub has closed it to them");
                file.set_permissions(Permissions::from_mode(0o600))?;
            }
            (&file).take(FILE_BYTES_MAX + 1).read_to_string(&mut text)
        });
        match read {
            Ok(length) if length as u64 > FILE_BYTES_MAX => Err(DataDirError::TooLong(path)),
            Ok(_) => Ok(Some(text)),
            Err(error) => Err(DataDirError::Read(path, error)),
        }
    }

    /// Writes a complete file to stable storage, in place of an earlier one.
    pub(super) fn write(&self, name: &str, text: &str, mode: Mode) -> Result<(), DataDirError> {
        let path = self.path.join(name);
        let bits = match mode {
            Mode::Public => 0o644,
            Mode::Secret => 0o600,
        };
        durable_file::replace(&path, text.as_bytes(), bits).map_err(|error| DataDirError::Write(path, error))
    }
}

/// Closes a directory to other users, unless other programs use it: naming `/tmp` by mistake must not close `/tmp`.
fn tighten(path: &Path) -> Result<(), DataDirError> {
    let entries = fs::read_dir(path).map_err(|error| DataDirError::Open(path.to_owned(), error))?;
    let names: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    let is_ours = |name: &std::ffi::OsString| {
        let name = Path::new(name);
        let name = if name.extension().is_some_and(|end| end == durable_file::UNFINISHED) {
            name.with_extension("")
        } else {
            name.into()
        };
        OURS.iter().any(|ours| name == Path::new(ours))
    };
    let used: Vec<_> = names.iter().filter(|name| *name != "lost+found").collect();
    if !used.is_empty() && !used.iter().any(|name| is_ours(name)) {
        return Err(DataDirError::NotOurs(path.to_owned()));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(|error| DataDirError::Tighten(path.to_owned(), error))?;
    if !used.is_empty() {
        tracing::warn!(path = %path.display(), "other users could open the data directory; the hub has closed it to them");
    }
    Ok(())
}

/// Permission bits of all users except the owner.
const OTHERS: u32 = 0o077;
const KEY_SUFFIX: &str = "-key.pem";
/// What only a data directory of ours holds.
const OURS: [&str; 5] = ["ca.pem", "ca-key.pem", "server.pem", "server-key.pem", "store"];
const FILE_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn open_to_all(directory: &TempDir, files: &[&str]) -> PathBuf {
        let path = directory.path().join("data");
        fs::create_dir(&path).unwrap();
        files.iter().for_each(|file| fs::write(path.join(file), "x").unwrap());
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn t910_a_directory_open_to_others_is_closed_to_them() {
        for files in [&[][..], &["lost+found"], &["ca.pem", "notes"], &["ca-key.pem.new"], &["store"]] {
            let directory = TempDir::new().unwrap();
            let path = open_to_all(&directory, files);
            DataDir::open(&path).unwrap();
            assert_eq!(mode(&path), 0o700, "{files:?}");
        }
    }

    #[test]
    fn t910_a_directory_of_others_is_left_alone() {
        let directory = TempDir::new().unwrap();
        let path = open_to_all(&directory, &["notes"]);
        assert!(matches!(DataDir::open(&path), Err(DataDirError::NotOurs(_))));
        assert_eq!(mode(&path), 0o755);
        fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
        assert!(DataDir::open(&path).is_ok());
    }

    #[test]
    fn t910_a_key_open_to_others_is_closed_to_them() {
        let directory = TempDir::new().unwrap();
        let data = DataDir::open(&directory.path().join("data")).unwrap();
        data.write("ca-key.pem", "secret", Mode::Public).unwrap();
        assert_eq!(data.read("ca-key.pem").unwrap().as_deref(), Some("secret"));
        assert_eq!(mode(&directory.path().join("data/ca-key.pem")), 0o600);
    }

    #[test]
    fn a_file_is_replaced_whole() {
        let directory = TempDir::new().unwrap();
        let data = DataDir::open(&directory.path().join("data")).unwrap();
        assert_eq!(data.read("ca.pem").unwrap(), None);
        for text in ["one", "two"] {
            data.write("ca.pem", text, Mode::Public).unwrap();
            assert_eq!(data.read("ca.pem").unwrap().as_deref(), Some(text));
        }
        assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 1);
    }

    #[test]
    fn a_file_has_a_bound() {
        let directory = TempDir::new().unwrap();
        let data = DataDir::open(directory.path()).unwrap();
        fs::write(directory.path().join("ca.pem"), "x".repeat(1024 * 1024 + 1)).unwrap();
        assert!(matches!(data.read("ca.pem"), Err(DataDirError::TooLong(_))));
    }

    #[test]
    fn a_file_in_the_directorys_place_is_refused() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("data");
        fs::write(&path, "x").unwrap();
        assert!(matches!(DataDir::open(&path), Err(DataDirError::Open(..))));
    }
}
