use std::io::Cursor;

use portcullis_certs::testing::{TestCa, TestCert};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::CertificateDer;
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConnection, Connection, HandshakeKind, ProtocolVersion, ServerConnection, SignatureScheme,
};
use tempfile::TempDir;

use super::*;
use crate::config::ServeFlags;

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A hub's TLS in a directory of its own.
struct Hub {
    directory: TempDir,
    tls: ServerTls,
}

impl Hub {
    fn start(hostname: &str) -> Self {
        let directory = TempDir::new().unwrap();
        let tls = open(&directory, hostname, &[]).unwrap();
        Self { directory, tls }
    }

    fn ca(&self) -> PathBuf {
        self.directory.path().join("data/ca.pem")
    }

    /// A client's settings in one TLS version, with the certificate `shown`.
    fn client(&self, version: &'static SupportedProtocolVersion, shown: Option<Arc<Shown>>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let ca = pem::read_certificates(&fs::read(self.ca()).unwrap()).unwrap();
        roots.add_parsable_certificates(ca);
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_root_certificates(roots);
        match shown {
            Some(shown) => builder.with_client_cert_resolver(shown),
            None => builder.with_no_client_auth(),
        }
    }
}

/// A client certificate that is shown whatever the server asks for, with a key that need not be its own.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl Shown {
    fn new(chain: Vec<CertificateDer<'static>>, key_of: &TestCert) -> Arc<Self> {
        let key = aws_lc_rs::sign::any_supported_type(&key_of.key).unwrap();
        Arc::new(Self(Arc::new(CertifiedKey::new(chain, key))))
    }
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn open(directory: &TempDir, hostname: &str, settings: &[(&str, &Path)]) -> Result<ServerTls, TlsError> {
    let flags = ServeFlags {
        data_dir: Some(directory.path().join("data")),
        hostname: Some(hostname.to_owned()),
        ..ServeFlags::default()
    };
    let settings = settings.iter().map(|(name, path)| ((*name).to_owned(), path.display().to_string()));
    ServerTls::open_or_create(&Config::load(&flags, settings).unwrap())
}

/// A whole handshake in memory, with what the server sends after it; whichever side objects ends it.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
    name: &'static str,
) -> Result<(ClientConnection, ServerConnection), rustls::Error> {
    let name = ServerName::try_from(name).unwrap();
    let mut client = Connection::from(ClientConnection::new(Arc::clone(client), name).unwrap());
    let mut server = Connection::from(ServerConnection::new(Arc::clone(server)).unwrap());
    while client.wants_write() || server.wants_write() {
        pass(&mut client, &mut server)?;
        pass(&mut server, &mut client)?;
    }
    let (Connection::Client(client), Connection::Server(server)) = (client, server) else { unreachable!() };
    assert!(!client.is_handshaking() && !server.is_handshaking());
    Ok((client, server))
}

fn pass(from: &mut Connection, to: &mut Connection) -> Result<(), rustls::Error> {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).unwrap();
    }
    let mut bytes = Cursor::new(bytes);
    while to.read_tls(&mut bytes).unwrap() > 0 {
        to.process_new_packets()?;
    }
    Ok(())
}

#[test]
fn t104_tls_1_2_and_1_3_work() {
    let hub = Hub::start("hub.test");
    for (version, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        for server in [&hub.tls.mqtt, &hub.tls.https] {
            let client = Arc::new(hub.client(version, None));
            let (_, server) = handshake(&client, server, "hub.test").unwrap();
            assert_eq!(server.protocol_version(), Some(spoken));
            assert!(server.peer_certificates().is_none());
        }
    }
}

#[test]
fn t105_only_ephemeral_keys_and_authenticated_encryption_are_offered() {
    let hub = Hub::start("hub.test");
    for suite in &hub.tls.mqtt.crypto_provider().cipher_suites {
        let name = format!("{:?}", suite.suite());
        assert!(name.starts_with("TLS13_") || name.starts_with("TLS_ECDHE_"), "{name}");
        assert!(name.contains("_GCM_") || name.contains("_CHACHA20_POLY1305_"), "{name}");
    }
}

#[test]
fn t108_no_early_data() {
    let hub = Hub::start("hub.test");
    assert_eq!((hub.tls.mqtt.max_early_data_size, hub.tls.https.max_early_data_size), (0, 0));
}

#[test]
fn t106_the_certificate_serves_every_name_of_the_hub() {
    let hub = Hub::start("hub.test");
    let client = Arc::new(client_config(Some(&hub.ca())).unwrap());
    for name in ["hub.test", "localhost", "127.0.0.1", "::1"] {
        handshake(&client, &hub.tls.mqtt, name).unwrap();
    }
    assert!(handshake(&client, &hub.tls.mqtt, "other.test").is_err());
}

#[test]
fn a_client_trusts_the_given_ca_and_no_other() {
    let (hub, other) = (Hub::start("hub.test"), Hub::start("hub.test"));
    let client = Arc::new(client_config(Some(&other.ca())).unwrap());
    assert!(matches!(
        handshake(&client, &hub.tls.https, "hub.test"),
        Err(rustls::Error::InvalidCertificate(_))
    ));
    assert!(matches!(client_config(Some(Path::new("/nonexistent"))), Err(TlsError::File(..))));
    let empty = hub.directory.path().join("empty.pem");
    fs::write(&empty, "").unwrap();
    assert!(matches!(client_config(Some(&empty)), Err(TlsError::NoCa(..))));
}

#[test]
fn t402_a_client_certificate_of_any_issuer_and_usage_is_passed_on_with_its_key_proven() {
    let hub = Hub::start("hub.test");
    let ca = TestCa::new();
    let signed_by_a_ca = ca.device("d1");
    let self_signed = TestCa::self_signed_device("d2");
    let server_cert = ca.server(&["d3"]);
    for version in BOTH {
        for shown in [&signed_by_a_ca, &self_signed, &server_cert] {
            let client = hub.client(version, Some(Shown::new(vec![shown.certificate.clone()], shown)));
            let (_, server) = handshake(&Arc::new(client), &hub.tls.mqtt, "hub.test").unwrap();
            assert_eq!(server.peer_certificates(), Some([shown.certificate.clone()].as_slice()));
        }
    }
}

#[test]
fn t403_anothers_certificate_without_its_key_fails() {
    let hub = Hub::start("hub.test");
    let (victim, thief) = (TestCa::self_signed_device("d1"), TestCa::self_signed_device("d1"));
    for version in BOTH {
        let client = hub.client(version, Some(Shown::new(vec![victim.certificate.clone()], &thief)));
        let refused = handshake(&Arc::new(client), &hub.tls.mqtt, "hub.test").unwrap_err();
        let rustls::Error::InvalidCertificate(rustls::CertificateError::Other(reason)) = refused else {
            panic!("{version:?} {refused}")
        };
        let words = format!(
            "does not hold the key of the certificate it sent, CN=d1 (thumbprint {})",
            Sha256Thumbprint::of(&victim.certificate)
        );
        assert!(reason.0.to_string().contains(&words), "{version:?} {}", reason.0);
    }
}

#[test]
fn t111_a_chain_too_long_is_refused() {
    let hub = Hub::start("hub.test");
    let device = TestCa::self_signed_device("d1");
    for version in BOTH {
        for (length, taken) in [(10, true), (11, false), (60, false)] {
            let client =
                hub.client(version, Some(Shown::new(vec![device.certificate.clone(); length], &device)));
            let outcome = handshake(&Arc::new(client), &hub.tls.mqtt, "hub.test");
            assert_eq!(outcome.is_ok(), taken, "{version:?} {length}");
        }
    }
}

#[test]
fn t411_bad_der_is_refused() {
    let hub = Hub::start("hub.test");
    let device = TestCa::self_signed_device("d1");
    for version in BOTH {
        let client =
            hub.client(version, Some(Shown::new(vec![CertificateDer::from(vec![0x30, 0x80])], &device)));
        assert!(handshake(&Arc::new(client), &hub.tls.mqtt, "hub.test").is_err());
    }
}

#[test]
fn t113_a_resumed_session_still_shows_the_certificate_that_connect_judges() {
    let hub = Hub::start("hub.test");
    let device = TestCa::self_signed_device("d1");
    for version in BOTH {
        let client =
            Arc::new(hub.client(version, Some(Shown::new(vec![device.certificate.clone()], &device))));
        handshake(&client, &hub.tls.mqtt, "hub.test").unwrap();
        let (_, server) = handshake(&client, &hub.tls.mqtt, "hub.test").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
        assert_eq!(server.peer_certificates().map(<[_]>::len), Some(1), "{version:?}");
    }
}

#[test]
fn t114_a_ticket_from_an_earlier_run_means_a_full_handshake() {
    let hub = Hub::start("hub.test");
    let restarted = open(&hub.directory, "hub.test", &[]).unwrap();
    for version in BOTH {
        let mut client = hub.client(version, None);
        client.resumption = Resumption::in_memory_sessions(8);
        let client = Arc::new(client);
        handshake(&client, &hub.tls.mqtt, "hub.test").unwrap();
        let (_, server) = handshake(&client, &restarted.mqtt, "hub.test").unwrap();
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full), "{version:?}");
    }
}

#[test]
fn https_speaks_http_1_1_and_mqtt_names_no_protocol() {
    let hub = Hub::start("hub.test");
    let mut client = hub.client(&TLS13, None);
    client.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let client = Arc::new(client);
    let (_, https) = handshake(&client, &hub.tls.https, "hub.test").unwrap();
    assert_eq!(https.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let (_, mqtt) = handshake(&client, &hub.tls.mqtt, "hub.test").unwrap();
    assert_eq!(mqtt.alpn_protocol(), None);
}

#[tokio::test]
async fn on_the_https_port_devices_are_asked_for_a_certificate_and_browsers_are_not() {
    let hub = Hub::start("hub.test");
    let device = TestCa::self_signed_device("d1");
    for (offered, asked) in [(&[][..], true), (&["http/1.1"], true), (&["h2", "http/1.1"], false)] {
        for version in BOTH {
            let mut client = hub.client(version, Some(Shown::new(vec![device.certificate.clone()], &device)));
            client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
            let (near, far) = tokio::io::duplex(16 * 1024);
            let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
            let name = ServerName::try_from("hub.test").unwrap();
            let (client, server) = tokio::join!(connector.connect(name, near), hub.tls.accept_https(far));
            assert!(client.is_ok());
            let shown = server.unwrap().get_ref().1.peer_certificates().map(<[_]>::len);
            assert_eq!(shown, asked.then_some(1), "{offered:?} {version:?}");
        }
    }
}

#[test]
fn a_certificate_of_the_operators_own_is_served() {
    let directory = TempDir::new().unwrap();
    let given = TestCa::new().server(&["hub.test"]);
    let [chain, key] = ["chain.pem", "key.pem"].map(|name| directory.path().join(name));
    fs::write(&chain, &given.certificate_pem).unwrap();
    fs::write(&key, &given.key_pem).unwrap();
    let settings =
        [("PORTCULLIS__TLS__CERTIFICATE", chain.as_path()), ("PORTCULLIS__TLS__KEY", key.as_path())];
    open(&directory, "hub.test", &settings).unwrap();
    assert_eq!(fs::read_dir(directory.path().join("data")).unwrap().count(), 0, "no CA of our own");

    fs::write(&key, TestCa::new().server(&["hub.test"]).key_pem).unwrap();
    let mismatch = open(&directory, "hub.test", &settings).unwrap_err();
    assert!(matches!(mismatch, TlsError::Given { reason: ServerCertError::KeyMismatch, .. }), "{mismatch}");

    let expired = TestCa::new().expired_server(&["hub.test"]);
    fs::write(&chain, &expired.certificate_pem).unwrap();
    fs::write(&key, &expired.key_pem).unwrap();
    assert!(matches!(open(&directory, "hub.test", &settings), Err(TlsError::Expired(_))));
}

#[test]
fn the_end_of_the_certificate_is_known() {
    let left = Hub::start("hub.test").tls.expires().duration_since(Timestamp::now());
    assert_eq!(left.as_hours() / 24, 824);
}
