//! Kills a hub under load again and again, and checks that it kept what it acknowledged (threats T901, P9). Other modes
//! stop it in order (T914), or run it on a disk that fails (T908).
//!
//! `cargo run --release -p portcullis-benches --bin crash -- --rounds 500`. With `--acknowledge-early` the hub's store
//! acknowledges before it commits, and this must end red.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Parser, ValueEnum};
use portcullis_benches::crash::{Slot, Write};
use portcullis_benches::program::program;
use portcullis_benches::served::{Rest, Served};
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

/// Kill a hub under load again and again, and check that it kept what it acknowledged
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 500)]
    rounds: u32,
    /// Writes a second, over all writers
    #[arg(long, default_value_t = 500)]
    rate: u32,
    #[arg(long, default_value_t = 16)]
    writers: u32,
    /// How each round ends
    #[arg(long, value_enum, default_value = "kill")]
    end: End,
    /// Acknowledge before the commit, as a faulty store does: to see that it is found
    #[arg(long, conflicts_with = "end")]
    acknowledge_early: bool,
    /// Where the hub keeps its data; a temporary directory unless given
    #[arg(long)]
    data_dir: Option<PathBuf>,
}

/// How the hub of a round ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum End {
    /// SIGKILL
    Kill,
    /// SIGTERM: the hub must stop in order, within 10 s
    Terminate,
    /// The disk fails: the hub must end by itself
    Disk,
}

fn main() -> ExitCode {
    program(|| run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir()?;
    let data_dir = arguments.data_dir.clone().unwrap_or_else(|| temporary.path().join("data"));
    let runtime = tokio::runtime::Runtime::new()?;
    let mut writers: Vec<Vec<Slot>> = (0..arguments.writers).map(slots_of).collect();
    let mut starts = Vec::new();
    let mut acknowledged = 0;
    let mut loaded = Duration::ZERO;
    for round in 1..=arguments.rounds {
        let served = match arguments.end {
            _ if arguments.acknowledge_early => Served::start_on_early_store(&data_dir)?,
            End::Kill | End::Terminate => Served::start(&data_dir)?,
            End::Disk => Served::start_on_failing_disk(&data_dir, failing_at(&data_dir)?)?,
        };
        starts.push(served.start_time);
        let rest = served.rest()?;
        let checked = runtime.block_on(check(&rest, &mut writers));
        checked.with_context(|| format!("after {round} starts, {acknowledged} writes acknowledged"))?;
        let time = Duration::from_millis(50 + random() % 400);
        let began = Instant::now();
        acknowledged += runtime.block_on(load(arguments, &rest, &mut writers, served, time))?;
        loaded += began.elapsed();
        if round % 50 == 0 {
            eprintln!("{round} rounds, {acknowledged} writes acknowledged, all there");
        }
    }
    let served = Served::start(&data_dir)?;
    runtime.block_on(check(&served.rest()?, &mut writers)).context("after the last round")?;
    starts.sort();
    let slowest = *starts.last().context("no round")?;
    println!(
        "{} rounds, {acknowledged} writes acknowledged ({:.0}/s): none lost, none half, none came back; \
         ready again after {:?} (median), {slowest:?} (slowest)",
        arguments.rounds,
        f64::from(acknowledged) / loaded.as_secs_f64(),
        starts[starts.len() / 2],
    );
    ensure!(slowest <= START_TIME_MAX, "a start took longer than {START_TIME_MAX:?}");
    Ok(())
}

/// A little more than the present size of the files, so that the next round reaches it soon.
fn failing_at(data_dir: &Path) -> anyhow::Result<u32> {
    let database = std::fs::metadata(data_dir.join("store/hub.db")).map_or(0, |metadata| metadata.len());
    Ok(u32::try_from(database / 1024)? + 600)
}

fn slots_of(writer: u32) -> Vec<Slot> {
    (0..SLOTS_PER_WRITER).map(|slot| Slot::new(format!("w{writer}-{slot}"))).collect()
}

/// Every writer writes until the hub is killed after `time`. Returns the number of acknowledged writes.
async fn load(
    arguments: &Arguments,
    rest: &Rest,
    writers: &mut Vec<Vec<Slot>>,
    served: Served,
    time: Duration,
) -> anyhow::Result<u32> {
    let period = Duration::from_secs(1) * arguments.writers / arguments.rate.max(1);
    let running: Vec<_> = writers
        .drain(..)
        .map(|slots| tokio::spawn(write_on(rest.clone(), slots, period, arguments.end)))
        .collect();
    match arguments.end {
        End::Kill => {
            tokio::time::sleep(time).await;
            served.kill()?;
        }
        End::Terminate => {
            tokio::time::sleep(time).await;
            let took = tokio::task::spawn_blocking(|| served.stop()).await??;
            ensure!(took <= STOP_TIME_MAX, "a stop took {took:?}");
        }
        End::Disk => tokio::task::spawn_blocking(|| served.give_up()).await??,
    }
    let mut acknowledged = 0;
    for writer in running {
        let (slots, count) = writer.await??;
        writers.push(slots);
        acknowledged += count;
    }
    Ok(acknowledged)
}

/// Writes until the hub no longer answers.
async fn write_on(
    rest: Rest,
    mut slots: Vec<Slot>,
    period: Duration,
    end: End,
) -> anyhow::Result<(Vec<Slot>, u32)> {
    let mut acknowledged = 0;
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        let place = usize::try_from(random())? % slots.len();
        let slot = &mut slots[place];
        let write = slot.choose(random(), &format!("{:016x}", random()));
        slot.begin(write.clone());
        let Ok(answer) = request(&rest, &slot.id, &write).send().await else { break };
        let status = answer.status();
        if status == StatusCode::SERVICE_UNAVAILABLE && end != End::Kill {
            // The hub promises nothing for a write with this answer.
            break;
        }
        // If the connection breaks before the body arrives, the write was not acknowledged.
        let Ok(body) = answer.bytes().await else { break };
        ensure!(status.is_success(), "{write:?} of {} was answered {status}", slot.id);
        slot.acknowledged(&serde_json::from_slice(&body).unwrap_or(Value::Null))?;
        acknowledged += 1;
    }
    Ok((slots, acknowledged))
}

fn request(rest: &Rest, id: &str, write: &Write) -> RequestBuilder {
    let path = format!("/devices/{id}");
    let body = |reason: &str| json!({"deviceId": id, "status": "enabled", "statusReason": reason});
    match write {
        Write::Create { reason } => rest.request(Method::PUT, &path).json(&body(reason)),
        Write::Replace { reason } => {
            rest.request(Method::PUT, &path).header("if-match", "*").json(&body(reason))
        }
        Write::Delete => rest.request(Method::DELETE, &path).header("if-match", "*"),
        Write::Send => rest.request(Method::POST, &format!("{path}/messages/deviceBound")).body("open valve"),
    }
}

/// Compares everything that the hub shows with what is known.
async fn check(rest: &Rest, writers: &mut [Vec<Slot>]) -> anyhow::Result<()> {
    let answer = rest.request(Method::GET, "/devices").query(&[("top", "1000")]).send().await?;
    let listed: Vec<Value> = answer.error_for_status()?.json().await?;
    let name = |device: &Value| device["deviceId"].as_str().unwrap_or_default().to_owned();
    let mut listed: HashMap<String, Value> =
        listed.into_iter().map(|device| (name(&device), device)).collect();
    for slot in writers.iter_mut().flatten() {
        slot.check(listed.remove(&slot.id).as_ref())?;
    }
    ensure!(listed.is_empty(), "nobody ever made {:?}", listed.keys());
    Ok(())
}

fn random() -> u64 {
    u64::from_be_bytes(portcullis_registry::random_bytes())
}

/// Together at most one page of a list.
const SLOTS_PER_WRITER: u32 = 12;
/// Threats T914.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// Threats P9, for up to 100,000 identities.
const START_TIME_MAX: Duration = Duration::from_secs(5);
