//! Reads a blob: its length is announced, its bytes are counted, and no wait is endless.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use reqwest::Response;
use reqwest::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::time::Instant;

use super::hosts::BlobHosts;
use crate::blob::container::{ContainerError, Pieces};

/// The body of an answer that is being read.
struct BlobReader {
    response: Response,
    /// Bytes that were announced and have not arrived yet.
    left: u64,
    idle_time_max: Duration,
    /// How long the current piece may still take, and how much of it has arrived.
    patience: Duration,
    piece: usize,
}

/// The bytes of a blob, from a successful answer.
pub(super) fn read(response: Response, hosts: &BlobHosts) -> Result<Pieces, ContainerError> {
    let headers = response.headers();
    if headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
        return Err(ContainerError::Refused(ENCODED.to_owned()));
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    // Without a length the end looks the same as a broken connection.
    let left = length.ok_or(ContainerError::Unreachable)?;
    if left > hosts.blob_bytes_max {
        return Err(ContainerError::Limit(TOO_LARGE.to_owned()));
    }
    let idle_time_max = hosts.idle_time_max;
    let reader = BlobReader { response, left, idle_time_max, patience: idle_time_max, piece: 0 };
    Ok(Box::pin(stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(bytes)) => Some((Ok(bytes), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })))
}

impl BlobReader {
    /// The next bytes, or none at the announced end.
    async fn next(&mut self) -> Result<Option<Bytes>, ContainerError> {
        if self.left == 0 {
            return Ok(None);
        }
        let asked = Instant::now();
        let chunk = tokio::time::timeout(self.patience, self.response.chunk()).await;
        let failed = |what: &str| {
            tracing::info!(host = ?self.response.url().host_str(), what, left = self.left, "a blob cannot be read to its end");
            ContainerError::Unreachable
        };
        let bytes = match chunk {
            Ok(Ok(Some(bytes))) => bytes,
            Ok(Ok(None)) => return Err(failed("it is shorter than announced")),
            Ok(Err(_)) => return Err(failed("the connection failed")),
            Err(_) => return Err(failed("it arrives too slowly")),
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(failed("it is longer than announced"));
        };
        self.left = left;
        // Only the wait for the store counts, not the time that the caller needs between two reads.
        self.piece += bytes.len();
        if self.piece >= PIECE_BYTES {
            (self.piece, self.patience) = (0, self.idle_time_max);
        } else {
            self.patience = self.patience.saturating_sub(asked.elapsed());
        }
        Ok(Some(bytes))
    }
}

/// How many bytes must arrive within one idle time, so that a byte now and then is not enough.
const PIECE_BYTES: usize = 64 * 1024;
const ENCODED: &str = "the blob has a content encoding, which the hub does not read; upload it without one";
const TOO_LARGE: &str = "the blob is larger than the setting limits.blob_bytes_max";
