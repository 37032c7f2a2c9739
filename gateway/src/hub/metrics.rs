//! Every metric of the hub, declared once, with its help text. Names are a public contract; ids are never labels.
//!
//! To add a metric: add a line to the declaration. A family by a closed set of labels has them all from the start, at 0,
//! so that an alert on a rate works before the first of them happens.

use std::hash::Hash;

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
use crate::hub::outcome::{ConnectionOutcome, Stage};

mod queues;

pub use queues::QueueCollector;

/// Declares metrics: of each the field, its type, the name that is shown with the prefix `portcullis_`, and the help.
macro_rules! metrics {
    ($($visibility:vis $field:ident: $kind:ty = $name:literal, $help:literal;)*) => {
        /// The hub's metrics.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $(#[doc = $help] $visibility $field: $kind,)*
        }

        impl Metrics {
            /// All of them, at 0.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix("portcullis");
                let version = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
                registry.register("build", "The running version", version);
                $(
                    let $field = <$kind>::at_start();
                    registry.register($name, $help, $field.clone());
                )*
                Self { registry, $($field,)* }
            }
        }
    };
}

metrics! {
    certificate_expiry: Family<Listener, Gauge> =
        "cert_expiry_timestamp_seconds", "When the server certificate ends, in seconds since 1970";
    certificate_reloads: Family<Reload, Counter> =
        "cert_reloads", "Server certificates read anew, by outcome";
    pub connections: Gauge = "connections", "MQTT sessions now open";
    pub portal_sessions: Gauge = "portal_sessions", "People signed in to the portal";
    attempts: Family<AttemptLabels, Counter> = "connection_attempts", "CONNECTs by outcome";
    pub turned_away: Counter =
        "connections_turned_away",
        "Connections closed on accept because too many anonymous ones were open";
    early_ends: Family<EarlyEnd, Counter> =
        "connections_ended_early", "Connections that ended before they had a session, by reason";
    disconnects: Family<Disconnect, Counter> = "disconnects", "Sessions ended, by reason";
    pub acks_ignored: Counter =
        "acks_ignored", "Acknowledgements of nothing that was sent to their sender";
    pub publishes_dropped: Counter =
        "publishes_dropped",
        "Events and answers that were not sent because their topic would be longer than MQTT allows";
    pub takeovers: Counter =
        "takeovers", "Sessions that ended because their identity connected again";
    pub flapping: Counter =
        "flapping", "Takeovers of identities that several clients keep taking from each other";
    throttled: Family<Scoped, Counter> =
        "throttled", "What was slowed or turned away for coming too often, by what the limit is for";
    pub tls_handshake_duration: Histogram =
        "tls_handshake_duration_seconds", "From accept to an established TLS session";
    pub auth_duration: Histogram =
        "auth_duration_seconds", "From a whole CONNECT to the verdict";
    messages_received: Counter = "messages_received", "Telemetry messages taken";
    message_bytes_received: Counter =
        "message_bytes_received", "Payload bytes of the telemetry taken";
    pub c2d_enqueued: Counter = "c2d_enqueued", "Cloud-to-device messages accepted";
    pub c2d_delivered: Counter =
        "c2d_delivered", "Cloud-to-device messages handed to a connection, repeats included";
    pub c2d_redelivered: Counter =
        "c2d_redelivered", "Of these, repeats of a message that was handed over before";
    pub c2d_abandoned: Counter = "c2d_abandoned", "Cloud-to-device messages a device gave back";
    pub c2d_undeliverable: Counter =
        "c2d_undeliverable",
        "Cloud-to-device messages rejected because their properties do not fit into an MQTT topic";
    pub c2d_delivery_duration: Histogram =
        "c2d_delivery_duration_seconds",
        "From the acceptance of a cloud-to-device message to its first hand-over to a connection";
    jobs: Family<JobLabels, Gauge> =
        "jobs", "Jobs of this run of the hub, by what they do and how far they are";
    job_items: Family<JobItem, Counter> =
        "job_items", "Lines that jobs have read or written, by what became of them";
    pub requests_refused: Counter =
        "requests_refused", "REST requests without valid credentials or rights";
}

/// How a metric is before anything was counted.
trait AtStart {
    fn at_start() -> Self;
}

impl AtStart for Counter {
    fn at_start() -> Self {
        Self::default()
    }
}

impl AtStart for Gauge {
    fn at_start() -> Self {
        Self::default()
    }
}

impl AtStart for Histogram {
    /// In seconds, from ten microseconds to three.
    fn at_start() -> Self {
        Self::new(exponential_buckets(0.000_01, 4.0, 10))
    }
}

impl<L: LabelSet, M: Default> AtStart for Family<L, M> {
    fn at_start() -> Self {
        let family = Self::default();
        L::at_start().iter().for_each(|labels| drop(family.get_or_create(labels)));
        family
    }
}

/// The labels of a family.
trait LabelSet: Clone + Eq + Hash {
    /// Those that are there before anything was counted.
    fn at_start() -> Vec<Self>;
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    outcome: &'static str,
}

impl LabelSet for AttemptLabels {
    fn at_start() -> Vec<Self> {
        ConnectionOutcome::at(Stage::Connect).map(Self::new).collect()
    }
}

impl AttemptLabels {
    fn new(outcome: ConnectionOutcome) -> Self {
        Self { outcome: outcome.label() }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EarlyEnd {
    reason: &'static str,
}

impl LabelSet for EarlyEnd {
    fn at_start() -> Vec<Self> {
        ConnectionOutcome::at(Stage::Early).map(Self::new).collect()
    }
}

impl EarlyEnd {
    fn new(outcome: ConnectionOutcome) -> Self {
        Self { reason: outcome.label() }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Disconnect {
    reason: &'static str,
}

impl LabelSet for Disconnect {
    fn at_start() -> Vec<Self> {
        ConnectionOutcome::at(Stage::Session).map(Self::new).collect()
    }
}

impl Disconnect {
    fn new(outcome: ConnectionOutcome) -> Self {
        Self { reason: outcome.label() }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reload {
    outcome: &'static str,
}

impl LabelSet for Reload {
    fn at_start() -> Vec<Self> {
        [true, false].map(Self::new).into()
    }
}

impl Reload {
    fn new(is_good: bool) -> Self {
        Self { outcome: if is_good { "succeeded" } else { "failed" } }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Listener {
    listener: &'static str,
}

impl LabelSet for Listener {
    /// None: a certificate that ended in 1970 would be an alarm.
    fn at_start() -> Vec<Self> {
        Vec::new()
    }
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

impl LabelSet for Scoped {
    fn at_start() -> Vec<Self> {
        Scope::ALL.map(Scope::labels).into()
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobLabels {
    r#type: &'static str,
    state: &'static str,
}

impl LabelSet for JobLabels {
    fn at_start() -> Vec<Self> {
        let kinds = [JobKind::Import, JobKind::Export, JobKind::Rollback];
        let states = [
            JobState::Enqueued,
            JobState::Running,
            JobState::Completed,
            JobState::Failed,
            JobState::Cancelled,
        ];
        kinds.into_iter().flat_map(|kind| states.map(|state| Self::new(kind, state))).collect()
    }
}

impl JobLabels {
    fn new(kind: JobKind, state: JobState) -> Self {
        Self { r#type: kind.as_str(), state: state.as_str() }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct JobItem {
    r#type: &'static str,
    result: &'static str,
}

impl LabelSet for JobItem {
    /// None: the results are the jobs' own words.
    fn at_start() -> Vec<Self> {
        Vec::new()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
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
    pub fn certificate_reloaded(&self, is_good: bool) {
        self.certificate_reloads.get_or_create(&Reload::new(is_good)).inc();
    }

    /// Counts a CONNECT by its outcome.
    pub fn connection_attempt(&self, outcome: ConnectionOutcome) {
        self.attempts.get_or_create(&AttemptLabels::new(outcome)).inc();
    }

    /// Counts a connection that never had a session.
    pub fn ended_before_session(&self, reason: ConnectionOutcome) {
        self.early_ends.get_or_create(&EarlyEnd::new(reason)).inc();
    }

    /// Counts the end of a session.
    pub fn disconnected(&self, reason: ConnectionOutcome) {
        self.disconnects.get_or_create(&Disconnect::new(reason)).inc();
    }

    /// Counts what was slowed or turned away for coming too often.
    pub fn throttled(&self, scope: Scope) {
        self.throttled.get_or_create(&scope.labels()).inc();
    }

    /// How often that has been.
    pub fn throttles(&self, scope: Scope) -> u64 {
        self.throttled.get_or_create(&scope.labels()).get()
    }

    /// Counts a job in the state it has come to, and no longer in the one it had.
    pub fn job_moved(&self, kind: JobKind, from: Option<JobState>, to: JobState) {
        if let Some(from) = from {
            self.jobs.get_or_create(&JobLabels::new(kind, from)).dec();
        }
        self.jobs.get_or_create(&JobLabels::new(kind, to)).inc();
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
    pub fn attempts(&self, outcome: ConnectionOutcome) -> u64 {
        self.attempts.get_or_create(&AttemptLabels::new(outcome)).get()
    }

    /// How many CONNECTs had which outcome; those that none had are left out.
    pub fn attempts_by_outcome(&self) -> Vec<(ConnectionOutcome, u64)> {
        let counted = ConnectionOutcome::at(Stage::Connect).map(|outcome| (outcome, self.attempts(outcome)));
        counted.filter(|(_, count)| *count > 0).collect()
    }

    /// How many telemetry messages were taken.
    pub fn messages_received(&self) -> u64 {
        self.messages_received.get()
    }

    /// How many connections ended before they had a session, for this reason.
    pub fn early_ends(&self, reason: ConnectionOutcome) -> u64 {
        self.early_ends.get_or_create(&EarlyEnd::new(reason)).get()
    }

    /// How many sessions ended for this reason.
    pub fn disconnects(&self, reason: ConnectionOutcome) -> u64 {
        self.disconnects.get_or_create(&Disconnect::new(reason)).get()
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
    const ALL: [Self; 5] = [Self::Address, Self::Identity, Self::Takeover, Self::Messages, Self::Connections];

    fn labels(self) -> Scoped {
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
