//! Listens to the log of every thread: a device can never cause a warning, so a warning nobody announced is a defect.
//!
//! One collector serves the whole process, in which many tests run at once. A line belongs to the test in whose runtime
//! it is logged: on the test's own thread, on a worker, in `spawn_blocking`. A thread that is in no runtime, such as the
//! store's, logs inside the span that `portcullis_registry::thread::start` gave it, and the span belongs to a test in
//! the same way. A line that belongs to no test with a hub counts against each that has one, so none goes unheard.
//!
//! Hubs of one test share its lines and what it announced.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use tokio::runtime::{Handle, Id as RuntimeId};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// Hears the warnings and errors of one test, from the start of a hub until it is checked.
#[derive(Debug)]
pub(super) struct LogCheck {
    runtime: RuntimeId,
    /// How many lines of nobody there were before.
    strays_before: usize,
    checked: bool,
}

impl LogCheck {
    /// Listens for the test whose runtime this is called in.
    pub(super) fn start() -> Self {
        install();
        let runtime = Handle::current().id();
        let mut collected = collected();
        collected.tests.entry(runtime).or_default();
        Self { runtime, strays_before: collected.strays.len(), checked: false }
    }

    pub(super) fn announce(&self, text: &str) {
        collected().tests.entry(self.runtime).or_default().announced.push(text.to_owned());
    }

    pub(super) fn heard(&self, text: &str) -> bool {
        let collected = collected();
        let own = collected.tests.get(&self.runtime).map_or(&[][..], |test| &test.lines);
        own.iter().chain(&collected.strays[self.strays_before..]).any(|line| line.contains(text))
    }

    /// Fails the test on what was not announced.
    pub(super) fn check(mut self) {
        self.checked = true;
        let mut collected = collected();
        let strays = collected.strays[self.strays_before..].to_vec();
        let test = collected.tests.entry(self.runtime).or_default();
        let lines = std::mem::take(&mut test.lines).into_iter().chain(strays);
        let surprising = |line: &String| !test.announced.iter().any(|text| line.contains(text.as_str()));
        let surprises: Vec<_> = lines.filter(surprising).collect();
        drop(collected);
        assert!(surprises.is_empty(), "the hub warned of {surprises:?}");
    }
}

impl Drop for LogCheck {
    fn drop(&mut self) {
        let is_forgotten = !self.checked && !std::thread::panicking();
        assert!(!is_forgotten, "a hub was dropped and not stopped, so that its log was not checked");
    }
}

/// Everything the process logs from now on, at every level and of every crate, a line each. There can be one.
#[derive(Debug)]
pub struct FullLog(());

impl FullLog {
    /// Begins to listen.
    ///
    /// # Panics
    /// When somebody in this process does already.
    pub fn start() -> Self {
        install();
        EVERYTHING.set(Mutex::default()).expect("one full log a process");
        tracing::callsite::rebuild_interest_cache();
        Self(())
    }

    /// What was logged so far.
    pub fn text(&self) -> String {
        EVERYTHING.get().map(|text| lock(text).clone()).unwrap_or_default()
    }
}

/// Warnings and errors of this process.
#[derive(Default)]
struct Collected {
    tests: HashMap<RuntimeId, TestLog>,
    /// Lines that belong to no test that has or had a hub.
    strays: Vec<String>,
}

#[derive(Default)]
struct TestLog {
    lines: Vec<String>,
    announced: Vec<String>,
}

static COLLECTED: OnceLock<Mutex<Collected>> = OnceLock::new();
static EVERYTHING: OnceLock<Mutex<String>> = OnceLock::new();

fn collected() -> MutexGuard<'static, Collected> {
    lock(COLLECTED.get_or_init(Mutex::default))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let own = Collector.with_filter(filter_fn(|metadata| metadata.target().starts_with("portcullis")));
        let everything = Recorder.with_filter(filter_fn(|_| EVERYTHING.get().is_some()));
        let subscriber = tracing_subscriber::registry().with(own).with(everything);
        tracing::subscriber::set_global_default(subscriber).expect("no other log in this process");
    });
}

/// Puts each warning and error where it belongs.
struct Collector;

/// Whose test a span is, when it was made in a runtime or inside such a span.
struct Owner(RuntimeId);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Collector {
    fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let inherited = || span.parent().and_then(|parent| parent.extensions().get().map(|Owner(of)| *of));
        if let Some(owner) = runtime().or_else(inherited) {
            span.extensions_mut().insert(Owner(owner));
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let of_span = || {
            let mut spans = context.event_scope(event)?;
            spans.find_map(|span| span.extensions().get().map(|Owner(of)| *of))
        };
        let owner = runtime().or_else(of_span);
        let mut line = Line(String::new());
        event.record(&mut line);
        let mut collected = collected();
        match owner.and_then(|owner| collected.tests.get_mut(&owner)) {
            Some(test) => test.lines.push(line.0),
            None => collected.strays.push(line.0),
        }
    }
}

/// The runtime this thread works for.
fn runtime() -> Option<RuntimeId> {
    Handle::try_current().ok().map(|handle| handle.id())
}

/// Writes down whatever comes, for [`FullLog`].
struct Recorder;

impl<S: Subscriber> Layer<S> for Recorder {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        if let Some(text) = EVERYTHING.get() {
            *lock(text) += &format!("{}\n", line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let _ = write!(self.0, "{}={value:?} ", field.name());
    }
}
