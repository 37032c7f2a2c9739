//! What a run does: how many devices, how fast they talk, for how long. Checked once, before anything is touched.

use std::time::Duration;

use jiff::SignedDuration;
use portcullis_registry::id::{DeviceId, InvalidId};

/// One run of a fleet.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    pub devices: usize,
    /// What device ids begin with; a number follows.
    pub prefix: String,
    /// Telemetry messages a second from each device; 0 keeps them silent.
    pub rate_per_second: f64,
    /// How long telemetry is sent; `None` until told to stop.
    pub duration: Option<Duration>,
    pub payload_bytes: usize,
    /// Cloud-to-device messages a second, over the whole fleet.
    pub c2d_rate_per_second: f64,
    /// Whether devices that the run made stay in the registry.
    pub keep: bool,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum InvalidScenario {
    #[error("a fleet has 1 to {DEVICES_MAX} devices, not {0}")]
    Devices(usize),
    #[error("a message body has at most {PAYLOAD_BYTES_MAX} bytes, not {0}")]
    Payload(usize),
    #[error("the prefix makes no device ids")]
    Prefix(#[source] InvalidId),
}

/// Why a text is no rate or duration.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPace {
    #[error("a rate is a number from 0 to {RATE_PER_SECOND_MAX}")]
    Rate,
    #[error("a duration is a number with its unit, such as 60s or 5m")]
    Duration,
}

impl Scenario {
    /// The scenario itself if it can be run.
    pub fn check(self) -> Result<Self, InvalidScenario> {
        if !(1..=DEVICES_MAX).contains(&self.devices) {
            return Err(InvalidScenario::Devices(self.devices));
        }
        if self.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(InvalidScenario::Payload(self.payload_bytes));
        }
        self.device_ids().map_err(InvalidScenario::Prefix)?;
        Ok(self)
    }

    /// The ids of the fleet, always the same for the same scenario.
    pub fn device_ids(&self) -> Result<Vec<DeviceId>, InvalidId> {
        (1..=self.devices).map(|number| DeviceId::parse(&format!("{}-{number:05}", self.prefix))).collect()
    }

    /// The body of telemetry message `sequence`: a JSON reading padded with blanks to the scenario's size, or filler
    /// where a reading does not fit.
    pub fn payload(&self, sequence: u64) -> Vec<u8> {
        let reading =
            format!(r#"{{"sequence":{sequence},"temperature":{:.1}}}"#, 20.0 + (sequence % 50) as f64 / 10.0);
        let mut body = reading.into_bytes();
        if body.len() > self.payload_bytes {
            body.fill(b'x');
        }
        body.resize(self.payload_bytes, b' ');
        body
    }
}

/// A number of messages a second.
pub fn parse_rate(text: &str) -> Result<f64, InvalidPace> {
    let rate: f64 = text.parse().map_err(|_| InvalidPace::Rate)?;
    if !(0.0..=RATE_PER_SECOND_MAX).contains(&rate) {
        return Err(InvalidPace::Rate);
    }
    Ok(rate)
}

/// A time span above zero, such as `60s`, `5m` or `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidPace> {
    let signed: SignedDuration = text.parse().map_err(|_| InvalidPace::Duration)?;
    let duration = Duration::try_from(signed).map_err(|_| InvalidPace::Duration)?;
    if duration.is_zero() {
        return Err(InvalidPace::Duration);
    }
    Ok(duration)
}

/// What one process has file descriptors and memory for, generously.
const DEVICES_MAX: usize = 100_000;
/// Beyond this a device's own loop, not the hub, would be measured.
const RATE_PER_SECOND_MAX: f64 = 10_000.0;
/// IoT Hub: a telemetry message has at most 256 KiB, its properties included; 1 KiB is left for those.
const PAYLOAD_BYTES_MAX: usize = 255 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        Scenario {
            devices: 2,
            prefix: "sim".into(),
            rate_per_second: 1.0,
            duration: None,
            payload_bytes: 64,
            c2d_rate_per_second: 0.0,
            keep: false,
        }
    }

    #[test]
    fn ids_are_the_prefix_and_a_number() {
        let ids = scenario().device_ids().unwrap();
        assert_eq!(ids.iter().map(DeviceId::as_str).collect::<Vec<_>>(), ["sim-00001", "sim-00002"]);
    }

    #[test]
    fn only_fleets_that_can_be_are_accepted() {
        assert!(scenario().check().is_ok());
        assert!(matches!(Scenario { devices: 0, ..scenario() }.check(), Err(InvalidScenario::Devices(0))));
        assert!(matches!(
            Scenario { devices: 100_001, ..scenario() }.check(),
            Err(InvalidScenario::Devices(_))
        ));
        assert!(matches!(
            Scenario { payload_bytes: 262_144, ..scenario() }.check(),
            Err(InvalidScenario::Payload(_))
        ));
        for prefix in ["a/b", "a b", "a+", &"x".repeat(128)] {
            let outcome = Scenario { prefix: prefix.into(), ..scenario() }.check();
            assert!(matches!(outcome, Err(InvalidScenario::Prefix(_))), "{prefix}");
        }
    }

    #[test]
    fn a_body_has_exactly_its_size() {
        for payload_bytes in [0, 1, 30, 64, 1000] {
            assert_eq!(Scenario { payload_bytes, ..scenario() }.payload(7).len(), payload_bytes);
        }
        let body = scenario().payload(7);
        let reading: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(reading["sequence"], 7);
    }

    #[test]
    fn rates_are_finite_and_not_negative() {
        assert_eq!(parse_rate("0").unwrap(), 0.0);
        assert_eq!(parse_rate("0.1").unwrap(), 0.1);
        for text in ["", "-1", "NaN", "inf", "10001", "1/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration("60s").unwrap(), Duration::from_secs(60));
        assert_eq!(parse_duration("1h 30m").unwrap(), Duration::from_secs(5400));
        assert_eq!(parse_duration("250ms").unwrap(), Duration::from_millis(250));
        for text in ["", "60", "0s", "-5s", "forever"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
