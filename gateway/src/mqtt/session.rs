//! The conversation with one authenticated peer: the only loop of a connection, around the rules of `core`.
//!
//! One `select!` over the order to leave, the next packet, the next message for the peer and the next deadline; it
//! performs what the core asks and decides nothing itself. What a session holds for a device and what for a service are
//! two types, each with the tasks and the news that such a peer can have; the loop is the same for both. Whatever it waits for, it also waits for the order to
//! leave, so that a revoked connection goes at once, whether its peer reads or not.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;

use portcullis_registry::access::{Access, Right};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};

use crate::auth::{Revoked, VerifiedIdentity, VerifiedService, Who};
use crate::hub::Hub;
use crate::hub::close_reason::CloseReason;
use crate::hub::connection_log::ConnectionNumber;
use crate::hub::metrics::Scope;
use crate::hub::outcome::ConnectionOutcome;
use crate::hub::session_table::Taken;
use crate::iothub::topic::{self, PublishTopic, Role};
use crate::mqtt::admin::Commands;
use crate::mqtt::packet::{Connect, ConnectReturnCode, Packet, Will};
use crate::mqtt::wire::{Wire, WireError};
use core::{Action, Incident, Opening, SessionCore, SessionLimits};
use device::DeviceSide;
use service::ServiceSide;

pub mod core;
mod device;
mod lifecycle;
mod service;

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
    let reason = session.converse().await;
    // While the seat is held: what a newcomer notes is later.
    lifecycle::ended(hub, &who, noted, &reason);
    drop(session);
    lifecycle::disconnected(hub, &who, peer, &reason);
}

/// A device's session, and what is needed to tell of its end.
struct OpenSession<'h, S> {
    session: Box<Session<'h, S, DeviceSide<'h>>>,
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
    let side = DeviceSide::new(hub, seat, connect.will);
    let session = Box::new(Session { link: Link::open(hub, wire, opening), side });
    let noted = lifecycle::connected(hub, &who, peer, session.link.core.session_present());
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
    let mut session =
        Session { link: Link::open(hub, wire, opening), side: ServiceSide::new(hub, commands, who.clone()) };
    tracing::info!(policy = who.policy(), "service connected");
    let reason = session.converse().await;
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

/// One open session and everything it holds; dropping it gives all of it back, the connection before the seat.
struct Session<'h, S, P> {
    link: Link<'h, S>,
    side: P,
}

/// What every session has: a connection, and the rules of the conversation on it.
struct Link<'h, S> {
    hub: &'h Arc<Hub>,
    wire: Wire<S>,
    core: SessionCore,
}

/// What a session holds for the kind of peer it serves, and does for that kind alone.
trait PeerSide {
    /// What the core asks for such a peer.
    type Task: TryFrom<Action, Error = Action>;
    /// What there may be to hand on to it.
    type News;

    /// Why the peer has no say any more, if it has none.
    fn revoked(&self) -> Option<CloseReason>;

    /// Waits for the order to leave, whether given to this session or to all. Cancel-safe.
    async fn ordered(&mut self) -> CloseReason;

    /// Waits for something to hand on that the core wants, or for the order to leave. Cancel-safe.
    async fn news(&mut self, core: &SessionCore) -> Result<Self::News, CloseReason>;

    /// Hands the core what there is.
    fn on_news(&mut self, core: &mut SessionCore, news: Self::News);

    /// The peer has sent a packet.
    fn note_packet(&self);

    /// The peer may have changed its subscriptions.
    fn subscriptions_changed(&mut self, core: &SessionCore);

    /// Does one thing the core asks for.
    async fn perform<S>(&mut self, link: &mut Link<'_, S>, task: Self::Task)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send;

    /// Leaves what is to be left when the session ends: the will, if it is due.
    async fn end(&mut self, reason: &CloseReason, send_will: bool);
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send, P: PeerSide> Session<'_, S, P> {
    /// Converses to the end; the reason is why it ended.
    async fn converse(&mut self) -> CloseReason {
        loop {
            while let Some(action) = self.link.core.next_action() {
                match action {
                    Action::Send(packet) => self.link.wire.send(&packet),
                    Action::Report(incident) => self.link.report(incident),
                    // Boxed: a connection at rest must not hold the room that its busiest moment takes.
                    action => {
                        if let ControlFlow::Break(reason) = Box::pin(self.perform(action)).await {
                            return reason;
                        }
                    }
                }
                if self.link.wire.unsent() > self.link.hub.config.limits.output_bytes_max
                    && let Err(reason) = self.link.flush(self.side.ordered()).await
                {
                    self.link.core.close(reason);
                }
            }
            if let Err(reason) = self.link.flush(self.side.ordered()).await {
                self.link.core.close(reason);
                continue;
            }
            self.wait().await;
        }
    }

    /// Waits for the next thing to happen and tells the core. No arm is favoured, so none starves.
    async fn wait(&mut self) {
        let Link { hub, wire, core } = &mut self.link;
        tokio::select! {
            packet = wire.read(), if core.wants_packet() => self.on_read(packet),
            news = self.side.news(core) => match news {
                Ok(news) => self.side.on_news(core, news),
                Err(reason) => core.close(reason),
            },
            () = sleep_until(core.deadline().into()) => core.on_timeout(hub.clock.now()),
        }
    }

    fn on_read(&mut self, read: Result<Packet, WireError>) {
        let Link { hub, core, .. } = &mut self.link;
        if let Some(reason) = self.side.revoked() {
            return core.close(reason);
        }
        let outcome = match read {
            Ok(packet) => {
                let now = hub.clock.now();
                self.side.note_packet();
                let is_wish = matches!(packet, Packet::Subscribe(_) | Packet::Unsubscribe(_));
                let outcome = core.on_packet(packet, now).map_err(CloseReason::from);
                if !core.wants_packet() {
                    hub.metrics.throttled(Scope::Messages);
                }
                if is_wish {
                    self.side.subscriptions_changed(core);
                }
                outcome
            }
            Err(WireError::Malformed(error)) => Err(CloseReason::ProtocolViolation(error.to_string())),
            Err(WireError::Closed | WireError::Io(_)) => Err(CloseReason::ConnectionLost),
        };
        if let Err(reason) = outcome {
            core.close(reason);
        }
    }

    /// Does one thing the core asks for.
    async fn perform(&mut self, action: Action) -> ControlFlow<CloseReason> {
        match action {
            Action::Send(packet) => self.link.wire.send(&packet),
            Action::Report(incident) => self.link.report(incident),
            Action::Close { reason, send_will } => {
                self.end(&reason, send_will).await;
                return ControlFlow::Break(reason);
            }
            action @ (Action::Device(_) | Action::Service(_)) => match P::Task::try_from(action) {
                Ok(task) => self.side.perform(&mut self.link, task).await,
                Err(_) => self.link.contradicted(),
            },
        }
        ControlFlow::Continue(())
    }

    /// The end: what the peer leaves, then a goodbye if the peer takes it at once.
    async fn end(&mut self, reason: &CloseReason, send_will: bool) {
        self.link.hub.metrics.disconnected(reason.outcome());
        self.side.end(reason, send_will).await;
        // Only a hub that stops says goodbye; anybody else is gone, or must go at once.
        if matches!(reason, CloseReason::Shutdown | CloseReason::ClientDisconnected) {
            let _ = timeout(GOODBYE_TIME_MAX, self.link.wire.shutdown()).await;
        }
    }
}

impl<'h, S: AsyncRead + AsyncWrite + Unpin + Send> Link<'h, S> {
    /// The connection of a new session, with its CONNACK on the way.
    fn open(hub: &'h Arc<Hub>, mut wire: Wire<S>, opening: Opening) -> Self {
        let core = SessionCore::new(opening, SessionLimits::of(&hub.config.limits), hub.clock.now());
        hub.metrics.connection_attempt(ConnectionOutcome::Succeeded);
        hub.metrics.connections.inc();
        wire.send(&Packet::ConnAck {
            session_present: core.session_present(),
            code: ConnectReturnCode::Accepted,
        });
        Self { hub, wire, core }
    }

    /// Sends what is gathered. A peer that does not read has a limited time, and none once it must leave, which
    /// `ordered` waits for.
    async fn flush(&mut self, ordered: impl Future<Output = CloseReason>) -> Result<(), CloseReason> {
        if self.wire.unsent() == 0 {
            return Ok(());
        }
        tokio::select! {
            biased;
            reason = ordered => Err(reason),
            sent = timeout(self.hub.config.limits.write_time_max, self.wire.flush()) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(CloseReason::ConnectionLost),
                Err(_) => Err(CloseReason::SlowReader),
            },
            reason = expired(&self.core, self.hub) => Err(reason),
        }
    }

    /// Counts what the core has nothing to do about.
    fn report(&self, incident: Incident) {
        match incident {
            Incident::UnknownAck => {
                self.hub.metrics.acks_ignored.inc();
                tracing::debug!("an acknowledgement of nothing that was sent is ignored");
            }
            Incident::TopicTooLong => {
                self.hub.metrics.publishes_dropped.inc();
                tracing::debug!("a message is not sent: its topic would be longer than MQTT allows");
            }
        }
    }

    /// The core asked for what only the other kind of peer can have. It never does: its rules are checked for that.
    fn contradicted(&mut self) {
        tracing::error!("the rules of a session asked for what its kind of peer cannot have; report this");
        self.core.close(CloseReason::Internal);
    }
}

impl<S> Drop for Link<'_, S> {
    fn drop(&mut self) {
        self.hub.metrics.connections.dec();
    }
}

impl Revoked {
    /// What a peer hears when it happens while it connects.
    fn connack(self) -> ConnectReturnCode {
        match self {
            Revoked::Deleted | Revoked::Disabled | Revoked::CredentialChanged => {
                ConnectReturnCode::NotAuthorized
            }
            // It is who it says; with its new rights it is welcome.
            Revoked::AccessNarrowed => ConnectReturnCode::ServerUnavailable,
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

/// What is handed to a connection before it has taken what was before; one more message may go beyond it.
const MESSAGE_BYTES_AT_ONCE: usize = 16 * 1024;
/// How long a goodbye may take.
const GOODBYE_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);
