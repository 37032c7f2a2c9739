//! The takeovers of a seat. Two clients with one identity would take it over from each other without end, so they are
//! slowed down and the operator is told. Pure: time is an argument.

use std::time::{Duration, Instant};

/// The past takeovers of one seat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TakeoverHistory {
    last: Option<Instant>,
    /// How many takeovers followed each other closely, up to the last.
    in_a_row: u32,
    reported: Option<Instant>,
}

/// The kind of a takeover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takeover {
    /// Probably a device that has reconnected.
    Single,
    /// One of many: several clients use the identity, or one reconnects again and again without closing. `report` tells
    /// whether to log it now.
    Flapping { report: bool },
}

impl TakeoverHistory {
    /// When the seat may be taken over again, if that is later than now. Takeovers are at least `wait_max` apart, so
    /// nobody waits longer than that.
    pub(super) fn busy_until(&self, wait_max: Duration, now: Instant) -> Option<Instant> {
        let until = self.last?.checked_add(wait_max)?;
        (until > now).then_some(until)
    }

    /// The history after one more takeover, and its kind.
    pub(super) fn taken_over(self, now: Instant) -> (Self, Takeover) {
        let soon = |last: Instant| now.saturating_duration_since(last) <= SOON;
        let in_a_row = if self.last.is_some_and(soon) { self.in_a_row.saturating_add(1) } else { 1 };
        if in_a_row < FLAPPING_FROM {
            return (Self { last: Some(now), in_a_row, reported: self.reported }, Takeover::Single);
        }
        let report =
            self.reported.is_none_or(|reported| now.saturating_duration_since(reported) >= TELL_PERIOD);
        let reported = if report { Some(now) } else { self.reported };
        (Self { last: Some(now), in_a_row, reported }, Takeover::Flapping { report })
    }
}

/// Two takeovers within this time belong together.
const SOON: Duration = Duration::from_secs(10);
/// This many in a row are more than a change of networks.
const FLAPPING_FROM: u32 = 3;
/// The time between two reports on the same seat.
const TELL_PERIOD: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn t610_takeovers_are_a_second_apart_and_the_first_waits_for_nothing() {
        let now = Instant::now();
        let first = TakeoverHistory::default();
        assert_eq!(first.busy_until(SECOND, now), None);
        let (second, _) = first.taken_over(now);
        assert_eq!(second.busy_until(SECOND, now), Some(now + SECOND));
        assert_eq!(second.busy_until(SECOND, now + SECOND), None);
        assert_eq!(second.busy_until(Duration::ZERO, now), None);
    }

    #[test]
    fn t610_a_device_that_comes_back_is_not_flapping_and_two_copies_are_told_of_once_a_minute() {
        let (mut takeovers, start) = (TakeoverHistory::default(), Instant::now());
        let mut take = |second: u32| {
            let (next, takeover) = takeovers.taken_over(start + second * SECOND);
            takeovers = next;
            takeover
        };
        assert!((0..5).all(|n| take(n * 11) == Takeover::Single), "now and then");
        let row: Vec<_> = (0..100).map(|n| take(100 + n)).collect();
        assert_eq!(row[..3], [Takeover::Single, Takeover::Single, Takeover::Flapping { report: true }]);
        let reported = row.iter().filter(|takeover| **takeover == Takeover::Flapping { report: true });
        assert_eq!(reported.count(), 2);
        assert_eq!(take(300), Takeover::Single);
    }
}
