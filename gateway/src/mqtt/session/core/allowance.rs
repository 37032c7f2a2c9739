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
pub(super) const AT_ONCE: u32 = 2_000;

/// The time that earns one packet.
pub(super) const ONE: Duration = Duration::from_millis(1000 / PER_SECOND as u64);
