//! The registry's operations as operators may call them: each checks the caller's right, does the one thing, and
//! leaves a line in the log. REST comes through here, and so will every other face.

use std::sync::Arc;

use portcullis_registry::entry::Entry;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::{Identity, IdentitySpec};
use portcullis_registry::policy::Rights;
use portcullis_registry::store::{Counts, Page};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;

/// Why an operation on an identity was not done.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

/// Creates an identity, or with a precondition replaces an existing one. `Ok` means on stable storage.
pub async fn put(
    hub: &Hub,
    caller: &VerifiedService,
    spec: IdentitySpec,
    precondition: Precondition,
) -> Result<Arc<Identity>, IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    let now = hub.clock.wall();
    let (identity, change) = match precondition {
        Precondition::Absent => (hub.registry.create(spec, now).await?, "created"),
        existing => (hub.registry.replace(spec, existing, now).await?, "updated"),
    };
    tracing::info!(identity = %identity.id, policy = caller.policy(), change, "identity changed");
    Ok(identity)
}

/// The entry of an identity.
pub fn retrieve(hub: &Hub, caller: &VerifiedService, id: &IdentityId) -> Result<Arc<Entry>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?)
}

/// Deletes an identity and everything that was made with it. A device takes its modules along.
pub async fn delete(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
    precondition: Precondition,
) -> Result<(), IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    hub.registry.delete(id, precondition).await?;
    tracing::info!(identity = %id, policy = caller.policy(), change = "deleted", "identity changed");
    Ok(())
}

/// At most `top` devices, in no promised order.
pub fn list(hub: &Hub, caller: &VerifiedService, top: usize) -> Result<Vec<Arc<Entry>>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.devices(top))
}

/// At most `count` devices in the order of their ids, after `after` if that is given.
pub fn page(
    hub: &Hub,
    caller: &VerifiedService,
    after: Option<&DeviceId>,
    count: usize,
) -> Result<Page, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.page(after, count))
}

/// How many identities there are.
pub fn counts(hub: &Hub, caller: &VerifiedService) -> Result<Counts, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.counts())
}

/// How many devices are connected.
pub fn connected(hub: &Hub, caller: &VerifiedService) -> Result<usize, IdentityError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    Ok(hub.sessions.devices())
}

/// Every module of a device.
pub fn modules(
    hub: &Hub,
    caller: &VerifiedService,
    device: &DeviceId,
) -> Result<Vec<Arc<Entry>>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    let modules = hub.registry.modules(device);
    Ok(modules.ok_or_else(|| RegistryError::NotFound(IdentityId::device(device.clone())))?)
}
