//! A device's side of its session: the seat it holds, the queue it reads, and what it is entitled to.

use std::sync::Arc;
use std::time::Duration;

use portcullis_registry::activity::Activity;
use portcullis_registry::queue::Consumer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::core::{DeviceTask, SessionCore};
use super::{Link, PeerSide, expired};
use crate::auth::VerifiedIdentity;
use crate::hub::Hub;
use crate::hub::clock::Moment;
use crate::hub::close_reason::CloseReason;
use crate::hub::session_table::Seat;
use crate::iothub::topic::{self, PublishTopic, Role};
use crate::mqtt::packet::Will;
use crate::operations::d2c::{self, Incoming};

/// What a session holds for a device or module.
pub(super) struct DeviceSide<'h> {
    hub: &'h Arc<Hub>,
    queue: Consumer,
    will: Option<Will>,
    /// Its place in the table, through which it is told to leave. Last, so that it is given back last.
    seat: Seat,
}

/// Messages may wait in the queue.
pub(super) struct MessagesWait;

impl<'h> DeviceSide<'h> {
    /// The side of the device in `seat`, whose connection counts as its activity from now on.
    pub(super) fn new(hub: &'h Arc<Hub>, seat: Seat, will: Option<Will>) -> Self {
        let queue = hub.registry.attach(seat.who().entry());
        let side = Self { hub, queue, will, seat };
        side.activity().connection_changed(hub.clock.wall());
        side
    }

    fn who(&self) -> &VerifiedIdentity {
        self.seat.who()
    }

    fn activity(&self) -> &Activity {
        self.who().entry().activity()
    }

    /// Waits for the order to leave, whether given to this session or to all. Cancel-safe.
    async fn must_leave(&self) -> CloseReason {
        tokio::select! {
            biased;
            reason = self.seat.leave().ordered() => reason,
            () = self.hub.stopping.cancelled() => CloseReason::Shutdown,
        }
    }

    /// Hands the core as many messages as are sent in one go: what waits for a slow reader stays in the queue, where
    /// it can still expire. `ready` tells at once if there are more.
    fn lease_messages(&mut self, core: &mut SessionCore, now: Moment) {
        let mut bytes = 0;
        while core.wants_message()
            && bytes < super::MESSAGE_BYTES_AT_ONCE
            && let Some(lease) = self.queue.lease(now.wall)
        {
            bytes += lease.message.body.len();
            self.hub.metrics.c2d_handed_over(&lease.message, lease.is_repeat, now.wall);
            core.on_message(&lease);
        }
    }

    async fn ingest<S>(&self, link: &mut Link<'_, S>, packet_id: Option<u16>, incoming: Incoming<'_>) {
        let outcome = tokio::select! {
            biased;
            reason = self.must_leave() => Err(reason),
            taken = d2c::accept(self.hub, self.who(), incoming) => taken.map_err(|error| match error {
                d2c::IngestError::Denied(denied) => CloseReason::AccessDenied(denied),
                d2c::IngestError::Bag(error) => CloseReason::ProtocolViolation(error.to_string()),
                d2c::IngestError::Bus(_) => CloseReason::Shutdown,
            }),
            // After the others: it arms a timer, and they seldom wait.
            reason = expired(&link.core, self.hub) => Err(reason),
        };
        match outcome {
            Ok(()) => link.core.ingested(packet_id),
            Err(reason) => link.core.close(reason),
        }
    }

    async fn save_subscriptions(&self, core: &mut SessionCore, bytes: Option<Vec<u8>>) {
        let who = self.who();
        match self.hub.registry.save_subscriptions(who.id(), who.generation(), bytes).await {
            Ok(()) => core.subscriptions_saved(),
            // Not stored means not granted: the peer must not believe in a subscription that a restart forgets.
            Err(_) => core.close(CloseReason::StoreUnavailable),
        }
    }

    async fn complete(&mut self, core: &mut SessionCore, number: u64) {
        // Whether it was still there is no matter: it may have been purged meanwhile.
        if self.queue.complete(number, self.hub.clock.wall()).await.is_err() {
            core.close(CloseReason::StoreUnavailable);
        }
    }

    /// Ends a message that can never be sent, so that its sender hears of it and the queue does not keep it.
    async fn reject(&mut self, core: &mut SessionCore, number: u64) {
        match self.queue.reject(number, self.hub.clock.wall()).await {
            Ok(true) => {
                self.hub.metrics.c2d_undeliverable.inc();
                tracing::info!(
                    identity = %self.who().id(),
                    number,
                    "a cloud-to-device message was rejected: its properties do not fit into an MQTT topic"
                );
            }
            // Purged meanwhile.
            Ok(false) => {}
            Err(_) => core.close(CloseReason::StoreUnavailable),
        }
    }
}

impl PeerSide for DeviceSide<'_> {
    type Task = DeviceTask;
    type News = MessagesWait;

    /// What the device sends after a revocation was answered finds this set. One that is only overtaken may still say
    /// goodbye.
    fn revoked(&self) -> Option<CloseReason> {
        self.seat.leave().given().filter(CloseReason::is_revocation)
    }

    async fn ordered(&mut self) -> CloseReason {
        self.must_leave().await
    }

    async fn news(&mut self, core: &SessionCore) -> Result<MessagesWait, CloseReason> {
        tokio::select! {
            reason = self.must_leave() => Err(reason),
            () = self.queue.ready(), if core.wants_message() => Ok(MessagesWait),
        }
    }

    fn on_news(&mut self, core: &mut SessionCore, MessagesWait: MessagesWait) {
        let now = self.hub.clock.now();
        self.lease_messages(core, now);
        self.activity().seen(now.wall);
    }

    fn note_packet(&self) {
        self.activity().seen(self.hub.clock.wall());
    }

    fn subscriptions_changed(&mut self, _core: &SessionCore) {}

    async fn perform<S>(&mut self, link: &mut Link<'_, S>, task: DeviceTask)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match task {
            DeviceTask::Ingest { packet_id, bag, payload, retain } => {
                let incoming = Incoming { bag: &bag, payload, retain, will: false };
                self.ingest(link, packet_id, incoming).await;
            }
            DeviceTask::SaveSubscriptions(bytes) => self.save_subscriptions(&mut link.core, bytes).await,
            DeviceTask::Complete(number) => self.complete(&mut link.core, number).await,
            DeviceTask::CompleteOnceSent(number) => match link.flush(self.must_leave()).await {
                Ok(()) => self.complete(&mut link.core, number).await,
                Err(reason) => link.core.close(reason),
            },
            DeviceTask::Reject(number) => self.reject(&mut link.core, number).await,
        }
    }

    async fn end(&mut self, reason: &CloseReason, send_will: bool) {
        if send_will && let Some(will) = self.will.take() {
            // On its own, so that a full bus does not keep the seat from a newcomer.
            self.hub.tasks.spawn(publish_will(Arc::clone(self.hub), self.who().clone(), will));
        }
        if !reason.is_revocation() {
            // So that the next connection knows a repeat as one, on whatever side of a restart it comes.
            // A revoked one must go at once, and leaves the same note in passing.
            let _ = timeout(NOTE_TIME_MAX, self.queue.note_unanswered()).await;
        }
    }
}

impl Drop for DeviceSide<'_> {
    fn drop(&mut self) {
        // Before the seat is free: what a newcomer notes is later.
        self.activity().connection_changed(self.hub.clock.wall());
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

/// How long a connection that ends waits for the store to know what it left unanswered.
const NOTE_TIME_MAX: Duration = Duration::from_millis(250);
