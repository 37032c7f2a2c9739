//! What a run shows while it goes on, on standard error: one living line on a terminal, else a plain line now and then.

use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::tally::{Count, Tally};

/// Shows `tally` until `ended`.
pub async fn show(tally: Arc<Tally>, ended: CancellationToken) {
    let living = stderr().is_terminal().then(ProgressBar::new_spinner);
    let mut ticks = interval(if living.is_some() { REDRAW_PERIOD } else { LINE_PERIOD });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let mut acknowledged = 0;
    loop {
        tokio::select! {
            () = ended.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let line = line(&tally, tally.count(Count::Acknowledged) - acknowledged, ticks.period());
        acknowledged = tally.count(Count::Acknowledged);
        match &living {
            Some(bar) => {
                bar.set_message(line);
                bar.tick();
            }
            None => eprintln!("{line}"),
        }
    }
    if let Some(bar) = living {
        bar.finish_and_clear();
    }
}

/// The state of the run in one line; `fresh` messages were acknowledged in the last `period`.
fn line(tally: &Tally, fresh: u64, period: Duration) -> String {
    let count = |what| tally.count(what);
    let mut line = format!(
        "{} devices, {} connected, {} sent, {} acknowledged, {:.1}/s",
        count(Count::Provisioned),
        count(Count::Connected),
        count(Count::Sent),
        count(Count::Acknowledged),
        fresh as f64 / period.as_secs_f64(),
    );
    if count(Count::C2dSent) > 0 {
        line += &format!(", c2d {} sent {} received", count(Count::C2dSent), count(Count::C2dReceived));
    }
    for (reason, times) in tally.reasons() {
        line += &format!(", {times}x {reason}");
    }
    line
}

const REDRAW_PERIOD: Duration = Duration::from_secs(1);
const LINE_PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_the_rate_and_what_went_wrong() {
        let tally = Tally::default();
        tally.connected(Duration::from_millis(1));
        tally.refused("timed out".into());
        let line = line(&tally, 25, Duration::from_secs(10));
        assert!(
            line.contains("1 connected") && line.contains("2.5/s") && line.contains("1x connect: timed out"),
            "{line}"
        );
    }
}
