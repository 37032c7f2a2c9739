//! What a run came to, as text for people and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::tally::{Count, Latencies, Tally};

/// The outcome of one run.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub devices: u64,
    pub ever_connected: u64,
    pub connect_failures: u64,
    pub dropped_connections: u64,
    /// How long telemetry was sent.
    pub seconds: f64,
    pub telemetry: Telemetry,
    pub c2d: C2d,
    pub connect_ms: Percentiles,
    /// From PUBLISH to PUBACK.
    pub publish_ms: Percentiles,
    /// What went wrong, by reason.
    pub reasons: BTreeMap<String, u64>,
}

/// Telemetry messages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Telemetry {
    pub sent: u64,
    pub acknowledged: u64,
    pub unacknowledged: u64,
    pub withheld: u64,
    pub acknowledged_per_second: f64,
}

/// Cloud-to-device messages.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct C2d {
    pub sent: u64,
    pub refused: u64,
    pub withheld: u64,
    pub received: u64,
    pub repeated: u64,
    /// From the REST request to the message at its device.
    pub round_trip_ms: Percentiles,
}

/// Milliseconds; all zero when nothing was measured.
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
    /// The report of a run of `devices` that sent telemetry for `sending`.
    pub fn new(devices: usize, sending: Duration, tally: &Tally) -> Self {
        let sent = tally.count(Count::Sent);
        let acknowledged = tally.count(Count::Acknowledged);
        let seconds = sending.as_secs_f64();
        Self {
            devices: devices as u64,
            ever_connected: tally.count(Count::EverConnected),
            connect_failures: tally.count(Count::ConnectFailures),
            dropped_connections: tally.count(Count::Dropped),
            seconds,
            telemetry: Telemetry {
                sent,
                acknowledged,
                unacknowledged: sent.saturating_sub(acknowledged),
                withheld: tally.count(Count::Withheld),
                acknowledged_per_second: if seconds > 0.0 { acknowledged as f64 / seconds } else { 0.0 },
            },
            c2d: C2d {
                sent: tally.count(Count::C2dSent),
                refused: tally.count(Count::C2dRefused),
                withheld: tally.count(Count::C2dWithheld),
                received: tally.count(Count::C2dReceived),
                repeated: tally.count(Count::C2dRepeated),
                round_trip_ms: Percentiles::of(&tally.round_trip_latencies()),
            },
            connect_ms: Percentiles::of(&tally.connect_latencies()),
            publish_ms: Percentiles::of(&tally.publish_latencies()),
            reasons: tally.reasons(),
        }
    }

    /// Whether every device connected at least once.
    pub fn all_connected(&self) -> bool {
        self.ever_connected == self.devices
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
        let Self { devices, ever_connected, telemetry, c2d, .. } = self;
        writeln!(f, "devices       {ever_connected} of {devices} connected")?;
        writeln!(
            f,
            "connections   {} dropped, {} attempts failed",
            self.dropped_connections, self.connect_failures
        )?;
        writeln!(
            f,
            "telemetry     {} sent, {} acknowledged, {} not; {} withheld; {:.1}/s over {:.1} s",
            telemetry.sent,
            telemetry.acknowledged,
            telemetry.unacknowledged,
            telemetry.withheld,
            telemetry.acknowledged_per_second,
            self.seconds
        )?;
        if c2d.sent + c2d.refused + c2d.withheld > 0 {
            writeln!(
                f,
                "c2d           {} sent, {} received, {} repeated; {} refused, {} withheld",
                c2d.sent, c2d.received, c2d.repeated, c2d.refused, c2d.withheld
            )?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:<14}{:>9}{:>9}{:>9}{:>9}{:>9}  of",
            "milliseconds", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, measured) in
            [("connect", self.connect_ms), ("publish", self.publish_ms), ("c2d", c2d.round_trip_ms)]
        {
            if measured.count > 0 {
                let Percentiles { count, p50, p90, p99, p999, max } = measured;
                writeln!(f, "{name:<14}{p50:>9.2}{p90:>9.2}{p99:>9.2}{p999:>9.2}{max:>9.2}  {count}")?;
            }
        }
        if !self.reasons.is_empty() {
            writeln!(f, "\nwhat went wrong")?;
            for (reason, times) in &self.reasons {
                writeln!(f, "{times:>9}  {reason}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        let tally = Tally::default();
        tally.add(Count::EverConnected, 2);
        tally.connected(Duration::from_millis(3));
        tally.add(Count::Sent, 10);
        for _ in 0..9 {
            tally.acknowledged(Duration::from_millis(2));
        }
        tally
    }

    #[test]
    fn rates_and_percentiles_come_from_the_tally() {
        let report = Report::new(2, Duration::from_secs(3), &tally());
        assert_eq!(report.telemetry.unacknowledged, 1);
        assert!((report.telemetry.acknowledged_per_second - 3.0).abs() < 1e-9);
        assert!((report.publish_ms.p99 - 2.0).abs() < 0.01);
        assert_eq!(report.publish_ms.count, 9);
    }

    #[test]
    fn a_device_that_never_connected_is_told() {
        assert!(Report::new(2, Duration::from_secs(3), &tally()).all_connected());
        assert!(!Report::new(3, Duration::from_secs(3), &tally()).all_connected());
    }

    #[test]
    fn a_run_of_no_length_has_a_report_too() {
        let report = Report::new(1, Duration::ZERO, &Tally::default());
        assert_eq!(report.telemetry.acknowledged_per_second, 0.0);
        assert!(!report.to_string().contains("NaN"));
    }

    #[test]
    fn the_text_tells_reasons_and_leaves_out_what_did_not_happen() {
        let tally = tally();
        tally.refused("refused: not authorized".into());
        let text = Report::new(2, Duration::from_secs(3), &tally).to_string();
        assert!(text.contains("1  connect: refused: not authorized"), "{text}");
        assert!(!text.contains("c2d"), "{text}");
    }

    #[test]
    fn the_json_has_camel_case_names() {
        let json = serde_json::to_value(Report::new(2, Duration::from_secs(3), &tally())).unwrap();
        assert_eq!(json["everConnected"], 2);
        assert_eq!(json["telemetry"]["acknowledged"], 9);
        assert_eq!(json["c2d"]["roundTripMs"]["count"], 0);
    }
}
