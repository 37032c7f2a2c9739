//! The hub's timer. Once a second it removes what has expired in the registry, whether or not anybody is connected. It
//! notices when the wall clock was set or the machine slept, which a session's own timer does not notice. Every so
//! often it takes a sample for the history.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{MissedTickBehavior, interval};

use crate::hub::Hub;
use crate::hub::clock::Moment;
use crate::operations::overview;

/// Sweeps until the hub stops. There is one task for any number of devices and messages.
pub async fn run(hub: Arc<Hub>) {
    let mut before = hub.clock.now();
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = hub.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = hub.clock.now();
        if has_jumped(before, now) {
            tracing::info!(from = %before.wall, to = %now.wall, "the clock was set forward");
            hub.clock_was_set();
        }
        before = now;
        hub.history.tick(now.monotonic, || overview::sample(&hub, now.monotonic));
        match hub.registry.sweep(now.wall, now.monotonic).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "cloud-to-device messages expired"),
            // The store logs why it accepts no writes. The next sweep tries the same items again.
            Err(error) => tracing::debug!(%error, "the store cannot remove expired items now"),
        }
    }
}

/// Whether the wall clock advanced more than the monotonic clock. A clock that is set back ends nothing.
fn has_jumped(before: Moment, now: Moment) -> bool {
    let in_truth = now.monotonic.saturating_duration_since(before.monotonic);
    let on_the_wall = now.wall.duration_since(before.wall);
    on_the_wall.saturating_sub(SignedDuration::try_from(in_truth).unwrap_or(SignedDuration::MAX)) > JUMP
}

const PERIOD: Duration = Duration::from_secs(1);
/// A smaller difference is the normal correction of a clock.
const JUMP: SignedDuration = SignedDuration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t911_a_clock_set_forward_is_noticed_and_one_that_runs_is_not() {
        let before = crate::hub::clock::Clock::default().now();
        let after = |seconds: i64, on_the_wall: i64| Moment {
            monotonic: before.monotonic + Duration::from_secs(seconds.unsigned_abs()),
            wall: before.wall.saturating_add(SignedDuration::from_secs(on_the_wall)).unwrap(),
        };
        for (moment, jumped) in
            [(after(1, 1), false), (after(100, 100), false), (after(1, 3), true), (after(1, -3600), false)]
        {
            assert_eq!(has_jumped(before, moment), jumped, "{moment:?}");
        }
        let end_of_time = Moment { wall: jiff::Timestamp::MAX, ..before };
        assert!(has_jumped(Moment { wall: jiff::Timestamp::MIN, ..before }, end_of_time));
    }
}
