//! How fast a device's telemetry is read: as fast as it comes, or at a rate. Nothing is refused and nobody is closed
//! for it; the network fills up and the device waits (threats T1004).

use std::time::Instant;

use crate::hub::throttle::{Bucket, Rate};

/// What holds a sender to its rate.
#[derive(Debug)]
pub(super) struct Pacing {
    rate: Option<Rate>,
    bucket: Bucket,
    /// When to go on reading, once telemetry came faster than it may.
    paused_until: Option<Instant>,
}

impl Pacing {
    /// No rate is no limit.
    pub(super) fn new(rate: Option<Rate>, now: Instant) -> Self {
        Self { rate, bucket: Bucket::full(now), paused_until: None }
    }

    /// Counts one message, and pauses if the next would be too soon.
    pub(super) fn count(&mut self, now: Instant) {
        let Some(rate) = self.rate else { return };
        self.bucket.take(1, rate, now);
        let next = self.bucket.ready_at(rate, now);
        self.paused_until = (next > now).then_some(next);
    }

    /// When to go on reading, if not now.
    pub(super) fn paused_until(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Ends a pause that is over; whether one is.
    pub(super) fn resume(&mut self, now: Instant) -> bool {
        self.paused_until.take_if(|until| now >= *until).is_some()
    }
}
