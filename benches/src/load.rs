//! The load under which every server is measured, with the same packets for all: idle connections, telemetry to one
//! subscriber, and one publisher to many devices.
//!
//! Clients and server share the machine, so elapsed times are those of both together. CPU is the server's alone, as the
//! kernel counts it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::FutureExt;
use hdrhistogram::Histogram;
use portcullis::mqtt::packet::{Packet, Publish, QoS, Subscribe, Utf8Bytes};
use portcullis::mqtt::wire::Wire;
use reqwest::Method;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{interval, sleep, timeout};
use tokio_rustls::client::TlsStream;

use crate::comparison::{Figures, Measure};
use crate::crowd::name;
use crate::live::{Hub, Login};
use crate::peers::{Peer, Running};
use crate::process::Process;

/// The size of each load.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Devices that are registered and connect.
    pub connections: usize,
    /// Messages up, all devices together.
    pub telemetry: usize,
    /// Messages down, all devices together.
    pub unicast: usize,
    /// How long messages are sent one at a time.
    pub paced: Duration,
    /// What a server has to finish what its clients see as done.
    pub settle_time: Duration,
}

/// A client's connection.
pub type Client = Wire<TlsStream<TcpStream>>;

/// A certificate a client shows, and its key.
pub type KeyedCertificate = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// The cost of a load for a server.
pub struct Cost {
    process: Process,
    settle_time: Duration,
    cpu_before: Duration,
    began: Instant,
}

impl Cost {
    /// Starts measuring. At the end the server has `settle_time` to finish what its clients see as done.
    pub fn begin(process: Process, settle_time: Duration) -> Result<Self> {
        Ok(Self { process, settle_time, cpu_before: process.cpu()?, began: Instant::now() })
    }

    /// The CPU time of each of `count` operations in microseconds, and how many there were per second.
    pub async fn end(self, count: usize) -> Result<(f64, f64)> {
        let took = self.began.elapsed();
        sleep(self.settle_time).await;
        let cpu = self.process.cpu()?.saturating_sub(self.cpu_before);
        Ok((cpu.as_secs_f64() * 1e6 / count as f64, count as f64 / took.as_secs_f64()))
    }
}

/// Puts every load on one server and returns the figures.
pub async fn measure(peer: &Peer, running: &Running, size: Size) -> Result<Figures> {
    let mut figures = Figures::new();
    let process = running.process();
    let tls = client_tls(running.at.roots.clone(), None)?;
    sleep(size.settle_time).await;
    let before = process.proportional_bytes()?;
    figures.insert(Measure::BaseMemory, before as f64 / 1048576.0);

    let cost = Cost::begin(process, size.settle_time)?;
    let logins = (0..size.connections).map(|number| running.device(number)).collect();
    let mut clients: VecDeque<Client> = connect(&running.at, &tls, logins).await.context("connect")?.into();
    let (cpu, rate) = cost.end(size.connections).await?;
    figures.insert(Measure::ConnectCpu, cpu);
    figures.insert(Measure::ConnectRate, rate);
    let more = process.proportional_bytes()?.saturating_sub(before);
    figures.insert(Measure::IdleMemory, more as f64 / 1024.0 / size.connections as f64);

    telemetry(peer, running, &tls, size, &mut clients, &mut figures).await.context("telemetry")?;
    if peer.delivers() {
        unicast(running, &tls, size, clients, &mut figures).await.context("unicast")?;
    }
    Ok(figures)
}

/// TLS 1.3 with one cipher and one key exchange, the same for every server, without resumption.
pub fn client_tls(roots: RootCertStore, shown: Option<&KeyedCertificate>) -> Result<Arc<ClientConfig>> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites = vec![aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384];
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            builder.with_client_auth_cert(vec![certificate.clone()], key.clone_key())?
        }
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Connects all clients, some at a time. Returns the connections in order.
pub async fn connect(at: &Hub, tls: &Arc<ClientConfig>, logins: Vec<Login>) -> Result<Vec<Client>> {
    let turns = Arc::new(Semaphore::new(CONNECTING_MAX));
    let mut connecting = JoinSet::new();
    for (number, login) in logins.into_iter().enumerate() {
        let (turns, tls, at) = (Arc::clone(&turns), Arc::clone(tls), at.clone());
        connecting.spawn(async move {
            let _turn = turns.acquire().await?;
            Ok((number, at.log_in(number, &login, tls).await?))
        });
    }
    let mut clients = Vec::with_capacity(connecting.len());
    while let Some(connected) = connecting.join_next().await {
        let connected: Result<(usize, Client)> = connected?;
        clients.push(connected?);
    }
    clients.sort_by_key(|(number, _)| *number);
    Ok(clients.into_iter().map(|(_, client)| client).collect())
}

/// Some devices publish, each with a limited number unacknowledged, and one service receives everything.
async fn telemetry(
    peer: &Peer,
    running: &Running,
    tls: &Arc<ClientConfig>,
    size: Size,
    clients: &mut VecDeque<Client>,
    figures: &mut Figures,
) -> Result<()> {
    let publishers = PUBLISHERS.min(size.connections);
    let each = size.telemetry / publishers;
    let mut heard = JoinSet::new();
    if peer.delivers() {
        let service = running.at.log_in(0, &running.service(), Arc::clone(tls)).await?;
        let service = subscribed(service, "devices/+/messages/events/#").await?;
        heard.spawn(hear(service, each * publishers));
    }
    let cost = Cost::begin(running.process(), size.settle_time)?;
    let mut publishing = JoinSet::new();
    for number in 0..publishers {
        let client = clients.pop_front().context("a client")?;
        let topic = format!("devices/{}/messages/events/level=warning", name(number));
        publishing
            .spawn(async move { Ok((number, publish(client, &[topic], each, PUBLISHER_WINDOW).await?)) });
    }
    let mut back = Vec::new();
    while let Some(published) = publishing.join_next().await {
        let published: Result<(usize, Client)> = published?;
        back.push(published?);
    }
    let mut lost = None;
    if let Some(count) = heard.join_next().await {
        lost = Some(each * publishers - count??);
    }
    let (cpu, rate) = cost.end(each * publishers).await?;
    figures.insert(Measure::TelemetryCpu, cpu);
    figures.insert(Measure::TelemetryRate, rate);
    if let Some(lost) = lost {
        figures.insert(Measure::TelemetryLost, lost as f64);
    }
    back.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    back.into_iter().for_each(|(_, client)| clients.push_front(client));
    Ok(())
}

/// The messages that the devices have received.
struct Arrived {
    count: AtomicU64,
    waited: Mutex<Histogram<u64>>,
    since: Instant,
}

/// One service publishes to many devices in turn.
async fn unicast(
    running: &Running,
    tls: &Arc<ClientConfig>,
    size: Size,
    mut clients: VecDeque<Client>,
    figures: &mut Figures,
) -> Result<()> {
    clients.truncate(RECEIVERS);
    let receivers = clients.len();
    let arrived = Arc::new(Arrived {
        count: AtomicU64::new(0),
        waited: Mutex::new(Histogram::new_with_bounds(1, 60_000_000, 3)?),
        since: Instant::now(),
    });
    let mut listening = JoinSet::new();
    for (number, client) in clients.into_iter().enumerate() {
        let filter = format!("devices/{}/messages/devicebound/#", name(number));
        let client = subscribed(client, &filter).await?;
        listening.spawn(listen(client, Arc::clone(&arrived)));
    }
    let service = running.at.log_in(0, &running.service(), Arc::clone(tls)).await?;
    let topics: Vec<String> = (0..receivers).map(downward).collect();

    let cost = Cost::begin(running.process(), size.settle_time)?;
    let mut service = match running.rest.is_some() {
        true => publish_batches(service, receivers, size.unicast).await?,
        false => publish(service, &topics, size.unicast, SERVICE_WINDOW).await?,
    };
    arrived.wait_for(size.unicast).await?;
    let (cpu, rate) = cost.end(size.unicast).await?;
    figures.insert(Measure::UnicastCpu, cpu);
    figures.insert(Measure::UnicastRate, rate);

    arrived.waited.lock().unwrap_or_else(PoisonError::into_inner).reset();
    let topic = |number: usize| match running.rest.is_some() {
        true => format!("$admin/POST/devices/{}/messages/deviceBound?$rid={number}", name(number)),
        false => downward(number),
    };
    let mut pace = interval(PACE);
    let paced = size.paced.as_micros() / PACE.as_micros();
    for number in 0..paced as usize {
        pace.tick().await;
        let sent = arrived.since.elapsed().as_nanos();
        service.send(&packet(&topic(number % receivers), 1, format!("{sent:<BODY_BYTES$}").into()));
        service.flush().await?;
        ensure!(matches!(service.read().await?, Packet::PubAck(1)), "not acknowledged");
    }
    arrived.wait_for(size.unicast + paced as usize).await?;
    {
        let waited = arrived.waited.lock().unwrap_or_else(PoisonError::into_inner);
        figures.insert(Measure::UnicastP50, waited.value_at_quantile(0.5) as f64 / 1000.0);
        figures.insert(Measure::UnicastP99, waited.value_at_quantile(0.99) as f64 / 1000.0);
    }

    if running.rest.is_some() {
        let cost = Cost::begin(running.process(), size.settle_time)?;
        send_each(running, receivers, size.unicast).await?;
        arrived.wait_for(2 * size.unicast + paced as usize).await?;
        let (cpu, rate) = cost.end(size.unicast).await?;
        figures.insert(Measure::SingleCpu, cpu);
        figures.insert(Measure::SingleRate, rate);
    }
    Ok(())
}

impl Arrived {
    fn note(&self, body: &[u8]) {
        let sent = std::str::from_utf8(body).ok().and_then(|text| text.trim_end().parse().ok());
        if let Some(sent) = sent {
            let waited = self.since.elapsed().saturating_sub(Duration::from_nanos(sent));
            let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
            self.waited.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(micros);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until `count` have arrived. Fails when no more arrive.
    async fn wait_for(&self, count: usize) -> Result<()> {
        let mut quiet_since = (Instant::now(), 0);
        loop {
            let now = self.count.load(Ordering::Relaxed);
            if now >= count as u64 {
                return Ok(());
            }
            if now != quiet_since.1 {
                quiet_since = (Instant::now(), now);
            }
            ensure!(quiet_since.0.elapsed() < QUIET_TIME_MAX, "{now} of {count} messages arrived");
            sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Publishes `count` messages to the topics in turn, with up to `window` unacknowledged. Returns the client.
pub async fn publish(mut client: Client, topics: &[String], count: usize, window: usize) -> Result<Client> {
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < count {
        while sent < count && sent - acknowledged < window {
            client.send(&packet(&topics[sent % topics.len()], packet_id(sent), body.clone()));
            sent += 1;
        }
        client.flush().await?;
        // Reads all packets that have arrived, or waits for the next one.
        let mut packet = Some(client.read().await?);
        while let Some(one) = packet {
            acknowledged += usize::from(matches!(one, Packet::PubAck(_)));
            packet = client.read().now_or_never().transpose()?;
        }
    }
    Ok(client)
}

/// The same for the hub, with a hundred messages in a command.
async fn publish_batches(mut client: Client, receivers: usize, count: usize) -> Result<Client> {
    let body = "x".repeat(BODY_BYTES);
    for first in (0..count).step_by(BATCH) {
        let message = |number: usize| json!({ "deviceId": name(number % receivers), "body": body });
        let messages: Vec<Value> = (first..count.min(first + BATCH)).map(message).collect();
        let topic = "$admin/POST/api/v1/c2d-messages?$rid=1&content-type=application%2Fjson";
        client.send(&packet(topic, packet_id(first / BATCH), serde_json::to_vec(&messages)?.into()));
        client.flush().await?;
        ensure!(matches!(client.read().await?, Packet::PubAck(_)), "not acknowledged");
    }
    Ok(client)
}

/// The same with a REST call for each message, as service SDKs do.
async fn send_each(running: &Running, receivers: usize, count: usize) -> Result<()> {
    let mut sending = JoinSet::new();
    for first in 0..REST_AT_ONCE {
        let rest = running.rest.clone().context("a hub")?;
        sending.spawn(async move {
            for number in (first..count).step_by(REST_AT_ONCE) {
                let path = format!("/devices/{}/messages/deviceBound", name(number % receivers));
                let answer = rest.request(Method::POST, &path).body("x".repeat(BODY_BYTES)).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.text().await?);
            }
            Ok(())
        });
    }
    while let Some(sent) = sending.join_next().await {
        sent??;
    }
    Ok(())
}

/// Subscribes and returns the client.
pub async fn subscribed(mut client: Client, filter: &str) -> Result<Client> {
    let filters = vec![(Utf8Bytes::parse(filter.to_owned())?, QoS::AtLeastOnce)];
    client.send(&Packet::Subscribe(Subscribe { packet_id: 1, filters }));
    client.flush().await?;
    let answer = client.read().await?;
    ensure!(matches!(&answer, Packet::SubAck { codes, .. } if codes == &[1]), "{filter}: {answer:?}");
    Ok(client)
}

/// Acknowledges `count` messages, or as many as arrive.
async fn hear(mut client: Client, count: usize) -> Result<usize> {
    let mut heard = 0;
    while heard < count {
        let packet = match client.read().now_or_never() {
            Some(packet) => packet?,
            None => {
                client.flush().await?;
                match timeout(QUIET_TIME_MAX, client.read()).await {
                    Ok(packet) => packet?,
                    Err(_) => return Ok(heard),
                }
            }
        };
        if let Packet::Publish(Publish { packet_id: Some(packet_id), .. }) = packet {
            heard += 1;
            client.send(&Packet::PubAck(packet_id));
        }
    }
    client.flush().await?;
    Ok(heard)
}

/// Acknowledges all messages of a device, until dropped.
async fn listen(mut client: Client, arrived: Arc<Arrived>) -> Result<()> {
    loop {
        if let Packet::Publish(Publish { packet_id: Some(packet_id), payload, .. }) = client.read().await? {
            arrived.note(&payload);
            client.send(&Packet::PubAck(packet_id));
            client.flush().await?;
        }
    }
}

fn downward(number: usize) -> String {
    format!("devices/{}/messages/devicebound/valve=3", name(number))
}

fn packet(topic: &str, packet_id: u16, payload: Bytes) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Utf8Bytes::parse(topic.to_owned()).expect("a topic"),
        packet_id: Some(packet_id),
        payload,
    })
}

/// Never 0, and never the same twice within a window.
fn packet_id(number: usize) -> u16 {
    (number % usize::from(u16::MAX)) as u16 + 1
}

/// Bytes of a message.
const BODY_BYTES: usize = 100;
/// Clients that are connecting at once.
const CONNECTING_MAX: usize = 32;
/// Devices that publish at once, and how much of each is unacknowledged.
const PUBLISHERS: usize = 200;
const PUBLISHER_WINDOW: usize = 4;
/// Devices that one service publishes to, and how many messages are unacknowledged.
const RECEIVERS: usize = 1_000;
const SERVICE_WINDOW: usize = 64;
/// Messages of one command.
const BATCH: usize = 100;
const REST_AT_ONCE: usize = 64;
/// The time between two messages that are sent one at a time.
const PACE: Duration = Duration::from_millis(10);
/// After this long without a message, no more are expected.
const QUIET_TIME_MAX: Duration = Duration::from_secs(5);
