//! The start and end of every program here.

use std::process::ExitCode;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use crate::limit::limit_if_asked;
use crate::served::serve_if_asked;

/// Runs the hub or the limit if one of these programs started this process for that. Otherwise runs the program and
/// prints its error.
pub fn program(work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    serve_if_asked().or_else(limit_if_asked).unwrap_or_else(|| ended(work()))
}

/// Runs until it is done or interrupted. Dropping it ends every server that it has started.
pub fn until_interrupted(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut interrupted = signal(SignalKind::interrupt())?;
        let mut terminated = signal(SignalKind::terminate())?;
        tokio::select! {
            outcome = work => outcome,
            _ = interrupted.recv() => bail!("interrupted"),
            _ = terminated.recv() => bail!("terminated"),
        }
    })
}

/// Prints an error and returns the exit code.
pub(crate) fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
