//! What a run counts while it goes on. Every device writes into one tally; progress and report read it.

use std::collections::{BTreeMap, HashMap};
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
    connect: Mutex<Latencies>,
    publish: Mutex<Latencies>,
    round_trip: Mutex<Latencies>,
    /// Accepted cloud-to-device messages by number, and when their sending began.
    waiting: Mutex<HashMap<u64, Instant>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Devices that are in the registry and ready to connect.
    Provisioned,
    /// Devices connected now.
    Connected,
    /// Devices that connected at least once.
    EverConnected,
    /// Attempts to connect that failed.
    ConnectFailures,
    /// Connections that ended before the run did.
    Dropped,
    /// Telemetry messages handed to the connection.
    Sent,
    /// Telemetry messages the hub acknowledged.
    Acknowledged,
    /// Telemetry messages due but not sent: no connection, or the hub slower than the pace.
    Withheld,
    /// Cloud-to-device messages the hub accepted.
    C2dSent,
    /// Cloud-to-device messages the hub refused.
    C2dRefused,
    /// Cloud-to-device messages due but not sent, for the hub was slower than the pace.
    C2dWithheld,
    /// Cloud-to-device messages that arrived, each counted once.
    C2dReceived,
    /// Cloud-to-device messages that arrived again.
    C2dRepeated,
}

impl Tally {
    pub fn add(&self, count: Count, by: u64) {
        self.counts[count as usize].fetch_add(by, Ordering::Relaxed);
    }

    /// One device connected, `took` after it dialled.
    pub fn connected(&self, took: Duration) {
        self.add(Count::Connected, 1);
        locked(&self.connect).record(took);
    }

    /// A connection ended before the run did.
    pub fn dropped(&self, reason: String) {
        self.add(Count::Dropped, 1);
        self.failed("dropped", reason);
    }

    /// An attempt to connect failed.
    pub fn refused(&self, reason: String) {
        self.add(Count::ConnectFailures, 1);
        self.failed("connect", reason);
    }

    /// A device left, in order or not.
    pub fn disconnected(&self) {
        self.counts[Count::Connected as usize].fetch_sub(1, Ordering::Relaxed);
    }

    /// The hub acknowledged a telemetry message `took` after it was on its way.
    pub fn acknowledged(&self, took: Duration) {
        self.add(Count::Acknowledged, 1);
        locked(&self.publish).record(took);
    }

    /// Cloud-to-device message `number` is about to be sent. It is noted first, for it may arrive before the hub's answer.
    pub fn c2d_begun(&self, number: u64) {
        locked(&self.waiting).insert(number, Instant::now());
    }

    /// The hub answered the sending of cloud-to-device message `number`.
    pub fn c2d_answered(&self, number: u64, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.add(Count::C2dSent, 1),
            Err(reason) => {
                locked(&self.waiting).remove(&number);
                self.add(Count::C2dRefused, 1);
                self.failed("c2d", reason);
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
                locked(&self.round_trip).record(begun.elapsed());
            }
        }
    }

    /// Something went wrong while doing `what`.
    pub fn failed(&self, what: &str, reason: String) {
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

    /// Cloud-to-device messages under way.
    pub fn c2d_waiting(&self) -> usize {
        locked(&self.waiting).len()
    }

    /// What went wrong and how often.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        locked(&self.reasons).clone()
    }

    /// From dialling to CONNACK.
    pub fn connect_latencies(&self) -> Latencies {
        locked(&self.connect).clone()
    }

    /// From PUBLISH on its way to PUBACK.
    pub fn publish_latencies(&self) -> Latencies {
        locked(&self.publish).clone()
    }

    /// From the REST request to the message at its device.
    pub fn round_trip_latencies(&self) -> Latencies {
        locked(&self.round_trip).clone()
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

/// A panicking device must not hide what the others counted.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const COUNTERS: usize = Count::C2dRepeated as usize + 1;
/// Reasons come from error texts; a hub that makes up new ones does not fill our memory.
const REASONS_MAX: usize = 100;
const LATENCY_US_MAX: u64 = 600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_arrives_twice_is_received_once() {
        let tally = Tally::default();
        tally.c2d_begun(1);
        tally.c2d_arrived(1);
        tally.c2d_answered(1, Ok(()));
        tally.c2d_arrived(1);
        assert_eq!(tally.count(Count::C2dReceived), 1);
        assert_eq!(tally.count(Count::C2dRepeated), 1);
        assert_eq!(tally.round_trip_latencies().len(), 1);
        assert_eq!(tally.c2d_waiting(), 0);
    }

    #[test]
    fn a_refused_message_is_not_waited_for() {
        let tally = Tally::default();
        tally.c2d_begun(1);
        tally.c2d_answered(1, Err("status 404".into()));
        assert_eq!(tally.c2d_waiting(), 0);
        assert_eq!(tally.reasons()["c2d: status 404"], 1);
    }

    #[test]
    fn reasons_are_bounded() {
        let tally = Tally::default();
        for number in 0..10_000 {
            tally.failed("connect", format!("reason {number}"));
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
