//! Files that are there whole or not at all, whenever the process is killed or power is lost.
//!
//! A file is written beside its path, made stable, and renamed to its path; then the name is made stable. Readers see
//! the old content or the new one. What a crash leaves beside the path, the next attempt removes; so a path has one
//! writer at a time, and the caller sees to that.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A file that is being written beside its path. Dropped before it is published, it is removed.
#[derive(Debug)]
pub struct DurableFile {
    file: File,
    unfinished: PathBuf,
    path: PathBuf,
    is_published: bool,
}

impl DurableFile {
    /// Begins a file for `path`. Until it is published it is at `unfinished`, in the same directory; what is there
    /// already is removed. `mode` holds from its first byte on, less what the process's umask takes.
    pub fn create(path: &Path, unfinished: &Path, mode: u32) -> io::Result<Self> {
        match fs::remove_file(unfinished) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(unfinished)?;
        Ok(Self { file, unfinished: unfinished.to_owned(), path: path.to_owned(), is_published: false })
    }

    /// The open file, for a writer of another kind, such as an asynchronous one.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its path in place of what is there. On stable storage when this returns.
    pub fn publish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        fs::rename(&self.unfinished, &self.path)?;
        self.is_published = true;
        sync_parent(&self.path)
    }
}

impl Write for DurableFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for DurableFile {
    fn drop(&mut self) {
        if !self.is_published {
            // The error that stopped the writer is on its way to the caller; this one would hide it.
            let _ = fs::remove_file(&self.unfinished);
        }
    }
}

/// Puts `content` at `path`, in place of what is there. On stable storage when this returns; after an error the old
/// content is there. Written beside it as `path` with `.new` added. For `mode` see [`DurableFile::create`].
pub fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = DurableFile::create(path, &path.with_added_extension(UNFINISHED), mode)?;
    file.write_all(content)?;
    file.publish()
}

/// Renames a file or directory whose content is on stable storage. So is the name when this returns.
pub fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Returns once the name `path` is on stable storage.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    sync_directory(parent.unwrap_or(Path::new(".")))
}

/// Returns once every name in the directory is on stable storage.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// What is added to the name of a file that is being replaced.
pub const UNFINISHED: &str = "new";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use tempfile::TempDir;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn names(directory: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_mode_is_the_new_ones_from_its_first_byte_on() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("key");
        fs::write(&path, "readable by others").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let unfinished = path.with_added_extension(UNFINISHED);
        let file = DurableFile::create(&path, &unfinished, 0o600).unwrap();
        assert_eq!((mode(&unfinished), file.file().metadata().unwrap().len()), (0o600, 0));
        file.publish().unwrap();
        assert_eq!(mode(&path), 0o600);
        replace(&path, b"for others too", 0o444).unwrap();
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o444, b"for others too".to_vec()));
    }

    #[test]
    fn what_a_crash_left_is_removed_with_its_mode_and_content() {
        let directory = TempDir::new().unwrap();
        let (path, left) = (directory.path().join("file"), directory.path().join("file.new"));
        fs::write(&left, "half of something longer than what follows").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        replace(&path, b"whole", 0o600).unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode(&path)), (b"whole".to_vec(), 0o600));
        // A link that somebody put there is not followed.
        let other = directory.path().join("other");
        fs::write(&other, "of somebody else").unwrap();
        std::os::unix::fs::symlink(&other, &left).unwrap();
        replace(&path, b"new", 0o600).unwrap();
        assert_eq!(fs::read(&other).unwrap(), b"of somebody else");
        assert_eq!((fs::read(&path).unwrap(), names(&directory).len()), (b"new".to_vec(), 2));
    }

    #[test]
    fn an_error_leaves_what_was_there_and_nothing_beside_it() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        let unfinished = directory.path().join(".unfinished");
        let mut file = DurableFile::create(&path, &unfinished, 0o600).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!((fs::read(&path).unwrap(), names(&directory)), (b"old".to_vec(), vec!["file".to_owned()]));
        // Its place beside the path cannot be had.
        fs::create_dir(directory.path().join("file.new")).unwrap();
        assert!(replace(&path, b"new", 0o600).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        // It cannot be renamed.
        let taken = directory.path().join("taken");
        fs::create_dir_all(taken.join("inside")).unwrap();
        assert!(replace(&taken, b"new", 0o600).is_err());
        assert!(taken.join("inside").exists());
        assert_eq!(names(&directory), ["file", "file.new", "taken"]);
        assert!(rename(&path, &taken).is_err());
        assert!(path.exists());
    }

    #[test]
    fn a_reader_sees_one_content_or_the_other() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("file");
        let contents = [vec![b'a'; 100_000], vec![b'b'; 50_000]];
        replace(&path, &contents[0], 0o600).unwrap();
        let is_done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                (0..50).for_each(|number| replace(&path, &contents[number % 2], 0o600).unwrap());
                is_done.store(true, Ordering::Release);
            });
            while !is_done.load(Ordering::Acquire) {
                assert!(contents.contains(&fs::read(&path).unwrap()));
            }
        });
    }
}
