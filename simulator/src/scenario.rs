//! A scenario: the fleet, the phases in order, and the expectations. It is checked once, before the run starts.
//!
//! A scenario is a TOML file (`file`); common ones are built in (`builtin`). A phase says how much of the fleet is
//! connected and what else happens at the same time.

use std::time::Duration;

use jiff::SignedDuration;
use portcullis_registry::id::{DeviceId, IdentityId, InvalidId, ModuleId};
use serde::Deserialize;

pub mod builtin;
pub mod expect;
pub mod file;

use expect::Expect;
use file::{duration, optional_duration};

/// One run of a fleet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Scenario {
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The same seed makes the same ids, schedule and payloads.
    pub seed: u64,
    pub fleet: FleetSpec,
    #[serde(rename = "phase")]
    pub phases: Vec<Phase>,
    pub expect: Expect,
}

/// The fleet of a scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetSpec {
    pub devices: usize,
    /// The beginning of every device id; a number follows.
    pub prefix: String,
    /// Modules under each device. Each has its own connection.
    pub modules_per_device: usize,
    pub credentials: Credentials,
    /// How many addresses of this machine the connections come from. Used only if the hub is on this machine too.
    pub source_addresses: usize,
    #[serde(deserialize_with = "duration")]
    pub keep_alive: Duration,
    /// The most TLS handshakes at once. Other devices wait for their turn.
    pub connecting_max: usize,
    /// Whether a device resumes its TLS session when it reconnects. The SDKs do not; some embedded clients do.
    pub resumption: bool,
    /// How long a device waits after a lost connection; doubles with each failure up to `retry_max`.
    #[serde(deserialize_with = "duration")]
    pub retry_min: Duration,
    #[serde(deserialize_with = "duration")]
    pub retry_max: Duration,
    /// Whether identities that the run created stay in the registry.
    pub keep: bool,
}

/// The kinds of credentials of devices and modules, as parts of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// A shared key.
    #[serde(default)]
    pub sas: f64,
    /// A certificate with a registered thumbprint.
    #[serde(default)]
    pub thumbprint: f64,
    /// A certificate of an enrolled CA.
    #[serde(default)]
    pub authority: f64,
}

/// A phase of the run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Phase {
    pub name: String,
    /// How long the phase lasts; none means until Ctrl-C, and is allowed for the last phase only.
    #[serde(deserialize_with = "optional_duration")]
    pub duration: Option<Duration>,
    /// The part of the fleet that is connected, 0 to 1.
    pub connected: f64,
    /// The time over which devices connect or disconnect evenly; 0 means all at once.
    #[serde(deserialize_with = "duration")]
    pub connect_over: Duration,
    /// Whether the phase lasts until every device that should connect has tried at least once.
    pub settle: bool,
    /// Telemetry messages a second from each connected identity.
    pub telemetry_per_second: f64,
    pub payload_bytes: usize,
    /// Cloud-to-device messages a second, over the whole fleet.
    pub c2d_per_second: f64,
    /// The part of the fleet that loses its connection at the start of the phase and reconnects at once.
    pub herd: f64,
    pub flapping: Option<Flapping>,
    /// The part of the fleet that stops reading.
    pub slow_readers: f64,
    pub hostile: Hostile,
}

/// Connections that break again and again.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flapping {
    /// The part of the fleet.
    pub share: f64,
    /// The time between two breaks. The device is away for half of it.
    #[serde(deserialize_with = "duration")]
    pub period: Duration,
}

/// Hostile attempts a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Hostile {
    /// Passwords that are not a token, or an expired one.
    pub bad_tokens: f64,
    /// Valid tokens, signed with a wrong key.
    pub wrong_keys: f64,
    /// Random bytes instead of TLS.
    pub junk: f64,
    /// TLS handshakes that stop halfway.
    pub half_handshakes: f64,
}

/// Why a scenario cannot run.
#[derive(Debug, thiserror::Error)]
pub enum InvalidScenario {
    #[error("a fleet must have 1 to {DEVICES_MAX} devices and modules, not {0}")]
    Devices(usize),
    #[error("a message body may have at most {PAYLOAD_BYTES_MAX} bytes, not {0}")]
    Payload(usize),
    #[error("the prefix is not a valid beginning of device ids")]
    Prefix(#[source] InvalidId),
    #[error("a scenario must have at least one phase")]
    NoPhase,
    #[error("phase {0:?} has no duration; only the last phase may run until Ctrl-C")]
    NoEnd(String),
    #[error("{name} = {value} must be between 0 and {max}")]
    Range { name: &'static str, value: f64, max: f64 },
    #[error("{name} must be a number from {min} to {max}")]
    Count { name: &'static str, min: usize, max: usize },
    #[error("the parts of fleet.credentials are all 0; set at least one")]
    NoCredential,
    #[error("{0} must be above 0 and at most a day")]
    Time(&'static str),
}

/// Why a text is not a rate or a duration.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPace {
    #[error("a rate must be a number from 0 to {RATE_PER_SECOND_MAX}")]
    Rate,
    #[error("a duration must be a number with its unit, for example 60s or 5m")]
    Duration,
}

impl Default for FleetSpec {
    fn default() -> Self {
        Self {
            devices: 100,
            prefix: "sim".into(),
            modules_per_device: 0,
            credentials: Credentials { sas: 1.0, thumbprint: 0.0, authority: 0.0 },
            source_addresses: 4,
            keep_alive: Duration::from_secs(180),
            connecting_max: 64,
            resumption: false,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            keep: false,
        }
    }
}

impl Default for Phase {
    fn default() -> Self {
        Self {
            name: "steady".into(),
            duration: None,
            connected: 1.0,
            connect_over: Duration::ZERO,
            settle: false,
            telemetry_per_second: 0.0,
            payload_bytes: 64,
            c2d_per_second: 0.0,
            herd: 0.0,
            flapping: None,
            slow_readers: 0.0,
            hostile: Hostile::default(),
        }
    }
}

impl Scenario {
    /// The scenario itself, if it can run.
    pub fn check(self) -> Result<Self, InvalidScenario> {
        self.fleet.check()?;
        let Some((_, all_but_last)) = self.phases.split_last() else { return Err(InvalidScenario::NoPhase) };
        if let Some(endless) = all_but_last.iter().find(|phase| phase.duration.is_none()) {
            return Err(InvalidScenario::NoEnd(endless.name.clone()));
        }
        self.phases.iter().try_for_each(Phase::check)?;
        Ok(self)
    }

    /// The identities of the fleet, always the same for the same scenario: each device, then its modules.
    pub fn identities(&self) -> Result<Vec<IdentityId>, InvalidId> {
        let FleetSpec { devices, prefix, modules_per_device, .. } = &self.fleet;
        let mut identities = Vec::with_capacity(self.fleet.size());
        for number in 1..=*devices {
            let device = DeviceId::parse(&format!("{prefix}-{number:05}"))?;
            identities.push(IdentityId::device(device.clone()));
            for module in 1..=*modules_per_device {
                let module = ModuleId::parse(&format!("m{module}"))?;
                identities.push(IdentityId::module(device.clone(), module));
            }
        }
        Ok(identities)
    }

    /// The longest time of the phases if none has to wait; `None` if the last has no end.
    pub fn duration(&self) -> Option<Duration> {
        self.phases.iter().map(|phase| phase.duration).sum()
    }
}

impl FleetSpec {
    /// Devices and modules.
    pub fn size(&self) -> usize {
        self.devices.saturating_mul(self.modules_per_device.saturating_add(1))
    }

    fn check(&self) -> Result<(), InvalidScenario> {
        if !(1..=DEVICES_MAX).contains(&self.size()) {
            return Err(InvalidScenario::Devices(self.size()));
        }
        count("fleet.modules_per_device", self.modules_per_device, 0, MODULES_MAX)?;
        count("fleet.source_addresses", self.source_addresses, 1, SOURCE_ADDRESSES_MAX)?;
        count("fleet.connecting_max", self.connecting_max, 1, DEVICES_MAX)?;
        DeviceId::parse(&format!("{}-{:05}", self.prefix, self.devices)).map_err(InvalidScenario::Prefix)?;
        let Credentials { sas, thumbprint, authority } = self.credentials;
        for part in [sas, thumbprint, authority] {
            range("a part of fleet.credentials", part, RATE_PER_SECOND_MAX)?;
        }
        if sas + thumbprint + authority <= 0.0 {
            return Err(InvalidScenario::NoCredential);
        }
        time("fleet.retry_min", self.retry_min)?;
        time("fleet.retry_max", self.retry_max)?;
        // MQTT has sixteen bits for it.
        time("fleet.keep_alive", self.keep_alive.max(Duration::from_millis(1)))?;
        count("fleet.keep_alive in seconds", self.keep_alive.as_secs() as usize, 0, usize::from(u16::MAX))
    }
}

impl Phase {
    fn check(&self) -> Result<(), InvalidScenario> {
        if self.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(InvalidScenario::Payload(self.payload_bytes));
        }
        if let Some(duration) = self.duration {
            time("a phase's duration", duration)?;
        }
        time("connect_over", self.connect_over.max(Duration::from_millis(1)))?;
        range("connected", self.connected, 1.0)?;
        range("herd", self.herd, 1.0)?;
        range("slow_readers", self.slow_readers, 1.0)?;
        if let Some(flapping) = self.flapping {
            range("flapping.share", flapping.share, 1.0)?;
            time("flapping.period", flapping.period)?;
        }
        let Hostile { bad_tokens, wrong_keys, junk, half_handshakes } = self.hostile;
        let rates = [
            ("telemetry_per_second", self.telemetry_per_second),
            ("c2d_per_second", self.c2d_per_second),
            ("hostile.bad_tokens", bad_tokens),
            ("hostile.wrong_keys", wrong_keys),
            ("hostile.junk", junk),
            ("hostile.half_handshakes", half_handshakes),
        ];
        rates.into_iter().try_for_each(|(name, rate)| range(name, rate, RATE_PER_SECOND_MAX))
    }
}

fn range(name: &'static str, value: f64, max: f64) -> Result<(), InvalidScenario> {
    // NaN is in no range.
    if (0.0..=max).contains(&value) { Ok(()) } else { Err(InvalidScenario::Range { name, value, max }) }
}

fn count(name: &'static str, value: usize, min: usize, max: usize) -> Result<(), InvalidScenario> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(InvalidScenario::Count { name, min, max }) }
}

fn time(name: &'static str, value: Duration) -> Result<(), InvalidScenario> {
    if value.is_zero() || value > TIME_MAX { Err(InvalidScenario::Time(name)) } else { Ok(()) }
}

/// A number of messages a second.
pub fn parse_rate(text: &str) -> Result<f64, InvalidPace> {
    let rate: f64 = text.parse().map_err(|_| InvalidPace::Rate)?;
    if !(0.0..=RATE_PER_SECOND_MAX).contains(&rate) {
        return Err(InvalidPace::Rate);
    }
    Ok(rate)
}

/// A duration above zero, such as `60s`, `5m` or `1h 30m`.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidPace> {
    let signed: SignedDuration = text.parse().map_err(|_| InvalidPace::Duration)?;
    let duration = Duration::try_from(signed).map_err(|_| InvalidPace::Duration)?;
    if duration.is_zero() {
        return Err(InvalidPace::Duration);
    }
    Ok(duration)
}

/// One process has enough file descriptors and memory for this many.
const DEVICES_MAX: usize = 100_000;
/// IoT Hub's own limit is 50. Portcullis's default is 20.
const MODULES_MAX: usize = 50;
/// Most of a /24 of 127.0.0.0/8.
const SOURCE_ADDRESSES_MAX: usize = 200;
/// Above this rate a run would measure the device's own loop, not the hub.
const RATE_PER_SECOND_MAX: f64 = 100_000.0;
/// IoT Hub: a telemetry message has at most 256 KiB, its properties included; 1 KiB is left for those.
const PAYLOAD_BYTES_MAX: usize = 255 * 1024;
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario() -> Scenario {
        let fleet = FleetSpec { devices: 2, ..FleetSpec::default() };
        Scenario { fleet, phases: vec![Phase::default()], ..Scenario::default() }
    }

    fn checked(change: impl Fn(&mut Scenario)) -> Result<Scenario, InvalidScenario> {
        let mut scenario = scenario();
        change(&mut scenario);
        scenario.check()
    }

    #[test]
    fn ids_are_the_prefix_and_a_number_and_modules_follow_their_device() {
        let names = |scenario: &Scenario| {
            scenario.identities().unwrap().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(&scenario()), ["sim-00001", "sim-00002"]);
        let tree = checked(|scenario| scenario.fleet.modules_per_device = 2).unwrap();
        assert_eq!(names(&tree)[..4], ["sim-00001", "sim-00001/m1", "sim-00001/m2", "sim-00002"]);
    }

    #[test]
    fn only_fleets_that_can_be_are_accepted() {
        assert!(scenario().check().is_ok());
        assert!(matches!(checked(|s| s.fleet.devices = 0), Err(InvalidScenario::Devices(0))));
        assert!(matches!(checked(|s| s.fleet.devices = 100_001), Err(InvalidScenario::Devices(_))));
        assert!(matches!(
            checked(|s| s.fleet.modules_per_device = usize::MAX),
            Err(InvalidScenario::Devices(_))
        ));
        assert!(matches!(checked(|s| s.fleet.source_addresses = 0), Err(InvalidScenario::Count { .. })));
        assert!(matches!(checked(|s| s.fleet.credentials.sas = 0.0), Err(InvalidScenario::NoCredential)));
        for prefix in ["a/b", "a b", "a+", &"x".repeat(128)] {
            let outcome = checked(|scenario| scenario.fleet.prefix = prefix.into());
            assert!(matches!(outcome, Err(InvalidScenario::Prefix(_))), "{prefix}");
        }
    }

    #[test]
    fn only_phases_that_can_be_are_accepted() {
        assert!(matches!(checked(|s| s.phases.clear()), Err(InvalidScenario::NoPhase)));
        assert!(matches!(checked(|s| s.phases.push(Phase::default())), Err(InvalidScenario::NoEnd(_))));
        assert!(matches!(checked(|s| s.phases[0].payload_bytes = 262_144), Err(InvalidScenario::Payload(_))));
        for share in [-0.1, 1.1, f64::NAN] {
            assert!(matches!(checked(|s| s.phases[0].connected = share), Err(InvalidScenario::Range { .. })));
        }
        let flapping = Flapping { share: 0.5, period: Duration::ZERO };
        assert!(matches!(checked(|s| s.phases[0].flapping = Some(flapping)), Err(InvalidScenario::Time(_))));
    }

    #[test]
    fn a_run_lasts_as_long_as_its_phases() {
        assert_eq!(scenario().duration(), None);
        let second = Phase { duration: Some(Duration::from_secs(1)), ..Phase::default() };
        assert_eq!(
            checked(|s| s.phases = vec![second.clone(); 3]).unwrap().duration(),
            Some(Duration::from_secs(3))
        );
    }

    #[test]
    fn rates_are_finite_and_not_negative() {
        assert_eq!(parse_rate("0").unwrap(), 0.0);
        assert_eq!(parse_rate("0.1").unwrap(), 0.1);
        for text in ["", "-1", "NaN", "inf", "100001", "1/s"] {
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
