//! TLS: the settings of the listeners, and of clients that trust a hub.
//!
//! TLS 1.2 and 1.3, ECDHE with authenticated encryption only, no early data. The device port asks for a client
//! certificate, and `possession` checks it. The HTTPS port serves devices over WebSockets and people with browsers. It
//! asks for a certificate only if the client does not offer HTTP/2. Browsers offer it and would bother their users with
//! the question; no device SDK offers it. `reload` replaces the server certificate at any time. Clients keep the tickets
//! that resume their sessions, so the hub holds nothing for an absent peer. Each CONNECT still authenticates the peer.
//! For an idle connection rustls holds its keys, the peer's certificates and empty buffers.
//!
//! Verification of a server cannot be switched off, here or by any option.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_certs::pem::{self, PemError};
use portcullis_certs::server_cert::{ServerCert, ServerCertError};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::server::{Acceptor, NoServerSessionStorage};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, SupportedProtocolVersion, WantsVerifier,
};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::config::{CertificateFiles, Config};

pub mod connect_error;
mod data_dir;
mod own_ca;
mod possession;
mod served;
#[cfg(test)]
mod tests;

pub use data_dir::DataDirError;
pub use own_ca::OwnCaError;

use data_dir::DataDir;
use possession::PossessionOnly;
use served::Served;

/// The TLS settings of the listeners.
#[derive(Debug)]
pub struct ServerTls {
    mqtt: Arc<ServerConfig>,
    /// For browsers and other clients with HTTP/2.
    https: Arc<ServerConfig>,
    /// Asks for a client certificate.
    https_devices: Arc<ServerConfig>,
    served: Arc<Served>,
}

/// Why the hub cannot serve TLS, or a client cannot trust a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error(transparent)]
    OwnCa(#[from] OwnCaError),
    #[error("{0} cannot be read")]
    File(PathBuf, #[source] io::Error),
    #[error("{chain} and {key} cannot be served", chain = files.chain.display(), key = files.key.display())]
    Given {
        files: CertificateFiles,
        #[source]
        reason: ServerCertError,
    },
    #[error("the certificate in {0} has expired")]
    Expired(PathBuf),
    #[error("{0} holds no CA certificates to trust")]
    NoCa(PathBuf, #[source] PemError),
    #[error("the TLS library refuses the settings")]
    Library(#[from] rustls::Error),
}

impl ServerTls {
    /// Serves the configured certificate, or one of the hub's own CA, which the first start makes. Creates the data
    /// directory and closes it to other users in either case.
    pub fn open_or_create(config: &Config) -> Result<Self, TlsError> {
        let served = Arc::new(Served::new(load(config)?)?);
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let proven = Arc::new(PossessionOnly { algorithms });
        let asks = |builder: ConfigBuilder<ServerConfig, WantsVerifier>| {
            builder
                .with_client_cert_verifier(Arc::clone(&proven) as _)
                .with_cert_resolver(Arc::clone(&served) as _)
        };
        let mqtt = asks(server_builder()?);
        let mut https_devices = asks(server_builder()?);
        let mut https = server_builder()?.with_no_client_auth().with_cert_resolver(Arc::clone(&served) as _);
        for config in [&mut https, &mut https_devices] {
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        Ok(Self {
            mqtt: with_tickets(mqtt)?,
            https: with_tickets(https)?,
            https_devices: with_tickets(https_devices)?,
            served,
        })
    }

    /// Reads the certificate again and uses it from the next handshake on. If it cannot be used, nothing changes.
    pub fn reload(&self, config: &Config) -> Result<(), TlsError> {
        Ok(self.served.replace(load(config)?)?)
    }

    /// The TLS settings of the device port, which ask for a client certificate.
    pub fn mqtt_acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.mqtt))
    }

    /// A handshake on the port of services, operators and devices on WebSockets.
    pub async fn accept_https<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let offers_http2 =
            start.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == b"h2"));
        let config = if offers_http2 { &self.https } else { &self.https_devices };
        start.into_stream(Arc::clone(config)).await
    }

    /// When the server certificate expires.
    pub fn expires(&self) -> Timestamp {
        self.served.expires()
    }

    /// The files of the certificate and its key.
    pub fn files(&self, config: &Config) -> [PathBuf; 2] {
        match &config.certificate {
            Some(files) => [files.chain.clone(), files.key.clone()],
            None => own_ca::FILES.map(|name| config.data_dir.join(name)),
        }
    }
}

/// The server certificate. Opens the data directory, and creates it if it does not exist, in either case.
fn load(config: &Config) -> Result<ServerCert, TlsError> {
    let now = UnixTime::now();
    let directory = DataDir::open(&config.data_dir)?;
    let names: Vec<_> =
        config.host_names().into_iter().filter_map(|name| ServerName::try_from(name).ok()).collect();
    match &config.certificate {
        Some(files) => given_certificate(files, &names, now),
        None => Ok(own_ca::open_or_create(&directory, &names, &names_of_this_machine(), now)?),
    }
}

/// Adds tickets that resume sessions. Each listener has its own.
fn with_tickets(mut config: ServerConfig) -> Result<Arc<ServerConfig>, rustls::Error> {
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

/// TLS settings of a client that trusts the CA certificates in `ca`, or those of the operating system.
pub fn client_config(ca: Option<&Path>) -> Result<ClientConfig, TlsError> {
    let builder = client_builder()?;
    let Some(path) = ca else { return Ok(builder.with_platform_verifier()?.with_no_client_auth()) };
    let certificates =
        pem::read_certificates(&read(path)?).map_err(|error| TlsError::NoCa(path.to_owned(), error))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// TLS settings of a client that trusts no server, for addresses without TLS.
pub fn client_config_without_trust() -> Result<ClientConfig, TlsError> {
    Ok(client_builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

/// The operator's own certificate. It is served unchanged, unless no client could accept it.
fn given_certificate(
    files: &CertificateFiles,
    names: &[ServerName<'_>],
    now: UnixTime,
) -> Result<ServerCert, TlsError> {
    let cert = ServerCert::parse(&read(&files.chain)?, &read(&files.key)?)
        .map_err(|reason| TlsError::Given { files: files.clone(), reason })?;
    if now >= cert.valid_until() {
        return Err(TlsError::Expired(files.chain.clone()));
    }
    for name in names.iter().filter(|name| !cert.covers(name)) {
        tracing::warn!(name = %name.to_str(), "the configured server certificate does not hold this name of the hub");
    }
    Ok(cert)
}

/// Names that clients on this machine or in its network may dial instead of the hub's name.
fn names_of_this_machine() -> Vec<ServerName<'static>> {
    let own = gethostname::gethostname().to_string_lossy().into_owned();
    let names = [own, "localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    names.into_iter().filter_map(|name| ServerName::try_from(name).ok()).collect()
}

fn client_builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS)
}

fn server_builder() -> Result<ConfigBuilder<ServerConfig, WantsVerifier>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider).with_protocol_versions(VERSIONS)
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::File(path.to_owned(), error))
}

/// Python's device SDK speaks 1.2 only.
const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
/// One resumption ticket for each handshake, because a device has one connection.
const TICKETS: usize = 1;
