//! The rules of a conversation, MQTT's and IoT Hub's, as a state machine: no socket, no clock, no await.
//!
//! Packets, messages, events and the time go in; actions come out of `next_action`, to be done in order. The driver
//! does all of them before it tells the core anything else, so the core never holds more than one call makes.
//! CONNECT and CONNACK are the driver's; so is whether a Will that is due may still be sent. What is in flight when
//! a session ends goes back to the queue with the driver's consumer.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use portcullis_registry::access::{Access, Right};
use portcullis_registry::id::IdentityId;
use portcullis_registry::lock::LockToken;
use portcullis_registry::queue::Lease;

use self::allowance::Allowance;
use self::expiry::Expiry;
use self::in_flight::{InFlight, Sent};
use self::keep_alive::keep_alive_time;
use self::pacing::Pacing;
use self::subscriptions::Subscriptions;
use crate::config::Limits;
use crate::hub::clock::Moment;
use crate::hub::close_reason::CloseReason;
use crate::hub::throttle::Rate;
use crate::iothub::problem::Problem;
use crate::iothub::topic::{self, EventName, EventsTopic, Filter, PublishTopic, Role};
use crate::mqtt::packet::{Packet, Publish, QoS, SUBSCRIPTION_REFUSED, Subscribe, Unsubscribe, Utf8Bytes};

pub use self::error::SessionError;

mod allowance;
mod error;
mod expiry;
mod in_flight;
mod keep_alive;
mod pacing;
mod rights;
mod subscriptions;

/// The rules of one session.
#[derive(Debug)]
pub struct SessionCore {
    role: Role,
    access: Access,
    limits: SessionLimits,
    subscriptions: Subscriptions,
    /// Whether subscriptions are kept for the next connection.
    is_kept: bool,
    session_present: bool,
    will: bool,
    actions: VecDeque<Action>,
    /// Received at QoS 1 and not acknowledged yet, in order.
    unanswered: VecDeque<Unanswered>,
    /// SUBACKs and UNSUBACKs that wait for the subscriptions to be stored, in order.
    unsaved: VecDeque<Packet>,
    in_flight: InFlight,
    allowance: Allowance,
    pacing: Pacing,
    keep_alive: Duration,
    silent_until: Instant,
    expiry: Option<Expiry>,
    ending: bool,
}

/// What bounds a session. The driver sets them from the hub's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionLimits {
    /// Cloud-to-device messages sent and not acknowledged.
    pub in_flight_max: usize,
    /// Also the most in one SUBSCRIBE.
    pub filters_per_connection_max: usize,
    /// Counts for longer ones and for 0.
    pub keep_alive_max: Duration,
    /// Telemetry beyond this is read more slowly.
    pub message_rate: Option<Rate>,
}

impl SessionLimits {
    /// The bounds that the hub's configuration sets.
    pub fn of(limits: &Limits) -> Self {
        Self {
            in_flight_max: limits.c2d_in_flight_max,
            filters_per_connection_max: limits.filters_per_connection_max,
            keep_alive_max: limits.keep_alive_max,
            message_rate: Rate::per_second(limits.messages_per_identity_per_second_max),
        }
    }
}

/// What is known when a session begins.
#[derive(Clone, Debug)]
pub struct Opening {
    pub role: Role,
    /// What a device may do; a service's rights are in its role.
    pub access: Access,
    pub clean_session: bool,
    /// Seconds, as CONNECT has it.
    pub keep_alive: u16,
    /// What an earlier session asked to save.
    pub restored: Option<Vec<u8>>,
    /// When the peer's credential ends, and what the session ends for then.
    pub expires: Option<(Timestamp, CloseReason)>,
    /// Whether CONNECT left a Will.
    pub will: bool,
}

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Send(Packet),
    /// For a device alone.
    Device(DeviceTask),
    /// For a service alone.
    Service(ServiceTask),
    /// Count it; there is nothing else to do about it.
    Report(Incident),
    /// The last action. `send_will` tells that the Will, if the peer left one, is due.
    Close {
        reason: CloseReason,
        send_will: bool,
    },
}

/// What the driver is to do for a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceTask {
    /// Put telemetry on the bus, then tell `ingested`. `bag` is percent-encoded, as received.
    Ingest { packet_id: Option<u16>, bag: String, payload: Bytes, retain: bool },
    /// Store these, or that there is nothing to keep; then tell `subscriptions_saved`.
    SaveSubscriptions(Option<Vec<u8>>),
    /// The device has the message of this number.
    Complete(u64),
    /// What was sent so at QoS 0 is complete when the network has taken it, and not otherwise.
    CompleteOnceSent(u64),
    /// The message of this number can never be sent.
    Reject(u64),
}

/// What the driver is to do for a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceTask {
    /// Do what it commands, then tell `commanded`.
    Command { packet_id: Option<u16>, rid: String, command: Command },
    /// It has this batch of feedback.
    CompleteFeedback(LockToken),
    /// What was sent so at QoS 0 is complete when the network has taken it, and not otherwise.
    CompleteFeedbackOnceSent(LockToken),
}

/// Something the operator may want to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// An acknowledgement of nothing that was sent (threats T211, T212).
    UnknownAck,
    /// No topic can carry what was to be sent.
    TopicTooLong,
}

impl TryFrom<Action> for DeviceTask {
    type Error = Action;

    fn try_from(action: Action) -> Result<Self, Action> {
        match action {
            Action::Device(task) => Ok(task),
            other => Err(other),
        }
    }
}

impl TryFrom<Action> for ServiceTask {
    type Error = Action;

    fn try_from(action: Action) -> Result<Self, Action> {
        match action {
            Action::Service(task) => Ok(task),
            other => Err(other),
        }
    }
}

/// A command of a service: a REST request in MQTT's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub method: String,
    /// Without its first slash; segments are percent-encoded as in REST.
    pub path: String,
    /// As written, the request id among its parameters.
    pub query: String,
    pub body: Bytes,
}

/// A PUBLISH of the peer that has no PUBACK yet.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    packet_id: u16,
    is_taken: bool,
}

impl SessionCore {
    /// A session whose peer has been admitted.
    pub fn new(opening: Opening, limits: SessionLimits, now: Moment) -> Self {
        let is_kept = !opening.clean_session && matches!(opening.role, Role::Device(_));
        let restored = opening.restored.as_deref().filter(|_| is_kept).and_then(Subscriptions::decode);
        let keep_alive = keep_alive_time(opening.keep_alive, limits.keep_alive_max);
        Self {
            session_present: restored.is_some(),
            subscriptions: restored.unwrap_or_default(),
            is_kept,
            role: opening.role,
            access: opening.access,
            limits,
            will: opening.will,
            actions: VecDeque::new(),
            unanswered: VecDeque::new(),
            unsaved: VecDeque::new(),
            in_flight: InFlight::default(),
            allowance: Allowance::new(now.monotonic),
            pacing: Pacing::new(limits.message_rate, now.monotonic),
            keep_alive,
            silent_until: now.monotonic + keep_alive,
            expiry: opening.expires.map(|(end, reason)| Expiry::new(end, reason, now)),
            ending: false,
        }
    }

    /// A packet came. An error means that the session must be closed for it.
    pub fn on_packet(&mut self, packet: Packet, now: Moment) -> Result<(), SessionError> {
        if self.ending {
            return Ok(());
        }
        // [MQTT-3.1.2-24]: any packet counts.
        self.silent_until = now.monotonic + self.keep_alive;
        if let Some(reason) = self.expired(now) {
            self.close(reason);
            return Ok(());
        }
        match packet {
            Packet::Publish(publish) => self.on_publish(publish, now),
            Packet::PubAck(packet_id) => self.on_puback(packet_id, now),
            Packet::Subscribe(subscribe) => self.on_subscribe(&subscribe, now),
            Packet::Unsubscribe(unsubscribe) => self.on_unsubscribe(&unsubscribe, now),
            Packet::PingReq => {
                self.spend(now)?;
                self.actions.push_back(Action::Send(Packet::PingResp));
                Ok(())
            }
            Packet::Disconnect => {
                self.close(CloseReason::ClientDisconnected);
                Ok(())
            }
            // Nothing of ours is ever at QoS 2. A client may still remember something of another server's.
            Packet::PubRec(_) | Packet::PubRel(_) | Packet::PubComp(_) => self.ignore_ack(now),
            // [MQTT-3.1.0-2] for CONNECT; the others are never a client's.
            packet @ (Packet::Connect(_)
            | Packet::ConnAck { .. }
            | Packet::SubAck { .. }
            | Packet::UnsubAck(_)
            | Packet::PingResp) => Err(SessionError::UnexpectedPacket(packet.name())),
        }
    }

    /// A message from the device's queue; asked for only while `wants_message`.
    pub fn on_message(&mut self, lease: &Lease) {
        let (Role::Device(id), Some(granted)) = (&self.role, self.c2d_qos()) else { return };
        if self.ending {
            return;
        }
        let message = &lease.message;
        let Ok(topic) = Utf8Bytes::parse(topic::c2d_topic(id, message)) else {
            // Its properties do not fit into a topic, and never will: whoever sent it shall hear of that.
            return self.actions.push_back(Action::Device(DeviceTask::Reject(message.number)));
        };
        let at_least_once = granted != QoS::AtMostOnce;
        let packet_id = at_least_once.then(|| self.in_flight.add_message(message.number));
        self.actions.push_back(Action::Send(Packet::Publish(Publish {
            dup: at_least_once && lease.is_repeat,
            qos: granted,
            retain: false,
            topic,
            packet_id,
            payload: message.body.clone(),
        })));
        if packet_id.is_none() {
            self.actions.push_back(Action::Device(DeviceTask::CompleteOnceSent(message.number)));
        }
    }

    /// Telemetry for a service subscriber; asked for only while `wants_event`.
    pub fn on_event(&mut self, topic: String, payload: Bytes) {
        let Some(qos) = EventsTopic::parse(&topic)
            .and_then(|event| self.subscriptions.event_qos(event.device, event.module))
        else {
            // Unsubscribed while it was on its way.
            return;
        };
        if self.ending {
            return;
        }
        let Some(topic) = self.sendable(topic) else { return };
        self.publish_to_service(topic, payload, qos, Sent::Event);
    }

    /// A batch of feedback for a service; asked for only while `wants_feedback`.
    pub fn on_feedback(&mut self, token: LockToken, payload: Bytes) {
        let Some(qos) = self.subscriptions.feedback_qos().filter(|_| !self.ending) else { return };
        let Ok(topic) = Utf8Bytes::parse(Bytes::from_static(topic::FEEDBACK_TOPIC.as_bytes())) else {
            return;
        };
        self.publish_to_service(topic, payload, qos, Sent::Feedback(token));
        if qos == QoS::AtMostOnce {
            self.actions.push_back(Action::Service(ServiceTask::CompleteFeedbackOnceSent(token)));
        }
    }

    /// The topic as it is sent; nothing, and that is reported, when it is longer than MQTT allows.
    fn sendable(&mut self, topic: String) -> Option<Utf8Bytes> {
        let sendable = Utf8Bytes::parse(topic).ok();
        if sendable.is_none() {
            self.actions.push_back(Action::Report(Incident::TopicTooLong));
        }
        sendable
    }

    fn publish_to_service(&mut self, topic: Utf8Bytes, payload: Bytes, qos: QoS, what: Sent) {
        let packet_id = (qos != QoS::AtMostOnce).then(|| self.in_flight.add(what));
        let publish = Publish { dup: false, qos, retain: false, topic, packet_id, payload };
        self.actions.push_back(Action::Send(Packet::Publish(publish)));
    }

    /// A command is done; `topic` and `payload` are its answer. Whoever has not subscribed to answers gets none.
    pub fn commanded(&mut self, packet_id: Option<u16>, topic: String, payload: Bytes) {
        self.ingested(packet_id);
        let Some(qos) = self.subscriptions.answer_qos(&topic).filter(|_| !self.ending) else { return };
        if self.in_flight.len() >= EVENTS_IN_FLIGHT_MAX {
            self.close(CloseReason::SlowReader);
            return;
        }
        let Some(topic) = self.sendable(topic) else { return };
        self.publish_to_service(topic, payload, qos, Sent::Event);
    }

    /// Something happened to an identity or connection; asked for only while `wants_admin_event`.
    pub fn on_admin_event(&mut self, name: EventName, id: &IdentityId, payload: Bytes) {
        let Some(qos) = self.subscriptions.admin_event_qos(Some((name, id))).filter(|_| !self.ending) else {
            return;
        };
        let Some(topic) = self.sendable(topic::admin_event_topic(name, id)) else { return };
        self.publish_to_service(topic, payload, qos, Sent::Event);
    }

    /// The bus has the telemetry of this PUBLISH: it may be acknowledged, behind those before it ([MQTT-4.6.0-2]).
    pub fn ingested(&mut self, packet_id: Option<u16>) {
        let Some(packet_id) = packet_id else { return };
        if let Some(unanswered) =
            self.unanswered.iter_mut().find(|unanswered| unanswered.packet_id == packet_id)
        {
            unanswered.is_taken = true;
        }
        self.answer_publishes();
    }

    /// The oldest `SaveSubscriptions` is done: what waited for it may be acknowledged.
    pub fn subscriptions_saved(&mut self) {
        if let Some(ack) = next_of(&mut self.unsaved).filter(|_| !self.ending) {
            self.actions.push_back(Action::Send(ack));
        }
    }

    /// The deadline has come, or might have.
    pub fn on_timeout(&mut self, now: Moment) {
        if self.pacing.resume(now.monotonic) {
            // What the peer sent meanwhile was not read: that is not its silence.
            self.silent_until = now.monotonic + self.keep_alive;
        }
        if let Some(reason) = self.expired(now) {
            self.close(reason);
        } else if now.monotonic >= self.silent_until {
            self.close(CloseReason::KeepAliveMissed);
        } else if let Some(expiry) = &mut self.expiry {
            expiry.checked(now);
        }
    }

    /// Ends the session; the first reason stands. What was asked for before is still done, except that after a
    /// revocation nothing of the peer's counts but what it already had in hand.
    pub fn close(&mut self, reason: CloseReason) {
        if self.ending {
            return;
        }
        self.ending = true;
        // Nobody will see whether the network takes it any more: it comes again.
        self.actions.retain(|action| !action.waits_for_the_network());
        if reason.is_revocation() {
            self.actions.retain(Action::stands_after_revocation);
        }
        // [MQTT-3.1.2-8]: due unless the peer said goodbye ([MQTT-3.14.4-3]); never after a revocation (threats T603).
        let send_will = self.will && reason != CloseReason::ClientDisconnected && !reason.is_revocation();
        self.actions.push_back(Action::Close { reason, send_will });
    }

    /// The next thing to do, in order; `None` is for now, and for ever after `Close`.
    pub fn next_action(&mut self) -> Option<Action> {
        next_of(&mut self.actions)
    }

    /// What CONNACK says: whether an earlier session goes on.
    pub fn session_present(&self) -> bool {
        self.session_present
    }

    /// Whether a message from the queue could be sent now.
    pub fn wants_message(&self) -> bool {
        !self.ending && self.in_flight.len() < self.limits.in_flight_max && self.c2d_qos().is_some()
    }

    /// Whether an event could be sent now.
    pub fn wants_event(&self) -> bool {
        !self.ending && self.in_flight.len() < EVENTS_IN_FLIGHT_MAX && !self.event_filters().is_empty()
    }

    /// Whether a batch of feedback could be sent now.
    pub fn wants_feedback(&self) -> bool {
        !self.ending
            && self.subscriptions.feedback_qos().is_some()
            && self.in_flight.batches() < FEEDBACK_IN_FLIGHT_MAX
    }

    /// Whether the service has asked for news of identities and connections.
    pub fn hears_admin_events(&self) -> bool {
        self.subscriptions.admin_event_qos(None).is_some()
    }

    /// Whether an event of identities and connections could be sent now.
    pub fn wants_admin_event(&self) -> bool {
        !self.ending && self.in_flight.len() < EVENTS_IN_FLIGHT_MAX && self.hears_admin_events()
    }

    /// The telemetry a service wants; none for devices.
    pub fn event_filters(&self) -> &[Filter] {
        match self.role {
            Role::Device(_) => &[],
            Role::Service(_) => self.subscriptions.filters(),
        }
    }

    /// When to call `on_timeout`. A token's end is looked at anew at least every minute, since wall clocks jump.
    pub fn deadline(&self) -> Instant {
        let next = self.pacing.paused_until().unwrap_or(self.silent_until);
        self.expiry.as_ref().map_or(next, |expiry| expiry.check().min(next))
    }

    /// Why the session must end, if what it rests on has.
    pub fn expired(&self, now: Moment) -> Option<CloseReason> {
        self.expiry.as_ref().and_then(|expiry| expiry.reason_at(now))
    }

    /// When to ask for that next.
    pub fn expiry_check(&self, now: Moment) -> Option<Instant> {
        self.expiry.as_ref().map(|expiry| expiry.next(now))
    }

    /// Whether the next packet is to be read. A peer that sends faster than it may waits: its network fills up.
    pub fn wants_packet(&self) -> bool {
        self.pacing.paused_until().is_none()
    }

    fn on_publish(&mut self, publish: Publish, now: Moment) -> Result<(), SessionError> {
        // IoT Hub: the connection is closed.
        if publish.qos == QoS::ExactlyOnce {
            return Err(SessionError::QoS2);
        }
        let topic = topic::parse_publish(&self.role, &publish.topic)?;
        if let Some(right) = rights::to_publish(&topic) {
            self.access.check(right)?;
        }
        if let Some(packet_id) = publish.packet_id {
            if self.unanswered.iter().any(|unanswered| unanswered.packet_id == packet_id) {
                // Still at it: the answer will do for both (threats T210).
                return Ok(());
            }
            let is_taken = !matches!(topic, PublishTopic::Telemetry { .. } | PublishTopic::Command(_));
            self.unanswered.push_back(Unanswered { packet_id, is_taken });
        }
        match topic {
            PublishTopic::Telemetry { bag } => {
                self.actions.push_back(Action::Device(DeviceTask::Ingest {
                    packet_id: publish.packet_id,
                    bag: bag.to_owned(),
                    payload: publish.payload,
                    retain: publish.retain,
                }));
                self.pacing.count(now.monotonic);
            }
            PublishTopic::TwinGet { rid } | PublishTopic::TwinReported { rid } => {
                self.answer_publishes();
                self.refuse_twin_request(rid);
            }
            PublishTopic::Command(asked) => {
                self.spend(now)?;
                let command = Command {
                    method: asked.method.to_owned(),
                    path: asked.path.to_owned(),
                    query: asked.query.to_owned(),
                    body: publish.payload,
                };
                let rid = asked.rid.to_owned();
                let packet_id = publish.packet_id;
                self.actions.push_back(Action::Service(ServiceTask::Command { packet_id, rid, command }));
            }
            // Nothing ever calls a method, so nothing waits for the answer.
            PublishTopic::MethodResponse { .. } => self.answer_publishes(),
        }
        Ok(())
    }

    /// Twins are not kept here; the documented answer says so (threats T618).
    fn refuse_twin_request(&mut self, rid: &str) {
        if !self.subscriptions.contains(&Filter::TwinResponses) {
            return;
        }
        let problem = Problem::twins_not_supported();
        let topic = topic::twin_response_topic(problem.status().as_u16(), rid);
        let Some(topic) = self.sendable(topic) else { return };
        let payload = Bytes::from(problem.numbered_body());
        let answer =
            Publish { dup: false, qos: QoS::AtMostOnce, retain: false, topic, packet_id: None, payload };
        self.actions.push_back(Action::Send(Packet::Publish(answer)));
    }

    /// Acknowledges what is taken, as far as nothing before it is waiting.
    fn answer_publishes(&mut self) {
        while let Some(unanswered) = self.unanswered.pop_front_if(|unanswered| unanswered.is_taken) {
            if !self.ending {
                self.actions.push_back(Action::Send(Packet::PubAck(unanswered.packet_id)));
            }
        }
    }

    fn on_puback(&mut self, packet_id: u16, now: Moment) -> Result<(), SessionError> {
        let acknowledged = match self.in_flight.take(packet_id) {
            Some(Sent::Message(number)) => Action::Device(DeviceTask::Complete(number)),
            Some(Sent::Feedback(token)) => Action::Service(ServiceTask::CompleteFeedback(token)),
            Some(Sent::Event) => return Ok(()),
            None => return self.ignore_ack(now),
        };
        self.actions.push_back(acknowledged);
        Ok(())
    }

    fn ignore_ack(&mut self, now: Moment) -> Result<(), SessionError> {
        self.actions.push_back(Action::Report(Incident::UnknownAck));
        self.spend(now)
    }

    fn on_subscribe(&mut self, subscribe: &Subscribe, now: Moment) -> Result<(), SessionError> {
        self.spend(now)?;
        self.check_filter_count(subscribe.filters.len())?;
        let before = self.subscriptions.clone();
        let codes = subscribe.filters.iter().map(|(text, asked)| self.grant(text, *asked)).collect();
        let ack = Packet::SubAck { packet_id: subscribe.packet_id, codes };
        self.acknowledge_subscriptions(ack, &before);
        Ok(())
    }

    /// The code of SUBACK for one filter, which holds from now on if granted.
    fn grant(&mut self, text: &str, asked: QoS) -> u8 {
        let Ok(filter) = topic::parse_filter(&self.role, text) else { return SUBSCRIPTION_REFUSED };
        if rights::to_subscribe(&filter).is_some_and(|right| !self.access.allows(right)) {
            // What was granted on it when it was allowed is over too.
            self.subscriptions.remove(&filter);
            return SUBSCRIPTION_REFUSED;
        }
        // IoT Hub: QoS 2 is not offered; 1 is granted.
        let granted = asked.min(QoS::AtLeastOnce);
        match self.subscriptions.insert(filter, granted, self.limits.filters_per_connection_max) {
            true => granted as u8,
            false => SUBSCRIPTION_REFUSED,
        }
    }

    fn on_unsubscribe(&mut self, unsubscribe: &Unsubscribe, now: Moment) -> Result<(), SessionError> {
        self.spend(now)?;
        self.check_filter_count(unsubscribe.filters.len())?;
        let before = self.subscriptions.clone();
        for text in &unsubscribe.filters {
            if let Ok(filter) = topic::parse_filter(&self.role, text) {
                self.subscriptions.remove(&filter);
            }
        }
        self.acknowledge_subscriptions(Packet::UnsubAck(unsubscribe.packet_id), &before);
        Ok(())
    }

    fn check_filter_count(&self, count: usize) -> Result<(), SessionError> {
        let count_max = self.limits.filters_per_connection_max;
        if count > count_max { Err(SessionError::TooManyFilters { count, count_max }) } else { Ok(()) }
    }

    /// What is kept is stored before it is acknowledged, so that no restart forgets what a peer was promised.
    fn acknowledge_subscriptions(&mut self, ack: Packet, before: &Subscriptions) {
        let is_changed = self.subscriptions != *before || !self.unsaved.is_empty();
        if self.is_kept && is_changed {
            self.unsaved.push_back(ack);
            let kept = self.subscriptions.encode();
            self.actions.push_back(Action::Device(DeviceTask::SaveSubscriptions(kept)));
        } else {
            self.actions.push_back(Action::Send(ack));
        }
    }

    /// At which quality cloud-to-device messages go out, if they do. The right counts anew for each: a subscription
    /// may be of a time when there was one (threats T606).
    fn c2d_qos(&self) -> Option<QoS> {
        self.subscriptions.c2d_qos().filter(|_| self.access.allows(Right::C2d))
    }

    fn spend(&mut self, now: Moment) -> Result<(), SessionError> {
        if self.allowance.spend(now.monotonic) { Ok(()) } else { Err(SessionError::Flood) }
    }
}

impl Action {
    /// Whether it is done only once the network has taken what was sent before it.
    fn waits_for_the_network(&self) -> bool {
        matches!(
            self,
            Action::Device(DeviceTask::CompleteOnceSent(_))
                | Action::Service(ServiceTask::CompleteFeedbackOnceSent(_))
        )
    }

    /// Whether it is still done for a peer that may say nothing more: it is about what the hub had handed over before.
    fn stands_after_revocation(&self) -> bool {
        matches!(
            self,
            Action::Device(DeviceTask::Complete(_) | DeviceTask::Reject(_))
                | Action::Service(ServiceTask::CompleteFeedback(_))
        )
    }
}

/// The next of a queue, which gives its room back with its last: a connection rests far longer than it acts.
fn next_of<T>(queue: &mut VecDeque<T>) -> Option<T> {
    let next = queue.pop_front();
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
    next
}

/// A service reads many devices' telemetry: its window is wider than a device's. No payload is held for it.
const EVENTS_IN_FLIGHT_MAX: usize = 1024;

/// Batches of feedback sent to one service and not acknowledged.
const FEEDBACK_IN_FLIGHT_MAX: usize = 16;

#[cfg(test)]
mod tests;
