//! The end of what a session rests on, and when to look at the wall clock next: it may be set at any time.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};

use crate::hub::clock::Moment;
use crate::hub::close_reason::CloseReason;

/// When a session must end, and for what.
#[derive(Clone, Debug)]
pub(super) struct Expiry {
    end: Timestamp,
    reason: CloseReason,
    check: Instant,
}

impl Expiry {
    pub(super) fn new(end: Timestamp, reason: CloseReason, now: Moment) -> Self {
        Self { end, reason, check: next(end, now) }
    }

    /// The reason to end, once the time has come.
    pub(super) fn reason_at(&self, now: Moment) -> Option<CloseReason> {
        (now.wall >= self.end).then(|| self.reason.clone())
    }

    /// When to look next, as of the last look.
    pub(super) fn check(&self) -> Instant {
        self.check
    }

    /// It was looked at.
    pub(super) fn checked(&mut self, now: Moment) {
        self.check = next(self.end, now);
    }

    /// When to look next, as of now.
    pub(super) fn next(&self, now: Moment) -> Instant {
        next(self.end, now)
    }
}

fn next(end: Timestamp, now: Moment) -> Instant {
    let left = end.duration_since(now.wall).clamp(SignedDuration::ZERO, CHECK_PERIOD);
    now.monotonic + left.unsigned_abs()
}

const CHECK_PERIOD: SignedDuration = SignedDuration::from_secs(60);
