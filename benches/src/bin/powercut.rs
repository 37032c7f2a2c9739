//! Cuts the power under the store at random moments, in a model of the disk (threats T903).
//!
//! A second process writes to a real store under strace. The log shows when data was written, synced and acknowledged.
//! Then power is lost at random moments: unsynced blocks are dropped, reordered and torn. The store is opened on the
//! rest, and must hold all that was acknowledged by then, and no half write.
//!
//! `cargo run --release -p portcullis-benches --bin powercut -- --cuts 5000`; needs strace. Both `--forget-syncs` and
//! `--acknowledge-early` must end red.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use clap::Parser;
use jiff::Timestamp;
use portcullis_benches::disk::{Disk, Event, STRACE, files, read_log};
use portcullis_benches::early::EarlyBackend;
use portcullis_benches::program::program;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::store::{Registry, RegistryLimits};

/// Cut the power under the store at random moments, in a model of the disk
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 2_000)]
    cuts: usize,
    /// Writes before and during the power cuts
    #[arg(long, default_value_t = 300)]
    writes: usize,
    /// Ignore syncs, like a disk that lies; the check must notice it
    #[arg(long)]
    forget_syncs: bool,
    /// Acknowledge before the commit, as a faulty store does: to see that it is found
    #[arg(long)]
    acknowledge_early: bool,
    #[arg(long, default_value = "strace")]
    strace: PathBuf,
    /// Run the writing process, with the store in this directory
    #[arg(long, hide = true)]
    write_to: Option<PathBuf>,
}

fn main() -> ExitCode {
    program(|| {
        let arguments = Arguments::parse();
        match &arguments.write_to {
            Some(directory) => write(directory, &arguments),
            None => run(&arguments),
        }
    })
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let events = record(temporary.path(), arguments)?;
    let first = events.iter().position(|event| matches!(event, Event::Said(_)));
    let first = first.context("nothing was ever acknowledged")?;
    let syncs = events.iter().filter(|event| matches!(event, Event::Sync { .. })).count();
    println!("{} events on {:?}, {syncs} of them syncs", events.len(), files(&events));
    let mut cuts: Vec<usize> =
        (0..arguments.cuts).map(|_| first + 1 + random(events.len() - first)).collect();
    cuts.sort_unstable();
    let (mut disk, mut done, mut acknowledged, mut held) = (Disk::default(), 0, 0, 0);
    for cut in cuts {
        for event in &events[done..cut] {
            match event {
                Event::Said(text) => {
                    acknowledged += text.lines().filter(|line| *line == ACKNOWLEDGED).count()
                }
                Event::Sync { .. } if arguments.forget_syncs && acknowledged > 0 => {}
                other => disk.apply(other),
            }
        }
        done = cut;
        let block = [512, 4_096][random(2)];
        // From "nothing more arrived" over "some of it" to "all of it".
        let share = [0, 1, 50, 95, 100][random(5)];
        let left = temporary.path().join("left");
        let _ = fs::remove_dir_all(&left);
        fs::create_dir(&left)?;
        disk.lose_power(&left, block, &mut |_| usize::from(random(100) < share))?;
        check(&left, acknowledged).with_context(|| {
            format!("power lost at event {cut} of {}, {share} % of blocks of {block} arrived", events.len())
        })?;
        held += 1;
    }
    println!("{held} power cuts over {acknowledged} acknowledged writes: none lost, none half");
    Ok(())
}

/// Runs a process that writes to a store under strace, and reads its log.
fn record(temporary: &Path, arguments: &Arguments) -> anyhow::Result<Vec<Event>> {
    // The kernel's name of the directory, which the log uses.
    let temporary = temporary.canonicalize()?;
    let (directory, log) = (temporary.join("store"), temporary.join("log"));
    let run = Command::new(&arguments.strace)
        .args(STRACE)
        .arg("-o")
        .arg(&log)
        .arg(std::env::current_exe()?)
        .args(["--writes", &arguments.writes.to_string()])
        .args(arguments.acknowledge_early.then_some("--acknowledge-early"))
        .arg("--write-to")
        .arg(&directory)
        .output()
        .context("strace cannot be run; install it (Debian: strace)")?;
    ensure!(run.status.success(), "the writing process failed: {}", String::from_utf8_lossy(&run.stderr));
    read_log(&fs::read_to_string(&log)?, &directory)
}

/// Writes one change after another and prints each. Reopens the store now and then, so that checkpoints happen.
fn write(directory: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let open = if arguments.acknowledge_early { open_early } else { open };
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let mut registry = open(directory)?;
    for number in 0..arguments.writes {
        if number % REOPEN_EVERY == REOPEN_EVERY - 1 {
            registry.close()?;
            drop(registry);
            registry = open(directory)?;
        }
        let id = id(number)?;
        let spec =
            IdentitySpec { status_reason: Some(number.to_string()), ..IdentitySpec::sas_device(id.clone()) };
        let now = Timestamp::now();
        runtime.block_on(async {
            match registry.entry(&id) {
                None => registry.create(spec, now).await.map(drop),
                Some(_) if deletes(number) => registry.delete(&id, Precondition::AnyVersion).await.map(drop),
                Some(_) => registry.replace(spec, Precondition::AnyVersion, now).await.map(drop),
            }
        })?;
        println!("{ACKNOWLEDGED}");
    }
    registry.close()?;
    Ok(())
}

/// The contents of the store after so many writes: the status reason of each device.
fn model(writes: usize) -> anyhow::Result<BTreeMap<String, String>> {
    let mut devices = BTreeMap::new();
    for number in 0..writes {
        let id = id(number)?.to_string();
        if devices.contains_key(&id) && deletes(number) {
            devices.remove(&id);
        } else {
            devices.insert(id, number.to_string());
        }
    }
    Ok(devices)
}

/// Checks that the store is as after all acknowledged writes, or as after one more, which was in progress.
fn check(directory: &Path, acknowledged: usize) -> anyhow::Result<()> {
    let registry = open(directory)?;
    let reason = |id: &DeviceId| {
        let entry = registry.entry(&IdentityId::device(id.clone()))?;
        Some((id.to_string(), entry.identity().status_reason.clone()?))
    };
    let found: Option<BTreeMap<_, _>> = registry
        .page(None, DEVICES + 1)
        .devices
        .iter()
        .map(|entry| reason(&entry.identity().id.device))
        .collect();
    registry.close()?;
    let found = found.context("half: a device without its status reason")?;
    let (before, after) = (model(acknowledged)?, model(acknowledged + 1)?);
    if found != before && found != after {
        bail!("{acknowledged} were acknowledged: {before:?} should be there, {found:?} is");
    }
    Ok(())
}

fn open(directory: &Path) -> anyhow::Result<Arc<Registry>> {
    Ok(Registry::open(Box::new(SqliteBackend::open(directory)?), RegistryLimits::default())?)
}

fn open_early(directory: &Path) -> anyhow::Result<Arc<Registry>> {
    Ok(Registry::open(Box::new(EarlyBackend::open(directory)?), RegistryLimits::default())?)
}

fn id(number: usize) -> anyhow::Result<IdentityId> {
    Ok(IdentityId::device(DeviceId::parse(&format!("d{}", number * 7 % DEVICES))?))
}

fn deletes(number: usize) -> bool {
    number % 5 == 3
}

fn random(below: usize) -> usize {
    let number = u64::from_be_bytes(portcullis_registry::random_bytes());
    usize::try_from(number % below as u64).unwrap_or(0)
}

const DEVICES: usize = 40;
const REOPEN_EVERY: usize = 70;
const ACKNOWLEDGED: &str = "acknowledged";
