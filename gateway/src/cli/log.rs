//! Where the hub's log goes: standard error, as text for eyes or JSON for programs.

use std::io::{self, IsTerminal};

use tracing_subscriber::Layer;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::exit::Failure;
use crate::config::{Config, LogFormat};

/// Starts logging for the whole process as configured.
pub(super) fn start(config: &Config) -> Result<(), Failure> {
    let is_terminal = io::stderr().is_terminal();
    let json = match config.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A log that cannot be written is no reason to stop, nor to complain on the same closed stream (threats T914).
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(colour).boxed() };
    let log = tracing_subscriber::registry().with(lines.with_filter(config.log_filter.clone()));
    log.try_init().map_err(|error| Failure::error(format!("the log: {error}")))
}
