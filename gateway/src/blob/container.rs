//! Where the files of a job are: a container, as Azure Blob storage has them, or a folder on this machine that is
//! used as one.
//!
//! Both read and write whole files by name, in pieces. What is written can be seen under its name once it is
//! finished, and is gone when it is dropped before.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::blob::{BlobContainer, BlobHosts, BlobWriter};
use crate::config::Config;
use folder::{Folder, FolderWriter};

pub mod folder;

/// A place with files.
#[derive(Clone, Debug)]
pub enum Container {
    Blob(BlobContainer),
    Folder(Folder),
}

/// Writes one file.
#[derive(Debug)]
pub enum ContainerWriter {
    Blob(Box<BlobWriter>),
    Folder(FolderWriter),
}

/// The pieces of a file, in order.
pub type Pieces = BoxStream<'static, Result<Bytes, ContainerError>>;

/// Why a container did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("{0:?} is not there")]
    NotFound(String),
    /// Not an address or a name that may be used; the reason is for whoever gave it.
    #[error("{0}")]
    Refused(String),
    /// Tells nothing of what is at the address, nor how it answered.
    #[error("the container cannot be reached")]
    Unreachable,
    #[error("{0}")]
    Limit(String),
    #[error("the folder failed: {0}")]
    Io(#[from] std::io::Error),
}

impl Container {
    /// The container at an address: `file:NAME` is a folder on this machine, anything else must be one of blobs.
    pub fn open(address: &str, config: &Config) -> Result<Self, ContainerError> {
        if address.starts_with(folder::SCHEME) {
            return Folder::parse(address, &config.jobs_folder()).map(Container::Folder);
        }
        BlobContainer::parse(address, &BlobHosts::new(config)).map(Container::Blob)
    }

    /// A directory of the hub's own, which exists.
    pub(crate) fn own(directory: PathBuf) -> Self {
        Container::Folder(Folder::own(directory))
    }

    /// The file's pieces. Nothing more is read than is taken.
    pub async fn read(&self, name: &str) -> Result<Pieces, ContainerError> {
        match self {
            Container::Blob(container) => container.read(name).await,
            Container::Folder(folder) => folder.read(name).await,
        }
    }

    /// Begins a file, in place of one that may be there under the same name.
    pub async fn write(&self, name: &str) -> Result<ContainerWriter, ContainerError> {
        match self {
            Container::Blob(container) => {
                container.write(name).map(|writer| ContainerWriter::Blob(Box::new(writer)))
            }
            Container::Folder(folder) => folder.write(name).await.map(ContainerWriter::Folder),
        }
    }

    /// Removes a file; one that is not there is no error.
    pub async fn delete(&self, name: &str) -> Result<(), ContainerError> {
        match self {
            Container::Blob(container) => container.delete(name).await,
            Container::Folder(folder) => folder.delete(name).await,
        }
    }
}

impl ContainerWriter {
    pub async fn write(&mut self, piece: Bytes) -> Result<(), ContainerError> {
        match self {
            ContainerWriter::Blob(writer) => writer.write(piece).await,
            ContainerWriter::Folder(writer) => writer.write(piece).await,
        }
    }

    /// Shows what was written under its name.
    pub async fn finish(self) -> Result<(), ContainerError> {
        match self {
            ContainerWriter::Blob(writer) => writer.finish().await,
            ContainerWriter::Folder(writer) => writer.finish().await,
        }
    }
}
