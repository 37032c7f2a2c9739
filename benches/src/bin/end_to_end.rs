//! A whole hub in its own process under a fleet: connects, idle connections, telemetry, messages down, revocations,
//! REST, a restart. Where the limit (TLS and packets and nothing else) can do the same, both take turns in the same run
//! and the medians are compared. Read those ratios first, because they do not depend on the machine's speed.
//!
//! `cargo run --release -p portcullis-benches --bin end_to_end`. Clients and server share the machine, so rates are
//! those of both together. CPU is the server's alone. The table goes to `target/bench/end_to_end.md` and `.json`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use portcullis::mqtt::packet::{Packet, Publish};
use portcullis_benches::crowd::{Connection, Crowd, name, subscribe};
use portcullis_benches::limit::Limit;
use portcullis_benches::live::{Hub, all_events, publish};
use portcullis_benches::process::{Process, files_max, load_average};
use portcullis_benches::program::program;
use portcullis_benches::served::{Rest, Served};
use portcullis_benches::table::{Table, median};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use portcullis_simulator::access::HubAccess;
use portcullis_simulator::fleet::Fleet;
use portcullis_simulator::scenario::{FleetSpec, Phase, Scenario};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Measure a whole hub under a fleet
#[derive(Parser)]
struct Arguments {
    /// Numbers of idle connections for the memory measurement; 0 means as many as there are file handles for
    #[arg(long, value_delimiter = ',', default_value = "10000,0")]
    idle: Vec<usize>,
    /// Turns of the hub and of the limit
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Connections in each turn of connecting
    #[arg(long, default_value_t = 2_000)]
    connects: usize,
    /// Devices that send telemetry
    #[arg(long, default_value_t = 500)]
    senders: usize,
    /// Seconds of each turn of sending or asking, and of each pause
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// Cloud-to-device messages a second
    #[arg(long, default_value_t = 500.0)]
    c2d_rate: f64,
    /// Connections that are revoked
    #[arg(long, default_value_t = 300)]
    revocations: usize,
    /// Identities in the registry at the restart
    #[arg(long, default_value_t = 100_000)]
    identities: usize,
    /// The directory for the table
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

impl Arguments {
    /// Devices that exist from the start.
    fn crowd(&self) -> usize {
        self.connects.max(self.senders).max(self.revocations)
    }
}

fn main() -> ExitCode {
    program(|| tokio::runtime::Runtime::new()?.block_on(run(&Arguments::parse())))
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut table = Table::default();
    println!("load average {}\n{:<52}{:>12}{:>12}{:>8}", load_average()?, "", "hub", "limit", "ratio");
    let directory = tempfile::tempdir()?;
    let data_dir = directory.path().join("data");
    let bench = Bench::start(&data_dir).await?;
    bench.connecting(arguments, &mut table).await?;
    bench.telemetry(arguments, &mut table).await?;
    bench.messages_down(arguments, &mut table).await?;
    bench.revocation(arguments, &mut table).await?;
    bench.rest(arguments, &mut table).await?;
    bench.restart(arguments, &data_dir, &mut table).await?;
    for count in &arguments.idle {
        let count = if *count == 0 { files_max()?.saturating_sub(FILES_KEPT) } else { *count };
        resting(count, Duration::from_secs(arguments.seconds), &mut table).await?;
    }
    println!("load average {}", load_average()?);
    table.write(&arguments.output, "end_to_end", "A whole hub under a fleet")?;
    println!("\nwritten to {}", arguments.output.display());
    Ok(())
}

/// Idle memory of hub and limit. Each is a process that has done nothing else.
async fn resting(count: usize, pause: Duration, table: &mut Table) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let bench = Bench::start(&directory.path().join("data")).await?;
    bench.crowd.register(&bench.rest, 0..count).await?;
    let ours = idle_bytes(&bench.crowd, bench.hub_process(), count, pause).await?;
    let limit = idle_bytes(&bench.limit_crowd, bench.limit_process(), count, pause).await?;
    table.compare(
        &format!("memory of an idle connection, {count} open"),
        ours / 1024.0,
        limit / 1024.0,
        "KiB",
    );
    Ok(())
}

/// The memory of each of `count` connections that are idle and subscribed, without its registry entry. The process
/// rests for a `pause` before it is measured.
async fn idle_bytes(crowd: &Crowd, process: Process, count: usize, pause: Duration) -> anyhow::Result<f64> {
    sleep(pause).await;
    let before = process.proportional_bytes()?;
    let (mut connections, _) = crowd.connect(count).await?;
    for (number, connection) in connections.iter_mut().enumerate() {
        subscribe(connection, number).await?;
    }
    sleep(pause).await;
    let after = process.proportional_bytes()?;
    Ok(after.saturating_sub(before) as f64 / count as f64)
}

/// A hub, the limit, and the devices for both.
struct Bench {
    served: Served,
    limit: Limit,
    rest: Rest,
    crowd: Crowd,
    limit_crowd: Crowd,
}

impl Bench {
    async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        let served = Served::start(data_dir)?;
        let limit = Limit::start()?;
        let access = served.access()?;
        let mqtt = (access.connect_address.parse::<std::net::IpAddr>()?, access.mqtt_port).into();
        let crowd = Crowd::new(Hub { mqtt, host: access.hostname, roots: served.roots()? });
        let limit_crowd = crowd.at(limit.hub.clone());
        Ok(Self { rest: served.rest()?, served, limit, crowd, limit_crowd })
    }

    fn hub_process(&self) -> Process {
        Process(self.served.id())
    }

    fn limit_process(&self) -> Process {
        Process(self.limit.id())
    }

    /// TLS, CONNECT and authentication, in turns.
    async fn connecting(&self, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
        self.crowd.register(&self.rest, 0..arguments.crowd()).await?;
        let (mut ours, mut limit) = (Turns::default(), Turns::default());
        for _ in 0..arguments.rounds {
            for (crowd, process, turns) in [
                (&self.crowd, self.hub_process(), &mut ours),
                (&self.limit_crowd, self.limit_process(), &mut limit),
            ] {
                let cpu = process.cpu()?;
                let (connections, took) = crowd.connect(arguments.connects).await?;
                turns.add(arguments.connects as u64, took, process.cpu()? - cpu);
                drop(connections);
                // Closing them is not part of the next turn.
                sleep(Duration::from_secs(1)).await;
            }
        }
        table.compare("connects a second", ours.rate(), limit.rate(), "/s");
        table.compare("server CPU of a connect", ours.cpu_us(), limit.cpu_us(), "us");
        Ok(())
    }

    /// QoS 1 from many devices, a few in flight each, to one subscriber of all. The limit delivers to nobody.
    async fn telemetry(&self, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
        let heard = Arc::new(AtomicU64::new(0));
        let listening = self.listen(Arc::clone(&heard)).await?;
        let time = Duration::from_secs(arguments.seconds);
        let (mut ours, mut limit) = (Turns::default(), Turns::default());
        for _ in 0..arguments.rounds {
            for (crowd, process, turns) in [
                (&self.crowd, self.hub_process(), &mut ours),
                (&self.limit_crowd, self.limit_process(), &mut limit),
            ] {
                let (connections, _) = crowd.connect(arguments.senders).await?;
                let cpu = process.cpu()?;
                let (count, took) = send_all(connections, time).await?;
                turns.add(count, took, process.cpu()? - cpu);
            }
        }
        table.compare("telemetry acknowledged a second", ours.rate(), limit.rate(), "/s");
        table.compare("server CPU of a message up", ours.cpu_us(), limit.cpu_us(), "us");
        let share = heard.load(Ordering::Relaxed) as f64 / ours.count as f64;
        table.add("of it with the one subscriber when it ended", share * 100.0, "%");
        listening.abort();
        Ok(())
    }

    /// Counts the messages of a service that subscribes to everything.
    async fn listen(&self, heard: Arc<AtomicU64>) -> anyhow::Result<tokio::task::JoinHandle<()>> {
        let access = self.served.access()?;
        let key = access.owner.split("SharedAccessKey=").last().context("the owner's key")?;
        let expiry = jiff::Timestamp::now().as_second() + 36_000;
        let token =
            sas::sign(&access.hostname, &SymmetricKey::parse_base64(key)?, expiry, Some("iothubowner"));
        let user = "?api-version=2021-04-12&policy=iothubowner";
        let mut wire = self.crowd.hub.converse("listener", user, &token).await?;
        wire.send(&all_events());
        wire.flush().await?;
        ensure!(matches!(wire.read().await?, Packet::SubAck { .. }), "no subscription");
        Ok(tokio::spawn(async move {
            while let Ok(packet) = wire.read().await {
                let Packet::Publish(event) = packet else { continue };
                heard.fetch_add(1, Ordering::Relaxed);
                if let Some(packet_id) = event.packet_id {
                    wire.send(&Packet::PubAck(packet_id));
                    if wire.flush().await.is_err() {
                        return;
                    }
                }
            }
        }))
    }

    /// Messages over REST at a steady rate, to one online device after another.
    async fn messages_down(&self, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
        let access = self.served.access()?;
        let ca = self.served.data_dir().join("ca.pem");
        let access = HubAccess::local(self.served.data_dir(), Some(&ca)).with_context(|| access.hostname)?;
        let settle = |name: &str, c2d_per_second, seconds| Phase {
            name: name.into(),
            duration: Some(Duration::from_secs(seconds)),
            settle: true,
            c2d_per_second,
            ..Phase::default()
        };
        let phases = vec![
            settle("connect", 0.0, 1),
            settle("quiet", 0.0, arguments.seconds),
            settle("messages", arguments.c2d_rate, 3 * arguments.seconds),
        ];
        let fleet = FleetSpec { devices: arguments.senders, prefix: "down".into(), ..FleetSpec::default() };
        let fleet = Fleet::new(access, Scenario { fleet, phases, ..Scenario::default() }.check()?);
        let series = fleet.series();
        let running = tokio::spawn(fleet.run(CancellationToken::new()));
        while series.latest().0 != "messages" {
            ensure!(!running.is_finished(), "the fleet ended early");
            sleep(LOOK_PERIOD).await;
        }
        let cpu = self.hub_process().cpu()?;
        while series.latest().0 == "messages" {
            sleep(LOOK_PERIOD).await;
        }
        let cpu = self.hub_process().cpu()? - cpu;
        let report = running.await??;
        ensure!(report.lost() == 0 && report.c2d.received > 0, "messages were lost:\n{report}");
        let figures = report.c2d.round_trip_ms;
        table.add("message down, REST to device, p50", figures.p50, "ms");
        table.add("message down, REST to device, p99", figures.p99, "ms");
        table.add("own lateness of the fleet, p99", report.lateness_ms.p99, "ms");
        let each = cpu.as_secs_f64() * 1e6 / report.c2d.received as f64;
        table.add("server CPU of a message down, its REST call included", each, "us");
        Ok(())
    }

    /// From the answer that says a device is disabled to its closed connection.
    async fn revocation(&self, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
        let (connections, _) = self.crowd.connect(arguments.revocations).await?;
        let mut times = Histogram::<u64>::new(3)?;
        for (number, mut connection) in connections.into_iter().enumerate() {
            let closing = tokio::spawn(async move {
                while connection.read().await.is_ok() {}
                Instant::now()
            });
            let path = format!("/devices/{}", name(number));
            let body = json!({ "status": "disabled" });
            let answer =
                self.rest.request(Method::PUT, &path).header("if-match", "*").json(&body).send().await?;
            let answered = Instant::now();
            ensure!(answer.status().is_success(), "{}", answer.text().await?);
            let closed = timeout(Duration::from_secs(10), closing).await.context("it stays open")??;
            times.record(u64::try_from(closed.saturating_duration_since(answered).as_micros())?)?;
        }
        table.add(
            "from a disabling's answer to the closed socket, p50",
            times.value_at_quantile(0.5) as f64 / 1e3,
            "ms",
        );
        table.add(
            "from a disabling's answer to the closed socket, p99",
            times.value_at_quantile(0.99) as f64 / 1e3,
            "ms",
        );
        Ok(())
    }

    /// One request after another on a few connections.
    async fn rest(&self, arguments: &Arguments, table: &mut Table) -> anyhow::Result<()> {
        let time = Duration::from_secs(arguments.seconds);
        let create = |number: u64| {
            let id = format!("by-rest-{number}");
            let body = json!({ "deviceId": id, "authentication": { "type": "sas" } });
            self.rest.request(Method::PUT, &format!("/devices/{id}")).json(&body)
        };
        let crowd = arguments.crowd();
        let get = |number: u64| {
            self.rest.request(Method::GET, &format!("/devices/{}", name(number as usize % crowd)))
        };
        let list = |_| self.rest.request(Method::GET, "/devices").query(&[("top", "100")]);
        let created = self.ask("REST, create a device", time, create, table).await?;
        self.ask("REST, get a device", time, get, table).await?;
        self.ask("REST, list 100 devices", time, list, table).await?;
        let deleted: Vec<Value> = (0..created)
            .map(|number| json!({ "id": format!("by-rest-{number}"), "importMode": "delete" }))
            .collect();
        for some in deleted.chunks(100) {
            self.rest.request(Method::POST, "/devices").json(some).send().await?;
        }
        Ok(())
    }

    async fn ask(
        &self,
        what: &str,
        time: Duration,
        request: impl Fn(u64) -> reqwest::RequestBuilder,
        table: &mut Table,
    ) -> anyhow::Result<u64> {
        let (cpu, began) = (self.hub_process().cpu()?, Instant::now());
        let mut asking = JoinSet::new();
        let mut begun = 0;
        let mut done = 0;
        while began.elapsed() < time || !asking.is_empty() {
            while began.elapsed() < time && asking.len() < ASKING_MAX {
                let request = request(begun);
                asking.spawn(async move {
                    let answer = request.send().await?;
                    let is_success = answer.status().is_success();
                    answer.bytes().await.map(|_| is_success)
                });
                begun += 1;
            }
            if let Some(answered) = asking.join_next().await {
                ensure!(answered??, "{what}: refused");
                done += 1;
            }
        }
        let mut turns = Turns::default();
        turns.add(done, began.elapsed(), self.hub_process().cpu()? - cpu);
        table.add(&format!("{what}, {ASKING_MAX} at a time"), turns.rate(), "/s");
        table.add(&format!("{what}, server CPU"), turns.cpu_us(), "us");
        Ok(begun)
    }

    /// From the start of the process until it says that it is ready.
    async fn restart(self, arguments: &Arguments, data_dir: &Path, table: &mut Table) -> anyhow::Result<()> {
        let known = arguments.crowd();
        if arguments.identities > known {
            self.crowd.register(&self.rest, known..arguments.identities).await?;
        }
        self.served.stop()?;
        let again = Served::start(data_dir)?;
        let name = format!("start with {} identities", arguments.identities.max(known));
        table.add(&name, again.start_time.as_secs_f64() * 1e3, "ms");
        again.stop()?;
        Ok(())
    }
}

/// The results of several turns.
#[derive(Default)]
struct Turns {
    count: u64,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Turns {
    fn add(&mut self, count: u64, took: Duration, cpu: Duration) {
        self.count += count;
        self.rates.push(count as f64 / took.as_secs_f64());
        self.cpu_us.push(cpu.as_secs_f64() * 1e6 / count as f64);
    }

    fn rate(&self) -> f64 {
        median(self.rates.clone())
    }

    fn cpu_us(&self) -> f64 {
        median(self.cpu_us.clone())
    }
}

/// Every connection keeps `UNDER_WAY` messages in flight for `time`. Returns how many were acknowledged, in what time.
async fn send_all(connections: Vec<Connection>, time: Duration) -> anyhow::Result<(u64, Duration)> {
    let began = Instant::now();
    let mut sending = JoinSet::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        sending.spawn(async move {
            let topic = format!("devices/{}/messages/events/", name(number));
            let Packet::Publish(message) = publish(&topic, PAYLOAD) else { return Ok(0) };
            let message =
                |packet_id| Packet::Publish(Publish { packet_id: Some(packet_id), ..message.clone() });
            for packet_id in 1..=UNDER_WAY {
                connection.send(&message(packet_id));
            }
            let (mut acknowledged, mut under_way) = (0, UNDER_WAY);
            while under_way > 0 {
                connection.flush().await?;
                let answer = connection.read().await?;
                let Packet::PubAck(packet_id) = answer else {
                    anyhow::bail!("no acknowledgement: {answer:?}")
                };
                acknowledged += 1;
                under_way -= 1;
                if began.elapsed() < time {
                    connection.send(&message(packet_id));
                    under_way += 1;
                }
            }
            Ok(acknowledged)
        });
    }
    let mut all = 0;
    while let Some(sent) = sending.join_next().await {
        all += sent??;
    }
    Ok((all, began.elapsed()))
}

/// 64 bytes, like a typical reading.
const PAYLOAD: &str = r#"{"temperature":21.5,"pressure":1013.2,"flow":0.82,"ok":true,"n":7}"#;
/// Messages of one device under way.
const UNDER_WAY: u16 = 4;
/// REST requests at a time.
const ASKING_MAX: usize = 16;
const LOOK_PERIOD: Duration = Duration::from_millis(10);
/// File handles for other things than connections.
const FILES_KEPT: usize = 200;
