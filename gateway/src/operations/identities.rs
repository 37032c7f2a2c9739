//! The registry's operations as operators may call them: each checks the caller's right, does the one thing, and
//! leaves a line in the log and, if it changes anything or shows a secret, in the audit record. REST, commands over MQTT
//! and the portal come through here.
//!
//! Every identity that is created, replaced or deleted goes through [`IdentityWriter`]: one at a time, in bulk, by an
//! import or by its rollback.

use std::sync::Arc;

use portcullis_registry::entry::Entry as Registered;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::{Authentication, Identity, IdentitySpec};
use portcullis_registry::policy::Rights;
use portcullis_registry::store::{Counts, DevicePage};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::Operation;
use crate::hub::audit::effect::Effect;
use crate::hub::connection_log::Connections;
use crate::hub::refusals::RefusalHistory;
use crate::operations::audit::{audited, note_reveal};
use crate::operations::presence;

mod write;

pub(crate) use write::{IdentityWrite, IdentityWriter, WrittenIdentity};

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
    let id = spec.id.clone();
    let write = match precondition {
        Precondition::Absent => IdentityWrite::Create(spec),
        Precondition::AnyVersion | Precondition::Version(_) => IdentityWrite::Replace(spec, precondition),
    };
    let written = IdentityWriter::of_request(hub, caller).write(write).await?;
    Ok(written.after.ok_or(RegistryError::NotFound(id))?)
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
    let shown = async {
        caller.check(Rights::REGISTRY_WRITE)?;
        let entry = hub.registry.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?;
        Ok((entry.identity(), Effect::default()))
    };
    audited(hub, caller, Operation::RevealCredential, id.to_string(), shown).await
}

/// Leaves a line for an answer that shows the keys of these identities, in IoT Hub's way: to whoever may read the
/// registry. One line an answer, however many identities; `list` says what was asked for when that was not one
/// identity. No line when none of them has keys.
///
/// The answer to a write shows the keys of what it wrote too; the line of the write stands for it.
pub async fn note_keys_shown(hub: &Hub, caller: &VerifiedService, list: &str, shown: &[Arc<Registered>]) {
    let has_keys =
        |entry: &&Arc<Registered>| matches!(entry.identity().authentication, Authentication::Sas(_));
    let count = shown.iter().filter(has_keys).count();
    let (target, details) = match shown {
        _ if count == 0 => return,
        [only] => (only.identity().id.to_string(), Vec::new()),
        _ => (list.to_owned(), vec![("identities", count.into())]),
    };
    note_reveal(hub, caller, target, details).await;
}

/// Deletes an identity and everything that was made with it. A device takes its modules along.
pub async fn delete(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
    precondition: Precondition,
) -> Result<(), IdentityError> {
    let write = IdentityWrite::Delete(id.clone(), precondition);
    IdentityWriter::of_request(hub, caller).write(write).await.map(drop)
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
        is_connected: presence::is_connected(hub, id),
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
