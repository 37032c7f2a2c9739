//! Servers that are measured side by side, each in its own process on loopback: the hub, the limit, and other brokers.
//!
//! All have a certificate of the same kind (P-256) and know the same number of devices, each with its own password or
//! key. They keep their data in a temporary directory and log only problems. To add one: a variant and a function that
//! starts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use portcullis_testing::tools::brokers::{self, Broker};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::RootCertStore;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::crowd::name;
use crate::limit::Limit;
use crate::live::{Hub, Login};
use crate::process::Process;
use crate::served::{Rest, Served};
use started::Started;

mod broker;
mod portcullis_hub;
mod started;

/// A server that can be measured.
#[derive(Clone, Debug)]
pub enum Peer {
    Portcullis,
    Limit,
    Mosquitto { server: Broker, passwords: std::path::PathBuf },
    Rumqttd(Broker),
    Nats(Broker),
}

/// A server that runs, until this is dropped.
#[derive(Debug)]
pub struct Running {
    guard: Guard,
    /// Its address and CA.
    pub at: Hub,
    logins: Logins,
    /// The hub's REST interface.
    pub rest: Option<Rest>,
}

/// The files of the common certificate.
#[derive(Debug)]
pub struct Certificate {
    pub chain: std::path::PathBuf,
    pub key: std::path::PathBuf,
    pub roots: RootCertStore,
}

#[derive(Debug)]
enum Guard {
    Hub(Served),
    Limit(Limit),
    Other(Started),
}

/// Who clients say they are.
#[derive(Debug)]
enum Logins {
    IoTHub(portcullis_hub::Keys),
    Passwords,
}

impl Peer {
    /// The servers with the wanted names, and those that cannot be installed, with the reason.
    pub fn all(is_wanted: impl Fn(&str) -> bool) -> (Vec<Self>, Vec<(&'static str, String)>) {
        type Obtain = fn() -> Result<Peer>;
        let brokers: [(&'static str, Obtain); 3] = [
            ("mosquitto", || {
                brokers::mosquitto().map(|(server, passwords)| Self::Mosquitto { server, passwords })
            }),
            ("rumqttd", || brokers::rumqttd().map(Self::Rumqttd)),
            ("NATS server", || brokers::nats().map(Self::Nats)),
        ];
        let own = [("Portcullis", Self::Portcullis), (LIMIT_NAME, Self::Limit)];
        let own = own.into_iter().filter(|(name, _)| is_wanted(name));
        let mut peers: Vec<Self> = own.map(|(_, peer)| peer).collect();
        let mut missing = Vec::new();
        for (name, obtain) in brokers.into_iter().filter(|(name, _)| is_wanted(name)) {
            match obtain() {
                Ok(peer) => peers.push(peer),
                Err(error) => missing.push((name, format!("{error:#}"))),
            }
        }
        (peers, missing)
    }

    /// Name and version.
    pub fn name(&self) -> String {
        match self {
            Self::Portcullis => concat!("Portcullis ", env!("CARGO_PKG_VERSION")).to_owned(),
            Self::Limit => LIMIT_NAME.to_owned(),
            Self::Mosquitto { server, .. } => format!("mosquitto {}", server.version),
            Self::Rumqttd(broker) => format!("rumqttd {}", broker.version),
            Self::Nats(broker) => format!("NATS server {}", broker.version),
        }
    }

    /// Whether it delivers what is published.
    pub fn delivers(&self) -> bool {
        !matches!(self, Self::Limit)
    }

    /// Starts it with `devices` devices, and waits until it accepts connections.
    pub async fn start(
        &self,
        devices: usize,
        certificate: &Certificate,
        directory: &Path,
    ) -> Result<Running> {
        let (mut server, port) = match self {
            Self::Portcullis => return portcullis_hub::start(devices, certificate, directory).await,
            Self::Limit => {
                let limit = Limit::start()?;
                let at = limit.hub.clone();
                return Ok(Running { guard: Guard::Limit(limit), at, logins: Logins::Passwords, rest: None });
            }
            Self::Mosquitto { server, passwords } => {
                broker::mosquitto(server, passwords, devices, certificate, directory)?
            }
            Self::Rumqttd(server) => broker::rumqttd(server, devices, certificate, directory)?,
            Self::Nats(server) => broker::nats(server, devices, certificate, directory)?,
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let given_up = Instant::now() + START_TIME_MAX;
        while TcpStream::connect(address).await.is_err() {
            server.check()?;
            anyhow::ensure!(Instant::now() < given_up, "{} accepts nothing", self.name());
            sleep(Duration::from_millis(20)).await;
        }
        let at = Hub { host: HOST.to_owned(), mqtt: address, roots: certificate.roots.clone() };
        Ok(Running { guard: Guard::Other(server), at, logins: Logins::Passwords, rest: None })
    }
}

impl Running {
    /// The server's process.
    pub fn process(&self) -> Process {
        Process(match &self.guard {
            Guard::Hub(served) => served.id(),
            Guard::Limit(limit) => limit.id(),
            Guard::Other(server) => server.id(),
        })
    }

    /// The end of the server's output, for an error message.
    pub fn last_words(&self) -> String {
        match &self.guard {
            Guard::Hub(_) | Guard::Limit(_) => String::new(),
            Guard::Other(server) => server.last_words(),
        }
    }

    /// The CONNECT of device `number`.
    pub fn device(&self, number: usize) -> Login {
        match &self.logins {
            Logins::IoTHub(keys) => keys.devices.login(number),
            Logins::Passwords => with_password(&name(number)),
        }
    }

    /// The CONNECT of a service that receives all telemetry and publishes to devices.
    pub fn service(&self) -> Login {
        match &self.logins {
            Logins::IoTHub(keys) => keys.service(&self.at.host),
            Logins::Passwords => with_password(SERVICE),
        }
    }
}

impl Certificate {
    /// A new one for the name that clients use, in files of `directory`.
    pub fn create(directory: &Path) -> Result<Self> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = CertificateParams::new(vec![HOST.to_owned()])?.self_signed(&key)?;
        let files = ["chain.pem", "key.pem"].map(|name| directory.join(name));
        std::fs::write(&files[0], certificate.pem())?;
        std::fs::write(&files[1], key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate.into())?;
        let [chain, key] = files;
        Ok(Self { chain, key, roots })
    }
}

fn with_password(name: &str) -> Login {
    Login { client_id: name.to_owned(), user_name: name.to_owned(), password: password(name) }
}

/// As long as what people use, and another for each.
fn password(name: &str) -> String {
    format!("secret-of-{name}")
}

/// A port that was free a moment ago. Servers with a configuration file cannot report which port they took.
fn free_port() -> Result<u16> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

const LIMIT_NAME: &str = "bare rustls";
const HOST: &str = "localhost";
const SERVICE: &str = "service";
const START_TIME_MAX: Duration = Duration::from_secs(30);
