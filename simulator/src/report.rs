//! The result of a run, as text for people, as JSON for programs, and as a page with charts (`html`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::scenario::Scenario;
use crate::scenario::expect::{Expect, Measured, Verdict};
use crate::series::{Course, Series};
use crate::tally::{Count, Latencies, Tally, Timing};

mod chart;
mod html;

/// The outcome of one run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub scenario: String,
    pub description: String,
    pub seed: u64,
    /// Devices and modules.
    pub identities: u64,
    pub ever_connected: u64,
    /// Connections made.
    pub connects: u64,
    pub connect_failures: u64,
    pub dropped_connections: u64,
    /// Connections that the scenario broke.
    pub cut_connections: u64,
    /// How long the phases lasted.
    pub seconds: f64,
    pub telemetry: Telemetry,
    pub c2d: C2d,
    /// From when a connection was due to CONNACK.
    pub connect_ms: Percentiles,
    /// From the start of dialling to CONNACK.
    pub handshake_ms: Percentiles,
    /// From when a message was due to PUBACK.
    pub publish_ms: Percentiles,
    /// How late this program itself was.
    pub lateness_ms: Percentiles,
    pub hostile: Vec<HostileOutcome>,
    pub unexpected_errors: u64,
    /// The faults, by reason.
    pub reasons: BTreeMap<String, u64>,
    /// What this hub does not support.
    pub notes: Vec<String>,
    pub verdicts: Vec<Verdict>,
    pub course: Course,
}

/// Telemetry messages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    pub sent: u64,
    pub acknowledged: u64,
    pub unacknowledged: u64,
    pub resent: u64,
    /// Due while there was no connection.
    pub offline: u64,
    /// Due while the hub was slower than the pace.
    pub withheld: u64,
    pub acknowledged_per_second: f64,
}

/// Cloud-to-device messages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct C2d {
    pub sent: u64,
    pub refused: u64,
    /// Refused because the device's queue was full.
    pub full: u64,
    pub withheld: u64,
    pub received: u64,
    pub repeated: u64,
    /// From when a message was due to its receipt.
    pub round_trip_ms: Percentiles,
}

/// The results of hostile attempts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostileOutcome {
    pub kind: &'static str,
    pub outcome: &'static str,
    pub count: u64,
}

/// Milliseconds. All are zero if nothing was measured.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Report {
    /// The report of a run of `scenario` whose phases took `lasted`.
    pub fn new(scenario: &Scenario, lasted: Duration, tally: &Tally, series: &Series) -> Self {
        let count = |what| tally.count(what);
        let (sent, acknowledged) = (count(Count::Sent), count(Count::Acknowledged));
        let seconds = lasted.as_secs_f64();
        let percentiles = |timing| Percentiles::of(&tally.latencies(timing));
        let hostile = tally.hostile_outcomes().into_iter();
        let mut report = Self {
            scenario: scenario.name.clone(),
            description: scenario.description.clone(),
            seed: scenario.seed,
            identities: scenario.fleet.size() as u64,
            ever_connected: count(Count::EverConnected),
            connects: count(Count::Connects),
            connect_failures: count(Count::ConnectFailures),
            dropped_connections: count(Count::Dropped),
            cut_connections: count(Count::Cut),
            seconds,
            telemetry: Telemetry {
                sent,
                acknowledged,
                unacknowledged: sent.saturating_sub(acknowledged),
                resent: count(Count::Resent),
                offline: count(Count::Offline),
                withheld: count(Count::Withheld),
                acknowledged_per_second: if seconds > 0.0 { acknowledged as f64 / seconds } else { 0.0 },
            },
            c2d: C2d {
                sent: count(Count::C2dSent),
                refused: count(Count::C2dRefused),
                full: count(Count::C2dFull),
                withheld: count(Count::C2dWithheld),
                received: count(Count::C2dReceived),
                repeated: count(Count::C2dRepeated),
                round_trip_ms: percentiles(Timing::RoundTrip),
            },
            connect_ms: percentiles(Timing::Connect),
            handshake_ms: percentiles(Timing::Handshake),
            publish_ms: percentiles(Timing::Publish),
            lateness_ms: percentiles(Timing::Lateness),
            hostile: hostile
                .map(|((kind, outcome), count)| HostileOutcome { kind, outcome: outcome.label(), count })
                .collect(),
            unexpected_errors: count(Count::Unexpected),
            reasons: tally.reasons(),
            notes: tally.notes(),
            verdicts: Vec::new(),
            course: series.course(),
        };
        report.verdicts = match scenario.expect.is_empty() {
            true => Expect { never_connected: Some(0), ..Expect::default() }.judge(&report.measured()),
            false => scenario.expect.judge(&report.measured()),
        };
        report
    }

    /// Whether the run meets every expectation of the scenario. Without expectations: whether all identities connected.
    pub fn is_as_expected(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.is_met)
    }

    /// Messages that one side accepted and the other did not receive.
    pub fn lost(&self) -> u64 {
        self.telemetry.unacknowledged + self.c2d.sent.saturating_sub(self.c2d.received)
    }

    fn measured(&self) -> Measured {
        let admitted = self.hostile.iter().filter(|hostile| hostile.outcome == "admitted");
        Measured {
            lost: self.lost(),
            unexpected_errors: self.unexpected_errors,
            never_connected: self.identities.saturating_sub(self.ever_connected),
            dropped: self.dropped_connections,
            admitted: admitted.map(|hostile| hostile.count).sum(),
            connect_p99_ms: self.connect_ms.p99,
            publish_p99_ms: self.publish_ms.p99,
            c2d_p99_ms: self.c2d.round_trip_ms.p99,
            lateness_p99_ms: self.lateness_ms.p99,
        }
    }

    /// What was measured, by name.
    fn timings(&self) -> [(&'static str, Percentiles); 5] {
        [
            ("connect", self.connect_ms),
            ("  from dialling", self.handshake_ms),
            ("publish", self.publish_ms),
            ("c2d", self.c2d.round_trip_ms),
            ("own lateness", self.lateness_ms),
        ]
    }
}

impl Percentiles {
    fn of(latencies: &Latencies) -> Self {
        let at = |percent| latencies.percentile_ms(percent);
        Self {
            count: latencies.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: at(100.0),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { identities, ever_connected, telemetry, c2d, .. } = self;
        if !self.scenario.is_empty() {
            writeln!(f, "scenario         {}, seed {}, {:.1} s", self.scenario, self.seed, self.seconds)?;
        }
        writeln!(f, "devices, modules {ever_connected} of {identities} connected")?;
        writeln!(
            f,
            "connections      {} made, {} attempts failed, {} dropped, {} cut by the scenario",
            self.connects, self.connect_failures, self.dropped_connections, self.cut_connections
        )?;
        writeln!(
            f,
            "telemetry        {} sent, {} acknowledged, {} not, {} sent again; {} due while offline, {} withheld; {:.1}/s",
            telemetry.sent,
            telemetry.acknowledged,
            telemetry.unacknowledged,
            telemetry.resent,
            telemetry.offline,
            telemetry.withheld,
            telemetry.acknowledged_per_second
        )?;
        if c2d.sent + c2d.refused + c2d.full + c2d.withheld > 0 {
            writeln!(
                f,
                "c2d              {} sent, {} received, {} repeated; {} to full queues, {} refused, {} withheld",
                c2d.sent, c2d.received, c2d.repeated, c2d.full, c2d.refused, c2d.withheld
            )?;
        }
        for HostileOutcome { kind, outcome, count } in &self.hostile {
            writeln!(f, "{kind:<17}{count} {outcome}")?;
        }
        writeln!(
            f,
            "\n{:<17}{:>9}{:>9}{:>9}{:>9}{:>9}  of",
            "milliseconds", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, measured) in self.timings().iter().filter(|(_, measured)| measured.count > 0) {
            let Percentiles { count, p50, p90, p99, p999, max } = measured;
            writeln!(f, "{name:<17}{p50:>9.2}{p90:>9.2}{p99:>9.2}{p999:>9.2}{max:>9.2}  {count}")?;
        }
        if !self.reasons.is_empty() {
            writeln!(f, "\nwhat went wrong")?;
            for (reason, times) in &self.reasons {
                writeln!(f, "{times:>9}  {reason}")?;
            }
        }
        for note in &self.notes {
            writeln!(f, "\nnote: {note}")?;
        }
        if !self.verdicts.is_empty() {
            writeln!(f, "\nexpected")?;
            for Verdict { name, at_most, measured, is_met } in &self.verdicts {
                let word = if *is_met { "met" } else { "NOT MET" };
                writeln!(f, "{word:>9}  {name} {measured} <= {at_most}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::scenario::{FleetSpec, Phase};
    use crate::tally::Outcome;

    fn tally() -> Tally {
        let tally = Tally::default();
        tally.add(Count::EverConnected, 2);
        tally.connected(Instant::now(), Instant::now());
        tally.add(Count::Sent, 10);
        for _ in 0..9 {
            tally.acknowledged(Instant::now() - Duration::from_millis(2));
        }
        tally
    }

    fn report(devices: usize, lasted: Duration, tally: &Tally) -> Report {
        let fleet = FleetSpec { devices, ..FleetSpec::default() };
        let scenario = Scenario { fleet, phases: vec![Phase::default()], ..Scenario::default() };
        Report::new(&scenario, lasted, tally, &Series::default())
    }

    #[test]
    fn rates_and_percentiles_come_from_the_tally() {
        let report = report(2, Duration::from_secs(3), &tally());
        assert_eq!(report.telemetry.unacknowledged, 1);
        assert_eq!(report.lost(), 1);
        assert!((report.telemetry.acknowledged_per_second - 3.0).abs() < 1e-9);
        assert!(report.publish_ms.p50 >= 2.0);
        assert_eq!(report.publish_ms.count, 9);
    }

    #[test]
    fn without_a_word_everybody_is_expected_to_connect() {
        assert!(report(2, Duration::from_secs(3), &tally()).is_as_expected());
        assert!(!report(3, Duration::from_secs(3), &tally()).is_as_expected());
    }

    #[test]
    fn a_threshold_that_is_not_met_is_told() {
        let mut scenario = Scenario { phases: vec![Phase::default()], ..Scenario::default() };
        scenario.expect.lost = Some(0);
        let report = Report::new(&scenario, Duration::from_secs(1), &tally(), &Series::default());
        assert!(!report.is_as_expected());
        assert!(report.to_string().contains("NOT MET  lost 1 <= 0"), "{report}");
    }

    #[test]
    fn a_run_of_no_length_has_a_report_too() {
        let report = report(1, Duration::ZERO, &Tally::default());
        assert_eq!(report.telemetry.acknowledged_per_second, 0.0);
        assert!(!report.to_string().contains("NaN"));
    }

    #[test]
    fn the_text_tells_reasons_and_leaves_out_what_did_not_happen() {
        let tally = tally();
        tally.refused("refused: not authorized");
        tally.hostile("junk", Outcome::Closed);
        let text = report(2, Duration::from_secs(3), &tally).to_string();
        assert!(text.contains("1  connect: refused: not authorized"), "{text}");
        assert!(text.contains("junk             1 closed"), "{text}");
        assert!(!text.contains("c2d"), "{text}");
    }

    #[test]
    fn the_json_has_camel_case_names() {
        let json = serde_json::to_value(report(2, Duration::from_secs(3), &tally())).unwrap();
        assert_eq!(json["everConnected"], 2);
        assert_eq!(json["telemetry"]["acknowledged"], 9);
        assert_eq!(json["c2d"]["roundTripMs"]["count"], 0);
        assert!(json["course"]["samples"].is_array());
    }
}
