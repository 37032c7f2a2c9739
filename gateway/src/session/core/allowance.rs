//! How many packets that carry no message a peer may send: enough for any client, too few for a flood.

use std::time::{Duration, Instant};

/// A bucket that fills with time.
#[derive(Debug)]
pub(super) struct Allowance {
    left: u32,
    filled: Instant,
}

impl Allowance {
    pub(super) fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, filled: now }
    }

    /// Takes one; false if none is left.
    pub(super) fn spend(&mut self, now: Instant) -> bool {
        self.fill(now);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.filled);
        let earned = u32::try_from(passed.as_nanos() / ONE.as_nanos()).unwrap_or(AT_ONCE);
        self.left = self.left.saturating_add(earned).min(AT_ONCE);
        // What is left of the time towards the next one is kept.
        self.filled = if self.left == AT_ONCE { now } else { self.filled + ONE * earned };
    }
}

/// Packets a second in the long run.
pub(super) const PER_SECOND: u32 = 200;

/// Packets in one go.
const AT_ONCE: u32 = 2_000;

/// The time that earns one packet.
const ONE: Duration = Duration::from_millis(1000 / PER_SECOND as u64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t217_a_flood_runs_dry_and_a_slow_peer_never_does() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        assert!((0..AT_ONCE).all(|_| allowance.spend(start)));
        assert!(!allowance.spend(start));
        assert!(!allowance.spend(start + ONE / 2));
        assert!(allowance.spend(start + ONE));
        assert!(!allowance.spend(start + ONE));
        let mut now = start + ONE;
        for _ in 0..10 * AT_ONCE {
            now += ONE;
            assert!(allowance.spend(now));
        }
    }

    #[test]
    fn time_that_passes_never_earns_more_than_one_go() {
        let start = Instant::now();
        let mut allowance = Allowance::new(start);
        let later = start + Duration::from_secs(1_000_000);
        assert_eq!((0..2 * AT_ONCE).filter(|_| allowance.spend(later)).count(), AT_ONCE as usize);
    }
}
