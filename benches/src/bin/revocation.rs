//! Revocation under load: 10,000 live TLS connections, 500 other registry writes a second, and 1,000 revocations of
//! every kind. Measures the time from the answer to the closed socket, and checks that nothing of a revoked peer counts
//! after.
//!
//! `cargo run --release -p portcullis-benches --bin revocation`. Hub and clients share the machine, so the times
//! include the clients' own wait for the CPU. Every revoked connection sends a message as soon as its revocation is
//! answered, and has a will. Neither may arrive. Exits 1 if one does, or if a close takes more than 1 s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use portcullis::mqtt::packet::Packet;
use portcullis_benches::live::{Credential, Hub, LATE, Live, WILL, all_events, publish};
use portcullis_benches::program::program;
use portcullis_benches::served::{Rest, Served};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use reqwest::Method;
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// Measure revocations among live connections
#[derive(Parser)]
struct Arguments {
    /// Live connections
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Connections that are revoked
    #[arg(long, default_value_t = 1_000)]
    revocations: usize,
    /// Other registry writes a second
    #[arg(long, default_value_t = 500)]
    writes: u64,
    /// Revoked connections a second
    #[arg(long, default_value_t = 50)]
    rate: u64,
}

/// The kinds, each with the number of connections that one act closes.
const KINDS: [(Kind, usize); 11] = [
    (Kind::Disabled, 1),
    (Kind::Deleted, 1),
    (Kind::KeyRegenerated, 1),
    (Kind::TypeSwitched, 1),
    (Kind::ThumbprintReplaced, 1),
    (Kind::AccessNarrowed, 1),
    (Kind::ParentDisabled, 1),
    (Kind::ParentDeleted, 1),
    (Kind::PolicyRegenerated, 4),
    (Kind::PolicyDeleted, 4),
    (Kind::AuthorityRemoved, 4),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Disabled,
    Deleted,
    KeyRegenerated,
    TypeSwitched,
    ThumbprintReplaced,
    AccessNarrowed,
    ParentDisabled,
    ParentDeleted,
    PolicyRegenerated,
    PolicyDeleted,
    AuthorityRemoved,
}

/// One act of the operator, and the connections it closes.
struct Act {
    kind: Kind,
    /// Of its kind.
    number: usize,
    ids: Vec<String>,
    live: Vec<Live>,
}

/// The measurements of one connection.
struct Closed {
    kind: Kind,
    from_request: Duration,
    from_answer: Duration,
}

fn main() -> ExitCode {
    program(|| tokio::runtime::Runtime::new()?.block_on(run(&Arguments::parse())))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let served = Served::start(&directory.path().join("data"))?;
    let access = served.access()?;
    let hub = Hub {
        mqtt: SocketAddr::new(access.connect_address.parse()?, access.mqtt_port),
        host: access.hostname,
        roots: served.roots()?,
    };
    let rest = served.rest()?;
    let fleet =
        Fleet { hub, rest, key: SymmetricKey::generate(), expiry: Timestamp::now().as_second() + 36_000 };
    let mut acts = fleet.prepare(arguments.revocations).await?;
    let revoked: usize = acts.iter().map(|act| act.ids.len()).sum();
    let others = fleet.bystanders(arguments.connections.saturating_sub(revoked)).await?;
    let heard = fleet.listen().await?;
    println!(
        "{} live connections, {} MiB in the hub, load average {}",
        revoked + others.len(),
        served.resident_bytes()? >> 20,
        load_average()?,
    );

    let written = Arc::new(AtomicUsize::new(0));
    let writers =
        tokio::spawn(write(fleet.rest.clone(), arguments.writes, others.len(), Arc::clone(&written)));
    let began = Instant::now();
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(arguments.rate)?);
    let mut running = JoinSet::new();
    // Kinds take turns.
    acts.sort_by_key(|act| act.number);
    for act in acts {
        for _ in &act.ids {
            pace.tick().await;
        }
        running.spawn(revoke(fleet.rest.clone(), act));
    }
    let mut closed = Vec::new();
    while let Some(done) = running.join_next().await {
        closed.extend(done??);
    }
    let took = began.elapsed();
    writers.abort();
    let writes = written.load(Ordering::Relaxed);
    println!(
        "{} connections revoked in {:.1} s, {:.0} other registry writes a second, load average {}\n",
        closed.len(),
        took.as_secs_f64(),
        writes as f64 / took.as_secs_f64(),
        load_average()?,
    );
    let slowest = report(&closed)?;

    // Wills are published separately. Those that are due would have arrived by now.
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.say_end().await?;
    let (wills, late) = timeout(Duration::from_secs(30), heard).await???;
    println!("\nwills sent: {wills} (must be 0), messages counted after the answer: {late} (must be 0)");
    served.stop()?;
    ensure!(wills == 0 && late == 0, "something of a revoked connection counted");
    ensure!(slowest < Duration::from_secs(1), "a revoked connection outlived its second");
    Ok(())
}

/// What the clients have in common.
struct Fleet {
    hub: Hub,
    rest: Rest,
    /// Everybody's key.
    key: SymmetricKey,
    expiry: i64,
}

impl Fleet {
    /// Registers and connects the devices that will be revoked.
    async fn prepare(&self, revocations: usize) -> anyhow::Result<Vec<Act>> {
        let mut acts = Vec::new();
        let each = revocations / KINDS.len();
        let more = revocations - each * KINDS.len();
        for (place, (kind, size)) in KINDS.into_iter().enumerate() {
            // The first kind gets the remainder of the division.
            let count = each + if place == 0 { more } else { 0 };
            for number in 0..count.div_ceil(size) {
                let members = size.min(count - number * size);
                let ids = (0..members).map(|member| kind.id(number, member)).collect();
                acts.push(Act { kind, number, ids, live: Vec::new() });
            }
        }
        let plain = self.hub.tls(None);
        let mut count = 0;
        for act in &mut acts {
            for (id, credential) in self.register(act).await? {
                let (password, tls) = match credential {
                    Credential::Token(token) => (Some(token), Arc::clone(&plain)),
                    Credential::Certificate(certificate, key) => {
                        (None, self.hub.tls(Some((certificate, key))))
                    }
                };
                act.live.push(self.hub.connect(count, &id, password.as_deref(), tls).await?);
                count += 1;
            }
        }
        Ok(acts)
    }

    /// Registers the devices of an act, and what it revokes.
    async fn register(&self, act: &Act) -> anyhow::Result<Vec<(String, Credential)>> {
        let name = act.kind.group(act.number);
        let own = json!({ "type": "sas", "symmetricKey": self.keys() });
        let mut authority = None;
        let mut policy = None;
        match act.kind {
            Kind::AuthorityRemoved => {
                let (issuer, pem) = new_authority(&name)?;
                let body = json!({ "certificate": pem, "verified": true, "reason": "a measurement" });
                self.put(&format!("/api/v1/certificate-authorities/{name}"), body).await?;
                authority = Some(issuer);
            }
            Kind::PolicyRegenerated | Kind::PolicyDeleted => {
                let path = format!("/api/v1/policies/{name}");
                let made = self.put(&path, json!({ "rights": ["DeviceConnect"] })).await?;
                policy = Some(SymmetricKey::parse_base64(made["primaryKey"].as_str().context("a key")?)?);
            }
            _ => {}
        }
        let mut members = Vec::new();
        for id in &act.ids {
            let token = match &policy {
                Some(key) => sas::sign(&self.hub.host, key, self.expiry, Some(&name)),
                None => self.token(id),
            };
            let (authentication, credential) = match (act.kind, &authority) {
                (Kind::ThumbprintReplaced, _) => {
                    let key = KeyPair::generate()?;
                    let certificate: CertificateDer<'static> = named(id).self_signed(&key)?.into();
                    let thumbprint = Sha256Thumbprint::of(&certificate).to_string();
                    let x509 = json!({ "primaryThumbprint": thumbprint });
                    let authentication = json!({ "type": "selfSigned", "x509Thumbprint": x509 });
                    (authentication, Credential::Certificate(certificate, private(&key)))
                }
                (_, Some(issuer)) => {
                    let key = KeyPair::generate()?;
                    let certificate = named(id).signed_by(&key, issuer)?.into();
                    let authentication = json!({ "type": "certificateAuthority" });
                    (authentication, Credential::Certificate(certificate, private(&key)))
                }
                _ => (own.clone(), Credential::Token(token)),
            };
            if let Some((device, _)) = id.split_once('/') {
                self.put(&path_of(device), json!({ "authentication": own })).await?;
            }
            self.put(&path_of(id), json!({ "authentication": authentication })).await?;
            members.push((id.clone(), credential));
        }
        Ok(members)
    }

    /// Registers and connects the devices that stay.
    async fn bystanders(&self, count: usize) -> anyhow::Result<Vec<Live>> {
        let ids: Vec<String> = (0..count).map(bystander).collect();
        for some in ids.chunks(100) {
            let item = |id| {
                json!({"id": id, "importMode": "create",
                    "authentication": { "type": "sas", "symmetricKey": self.keys() }})
            };
            let items: Vec<Value> = some.iter().map(item).collect();
            let answer = self.rest.request(Method::POST, "/devices").json(&items).send().await?;
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
        }
        let plain: Arc<ClientConfig> = self.hub.tls(None);
        let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
        let mut connecting = JoinSet::new();
        for (number, id) in ids.into_iter().enumerate() {
            let turn = Arc::clone(&turns).acquire_owned().await?;
            let (hub, plain, token) = (self.hub.clone(), Arc::clone(&plain), self.token(&id));
            connecting.spawn(async move {
                let live = hub.connect(number, &id, Some(&token), plain).await;
                drop(turn);
                live
            });
        }
        let mut live = Vec::with_capacity(count);
        while let Some(connected) = connecting.join_next().await {
            live.push(connected??);
        }
        Ok(live)
    }

    /// Counts wills and late messages until a message marks the end.
    async fn listen(&self) -> anyhow::Result<tokio::task::JoinHandle<anyhow::Result<(usize, usize)>>> {
        self.put("/api/v1/policies/reader", json!({ "rights": ["ServiceConnect"] })).await?;
        let answer = self.rest.request(Method::GET, "/api/v1/policies/reader").send().await?;
        let policy: Value = serde_json::from_slice(&answer.bytes().await?)?;
        let key = SymmetricKey::parse_base64(policy["primaryKey"].as_str().context("a key")?)?;
        let token = sas::sign(&self.hub.host, &key, self.expiry, Some("reader"));
        let user = "?api-version=2021-04-12&policy=reader";
        let mut wire = self.hub.converse("reader", user, &token).await?;
        wire.send(&all_events());
        wire.flush().await?;
        ensure!(matches!(wire.read().await?, Packet::SubAck { .. }), "no subscription");
        Ok(tokio::spawn(async move {
            let (mut wills, mut late) = (0, 0);
            loop {
                let Packet::Publish(event) = wire.read().await? else { continue };
                if let Some(packet_id) = event.packet_id {
                    wire.send(&Packet::PubAck(packet_id));
                    wire.flush().await?;
                }
                match &event.payload[..] {
                    payload if payload == WILL.as_bytes() => wills += 1,
                    payload if payload == LATE.as_bytes() => late += 1,
                    _ => return Ok((wills, late)),
                }
            }
        }))
    }

    /// Sends the message that marks the end.
    async fn say_end(&self) -> anyhow::Result<()> {
        let id = "the-last-one";
        let own = json!({ "type": "sas", "symmetricKey": self.keys() });
        self.put(&path_of(id), json!({ "authentication": own })).await?;
        let user = format!("{id}/?api-version=2021-04-12");
        let mut wire = self.hub.converse(id, &user, &self.token(id)).await?;
        wire.send(&publish(&format!("devices/{id}/messages/events/"), "end"));
        wire.flush().await?;
        ensure!(matches!(wire.read().await?, Packet::PubAck(_)), "the last message was not taken");
        Ok(())
    }

    fn keys(&self) -> Value {
        let key = self.key.to_base64();
        json!({ "primaryKey": key.as_str(), "secondaryKey": key.as_str() })
    }

    fn token(&self, id: &str) -> String {
        let resource = format!("{}/devices/{}", self.hub.host, id.replace('/', "/modules/"));
        sas::sign(&resource, &self.key, self.expiry, None)
    }

    async fn put(&self, path: &str, body: Value) -> anyhow::Result<Value> {
        let answer = self.rest.request(Method::PUT, path).json(&body).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "{path}: {status}: {body}");
        Ok(serde_json::from_str(&body)?)
    }
}

impl Kind {
    fn group(self, number: usize) -> String {
        format!("{self:?}-{number}")
    }

    fn id(self, number: usize, member: usize) -> String {
        match self {
            Kind::ParentDisabled | Kind::ParentDeleted => format!("{}/m", self.group(number)),
            _ => format!("{}-{member}", self.group(number)),
        }
    }

    /// The request that revokes `id`.
    fn request(self, number: usize, id: &str) -> (Method, String, Value) {
        let key = |key: &SymmetricKey| key.to_base64().as_str().to_owned();
        let keys = || json!({ "primaryKey": key(&SymmetricKey::generate()), "secondaryKey": key(&SymmetricKey::generate()) });
        let own = path_of(id);
        let parent = path_of(id.split_once('/').map_or(id, |(device, _)| device));
        let group = self.group(number);
        match self {
            Kind::Disabled => (Method::PUT, own, json!({ "status": "disabled" })),
            Kind::Deleted => (Method::DELETE, own, Value::Null),
            Kind::KeyRegenerated => {
                (Method::PUT, own, json!({ "authentication": { "type": "sas", "symmetricKey": keys() } }))
            }
            Kind::TypeSwitched => {
                (Method::PUT, own, json!({ "authentication": { "type": "certificateAuthority" } }))
            }
            Kind::ThumbprintReplaced => {
                let x509 = json!({ "primaryThumbprint": "AB".repeat(32) });
                let authentication = json!({ "type": "selfSigned", "x509Thumbprint": x509 });
                (Method::PUT, own, json!({ "authentication": authentication }))
            }
            Kind::AccessNarrowed => (Method::PUT, own, json!({ "access": { "allow": ["c2d"] } })),
            Kind::ParentDisabled => (Method::PUT, parent, json!({ "status": "disabled" })),
            Kind::ParentDeleted => (Method::DELETE, parent, Value::Null),
            Kind::PolicyRegenerated => {
                let path = format!("/api/v1/policies/{group}/regenerate");
                (Method::POST, path, json!({ "key": "primary" }))
            }
            Kind::PolicyDeleted => (Method::DELETE, format!("/api/v1/policies/{group}"), Value::Null),
            Kind::AuthorityRemoved => {
                (Method::DELETE, format!("/api/v1/certificate-authorities/{group}"), Value::Null)
            }
        }
    }
}

/// Revokes, makes every affected connection send at the answer, and waits until all are closed.
async fn revoke(rest: Rest, act: Act) -> anyhow::Result<Vec<Closed>> {
    let Act { kind, number, ids, live } = act;
    let (method, path, body) = kind.request(number, &ids[0]);
    let asked = Instant::now();
    let answer = rest.request(method, &path).header("if-match", "*").json(&body).send().await?;
    let answered = Instant::now();
    ensure!(answer.status().is_success(), "{kind:?}: {}", answer.text().await?);
    let mut closed = Vec::new();
    let mut waiting = Vec::new();
    for Live { speak, closed } in live {
        let _ = speak.send(());
        waiting.push(closed);
    }
    for one in waiting {
        let at =
            timeout(Duration::from_secs(10), one).await.with_context(|| format!("{kind:?} stays open"))??;
        closed.push(Closed {
            kind,
            from_request: at.saturating_duration_since(asked),
            from_answer: at.saturating_duration_since(answered),
        });
    }
    Ok(closed)
}

/// Writes to the registry at a steady rate: new status reasons of connected devices.
async fn write(rest: Rest, rate: u64, devices: usize, written: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut pace = interval(Duration::from_secs(1) / u32::try_from(rate)?);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let turns = Arc::new(Semaphore::new(WRITING_MAX));
    for number in 0.. {
        pace.tick().await;
        let turn = Arc::clone(&turns).acquire_owned().await?;
        let body = json!({ "statusReason": format!("the {number}th write") });
        let path = path_of(&bystander(number % devices));
        let request = rest.request(Method::PUT, &path).header("if-match", "*").json(&body);
        let written = Arc::clone(&written);
        tokio::spawn(async move {
            let answer = request.send().await;
            drop(turn);
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                written.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    Ok(())
}

/// Prints a row for each kind and one for all. Returns the longest time from an answer.
fn report(closed: &[Closed]) -> anyhow::Result<Duration> {
    let mut kinds: BTreeMap<Option<Kind>, (Histogram<u64>, Histogram<u64>)> = BTreeMap::new();
    for one in closed {
        for row in [Some(one.kind), None] {
            let (answer, request) = match kinds.get_mut(&row) {
                Some(row) => row,
                None => kinds.entry(row).or_insert((Histogram::new(3)?, Histogram::new(3)?)),
            };
            answer.record(u64::try_from(one.from_answer.as_micros())?)?;
            request.record(u64::try_from(one.from_request.as_micros())?)?;
        }
    }
    println!("{:<20}{:>7}{:>33}{:>33}", "ms to the closed socket", "", "from the answer", "from the request");
    let head = |name| {
        println!(
            "{name:<20}{:>7}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
            "n", "p50", "p99", "max", "p50", "p99", "max"
        )
    };
    head("");
    let mut slowest = Duration::ZERO;
    for (kind, (answer, request)) in &kinds {
        let name = kind.map_or("all".to_owned(), |kind| format!("{kind:?}"));
        print!("{name:<20}{:>7}", answer.len());
        for histogram in [answer, request] {
            for micros in
                [histogram.value_at_quantile(0.5), histogram.value_at_quantile(0.99), histogram.max()]
            {
                print!("{:>11.2}", micros as f64 / 1000.0);
            }
        }
        println!();
        slowest = slowest.max(Duration::from_micros(answer.max()));
    }
    Ok(slowest)
}

/// A CA with this name, and its certificate as PEM text.
fn new_authority(name: &str) -> anyhow::Result<(Issuer<'static, KeyPair>, String)> {
    let mut params = named(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate()?;
    let pem = params.self_signed(&key)?.pem();
    Ok((Issuer::new(params, key), pem))
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn private(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(key.serialize_der()).into()
}

fn path_of(id: &str) -> String {
    format!("/devices/{}", id.replace('/', "/modules/"))
}

fn bystander(number: usize) -> String {
    format!("bystander-{number}")
}

fn load_average() -> anyhow::Result<String> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    Ok(load.split(' ').next().unwrap_or_default().to_owned())
}

/// Clients that are connecting at once.
const CONNECTING_MAX: usize = 64;
/// Registry writes under way at once.
const WRITING_MAX: usize = 64;
