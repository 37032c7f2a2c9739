//! The service side of a run: sends cloud-to-device messages over REST at a steady pace, to one device after another.
//!
//! A message carries the run it belongs to and its number as properties, so that a device can tell the run's own
//! messages from what was waiting for it before.

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use portcullis_registry::id::DeviceId;

use crate::fleet::Run;
use crate::pacing::Pace;
use crate::tally::Count;

/// Sends messages to `devices` in turn until `stop`, then waits for the answers under way.
pub async fn send(run: &Run, devices: &[DeviceId], stop: &CancellationToken) {
    let Some(mut pace) = Pace::new(Instant::now(), run.scenario.c2d_rate_per_second, 0.0) else { return };
    let mut under_way = JoinSet::new();
    for (number, device) in (1..).zip(devices.iter().cycle()) {
        tokio::select! {
            () = stop.cancelled() => break,
            () = sleep_until(pace.deadline()) => {}
        }
        run.tally.add(Count::C2dWithheld, pace.advance(Instant::now()));
        while under_way.try_join_next().is_some() {}
        if under_way.len() >= UNDER_WAY_MAX {
            run.tally.add(Count::C2dWithheld, 1);
            continue;
        }
        let (run, device) = (run.clone(), device.clone());
        under_way.spawn(async move {
            let properties = [(RUN_PROPERTY, run.id.clone()), (NUMBER_PROPERTY, number.to_string())];
            run.tally.c2d_begun(number);
            let outcome = run.provisioner.send(&device, properties, run.scenario.payload(number)).await;
            run.tally.c2d_answered(number, outcome.map_err(|error| error.reason()));
        });
    }
    while under_way.join_next().await.is_some() {}
}

/// The number of a message of run `run`, from the topic it came on; `None` for any other message.
pub fn number(topic: &str, run: &str) -> Option<u64> {
    let (_, bag) = topic.rsplit_once('/')?;
    // Both values are plain letters and digits, so nothing of them is percent-encoded.
    let value = |name| bag.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    if value(RUN_PROPERTY)?.1 != run {
        return None;
    }
    value(NUMBER_PROPERTY)?.1.parse().ok()
}

const RUN_PROPERTY: &str = "sim-run";
const NUMBER_PROPERTY: &str = "sim-number";
/// Requests at a time; a hub slower than the pace is told as such, not buried.
const UNDER_WAY_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_runs_own_messages_are_known_by_their_properties() {
        let topic =
            "devices/sim-00001/messages/devicebound/%24.to=%2Fdevices%2Fsim-00001&sim-run=0a1b&sim-number=17";
        assert_eq!(number(topic, "0a1b"), Some(17));
        assert_eq!(number(topic, "ffff"), None);
    }

    #[test]
    fn other_messages_have_no_number() {
        for topic in [
            "",
            "devices/d/messages/devicebound/",
            "devices/d/messages/devicebound/sim-run=0a1b",
            "devices/d/messages/devicebound/sim-run=0a1b&sim-number=x",
        ] {
            assert_eq!(number(topic, "0a1b"), None, "{topic}");
        }
    }
}
