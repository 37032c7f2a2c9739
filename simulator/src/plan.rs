//! Who does what when: computed for each identity and phase from the scenario and the seed alone.
//!
//! All times count from the start of the phase. Nothing here uses a clock or a connection, so the same scenario gives
//! the same plan on every machine.

use std::sync::Arc;
use std::time::Duration;

use crate::scenario::{Credentials, Phase, Scenario};
use crate::seed::Seed;

/// The plan of a whole run.
#[derive(Debug)]
pub struct Schedule {
    scenario: Arc<Scenario>,
    seed: Seed,
    /// For each identity its position in a random order. The first ones of an order are chosen.
    connecting: Vec<u32>,
    herd: Vec<u32>,
    flapping: Vec<u32>,
    slow: Vec<u32>,
    credentials: Vec<u32>,
}

/// The part of one identity in one phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether it is connected, apart from the effects of `cut` and `flap`.
    pub is_connected: bool,
    /// Whether it connects now and was not connected in the phase before.
    pub connects: bool,
    /// When it connects or disconnects, if it does.
    pub change_at: Duration,
    /// Whether it loses its connection at the start.
    pub is_cut: bool,
    pub flap: Option<Flap>,
    pub reads: bool,
    pub telemetry_per_second: f64,
    /// Its offset within one period of its telemetry, 0 to 1, which spreads the fleet's messages over time.
    pub offset: f64,
    pub payload_bytes: usize,
}

/// When a connection breaks repeatedly.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flap {
    pub first: Duration,
    /// The time between two breaks. The device reconnects after half of it.
    pub period: Duration,
}

/// The kind of credential of an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    Sas,
    Thumbprint,
    Authority,
}

impl Schedule {
    pub fn new(scenario: Arc<Scenario>) -> Self {
        let seed = Seed::new(scenario.seed);
        let size = scenario.fleet.size();
        let line = |purpose| places(&seed.shuffled(purpose, size));
        Self {
            // In the order of their numbers, because a ramp that starts with the first reads better in a log.
            connecting: (0..size as u32).collect(),
            herd: line("herd"),
            flapping: line("flapping"),
            slow: line("slow"),
            credentials: line("credentials"),
            scenario,
            seed,
        }
    }

    /// The part of identity `number` in phase `phase`.
    pub fn plan(&self, phase: usize, number: usize) -> Plan {
        let spec = &self.scenario.phases[phase];
        let before =
            phase.checked_sub(1).map_or(0, |before| self.part(self.scenario.phases[before].connected));
        let now = self.part(spec.connected);
        let place = self.connecting[number] as usize;
        let is_connected = place < now;
        let changes = is_connected != (place < before);
        Plan {
            is_connected,
            connects: is_connected && changes,
            change_at: if changes { spread(spec.connect_over, place, before, now) } else { Duration::ZERO },
            is_cut: self.is_chosen(&self.herd, number, spec.herd),
            flap: self.flap(spec, phase, number),
            reads: !self.is_chosen(&self.slow, number, spec.slow_readers),
            telemetry_per_second: spec.telemetry_per_second,
            offset: number as f64 / self.size() as f64,
            payload_bytes: spec.payload_bytes,
        }
    }

    /// The receivers of messages in phase `phase`, in the order of their turns.
    pub fn receivers(&self, phase: usize) -> Vec<usize> {
        let order = self.seed.shuffled("receivers", self.size());
        let numbers = order.into_iter().map(|number| number as usize);
        numbers.filter(|number| self.plan(phase, *number).is_connected).collect()
    }

    /// The kind of credential of identity `number`.
    pub fn mechanism(&self, number: usize) -> Mechanism {
        let Credentials { sas, thumbprint, authority } = self.scenario.fleet.credentials;
        let place = (f64::from(self.credentials[number]) + 0.5) / self.size() as f64;
        match place * (sas + thumbprint + authority) {
            place if place < sas => Mechanism::Sas,
            place if place < sas + thumbprint => Mechanism::Thumbprint,
            _ => Mechanism::Authority,
        }
    }

    /// The body of telemetry message `sequence` of identity `number`: a JSON reading padded with blanks to `bytes`, or
    /// filler if a reading does not fit.
    pub fn payload(&self, number: usize, sequence: u64, bytes: usize) -> Vec<u8> {
        let degrees = 20.0 + 5.0 * self.seed.stream("degrees", number as u64 ^ (sequence << 32)).unit();
        let mut body = format!(r#"{{"sequence":{sequence},"temperature":{degrees:.1}}}"#).into_bytes();
        if body.len() > bytes {
            body.fill(b'x');
        }
        body.resize(bytes, b' ');
        body
    }

    pub fn seed(&self) -> Seed {
        self.seed
    }

    fn size(&self) -> usize {
        self.connecting.len()
    }

    fn part(&self, share: f64) -> usize {
        (share * self.size() as f64).round() as usize
    }

    fn is_chosen(&self, line: &[u32], number: usize, share: f64) -> bool {
        (line[number] as usize) < self.part(share)
    }

    fn flap(&self, spec: &Phase, phase: usize, number: usize) -> Option<Flap> {
        let flapping = spec.flapping?;
        let mut stream = self.seed.stream("flap", (phase as u64) << 32 | number as u64);
        let first = flapping.period.mul_f64(stream.unit());
        self.is_chosen(&self.flapping, number, flapping.share)
            .then_some(Flap { first, period: flapping.period })
    }
}

/// The position of each number in `line`.
fn places(line: &[u32]) -> Vec<u32> {
    let mut places = vec![0; line.len()];
    for (place, number) in (0..).zip(line) {
        places[*number as usize] = place;
    }
    places
}

/// The turn of position `place`, if positions `before` to `now` have their turns evenly over `time`.
fn spread(time: Duration, place: usize, before: usize, now: usize) -> Duration {
    let turn = place - before.min(now);
    time.mul_f64(turn as f64 / before.abs_diff(now) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::builtin;

    fn schedule(text: &str) -> Schedule {
        Schedule::new(Arc::new(Scenario::parse(text).unwrap()))
    }

    fn plans(schedule: &Schedule) -> Vec<Plan> {
        let phases = 0..schedule.scenario.phases.len();
        phases
            .flat_map(|phase| (0..schedule.size()).map(move |number| schedule.plan(phase, number)))
            .collect()
    }

    #[test]
    fn the_same_seed_is_the_same_run_and_another_is_not() {
        let mixed = builtin::find("mixed").unwrap().text;
        let (one, same) = (schedule(mixed), schedule(mixed));
        let other = schedule(&mixed.replace("seed = 1", "seed = 2"));
        assert_eq!(plans(&one), plans(&same));
        assert_ne!(plans(&one), plans(&other));
        assert_eq!(one.receivers(1), same.receivers(1));
        let mechanisms = |schedule: &Schedule| (0..2000).map(|n| schedule.mechanism(n)).collect::<Vec<_>>();
        assert_eq!(mechanisms(&one), mechanisms(&same));
        assert_eq!(one.payload(7, 3, 64), same.payload(7, 3, 64));
        assert_ne!(one.payload(7, 3, 64), other.payload(7, 3, 64));
        assert_eq!(one.scenario.identities().unwrap(), other.scenario.identities().unwrap());
    }

    #[test]
    fn a_ramp_is_even_and_those_who_leave_were_the_last_to_come() {
        let schedule = schedule(
            "fleet.devices = 10\n[[phase]]\nduration = '5s'\nconnect_over = '5s'\n\
             [[phase]]\nduration = '1s'\nconnected = 0.5\nconnect_over = '1s'",
        );
        for number in 0..10 {
            let (up, down) = (schedule.plan(0, number), schedule.plan(1, number));
            assert!(up.connects && up.change_at == Duration::from_millis(500) * number as u32);
            assert_eq!(down.is_connected, number < 5);
            assert!(!down.connects);
        }
        assert_eq!(schedule.plan(1, 5).change_at, Duration::ZERO);
        assert_eq!(schedule.plan(1, 9).change_at, Duration::from_millis(800));
        assert_eq!(schedule.receivers(1).len(), 5);
    }

    #[test]
    fn shares_are_exact() {
        let schedule = schedule(
            "fleet.devices = 40\nfleet.credentials = { sas = 2, thumbprint = 1, authority = 1 }\n\
             [[phase]]\nduration = '1s'\nherd = 0.5\nslow_readers = 0.1\nflapping = { share = 0.25, period = '2s' }",
        );
        let plans = plans(&schedule);
        let count = |is: &dyn Fn(&Plan) -> bool| plans.iter().filter(|plan| is(plan)).count();
        assert_eq!(count(&|plan| plan.is_cut), 20);
        assert_eq!(count(&|plan| !plan.reads), 4);
        assert_eq!(count(&|plan| plan.flap.is_some_and(|flap| flap.first < flap.period)), 10);
        let with = |mechanism| (0..40).filter(|number| schedule.mechanism(*number) == mechanism).count();
        assert_eq!(
            [with(Mechanism::Sas), with(Mechanism::Thumbprint), with(Mechanism::Authority)],
            [20, 10, 10]
        );
    }

    #[test]
    fn a_body_has_exactly_its_size() {
        let schedule = schedule("[[phase]]\nduration = '1s'");
        for bytes in [0, 1, 30, 64, 1000] {
            assert_eq!(schedule.payload(0, 7, bytes).len(), bytes);
        }
        let reading: serde_json::Value = serde_json::from_slice(&schedule.payload(0, 7, 64)).unwrap();
        assert_eq!(reading["sequence"], 7);
    }
}
