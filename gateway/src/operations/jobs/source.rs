//! The file of an import on its way in: unpacked, cut into lines, read, and handed on in batches.
//!
//! Unpacking and reading cost time, so they have a thread of their own. It waits while two batches are not yet taken:
//! whatever the size of the file, no more of it is held than these, one piece and one line.

use std::collections::HashSet;
use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use futures_util::StreamExt;
use portcullis_registry::id::DeviceId;
use portcullis_registry::lines::{Line, LineSplitter};
use tokio::sync::mpsc;

use super::import::ImportItem;
use super::line::{self, LineChange, LineRefusal};
use super::plan::LineRequest;
use crate::blob::container::{ContainerError, Pieces};
use crate::iothub::change::NamedIdentity;

/// Some lines of the file, in order.
#[derive(Debug, Default)]
pub(super) struct LineBatch {
    pub(super) items: Vec<ImportItem>,
    /// How much has been read by now: bytes of the file, as they are stored.
    pub(super) read: u64,
    /// None comes after it. Without such a batch the end never came.
    pub(super) is_last: bool,
}

impl LineBatch {
    /// The devices it is about.
    pub(super) fn devices(&self) -> HashSet<DeviceId> {
        let asks = self.items.iter().filter_map(|item| item.ask.as_ref().ok());
        asks.map(|ask| ask.id().device.clone()).collect()
    }
}

/// Why there is no more of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("the file begins as gzip does and cannot be unpacked: {0}")]
    Damaged(io::Error),
    #[error("the reading broke off")]
    BrokeOff,
    #[error("the undo file: {0}")]
    Undo(io::Error),
    #[error("the file unpacks to more than {EXPANSION_MAX} times its size")]
    Expands,
}

/// What reads a line.
type Parse = fn(&str) -> Result<LineChange, (NamedIdentity, LineRefusal)>;

/// Reads a file to its end, or until nobody takes its batches any more.
pub(super) fn batches(pieces: Pieces) -> mpsc::Receiver<Result<LineBatch, SourceError>> {
    batches_of(pieces, line::parse)
}

fn batches_of(pieces: Pieces, parse: Parse) -> mpsc::Receiver<Result<LineBatch, SourceError>> {
    let (piece_sender, piece_receiver) = mpsc::channel(1);
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(pump(pieces, piece_sender));
    tokio::task::spawn_blocking(move || {
        let mut reader = LineReader::new(parse, sender);
        if let Err(ReadEnd::Failed(error)) = reader.run(piece_receiver) {
            // A job that ended meanwhile has no use for it.
            let _ = reader.batches.blocking_send(Err(error));
        }
    });
    receiver
}

/// Hands on each piece, and nothing once there are no more.
async fn pump(mut pieces: Pieces, to: mpsc::Sender<Result<Option<Bytes>, ContainerError>>) {
    loop {
        let piece = tokio::select! {
            () = to.closed() => return,
            piece = pieces.next() => piece.transpose(),
        };
        let is_end = matches!(piece, Ok(None) | Err(_));
        if to.send(piece).await.is_err() || is_end {
            return;
        }
    }
}

struct LineReader {
    parse: Parse,
    coding: Coding,
    splitter: LineSplitter,
    batch: LineBatch,
    /// Bytes in the lines of the batch.
    held: usize,
    batches: mpsc::Sender<Result<LineBatch, SourceError>>,
}

enum Coding {
    /// Too little was read to tell.
    Unknown(Vec<u8>),
    Plain,
    Gzip {
        decoder: Box<MultiGzDecoder<Vec<u8>>>,
        unpacked: u64,
    },
}

enum ReadEnd {
    Failed(SourceError),
    NobodyListens,
}

impl From<SourceError> for ReadEnd {
    fn from(error: SourceError) -> Self {
        ReadEnd::Failed(error)
    }
}

impl LineReader {
    fn new(parse: Parse, batches: mpsc::Sender<Result<LineBatch, SourceError>>) -> Self {
        Self {
            parse,
            coding: Coding::Unknown(Vec::new()),
            splitter: LineSplitter::default(),
            batch: LineBatch::default(),
            held: 0,
            batches,
        }
    }

    fn run(
        &mut self,
        mut pieces: mpsc::Receiver<Result<Option<Bytes>, ContainerError>>,
    ) -> Result<(), ReadEnd> {
        loop {
            let piece = pieces.blocking_recv().ok_or(SourceError::BrokeOff)?;
            let Some(piece) = piece.map_err(SourceError::from)? else { return self.finish() };
            self.batch.read += piece.len() as u64;
            self.take(&piece)?;
        }
    }

    fn take(&mut self, piece: &[u8]) -> Result<(), ReadEnd> {
        if let Coding::Unknown(begun) = &mut self.coding {
            begun.extend_from_slice(piece);
            if begun.len() < GZIP_MAGIC.len() {
                return Ok(());
            }
            let begun = std::mem::take(begun);
            self.coding = if begun.starts_with(GZIP_MAGIC) {
                Coding::Gzip { decoder: Box::new(MultiGzDecoder::new(Vec::new())), unpacked: 0 }
            } else {
                Coding::Plain
            };
            return self.take_known(&begun);
        }
        self.take_known(piece)
    }

    fn take_known(&mut self, piece: &[u8]) -> Result<(), ReadEnd> {
        let Coding::Gzip { .. } = self.coding else { return self.text(piece) };
        // Small parts, since each may unpack to a thousand times its size.
        for part in piece.chunks(PACKED_BYTES) {
            let unpacked = self.unpack(|decoder| decoder.write_all(part))?;
            self.text(&unpacked)?;
        }
        Ok(())
    }

    fn unpack(
        &mut self,
        step: impl FnOnce(&mut MultiGzDecoder<Vec<u8>>) -> io::Result<()>,
    ) -> Result<Vec<u8>, SourceError> {
        let Coding::Gzip { decoder, unpacked } = &mut self.coding else { return Ok(Vec::new()) };
        step(decoder).map_err(SourceError::Damaged)?;
        let bytes = std::mem::take(decoder.get_mut());
        *unpacked += bytes.len() as u64;
        if *unpacked > EXPANSION_FREE_BYTES.max(self.batch.read.saturating_mul(EXPANSION_MAX)) {
            return Err(SourceError::Expands);
        }
        Ok(bytes)
    }

    fn text(&mut self, text: &[u8]) -> Result<(), ReadEnd> {
        for part in text.chunks(TEXT_BYTES) {
            let Self { splitter, batch, held, parse, .. } = self;
            splitter.push(part, |line| {
                *held += line.text.as_ref().map_or(0, String::len);
                batch.items.push(read(*parse, line));
            });
            if self.batch.items.len() >= BATCH_LINES || self.held >= BATCH_BYTES {
                self.hand_on()?;
            }
        }
        Ok(())
    }

    fn hand_on(&mut self) -> Result<(), ReadEnd> {
        self.held = 0;
        let next =
            LineBatch { items: Vec::with_capacity(BATCH_LINES), read: self.batch.read, is_last: false };
        let batch = std::mem::replace(&mut self.batch, next);
        self.batches.blocking_send(Ok(batch)).map_err(|_| ReadEnd::NobodyListens)
    }

    fn finish(&mut self) -> Result<(), ReadEnd> {
        match &mut self.coding {
            Coding::Unknown(begun) => {
                let begun = std::mem::take(begun);
                self.text(&begun)?;
            }
            Coding::Plain => {}
            Coding::Gzip { .. } => {
                let rest = self.unpack(MultiGzDecoder::try_finish)?;
                self.text(&rest)?;
            }
        }
        let last = std::mem::take(&mut self.splitter).finish();
        self.batch.items.extend(last.map(|line| read(self.parse, line)));
        self.batch.is_last = true;
        self.hand_on()
    }
}

fn read(parse: Parse, line: Line) -> ImportItem {
    let asked = match line.text {
        Ok(text) => parse(&text),
        Err(error) => Err((NamedIdentity::default(), error.into())),
    };
    match asked {
        Ok(LineChange { change, has_twin }) => {
            ImportItem { line: line.number, ask: Ok(LineRequest::Line(change)), has_twin }
        }
        Err(refused) => ImportItem { line: line.number, ask: Err(refused), has_twin: false },
    }
}

/// Lines that are applied together.
const BATCH_LINES: usize = 1024;
/// And no more bytes of them than this.
const BATCH_BYTES: usize = 1024 * 1024;
/// So much text is cut into lines until it is seen whether the batch is full.
const TEXT_BYTES: usize = 16 * 1024;
/// So much is unpacked at once.
const PACKED_BYTES: usize = 4 * 1024;
/// A file of identities has random keys or thumbprints in it, or at least counted ids: it does not shrink more.
const EXPANSION_MAX: u64 = 200;
/// A file that unpacks to less may shrink as it likes.
const EXPANSION_FREE_BYTES: u64 = 16 * 1024 * 1024;
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use futures_util::stream;

    use super::*;

    /// Refuses every line with its own text.
    fn echo(text: &str) -> Result<LineChange, (NamedIdentity, LineRefusal)> {
        Err((NamedIdentity::default(), LineRefusal { code: 0, name: "", text: text.to_owned() }))
    }

    async fn lines(pieces: Vec<Result<Bytes, ContainerError>>) -> Result<Vec<(u64, String)>, SourceError> {
        let mut batches = batches_of(stream::iter(pieces).boxed(), echo);
        let mut lines = Vec::new();
        loop {
            let batch = batches.recv().await.unwrap_or(Err(SourceError::BrokeOff))?;
            assert!(batch.items.len() <= BATCH_LINES + TEXT_BYTES, "{}", batch.items.len());
            lines.extend(batch.items.into_iter().map(|item| (item.line, item.ask.unwrap_err().1.text)));
            if batch.is_last {
                return Ok(lines);
            }
        }
    }

    fn packed(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    fn cut(file: &[u8], bytes: usize) -> Vec<Result<Bytes, ContainerError>> {
        file.chunks(bytes).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect()
    }

    #[tokio::test]
    async fn t808_a_file_is_the_same_however_it_is_cut_and_packed() {
        let text: String = (1..=3000).map(|number| format!("line {number}\n")).collect();
        let expected: Vec<_> = (1..=3000).map(|number| (number, format!("line {number}"))).collect();
        let (one, other) = text.split_at(text.len() / 2);
        let twice = [packed(one), packed(other)].concat();
        for file in [text.as_bytes(), &packed(&text), &twice] {
            for bytes in [1, 7, 4096, usize::MAX] {
                assert_eq!(lines(cut(file, bytes)).await.unwrap(), expected, "{bytes}");
            }
        }
        for (file, line) in [(&b""[..], None), (b"x", Some("x")), (b"\x1f", Some("\u{1f}"))] {
            let expected: Vec<_> = line.map(|line| (1, line.to_owned())).into_iter().collect();
            assert_eq!(lines(cut(file, 1)).await.unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn t805_a_file_that_does_not_come_whole_is_no_file() {
        let broken = vec![Ok(Bytes::from_static(b"a\nb")), Err(ContainerError::Unreachable)];
        assert!(matches!(lines(broken).await, Err(SourceError::Container(ContainerError::Unreachable))));
        let file = packed("a\n");
        for end in 2..file.len() {
            assert!(matches!(lines(cut(&file[..end], 3)).await, Err(SourceError::Damaged(_))), "{end}");
        }
        let bomb = packed(&"\n".repeat(40 << 20));
        assert!(matches!(lines(cut(&bomb, 65_536)).await, Err(SourceError::Expands)));
    }
}
