//! The limit: TLS, packets and nothing else, in its own process. It accepts every client and acknowledges everything.
//! It has no registry and no session, and it delivers no message.
//!
//! The TLS settings are the hub's: full handshakes, one ticket, a client certificate requested but not checked, and the
//! same kind of chain, a P-256 server certificate of its own CA. Any cost of a hub above this is the hub's own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use portcullis::mqtt::codec::{PacketLimits, Side};
use portcullis::mqtt::packet::{ConnectReturnCode, Packet};
use portcullis::mqtt::wire::{Wire, WireError};
use portcullis_certs::ca::CertificateAuthority;
use portcullis_certs::key::PrivateKey;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::live::Hub;
use crate::program::ended;

/// The running limit; killed when dropped.
#[derive(Debug)]
pub struct Limit {
    child: Child,
    /// The limit's address and CA.
    pub hub: Hub,
}

/// Runs the limit if `Limit::start` started this process.
pub fn limit_if_asked() -> Option<ExitCode> {
    std::env::var_os(ASKED)?;
    let runtime = tokio::runtime::Runtime::new().ok()?;
    Some(ended(runtime.block_on(serve())))
}

impl Limit {
    /// Starts the limit and waits until it listens.
    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(ASKED, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start the limit")?;
        let mut said = BufReader::new(child.stdout.take().context("the limit's output")?);
        let mut address = String::new();
        said.read_line(&mut address)?;
        let mut pem = String::new();
        while !pem.contains("END CERTIFICATE") {
            ensure!(said.read_line(&mut pem)? > 0, "the limit never listened");
        }
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(pem.as_bytes())?)?;
        let mqtt: SocketAddr = address.trim().parse()?;
        Ok(Self { child, hub: Hub { host: "localhost".into(), mqtt, roots } })
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve() -> anyhow::Result<()> {
    let now = UnixTime::now();
    let authority = CertificateAuthority::self_signed(PrivateKey::generate()?, now)?;
    let key = PrivateKey::generate()?;
    let server = authority.sign_server(&key, &[ServerName::try_from("localhost")?], now)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(KeyOnly(provider)))
        .with_single_cert(vec![server.certificate], key.to_der())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    // The reader stops after the certificate's last line.
    print!("{}\n{}", listener.local_addr()?, authority.pem());
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(converse(acceptor.clone(), stream));
    }
}

async fn converse(acceptor: TlsAcceptor, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    // Boxed, as in the hub, so that a connection does not keep the memory of its handshake.
    let Ok(stream) = Box::pin(acceptor.accept(stream)).await else { return };
    let limits = PacketLimits::before_connect(PACKET_BYTES_MAX);
    let mut wire = Wire::new(Box::new(stream), limits, Side::Client);
    // The peer ends the connection.
    let _ = answer(&mut wire).await;
}

async fn answer<S>(wire: &mut Wire<S>) -> Result<(), WireError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        let answer = match wire.read().await? {
            Packet::Connect(_) => {
                wire.set_limits(PacketLimits::after_connect(PACKET_BYTES_MAX, PACKET_BYTES_MAX));
                Some(Packet::ConnAck { session_present: false, code: ConnectReturnCode::Accepted })
            }
            Packet::Publish(publish) => publish.packet_id.map(Packet::PubAck),
            Packet::Subscribe(subscribe) => Some(Packet::SubAck {
                packet_id: subscribe.packet_id,
                codes: vec![1; subscribe.filters.len()],
            }),
            Packet::PingReq => Some(Packet::PingResp),
            _ => None,
        };
        if let Some(answer) = answer {
            wire.send(&answer);
            wire.flush().await.map_err(WireError::Io)?;
        }
    }
}

/// The least check of a client certificate: it accepts any whose key the peer holds.
#[derive(Debug)]
pub struct KeyOnly(pub Arc<CryptoProvider>);

impl ClientCertVerifier for KeyOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

const ASKED: &str = "PORTCULLIS_BENCHES_LIMIT";
const PACKET_BYTES_MAX: usize = 512 * 1024;
