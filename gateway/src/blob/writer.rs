//! Writes a blob in blocks that stay invisible until their list is written.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::HeaderName;
use reqwest::{Method, StatusCode};

use super::client::{BlobContainer, TEXT};
use crate::blob::container::ContainerError;

/// A blob that is being written. If it is dropped before it is finished, no reader sees any of it.
pub struct BlobWriter {
    container: BlobContainer,
    name: String,
    /// Tells two writers of the same blob apart.
    nonce: String,
    /// How many blocks the store has accepted.
    blocks: u32,
    /// The bytes that the store does not have yet.
    waiting: BytesMut,
    written: u64,
    /// A block was not confirmed. A later block would leave a hole in the blob.
    broken: bool,
}

impl BlobWriter {
    pub(super) fn new(container: BlobContainer, name: &str) -> Self {
        Self {
            container,
            name: name.to_owned(),
            nonce: nonce(),
            blocks: 0,
            waiting: BytesMut::new(),
            written: 0,
            broken: false,
        }
    }

    /// Appends bytes to the blob. Returns when at most one block waits to be sent.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<(), ContainerError> {
        self.written += bytes.len() as u64;
        if self.written > self.container.hosts().blob_bytes_max {
            self.broken = true;
            return Err(ContainerError::Limit(TOO_LARGE.to_owned()));
        }
        while !bytes.is_empty() {
            let room = BLOCK_BYTES - self.waiting.len();
            self.waiting.extend_from_slice(&bytes.split_to(room.min(bytes.len())));
            if self.waiting.len() == BLOCK_BYTES {
                self.put_block().await?;
            }
        }
        Ok(())
    }

    /// Creates the blob, which is visible and complete from now on.
    pub async fn finish(mut self) -> Result<(), ContainerError> {
        if self.blocks == 0 {
            return self.put_whole().await;
        }
        if !self.waiting.is_empty() {
            self.put_block().await?;
        }
        self.check()?;
        let ids = (0..self.blocks).map(|number| format!("<Latest>{}</Latest>", self.block_id(number)));
        let list = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{}</BlockList>",
            ids.collect::<String>()
        );
        let ask = self.container.ask(Method::PUT, &self.name, "comp=blocklist", StatusCode::CREATED)?;
        let ask = ask.with(BLOB_CONTENT_TYPE, TEXT).with_body(list.into());
        self.container.send(ask).await.map(drop)
    }

    /// A blob smaller than a block needs no list.
    async fn put_whole(&mut self) -> Result<(), ContainerError> {
        self.check()?;
        let ask = self.container.ask(Method::PUT, &self.name, "", StatusCode::CREATED)?;
        let ask = ask.with(BLOB_TYPE, "BlockBlob").with_body(self.waiting.split().freeze());
        self.container.send(ask).await.map(drop)
    }

    async fn put_block(&mut self) -> Result<(), ContainerError> {
        self.check()?;
        if self.blocks == BLOCKS_MAX {
            return Err(ContainerError::Limit(TOO_MANY_BLOCKS.to_owned()));
        }
        let id = self.block_id(self.blocks);
        let operation = format!("comp=block&blockid={}", utf8_percent_encode(&id, NON_ALPHANUMERIC));
        let ask = self.container.ask(Method::PUT, &self.name, &operation, StatusCode::CREATED)?;
        self.broken = true;
        self.container.send(ask.with_body(self.waiting.split().freeze())).await?;
        self.broken = false;
        self.blocks += 1;
        Ok(())
    }

    /// All of a blob's block ids must have the same length.
    fn block_id(&self, number: u32) -> String {
        STANDARD.encode(format!("{}-{number:05}", self.nonce))
    }

    fn check(&self) -> Result<(), ContainerError> {
        if self.broken { Err(ContainerError::Unreachable) } else { Ok(()) }
    }
}

/// The waiting bytes may hold keys, so they are not shown.
impl fmt::Debug for BlobWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { container, name, written, .. } = self;
        write!(f, "BlobWriter({container}, {name:?}, {written} bytes)")
    }
}

/// A unique text.
fn nonce() -> String {
    format!("{:016x}", u64::from_be_bytes(portcullis_registry::random_bytes()))
}

const BLOB_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-type");
const BLOB_CONTENT_TYPE: HeaderName = HeaderName::from_static("x-ms-blob-content-type");
/// The oldest service versions allow 4 MiB.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;
/// Source: Azure Storage, "Put Block List".
const BLOCKS_MAX: u32 = 50_000;
const TOO_LARGE: &str = "the blob would be larger than the setting limits.blob_bytes_max";
const TOO_MANY_BLOCKS: &str = "the blob would have more than 50,000 blocks";
