//! When the next message is due, without drift. Every deadline is computed from the start, never from the last send.

use std::time::Duration;

use tokio::time::Instant;

/// The deadlines of a sender with a steady rate.
#[derive(Clone, Debug)]
pub struct Pace {
    first: Instant,
    period: Duration,
    /// Number of the next deadline, from 0.
    next: u64,
}

impl Pace {
    /// Deadlines every `1 / rate_per_second`. The first is at `start` plus `phase` (0 to 1) of that. `None` for a rate
    /// of 0, which has no deadlines.
    pub fn new(start: Instant, rate_per_second: f64, phase: f64) -> Option<Self> {
        let period =
            Duration::try_from_secs_f64(1.0 / rate_per_second).ok().filter(|period| !period.is_zero())?;
        Some(Self { first: start + period.mul_f64(phase), period, next: 0 })
    }

    /// Moves to the next deadline after one was met at `now`. Skips deadlines that are late by a whole period, because
    /// a burst to make up for them would measure the delay twice. Returns how many it skipped.
    pub fn advance(&mut self, now: Instant) -> u64 {
        self.advance_late(now, 0)
    }

    /// Like `advance`, but keeps up to `backlog_max` late deadlines.
    pub fn advance_late(&mut self, now: Instant, backlog_max: u64) -> u64 {
        self.next += 1;
        let late = now.saturating_duration_since(self.deadline());
        let passed = (late.as_nanos() / self.period.as_nanos()) as u64;
        let missed = passed.saturating_sub(backlog_max);
        self.next += missed;
        missed
    }

    /// When the next message is due.
    pub fn deadline(&self) -> Instant {
        // A multiplication in nanoseconds does not drift; 64 bits of them are 584 years.
        let since_first = self.period.as_nanos().saturating_mul(u128::from(self.next));
        self.first + Duration::from_nanos(u64::try_from(since_first).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_do_not_drift_however_late_each_send_is() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 10.0, 0.0).unwrap();
        for _ in 0..1000 {
            let late = pace.deadline() + Duration::from_millis(40);
            assert_eq!(pace.advance(late), 0);
        }
        assert_eq!(pace.deadline() - start, Duration::from_secs(100));
    }

    #[test]
    fn a_long_stall_is_given_up_and_counted() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1.0, 0.0).unwrap();
        assert_eq!(pace.advance(start + Duration::from_millis(5500)), 4);
        assert_eq!(
            pace.deadline() - start,
            Duration::from_secs(5),
            "the newest passed deadline is still met"
        );
        assert_eq!(pace.advance(start + Duration::from_millis(5500)), 0);
        assert_eq!(pace.deadline() - start, Duration::from_secs(6));
    }

    #[test]
    fn a_backlog_is_met_up_to_its_bound() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 1000.0, 0.0).unwrap();
        let now = start + Duration::from_millis(50);
        assert_eq!(pace.advance_late(now, 100), 0);
        assert_eq!(pace.deadline(), start + Duration::from_millis(1));
        assert_eq!(pace.advance_late(now, 10), 38);
        assert_eq!(pace.deadline(), start + Duration::from_millis(40));
    }

    #[tokio::test(start_paused = true)]
    async fn ten_minutes_of_late_timers_end_on_the_last_deadline() {
        let start = Instant::now();
        let mut pace = Pace::new(start, 50.0, 0.5).unwrap();
        for _ in 0..30_000 {
            tokio::time::sleep_until(pace.deadline()).await;
            // Timers come up to a millisecond late, and the work takes its time.
            tokio::time::advance(Duration::from_micros(700)).await;
            assert_eq!(pace.advance(Instant::now()), 0);
        }
        assert_eq!(pace.deadline() - start, Duration::from_secs(600) + Duration::from_millis(10));
    }

    #[test]
    fn phases_spread_the_first_deadlines_over_one_period() {
        let start = Instant::now();
        let firsts =
            [0.0, 0.25, 0.5, 0.75].map(|phase| Pace::new(start, 2.0, phase).unwrap().deadline() - start);
        assert_eq!(firsts, [0, 125, 250, 375].map(Duration::from_millis));
    }

    #[test]
    fn a_rate_of_zero_has_no_deadlines() {
        assert!(Pace::new(Instant::now(), 0.0, 0.5).is_none());
    }
}
