//! `portcullis-simulator`: reads the command line, runs one fleet until it is done or Ctrl-C, prints the report.

use std::fs;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use portcullis_simulator::cli::{Cli, Command, RunArgs};
use portcullis_simulator::fleet::Fleet;
use portcullis_simulator::progress;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Run(args) = Cli::parse().command;
    match run(args).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Success when every device connected at least once.
async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let scenario = args.scenario()?;
    let fleet = Fleet::new(args.access()?, scenario)?;
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let interrupt = tokio::spawn(stop_on_ctrl_c(stop.clone()));
    let shown = tokio::spawn(progress::show(fleet.tally(), ended.clone()));
    let outcome = fleet.run(stop).await;
    ended.cancel();
    shown.await.context("the progress display ended badly")?;
    interrupt.abort();
    let report = outcome?;
    println!("{report}");
    if let Some(file) = args.json {
        let json = serde_json::to_string_pretty(&report).context("write the report as JSON")? + "\n";
        fs::write(&file, json).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(if report.all_connected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The first Ctrl-C ends the run in order, the second at once.
async fn stop_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

/// What shells report for a program that SIGINT ended.
const INTERRUPTED: i32 = 130;
