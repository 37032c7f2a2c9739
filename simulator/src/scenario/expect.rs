//! The expectations of a scenario: thresholds that are compared with the measurements.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::file::optional_duration;

/// The thresholds of a scenario. An absent one is not checked.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// The most messages, up or down, that one side accepted and the other did not receive.
    pub lost: Option<u64>,
    /// The most failures that the scenario did not cause.
    pub unexpected_errors: Option<u64>,
    /// The most identities that never connected.
    pub never_connected: Option<u64>,
    /// The most connections that the hub ended.
    pub dropped: Option<u64>,
    /// The most hostile attempts that the hub admitted.
    pub admitted: Option<u64>,
    /// From when a connection was due to CONNACK.
    #[serde(deserialize_with = "optional_duration")]
    pub connect_p99: Option<Duration>,
    /// From when a message was due to PUBACK.
    #[serde(deserialize_with = "optional_duration")]
    pub publish_p99: Option<Duration>,
    /// From when a message was due to its receipt.
    #[serde(deserialize_with = "optional_duration")]
    pub c2d_p99: Option<Duration>,
    /// How late this program itself was. Above it, the other times are not the hub's fault.
    #[serde(deserialize_with = "optional_duration")]
    pub lateness_p99: Option<Duration>,
}

/// The measurements to compare with the thresholds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Measured {
    pub lost: u64,
    pub unexpected_errors: u64,
    pub never_connected: u64,
    pub dropped: u64,
    pub admitted: u64,
    pub connect_p99_ms: f64,
    pub publish_p99_ms: f64,
    pub c2d_p99_ms: f64,
    pub lateness_p99_ms: f64,
}

/// One threshold and its measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    pub name: &'static str,
    /// A number, or milliseconds.
    pub at_most: f64,
    pub measured: f64,
    pub is_met: bool,
}

impl Expect {
    /// Whether there is no threshold.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every threshold with its verdict.
    pub fn judge(&self, measured: &Measured) -> Vec<Verdict> {
        let counts = [
            ("lost", self.lost, measured.lost),
            ("unexpected_errors", self.unexpected_errors, measured.unexpected_errors),
            ("never_connected", self.never_connected, measured.never_connected),
            ("dropped", self.dropped, measured.dropped),
            ("admitted", self.admitted, measured.admitted),
        ];
        let times = [
            ("connect_p99", self.connect_p99, measured.connect_p99_ms),
            ("publish_p99", self.publish_p99, measured.publish_p99_ms),
            ("c2d_p99", self.c2d_p99, measured.c2d_p99_ms),
            ("lateness_p99", self.lateness_p99, measured.lateness_p99_ms),
        ];
        let counts = counts.map(|(name, limit, value)| (name, limit.map(|limit| limit as f64), value as f64));
        let times =
            times.map(|(name, limit, value)| (name, limit.map(|limit| limit.as_secs_f64() * 1e3), value));
        let all = counts.into_iter().chain(times);
        all.filter_map(|(name, at_most, measured)| {
            let at_most = at_most?;
            Some(Verdict { name, at_most, measured, is_met: measured <= at_most })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_is_not_judged() {
        assert!(Expect::default().is_empty());
        assert!(Expect::default().judge(&Measured { lost: 9, ..Measured::default() }).is_empty());
    }

    #[test]
    fn a_threshold_holds_up_to_its_value() {
        let expect =
            Expect { lost: Some(0), publish_p99: Some(Duration::from_millis(50)), ..Expect::default() };
        let verdicts = |lost, publish_p99_ms| {
            let measured = Measured { lost, publish_p99_ms, ..Measured::default() };
            expect.judge(&measured).iter().map(|verdict| verdict.is_met).collect::<Vec<_>>()
        };
        assert_eq!(verdicts(0, 50.0), [true, true]);
        assert_eq!(verdicts(1, 50.1), [false, false]);
    }
}
