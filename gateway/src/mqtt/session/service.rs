//! A service's side of its session: the policy it goes by, what it listens to, and what its commands go through.

use std::sync::Arc;

use portcullis_registry::feedback::FeedbackReceiver;
use portcullis_registry::lock::LockToken;
use portcullis_registry::policy::Policies;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, watch};

use super::core::{Command, ServiceTask, SessionCore};
use super::{Link, PeerSide, expired};
use crate::auth::VerifiedService;
use crate::hub::Hub;
use crate::hub::bus::{Subscription, TelemetryEvent};
use crate::hub::close_reason::CloseReason;
use crate::hub::events;
use crate::iothub::message_properties::bag;
use crate::iothub::topic;
use crate::mqtt::admin::Commands;
use crate::operations::feedback;

/// What a session holds for a service.
pub(super) struct ServiceSide<'h> {
    hub: &'h Arc<Hub>,
    policy: PolicyWatch<'h>,
    commands: &'h Commands,
    telemetry: Subscription,
    feedback: FeedbackReceiver,
    /// There while the service wants any.
    events: Option<broadcast::Receiver<Arc<events::Event>>>,
}

/// The policy of a service, which it watches itself: services have no place in the table of sessions.
struct PolicyWatch<'h> {
    hub: &'h Hub,
    who: VerifiedService,
    policies: watch::Receiver<Arc<Policies>>,
}

/// What there is to hand on.
pub(super) enum ServiceNews {
    Event(Arc<TelemetryEvent>),
    AdminEvent(Arc<events::Event>),
    FeedbackWaits,
}

impl PolicyWatch<'_> {
    /// Waits until the policy does not hold any more, or its token. Cancel-safe.
    async fn lost(&mut self) -> CloseReason {
        // Policies are told anew when the clock was set, too.
        let (who, clock) = (&self.who, &self.hub.clock);
        let is_over = || who.expires().is_some_and(|end| clock.wall() >= end);
        match self.policies.wait_for(|policies| is_over() || !who.still_holds(policies)).await {
            Ok(policies) if !who.still_holds(&policies) => CloseReason::CredentialChanged,
            Ok(_) => CloseReason::TokenExpired,
            // Nobody can change policies any more: the hub is gone.
            Err(_) => CloseReason::Shutdown,
        }
    }

    /// Waits for the order to leave, whether given to this session or to all. Cancel-safe.
    async fn must_leave(&mut self) -> CloseReason {
        let hub = self.hub;
        tokio::select! {
            biased;
            reason = self.lost() => reason,
            () = hub.stopping.cancelled() => CloseReason::Shutdown,
        }
    }
}

impl<'h> ServiceSide<'h> {
    /// The side of `who`, which hears nothing until it subscribes.
    pub(super) fn new(hub: &'h Arc<Hub>, commands: &'h Commands, who: VerifiedService) -> Self {
        Self {
            hub,
            policy: PolicyWatch { hub, who, policies: hub.watch_policies() },
            commands,
            telemetry: hub.bus.subscribe(),
            feedback: hub.registry.feedback_receiver(),
            events: None,
        }
    }

    /// Hands the core an event and those right behind it, as many as are sent in one go.
    fn hand_events(&mut self, core: &mut SessionCore, first: Arc<TelemetryEvent>) {
        let (mut next, mut bytes) = (Some(first), 0);
        while let Some(event) = next {
            let topic = event_topic(&event);
            bytes += topic.len() + event.telemetry.payload.len();
            core.on_event(topic, event.telemetry.payload.clone());
            let is_more = core.wants_event() && bytes < super::MESSAGE_BYTES_AT_ONCE;
            next = if is_more { self.telemetry.events.try_recv().ok() } else { None };
        }
    }

    /// Does a command and hands its answer to the core. A service that loses its right meanwhile gets no answer.
    async fn command(&mut self, core: &mut SessionCore, packet_id: Option<u16>, rid: &str, command: Command) {
        let who = self.policy.who.clone();
        tokio::select! {
            biased;
            reason = self.policy.must_leave() => core.close(reason),
            answer = self.commands.execute(who, command) => {
                let topic = topic::answer_topic(answer.status, rid, &answer.head);
                core.commanded(packet_id, topic, answer.body);
            }
            reason = expired(core, self.hub) => core.close(reason),
        }
    }

    async fn complete_feedback(&mut self, core: &mut SessionCore, token: LockToken) {
        if self.feedback.complete(token, self.hub.clock.now().monotonic).await.is_err() {
            core.close(CloseReason::StoreUnavailable);
        }
    }
}

impl PeerSide for ServiceSide<'_> {
    type Task = ServiceTask;
    type News = ServiceNews;

    fn revoked(&self) -> Option<CloseReason> {
        let PolicyWatch { who, policies, .. } = &self.policy;
        (!who.still_holds(&policies.borrow())).then_some(CloseReason::CredentialChanged)
    }

    async fn ordered(&mut self) -> CloseReason {
        self.policy.must_leave().await
    }

    async fn news(&mut self, core: &SessionCore) -> Result<ServiceNews, CloseReason> {
        tokio::select! {
            reason = self.policy.must_leave() => Err(reason),
            event = self.telemetry.events.recv(), if core.wants_event() => {
                event.map(ServiceNews::Event).ok_or(CloseReason::Shutdown)
            }
            () = self.feedback.ready(), if core.wants_feedback() => Ok(ServiceNews::FeedbackWaits),
            event = next_event(&mut self.events), if core.wants_admin_event() => Ok(ServiceNews::AdminEvent(event)),
        }
    }

    fn on_news(&mut self, core: &mut SessionCore, news: ServiceNews) {
        match news {
            ServiceNews::FeedbackWaits => {
                if let Some(batch) = self.feedback.lease(self.hub.clock.wall()) {
                    core.on_feedback(batch.token, feedback::to_json(&batch).into());
                }
            }
            ServiceNews::Event(event) => self.hand_events(core, event),
            ServiceNews::AdminEvent(event) => core.on_admin_event(event.name, &event.id, event.body().into()),
        }
    }

    /// Nobody asks when a service was last heard of.
    fn note_packet(&self) {}

    fn subscriptions_changed(&mut self, core: &SessionCore) {
        self.telemetry.set_filters(core.event_filters());
        match core.hears_admin_events() {
            true => _ = self.events.get_or_insert_with(|| self.hub.events.listen()),
            false => self.events = None,
        }
    }

    async fn perform<S>(&mut self, link: &mut Link<'_, S>, task: ServiceTask)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        match task {
            ServiceTask::Command { packet_id, rid, command } => {
                self.command(&mut link.core, packet_id, &rid, command).await;
            }
            ServiceTask::CompleteFeedback(token) => self.complete_feedback(&mut link.core, token).await,
            ServiceTask::CompleteFeedbackOnceSent(token) => {
                match link.flush(self.policy.must_leave()).await {
                    Ok(()) => self.complete_feedback(&mut link.core, token).await,
                    Err(reason) => link.core.close(reason),
                }
            }
        }
    }

    /// What it had and did not acknowledge goes back as it is dropped.
    async fn end(&mut self, _reason: &CloseReason, _send_will: bool) {}
}

/// The next event that is heard. One that lagged goes on with the oldest there is: the numbers show the gap.
async fn next_event(events: &mut Option<broadcast::Receiver<Arc<events::Event>>>) -> Arc<events::Event> {
    let Some(events) = events else { return std::future::pending().await };
    loop {
        match events.recv().await {
            Ok(event) => return event,
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// The topic a service subscriber sees, with the number of messages it lost before this one, if any.
fn event_topic(event: &TelemetryEvent) -> String {
    let TelemetryEvent { telemetry, lost_before } = event;
    let mut topic = topic::events_topic(&telemetry.device, telemetry.module.as_deref(), &telemetry.bag);
    if *lost_before > 0 {
        topic.push_str(&format!("&{}={lost_before}", bag::LOST));
    }
    topic
}
