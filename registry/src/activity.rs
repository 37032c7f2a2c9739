//! When an identity was last active, kept beside it: changed at each event of its connection, and never sampled.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;

/// Two times of one identity, each in an atomic of its own, so that a packet costs one store and no lock.
#[derive(Debug)]
pub struct Activity {
    connection_changed: AtomicI64,
    last: AtomicI64,
}

impl Default for Activity {
    /// Never active.
    fn default() -> Self {
        Self { connection_changed: AtomicI64::new(NEVER), last: AtomicI64::new(NEVER) }
    }
}

impl Activity {
    /// It connected or disconnected.
    pub fn connection_changed(&self, now: Timestamp) {
        self.connection_changed.store(now.as_microsecond(), Ordering::Relaxed);
        self.seen(now);
    }

    /// It sent something, or something reached it.
    pub fn seen(&self, now: Timestamp) {
        self.last.store(now.as_microsecond(), Ordering::Relaxed);
    }

    /// When it last connected or disconnected.
    pub fn connection_changed_at(&self) -> Option<Timestamp> {
        read(&self.connection_changed)
    }

    /// When it last connected, disconnected, sent or received.
    pub fn last_seen_at(&self) -> Option<Timestamp> {
        read(&self.last)
    }
}

fn read(microseconds: &AtomicI64) -> Option<Timestamp> {
    match microseconds.load(Ordering::Relaxed) {
        NEVER => None,
        known => Timestamp::from_microsecond(known).ok(),
    }
}

/// No clock shows this.
const NEVER: i64 = i64::MIN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_heard_of_has_no_times() {
        let activity = Activity::default();
        assert_eq!((activity.connection_changed_at(), activity.last_seen_at()), (None, None));
    }

    #[test]
    fn a_connection_is_activity_and_a_packet_is_no_connection() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let activity = Activity::default();
        activity.connection_changed(at(10));
        activity.seen(at(20));
        assert_eq!(activity.connection_changed_at(), Some(at(10)));
        assert_eq!(activity.last_seen_at(), Some(at(20)));
        activity.connection_changed(at(30));
        assert_eq!(activity.last_seen_at(), Some(at(30)));
    }
}
