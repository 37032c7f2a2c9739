//! Every metric of the hub, declared once, with its help text. Names are a public contract; ids are never labels.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use portcullis_registry::message::C2dMessage;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::hub::job_store::record::{JobKind, JobState};

mod queues;

pub use queues::QueueCollector;

/// The hub's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub connections: Gauge,
    pub turned_away: Counter,
    pub takeovers: Counter,
    pub flapping: Counter,
    pub tls_handshake_duration: Histogram,
    pub auth_duration: Histogram,
    pub c2d_enqueued: Counter,
    pub c2d_delivered: Counter,
    pub c2d_redelivered: Counter,
    pub c2d_abandoned: Counter,
    pub c2d_delivery_duration: Histogram,
    pub requests_refused: Counter,
    pub portal_sessions: Gauge,
    certificate_expiry: Family<Listener, Gauge>,
    certificate_reloads: Family<OutcomeLabel, Counter>,
    attempts: Family<OutcomeLabel, Counter>,
    /// The outcomes that CONNECTs have had, for a family does not tell its labels.
    outcomes: Mutex<BTreeSet<&'static str>>,
    early_ends: Family<Reason, Counter>,
    disconnects: Family<Reason, Counter>,
    throttled: Family<Scoped, Counter>,
    jobs: Family<JobLabels, Gauge>,
    job_items: Family<JobItem, Counter>,
    messages_received: Counter,
    message_bytes_received: Counter,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What was slowed or turned away for coming too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Connections and calls from an address with too many failed logins.
    Address,
    /// Failed logins of an identity that has too many of them.
    Identity,
    /// Connections that waited because their identity's had just been taken over.
    Takeover,
    /// Messages of a device that sends faster than it may.
    Messages,
    /// Connections beyond what the hub takes in all.
    Connections,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Scoped {
    scope: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    r#type: &'static str,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobItem {
    r#type: &'static str,
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    pub fn new() -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.000_01, 4.0, 10));
        let mut metrics = Self {
            registry: Registry::with_prefix("portcullis"),
            connections: Gauge::default(),
            turned_away: Counter::default(),
            takeovers: Counter::default(),
            flapping: Counter::default(),
            tls_handshake_duration: seconds(),
            auth_duration: seconds(),
            c2d_enqueued: Counter::default(),
            c2d_delivered: Counter::default(),
            c2d_redelivered: Counter::default(),
            c2d_abandoned: Counter::default(),
            c2d_delivery_duration: seconds(),
            requests_refused: Counter::default(),
            portal_sessions: Gauge::default(),
            certificate_expiry: Family::default(),
            certificate_reloads: Family::default(),
            attempts: Family::default(),
            outcomes: Mutex::default(),
            early_ends: Family::default(),
            disconnects: Family::default(),
            throttled: Family::default(),
            jobs: Family::default(),
            job_items: Family::default(),
            messages_received: Counter::default(),
            message_bytes_received: Counter::default(),
        };
        metrics.declare();
        metrics
    }

    fn declare(&mut self) {
        let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        let to = &mut self.registry;
        to.register("build", "The running version", version);
        to.register(
            "cert_expiry_timestamp_seconds",
            "When the server certificate ends, in seconds since 1970",
            self.certificate_expiry.clone(),
        );
        to.register(
            "cert_reloads",
            "Server certificates read anew, by outcome",
            self.certificate_reloads.clone(),
        );
        to.register("connections", "MQTT sessions now open", self.connections.clone());
        to.register("portal_sessions", "People signed in to the portal", self.portal_sessions.clone());
        to.register("connection_attempts", "CONNECTs by outcome", self.attempts.clone());
        to.register(
            "connections_turned_away",
            "Connections closed on accept because too many anonymous ones stood at the door",
            self.turned_away.clone(),
        );
        to.register(
            "connections_ended_early",
            "Connections that ended before they had a session, by reason",
            self.early_ends.clone(),
        );
        to.register("disconnects", "Sessions ended, by reason", self.disconnects.clone());
        to.register(
            "takeovers",
            "Sessions that ended because their identity connected again",
            self.takeovers.clone(),
        );
        to.register(
            "flapping",
            "Takeovers of identities that several clients keep taking from each other",
            self.flapping.clone(),
        );
        to.register(
            "throttled",
            "What was slowed or turned away for coming too often, by what the limit is for",
            self.throttled.clone(),
        );
        to.register(
            "tls_handshake_duration_seconds",
            "From accept to an established TLS session",
            self.tls_handshake_duration.clone(),
        );
        to.register(
            "auth_duration_seconds",
            "From a whole CONNECT to the verdict",
            self.auth_duration.clone(),
        );
        to.register("messages_received", "Telemetry messages taken", self.messages_received.clone());
        to.register(
            "message_bytes_received",
            "Payload bytes of the telemetry taken",
            self.message_bytes_received.clone(),
        );
        to.register("c2d_enqueued", "Cloud-to-device messages accepted", self.c2d_enqueued.clone());
        to.register(
            "c2d_delivered",
            "Cloud-to-device messages handed to a connection, repeats included",
            self.c2d_delivered.clone(),
        );
        to.register(
            "c2d_redelivered",
            "Of these, repeats of a message that was handed over before",
            self.c2d_redelivered.clone(),
        );
        to.register(
            "c2d_abandoned",
            "Cloud-to-device messages a device gave back",
            self.c2d_abandoned.clone(),
        );
        to.register(
            "c2d_delivery_duration_seconds",
            "From the acceptance of a cloud-to-device message to its first hand-over to a connection",
            self.c2d_delivery_duration.clone(),
        );
        to.register(
            "jobs",
            "Jobs of this run of the hub, by what they do and how far they are",
            self.jobs.clone(),
        );
        to.register(
            "job_items",
            "Lines that jobs have read or written, by what became of them",
            self.job_items.clone(),
        );
        to.register(
            "requests_refused",
            "REST requests without valid credentials or rights",
            self.requests_refused.clone(),
        );
    }

    /// Adds what is counted elsewhere and read when it is asked for.
    pub fn add_collector(&mut self, collector: Box<dyn Collector>) {
        self.registry.register_collector(collector);
    }

    /// Counts the hand-over of a message to a device's connection.
    pub fn c2d_handed_over(&self, message: &C2dMessage, is_repeat: bool, now: Timestamp) {
        self.c2d_delivered.inc();
        if is_repeat {
            self.c2d_redelivered.inc();
        } else {
            let waited = now.duration_since(message.enqueued).as_secs_f64();
            self.c2d_delivery_duration.observe(waited.max(0.0));
        }
    }

    /// Tells when the server certificate ends, in seconds since 1970.
    pub fn set_certificate_expiry(&self, end: i64) {
        for listener in ["mqtt", "https"] {
            self.certificate_expiry.get_or_create(&Listener { listener }).set(end);
        }
    }

    /// Counts a server certificate that was read anew, or could not be.
    pub fn certificate_reloaded(&self, good: bool) {
        let outcome = if good { "succeeded" } else { "failed" };
        self.certificate_reloads.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Counts a CONNECT by its outcome.
    pub fn connection_attempt(&self, outcome: &'static str) {
        let label = OutcomeLabel { outcome };
        if let Some(attempts) = self.attempts.get(&label) {
            attempts.inc();
            return;
        }
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(outcome);
        self.attempts.get_or_create(&label).inc();
    }

    /// Counts a connection that never had a session.
    pub fn ended_before_session(&self, reason: &'static str) {
        self.early_ends.get_or_create(&Reason { reason }).inc();
    }

    /// Counts the end of a session.
    pub fn disconnected(&self, reason: &'static str) {
        self.disconnects.get_or_create(&Reason { reason }).inc();
    }

    /// Counts what was slowed or turned away for coming too often.
    pub fn throttled(&self, scope: Scope) {
        self.throttled.get_or_create(&scope.label()).inc();
    }

    /// How often that has been.
    pub fn throttles(&self, scope: Scope) -> u64 {
        self.throttled.get_or_create(&scope.label()).get()
    }

    /// Counts a job in the state it has come to, and no longer in the one it had.
    pub fn job_moved(&self, kind: JobKind, from: Option<JobState>, to: JobState) {
        let gauge = |state: JobState| {
            self.jobs.get_or_create(&JobLabels { r#type: kind.as_str(), state: state.as_str() }).clone()
        };
        from.map(|from| gauge(from).dec());
        gauge(to).inc();
    }

    /// Counts lines of a job by what became of them.
    pub fn job_items(&self, kind: JobKind, result: &'static str, count: u64) {
        if count > 0 {
            self.job_items.get_or_create(&JobItem { r#type: kind.as_str(), result }).inc_by(count);
        }
    }

    /// Counts one telemetry message.
    pub fn received(&self, payload_bytes: usize) {
        self.messages_received.inc();
        self.message_bytes_received.inc_by(payload_bytes as u64);
    }

    /// How many CONNECTs had this outcome.
    pub fn attempts(&self, outcome: &'static str) -> u64 {
        self.attempts.get_or_create(&OutcomeLabel { outcome }).get()
    }

    /// How many CONNECTs had which outcome.
    pub fn attempts_by_outcome(&self) -> Vec<(&'static str, u64)> {
        let outcomes = self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        outcomes.into_iter().map(|outcome| (outcome, self.attempts(outcome))).collect()
    }

    /// How many telemetry messages were taken.
    pub fn messages_received(&self) -> u64 {
        self.messages_received.get()
    }

    /// How many sessions ended for this reason.
    pub fn disconnects(&self, reason: &'static str) -> u64 {
        self.disconnects.get_or_create(&Reason { reason }).get()
    }

    /// All of it in the OpenMetrics text format.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

impl Scope {
    fn label(self) -> Scoped {
        let scope = match self {
            Scope::Address => "address",
            Scope::Identity => "identity",
            Scope::Takeover => "takeover",
            Scope::Messages => "messages",
            Scope::Connections => "connections",
        };
        Scoped { scope }
    }
}
