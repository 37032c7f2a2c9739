//! How fast the portal serves its pages, with few devices and with a million.
//!
//! `cargo run --release -p portcullis-benches --bin portal`. One person reads one page after another on one connection,
//! as a browser does, and each page many times. The figures leave out signing in and creating the devices.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Parser;
use hdrhistogram::Histogram;
use jiff::Timestamp;
use portcullis_benches::program::program;
use portcullis_benches::served::{Rest, Served};
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::backup::STORE;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::store::{Registry, RegistryLimits};
use reqwest::{Method, header};
use tokio::runtime::Runtime;

/// Measure how fast the portal's pages come
#[derive(Parser)]
struct Arguments {
    /// Numbers of devices, one run each
    #[arg(long, value_delimiter = ',', default_value = "1000,1000000")]
    devices: Vec<usize>,
    /// How often each page is requested
    #[arg(long, default_value_t = 300)]
    times: usize,
    /// The directory of the hubs' data; a temporary one by default. A directory with devices is not filled again
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

fn main() -> ExitCode {
    program(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let all = arguments.data_dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    let runtime = Runtime::new()?;
    for &devices in &arguments.devices {
        let data_dir = all.join(devices.to_string());
        if !data_dir.join(STORE).exists() {
            fill(&runtime, devices, &data_dir)?;
        }
        let served = Served::start(&data_dir)?;
        runtime.block_on(measure(&served, devices, arguments.times))?;
        served.stop()?;
    }
    Ok(())
}

/// Creates the devices in a registry without a hub.
fn fill(runtime: &Runtime, devices: usize, data_dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(data_dir.join(STORE))?;
    std::fs::set_permissions(data_dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
    let backend = SqliteBackend::open(&data_dir.join(STORE))?;
    let registry = Registry::open(Box::new(backend), RegistryLimits::default())?;
    let next = Arc::new(AtomicUsize::new(0));
    runtime.block_on(async {
        let mut running = Vec::new();
        for _ in 0..WRITERS {
            let (registry, next) = (Arc::clone(&registry), Arc::clone(&next));
            running.push(tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= devices {
                        return anyhow::Ok(());
                    }
                    registry.create(IdentitySpec::sas_device(id(number)?), Timestamp::now()).await?;
                }
            }));
        }
        for one in running {
            one.await??;
        }
        anyhow::Ok(())
    })?;
    registry.close()?;
    Ok(())
}

async fn measure(served: &Served, devices: usize, times: usize) -> anyhow::Result<()> {
    let rest = served.rest()?;
    let cookie = sign_in(served, &rest).await?;
    let some = name(devices / 2);
    let pages = [
        ("overview", "/portal".to_owned()),
        ("devices", "/portal/devices".to_owned()),
        ("devices, 100 from the middle", format!("/portal/devices?count=100&after={some}")),
        ("devices, from the end", "/portal/devices?order=descending".to_owned()),
        ("devices, begins with", format!("/portal/devices?q={some}")),
        ("devices, contains what few have", "/portal/devices?q=777&match=contains".to_owned()),
        ("devices, contains what none has", "/portal/devices?q=none&match=contains".to_owned()),
        ("devices, disabled (none is)", "/portal/devices?status=disabled".to_owned()),
        ("devices, connected (none is)", "/portal/devices?connected=yes".to_owned()),
        ("device", format!("/portal/devices/{some}")),
        ("device: connections", format!("/portal/devices/{some}/connections")),
        ("device: C2D queue", format!("/portal/devices/{some}/messages")),
        ("new device", "/portal/new-device".to_owned()),
        ("policies", "/portal/policies".to_owned()),
        ("CAs", "/portal/authorities".to_owned()),
        ("jobs", "/portal/jobs".to_owned()),
        ("audit log", "/portal/audit".to_owned()),
    ];
    println!("{:34} {:>9} {:>9} {:>9} {:>9}", format!("{devices} devices, ms"), "p50", "p99", "max", "KiB");
    for (what, path) in pages {
        let mut took = Histogram::<u64>::new(3)?;
        let mut bytes = 0;
        for _ in 0..times {
            let began = Instant::now();
            let request = rest.browse(Method::GET, &path).header(header::COOKIE, &cookie);
            let answer = request.send().await?;
            ensure!(answer.status().is_success(), "{path}: {}", answer.status());
            bytes = answer.bytes().await?.len();
            took.record(u64::try_from(began.elapsed().as_micros())?)?;
        }
        let milliseconds = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1000.0;
        println!(
            "{what:34} {:>9.2} {:>9.2} {:>9.2} {:>9.1}",
            milliseconds(took.value_at_quantile(0.5)),
            milliseconds(took.value_at_quantile(0.99)),
            milliseconds(took.max()),
            bytes as f64 / 1024.0
        );
    }
    Ok(())
}

/// The sign-in's cookie.
async fn sign_in(served: &Served, rest: &Rest) -> anyhow::Result<String> {
    let owner = served.access()?.owner;
    let encoded: String = owner.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = rest
        .browse(Method::POST, "/portal/sign-in")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .header("sec-fetch-site", "same-origin")
        .body(format!("connection-string={encoded}"))
        .send()
        .await?;
    let cookie = answer.headers().get(header::SET_COOKIE).context("nobody was signed in")?.to_str()?;
    Ok(cookie.split(';').next().unwrap_or_default().to_owned())
}

fn name(number: usize) -> String {
    format!("device-{number:07}")
}

fn id(number: usize) -> anyhow::Result<IdentityId> {
    Ok(IdentityId::device(DeviceId::parse(&name(number))?))
}

/// Devices that are created at once.
const WRITERS: usize = 256;
