//! The time series of a run: a sample a second, for the live view and the charts of the report.
//!
//! Samples hold totals, so a long run can drop every second sample. Percentiles then keep the worse of two.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::fleet::Run;
use crate::tally::{Count, Tally, Timing};

/// All samples so far, and the starts of the phases.
#[derive(Debug, Default)]
pub struct Series(Mutex<Course>);

/// The course of a run.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Course {
    pub phases: Vec<PhaseMark>,
    pub samples: Vec<Sample>,
    #[serde(skip)]
    began: Option<Instant>,
    /// Seconds between samples; 0 before the first drop.
    #[serde(skip)]
    stride: u64,
    #[serde(skip)]
    skipped: u64,
}

/// The start of a phase.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PhaseMark {
    pub name: String,
    /// Since the start of the run.
    pub seconds: f64,
}

/// One moment: totals since the start, present numbers, and percentiles since the previous sample.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sample {
    /// Since the start of the run.
    pub seconds: f64,
    pub connected: u64,
    pub connects: u64,
    pub connect_failures: u64,
    pub dropped: u64,
    pub sent: u64,
    pub acknowledged: u64,
    pub c2d_sent: u64,
    pub c2d_received: u64,
    pub hostile: u64,
    pub unexpected: u64,
    pub connect_p99_ms: f64,
    pub publish_p50_ms: f64,
    pub publish_p99_ms: f64,
    pub c2d_p50_ms: f64,
    pub c2d_p99_ms: f64,
    pub lateness_p99_ms: f64,
    /// The memory of this program.
    pub memory_bytes: u64,
}

impl Series {
    /// Takes a sample a second until `ended`, and a last one.
    pub async fn sample(self: Arc<Self>, run: Run, ended: CancellationToken) {
        let mut ticks = interval(SAMPLE_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks.tick().await;
        loop {
            let is_over = tokio::select! {
                () = ended.cancelled() => true,
                _ = ticks.tick() => false,
            };
            let sample = Sample::of(&run.tally, self.seconds());
            self.locked().push(sample);
            if is_over {
                return;
            }
        }
    }

    /// Records the start of the phase called `name`.
    pub fn phase(&self, name: &str) {
        let seconds = self.seconds();
        self.locked().phases.push(PhaseMark { name: name.to_owned(), seconds });
    }

    /// The whole course.
    pub fn course(&self) -> Course {
        self.locked().clone()
    }

    /// The present phase and the last two samples, the older first.
    pub fn latest(&self) -> (String, [Sample; 2]) {
        let course = self.locked();
        let phase = course.phases.last().map_or_else(|| "provision".into(), |phase| phase.name.clone());
        let mut last = course.samples.iter().rev().copied();
        let newest = last.next().unwrap_or_default();
        (phase, [last.next().unwrap_or_default(), newest])
    }

    fn seconds(&self) -> f64 {
        self.locked().began.get_or_insert_with(Instant::now).elapsed().as_secs_f64()
    }

    fn locked(&self) -> MutexGuard<'_, Course> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Course {
    fn push(&mut self, sample: Sample) {
        self.skipped += 1;
        if self.skipped < self.stride {
            return;
        }
        self.skipped = 0;
        self.samples.push(sample);
        if self.samples.len() >= SAMPLES_MAX {
            self.stride = self.stride.max(1) * 2;
            self.samples = self
                .samples
                .chunks(2)
                .map(|two| two.iter().copied().reduce(Sample::followed_by).unwrap_or_default())
                .collect();
        }
    }
}

impl Sample {
    fn of(tally: &Tally, seconds: f64) -> Self {
        let count = |what| tally.count(what);
        let fresh = [Timing::Connect, Timing::Publish, Timing::RoundTrip, Timing::Lateness]
            .map(|timing| tally.take_fresh(timing));
        let [connect, publish, round_trip, lateness] = fresh;
        Self {
            seconds,
            connected: count(Count::Connected),
            connects: count(Count::Connects),
            connect_failures: count(Count::ConnectFailures),
            dropped: count(Count::Dropped),
            sent: count(Count::Sent),
            acknowledged: count(Count::Acknowledged),
            c2d_sent: count(Count::C2dSent),
            c2d_received: count(Count::C2dReceived),
            hostile: tally.hostile_outcomes().values().sum(),
            unexpected: count(Count::Unexpected),
            connect_p99_ms: connect.percentile_ms(99.0),
            publish_p50_ms: publish.percentile_ms(50.0),
            publish_p99_ms: publish.percentile_ms(99.0),
            c2d_p50_ms: round_trip.percentile_ms(50.0),
            c2d_p99_ms: round_trip.percentile_ms(99.0),
            lateness_p99_ms: lateness.percentile_ms(99.0),
            memory_bytes: resident_bytes(),
        }
    }

    /// Combines two samples into one.
    fn followed_by(self, later: Self) -> Self {
        Self {
            connect_p99_ms: self.connect_p99_ms.max(later.connect_p99_ms),
            publish_p50_ms: self.publish_p50_ms.max(later.publish_p50_ms),
            publish_p99_ms: self.publish_p99_ms.max(later.publish_p99_ms),
            c2d_p50_ms: self.c2d_p50_ms.max(later.c2d_p50_ms),
            c2d_p99_ms: self.c2d_p99_ms.max(later.c2d_p99_ms),
            lateness_p99_ms: self.lateness_p99_ms.max(later.lateness_p99_ms),
            memory_bytes: self.memory_bytes.max(later.memory_bytes),
            ..later
        }
    }
}

/// The memory of this program; 0 if the system does not report it.
fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// At this number every second sample is dropped.
const SAMPLES_MAX: usize = 1200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_keeps_its_totals_and_its_worst_moments() {
        let mut course = Course::default();
        for second in 1..=10_000u64 {
            let publish_p99_ms = if second == 777 { 900.0 } else { 1.0 };
            course.push(Sample { seconds: second as f64, sent: second, publish_p99_ms, ..Sample::default() });
        }
        assert!(course.samples.len() < SAMPLES_MAX, "{}", course.samples.len());
        assert!(course.samples.is_sorted_by_key(|sample| sample.sent));
        assert!(course.samples.last().unwrap().sent > 9_980);
        assert!(course.samples.iter().any(|sample| sample.publish_p99_ms == 900.0));
    }
}
