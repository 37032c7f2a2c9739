//! The service side of a run: sends cloud-to-device messages over REST at a steady pace, to one device after another.
//!
//! A message has the id of its run and its number as properties, so that a device can recognise the run's own messages.
//! If the hub offers it, as Portcullis does, messages that are due at the same time go in one request. Otherwise each
//! goes in its own. If the hub accepts no messages over REST, the report says so.

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::fleet::Run;
use crate::pacing::Pace;
use crate::rest::{C2dOrder, SendError};
use crate::tally::{Count, Timing, Unsent};

/// Sends `rate_per_second` messages of `bytes` to `receivers` in turn, from `start` until it is dropped or the hub does
/// not accept messages. `under_way` waits for the answers that are still outstanding at the end.
pub async fn send(
    run: &Run,
    receivers: Vec<usize>,
    start: Instant,
    (rate_per_second, bytes): (f64, usize),
    under_way: &mut JoinSet<()>,
) {
    let Some(mut pace) = Pace::new(start, rate_per_second, 0.0) else { return };
    if receivers.is_empty() {
        return;
    }
    if !run.access.has_service() {
        return run
            .tally
            .note("no cloud-to-device messages were sent, because there is no policy to send them with");
    }
    let mut turns = receivers.into_iter().cycle();
    loop {
        sleep_until(pace.deadline()).await;
        while under_way.try_join_next().is_some() {}
        if !run.rest.takes_c2d() {
            return;
        }
        let now = Instant::now();
        let mut orders = Vec::new();
        while pace.deadline() <= now && orders.len() < C2dOrder::AT_ONCE_MAX {
            let due = pace.deadline();
            run.tally.add(Count::C2dWithheld, pace.advance_late(now, BACKLOG_MAX));
            run.tally.time(Timing::Lateness, now - due);
            let Some(receiver) = turns.next() else { return };
            let number = run.next_message();
            orders.push(C2dOrder {
                number,
                due,
                to: run.identities[receiver].clone(),
                run: run.id.clone(),
                body: run.schedule.payload(receiver, number, bytes),
            });
        }
        if orders.is_empty() {
            continue;
        }
        if under_way.len() >= UNDER_WAY_MAX {
            run.tally.add(Count::C2dWithheld, orders.len() as u64);
            continue;
        }
        under_way.spawn(hand_over(run.clone(), orders));
    }
}

async fn hand_over(run: Run, orders: Vec<C2dOrder>) {
    for order in &orders {
        run.tally.c2d_begun(order.number, order.due);
    }
    let results = run.rest.send_c2d(&orders).await;
    for (order, result) in orders.iter().zip(results) {
        run.tally.c2d_answered(
            order.number,
            result.map_err(|error| match error {
                SendError::Full => Unsent::Full,
                SendError::NotOffered => {
                    run.tally.note("no cloud-to-device messages were sent, because this hub does not accept them over REST");
                    Unsent::Withheld
                }
                SendError::Failed(reason) => Unsent::Refused(reason),
            }),
        );
    }
    run.eased();
}

/// The number of a message of run `run`, from the topic it came on; `None` for any other message.
pub fn number(topic: &str, run: &str) -> Option<u64> {
    let (_, bag) = topic.rsplit_once('/')?;
    // Both values are letters and digits, so neither is percent-encoded.
    let value = |name| bag.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name);
    if value(RUN_PROPERTY)?.1 != run {
        return None;
    }
    value(NUMBER_PROPERTY)?.1.parse().ok()
}

pub const RUN_PROPERTY: &str = "sim-run";
pub const NUMBER_PROPERTY: &str = "sim-number";
/// The most requests at once. If the hub is slower than the pace, the report says so.
const UNDER_WAY_MAX: usize = 64;
/// The most late messages at once. Further messages are withheld and counted.
const BACKLOG_MAX: u64 = 200;

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
