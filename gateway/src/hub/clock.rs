//! The hub's one clock. Rules take a `Moment` as an argument; only the drivers around them read this.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::mqtt::session::core::Moment;

/// Wall clock and monotonic clock, read together. Tests may shift the wall clock.
#[derive(Debug, Default)]
pub struct Clock {
    shift_seconds: AtomicI64,
}

impl Clock {
    /// Moves the wall clock by whole seconds from the real one; the monotonic clock is not touched.
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

/// A time as IoT Hub writes it: ISO 8601 in UTC with seven fraction digits, or its word for never.
pub fn time_text(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.into(), |time| format!("{time:.7}"))
}

/// .NET's `DateTime.MinValue`, which is how IoT Hub says "never".
pub const NEVER: &str = "0001-01-01T00:00:00";

#[cfg(test)]
mod tests {
    use super::time_text;

    #[test]
    fn times_carry_seven_digits_and_never_has_its_word() {
        let time = "2024-05-01T08:15:30.1234567Z";
        assert_eq!(time_text(Some(time.parse().unwrap())), time);
        assert_eq!(time_text(Some("2024-05-01T08:15:30Z".parse().unwrap())), "2024-05-01T08:15:30.0000000Z");
        assert_eq!(time_text(None), "0001-01-01T00:00:00");
    }
}
