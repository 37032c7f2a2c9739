//! Figures of many rounds, side by side: the medians and their ratios to the first server's, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Value, json};

use crate::table::median;

/// The measures, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Measure {
    ConnectCpu,
    ConnectRate,
    BaseMemory,
    IdleMemory,
    TelemetryCpu,
    TelemetryRate,
    TelemetryLost,
    UnicastCpu,
    UnicastRate,
    UnicastP50,
    UnicastP99,
    SingleCpu,
    SingleRate,
}

/// The figures of one server in one round.
pub type Figures = BTreeMap<Measure, f64>;

/// All figures of one server.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub rounds: Vec<Figures>,
}

impl Measure {
    /// Name and unit.
    pub fn label(self) -> &'static str {
        match self {
            Measure::ConnectCpu => "TLS connect with credentials: server CPU, µs",
            Measure::ConnectRate => "TLS connects a second",
            Measure::BaseMemory => "memory before the first connection, MiB",
            Measure::IdleMemory => "memory of an idle connection, KiB",
            Measure::TelemetryCpu => "telemetry to one subscriber: server CPU a message, µs",
            Measure::TelemetryRate => "telemetry, messages a second",
            Measure::TelemetryLost => "telemetry acknowledged and never delivered, messages",
            Measure::UnicastCpu => "one publisher to 1,000 devices: server CPU a message, µs",
            Measure::UnicastRate => "one publisher to 1,000 devices, messages a second",
            Measure::UnicastP50 => "one message at a time, 100 a second: p50, ms",
            Measure::UnicastP99 => "one message at a time, 100 a second: p99, ms",
            Measure::SingleCpu => "each message a REST call: server CPU, µs",
            Measure::SingleRate => "each message a REST call, 64 at once, messages a second",
        }
    }

    fn key(self) -> String {
        format!("{self:?}")
    }
}

impl Column {
    /// The median over the rounds that have the measure.
    pub fn median(&self, measure: Measure) -> Option<f64> {
        let values: Vec<f64> = self.rounds.iter().filter_map(|round| round.get(&measure)).copied().collect();
        (!values.is_empty()).then(|| median(values))
    }
}

/// A Markdown table of medians. In brackets is the ratio to the first column.
pub fn table(columns: &[Column]) -> String {
    let mut text = String::from("| |");
    for column in columns {
        let _ = write!(text, " {} |", column.name);
    }
    text.push_str("\n|---|");
    text.push_str(&"---:|".repeat(columns.len()));
    text.push('\n');
    for measure in measures(columns) {
        let first = columns.first().and_then(|column| column.median(measure));
        let _ = write!(text, "| {} |", measure.label());
        for (place, column) in columns.iter().enumerate() {
            let cell = match (column.median(measure), first) {
                (None, _) => "-".to_owned(),
                (Some(value), Some(first)) if place > 0 && first > 0.0 => {
                    format!("{} ({:.2}x)", shown(value), value / first)
                }
                (Some(value), _) => shown(value),
            };
            let _ = write!(text, " {cell} |");
        }
        text.push('\n');
    }
    text
}

/// Every figure of every round, and the medians.
pub fn to_json(columns: &[Column]) -> Value {
    let servers = columns.iter().map(|column| {
        let rounds = column.rounds.iter().map(|round| {
            round.iter().map(|(measure, value)| (measure.key(), json!(value))).collect::<Value>()
        });
        let medians = measures(columns)
            .into_iter()
            .filter_map(|measure| Some((measure.key(), json!(column.median(measure)?))))
            .collect::<Value>();
        json!({ "name": column.name, "medians": medians, "rounds": rounds.collect::<Vec<_>>() })
    });
    servers.collect()
}

/// The measures that any column has.
fn measures(columns: &[Column]) -> Vec<Measure> {
    let rounds = columns.iter().flat_map(|column| &column.rounds);
    let all: BTreeMap<Measure, ()> = rounds.flatten().map(|(measure, _)| (*measure, ())).collect();
    all.into_keys().collect()
}

/// At most three significant digits.
fn shown(value: f64) -> String {
    match value {
        value if value >= 100.0 || value == 0.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, values: &[f64]) -> Column {
        let rounds = values.iter().map(|value| Figures::from([(Measure::ConnectCpu, *value)])).collect();
        Column { name: name.into(), rounds }
    }

    #[test]
    fn ratios_are_to_the_first_column_and_what_nobody_measured_is_no_row() {
        let mut own = column("own", &[200.0, 100.0, 300.0]);
        own.rounds[0].insert(Measure::TelemetryCpu, 5.0);
        let text = table(&[own, column("other", &[500.0, 500.0])]);
        let rows: Vec<&str> = text.lines().collect();
        assert_eq!(rows[0], "| | own | other |");
        assert_eq!(rows[1], "|---|---:|---:|");
        assert_eq!(rows[2], format!("| {} | 200 | 500 (2.50x) |", Measure::ConnectCpu.label()));
        assert_eq!(rows[3], format!("| {} | 5.00 | - |", Measure::TelemetryCpu.label()));
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn json_has_every_round_and_the_medians() {
        let value = to_json(&[column("own", &[9.0, 3.0, 2.0])]);
        assert_eq!(value[0]["medians"]["ConnectCpu"], 3.0);
        assert_eq!(value[0]["rounds"][1]["ConnectCpu"], 3.0);
    }
}
