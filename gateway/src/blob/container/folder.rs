//! `file:NAME`: a folder in the hub's own directory of containers, for hubs without Azure.
//!
//! A name is one plain word, so it cannot lead elsewhere. A symbolic link is followed neither as a folder nor as a
//! file. Only the hub's user may read the files. A file that is being written has a name that no reader can ask for.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::StreamExt;
use portcullis_registry::durable_file::DurableFile;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio_util::io::ReaderStream;

use super::{ContainerError, Pieces};

/// One folder in the directory of containers.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
}

/// Writes one file of a folder.
#[derive(Debug)]
pub struct FolderWriter {
    /// The same open file as in `unfinished`.
    file: tokio::fs::File,
    /// Gone once it is finished.
    unfinished: Option<DurableFile>,
}

impl Folder {
    /// The folder of an address `file:NAME` under `root`. Does not check whether it exists.
    pub fn parse(address: &str, root: &Path) -> Result<Self, ContainerError> {
        let name = address.strip_prefix(SCHEME).ok_or_else(|| refused("the address is not file:NAME"))?;
        check_name(name)?;
        Ok(Self { path: root.join(name) })
    }

    /// A directory of the hub's own, which exists.
    pub(crate) fn own(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file's pieces.
    pub async fn read(&self, name: &str) -> Result<Pieces, ContainerError> {
        check_name(name)?;
        let (folder, path, name) = (self.path.clone(), self.path.join(name), name.to_owned());
        let file = blocking(move || {
            check_folder(&folder)?;
            let not_found = |error| not_found(&name, error);
            let before = fs::symlink_metadata(&path).map_err(not_found)?;
            if !before.is_file() {
                return Err(refused(format!("{name:?} is not a plain file")));
            }
            let file = fs::File::open(&path).map_err(not_found)?;
            let opened = file.metadata()?;
            if (opened.dev(), opened.ino()) != (before.dev(), before.ino()) {
                return Err(refused(format!("{name:?} was replaced while the hub opened it; try again")));
            }
            Ok(file)
        });
        let file = tokio::fs::File::from_std(file.await?);
        let pieces = ReaderStream::with_capacity(file, PIECE_BYTES);
        Ok(pieces.map(|piece| piece.map_err(ContainerError::Io)).boxed())
    }

    /// Starts a file. Creates the folder if it does not exist.
    pub async fn write(&self, name: &str) -> Result<FolderWriter, ContainerError> {
        check_name(name)?;
        let folder = self.path.clone();
        let path = self.path.join(name);
        // No reader can ask for a name with this first character.
        let unfinished = self.path.join(format!(".{:016x}", random()));
        let (file, unfinished) = blocking(move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
            check_folder(&folder)?;
            let unfinished = DurableFile::create(&path, &unfinished, 0o600)?;
            Ok((unfinished.file().try_clone()?, unfinished))
        })
        .await?;
        Ok(FolderWriter { file: tokio::fs::File::from_std(file), unfinished: Some(unfinished) })
    }

    /// Removes a file. It is no error if there is none.
    pub async fn delete(&self, name: &str) -> Result<(), ContainerError> {
        check_name(name)?;
        let (folder, path) = (self.path.clone(), self.path.join(name));
        blocking(move || {
            match check_folder(&folder) {
                Err(ContainerError::NotFound(_)) => return Ok(()),
                checked => checked?,
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            }
        })
        .await
    }
}

impl FolderWriter {
    pub async fn write(&mut self, piece: Bytes) -> Result<(), ContainerError> {
        Ok(self.file.write_all(&piece).await?)
    }

    /// Syncs the file to stable storage, then makes it appear under its name.
    pub async fn finish(mut self) -> Result<(), ContainerError> {
        self.file.flush().await?;
        let Some(unfinished) = self.unfinished.take() else { return Ok(()) };
        blocking(move || Ok(unfinished.publish()?)).await
    }
}

/// A file that is given up is removed, which may take long for a long one: not on a thread that serves connections.
impl Drop for FolderWriter {
    fn drop(&mut self) {
        let Some(unfinished) = self.unfinished.take() else { return };
        if let Ok(runtime) = Handle::try_current() {
            // After `finish` there is no file of this name.
            drop(runtime.spawn_blocking(move || drop(unfinished)));
        }
    }
}

/// The name of a folder or file is one word without a path, and is not hidden.
fn check_name(name: &str) -> Result<(), ContainerError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.bytes().all(is_plain)
    {
        // The error does not repeat the name: a user who confuses a folder with a blob store may have given a secret.
        return Err(refused(format!(
            "the name of a folder or file has 1 to {NAME_BYTES_MAX} letters, digits, dots, hyphens and underscores, \
             and does not begin with a dot"
        )));
    }
    Ok(())
}

fn check_folder(path: &Path) -> Result<(), ContainerError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(refused(format!("{name:?} is not a folder"))),
        Err(error) => Err(not_found(&name, error)),
    }
}

fn not_found(name: &str, error: io::Error) -> ContainerError {
    match error.kind() {
        io::ErrorKind::NotFound => ContainerError::NotFound(name.to_owned()),
        _ => error.into(),
    }
}

fn refused(reason: impl Into<String>) -> ContainerError {
    ContainerError::Refused(reason.into())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ContainerError> + Send + 'static,
) -> Result<T, ContainerError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| io::Error::other(error.to_string()))?
}

fn random() -> u64 {
    u64::from_ne_bytes(portcullis_registry::random_bytes())
}

/// The prefix of a folder's address.
pub const SCHEME: &str = "file:";
const NAME_BYTES_MAX: usize = 128;
const PIECE_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use futures_util::TryStreamExt;
    use tempfile::TempDir;

    use super::*;

    const REMOVAL_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);

    async fn content(folder: &Folder, name: &str) -> Result<Vec<u8>, ContainerError> {
        let pieces: Vec<Bytes> = folder.read(name).await?.try_collect().await?;
        Ok(pieces.concat())
    }

    async fn put(folder: &Folder, name: &str, text: &'static str) {
        let mut writer = folder.write(name).await.unwrap();
        writer.write(Bytes::from_static(text.as_bytes())).await.unwrap();
        writer.finish().await.unwrap();
    }

    #[test]
    fn no_name_leads_out_of_the_directory() {
        let root = Path::new("/containers");
        for name in ["fleet", "Fleet-7_b.2", "a", &"x".repeat(128)] {
            assert_eq!(Folder::parse(&format!("file:{name}"), root).unwrap().path, root.join(name));
        }
        let long = "x".repeat(129);
        for name in [
            "", ".", "..", "../x", "x/../..", "/etc", "//x", "a/b", "a\\b", ".hidden", "a\0b", "a%2fb",
            "a b", "ä", "a\n", "~", &long,
        ] {
            let parsed = Folder::parse(&format!("file:{name}"), root);
            assert!(matches!(parsed, Err(ContainerError::Refused(_))), "{name:?}");
        }
        for address in ["fleet", "FILE:fleet", "http://x/y", ""] {
            assert!(Folder::parse(address, root).is_err(), "{address}");
        }
    }

    #[tokio::test]
    async fn what_is_written_can_be_read_once_it_is_finished() {
        let root = TempDir::new().unwrap();
        let folder = Folder::parse("file:fleet", root.path()).unwrap();
        assert!(matches!(content(&folder, "devices.txt").await, Err(ContainerError::NotFound(_))));
        folder.delete("devices.txt").await.unwrap();

        let mut writer = folder.write("devices.txt").await.unwrap();
        writer.write(Bytes::from_static(b"one\n")).await.unwrap();
        assert!(matches!(content(&folder, "devices.txt").await, Err(ContainerError::NotFound(_))));
        drop(writer);
        let is_empty = || fs::read_dir(&folder.path).unwrap().count() == 0;
        tokio::time::timeout(REMOVAL_TIME_MAX, async {
            while !is_empty() {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("a file that is given up is removed");

        put(&folder, "devices.txt", "one\n").await;
        put(&folder, "devices.txt", "two\n").await;
        assert_eq!(content(&folder, "devices.txt").await.unwrap(), b"two\n");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder.path), mode(&folder.path.join("devices.txt"))), (0o700, 0o600));
        folder.delete("devices.txt").await.unwrap();
        assert!(content(&folder, "devices.txt").await.is_err());
        for name in ["../x", "/etc/passwd", "a\0b", "."] {
            assert!(matches!(folder.read(name).await.err(), Some(ContainerError::Refused(_))), "{name:?}");
            assert!(matches!(folder.write(name).await, Err(ContainerError::Refused(_))), "{name:?}");
            assert!(matches!(folder.delete(name).await, Err(ContainerError::Refused(_))), "{name:?}");
        }
    }

    #[tokio::test]
    async fn no_link_is_followed() {
        let (root, outside) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(outside.path().join("secret"), "key").unwrap();
        symlink(outside.path(), root.path().join("link")).unwrap();
        let link = Folder::parse("file:link", root.path()).unwrap();
        assert!(matches!(content(&link, "secret").await, Err(ContainerError::Refused(_))));
        assert!(matches!(link.write("mine").await, Err(ContainerError::Refused(_))));
        assert!(matches!(link.delete("secret").await, Err(ContainerError::Refused(_))));

        let folder = Folder::parse("file:fleet", root.path()).unwrap();
        put(&folder, "mine", "x").await;
        symlink(outside.path().join("secret"), folder.path.join("secret")).unwrap();
        assert!(matches!(content(&folder, "secret").await, Err(ContainerError::Refused(_))));
        // A file put in a link's place takes its place, not that of what it leads to.
        put(&folder, "secret", "other").await;
        folder.delete("secret").await.unwrap();
        assert_eq!(fs::read_to_string(outside.path().join("secret")).unwrap(), "key");
    }
}
