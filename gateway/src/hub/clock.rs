//! The hub's only clock. Rules take a `Moment` as an argument; only the code that drives them reads the clock.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

/// Wall clock and monotonic clock, read together. Tests may shift the wall clock.
#[derive(Debug, Default)]
pub struct Clock {
    shift_seconds: AtomicI64,
}

/// One moment on both clocks. Durations use the monotonic clock; the expiry of tokens uses the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub monotonic: Instant,
    pub wall: Timestamp,
}

impl Clock {
    /// Moves the wall clock by whole seconds from the real one. Does not change the monotonic clock.
    #[cfg(feature = "testing")]
    pub fn shift(&self, seconds: i64) {
        self.shift_seconds.store(seconds, Ordering::Relaxed);
    }

    /// The wall clock, UTC.
    pub fn wall(&self) -> Timestamp {
        let shift = SignedDuration::from_secs(self.shift_seconds.load(Ordering::Relaxed));
        Timestamp::now().saturating_add(shift).unwrap_or(Timestamp::MAX)
    }

    /// Both clocks at once.
    pub fn now(&self) -> Moment {
        Moment { monotonic: Instant::now(), wall: self.wall() }
    }
}
