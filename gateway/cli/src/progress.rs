//! The progress of a long operation on standard error: a progress bar on a terminal, else a plain line now and then.

use std::cell::Cell;
use std::fmt::Write;
use std::io::{IsTerminal, stderr};

use clap::Args;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressState, ProgressStyle};
use tokio::time::{Duration, Instant};

/// Whether to show progress.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct ProgressArgs {
    /// Show no progress
    #[arg(long)]
    no_progress: bool,
}

/// The unit that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Lines,
    Bytes,
}

/// A long operation that is running.
pub(super) struct Progress {
    doing: &'static str,
    unit: Unit,
    shown: Shown,
}

enum Shown {
    Living(ProgressBar),
    Lines(LineProgress),
    Not,
}

/// What plain lines are made of.
struct LineProgress {
    last: Cell<Instant>,
    began: Instant,
    /// How much was done before it started.
    before: Cell<Option<u64>>,
    total: Cell<Option<u64>>,
}

impl Progress {
    pub(super) fn begin(arguments: ProgressArgs, doing: &'static str, unit: Unit) -> Self {
        let shown = if arguments.no_progress {
            Shown::Not
        } else if stderr().is_terminal() {
            Shown::Living(ProgressBar::no_length().with_style(style(unit, false)).with_message(doing))
        } else {
            let now = Instant::now();
            Shown::Lines(LineProgress {
                last: Cell::new(now),
                began: now,
                before: Cell::new(None),
                total: Cell::new(None),
            })
        };
        Self { doing, unit, shown }
    }

    /// Sets how much there is to do.
    pub(super) fn expect(&self, total: u64) {
        match &self.shown {
            Shown::Living(bar) => {
                bar.set_style(style(self.unit, true));
                bar.set_length(total);
            }
            Shown::Lines(told) => told.total.set(Some(total)),
            Shown::Not => {}
        }
    }

    /// Whether the total is known, and so the time left.
    pub(super) fn is_bounded(&self) -> bool {
        match &self.shown {
            Shown::Living(bar) => bar.length().is_some(),
            Shown::Lines(told) => told.total.get().is_some(),
            Shown::Not => false,
        }
    }

    /// Shows how much is done. `note` may add something, or be empty.
    pub(super) fn at(&self, done: u64, note: &str) {
        match &self.shown {
            Shown::Living(bar) => {
                if bar.length().is_some_and(|length| length < done) {
                    bar.set_length(done);
                }
                bar.set_position(done);
                bar.set_prefix(note.to_owned());
            }
            Shown::Lines(told) => {
                if told.before.get().is_none() {
                    told.before.set(Some(done));
                }
                if told.last.get().elapsed() >= LINE_PERIOD {
                    told.last.set(Instant::now());
                    eprintln!("{}", told.line(self.doing, self.unit, done, note));
                }
            }
            Shown::Not => {}
        }
    }

    /// Prints a message without disturbing the progress bar.
    pub(super) fn print_status(&self, message: &str) {
        match &self.shown {
            Shown::Living(bar) => bar.suspend(|| eprintln!("{message}")),
            Shown::Lines(_) | Shown::Not => eprintln!("{message}"),
        }
    }
}

/// Removes the progress bar in every case.
impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Living(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

impl LineProgress {
    fn line(&self, doing: &str, unit: Unit, done: u64, note: &str) -> String {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let fresh = done.saturating_sub(self.before.get().unwrap_or_default());
        let rate = fresh as f64 / seconds;
        let mut line = format!("{doing}: {}", unit.text(done));
        if let Some(total) = self.total.get() {
            line += &format!(" of {}", unit.text(total));
        }
        line += &format!(", {}/s", unit.text(rate as u64));
        if let Some(left) = self.total.get().map(|total| total.saturating_sub(done)).filter(|_| rate >= 1.0) {
            line += &format!(", {} s left", (left as f64 / rate).ceil());
        }
        if !note.is_empty() {
            line += &format!(", {note}");
        }
        line
    }
}

impl Unit {
    fn text(self, amount: u64) -> String {
        match self {
            Unit::Lines => HumanCount(amount).to_string(),
            Unit::Bytes => HumanBytes(amount).to_string(),
        }
    }
}

fn style(unit: Unit, is_bounded: bool) -> ProgressStyle {
    let style = ProgressStyle::with_template(template(unit, is_bounded));
    style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key(
        "rate",
        |state: &ProgressState, to: &mut dyn Write| {
            let _ = write!(to, "{}/s", HumanCount(state.per_sec() as u64));
        },
    )
}

fn template(unit: Unit, is_bounded: bool) -> &'static str {
    match (unit, is_bounded) {
        (Unit::Lines, true) => "{msg} {human_pos} of {human_len} {bar:30} {rate}, {eta} left {prefix}",
        (Unit::Lines, false) => "{spinner} {msg} {human_pos} {rate} {prefix}",
        (Unit::Bytes, true) => "{msg} {bytes} of {total_bytes} {bar:30} {bytes_per_sec}, {eta} left {prefix}",
        (Unit::Bytes, false) => "{spinner} {msg} {bytes} {bytes_per_sec} {prefix}",
    }
}

const LINE_PERIOD: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_line_tells_how_far_how_fast_and_how_long_still() {
        let now = Instant::now();
        let told = LineProgress {
            last: Cell::new(now),
            began: now,
            before: Cell::new(Some(500)),
            total: Cell::new(Some(10_000)),
        };
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(
            told.line("importing", Unit::Lines, 1_500, "3 refused"),
            "importing: 1,500 of 10,000, 100/s, 85 s left, 3 refused"
        );
        told.total.set(None);
        assert_eq!(told.line("reading", Unit::Bytes, 500 + 20 * 1024, ""), "reading: 20.49 KiB, 2.00 KiB/s");
    }

    #[test]
    fn every_template_is_one() {
        for unit in [Unit::Lines, Unit::Bytes] {
            for is_bounded in [true, false] {
                assert!(ProgressStyle::with_template(template(unit, is_bounded)).is_ok());
            }
        }
    }
}
