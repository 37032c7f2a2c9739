//! How every program here begins and ends.

use std::process::ExitCode;

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

use crate::limit::limit_if_asked;
use crate::served::serve_if_asked;

/// Becomes the hub or the limit when one of these programs started this process to be that; otherwise does its work,
/// and tells what went wrong.
pub fn program(work: impl FnOnce() -> anyhow::Result<()>) -> ExitCode {
    serve_if_asked().or_else(limit_if_asked).unwrap_or_else(|| ended(work()))
}

/// Works until it is done or somebody wants it to end: dropped, it ends every server it has started.
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

/// The exit code of what came to this end; an error is told.
pub(crate) fn ended(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
