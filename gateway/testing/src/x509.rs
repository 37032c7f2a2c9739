//! Devices that prove themselves with certificates: their registration, and connections that show a certificate.

use std::sync::Arc;

use portcullis_certs::testing::{TestCa, TestCert};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use portcullis_registry::authority::AuthorityName;
use portcullis_registry::credential::{Thumbprint, ThumbprintPair};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::{AuthenticationSpec, IdentitySpec};
use rustls::ClientConfig;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{HubSettings, TestClient, TestHub, WebSocket, websocket_request, within};
use portcullis::config::Config;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Password};
use portcullis::serve;

/// What a client shows in the handshake, whatever the server asks for, with a key that need not be its own.
#[derive(Clone, Debug)]
pub struct Shown(Arc<CertifiedKey>);

impl Shown {
    /// A chain, the client's own certificate first, with `key`.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: &PrivateKeyDer<'static>) -> Self {
        let key = aws_lc_rs::sign::any_supported_type(key).expect("a key of a supported kind");
        Self(Arc::new(CertifiedKey::new(chain, key)))
    }

    /// One certificate with its own key.
    pub fn alone(own: &TestCert) -> Self {
        Self::new(vec![own.certificate.clone()], &own.key)
    }

    /// Reads a chain and its key from PEM texts.
    pub fn from_pem(chain: &str, key: &str) -> Self {
        let chain = portcullis_certs::pem::read_certificates(chain.as_bytes()).expect("certificates");
        let key = portcullis_certs::pem::read_key(key.as_bytes()).expect("a key");
        Self::new(chain, &key)
    }

    /// The client's own certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.0.cert[0]
    }
}

#[derive(Debug)]
struct Always(Shown);

impl ResolvesClientCert for Always {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// `d` or `d/m` as an id.
pub fn identity(text: &str) -> IdentityId {
    match text.split_once('/') {
        None => IdentityId::device(DeviceId::parse(text).expect("a device id")),
        Some((device, module)) => IdentityId::module(
            DeviceId::parse(device).expect("a device id"),
            ModuleId::parse(module).expect("a module id"),
        ),
    }
}

/// Authentication by the SHA-256 thumbprints of these certificates.
pub fn thumbprints(
    primary: Option<&CertificateDer<'_>>,
    secondary: Option<&CertificateDer<'_>>,
) -> AuthenticationSpec {
    let thumbprint = |certificate: &CertificateDer<'_>| {
        Thumbprint::parse(&Sha256Thumbprint::of(certificate).to_string()).expect("a thumbprint")
    };
    AuthenticationSpec::SelfSigned(ThumbprintPair {
        primary: primary.map(thumbprint),
        secondary: secondary.map(thumbprint),
    })
}

impl TestHub {
    /// A hub with a server certificate of another CA, whose PEM text is given.
    pub async fn start_trusting(settings: HubSettings, ca_pem: &str) -> Self {
        let (directory, flags) = Self::place(&settings);
        let data_dir = flags.data_dir.as_ref().expect("a data directory");
        std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
            .create(data_dir)
            .expect("a new directory");
        // Where clients look; the hub makes no CA of its own.
        std::fs::write(data_dir.join("ca.pem"), ca_pem).expect("a new file");
        Self::open(directory, flags, settings.environment).await
    }

    /// Stops the hub and tells why another one does not start on the same data.
    pub async fn restart_or_fail(self) -> anyhow::Result<()> {
        let (_directory, flags, settings) = self.close().await;
        let config = Config::load(&flags, settings.iter().cloned())?;
        serve::bind(config).await.map(drop)
    }

    /// Whether this text stood in a warning or error.
    pub fn heard(&self, text: &str) -> bool {
        self.log.heard(text)
    }

    /// Registers a device (`d`) or module (`d/m`) that proves itself so; or changes how it does.
    pub async fn register(&self, id: &str, authentication: AuthenticationSpec) {
        let spec = IdentitySpec { authentication, ..IdentitySpec::sas_device(identity(id)) };
        let now = self.hub.clock.wall();
        let registry = &self.hub.registry;
        if registry.entry(&spec.id).is_none() {
            registry.create(spec, now).await.expect("the identity is new");
        } else {
            registry.replace(spec, Precondition::AnyVersion, now).await.expect("the identity is there");
        }
    }

    /// Enrols a CA and marks it verified.
    pub async fn enrol(&self, name: &str, ca: &TestCa) {
        let body = serde_json::json!({ "certificate": ca.pem(), "verified": true, "reason": "a test" });
        let name = AuthorityName::parse(name).expect("a CA's name");
        let path = format!("/api/v1/certificate-authorities/{name}");
        let (status, answer) = self.rest().call("PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The CONNECT an SDK sends for an identity that has no token.
    pub fn connect_packet_of(&self, id: &str) -> Connect {
        Connect {
            client_id: id.to_owned(),
            clean_session: false,
            keep_alive: 60,
            username: Some(format!("{}/{id}/?api-version=2021-04-12", self.hub.hosts.primary())),
            password: None,
            will: None,
        }
    }

    /// Connects with a certificate and no password; a refusal is its code.
    pub async fn connect_x509(&self, id: &str, shown: &Shown) -> Result<TestClient, ConnectReturnCode> {
        self.connect_x509_with(self.connect_packet_of(id), shown).await
    }

    /// Connects with a certificate and any CONNECT; a refusal is its code.
    pub async fn connect_x509_with(
        &self,
        connect: Connect,
        shown: &Shown,
    ) -> Result<TestClient, ConnectReturnCode> {
        let config = self.client_that_shows(shown, rustls::ALL_VERSIONS);
        let stream = self.tls_with(config).await.expect("the TLS handshake");
        TestClient::over(stream).connect(connect).await
    }

    /// Connects with a certificate over a WebSocket; a refusal is its code.
    pub async fn connect_x509_websocket(
        &self,
        id: &str,
        shown: &Shown,
    ) -> Result<TestClient, ConnectReturnCode> {
        let config = self.client_that_shows(shown, rustls::ALL_VERSIONS);
        let tcp = within(TcpStream::connect(self.https)).await.expect("the HTTPS port accepts");
        let stream = within(TlsConnector::from(config).connect(self.server_name(), tcp)).await;
        let mut client = super::RawClient { stream: stream.expect("the TLS handshake") };
        client.send(websocket_request("/$iothub/websocket", "mqtt").as_bytes()).await;
        let head = client.http_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let stream = WebSocket::client(client.stream, 1 << 20);
        TestClient::over(stream).connect(self.connect_packet_of(id)).await
    }

    /// What the HTTPS port answers to a request without a token on a connection that shows a certificate: the head.
    pub async fn request_x509(&self, shown: &Shown, method: &str, path: &str) -> String {
        let config = self.client_that_shows(shown, rustls::ALL_VERSIONS);
        let tcp = within(TcpStream::connect(self.https)).await.expect("the HTTPS port accepts");
        let stream = within(TlsConnector::from(config).connect(self.server_name(), tcp)).await;
        let mut client = super::RawClient { stream: stream.expect("the TLS handshake") };
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        client.send(head.as_bytes()).await;
        client.http_head().await
    }

    /// TLS settings of a client that shows a certificate. Clones of one share their resumption tickets.
    pub fn client_that_shows(
        &self,
        shown: &Shown,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        let ca = portcullis_certs::pem::read_certificates(self.ca_pem().as_bytes()).expect("the hub's CA");
        roots.add_parsable_certificates(ca);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions the provider knows")
            .with_root_certificates(roots);
        Arc::new(builder.with_client_cert_resolver(Arc::new(Always(shown.clone()))))
    }

    /// A TLS connection to the MQTT port with these settings.
    pub async fn tls_with(&self, config: Arc<ClientConfig>) -> std::io::Result<TlsStream<TcpStream>> {
        within(TlsConnector::from(config).connect(self.server_name(), self.tcp().await)).await
    }

    /// Connects with any CONNECT over a TLS connection.
    pub async fn connect_over(
        &self,
        stream: TlsStream<TcpStream>,
        connect: Connect,
    ) -> Result<TestClient, ConnectReturnCode> {
        TestClient::over(stream).connect(connect).await
    }

    /// A TLS connection for saying whatever one likes.
    pub fn raw_over(&self, stream: TlsStream<TcpStream>) -> super::RawClient {
        super::RawClient { stream }
    }

    pub(super) fn server_name(&self) -> rustls_pki_types::ServerName<'static> {
        self.hub.hosts.primary().to_owned().try_into().expect("a host name")
    }

    /// The reason of the last refusal of an id.
    pub fn last_refusal(&self, id: &str) -> String {
        self.hub.refusals.last(&identity(id)).expect("it was refused").reason
    }
}

/// A password that is no token.
pub fn password(text: &str) -> Option<Password> {
    Some(Password::from_bytes(text.as_bytes()))
}
