//! The same load on the hub and on other brokers, in one run and in turns. Each server has its own process.
//!
//! `cargo run --release -p portcullis-benches --bin side_by_side`; `--quick` for a small one. Medians over the rounds
//! and ratios to the hub's go to standard output and, with every figure, to `target/bench/side_by_side.md` and `.json`.
//! Servers that are not on `PATH` are installed by package name on first use. The table names those that are missing.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Parser;
use portcullis_benches::comparison::{Column, table, to_json};
use portcullis_benches::load::{Size, measure};
use portcullis_benches::peers::{Certificate, Peer};
use portcullis_benches::process::load_average;
use portcullis_benches::program::{program, until_interrupted};
use serde_json::json;
use tokio::time::timeout;

/// Measure the hub beside other servers
#[derive(Parser)]
struct Arguments {
    /// A small run: 100 connections, one round
    #[arg(long)]
    quick: bool,
    /// Rounds; each measures every server once
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Devices that connect and stay
    #[arg(long, default_value_t = 4_000)]
    connections: usize,
    /// Messages up in a round
    #[arg(long, default_value_t = 40_000)]
    telemetry: usize,
    /// Messages down in a round
    #[arg(long, default_value_t = 10_000)]
    unicast: usize,
    /// Only servers whose names begin with this
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// A note for the readers of the table
    #[arg(long, default_value = "")]
    note: String,
    /// The directory for table and figures
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))]
    output: PathBuf,
}

fn main() -> ExitCode {
    program(|| until_interrupted(run(Arguments::parse())))
}

async fn run(mut arguments: Arguments) -> Result<()> {
    let (mut paced, mut settle_time) = (Duration::from_secs(5), Duration::from_millis(500));
    if arguments.quick {
        arguments = Arguments { rounds: 1, connections: 100, telemetry: 1_000, unicast: 500, ..arguments };
        (paced, settle_time) = (Duration::from_millis(200), Duration::from_millis(50));
    }
    let Arguments { connections, telemetry, unicast, .. } = arguments;
    let size = Size { connections, telemetry, unicast, paced, settle_time };
    let is_wanted = |name: &str| {
        let begins = |own: &String| name.to_lowercase().starts_with(&own.to_lowercase());
        arguments.only.is_empty() || arguments.only.iter().any(begins)
    };
    let (peers, missing) = Peer::all(is_wanted);
    for (name, reason) in &missing {
        eprintln!("without {name}: {reason}");
    }
    let mut columns: Vec<Column> =
        peers.iter().map(|peer| Column { name: peer.name(), rounds: Vec::new() }).collect();
    let directory = tempfile::tempdir()?;
    let certificate = Certificate::create(directory.path())?;
    let load_before = load_average()?;
    for round in 1..=arguments.rounds {
        // The order changes each round, so that no server always follows the busiest one.
        for turn in 0..peers.len() {
            let place = (turn + round) % peers.len();
            eprintln!("round {round} of {}: {}", arguments.rounds, columns[place].name);
            let figures = timeout(TURN_TIME_MAX, turn_of(&peers[place], size, &certificate)).await;
            match figures.unwrap_or_else(|_| bail!("not done within {TURN_TIME_MAX:?}")) {
                Ok(figures) => columns[place].rounds.push(figures),
                // The figures of the other servers are still useful.
                Err(error) => eprintln!("{}: {error:#}", columns[place].name),
            }
        }
    }
    let said = notes(&arguments, &missing, &columns, [load_before, load_average()?]);
    let text = format!("{}\n{said}", table(&columns));
    println!("{text}");
    let to = &arguments.output;
    fs::create_dir_all(to)?;
    fs::write(to.join("side_by_side.md"), text).context("write the table")?;
    let missing: Vec<_> = missing.iter().map(|(name, why)| json!({ "name": name, "reason": why })).collect();
    let all = json!({ "size": format!("{size:?}"), "note": arguments.note, "servers": to_json(&columns), "missing": missing });
    fs::write(to.join("side_by_side.json"), serde_json::to_vec_pretty(&all)?).context("write the figures")?;
    anyhow::ensure!(
        columns.iter().all(|column| column.rounds.len() == arguments.rounds),
        "some rounds failed"
    );
    Ok(())
}

/// Measures one server from its start to its end.
async fn turn_of(
    peer: &Peer,
    size: Size,
    certificate: &Certificate,
) -> Result<portcullis_benches::comparison::Figures> {
    let directory = tempfile::tempdir()?;
    let running = peer.start(size.connections, certificate, directory.path()).await?;
    measure(peer, &running, size).await.with_context(|| running.last_words())
}

/// Notes that explain the figures.
fn notes(arguments: &Arguments, missing: &[(&str, String)], columns: &[Column], load: [String; 2]) -> String {
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let mut text = format!(
        "Medians of {} rounds in turns; in brackets the ratio to the first column. {processors} processors shared by \
        server and clients, load average {} before and {} after. {}\n\n",
        arguments.rounds, load[0], load[1], arguments.note
    );
    for (name, reason) in missing {
        text.push_str(&format!("- Missing: {name}: {reason}\n"));
    }
    for column in columns.iter().filter(|column| column.rounds.len() < arguments.rounds) {
        let (done, all) = (column.rounds.len(), arguments.rounds);
        text.push_str(&format!("- {}: {done} of {all} rounds were measured to their end.\n", column.name));
    }
    text.push_str(NOTES);
    text
}

const NOTES: &str = "\
- CPU is the server process's, as the kernel counts it; rates and latencies are of server and clients together.
- All: TLS 1.3, AES-256-GCM, X25519, a P-256 certificate, full handshakes, MQTT 3.1.1, bodies of 100 bytes, QoS 1, logs \
at warnings. Portcullis and bare rustls ask for a client certificate besides; none is shown.
- bare rustls is no broker: it asks nobody who they are, keeps nothing and delivers nothing. It is the limit of the \
first rows, and of telemetry without its subscriber.
- Portcullis checks a SAS token against a key of the device in its registry; mosquitto a salted hash (PBKDF2, 101 rounds \
unless told otherwise), rumqttd and NATS a password kept as text.
- Portcullis stores each message down on disk, synced, before it acknowledges it, and its completion again; it allows a \
device its own topics only, and stamps telemetry with its proven sender. NATS stores both directions in files that are \
synced now and then. mosquitto and rumqttd hold them in memory, and lose them when they end.
- One publisher to 1,000 devices: a publication each; to Portcullis a command with 100 messages, since one connection may \
give 200 commands a second. One message at a time: a command each. A REST call is what service SDKs make.
- Telemetry never delivered: a subscriber that reads too slowly loses some with Portcullis, and is told how many; \
mosquitto was told to hold any number, in memory.
";
/// The longest time of one server in one round.
const TURN_TIME_MAX: Duration = Duration::from_secs(300);
