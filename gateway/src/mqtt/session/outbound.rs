//! Where what a peer is sent comes from: a device's own queue, or what a service listens to.

use std::sync::Arc;

use portcullis_registry::feedback::FeedbackReceiver;
use portcullis_registry::queue::Consumer;
use tokio::sync::broadcast;

use super::core::SessionCore;
use crate::hub::bus::{Subscription, TelemetryEvent};
use crate::hub::events;

/// Where messages for the peer come from.
pub(super) enum Outbound {
    /// A device's own queue.
    Queue(Consumer),
    /// The telemetry bus and what became of messages, for a service.
    Service {
        telemetry: Subscription,
        feedback: FeedbackReceiver,
        /// There while the service wants any.
        events: Option<broadcast::Receiver<Arc<events::Event>>>,
    },
}

/// What a feed has.
pub(super) enum Waiting {
    MessagesWait,
    Event(Arc<TelemetryEvent>),
    AdminEvent(Arc<events::Event>),
    FeedbackWaits,
    BusStopped,
}

impl Outbound {
    /// Waits for something to hand on that the core wants. Cancel-safe.
    pub(super) async fn next(&mut self, core: &SessionCore) -> Waiting {
        match self {
            Outbound::Queue(consumer) => {
                consumer.ready().await;
                Waiting::MessagesWait
            }
            Outbound::Service { telemetry, feedback, events } => tokio::select! {
                event = telemetry.events.recv(), if core.wants_event() => event.map_or(Waiting::BusStopped, Waiting::Event),
                () = feedback.ready(), if core.wants_feedback() => Waiting::FeedbackWaits,
                event = next_event(events), if core.wants_admin_event() => Waiting::AdminEvent(event),
            },
        }
    }
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
