//! The conversation with one authenticated peer: the only loop of a connection, around the rules of `core`.
//!
//! One `select!` over the order to leave, the next packet, the next message for the peer and the next deadline; it
//! performs what the core asks and decides nothing itself. Whatever it waits for, it also waits for the order to
//! leave, so that a revoked connection goes at once, whether its peer reads or not.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use portcullis_registry::access::{Access, Right};
use portcullis_registry::lock::LockToken;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};

use crate::auth::{Revoked, VerifiedIdentity, VerifiedService, Who};
use crate::hub::Hub;
use crate::hub::bus::TelemetryEvent;
use crate::hub::clock::Moment;
use crate::hub::close_reason::CloseReason;
use crate::hub::connection_log::ConnectionNumber;
use crate::hub::metrics::Scope;
use crate::hub::outcome::ConnectionOutcome;
use crate::hub::session_table::Taken;
use crate::iothub::topic::{self, PublishTopic, Role};
use crate::mqtt::admin::Commands;
use crate::mqtt::packet::{Connect, ConnectReturnCode, Packet, Will};
use crate::mqtt::wire::{Wire, WireError};
use crate::operations::d2c::{self, Incoming};
use crate::operations::feedback;
use authorization::Authorization;
use core::{Action, Command, Opening, Sent, SessionCore, SessionLimits};
use outbound::{Outbound, Waiting};

mod authorization;
pub mod core;
mod lifecycle;
mod outbound;

/// Opens the session of an authenticated peer and converses until either side ends it. `commands` is for services.
///
/// Not an async function: one would keep room for all it was given beside what that has become, for months.
pub fn run<'h, S>(
    hub: &'h Arc<Hub>,
    commands: &'h Commands,
    wire: Wire<S>,
    peer: SocketAddr,
    who: Who,
    connect: Box<Connect>,
) -> Pin<Box<dyn Future<Output = ()> + Send + 'h>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'h,
{
    match who {
        Who::Device(identity) => {
            Box::pin(run_device(hub, Box::pin(open(hub, wire, peer, identity, connect))))
        }
        Who::Service(service) => Box::pin(run_service(hub, commands, wire, service, connect)),
    }
}

/// Whether a will of this peer may be kept: devices may leave one on their own telemetry topic, nobody any other.
pub fn check_will(who: &Who, will: &Will) -> Result<(), String> {
    let Who::Device(identity) = who else { return Err("service connections have no will".into()) };
    match topic::parse_publish(&Role::Device(identity.id().clone()), &will.topic) {
        Ok(PublishTopic::Telemetry { .. }) => {
            identity.check(Right::Telemetry).map_err(|denied| format!("will: {denied}"))
        }
        Ok(_) => Err("a will may only be telemetry".into()),
        Err(error) => Err(format!("will: {error}")),
    }
}

/// Converses with a device once its session is open. `opening` is boxed, and its room free when it is done.
async fn run_device<'h, S>(hub: &'h Hub, opening: Pin<Box<impl Future<Output = Option<OpenSession<'h, S>>>>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let Some(OpenSession { mut session, who, peer, noted }) = opening.await else { return };
    let reason = session.converse(Some(&who)).await;
    // While the seat is held: what a newcomer notes is later.
    lifecycle::ended(hub, &who, noted, &reason);
    drop(session);
    lifecycle::disconnected(hub, &who, peer, &reason);
}

/// A device's session, and what is needed to tell of its end.
struct OpenSession<'h, S> {
    session: Box<Session<'h, S>>,
    who: VerifiedIdentity,
    peer: SocketAddr,
    noted: ConnectionNumber,
}

/// Takes the device's seat and opens its session; without one the device has its answer.
async fn open<'h, S>(
    hub: &'h Arc<Hub>,
    mut wire: Wire<S>,
    peer: SocketAddr,
    who: VerifiedIdentity,
    connect: Box<Connect>,
) -> Option<OpenSession<'h, S>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let wait_max = hub.config.limits.takeover_wait_time_max;
    let on_wait = || hub.metrics.throttled(Scope::Takeover);
    let Some(Taken { seat, takeover }) = hub.sessions.take(who.clone(), wait_max, on_wait).await else {
        hub.metrics.connection_attempt(ConnectionOutcome::Overtaken);
        tracing::debug!(identity = %who.id(), "a newer connection came before this one had its turn");
        return None;
    };
    if let Some(takeover) = takeover {
        lifecycle::taken_over(hub, &who, peer, takeover);
    }
    let restored = match admit(hub, &who, connect.clean_session).await {
        Ok(restored) => restored,
        Err((outcome, code)) => {
            hub.metrics.connection_attempt(outcome);
            wire.send(&Packet::ConnAck { session_present: false, code });
            let _ = timeout(hub.config.limits.write_time_max, wire.flush()).await;
            return None;
        }
    };
    let opening = Opening {
        role: Role::Device(who.id().clone()),
        access: who.access().clone(),
        clean_session: connect.clean_session,
        keep_alive: connect.keep_alive,
        restored,
        expires: who.expires().map(|end| (end, CloseReason::expired(who.credential()))),
        will: connect.will.is_some(),
    };
    let consumer = hub.registry.attach(who.entry());
    let outbound = Outbound::Queue(consumer);
    let mut session = Box::new(Session::open(hub, wire, opening, outbound, Authorization::Seat(seat)));
    session.will = connect.will;
    let noted = lifecycle::connected(hub, &who, peer, session.core.session_present());
    Some(OpenSession { session, who, peer, noted })
}

async fn run_service<S>(
    hub: &Arc<Hub>,
    commands: &Commands,
    wire: Wire<S>,
    who: VerifiedService,
    connect: Box<Connect>,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let opening = Opening {
        role: Role::Service(who.rights()),
        access: Access::EVERYTHING,
        // A service's subscriptions are never kept: it has no identity they could belong to.
        clean_session: true,
        keep_alive: connect.keep_alive,
        restored: None,
        expires: who.expires().map(|end| (end, CloseReason::TokenExpired)),
        will: false,
    };
    let feedback = hub.registry.feedback_receiver();
    let outbound = Outbound::Service { telemetry: hub.bus.subscribe(), feedback, events: None };
    let authorization = Authorization::Policy { who: who.clone(), policies: hub.watch_policies() };
    let mut session = Session::open(hub, wire, opening, outbound, authorization);
    session.commands = Some(commands);
    tracing::info!(policy = who.policy(), "service connected");
    let reason = session.converse(None).await;
    tracing::info!(policy = who.policy(), reason = reason.outcome().label(), "service disconnected");
}

/// The subscriptions to begin with, or how the attempt is counted and answered instead. The identity may have changed
/// between the verdict and the seat, and again while the store was asked; from now on news reaches the seat.
async fn admit(
    hub: &Hub,
    who: &VerifiedIdentity,
    clean: bool,
) -> Result<Option<Vec<u8>>, (ConnectionOutcome, ConnectReturnCode)> {
    let still_holds = || {
        let revoked = |revoked: Revoked| (CloseReason::from(revoked).outcome(), revoked.connack());
        hub.still_holds(who).map_err(revoked)
    };
    still_holds()?;
    let restored = restore(hub, who, clean).await;
    still_holds()?;
    restored.map_err(|_| (ConnectionOutcome::StoreUnavailable, ConnectReturnCode::ServerUnavailable))
}

/// The stored subscriptions, or none for a clean session, which also ends the stored one for good ([MQTT-3.1.2-6]).
async fn restore(
    hub: &Hub,
    who: &VerifiedIdentity,
    clean: bool,
) -> Result<Option<Vec<u8>>, portcullis_registry::error::RegistryError> {
    if !clean {
        return Ok(who.entry().subscriptions().map(|stored| stored.to_vec()));
    }
    hub.registry.save_subscriptions(who.id(), who.generation(), None).await?;
    Ok(None)
}

/// One open session and everything it holds; dropping it gives all of it back.
struct Session<'h, S> {
    hub: &'h Arc<Hub>,
    wire: Wire<S>,
    core: SessionCore,
    outbound: Outbound,
    authorization: Authorization,
    /// What a service's commands go through.
    commands: Option<&'h Commands>,
    will: Option<Will>,
}

impl<'h, S: AsyncRead + AsyncWrite + Unpin + Send> Session<'h, S> {
    /// The session with its CONNACK on the way.
    fn open(
        hub: &'h Arc<Hub>,
        mut wire: Wire<S>,
        opening: Opening,
        outbound: Outbound,
        authorization: Authorization,
    ) -> Self {
        let core = SessionCore::new(opening, SessionLimits::of(&hub.config.limits), hub.clock.now());
        hub.metrics.connection_attempt(ConnectionOutcome::Succeeded);
        hub.metrics.connections.inc();
        if let Some(activity) = authorization.activity() {
            activity.connection_changed(hub.clock.wall());
        }
        wire.send(&Packet::ConnAck {
            session_present: core.session_present(),
            code: ConnectReturnCode::Accepted,
        });
        Self { hub, wire, core, outbound, authorization, commands: None, will: None }
    }

    /// Converses to the end; the reason is why it ended. `who` is the sender of telemetry, for a device.
    async fn converse(&mut self, who: Option<&VerifiedIdentity>) -> CloseReason {
        loop {
            while let Some(action) = self.core.next_action() {
                match action {
                    Action::Send(packet) => self.wire.send(&packet),
                    // Boxed: a connection at rest must not hold the room that its busiest moment takes.
                    action => {
                        if let ControlFlow::Break(reason) = Box::pin(self.perform(who, action)).await {
                            return reason;
                        }
                    }
                }
                if self.wire.unsent() > self.hub.config.limits.output_bytes_max
                    && let Err(reason) = self.flush().await
                {
                    self.core.close(reason);
                }
            }
            if let Err(reason) = self.flush().await {
                self.core.close(reason);
                continue;
            }
            self.wait().await;
        }
    }

    /// Waits for the next thing to happen and tells the core. No arm is favoured, so none starves.
    async fn wait(&mut self) {
        let hub = self.hub;
        let core = &self.core;
        let wants_outbound =
            core.wants_message() || core.wants_event() || core.wants_feedback() || core.wants_admin_event();
        tokio::select! {
            reason = self.authorization.ordered(hub) => self.core.close(reason),
            packet = self.wire.read(), if core.wants_packet() => self.on_read(packet),
            waiting = self.outbound.next(&self.core), if wants_outbound => self.on_waiting(waiting),
            () = sleep_until(self.core.deadline().into()) => self.core.on_timeout(hub.clock.now()),
        }
    }

    fn on_read(&mut self, read: Result<Packet, WireError>) {
        if let Some(reason) = self.authorization.revoked() {
            return self.core.close(reason);
        }
        let outcome = match read {
            Ok(packet) => {
                let now = self.hub.clock.now();
                self.note_activity(now);
                let is_wish = matches!(packet, Packet::Subscribe(_) | Packet::Unsubscribe(_));
                let outcome = self.core.on_packet(packet, now).map_err(CloseReason::from);
                if !self.core.wants_packet() {
                    self.hub.metrics.throttled(Scope::Messages);
                }
                if let (true, Outbound::Service { telemetry, events, .. }) = (is_wish, &mut self.outbound) {
                    telemetry.set_filters(self.core.event_filters());
                    match self.core.hears_admin_events() {
                        true => _ = events.get_or_insert_with(|| self.hub.events.listen()),
                        false => *events = None,
                    }
                }
                outcome
            }
            Err(WireError::Malformed(error)) => Err(CloseReason::ProtocolViolation(error.to_string())),
            Err(WireError::Closed | WireError::Io(_)) => Err(CloseReason::ConnectionLost),
        };
        if let Err(reason) = outcome {
            self.core.close(reason);
        }
    }

    fn on_waiting(&mut self, waiting: Waiting) {
        let now = self.hub.clock.now();
        match waiting {
            Waiting::MessagesWait => {
                self.lease_messages(now);
                self.note_activity(now);
            }
            Waiting::FeedbackWaits => {
                let Outbound::Service { feedback, .. } = &mut self.outbound else { return };
                if let Some(batch) = feedback.lease(now.wall) {
                    self.core.on_feedback(batch.token, feedback::to_json(&batch).into());
                }
            }
            Waiting::Event(event) => self.hand_events(event, now),
            Waiting::AdminEvent(event) => {
                self.core.on_admin_event(event.name, &event.id, event.body().into());
            }
            Waiting::BusStopped => self.core.close(CloseReason::Shutdown),
        }
    }

    /// The device sent something or is being sent something.
    fn note_activity(&self, now: Moment) {
        if let Some(activity) = self.authorization.activity() {
            activity.seen(now.wall);
        }
    }

    /// Hands the core as many messages as are sent in one go: what waits for a slow reader stays in the queue, where
    /// it can still expire. `ready` tells at once if there are more.
    fn lease_messages(&mut self, now: Moment) {
        let Outbound::Queue(consumer) = &mut self.outbound else { return };
        let mut bytes = 0;
        while self.core.wants_message()
            && bytes < MESSAGE_BYTES_AT_ONCE
            && let Some(lease) = consumer.lease(now.wall)
        {
            bytes += lease.message.body.len();
            self.hub.metrics.c2d_handed_over(&lease.message, lease.is_repeat, now.wall);
            self.core.on_message(&lease, now);
        }
    }

    /// Hands the core an event and those right behind it, as many as are sent in one go.
    fn hand_events(&mut self, first: Arc<TelemetryEvent>, now: Moment) {
        let Outbound::Service { telemetry, .. } = &mut self.outbound else { return };
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(event) = next {
            let topic = event_topic(&event);
            bytes += topic.len() + event.telemetry.payload.len();
            self.core.on_event(topic, event.telemetry.payload.clone(), now);
            let is_more = self.core.wants_event() && bytes < MESSAGE_BYTES_AT_ONCE;
            next = if is_more { telemetry.events.try_recv().ok() } else { None };
        }
    }

    /// Does one thing the core asks for.
    async fn perform(&mut self, who: Option<&VerifiedIdentity>, action: Action) -> ControlFlow<CloseReason> {
        match action {
            Action::Send(packet) => self.wire.send(&packet),
            Action::Ingest { packet_id, bag, payload, retain } => {
                let incoming = Incoming { bag: &bag, payload, retain, will: false };
                self.ingest(who, packet_id, incoming).await;
            }
            Action::Command { packet_id, rid, command } => self.command(packet_id, &rid, command).await,
            Action::SaveSubscriptions(bytes) => self.save_subscriptions(who, bytes).await,
            Action::Complete(number) => self.complete(number).await,
            Action::CompleteFeedback(token) => self.complete_feedback(token).await,
            Action::CompleteOnceSent(sent) => match (self.flush().await, sent) {
                (Ok(()), Sent::Message(number)) => self.complete(number).await,
                (Ok(()), Sent::Feedback(token)) => self.complete_feedback(token).await,
                (Ok(()), Sent::Event) => {}
                (Err(reason), _) => self.core.close(reason),
            },
            Action::Close { reason, send_will } => {
                self.end(who, &reason, send_will).await;
                return ControlFlow::Break(reason);
            }
        }
        ControlFlow::Continue(())
    }

    async fn ingest(
        &mut self,
        who: Option<&VerifiedIdentity>,
        packet_id: Option<u16>,
        incoming: Incoming<'_>,
    ) {
        let Some(who) = who else { return };
        let outcome = tokio::select! {
            biased;
            reason = self.authorization.ordered(self.hub) => Err(reason),
            taken = d2c::accept(self.hub, who, incoming) => taken.map_err(|error| match error {
                d2c::IngestError::Denied(denied) => CloseReason::AccessDenied(denied),
                d2c::IngestError::Bag(error) => CloseReason::ProtocolViolation(error.to_string()),
                d2c::IngestError::Bus(_) => CloseReason::Shutdown,
            }),
            // After the others: it arms a timer, and they seldom wait.
            reason = expired(&self.core, self.hub) => Err(reason),
        };
        match outcome {
            Ok(()) => self.core.ingested(packet_id),
            Err(reason) => self.core.close(reason),
        }
    }

    /// Does a command and hands its answer to the core. A service that loses its right meanwhile gets no answer.
    async fn command(&mut self, packet_id: Option<u16>, rid: &str, command: Command) {
        let (Authorization::Policy { who, .. }, Some(commands)) = (&self.authorization, self.commands) else {
            return;
        };
        let who = who.clone();
        tokio::select! {
            biased;
            reason = self.authorization.ordered(self.hub) => self.core.close(reason),
            answer = commands.execute(who, command) => {
                let topic = topic::answer_topic(answer.status, rid, &answer.head);
                self.core.commanded(packet_id, topic, answer.body);
            }
            reason = expired(&self.core, self.hub) => self.core.close(reason),
        }
    }

    async fn save_subscriptions(&mut self, who: Option<&VerifiedIdentity>, bytes: Option<Vec<u8>>) {
        let Some(who) = who else { return self.core.subscriptions_saved() };
        match self.hub.registry.save_subscriptions(who.id(), who.generation(), bytes).await {
            Ok(()) => self.core.subscriptions_saved(),
            // Not stored means not granted: the peer must not believe in a subscription that a restart forgets.
            Err(_) => self.core.close(CloseReason::StoreUnavailable),
        }
    }

    async fn complete(&mut self, number: u64) {
        let Outbound::Queue(consumer) = &mut self.outbound else { return };
        // Whether it was still there is no matter: it may have been purged meanwhile.
        if consumer.complete(number, self.hub.clock.wall()).await.is_err() {
            self.core.close(CloseReason::StoreUnavailable);
        }
    }

    async fn complete_feedback(&mut self, token: LockToken) {
        let Outbound::Service { feedback, .. } = &mut self.outbound else { return };
        if feedback.complete(token, self.hub.clock.now().monotonic).await.is_err() {
            self.core.close(CloseReason::StoreUnavailable);
        }
    }

    /// Sends what is gathered. A peer that does not read has a limited time, and none once it must leave.
    async fn flush(&mut self) -> Result<(), CloseReason> {
        if self.wire.unsent() == 0 {
            return Ok(());
        }
        tokio::select! {
            biased;
            reason = self.authorization.ordered(self.hub) => Err(reason),
            sent = timeout(self.hub.config.limits.write_time_max, self.wire.flush()) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(CloseReason::ConnectionLost),
                Err(_) => Err(CloseReason::SlowReader),
            },
            reason = expired(&self.core, self.hub) => Err(reason),
        }
    }

    /// The end: the will if it is due, a goodbye if the peer takes it at once.
    async fn end(&mut self, who: Option<&VerifiedIdentity>, reason: &CloseReason, send_will: bool) {
        self.hub.metrics.disconnected(reason.outcome());
        if let (true, Some(who), Some(will)) = (send_will, who, self.will.take()) {
            // On its own, so that a full bus does not keep the seat from a newcomer.
            self.hub.tasks.spawn(publish_will(Arc::clone(self.hub), who.clone(), will));
        }
        if let Outbound::Queue(consumer) = &mut self.outbound
            && !reason.is_revocation()
        {
            // So that the next connection knows a repeat as one, on whatever side of a restart it comes.
            // A revoked one must go at once, and leaves the same note in passing.
            let _ = timeout(NOTE_TIME_MAX, consumer.note_unanswered()).await;
        }
        // Only a hub that stops says goodbye; anybody else is gone, or must go at once.
        if matches!(reason, CloseReason::Shutdown | CloseReason::ClientDisconnected) {
            let _ = timeout(GOODBYE_TIME_MAX, self.wire.shutdown()).await;
        }
    }
}

/// Publishes a will that is due, if its owner may still speak.
async fn publish_will(hub: Arc<Hub>, who: VerifiedIdentity, will: Will) {
    let role = Role::Device(who.id().clone());
    let Ok(PublishTopic::Telemetry { bag }) = topic::parse_publish(&role, &will.topic) else { return };
    if hub.still_holds(&who).is_err() {
        return;
    }
    let incoming = Incoming { bag, payload: will.payload.clone(), retain: will.retain, will: true };
    if let Err(error) = d2c::accept(&hub, &who, incoming).await {
        tracing::debug!(%error, "the will was not taken");
    }
}

impl<S> Drop for Session<'_, S> {
    fn drop(&mut self) {
        self.hub.metrics.connections.dec();
        // Before the seat is free: what a newcomer notes is later.
        if let Some(activity) = self.authorization.activity() {
            activity.connection_changed(self.hub.clock.wall());
        }
    }
}

/// Waits for the end of what the session rests on. Cancel-safe.
async fn expired(core: &SessionCore, hub: &Hub) -> CloseReason {
    loop {
        let Some(check) = core.expiry_check(hub.clock.now()) else { return std::future::pending().await };
        sleep_until(check.into()).await;
        if let Some(reason) = core.expired(hub.clock.now()) {
            return reason;
        }
    }
}

/// The topic a service subscriber sees, with the number of messages it lost before this one, if any.
fn event_topic(event: &TelemetryEvent) -> String {
    let TelemetryEvent { telemetry, lost_before } = event;
    let mut topic = topic::events_topic(&telemetry.device, telemetry.module.as_deref(), &telemetry.bag);
    if *lost_before > 0 {
        topic.push_str(&format!("&portcullis-lost={lost_before}"));
    }
    topic
}

/// What is handed to a connection before it has taken what was before; one more message may go beyond it.
const MESSAGE_BYTES_AT_ONCE: usize = 16 * 1024;
/// How long a connection that ends waits for the store to know what it left unanswered.
const NOTE_TIME_MAX: std::time::Duration = std::time::Duration::from_millis(250);
/// How long a goodbye may take.
const GOODBYE_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);
