//! Sends a file of any size to the hub in pieces.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::StreamBody;
use hyper::body::Frame;
use reqwest::Body;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_util::sync::CancellationToken;

use crate::exit::{Exit, Failure};
use crate::progress::Progress;
use crate::rest::Rest;

/// The file or standard input.
pub(super) struct Input {
    name: String,
    file: Box<dyn Read + Send>,
    /// The length, if it is known.
    bytes: Option<u64>,
}

/// The job that the hub made of a file.
pub(super) struct Sent {
    pub(super) job: Value,
    /// The hub had received the whole file before the interruption.
    pub(super) interrupted: bool,
    /// The number of lines, if it is known.
    pub(super) lines: Option<u64>,
}

/// What has been sent so far.
#[derive(Default)]
struct Passed {
    bytes: AtomicU64,
    lines: AtomicU64,
    /// The file is compressed, so its lines cannot be counted.
    packed: AtomicBool,
}

impl Input {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        if super::is_standard(path) {
            return Ok(Self { name: "standard input".into(), file: Box::new(io::stdin()), bytes: None });
        }
        let name = path.display().to_string();
        let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
        let (metadata, file) = opened.map_err(|error| Failure::error(format!("{name}: {error}")))?;
        let bytes = metadata.is_file().then_some(metadata.len());
        Ok(Self { name, file: Box::new(file), bytes })
    }

    /// Sends the whole file. If `stop` completes first, the upload is cut off and the hub discards the part it has.
    pub(super) async fn send(
        self,
        rest: &Rest,
        dry_run: bool,
        progress: &Progress,
        stop: Pin<&mut impl Future>,
    ) -> Result<Sent, Failure> {
        if let Some(bytes) = self.bytes {
            progress.expect(bytes);
        }
        let (passed, cut) = (Arc::new(Passed::default()), CancellationToken::new());
        let file = body(self, Arc::clone(&passed), cut.clone());
        let query = [("dryRun", if dry_run { "true" } else { "false" })];
        let mut sending = pin!(rest.upload(&["api", "v1", "imports"], &query, file));
        let shown = async {
            let mut ticks = interval(REDRAW_PERIOD);
            loop {
                ticks.tick().await;
                progress.at(passed.bytes.load(Ordering::Relaxed), "");
            }
        };
        tokio::select! {
            job = sending.as_mut() => {
                return job.map(|job| Sent { job, interrupted: false, lines: passed.lines() });
            }
            () = shown => {}
            _ = stop => {}
        }
        cut.cancel();
        match timeout(CUT_TIME_MAX, sending).await {
            Ok(Ok(job)) => Ok(Sent { job, interrupted: true, lines: passed.lines() }),
            _ => Err(Failure::new(Exit::Interrupted, "interrupted: nothing was imported")),
        }
    }
}

impl Passed {
    fn add(&self, piece: &[u8]) {
        if self.bytes.load(Ordering::Relaxed) == 0 && piece.starts_with(GZIP_MAGIC) {
            self.packed.store(true, Ordering::Relaxed);
        }
        let lines = piece.iter().filter(|byte| **byte == b'\n').count();
        self.lines.fetch_add(lines as u64, Ordering::Relaxed);
        self.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
    }

    fn lines(&self) -> Option<u64> {
        (!self.packed.load(Ordering::Relaxed)).then(|| self.lines.load(Ordering::Relaxed))
    }
}

/// The file as the body of a request. A thread reads it, because a read of standard input may block for ever.
fn body(input: Input, passed: Arc<Passed>, cut: CancellationToken) -> Body {
    let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(2);
    std::thread::spawn(move || {
        let Input { name, mut file, .. } = input;
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let read = match file.read(&mut piece) {
                Ok(0) => return,
                Ok(length) => {
                    piece.truncate(length);
                    Ok(piece.into())
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(io::Error::new(error.kind(), format!("{name}: {error}"))),
            };
            let is_last = read.is_err();
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    let pieces = stream::unfold((receiver, passed, cut), async |(mut receiver, passed, cut)| {
        let piece = tokio::select! {
            biased;
            () = cut.cancelled() => Some(Err(io::Error::other("interrupted"))),
            piece = receiver.recv() => piece,
        }?;
        if let Ok(bytes) = &piece {
            passed.add(bytes);
        }
        Some((piece.map(Frame::data), (receiver, passed, cut)))
    });
    Body::wrap(StreamBody::new(pieces))
}

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const PIECE_BYTES: usize = 64 * 1024;
const REDRAW_PERIOD: Duration = Duration::from_millis(100);
/// How long the hub may take to answer for a file that was cut off.
const CUT_TIME_MAX: Duration = Duration::from_secs(5);
