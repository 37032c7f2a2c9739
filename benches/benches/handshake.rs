//! TLS handshakes at the MQTT port: server certificate alone and mutual, with P-256 and RSA-2048 keys.
//!
//! The sum: one key exchange, one signature by the server, and with a client certificate one signature to verify. The
//! floor is a bare accept loop on the same TLS library with the same settings: full handshakes, one ticket, a client
//! certificate requested and its key proven, but no identity checked. Both run here in turns, each on one thread. The
//! clients connect, wait until the server closes, and connect again. CPU is the server thread's own, as the kernel
//! counts it. The rate is what the same two cores did for clients and server together. The best of a few rounds counts,
//! because other load on the machine only ever slows one down.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use portcullis::config::{Config, ServeFlags};
use portcullis::serve;
use portcullis_benches::limit::KeyOnly;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::{TlsAcceptor, TlsConnector};

fn main() {
    // `cargo test` runs benches too, to check that they run.
    let is_test = std::env::args().all(|argument| argument != "--bench");
    let round = Duration::from_millis(if is_test { 50 } else { 1_500 });
    let rounds = if is_test { 1 } else { 4 };
    println!(
        "{:<24}{:>24}{:>24}{:>10}{:>10}",
        "full handshakes", "bare /s (CPU us)", "hub /s (CPU us)", "rate", "CPU"
    );
    for (kind, algorithm) in [("P-256", &PKCS_ECDSA_P256_SHA256), ("RSA-2048", &PKCS_RSA_SHA256)] {
        let server = Identity::new("localhost", algorithm);
        let client = Identity::new("pump-7", algorithm);
        let bare = Server::bare(&server);
        let hub = Server::hub(&server);
        for (name, shown) in [("server only", None), ("mutual", Some(&client))] {
            let config = client_config(&server, shown);
            let (mut floor, mut ours) = (Measured::default(), Measured::default());
            for _ in 0..rounds {
                floor.keep_best(bare.measure(&config, round));
                ours.keep_best(hub.measure(&config, round));
            }
            println!(
                "{:<24}{:>24}{:>24}{:>10.2}{:>10.2}",
                format!("{kind}, {name}"),
                floor.shown(),
                ours.shown(),
                ours.rate / floor.rate,
                floor.cpu_us / ours.cpu_us,
            );
        }
    }
    println!("ratios: the hub's against the bare loop's; 1.00 is as fast, and less is slower");
}

/// A certificate of its own and the key.
struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    certificate_pem: String,
    key_pem: String,
}

impl Identity {
    fn new(name: &str, algorithm: &'static SignatureAlgorithm) -> Self {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self {
            certificate_pem: certificate.pem(),
            certificate: certificate.into(),
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// A server on its own thread.
struct Server {
    _runtime: Runtime,
    address: SocketAddr,
    thread: &'static str,
    _directory: Option<tempfile::TempDir>,
}

/// Handshakes a second, and the server's CPU time for each.
#[derive(Default)]
struct Measured {
    rate: f64,
    cpu_us: f64,
}

impl Measured {
    fn keep_best(&mut self, other: Measured) {
        if self.rate == 0.0 {
            *self = other;
        } else {
            self.rate = self.rate.max(other.rate);
            self.cpu_us = self.cpu_us.min(other.cpu_us);
        }
    }

    fn shown(&self) -> String {
        format!("{:.0} ({:.0})", self.rate, self.cpu_us)
    }
}

impl Server {
    /// Only the TLS library: accept, shake hands, wait until the peer closes.
    fn bare(identity: &Identity) -> Self {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(Arc::new(KeyOnly(provider())))
            .with_single_cert(vec![identity.certificate.clone()], identity.key.clone_key())
            .expect("a pair");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = aws_lc_rs::Ticketer::new().expect("tickets");
        config.send_tls13_tickets = 1;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = runtime("bare-server");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    if let Ok(mut stream) = acceptor.accept(stream).await {
                        let _ = stream.read(&mut [0; 64]).await;
                    }
                });
            }
        });
        Self { _runtime: runtime, address, thread: "bare-server", _directory: None }
    }

    /// A whole hub, as it serves devices.
    fn hub(identity: &Identity) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("a file");
            path.display().to_string()
        };
        let settings = [
            ("PORTCULLIS__TLS__CERTIFICATE", file("chain.pem", &identity.certificate_pem)),
            ("PORTCULLIS__TLS__KEY", file("key.pem", &identity.key_pem)),
        ];
        let any = || vec!["127.0.0.1:0".to_owned()];
        let flags = ServeFlags {
            data_dir: Some(directory.path().join("data")),
            mqtt_listen: any(),
            https_listen: any(),
            ops_listen: any(),
            ..ServeFlags::default()
        };
        let settings = settings.into_iter().map(|(name, text)| (name.to_owned(), text));
        let config = Config::load(&flags, settings).expect("a configuration");
        let runtime = runtime("hub-server");
        let address = runtime.block_on(async {
            let bound = serve::bind(config).await.expect("a hub");
            let address = bound.mqtt_address().expect("an address");
            bound.accept();
            address
        });
        Self { _runtime: runtime, address, thread: "hub-server", _directory: Some(directory) }
    }

    fn measure(&self, config: &Arc<ClientConfig>, time: Duration) -> Measured {
        let done = Arc::new(AtomicU64::new(0));
        let clients = runtime("clients");
        let end = Instant::now() + time;
        let (began, cpu_before) = (Instant::now(), cpu_of(self.thread));
        let tasks: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let (config, done, address) = (Arc::clone(config), Arc::clone(&done), self.address);
                clients.spawn(async move {
                    while Instant::now() < end {
                        shake_hands(&config, address).await;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for task in tasks {
            clients.block_on(task).expect("a client that does not panic");
        }
        let cpu = cpu_of(self.thread) - cpu_before;
        let done = done.load(Ordering::Relaxed) as f64;
        Measured { rate: done / began.elapsed().as_secs_f64(), cpu_us: cpu.as_secs_f64() * 1e6 / done }
    }
}

/// One whole handshake, up to the server's close. Only that shows in TLS 1.3 that the server has finished too.
async fn shake_hands(config: &Arc<ClientConfig>, address: SocketAddr) {
    let stream = TcpStream::connect(address).await.expect("the server accepts");
    let _ = stream.set_nodelay(true);
    let name = ServerName::try_from("localhost").expect("a name");
    let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
    let mut stream = connected.expect("the handshake");
    let _ = stream.shutdown().await;
    let _ = stream.read_to_end(&mut Vec::new()).await;
}

fn client_config(server: &Identity, shown: Option<&Identity>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(server.certificate.clone()).expect("a root");
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match shown {
        Some(own) => {
            builder.with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key()).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// One worker thread with this name.
fn runtime(name: &str) -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name(name)
        .enable_all()
        .build()
        .expect("a runtime")
}

/// The CPU time of every live thread with this name.
fn cpu_of(name: &str) -> Duration {
    let mut nanoseconds = 0;
    for task in fs::read_dir("/proc/self/task").expect("a process has threads").flatten() {
        let read = |file: &str| fs::read_to_string(Path::new(&task.path()).join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            let schedstat = read("schedstat");
            nanoseconds +=
                schedstat.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(nanoseconds)
}

/// Connections at once.
const CLIENTS: usize = 8;
