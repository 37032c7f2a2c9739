//! The progress of a run on standard error: a panel on a terminal, else a plain line now and then.

use std::fmt::Write;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::series::{Sample, Series};
use crate::tally::{Count, Tally};

/// Shows the progress until `ended`.
pub async fn show(tally: Arc<Tally>, series: Arc<Series>, ended: CancellationToken) {
    let panel = stderr().is_terminal().then(|| ProgressBar::new_spinner().with_style(style()));
    let mut ticks = interval(if panel.is_some() { REDRAW_PERIOD } else { LINE_PERIOD });
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = ended.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let (phase, samples) = series.latest();
        let rates = Rates::between(samples);
        match &panel {
            Some(panel) => panel.set_message(render(&tally, &phase, &rates)),
            None => eprintln!("{}", line(&tally, &phase, &rates)),
        }
    }
    if let Some(panel) = panel {
        panel.finish_and_clear();
    }
}

/// The change between two samples, per second.
struct Rates {
    connects: f64,
    acknowledged: f64,
    c2d: f64,
    hostile: f64,
    /// Percentiles of the newer sample.
    newest: Sample,
}

impl Rates {
    fn between([older, newest]: [Sample; 2]) -> Self {
        let seconds = (newest.seconds - older.seconds).max(f64::MIN_POSITIVE);
        let rate = |of: fn(&Sample) -> u64| (of(&newest).saturating_sub(of(&older))) as f64 / seconds;
        Self {
            connects: rate(|sample| sample.connects),
            acknowledged: rate(|sample| sample.acknowledged),
            c2d: rate(|sample| sample.c2d_received),
            hostile: rate(|sample| sample.hostile),
            newest,
        }
    }
}

fn style() -> ProgressStyle {
    // If the template cannot be parsed, the plain style shows the message too.
    ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// The state of the run as a few lines.
fn render(tally: &Tally, phase: &str, rates: &Rates) -> String {
    let count = |what| tally.count(what);
    let Sample { seconds, connect_p99_ms, publish_p50_ms, publish_p99_ms, c2d_p50_ms, c2d_p99_ms, .. } =
        rates.newest;
    let mut text = format!(
        "{seconds:>6.0} s   phase {phase}\n\
         connected  {:>8} of {:<8} {:>8.1}/s        connect p99 {connect_p99_ms:.1} ms\n\
         telemetry  {:>8} acknowledged    {:>8.1}/s        publish p50 {publish_p50_ms:.1} p99 {publish_p99_ms:.1} ms\n",
        count(Count::Connected),
        count(Count::Provisioned),
        rates.connects,
        count(Count::Acknowledged),
        rates.acknowledged,
    );
    if count(Count::C2dSent) > 0 {
        let (received, rate) = (count(Count::C2dReceived), rates.c2d);
        let _ = writeln!(
            text,
            "c2d        {received:>8} received        {rate:>8.1}/s        round trip p50 {c2d_p50_ms:.1} p99 {c2d_p99_ms:.1} ms"
        );
    }
    if rates.newest.hostile > 0 {
        let _ =
            writeln!(text, "hostile    {:>8} attempts        {:>8.1}/s", rates.newest.hostile, rates.hostile);
    }
    for (reason, times) in tally.reasons().iter().take(REASONS_SHOWN) {
        let _ = writeln!(text, "error      {times:>8} x {reason}");
    }
    text
}

/// The state of the run as one line.
fn line(tally: &Tally, phase: &str, rates: &Rates) -> String {
    let count = |what| tally.count(what);
    let mut line = format!(
        "{:.0}s {phase}: {} devices, {} connected, {} sent, {} acknowledged, {:.1}/s, publish p99 {:.1} ms",
        rates.newest.seconds,
        count(Count::Provisioned),
        count(Count::Connected),
        count(Count::Sent),
        count(Count::Acknowledged),
        rates.acknowledged,
        rates.newest.publish_p99_ms,
    );
    if count(Count::C2dSent) > 0 {
        let (sent, received) = (count(Count::C2dSent), count(Count::C2dReceived));
        let _ = write!(line, ", c2d {sent} sent {received} received");
    }
    for (reason, times) in tally.reasons() {
        let _ = write!(line, ", {times}x {reason}");
    }
    line
}

const REDRAW_PERIOD: Duration = Duration::from_secs(1);
const LINE_PERIOD: Duration = Duration::from_secs(10);
/// More lines would scroll on a small terminal.
const REASONS_SHOWN: usize = 8;

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn tally() -> Tally {
        let tally = Tally::default();
        tally.connected(Instant::now(), Instant::now());
        tally.refused("timed out");
        tally
    }

    fn rates() -> Rates {
        let older = Sample { seconds: 10.0, acknowledged: 100, ..Sample::default() };
        Rates::between([older, Sample { seconds: 20.0, acknowledged: 125, ..older }])
    }

    #[test]
    fn a_line_tells_the_rate_and_what_went_wrong() {
        let line = line(&tally(), "steady", &rates());
        for part in ["20s steady", "1 connected", "2.5/s", "1x connect: timed out"] {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn the_panel_tells_the_same_and_leaves_out_what_does_not_happen() {
        let panel = render(&tally(), "steady", &rates());
        for part in ["phase steady", "2.5/s", "1 x connect: timed out"] {
            assert!(panel.contains(part), "{panel}");
        }
        assert!(!panel.contains("c2d") && !panel.contains("hostile"), "{panel}");
    }

    #[test]
    fn a_run_without_samples_has_rates_of_nothing() {
        assert_eq!(Rates::between([Sample::default(); 2]).acknowledged, 0.0);
    }
}
