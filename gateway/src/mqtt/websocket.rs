//! A WebSocket as a byte stream: what binary messages carry, end to end, for MQTT above it to find its packets in.
//!
//! It knows frames and nothing of packets: a packet may span frames and a frame may hold several. The frames themselves
//! are read and written by `tungstenite`, which answers pings and refuses what RFC 6455 forbids (threats T230).
//! Nothing here grows with what the peer does: a message has its limit, and one chunk at most waits to be sent.

use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::protocol::frame::{CloseFrame, coding::CloseCode};
use tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

/// The bytes inside the binary messages of a WebSocket.
#[derive(Debug)]
pub struct WebSocket<S> {
    stream: S,
    frames: WebSocketContext,
    /// What is left of the message last read.
    unread: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocket<S> {
    /// Our end of a connection that has switched; `early` is what the peer has sent since.
    pub fn server(stream: S, early: Bytes, message_bytes_max: usize) -> Self {
        Self::new(stream, early, Role::Server, message_bytes_max)
    }

    /// The device's end.
    #[cfg(feature = "testing")]
    pub fn client(stream: S, message_bytes_max: usize) -> Self {
        Self::new(stream, Bytes::new(), Role::Client, message_bytes_max)
    }

    fn new(stream: S, early: Bytes, role: Role, message_bytes_max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(WAITING_BYTES_MAX)
            .max_frame_size(Some(message_bytes_max))
            .max_message_size(Some(message_bytes_max));
        let frames = WebSocketContext::from_partially_read(early.into(), role, Some(config));
        Self { stream, frames, unread: Bytes::new() }
    }

    /// What carries the frames.
    pub fn carrier(&self) -> &S {
        &self.stream
    }

    /// From now on messages may be this long.
    pub fn set_message_bytes_max(&mut self, message_bytes_max: usize) {
        self.frames.set_config(|config| {
            config.max_frame_size = Some(message_bytes_max);
            config.max_message_size = Some(message_bytes_max);
        });
    }

    /// Tells the peer why it is left, if it takes that at once.
    fn leave(&mut self, context: &mut Context<'_>, code: CloseCode) {
        let frame = CloseFrame { code, reason: "".into() };
        let _ = self.frames.close(&mut Polled { stream: &mut self.stream, context }, Some(frame));
    }

    fn poll_flush_frames(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.frames.flush(&mut Polled { stream: &mut self.stream, context }) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(error) if would_block(&error) => Poll::Pending,
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        while socket.unread.is_empty() {
            let code = match socket.frames.read(&mut Polled { stream: &mut socket.stream, context }) {
                Ok(Message::Binary(bytes)) => {
                    socket.unread = bytes;
                    continue;
                }
                // Their answers are on the way; the goodbye after a Close is an error of the next read.
                Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_)) => continue,
                Ok(Message::Text(_) | Message::Frame(_)) => CloseCode::Unsupported,
                Err(error) if would_block(&error) => return Poll::Pending,
                Err(
                    Error::ConnectionClosed
                    | Error::AlreadyClosed
                    | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake),
                ) => return Poll::Ready(Ok(())),
                Err(Error::Io(error)) => return Poll::Ready(Err(error)),
                Err(Error::Capacity(_)) => CloseCode::Size,
                Err(Error::Utf8(_)) => CloseCode::Invalid,
                Err(_) => CloseCode::Protocol,
            };
            socket.leave(context, code);
            let text = format!("a WebSocket frame is not taken: {code}");
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, text)));
        }
        let count = buffer.remaining().min(socket.unread.len());
        buffer.put_slice(&socket.unread[..count]);
        socket.unread.advance(count);
        if socket.unread.is_empty() {
            // Even an empty rest would hold the whole message.
            socket.unread = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocket<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        // No chunk is taken before the last one is gone.
        std::task::ready!(socket.poll_flush_frames(context))?;
        let chunk = &bytes[..bytes.len().min(CHUNK_BYTES_MAX)];
        let message = Message::Binary(Bytes::copy_from_slice(chunk));
        match socket.frames.write(&mut Polled { stream: &mut socket.stream, context }, message) {
            Ok(()) => Poll::Ready(Ok(chunk.len())),
            // What the stream did not take waits for the next flush.
            Err(error) if would_block(&error) => Poll::Ready(Ok(chunk.len())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_flush_frames(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = self.get_mut();
        match socket.frames.close(&mut Polled { stream: &mut socket.stream, context }, None) {
            Err(error) if would_block(&error) => Poll::Pending,
            // Whether or not the peer has heard it, the stream below ends.
            Ok(()) | Err(_) => Pin::new(&mut socket.stream).poll_shutdown(context),
        }
    }
}

/// A stream during one poll, as `tungstenite` wants it: what is pending would block.
struct Polled<'p, 'c, S> {
    stream: &'p mut S,
    context: &'p mut Context<'c>,
}

impl<S: AsyncRead + Unpin> Read for Polled<'_, '_, S> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(bytes);
        at_once(Pin::new(&mut *self.stream).poll_read(self.context, &mut buffer))?;
        Ok(buffer.filled().len())
    }
}

impl<S: AsyncWrite + Unpin> Write for Polled<'_, '_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        at_once(Pin::new(&mut *self.stream).poll_write(self.context, bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        at_once(Pin::new(&mut *self.stream).poll_flush(self.context))
    }
}

fn at_once<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => Err(ErrorKind::WouldBlock.into()),
    }
}

fn would_block(error: &Error) -> bool {
    matches!(error, Error::Io(error) if error.kind() == ErrorKind::WouldBlock)
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        other => io::Error::new(ErrorKind::BrokenPipe, other),
    }
}

/// How much is read at a time, and held by an idle connection.
const READ_BYTES: usize = 4 * 1024;
/// What one frame of ours carries at most.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// One chunk in its frame, and the answers to pings meanwhile.
const WAITING_BYTES_MAX: usize = CHUNK_BYTES_MAX + 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn bytes_arrive_in_order_through_a_narrow_stream() {
        let (here, there) = duplex(100);
        let mut hub = WebSocket::server(here, Bytes::new(), CHUNK_BYTES_MAX);
        let mut device = WebSocket::client(there, CHUNK_BYTES_MAX);
        let sent: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
        let mut heard = vec![0; sent.len()];
        let talk = async {
            hub.write_all(&sent).await?;
            hub.flush().await?;
            hub.shutdown().await
        };
        let (talked, read) = tokio::join!(talk, device.read_exact(&mut heard));
        talked.unwrap();
        read.unwrap();
        assert_eq!(heard, sent);
        assert_eq!(device.read(&mut heard).await.unwrap(), 0, "the end is heard");
    }

    #[tokio::test(start_paused = true)]
    async fn t230_what_waits_for_a_peer_that_does_not_read_is_bounded() {
        let (here, mut there) = duplex(100);
        let mut hub = WebSocket::server(here, Bytes::new(), CHUNK_BYTES_MAX);
        let mut taken = 0;
        let endless = async {
            loop {
                taken += hub.write(&[0; 4 * CHUNK_BYTES_MAX]).await.unwrap();
            }
        };
        timeout(std::time::Duration::from_secs(1), endless).await.unwrap_err();
        assert_eq!(taken, CHUNK_BYTES_MAX);
        // Nor do the answers to its pings pile up, while what it says is still heard.
        let ping = [0x89, 0x80, 0, 0, 0, 0].repeat(10_000);
        let data = [0x82, 0x81, 0, 0, 0, 0, b'x'];
        let pinging = async { there.write_all(&[&ping[..], &data].concat()).await.unwrap() };
        let mut heard = [0];
        let (_, read) = tokio::join!(pinging, hub.read(&mut heard));
        assert_eq!((read.unwrap(), heard), (1, *b"x"));
    }
}
