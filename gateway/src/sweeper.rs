//! The hub's one clockwork: once a second it ends what ends by time in the registry, be anybody connected or not.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::hub::Hub;

/// Sweeps until the hub stops. One task, whatever the number of devices and messages.
pub async fn run(hub: Arc<Hub>) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = hub.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let now = hub.clock.now();
        match hub.registry.sweep(now.wall, now.monotonic).await {
            Ok(0) => {}
            Ok(count) => tracing::debug!(count, "cloud-to-device messages expired"),
            // The store tells itself why it takes no writes; what is due stays due.
            Err(error) => tracing::debug!(%error, "what is due cannot be stored now"),
        }
    }
}

const PERIOD: Duration = Duration::from_secs(1);
