//! The destination of the hub's log: standard error, as text for people or JSON for programs.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{FilterExt, LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::{Filter, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::exit::Failure;
use portcullis::config::{Config, LogFormat};

/// Starts the log of the whole process, as configured.
pub(super) fn start(config: &Config) -> Result<(), Failure> {
    let is_terminal = io::stderr().is_terminal();
    let json = match config.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let colour = is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // The hub runs on when its log cannot be written, and does not complain on the same closed stream (threats T914).
    let lines = fmt::layer().with_writer(io::stderr).log_internal_errors(false);
    let lines = if json { lines.json().boxed() } else { lines.with_ansi(colour).boxed() };
    let log = tracing_subscriber::registry().with(lines.with_filter(kept(config.log_filter.clone())));
    log.try_init().map_err(|error| Failure::error(format!("the log cannot be started: {error}")))
}

/// The levels that the operator chose, without what would reveal secrets: `tungstenite` traces whole frames, and one
/// of them holds the token of CONNECT (threats T712).
fn kept(asked: Targets) -> impl Filter<Registry> {
    let tells_no_frames = filter_fn(|event| !event.target().starts_with("tungstenite"));
    asked.and(tells_no_frames.with_max_level_hint(LevelFilter::TRACE))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Heard(Arc<Mutex<Vec<u8>>>);

    impl Write for Heard {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn t712_frames_are_never_told_whatever_is_asked_for() {
        let heard = Heard::default();
        let writer = heard.clone();
        let lines = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let asked: Targets = "trace,tungstenite=trace,tungstenite::protocol=trace".parse().unwrap();
        let log = tracing_subscriber::registry().with(lines.with_filter(kept(asked)));
        tracing::subscriber::with_default(log, || {
            tracing::trace!(target: "tungstenite::protocol::frame", "received frame");
            tracing::trace!(target: "portcullis::mqtt::wire", "PINGREQ");
        });
        let heard = String::from_utf8(heard.0.lock().unwrap().clone()).unwrap();
        assert!(heard.contains("PINGREQ") && !heard.contains("frame"), "{heard}");
    }
}
