//! One device or module, which behaves like an official SDK: it connects, subscribes, sends telemetry, acknowledges
//! messages, repeats what was not acknowledged, reconnects after a lost connection, and disconnects at the end.
//!
//! It is one task with one loop over orders of the run, deadlines, and packets. Deadlines follow only from the plan and
//! the start of the phase, so they do not drift. Times are measured from the deadlines.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Packet, PubAck, Publish, Subscribe, SubscribeReasonCode};
use rustls::client::Resumption;
use tokio::time::{Instant, sleep_until};

use crate::c2d;
use crate::client::{Lost, Wire};
use crate::fleet::{Run, Stage};
use crate::identity::Identity;
use crate::pacing::Pace;
use crate::plan::{Flap, Plan};
use crate::tally::{Count, Timing};

/// A member of the fleet.
pub struct Device {
    number: usize,
    identity: Identity,
    run: Run,
    resumption: Option<Resumption>,
    link: Option<Link>,
    reads: bool,
    payload_bytes: usize,
    connect_at: Option<Instant>,
    /// When the pending connection was first due.
    wanted_since: Option<Instant>,
    leave_at: Option<Instant>,
    cut_at: Option<Instant>,
    /// How long the device stays away after a cut, and the time between two cuts.
    away: Duration,
    cut_period: Option<Duration>,
    pace: Option<Pace>,
    /// Telemetry that is sent and not acknowledged, the oldest first. It outlives the connection.
    unacknowledged: VecDeque<Unacknowledged>,
    packet_id: u16,
    sequence: u64,
    failures: u32,
    is_known: bool,
    is_subscribed: bool,
    /// The phase that may wait for this device's first attempt to connect.
    owes_attempt: Option<usize>,
}

struct Link {
    wire: Wire,
    /// When the next PINGREQ is due if the device sends nothing else.
    ping_at: Option<Instant>,
    /// The deadline of the hub's PINGRESP.
    pong_by: Option<Instant>,
}

struct Unacknowledged {
    packet_id: u16,
    due: Instant,
    sequence: u64,
    payload_bytes: usize,
}

enum Event {
    Stage(Stage),
    Due,
    Read(Result<Packet, Lost>),
}

impl Device {
    pub fn new(number: usize, identity: Identity, run: Run) -> Self {
        let resumption = run.scenario.fleet.resumption.then(|| Resumption::in_memory_sessions(SESSIONS_KEPT));
        Self {
            number,
            identity,
            run,
            resumption,
            link: None,
            reads: true,
            payload_bytes: 0,
            connect_at: None,
            wanted_since: None,
            leave_at: None,
            cut_at: None,
            away: Duration::ZERO,
            cut_period: None,
            pace: None,
            unacknowledged: VecDeque::new(),
            packet_id: 0,
            sequence: 0,
            failures: 0,
            is_known: false,
            is_subscribed: false,
            owes_attempt: None,
        }
    }

    /// Runs the device until the run ends.
    pub async fn live(mut self) {
        let mut stages = self.run.stages.subscribe();
        // The first phase may have started before this task.
        stages.mark_changed();
        loop {
            let due = self.next_due();
            let event = tokio::select! {
                changed = stages.changed() => match changed {
                    Ok(()) => Event::Stage(*stages.borrow_and_update()),
                    Err(_) => Event::Stage(Stage::Leave),
                },
                () = until(due) => Event::Due,
                read = turn(self.link.as_mut(), self.reads) => Event::Read(read),
            };
            match event {
                Event::Stage(Stage::Waiting) => {}
                Event::Stage(Stage::Phase { number, start }) => {
                    let plan = self.run.schedule.plan(number, self.number);
                    self.enter(number, plan, start);
                }
                Event::Stage(Stage::Drain) => self.drain(),
                Event::Stage(Stage::Leave) => return self.leave().await,
                Event::Due => self.act().await,
                Event::Read(Ok(packet)) => self.take(packet),
                Event::Read(Err(lost)) => self.lose(&lost),
            }
        }
    }

    fn enter(&mut self, phase: usize, plan: Plan, start: Instant) {
        self.reads = plan.reads;
        self.payload_bytes = plan.payload_bytes;
        let changes_at = start + plan.change_at;
        self.leave_at = (!plan.is_connected && self.link.is_some()).then_some(changes_at);
        self.owes_attempt = plan.connects.then_some(phase);
        if self.link.is_some() {
            self.attempted();
        }
        if plan.is_connected && self.link.is_none() {
            self.connect_at.get_or_insert(changes_at);
        } else {
            (self.connect_at, self.wanted_since) = (None, None);
        }
        (self.cut_at, self.away, self.cut_period) = match plan.flap {
            Some(Flap { first, period }) => (Some(start + first), period / 2, Some(period)),
            None => (plan.is_cut.then_some(start), Duration::ZERO, None),
        };
        self.pace = (plan.is_connected)
            .then(|| Pace::new(changes_at, plan.telemetry_per_second, plan.offset))
            .flatten();
    }

    /// The end of the last phase: sends nothing new, and waits for what is in flight.
    fn drain(&mut self) {
        (self.reads, self.pace, self.cut_at) = (true, None, None);
        if let Some(connect_at) = &mut self.connect_at {
            *connect_at = Instant::now().min(*connect_at);
        }
        self.run.draining.count();
    }

    async fn leave(&mut self) {
        if let Some(link) = self.link.take() {
            self.run.tally.disconnected();
            link.wire.leave().await;
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let pace = self.pace.as_ref().map(Pace::deadline);
        let link = self.link.as_ref().and_then(|link| link.pong_by.or(link.ping_at));
        [self.connect_at, self.leave_at, self.cut_at, pace, link].into_iter().flatten().min()
    }

    /// Does everything that is due.
    async fn act(&mut self) {
        let now = Instant::now();
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        if is_due(self.cut_at) {
            self.cut();
        }
        if is_due(self.leave_at) {
            self.leave_at = None;
            self.leave().await;
        }
        if is_due(self.connect_at) {
            self.connect().await;
        }
        while let Some(pace) = self.pace.as_mut().filter(|pace| pace.deadline() <= now) {
            let due = pace.deadline();
            let missed = pace.advance_late(now, UNACKNOWLEDGED_MAX as u64);
            self.send_telemetry(due, missed);
        }
        if let Some(link) = &mut self.link {
            if is_due(link.pong_by) {
                self.lose(&Lost::NoPong);
            } else if is_due(link.ping_at) {
                link.wire.send(&Packet::PingReq);
                link.pong_by = Some(now + self.run.scenario.fleet.keep_alive / 2);
                link.ping_at = None;
            }
        }
    }

    /// Breaks the connection like a failing network, without a close.
    fn cut(&mut self) {
        let Some(cut_at) = self.cut_at.take() else { return };
        self.cut_at = self.cut_period.map(|period| cut_at + period);
        if self.link.take().is_some() {
            self.run.tally.cut();
            self.connect_at = Some(cut_at + self.away);
        }
    }

    /// One attempt to connect, after waiting for a turn.
    async fn connect(&mut self) {
        let Some(connect_at) = self.connect_at.take() else { return };
        // The time of a connect includes attempts that fail.
        let due = *self.wanted_since.get_or_insert(connect_at);
        let run = self.run.clone();
        let attempt = async {
            let _turn = run.turns.acquire().await.ok()?;
            let dialled = Instant::now();
            let tls = self.identity.tls(&run.tls, self.resumption.as_ref());
            let keep_alive = run.scenario.fleet.keep_alive.as_secs() as u16;
            let connect = self.identity.connect(&run.access, keep_alive);
            Some((dialled, run.dial(self.number).connect(tls, connect).await))
        };
        // Boxed, so that a connected device does not keep the memory of its handshake.
        let attempt = Box::pin(attempt);
        let outcome = tokio::select! {
            () = run.leaving.cancelled() => None,
            outcome = attempt => outcome,
        };
        let Some((dialled, outcome)) = outcome else { return };
        self.attempted();
        match outcome {
            Ok((wire, session_present)) => {
                self.wanted_since = None;
                run.tally.connected(due, dialled);
                self.greet(wire, session_present);
            }
            Err(error) => {
                run.tally.refused(&error.reason());
                self.failures += 1;
                self.connect_at = Some(Instant::now() + self.retry_delay());
            }
        }
    }

    /// The first attempt of a phase has ended, with any result.
    fn attempted(&mut self) {
        if let Some(phase) = self.owes_attempt.take() {
            self.run.attempts[phase].count();
        }
    }

    /// The first packets of a new connection: the subscription if the hub has none, and unacknowledged telemetry.
    fn greet(&mut self, wire: Wire, session_present: bool) {
        self.failures = 0;
        if !std::mem::replace(&mut self.is_known, true) {
            self.run.tally.add(Count::EverConnected, 1);
        }
        let link = self.link.insert(Link { wire, ping_at: None, pong_by: None });
        if !session_present || !self.is_subscribed {
            self.packet_id = next_packet_id(self.packet_id);
            let mut subscribe = Subscribe::new(self.identity.messages_filter(), QoS::AtLeastOnce);
            subscribe.pkid = self.packet_id;
            link.wire.send(&Packet::Subscribe(subscribe));
            self.is_subscribed = true;
        }
        let mut publishes = Vec::with_capacity(self.unacknowledged.len());
        for waiting in &self.unacknowledged {
            publishes.push(self.telemetry(waiting, true));
        }
        self.run.tally.add(Count::Resent, publishes.len() as u64);
        for publish in publishes {
            self.send(&Packet::Publish(publish));
        }
        self.rest();
    }

    fn send_telemetry(&mut self, due: Instant, missed: u64) {
        if self.link.is_none() {
            return self.run.tally.add(Count::Offline, 1 + missed);
        }
        self.run.tally.add(Count::Withheld, missed);
        if self.unacknowledged.len() >= UNACKNOWLEDGED_MAX {
            return self.run.tally.add(Count::Withheld, 1);
        }
        self.sequence += 1;
        self.packet_id = next_packet_id(self.packet_id);
        let fresh = Unacknowledged {
            packet_id: self.packet_id,
            due,
            sequence: self.sequence,
            payload_bytes: self.payload_bytes,
        };
        let publish = self.telemetry(&fresh, false);
        self.unacknowledged.push_back(fresh);
        self.run.tally.add(Count::Sent, 1);
        self.run.tally.time(Timing::Lateness, due.elapsed());
        self.send(&Packet::Publish(publish));
    }

    fn telemetry(&self, message: &Unacknowledged, dup: bool) -> Publish {
        let topic = format!(
            "{}sim-run={}&sim-number={}&sim-sent={}",
            self.identity.events_topic(),
            self.run.id,
            message.sequence,
            Timestamp::now().as_millisecond()
        );
        let body = self.run.schedule.payload(self.number, message.sequence, message.payload_bytes);
        let mut publish = Publish::from_bytes(topic, QoS::AtLeastOnce, Bytes::from(body));
        (publish.pkid, publish.dup) = (message.packet_id, dup);
        publish
    }

    fn send(&mut self, packet: &Packet) {
        let Some(link) = &mut self.link else { return };
        link.wire.send(packet);
        self.rest();
    }

    /// Something was sent, so the next PINGREQ is due after a whole keep-alive.
    fn rest(&mut self) {
        let keep_alive = self.run.scenario.fleet.keep_alive;
        let Some(link) = &mut self.link else { return };
        link.ping_at = (!keep_alive.is_zero() && link.pong_by.is_none()).then(|| Instant::now() + keep_alive);
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::PubAck(ack) => {
                let place = self.unacknowledged.iter().position(|waiting| waiting.packet_id == ack.pkid);
                if let Some(acknowledged) = place.and_then(|place| self.unacknowledged.remove(place)) {
                    self.run.tally.acknowledged(acknowledged.due);
                    self.run.eased();
                }
                if self.unacknowledged.is_empty() {
                    // Frees the memory while idle.
                    self.unacknowledged = VecDeque::new();
                }
            }
            Packet::Publish(message) => {
                if let Some(number) = c2d::number(&message.topic, &self.run.id) {
                    self.run.tally.c2d_arrived(number);
                    self.run.eased();
                }
                if message.qos == QoS::AtLeastOnce {
                    self.send(&Packet::PubAck(PubAck::new(message.pkid)));
                }
            }
            Packet::SubAck(answer) if answer.return_codes.contains(&SubscribeReasonCode::Failure) => {
                self.run.tally.failed("subscribe", "refused");
            }
            Packet::PingResp => {
                if let Some(link) = &mut self.link {
                    link.pong_by = None;
                }
                self.rest();
            }
            _ => {}
        }
    }

    fn lose(&mut self, lost: &Lost) {
        if self.link.take().is_some() {
            self.run.tally.dropped(&lost.to_string());
            self.connect_at = Some(Instant::now() + self.retry_delay());
        }
    }

    /// Doubles with every failure, up to a limit, so that devices that lost their connections together spread out.
    fn retry_delay(&self) -> Duration {
        let fleet = &self.run.scenario.fleet;
        let delay = fleet.retry_min.saturating_mul(1 << self.failures.min(16)).min(fleet.retry_max);
        let mut chance =
            self.run.schedule.seed().stream("retry", (self.number as u64) << 16 | u64::from(self.failures));
        delay.mul_f64(0.5 + chance.unit() / 2.0)
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn turn(link: Option<&mut Link>, reads: bool) -> Result<Packet, Lost> {
    match link {
        Some(link) => link.wire.turn(reads).await,
        None => std::future::pending().await,
    }
}

/// Counts from 1 to 65,535 and starts again. That is far more than are in flight.
fn next_packet_id(packet_id: u16) -> u16 {
    packet_id.checked_add(1).unwrap_or(1)
}

/// The most telemetry messages in flight. Further messages are withheld and counted.
const UNACKNOWLEDGED_MAX: usize = 32;
/// TLS sessions that a device keeps for resumption, for its one hub.
const SESSIONS_KEPT: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_ids_are_never_zero() {
        assert_eq!(next_packet_id(0), 1);
        assert_eq!(next_packet_id(u16::MAX), 1);
    }
}
