//! The last hour in numbers, one sample every half minute. The portal's overview draws it.
//!
//! The hub's timer takes the samples from counters that exist anyway, so the cost does not depend on the fleet's size.
//! Times are monotonic, so setting the clock does not distort a curve.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::hub::outcome::ConnectionOutcome;

/// The samples of the last hour.
#[derive(Debug, Default)]
pub struct History {
    samples: Mutex<VecDeque<Sample>>,
}

/// What a hub has done from its start to one moment, and what it holds at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    pub taken: Instant,
    /// Devices that are connected.
    pub connected: usize,
    /// Cloud-to-device messages that wait.
    pub queued: usize,
    /// Telemetry messages accepted.
    pub messages: u64,
    /// Cloud-to-device messages delivered to connections.
    pub delivered: u64,
    /// CONNECTs by outcome, including `succeeded`.
    pub attempts: Vec<(ConnectionOutcome, u64)>,
}

impl History {
    /// Takes a sample if one is due.
    pub fn tick(&self, now: Instant, sample: impl FnOnce() -> Sample) {
        let is_due = |last: &Sample| now.saturating_duration_since(last.taken) >= INTERVAL;
        // The lock is not held here, because counting takes other locks.
        if self.samples().back().is_none_or(is_due) {
            self.note(sample());
        }
    }

    /// Adds a sample after the earlier ones. Removes samples that were taken later.
    pub fn note(&self, sample: Sample) {
        let mut samples = self.samples();
        samples.retain(|own| own.taken < sample.taken);
        if samples.len() >= SAMPLES_MAX {
            samples.pop_front();
        }
        samples.push_back(sample);
    }

    /// The samples, oldest first, and `now` as the last.
    pub fn until(&self, now: Sample) -> Vec<Sample> {
        self.samples().iter().cloned().chain([now]).collect()
    }

    fn samples(&self) -> MutexGuard<'_, VecDeque<Sample>> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sample {
    /// How many CONNECTs were admitted.
    pub fn connects(&self) -> u64 {
        self.attempts_with(ConnectionOutcome::Succeeded)
    }

    /// CONNECTs that were refused, by reason.
    pub fn refusals(&self) -> impl Iterator<Item = (ConnectionOutcome, u64)> {
        self.attempts.iter().copied().filter(|(outcome, _)| *outcome != ConnectionOutcome::Succeeded)
    }

    /// How many CONNECTs had this outcome.
    pub fn attempts_with(&self, outcome: ConnectionOutcome) -> u64 {
        self.attempts.iter().find(|(own, _)| *own == outcome).map_or(0, |(_, count)| *count)
    }
}

/// The time between two samples.
pub const INTERVAL: Duration = Duration::from_secs(30);
/// One hour of samples.
pub const SAMPLES_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(taken: Instant) -> Sample {
        let attempts = vec![(ConnectionOutcome::Disabled, 2), (ConnectionOutcome::Succeeded, 7)];
        Sample { taken, connected: 1, queued: 0, messages: 9, delivered: 0, attempts }
    }

    #[test]
    fn an_hour_of_samples_is_kept() {
        let history = History::default();
        let start = Instant::now();
        for place in 0..500 {
            history.note(sample(start + INTERVAL * place));
        }
        let samples = history.samples();
        assert_eq!(samples.len(), SAMPLES_MAX);
        assert_eq!(samples.front().unwrap().taken, start + INTERVAL * 380);
        drop(samples);
        history.note(sample(start + INTERVAL * 400));
        assert_eq!(history.samples().back().unwrap().taken, start + INTERVAL * 400);
        assert_eq!(history.samples().len(), 21);
    }

    #[test]
    fn refusals_are_the_attempts_that_did_not_succeed() {
        let sample = sample(Instant::now());
        assert_eq!(sample.connects(), 7);
        assert_eq!(sample.refusals().collect::<Vec<_>>(), [(ConnectionOutcome::Disabled, 2)]);
    }
}
