//! Cloud to device: the one door to a device's queue. REST comes through it, and so will every other face.

use std::sync::Arc;

use portcullis_registry::error::{RegistryError, SendError};
use portcullis_registry::id::IdentityId;
use portcullis_registry::message::{C2dMessage, NewC2d};
use portcullis_registry::policy::Rights;

use crate::audit::{Entry, Operation};
use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::mqtt::topic;

/// Why a message was not accepted, or a queue not emptied.
#[derive(Debug, thiserror::Error)]
pub enum C2dError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the properties do not fit into an MQTT topic once they are percent-encoded")]
    PropertiesTooLong,
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Purge(#[from] RegistryError),
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

/// Removes every message that waits in the queue of `id`, or is on its way; how many there were.
pub async fn purge(hub: &Hub, caller: &VerifiedService, id: &IdentityId) -> Result<u64, C2dError> {
    let entry = Entry::of(caller, Operation::PurgeQueue, id.to_string(), hub.clock.wall());
    let outcome = empty(hub, caller, id).await;
    let refused = outcome.as_ref().err().map(ToString::to_string);
    hub.audit.record(Entry { refused, ..entry }).await;
    outcome
}

async fn empty(hub: &Hub, caller: &VerifiedService, id: &IdentityId) -> Result<u64, C2dError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    if hub.registry.entry(id).is_none() {
        return Err(RegistryError::NotFound(id.clone()).into());
    }
    let count = hub.registry.purge(id).await?;
    tracing::info!(identity = %id, policy = caller.policy(), count, "cloud-to-device queue purged");
    Ok(count)
}
