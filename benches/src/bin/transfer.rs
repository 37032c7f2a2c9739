//! Whole fleets in and out: the command line imports a file and exports it again, and the hub's cost is measured.
//!
//! `cargo run --release -p portcullis-benches --bin transfer`. For each line, an import parses a piece of JSON, writes
//! a record in SQLite's group commit and adds an entry to the map. An export writes a piece of JSON. The floor of an
//! import is that group commit alone, in the same run. If the machine has other load, look at processor time. Memory
//! must not grow with the file: the figure is the hub's peak above the registry's own memory, in a new hub, at a tenth
//! of the size and at the full size.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use portcullis_benches::bare::{BareStore, at_once};
use portcullis_benches::program::program;
use portcullis_benches::served::Served;
use portcullis_registry::credential::SymmetricKey;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Measure imports and exports
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 1_000_000)]
    devices: usize,
}

/// The cost of one job.
struct Measured {
    /// From its record.
    job: Duration,
    /// As the caller of the command sees it.
    all: Duration,
    /// The hub's processor time.
    cpu: Duration,
    /// The hub's peak, in bytes.
    peak: u64,
}

fn main() -> ExitCode {
    program(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Runtime::new()?;
    for devices in [arguments.devices / 10, arguments.devices] {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("devices.txt");
        write_lines(&file, devices)?;
        let bare = bare(&runtime, devices)?;
        println!("{devices} devices, {} MiB", file.metadata()?.len() >> 20);
        println!("{:34} {}", "group commit alone", rate(devices, bare));
        transfer(&runtime, directory.path(), devices, bare)?;
    }
    Ok(())
}

fn transfer(runtime: &Runtime, directory: &Path, devices: usize, bare: Duration) -> anyhow::Result<()> {
    let data_dir = directory.join("data");
    let [file, again, copy] = ["devices.txt", "again.txt", "copy.txt"].map(|name| directory.join(name));
    let import = |hub: &Served, file: &Path, more: &[&str]| {
        let file = file.display().to_string();
        let line = [&["device-identity", "import", "--input-file", &file, "-o", "none"][..], more].concat();
        measure(runtime, hub, &data_dir, devices, &line)
    };
    let export = |hub: &Served, file: &Path| {
        let file = file.display().to_string();
        let line = ["device-identity", "export", "--ik", "--im", "--output-file", &file];
        measure(runtime, hub, &data_dir, devices, &line)
    };
    let hub = Served::start(&data_dir)?;
    let fresh = import(&hub, &file, &[])?;
    hub.stop()?;
    let hub = Served::start(&data_dir)?;
    let rest = hub.resident_bytes()?;
    tell("import of new devices", devices, rest, &fresh);
    println!("{:34} {:.2} x", "  against group commit alone", bare.as_secs_f64() / fresh.job.as_secs_f64());
    tell("export", devices, rest, &export(&hub, &again)?);
    tell("dry run of what is there", devices, rest, &import(&hub, &again, &["--dry-run"])?);
    tell("import of what is there", devices, rest, &import(&hub, &again, &[])?);
    export(&hub, &copy)?;
    ensure!(std::fs::read(&again)? == std::fs::read(&copy)?, "an import of an export changed something");
    hub.stop()?;
    Ok(())
}

/// Runs a verb of the command line and reads the record of its job.
fn measure(
    runtime: &Runtime,
    hub: &Served,
    data_dir: &Path,
    devices: usize,
    line: &[&str],
) -> anyhow::Result<Measured> {
    hub.forget_peak()?;
    let before = hub.cpu_time()?;
    let data_dir = data_dir.display().to_string();
    let line = [&["portcullis"], line, &["--no-progress", "--data-dir", &data_dir]].concat();
    let began = Instant::now();
    let exit = portcullis_cli::run(line.iter().map(Into::into));
    let all = began.elapsed();
    ensure!(exit == ExitCode::SUCCESS, "{line:?}");
    let (peak, cpu) = (hub.peak_bytes()?, hub.cpu_time()? - before);
    let rest = hub.rest()?;
    let jobs: Value = runtime.block_on(async {
        anyhow::Ok(rest.request(Method::GET, "/jobs").send().await?.error_for_status()?.json().await?)
    })?;
    let job = &jobs[0];
    ensure!(job["linesDone"] == devices && job["linesFailed"] == 0, "{job}");
    let per_second = job["linesPerSecond"].as_f64().context("no linesPerSecond")?;
    Ok(Measured { job: Duration::from_secs_f64(devices as f64 / per_second.max(1.0)), all, cpu, peak })
}

/// `rest` is the memory of the idle hub.
fn tell(what: &str, devices: usize, rest: u64, measured: &Measured) {
    let Measured { job, all, cpu, peak } = measured;
    let per_line = cpu.as_secs_f64() * 1e6 / devices as f64;
    println!(
        "{what:34} {}; with the file's way {}; {per_line:.1} us of processor a line; peak +{} MiB",
        rate(devices, *job),
        rate(devices, *all),
        peak.saturating_sub(rest) >> 20
    );
}

/// The same number of rows of a device's size, written durably by SQLite alone.
fn bare(runtime: &Runtime, devices: usize) -> anyhow::Result<Duration> {
    let directory = tempfile::tempdir()?;
    let store = Arc::new(BareStore::open(&directory.path().join("bare.db"))?);
    at_once(runtime, devices, AT_ONCE, move |number| {
        let store = Arc::clone(&store);
        async move { store.put(name(number), vec![7; ROW_BYTES]).await }
    })
}

/// A file as IoT Hub exports it.
fn write_lines(path: &Path, devices: usize) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let thumbprint = json!({ "primaryThumbprint": null, "secondaryThumbprint": null });
    for number in 0..devices {
        let [primary, secondary] = [(); 2].map(|()| SymmetricKey::generate().to_base64());
        let keys = json!({ "primaryKey": primary.as_str(), "secondaryKey": secondary.as_str() });
        let authentication = json!({ "symmetricKey": keys, "x509Thumbprint": thumbprint, "type": "sas" });
        let line = json!({ "id": name(number), "eTag": "MA==", "status": "enabled",
            "authentication": authentication, "capabilities": { "iotEdge": false },
            "twinETag": "AAAAAAAAAAE=", "tags": {},
            "properties": { "desired": { "$version": 1 }, "reported": { "$version": 1 } } });
        writeln!(file, "{line}")?;
    }
    Ok(file.flush()?)
}

fn name(number: usize) -> String {
    format!("device-{number:07}")
}

fn rate(count: usize, time: Duration) -> String {
    format!("{:.0}/s ({time:.1?})", count as f64 / time.as_secs_f64())
}

/// The most lines that an import stores together.
const AT_ONCE: usize = 1024;
/// The size of the record of a device with two keys.
const ROW_BYTES: usize = 76;
