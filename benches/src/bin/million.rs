//! A registry of a million devices: created over REST, served, restarted, looked up, and its cost against the floor.
//!
//! `cargo run --release -p portcullis-benches --bin million`. The same run measures the floors: reading the same file
//! into a DashMap alone, and the same SQLite with group commit and nothing else.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use dashmap::DashMap;
use jiff::Timestamp;
use portcullis_benches::bare::{BareStore, at_once};
use portcullis_benches::program::program;
use portcullis_benches::served::{Rest, Served, resident_bytes};
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::backup::STORE;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::store::{Registry, RegistryLimits};
use reqwest::Method;
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Measure a registry of a million devices
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    devices: usize,
    /// Connections that create devices, a hundred at a time
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Writes for each row of the durability table
    #[arg(long, default_value_t = 60_000)]
    writes: usize,
    /// The hub's data directory; a temporary one by default. A directory with devices is not filled again
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Run one measurement of the store in the data directory: `floor` or `registry`
    #[arg(long, hide = true)]
    part: Option<String>,
}

fn main() -> ExitCode {
    program(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if let (Some(which), Some(data_dir)) = (&arguments.part, &arguments.data_dir) {
        return part(which, arguments.devices, &data_dir.join(STORE));
    }
    let temporary = tempfile::tempdir()?;
    let data_dir = arguments.data_dir.clone().unwrap_or_else(|| temporary.path().join("data"));
    let runtime = Runtime::new()?;
    if !data_dir.join(STORE).exists() {
        fill(&runtime, arguments, &data_dir)?;
    }
    restart(&runtime, arguments, &data_dir)?;
    compare(arguments, &data_dir)?;
    for writers in [16, 256] {
        durable(&runtime, arguments.writes, writers)?;
    }
    Ok(())
}

/// Creates every device over REST.
fn fill(runtime: &Runtime, arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let served = Served::start(data_dir)?;
    let before = served.resident_bytes()?;
    let began = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut running = Vec::new();
        for _ in 0..arguments.connections {
            running.push(tokio::spawn(fill_on(served.rest()?, Arc::clone(&next), arguments.devices)));
        }
        for one in running {
            one.await??;
        }
        anyhow::Ok(())
    })?;
    let after = served.resident_bytes()?;
    println!(
        "REST, {} connections, 100 a request: {}",
        arguments.connections,
        rate(arguments.devices, began.elapsed())
    );
    println!("hub after filling: {} bytes a device", (after - before) / arguments.devices as u64);
    served.stop()?;
    Ok(())
}

async fn fill_on(rest: Rest, next: Arc<AtomicUsize>, devices: usize) -> anyhow::Result<()> {
    loop {
        let first = next.fetch_add(100, Ordering::Relaxed);
        let last = (first + 100).min(devices);
        if first >= last {
            return Ok(());
        }
        let items: Vec<Value> =
            (first..last).map(|number| json!({"id": name(number), "importMode": "create"})).collect();
        let answer = rest.request(Method::POST, "/devices").json(&items).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        ensure!(status.is_success(), "{status}: {body:.300}");
    }
}

/// Starts the hub on the existing data and asks for its number of devices.
fn restart(runtime: &Runtime, arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let served = Served::start(data_dir)?;
    let rest = served.rest()?;
    let statistics: Value = runtime.block_on(async {
        rest.request(Method::GET, "/statistics/devices").send().await?.error_for_status()?.json().await
    })?;
    ensure!(statistics["totalDeviceCount"] == arguments.devices, "{statistics}");
    println!("hub ready again after {:.2?}", served.start_time);
    println!(
        "hub after restart: {} bytes a device, all in",
        served.resident_bytes()? / arguments.devices as u64
    );
    served.stop()?;
    Ok(())
}

/// Opens the store and looks identities up. Each measurement has its own process, because memory that was used and
/// freed before is slower.
fn compare(arguments: &Arguments, data_dir: &Path) -> anyhow::Result<()> {
    let measure = |part: &str| -> anyhow::Result<Vec<f64>> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--devices", &arguments.devices.to_string(), "--part", part, "--data-dir"])
            .arg(data_dir);
        let output = command.output()?;
        ensure!(output.status.success(), "{part}: {}", String::from_utf8_lossy(&output.stderr));
        let numbers = String::from_utf8(output.stdout)?;
        Ok(numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?)
    };
    // The first process to read the file would be slower than the others.
    measure("floor")?;
    let (floor, registry) = (measure("floor")?, measure("registry")?);
    let rows =
        ["seconds to open", "bytes a device", "look-ups a second", "look-ups a second of 1,000 devices"];
    println!("{:34} {:>12} {:>12} {:>6}", "", "registry", "map alone", "x");
    for ((row, registry), floor) in rows.iter().zip(registry).zip(floor) {
        println!("{row:34} {registry:>12.2} {floor:>12.2} {:>6.2}", registry / floor);
    }
    Ok(())
}

/// Prints the numbers of one part: seconds to open, bytes a device, look-ups a second of all and of 1,000.
fn part(part: &str, devices: usize, store: &Path) -> anyhow::Result<()> {
    let wanted = wanted(devices)?;
    let few: Vec<_> = (0..wanted.len()).map(|place| wanted[place % 1_000].clone()).collect();
    let before = resident_bytes("self")?;
    let began = Instant::now();
    let tell = |count: usize, look_up: &dyn Fn(&IdentityId) -> bool| {
        let took = began.elapsed();
        ensure!(count == devices, "{count} devices");
        let bytes = resident_bytes("self")?.saturating_sub(before) / devices as u64;
        let (many, few) = (per_second(&wanted, look_up), per_second(&few, look_up));
        println!("{} {bytes} {many} {few}", took.as_secs_f64());
        // Freeing all memory would take longer than exiting.
        std::process::exit(0)
    };
    if part == "floor" {
        let map = map_alone(&store.join("hub.db"))?;
        return tell(map.len(), &|id| map.get(id).map(|value| Arc::clone(&value)).is_some());
    }
    let registry = Registry::open(Box::new(SqliteBackend::open(store)?), RegistryLimits::default())?;
    tell(registry.counts().devices, &|id| registry.entry(id).is_some())
}

/// The least work of a start: reads every row into a map.
fn map_alone(path: &Path) -> anyhow::Result<DashMap<IdentityId, Arc<[u8]>>> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let map = DashMap::new();
    let mut statement = database.prepare("SELECT dev, doc FROM identity")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let device = IdentityId::device(DeviceId::parse(row.get_ref(0)?.as_str()?)?);
        map.insert(device, row.get_ref(1)?.as_blob()?.into());
    }
    Ok(map)
}

/// Creates devices with `writers` at once, each waiting for its own. Compares the registry with SQLite alone.
fn durable(runtime: &Runtime, writes: usize, writers: usize) -> anyhow::Result<()> {
    let (mut ours, mut bare) = (Duration::ZERO, Duration::ZERO);
    // In turns, so that noise on the machine affects both.
    for turn in 0..TURNS {
        let directory = tempfile::tempdir()?;
        let registry =
            Registry::open(Box::new(SqliteBackend::open(directory.path())?), RegistryLimits::default())?;
        let creator = Arc::clone(&registry);
        ours += at_once(runtime, writes / TURNS, writers, move |number| {
            let registry = Arc::clone(&creator);
            async move {
                let spec = IdentitySpec::sas_device(id(number)?);
                registry.create(spec, Timestamp::now()).await?;
                Ok(())
            }
        })
        .with_context(|| format!("turn {turn}"))?;
        registry.close()?;
        let directory = tempfile::tempdir()?;
        let store = Arc::new(BareStore::open(&directory.path().join("bare.db"))?);
        bare += at_once(runtime, writes / TURNS, writers, move |number| {
            let store = Arc::clone(&store);
            async move { store.put(name(number), vec![7; BARE_BYTES]).await }
        })?;
    }
    println!(
        "durable creates, {writers} at once: {}; SQLite's group commit alone {}: {:.2} x",
        rate(writes, ours),
        rate(writes, bare),
        bare.as_secs_f64() / ours.as_secs_f64()
    );
    Ok(())
}

/// Two hundred thousand of all ids, in random order.
fn wanted(devices: usize) -> anyhow::Result<Vec<IdentityId>> {
    (0..200_000).map(|place| id(place * 7_919 % devices)).collect()
}

fn per_second(wanted: &[IdentityId], look_up: &dyn Fn(&IdentityId) -> bool) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        assert!(wanted.iter().all(|id| black_box(look_up(id))));
        best = best.min(began.elapsed().as_secs_f64());
    }
    wanted.len() as f64 / best
}

fn rate(count: usize, time: Duration) -> String {
    format!("{:.0}/s ({count} in {time:.1?})", count as f64 / time.as_secs_f64())
}

fn name(number: usize) -> String {
    format!("device-{number:07}")
}

fn id(number: usize) -> anyhow::Result<IdentityId> {
    Ok(IdentityId::device(DeviceId::parse(&name(number))?))
}

const TURNS: usize = 3;
/// The size of the record of a device with two keys.
const BARE_BYTES: usize = 76;
