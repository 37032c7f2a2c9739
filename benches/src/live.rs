//! Thousands of live connections in one process: TLS, a CONNECT with a will, and a wait until the hub closes.
//!
//! No MQTT library is used. A connection holds only its TLS session and one packet that it may still send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use portcullis::mqtt::codec::{self, PacketLimits, Side};
use portcullis::mqtt::packet::{
    Connect, ConnectReturnCode, Packet, Password, Publish, QoS, Subscribe, Utf8Bytes, Will,
};
use portcullis::mqtt::wire::Wire;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The message that a connection sends after it was revoked. It must not arrive.
pub const LATE: &str = "late";
/// The payload of its will.
pub const WILL: &str = "will";

/// The hub's address and CA.
#[derive(Clone, Debug)]
pub struct Hub {
    pub host: String,
    pub mqtt: SocketAddr,
    pub roots: RootCertStore,
}

/// What a client sends in CONNECT.
#[derive(Clone, Debug)]
pub struct Login {
    pub client_id: String,
    pub user_name: String,
    pub password: String,
}

/// How a client signs in.
#[derive(Debug)]
pub enum Credential {
    Token(String),
    Certificate(CertificateDer<'static>, PrivateKeyDer<'static>),
}

/// One connection that waits until it is closed.
#[derive(Debug)]
pub struct Live {
    /// Makes it send a message.
    pub speak: oneshot::Sender<()>,
    /// When the hub closed it.
    pub closed: oneshot::Receiver<Instant>,
}

impl Hub {
    /// The TLS settings of clients with this certificate, to be shared among them.
    pub fn tls(
        &self,
        certificate: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
    ) -> Arc<ClientConfig> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider's own versions")
            .with_root_certificates(self.roots.clone());
        let mut config = match certificate {
            Some((certificate, key)) => {
                builder.with_client_auth_cert(vec![certificate], key).expect("a certificate and its key")
            }
            None => builder.with_no_client_auth(),
        };
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// Connects `id` (`d` or `d/m`) with a will, from one of a few addresses of this machine, and leaves it waiting.
    pub async fn connect(
        &self,
        number: usize,
        id: &str,
        password: Option<&str>,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<Live> {
        let topic = format!("devices/{}/messages/events/", id.replace('/', "/modules/"));
        let will = Will {
            topic: text(&topic),
            payload: Bytes::from_static(WILL.as_bytes()),
            qos: QoS::AtLeastOnce,
            retain: false,
        };
        let connect = Connect {
            client_id: id.to_owned(),
            clean_session: false,
            keep_alive: 0,
            username: Some(format!("{}/{id}/?api-version=2021-04-12", self.host)),
            password: password.map(|token| Password::from_bytes(token.as_bytes())),
            will: Some(will),
        };
        let late = encoded(&publish(&topic, LATE));
        let mut stream = self.stream(number, tls).await?;
        stream.write_all(&encoded(&Packet::Connect(Box::new(connect)))).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        ensure!(answer[0] == 0x20 && answer[3] == 0, "{id} was refused: {answer:?}");
        let (speak, spoken) = oneshot::channel();
        let (ended, closed) = oneshot::channel();
        tokio::spawn(wait(stream, late, spoken, ended));
        Ok(Live { speak, closed })
    }

    /// Connects as a service or device and returns the connection to the caller.
    pub async fn converse(
        &self,
        client: &str,
        user: &str,
        token: &str,
    ) -> anyhow::Result<Wire<TlsStream<TcpStream>>> {
        let login = Login {
            client_id: client.to_owned(),
            user_name: format!("{}/{user}", self.host),
            password: token.to_owned(),
        };
        self.log_in(0, &login, self.tls(None)).await
    }

    /// Connects with `login` to this or any other server, without a persistent session, with shared TLS settings, from
    /// one of a few addresses of this machine.
    pub async fn log_in(
        &self,
        number: usize,
        login: &Login,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<Wire<TlsStream<TcpStream>>> {
        let stream = self.stream(number, tls).await?;
        let mut wire = Wire::new(stream, PacketLimits::after_connect(1 << 20, 1 << 20), Side::Server);
        wire.send(&Packet::Connect(Box::new(Connect {
            client_id: login.client_id.clone(),
            clean_session: true,
            keep_alive: KEEP_ALIVE,
            username: Some(login.user_name.clone()),
            password: Some(Password::from_bytes(login.password.as_bytes())),
            will: None,
        })));
        wire.flush().await?;
        let answer = wire.read().await?;
        let accepted = matches!(answer, Packet::ConnAck { code: ConnectReturnCode::Accepted, .. });
        ensure!(accepted, "{} was refused: {answer:?}", login.client_id);
        Ok(wire)
    }

    /// A new TLS connection from one of a few addresses of this machine.
    pub async fn stream(
        &self,
        number: usize,
        tls: Arc<ClientConfig>,
    ) -> anyhow::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        // The ports of one address might not be enough.
        let own = u8::try_from(2 + number % ADDRESSES).context("few addresses")?;
        socket.bind(SocketAddr::from((Ipv4Addr::new(127, 0, 0, own), 0)))?;
        let tcp = socket.connect(self.mqtt).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        Ok(TlsConnector::from(tls).connect(name, tcp).await?)
    }
}

/// A subscription to the telemetry of every device and module.
pub fn all_events() -> Packet {
    let filters = ["devices/+/messages/events/#", "devices/+/modules/+/messages/events/#"];
    let filters = filters.iter().map(|filter| (text(filter), QoS::AtLeastOnce)).collect();
    Packet::Subscribe(Subscribe { packet_id: 1, filters })
}

/// Telemetry at QoS 1.
pub fn publish(topic: &str, payload: &str) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: text(topic),
        packet_id: Some(1),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
    })
}

/// Waits until the connection closes. Sends its message when it is told to.
async fn wait(
    mut stream: TlsStream<TcpStream>,
    late: BytesMut,
    mut speak: oneshot::Receiver<()>,
    ended: oneshot::Sender<Instant>,
) {
    let mut heard = [0; 64];
    let mut has_spoken = false;
    loop {
        tokio::select! {
            read = stream.read(&mut heard) => if matches!(read, Ok(0) | Err(_)) {
                let _ = ended.send(Instant::now());
                return;
            },
            told = &mut speak, if !has_spoken => {
                has_spoken = true;
                if told.is_ok() {
                    // The hub should have closed by then.
                    let _ = stream.write_all(&late).await;
                    let _ = stream.flush().await;
                }
            }
        }
    }
}

fn encoded(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(packet, &mut bytes);
    bytes
}

fn text(text: &str) -> Utf8Bytes {
    Utf8Bytes::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a text of MQTT")
}

/// Seconds. Longer than any run, because no client pings. Not every server accepts 0.
const KEEP_ALIVE: u16 = 3600;
/// Addresses of this machine that connections come from.
const ADDRESSES: usize = 8;
