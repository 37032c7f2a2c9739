//! `portcullis-simulator`: reads the command line, runs one fleet until it is done or Ctrl-C, prints the report.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use portcullis_simulator::cli::{Cli, Command, RunArgs, builtin_named};
use portcullis_simulator::live;
use portcullis_simulator::scenario::builtin;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Run(args) => run(*args).await,
        Command::Scenarios { name } => scenarios(name.as_deref()),
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Success if the run meets every expectation of the scenario.
async fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let fleet = args.fleet()?;
    let stop = CancellationToken::new();
    let ended = CancellationToken::new();
    let interrupt = tokio::spawn(stop_on_ctrl_c(stop.clone()));
    let shown = tokio::spawn(live::show(fleet.tally(), fleet.series(), ended.clone()));
    let outcome = fleet.run(stop).await;
    ended.cancel();
    shown.await.context("the live view failed")?;
    interrupt.abort();
    let report = outcome?;
    println!("{report}");
    if let Some(file) = args.report_json {
        let json = serde_json::to_string_pretty(&report).context("write the report as JSON")? + "\n";
        write(&file, &json)?;
    }
    if let Some(file) = args.report_html {
        write(&file, &report.to_html())?;
    }
    Ok(if report.is_as_expected() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn scenarios(name: Option<&str>) -> anyhow::Result<ExitCode> {
    match name {
        Some(name) => print!("{}", builtin_named(name)?.text),
        None => {
            for builtin in builtin::ALL {
                println!("{:<14}{}", builtin.name, builtin.scenario()?.description);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(file, text).with_context(|| format!("write {}", file.display()))
}

/// The first Ctrl-C ends the run in order. The second ends it at once.
async fn stop_on_ctrl_c(stop: CancellationToken) {
    if tokio::signal::ctrl_c().await.is_err() {
        return;
    }
    stop.cancel();
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(INTERRUPTED);
    }
}

/// The exit code of a program that SIGINT ended, as shells report it.
const INTERRUPTED: i32 = 130;
