//! One MQTT connection over TLS, which uses no memory for buffers while it is idle.
//!
//! The packets are rumqttc's. Its event loop is not suitable: it holds 32 to 40 KiB for each client (a table of packet
//! ids, two channels, two buffers of 10 KiB), reuses packet ids in flight after a reconnect, does not tell the packet
//! id of a publish, cannot stop reading, and does not expose its socket. A fleet needs all of these.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use rumqttc::mqttbytes::v4::{ConnAck, Connect, ConnectReturnCode, Packet};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The hub's address, and the local one.
#[derive(Clone, Debug)]
pub struct Dial {
    /// The name in the hub's certificate.
    pub hostname: String,
    pub port: u16,
    /// The hub's address, if the name need not be resolved.
    pub address: Option<IpAddr>,
    /// The local address; any if absent.
    pub source: Option<IpAddr>,
}

/// Packets over TLS.
#[derive(Debug)]
pub struct Wire {
    stream: Box<TlsStream<TcpStream>>,
    input: BytesMut,
    output: BytesMut,
    is_flushed: bool,
}

/// Why a connection failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("timed out")]
    Timeout,
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("refused: {0}")]
    Refused(String),
    #[error(transparent)]
    Lost(Lost),
    #[error("the hub answered with another packet than CONNACK")]
    NotConnAck,
    #[error("{0:?} is not a host name")]
    HostName(String),
}

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("closed by the hub")]
    Closed,
    #[error("{0}")]
    Io(#[source] io::Error),
    #[error("the hub sent invalid MQTT: {0}")]
    Malformed(String),
    #[error("the hub did not answer a ping")]
    NoPong,
}

impl Dial {
    /// A TCP connection.
    pub async fn tcp(&self) -> io::Result<TcpStream> {
        let stream = match (self.address, self.source) {
            (Some(address), source) => {
                let address = SocketAddr::new(address, self.port);
                let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                if let Some(source) = source.filter(|source| source.is_ipv4() == address.is_ipv4()) {
                    socket.bind(SocketAddr::new(source, 0))?;
                }
                socket.connect(address).await?
            }
            (None, _) => TcpStream::connect((self.hostname.as_str(), self.port)).await?,
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// TCP, TLS, CONNECT and CONNACK, within `CONNECT_TIME_MAX`. Returns whether the hub had kept the session.
    pub async fn connect(
        &self,
        tls: Arc<ClientConfig>,
        connect: Connect,
    ) -> Result<(Wire, bool), ConnectError> {
        let connected = timeout(CONNECT_TIME_MAX, async {
            let name = ServerName::try_from(self.hostname.clone())
                .map_err(|_| ConnectError::HostName(self.hostname.clone()))?;
            let tcp = self.tcp().await.map_err(ConnectError::Io)?;
            let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(ConnectError::Io)?;
            let mut wire = Wire::new(stream);
            wire.send(&Packet::Connect(connect));
            match wire.turn(true).await.map_err(ConnectError::Lost)? {
                Packet::ConnAck(ConnAck { code: ConnectReturnCode::Success, session_present }) => {
                    Ok((wire, session_present))
                }
                Packet::ConnAck(ConnAck { code, .. }) => Err(ConnectError::Refused(refusal(code))),
                _ => Err(ConnectError::NotConnAck),
            }
        });
        connected.await.unwrap_or(Err(ConnectError::Timeout))
    }
}

impl Wire {
    fn new(stream: TlsStream<TcpStream>) -> Self {
        Self { stream: Box::new(stream), input: BytesMut::new(), output: BytesMut::new(), is_flushed: true }
    }

    /// Adds a packet to the output; `turn` sends it.
    pub fn send(&mut self, packet: &Packet) {
        // Fails only for packets above the limit. The check of the scenario rules these out.
        let _ = packet.write(&mut self.output, PACKET_BYTES_MAX);
        self.is_flushed = false;
    }

    /// Sends the output and, if `reads`, waits for a packet. Cancel-safe.
    pub async fn turn(&mut self, reads: bool) -> Result<Packet, Lost> {
        poll_fn(|context| {
            self.poll_send(context).map_err(Lost::Io)?;
            if reads { self.poll_read(context) } else { Poll::Pending }
        })
        .await
    }

    /// Sends the output and closes in order, within `GOODBYE_TIME_MAX`.
    pub async fn leave(mut self) {
        self.send(&Packet::Disconnect);
        let _ = timeout(GOODBYE_TIME_MAX, async {
            poll_fn(|context| match self.poll_send(context) {
                Ok(()) if !self.is_flushed => Poll::Pending,
                sent => Poll::Ready(sent),
            })
            .await?;
            self.stream.shutdown().await
        })
        .await;
    }

    /// Sends as much as the socket accepts. Wakes the task when it accepts more.
    fn poll_send(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        while !self.output.is_empty() {
            match Pin::new(&mut self.stream).poll_write(context, &self.output) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(sent)) => self.output.advance(sent),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => return Ok(()),
            }
        }
        if !self.is_flushed {
            // An idle connection holds no output buffer.
            self.output = BytesMut::new();
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(flushed) => {
                    flushed?;
                    self.is_flushed = true;
                }
                Poll::Pending => {}
            }
        }
        Ok(())
    }

    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Packet, Lost>> {
        loop {
            match Packet::read(&mut self.input, PACKET_BYTES_MAX) {
                Ok(packet) => return Poll::Ready(Ok(packet)),
                Err(rumqttc::mqttbytes::Error::InsufficientBytes(_)) => {}
                Err(error) => return Poll::Ready(Err(Lost::Malformed(error.to_string()))),
            }
            if self.input.is_empty() {
                self.input = BytesMut::new();
            }
            // On the stack, so that an idle connection holds no read buffer.
            let mut bytes = [0; READ_BYTES];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Lost::from_io(error))),
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => return Poll::Ready(Err(Lost::Closed)),
                Poll::Ready(Ok(())) => self.input.extend_from_slice(buffer.filled()),
            }
        }
    }
}

impl Lost {
    /// A hub that closes without TLS's close_notify has closed all the same.
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Closed,
            _ => Self::Io(error),
        }
    }
}

impl ConnectError {
    /// Whether the hub refused, or closed without an answer.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Lost(Lost::Closed))
    }

    /// A short text that is the same for the same fault of any device.
    pub fn reason(&self) -> String {
        match self {
            Self::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => Lost::Closed.to_string(),
            other => other.to_string(),
        }
    }
}

fn refusal(code: ConnectReturnCode) -> String {
    match code {
        ConnectReturnCode::NotAuthorized => "not authorized (5)".into(),
        ConnectReturnCode::ServiceUnavailable => "service unavailable (3)".into(),
        ConnectReturnCode::RefusedProtocolVersion => "unacceptable protocol version (1)".into(),
        ConnectReturnCode::BadClientId => "client id rejected (2)".into(),
        ConnectReturnCode::BadUserNamePassword => "bad user name or password (4)".into(),
        ConnectReturnCode::Success => "accepted (0)".into(),
    }
}

/// A long time, because with many devices this machine is slow, not the hub.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(60);
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// The largest message with its topic, and some room.
const PACKET_BYTES_MAX: usize = 300 * 1024;
const READ_BYTES: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_code() {
        let refused = ConnectError::Refused(refusal(ConnectReturnCode::NotAuthorized));
        assert_eq!(refused.reason(), "refused: not authorized (5)");
        assert!(refused.is_refusal());
    }

    #[test]
    fn a_close_reads_the_same_with_and_without_goodbye() {
        let rude = ConnectError::Io(io::ErrorKind::UnexpectedEof.into());
        assert_eq!(rude.reason(), ConnectError::Lost(Lost::Closed).reason());
        assert_eq!(Lost::from_io(io::ErrorKind::UnexpectedEof.into()).to_string(), "closed by the hub");
    }
}
