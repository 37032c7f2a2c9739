//! The location of a job's files: a container of Azure Blob storage, or a folder on this machine that serves as one.
//!
//! Both read and write whole files by name, in pieces. A file appears under its name once it is finished. A file that
//! is dropped earlier disappears.

use std::path::PathBuf;

use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::blob::{BlobContainer, BlobHosts, BlobWriter};
use crate::config::Config;
use folder::{Folder, FolderWriter};

pub mod folder;

/// A container or folder with files.
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
    #[error("{0:?} does not exist")]
    NotFound(String),
    /// An address or a name that may not be used. The reason is for the user who gave it.
    #[error("{0}")]
    Refused(String),
    /// Reveals nothing about the address or its answers.
    #[error("the container cannot be reached")]
    Unreachable,
    #[error("{0}")]
    Limit(String),
    #[error("the folder cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

impl Container {
    /// The container at an address: `file:NAME` is a folder on this machine, any other address a blob container.
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

    /// The file's pieces. Reads only as fast as the caller takes them.
    pub async fn read(&self, name: &str) -> Result<Pieces, ContainerError> {
        match self {
            Container::Blob(container) => container.read(name).await,
            Container::Folder(folder) => folder.read(name).await,
        }
    }

    /// Starts a file, which replaces one of the same name.
    pub async fn write(&self, name: &str) -> Result<ContainerWriter, ContainerError> {
        match self {
            Container::Blob(container) => {
                container.write(name).map(|writer| ContainerWriter::Blob(Box::new(writer)))
            }
            Container::Folder(folder) => folder.write(name).await.map(ContainerWriter::Folder),
        }
    }

    /// Removes a file. It is no error if there is none.
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

    /// Makes the file appear under its name.
    pub async fn finish(self) -> Result<(), ContainerError> {
        match self {
            ContainerWriter::Blob(writer) => writer.finish().await,
            ContainerWriter::Folder(writer) => writer.finish().await,
        }
    }
}
