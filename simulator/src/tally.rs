//! The counters of a run. All devices write into one tally; live view, series and report read it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use tokio::time::Instant;

/// The counters of one run.
#[derive(Debug, Default)]
pub struct Tally {
    counts: [AtomicU64; COUNTERS],
    reasons: Mutex<BTreeMap<String, u64>>,
    hostile: Mutex<BTreeMap<(&'static str, Outcome), u64>>,
    /// What this hub does not support, each noted once.
    notes: Mutex<BTreeSet<String>>,
    timings: [Mutex<Timed>; TIMINGS],
    /// Accepted cloud-to-device messages by number, and when they were due.
    waiting: Mutex<HashMap<u64, Instant>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Identities that are in the registry and ready to connect.
    Provisioned,
    /// Connected now.
    Connected,
    /// Connections made.
    Connects,
    /// Identities that connected at least once.
    EverConnected,
    /// Attempts to connect that failed.
    ConnectFailures,
    /// Connections that the hub or the network ended.
    Dropped,
    /// Connections that the scenario broke.
    Cut,
    /// Telemetry messages passed to the connection, each counted once.
    Sent,
    /// Telemetry messages sent again after a lost connection.
    Resent,
    /// Telemetry messages the hub acknowledged.
    Acknowledged,
    /// Telemetry messages due while there was no connection.
    Offline,
    /// Telemetry messages due but not sent, because the hub was slower than the pace.
    Withheld,
    /// Cloud-to-device messages the hub accepted.
    C2dSent,
    /// Cloud-to-device messages the hub refused.
    C2dRefused,
    /// Cloud-to-device messages the hub refused because the device's queue was full.
    C2dFull,
    /// Cloud-to-device messages due but not sent, because the hub was slower than the pace.
    C2dWithheld,
    /// Cloud-to-device messages that arrived, each counted once.
    C2dReceived,
    /// Cloud-to-device messages that arrived again.
    C2dRepeated,
    /// Failures that the scenario did not cause.
    Unexpected,
}

/// What is timed. Each time counts from when the operation was due, so it includes waiting for a slow hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Until CONNACK.
    Connect,
    /// From the start of dialling to CONNACK: a connect without the wait for its turn.
    Handshake,
    /// Until PUBACK.
    Publish,
    /// Until a cloud-to-device message reaches its device.
    RoundTrip,
    /// How late this program itself was.
    Lateness,
}

/// The result of a hostile attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// The hub refused it.
    Refused,
    /// The hub closed without an answer.
    Closed,
    /// The hub did nothing until the attempt gave up.
    Ignored,
    /// The hub admitted it.
    Admitted,
    /// The attempt itself failed.
    Failed,
}

/// All durations since the start, and those since the last reading.
#[derive(Debug, Default)]
struct Timed {
    all: Latencies,
    fresh: Latencies,
}

impl Tally {
    pub fn add(&self, count: Count, by: u64) {
        self.counts[count as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub fn time(&self, timing: Timing, took: Duration) {
        let mut timed = locked(&self.timings[timing as usize]);
        timed.all.record(took);
        timed.fresh.record(took);
    }

    /// One identity connected. The connection was `due` at this time.
    pub fn connected(&self, due: Instant, dialled: Instant) {
        self.add(Count::Connected, 1);
        self.add(Count::Connects, 1);
        self.time(Timing::Connect, due.elapsed());
        self.time(Timing::Handshake, dialled.elapsed());
    }

    /// The hub or the network ended a connection.
    pub fn dropped(&self, reason: &str) {
        self.disconnected();
        self.add(Count::Dropped, 1);
        self.failed("dropped", reason);
    }

    /// The scenario broke a connection.
    pub fn cut(&self) {
        self.disconnected();
        self.add(Count::Cut, 1);
    }

    /// An attempt to connect failed.
    pub fn refused(&self, reason: &str) {
        self.add(Count::ConnectFailures, 1);
        self.failed("connect", reason);
    }

    /// A connection is over.
    pub fn disconnected(&self) {
        self.counts[Count::Connected as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// The hub acknowledged a telemetry message that was `due` at this time.
    pub fn acknowledged(&self, due: Instant) {
        self.add(Count::Acknowledged, 1);
        self.time(Timing::Publish, due.elapsed());
    }

    /// Cloud-to-device message `number` is about to be sent, and was `due` at this time. It is noted before it is sent,
    /// because it may arrive before the hub's answer.
    pub fn c2d_begun(&self, number: u64, due: Instant) {
        locked(&self.waiting).insert(number, due);
    }

    /// The hub accepted or refused cloud-to-device message `number`.
    pub fn c2d_answered(&self, number: u64, answer: Result<(), Unsent>) {
        let Err(unsent) = answer else { return self.add(Count::C2dSent, 1) };
        locked(&self.waiting).remove(&number);
        match unsent {
            Unsent::Full => self.add(Count::C2dFull, 1),
            Unsent::Withheld => self.add(Count::C2dWithheld, 1),
            Unsent::Refused(reason) => {
                self.add(Count::C2dRefused, 1);
                self.failed("c2d", &reason);
            }
        }
    }

    /// Cloud-to-device message `number` reached its device.
    pub fn c2d_arrived(&self, number: u64) {
        // The guard must end here: the histogram's lock is taken below.
        let begun = locked(&self.waiting).remove(&number);
        match begun {
            None => self.add(Count::C2dRepeated, 1),
            Some(begun) => {
                self.add(Count::C2dReceived, 1);
                self.time(Timing::RoundTrip, begun.elapsed());
            }
        }
    }

    /// The result of a hostile attempt of kind `kind`.
    pub fn hostile(&self, kind: &'static str, outcome: Outcome) {
        *locked(&self.hostile).entry((kind, outcome)).or_default() += 1;
        if outcome == Outcome::Admitted {
            self.failed("hostile", &format!("{kind} were admitted"));
        }
    }

    /// Notes once what this hub does not support.
    pub fn note(&self, note: &str) {
        locked(&self.notes).insert(note.to_owned());
    }

    /// Something failed in `what`.
    pub fn failed(&self, what: &str, reason: &str) {
        self.add(Count::Unexpected, 1);
        let mut reasons = locked(&self.reasons);
        let reason = format!("{what}: {reason}");
        if reasons.len() < REASONS_MAX || reasons.contains_key(&reason) {
            *reasons.entry(reason).or_default() += 1;
        } else {
            *reasons.entry(format!("{what}: other")).or_default() += 1;
        }
    }

    pub fn count(&self, count: Count) -> u64 {
        self.counts[count as usize].load(Ordering::Relaxed)
    }

    /// Cloud-to-device messages in flight.
    pub fn c2d_waiting(&self) -> usize {
        locked(&self.waiting).len()
    }

    /// The faults and their numbers.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        locked(&self.reasons).clone()
    }

    /// Hostile attempts by kind, and their results.
    pub fn hostile_outcomes(&self) -> BTreeMap<(&'static str, Outcome), u64> {
        locked(&self.hostile).clone()
    }

    /// What this hub does not support.
    pub fn notes(&self) -> Vec<String> {
        locked(&self.notes).iter().cloned().collect()
    }

    pub fn latencies(&self, timing: Timing) -> Latencies {
        locked(&self.timings[timing as usize]).all.clone()
    }

    /// The durations since the last call. For one caller.
    pub fn take_fresh(&self, timing: Timing) -> Latencies {
        let mut timed = locked(&self.timings[timing as usize]);
        let fresh = timed.fresh.clone();
        timed.fresh.clear();
        fresh
    }
}

/// Why a cloud-to-device message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// The device's queue is full.
    Full,
    /// The hub was slower than the pace.
    Withheld,
    Refused(String),
}

impl Outcome {
    /// The name in reports.
    pub fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Closed => "closed",
            Self::Ignored => "ignored",
            Self::Admitted => "admitted",
            Self::Failed => "failed",
        }
    }
}

/// A histogram of durations: microseconds, three digits, up to ten minutes.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds of the histogram are sound"))
    }
}

impl Latencies {
    pub fn record(&mut self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.0.saturating_record(microseconds);
    }

    fn clear(&mut self) {
        self.0.reset();
    }

    pub fn len(&self) -> u64 {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Milliseconds that `percent` of the recorded durations do not exceed.
    pub fn percentile_ms(&self, percent: f64) -> f64 {
        self.0.value_at_percentile(percent) as f64 / 1000.0
    }
}

/// A panic in one device must not hide the counts of the others.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const COUNTERS: usize = Count::Unexpected as usize + 1;
const TIMINGS: usize = Timing::Lateness as usize + 1;
/// Reasons come from error texts. The limit keeps a hub with ever new texts from filling the memory.
const REASONS_MAX: usize = 100;
const LATENCY_US_MAX: u64 = 600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_arrives_twice_is_received_once() {
        let tally = Tally::default();
        tally.c2d_begun(1, Instant::now());
        tally.c2d_arrived(1);
        tally.c2d_answered(1, Ok(()));
        tally.c2d_arrived(1);
        assert_eq!(tally.count(Count::C2dReceived), 1);
        assert_eq!(tally.count(Count::C2dRepeated), 1);
        assert_eq!(tally.latencies(Timing::RoundTrip).len(), 1);
        assert_eq!(tally.c2d_waiting(), 0);
    }

    #[test]
    fn a_refused_message_is_not_waited_for() {
        let tally = Tally::default();
        for (number, unsent) in [(1, Unsent::Refused("status 404".into())), (2, Unsent::Full)] {
            tally.c2d_begun(number, Instant::now());
            tally.c2d_answered(number, Err(unsent));
        }
        assert_eq!(tally.c2d_waiting(), 0);
        assert_eq!(tally.reasons()["c2d: status 404"], 1);
        assert_eq!(tally.count(Count::Unexpected), 1, "a full queue is an answer, not a failure");
    }

    #[test]
    fn being_refused_is_what_hostile_attempts_are_for() {
        let tally = Tally::default();
        tally.hostile("junk", Outcome::Closed);
        assert_eq!(tally.count(Count::Unexpected), 0);
        tally.hostile("wrong keys", Outcome::Admitted);
        assert_eq!(tally.count(Count::Unexpected), 1);
        assert_eq!(tally.hostile_outcomes()[&("junk", Outcome::Closed)], 1);
    }

    #[test]
    fn fresh_durations_are_told_once_and_stay_in_the_whole() {
        let tally = Tally::default();
        tally.time(Timing::Publish, Duration::from_millis(1));
        assert_eq!(tally.take_fresh(Timing::Publish).len(), 1);
        assert!(tally.take_fresh(Timing::Publish).is_empty());
        assert_eq!(tally.latencies(Timing::Publish).len(), 1);
    }

    #[test]
    fn reasons_are_bounded() {
        let tally = Tally::default();
        for number in 0..10_000 {
            tally.failed("connect", &format!("reason {number}"));
        }
        let reasons = tally.reasons();
        assert_eq!(reasons.len(), REASONS_MAX + 1);
        assert_eq!(reasons.values().sum::<u64>(), 10_000);
    }

    #[test]
    fn latencies_keep_three_digits_and_never_fail() {
        let mut latencies = Latencies::default();
        for milliseconds in 1..=100 {
            latencies.record(Duration::from_millis(milliseconds));
        }
        assert!((latencies.percentile_ms(50.0) - 50.0).abs() < 0.1, "{}", latencies.percentile_ms(50.0));
        latencies.record(Duration::MAX);
        assert!(latencies.percentile_ms(100.0) >= 600_000.0);
    }
}
