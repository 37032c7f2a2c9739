//! Cloud to device: all access to a device's queue, for senders and for devices that poll it. REST and the commands
//! over MQTT use it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use portcullis_registry::access::{AccessDenied, Right};
use portcullis_registry::error::{RegistryError, SendError, SettleError};
use portcullis_registry::id::IdentityId;
use portcullis_registry::lock::LockToken;
use portcullis_registry::message::{C2dMessage, NewC2d, Outcome};
use portcullis_registry::policy::Rights;
use portcullis_registry::queue::{Queued, Received};

use crate::auth::{AuthError, VerifiedIdentity, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::Operation;
use crate::hub::audit::effect::Effect;
use crate::iothub::topic;
use crate::operations::audit::audited;

/// Why a message was not accepted, or a queue not shown or emptied.
#[derive(Debug, thiserror::Error)]
pub enum C2dError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the percent-encoded properties do not fit into an MQTT topic; send fewer or shorter ones")]
    PropertiesTooLong,
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Queue(#[from] RegistryError),
}

/// Why a device has no access to its queue.
#[derive(Debug, thiserror::Error)]
pub enum DeviceQueueError {
    #[error(transparent)]
    Denied(#[from] AccessDenied),
    #[error(transparent)]
    Settle(#[from] SettleError),
}

/// Puts a message into the queue of `to`. When this returns `Ok` it is on stable storage (threats P3).
pub async fn send(
    hub: &Hub,
    caller: &VerifiedService,
    to: &IdentityId,
    message: NewC2d,
) -> Result<Arc<C2dMessage>, C2dError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    if !topic::c2d_fits(&message) {
        return Err(C2dError::PropertiesTooLong);
    }
    let message = hub.registry.send(to, message, hub.clock.wall()).await?;
    hub.metrics.c2d_enqueued.inc();
    tracing::debug!(identity = %to, number = message.number, "cloud-to-device message accepted");
    Ok(message)
}

/// Sends many messages and returns one result for each, in order. Messages to one recipient are queued in order.
/// Recipients share the store's commits.
pub async fn send_all(
    hub: &Hub,
    caller: &VerifiedService,
    messages: Vec<(IdentityId, NewC2d)>,
) -> Vec<Result<Arc<C2dMessage>, C2dError>> {
    let mut by_recipient: HashMap<IdentityId, Vec<(usize, NewC2d)>> = HashMap::new();
    for (place, (to, message)) in messages.into_iter().enumerate() {
        by_recipient.entry(to).or_default().push((place, message));
    }
    let sends = by_recipient.into_iter().map(async |(to, messages)| {
        let mut sent = Vec::with_capacity(messages.len());
        for (place, message) in messages {
            sent.push((place, send(hub, caller, &to, message).await));
        }
        sent
    });
    let mut sent: Vec<_> = join_all(sends).await.into_iter().flatten().collect();
    sent.sort_by_key(|(place, _)| *place);
    sent.into_iter().map(|(_, result)| result).collect()
}

/// Removes every message in the queue of `id`, also those being delivered. Returns how many there were.
pub async fn purge(hub: &Hub, caller: &VerifiedService, id: &IdentityId) -> Result<u64, C2dError> {
    audited(hub, caller, Operation::PurgeQueue, id.to_string(), async {
        caller.check(Rights::SERVICE_CONNECT)?;
        let count = hub.registry.purge(id, hub.clock.wall()).await?;
        tracing::info!(identity = %id, policy = caller.policy(), count, "cloud-to-device queue purged");
        Ok((count, Effect::with_details(vec![("messages", count.into())])))
    })
    .await
}

/// The first messages in the queue of `id`, at most `count` of them. They stay in the queue.
pub fn peek(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
    count: usize,
) -> Result<Vec<Queued>, C2dError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let entry = hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?;
    Ok(entry.peek(count))
}

/// Delivers a device's next message, locked for `lock_time`.
///
/// Source: IoT Hub, REST API of the device, "Receive Device Bound Notification".
pub fn receive(
    hub: &Hub,
    who: &VerifiedIdentity,
    lock_time: Option<Duration>,
) -> Result<Option<Received>, DeviceQueueError> {
    who.check(Right::C2d)?;
    let now = hub.clock.now();
    let lock_time = lock_time.unwrap_or(hub.config.limits.c2d_lock_time_default);
    let received = hub.registry.receive(who.entry(), lock_time, now.wall, now.monotonic);
    if let Some(received) = &received {
        hub.metrics.c2d_handed_over(&received.message, received.is_repeat, now.wall);
    }
    Ok(received)
}

/// The device completes the message that it received with this token.
pub async fn complete(hub: &Hub, who: &VerifiedIdentity, token: LockToken) -> Result<(), DeviceQueueError> {
    settle(hub, who, token, Outcome::Completed).await
}

/// The device rejects the message for good.
pub async fn reject(hub: &Hub, who: &VerifiedIdentity, token: LockToken) -> Result<(), DeviceQueueError> {
    settle(hub, who, token, Outcome::Rejected).await
}

/// The device abandons the message, which returns to the queue.
pub async fn abandon(hub: &Hub, who: &VerifiedIdentity, token: LockToken) -> Result<(), DeviceQueueError> {
    who.check(Right::C2d)?;
    let now = hub.clock.now();
    hub.registry.abandon_received(who.entry(), token, now.wall, now.monotonic).await?;
    hub.metrics.c2d_abandoned.inc();
    Ok(())
}

async fn settle(
    hub: &Hub,
    who: &VerifiedIdentity,
    token: LockToken,
    outcome: Outcome,
) -> Result<(), DeviceQueueError> {
    who.check(Right::C2d)?;
    let now = hub.clock.now();
    Ok(hub.registry.settle_received(who.entry(), token, outcome, now.wall, now.monotonic).await?)
}
