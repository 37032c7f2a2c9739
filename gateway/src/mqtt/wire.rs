//! Packets on a byte stream: reads whole packets, gathers outgoing ones, and gives its buffers back when they are empty.
//!
//! It knows framing and nothing of sessions; any byte stream will do.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::mqtt::codec::{self, DecodeError, PacketLimits, Side};
use crate::mqtt::packet::Packet;

/// MQTT packets over a byte stream.
#[derive(Debug)]
pub struct Wire<S> {
    stream: S,
    limits: PacketLimits,
    from: Side,
    input: BytesMut,
    output: BytesMut,
}

/// Why no further packet can be had.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the peer closed the connection")]
    Closed,
    #[error("the connection broke")]
    Io(#[source] io::Error),
    #[error(transparent)]
    Malformed(#[from] DecodeError),
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// Reads packets sent by `from` within `limits`.
    pub fn new(stream: S, limits: PacketLimits, from: Side) -> Self {
        Self { stream, limits, from, input: BytesMut::new(), output: BytesMut::new() }
    }

    /// From now on other limits hold, as after CONNECT.
    pub fn set_limits(&mut self, limits: PacketLimits) {
        self.limits = limits;
    }

    /// The next packet. Cancel-safe: what was read stays in the buffer.
    pub async fn read(&mut self) -> Result<Packet, WireError> {
        loop {
            if let Some(packet) = codec::decode(&mut self.input, &self.limits, self.from)? {
                return Ok(packet);
            }
            if self.input.is_empty() {
                self.input = BytesMut::new();
                self.read_first().await?;
            } else {
                self.input.reserve(READ_BYTES);
                if self.stream.read_buf(&mut self.input).await.map_err(WireError::Io)? == 0 {
                    return Err(WireError::Closed);
                }
            }
        }
    }

    /// Idle connections hold no read buffer: the first bytes land on the stack of the poll, not in the task.
    async fn read_first(&mut self) -> Result<(), WireError> {
        poll_fn(|context| {
            let mut first = [0u8; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut first);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut buffer)).map_err(WireError::Io)?;
            self.input.extend_from_slice(buffer.filled());
            Poll::Ready(if buffer.filled().is_empty() { Err(WireError::Closed) } else { Ok(()) })
        })
        .await
    }

    /// Adds a packet to the output; `flush` sends it.
    pub fn send(&mut self, packet: &Packet) {
        codec::encode(packet, &mut self.output);
    }

    /// Adds bytes that are no packet of ours (an answer in another version's words).
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Bytes gathered and not yet sent.
    pub fn unsent(&self) -> usize {
        self.output.len()
    }

    /// Sends everything gathered. Not to be resumed after being dropped halfway: the connection is then closed.
    pub async fn flush(&mut self) -> io::Result<()> {
        while self.output.has_remaining() {
            self.stream.write_buf(&mut self.output).await?;
        }
        self.output = BytesMut::new();
        self.stream.flush().await
    }

    /// Ends the stream in good order, as far as the peer lets us.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }

    /// The stream below, to be told of the peer and not to be read from.
    pub fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    /// The stream below.
    pub fn stream(&self) -> &S {
        &self.stream
    }
}

/// How much is read at a time.
const READ_BYTES: usize = 4 * 1024;
