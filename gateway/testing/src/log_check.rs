//! Listens to the log of one test: a device can never cause a warning, so a warning nobody announced is a defect.

use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Collects warnings and errors of the test's own thread until it is checked.
pub(super) struct LogCheck {
    heard: Arc<Mutex<Vec<String>>>,
    announced: Vec<String>,
    _guard: DefaultGuard,
}

impl LogCheck {
    pub(super) fn start() -> Self {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let subscriber = tracing_subscriber::registry().with(Listener { heard: Arc::clone(&heard) });
        Self { heard, announced: Vec::new(), _guard: tracing::subscriber::set_default(subscriber) }
    }

    pub(super) fn announce(&mut self, text: &str) {
        self.announced.push(text.to_owned());
    }

    pub(super) fn heard(&self, text: &str) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.iter().any(|line| line.contains(text))
    }

    /// Fails the test on what was not announced.
    pub(super) fn check(self) {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let surprising = |line: &&String| !self.announced.iter().any(|text| line.contains(text.as_str()));
        let surprises: Vec<_> = heard.iter().filter(surprising).collect();
        assert!(surprises.is_empty(), "the hub warned of {surprises:?}");
    }
}

struct Listener {
    heard: Arc<Mutex<Vec<String>>>,
}

impl<S: Subscriber> Layer<S> for Listener {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let ours = event.metadata().target().starts_with("portcullis");
        if ours && *event.metadata().level() <= Level::WARN {
            let mut line = Line(String::new());
            event.record(&mut line);
            self.heard.lock().unwrap_or_else(PoisonError::into_inner).push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
