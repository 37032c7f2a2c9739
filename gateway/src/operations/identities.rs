//! The registry's operations as operators may call them: each checks the caller's right, does the one thing, and
//! leaves a line in the log and, if it changes anything or shows a secret to a person, in the audit record. REST, commands
//! over MQTT and the portal come through here.

use std::sync::Arc;

use portcullis_registry::entry::Entry as Registered;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition, Revision};
use portcullis_registry::identity::{Identity, IdentitySpec};
use portcullis_registry::policy::Rights;
use portcullis_registry::store::{Counts, DevicePage};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::{AuditEntry, Operation};
use crate::hub::connection_log::Connections;
use crate::hub::refusals::RefusalHistory;

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
    let operation = match precondition {
        Precondition::Absent => Operation::CreateIdentity,
        Precondition::AnyVersion | Precondition::Version(_) => Operation::UpdateIdentity,
    };
    let entry = AuditEntry::of(caller, operation, spec.id.to_string(), hub.clock.wall());
    let outcome = store(hub, caller, spec, precondition).await;
    let entry = match &outcome {
        Ok((before, identity)) => {
            let change = if before.is_some() { "updated" } else { "created" };
            tracing::info!(identity = %identity.id, policy = caller.policy(), change, "identity changed");
            AuditEntry { etag_before: before.map(Revision::etag), etag_after: Some(identity.etag()), ..entry }
        }
        Err(error) => AuditEntry { refused: Some(error.to_string()), ..entry },
    };
    hub.audit.record(entry).await;
    outcome.map(|(_, identity)| identity)
}

/// The identity as it is now, with the revision it replaced if it replaced one.
async fn store(
    hub: &Hub,
    caller: &VerifiedService,
    spec: IdentitySpec,
    precondition: Precondition,
) -> Result<(Option<Revision>, Arc<Identity>), IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    let now = hub.clock.wall();
    if precondition == Precondition::Absent {
        return Ok((None, hub.registry.create(spec, now).await?));
    }
    let replaced = hub.registry.replace(spec, precondition, now).await?;
    Ok((Some(replaced.before), replaced.identity))
}

/// The entry of an identity.
pub fn retrieve(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
) -> Result<Arc<Registered>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?)
}

/// The identity with its secrets, for a person to see. Whoever may see them may become it, so reading is not enough;
/// each time is recorded.
pub async fn reveal(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
) -> Result<Arc<Identity>, IdentityError> {
    let entry = AuditEntry::of(caller, Operation::RevealCredential, id.to_string(), hub.clock.wall());
    let outcome = match caller.check(Rights::REGISTRY_WRITE) {
        Ok(()) => hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()).into()),
        Err(error) => Err(IdentityError::from(error)),
    };
    let refused = outcome.as_ref().err().map(ToString::to_string);
    hub.audit.record(AuditEntry { refused, ..entry }).await;
    outcome.map(|entry| entry.identity())
}

/// Deletes an identity and everything that was made with it. A device takes its modules along.
pub async fn delete(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
    precondition: Precondition,
) -> Result<(), IdentityError> {
    let entry = AuditEntry::of(caller, Operation::DeleteIdentity, id.to_string(), hub.clock.wall());
    let outcome = match caller.check(Rights::REGISTRY_WRITE) {
        Ok(()) => hub.registry.delete(id, precondition).await.map_err(IdentityError::from),
        Err(error) => Err(error.into()),
    };
    let entry = match &outcome {
        Ok(before) => {
            tracing::info!(identity = %id, policy = caller.policy(), change = "deleted", "identity changed");
            AuditEntry { etag_before: Some(before.etag()), ..entry }
        }
        Err(error) => AuditEntry { refused: Some(error.to_string()), ..entry },
    };
    hub.audit.record(entry).await;
    outcome.map(|_| ())
}

/// At most `top` devices, in no promised order.
pub fn list(hub: &Hub, caller: &VerifiedService, top: usize) -> Result<Vec<Arc<Registered>>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.registry.devices(top))
}

/// At most `count` devices in the order of their ids, after `after` if that is given.
pub fn page(
    hub: &Hub,
    caller: &VerifiedService,
    after: Option<&DeviceId>,
    count: usize,
) -> Result<DevicePage, IdentityError> {
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

/// How an identity came and went, and why it was refused.
#[derive(Clone, Debug)]
pub struct ConnectionReport {
    pub is_registered: bool,
    pub is_connected: bool,
    pub connections: Connections,
    pub refused: RefusalHistory,
}

/// How an identity came and went. Ids that are not registered have an answer too: that an id is unknown is often what
/// the operator needs to see.
pub fn connection_report(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
) -> Result<ConnectionReport, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(ConnectionReport {
        is_registered: hub.registry.entry(id).is_some(),
        is_connected: hub.sessions.session(id).is_some(),
        connections: hub.connections.of(id),
        refused: hub.refusals.of(id).unwrap_or_default(),
    })
}

/// Every module of a device.
pub fn modules(
    hub: &Hub,
    caller: &VerifiedService,
    device: &DeviceId,
) -> Result<Vec<Arc<Registered>>, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    let modules = hub.registry.modules(device);
    Ok(modules.ok_or_else(|| RegistryError::NotFound(IdentityId::device(device.clone())))?)
}

/// Whether there is a device of this id already, for whoever is about to create one.
pub fn is_taken(hub: &Hub, caller: &VerifiedService, device: DeviceId) -> Result<bool, IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    Ok(hub.registry.entry(&IdentityId::device(device)).is_some())
}

/// The entry of an identity, for whoever is about to change or delete it.
pub fn retrieve_for_change(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
) -> Result<Arc<Registered>, IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    Ok(hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?)
}

/// The entry of an identity, for whoever sends to it.
pub fn retrieve_for_sending(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
) -> Result<Arc<Registered>, IdentityError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    Ok(hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?)
}

/// What goes along with a device that is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeletionExtent {
    pub modules: usize,
    /// Messages that wait for the device.
    pub messages: usize,
}

/// What would go along if a device were deleted; nothing with one that is not there.
pub fn deletion_extent(
    hub: &Hub,
    caller: &VerifiedService,
    device: &DeviceId,
) -> Result<DeletionExtent, IdentityError> {
    caller.check(Rights::REGISTRY_WRITE)?;
    let Some(entry) = hub.registry.entry(&IdentityId::device(device.clone())) else {
        return Ok(DeletionExtent::default());
    };
    let modules = hub.registry.modules(device).map_or(0, |modules| modules.len());
    Ok(DeletionExtent { modules, messages: entry.queued() })
}
