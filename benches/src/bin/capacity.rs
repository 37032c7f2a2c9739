//! The cost of one connection and one message, and how it grows: the memory and CPU of the hub's process while
//! connections of each kind are added. The first step reuses memory that registering the devices has left to the
//! allocator, so read the later steps.
//!
//! `cargo run --release -p portcullis-benches --bin capacity`. Memory is the growth since the previous step, divided by
//! the new connections. If the figure stays the same from step to step, memory grows linearly.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use portcullis_benches::crowd::name;
use portcullis_benches::live::Login;
use portcullis_benches::load::{Client, Cost, KeyedCertificate, client_tls, connect, publish, subscribed};
use portcullis_benches::peers::{Certificate, Peer, Running};
use portcullis_benches::process::load_average;
use portcullis_benches::program::{program, until_interrupted};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use rcgen::{CertificateParams, KeyPair};
use reqwest::Method;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Measure what connections and messages cost
#[derive(Parser)]
struct Arguments {
    /// Connections after each step
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 4_000, 8_000])]
    connections: Vec<usize>,
    /// Connections without a CONNECT
    #[arg(long, default_value_t = 1_000)]
    anonymous: usize,
}

fn main() -> ExitCode {
    program(|| until_interrupted(run(Arguments::parse())))
}

async fn run(arguments: Arguments) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let certificate = Certificate::create(directory.path())?;
    println!("load average {} before", load_average()?);
    let hub = Measured::start(0, &certificate).await?;
    hub.anonymous(arguments.anonymous).await.context("anonymous")?;
    drop(hub);
    let devices = arguments.connections.iter().copied().max().context("some connections")?;
    let hub = Measured::start(devices, &certificate).await?;
    hub.devices("SAS token", &arguments.connections, None).await.context("SAS token")?;
    drop(hub);
    let hub = Measured::start(devices, &certificate).await?;
    let shown = hub.admit_certificate(devices).await?;
    hub.devices("X.509 certificate", &arguments.connections, Some(&shown)).await.context("X.509")?;
    println!("load average {} after", load_average()?);
    Ok(())
}

/// A hub that is measured.
struct Measured {
    running: Running,
    _directory: tempfile::TempDir,
}

impl Measured {
    async fn start(devices: usize, certificate: &Certificate) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let running = Peer::Portcullis.start(devices, certificate, directory.path()).await?;
        sleep(SETTLE_TIME).await;
        Ok(Self { running, _directory: directory })
    }

    /// Bytes, after the work in progress is done.
    async fn memory(&self) -> Result<f64> {
        sleep(SETTLE_TIME).await;
        Ok(self.running.process().proportional_bytes()? as f64)
    }

    /// Connections that have done a handshake and wait.
    async fn anonymous(&self, count: usize) -> Result<()> {
        let tls = client_tls(self.running.at.roots.clone(), None)?;
        let before = self.memory().await?;
        println!("hub without a connection: {:.1} MiB", before / 1048576.0);
        let cost = Cost::begin(self.running.process(), SETTLE_TIME)?;
        let mut connecting = JoinSet::new();
        let mut open = Vec::new();
        for number in 0..count {
            let (at, tls) = (self.running.at.clone(), Arc::clone(&tls));
            connecting.spawn(async move { at.stream(number, tls).await });
            if connecting.len() >= CONNECTING_MAX {
                open.extend(connecting.join_next().await.transpose()?.transpose()?);
            }
        }
        while let Some(connected) = connecting.join_next().await {
            open.push(connected??);
        }
        let (cpu, rate) = cost.end(count).await?;
        tell("anonymous", count, "open", (self.memory().await? - before) / count as f64, cpu, rate);
        Ok(())
    }

    /// Devices that connect in steps, subscribe, and send a message now and then.
    async fn devices(&self, kind: &str, steps: &[usize], shown: Option<&KeyedCertificate>) -> Result<()> {
        let process = self.running.process();
        let tls: Arc<ClientConfig> = client_tls(self.running.at.roots.clone(), shown)?;
        let mut clients: Vec<Client> = Vec::new();
        let mut memory = self.memory().await?;
        for step in steps {
            let new = clients.len()..*step;
            ensure!(!new.is_empty(), "steps must rise");
            let count = new.len();
            let logins = new.map(|number| self.login(number, shown.is_some())).collect();
            let cost = Cost::begin(process, SETTLE_TIME)?;
            clients.extend(connect(&self.running.at, &tls, logins).await?);
            let (cpu, rate) = cost.end(count).await?;
            let now = self.memory().await?;
            tell(kind, *step, "connected", (now - memory) / count as f64, cpu, rate);
            memory = now;
        }
        let count = clients.len();
        let before = process.cpu()?;
        sleep(IDLE_TIME).await;
        let idle = process.cpu()?.saturating_sub(before).as_secs_f64() / IDLE_TIME.as_secs_f64();
        println!("{kind}, {count} idle: {:.2} % of one processor", idle * 100.0);

        let cost = Cost::begin(process, SETTLE_TIME)?;
        let mut listening = Vec::with_capacity(count);
        for (number, client) in clients.into_iter().enumerate() {
            let filter = format!("devices/{}/messages/devicebound/#", name(number));
            listening.push(subscribed(client, &filter).await?);
        }
        let (cpu, rate) = cost.end(count).await?;
        let now = self.memory().await?;
        tell(kind, count, "subscribed to its messages", (now - memory) / count as f64, cpu, rate);
        memory = now;

        let cost = Cost::begin(process, SETTLE_TIME)?;
        let mut said = Vec::with_capacity(count);
        for (number, client) in listening.into_iter().enumerate() {
            let topic = format!("devices/{}/messages/events/level=warning", name(number));
            said.push(publish(client, &[topic], 1, 1).await?);
        }
        let (cpu, rate) = cost.end(count).await?;
        tell(
            kind,
            count,
            "said one thing each, one after another",
            (self.memory().await? - memory) / count as f64,
            cpu,
            rate,
        );
        Ok(())
    }

    fn login(&self, number: usize, has_certificate: bool) -> Login {
        let login = self.running.device(number);
        if has_certificate { Login { password: String::new(), ..login } } else { login }
    }

    /// A certificate that every device may use.
    async fn admit_certificate(&self, devices: usize) -> Result<KeyedCertificate> {
        let key = KeyPair::generate()?;
        let certificate: CertificateDer<'static> =
            CertificateParams::new(vec!["a-device".to_owned()])?.self_signed(&key)?.into();
        let thumbprint = Sha256Thumbprint::of(&certificate).to_string();
        let authentication =
            json!({ "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": thumbprint } });
        let rest = self.running.rest.clone().context("a hub")?;
        for first in (0..devices).step_by(100) {
            let item = |number| json!({ "id": name(number), "importMode": "update", "authentication": authentication });
            let items: Vec<Value> = (first..devices.min(first + 100)).map(item).collect();
            let answer = rest.request(Method::POST, "/devices").json(&items).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
        }
        Ok((certificate, PrivatePkcs8KeyDer::from(key.serialize_der()).into()))
    }
}

fn tell(kind: &str, count: usize, what: &str, bytes: f64, cpu: f64, rate: f64) {
    println!(
        "{kind}, {count} {what}: {bytes:.0} bytes more each, {cpu:.0} us of CPU each, {rate:.0} a second"
    );
}

const CONNECTING_MAX: usize = 32;
const SETTLE_TIME: Duration = Duration::from_millis(700);
const IDLE_TIME: Duration = Duration::from_secs(5);
