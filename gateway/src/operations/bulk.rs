//! Many identities at once: each change is done or refused on its own, and the answer tells which.
//!
//! The changes are asked for together, so that the store makes them stable together; none is answered before it is.
//! Rights and the log line of each are the business of `identities`.

use std::collections::HashMap;

use futures_util::future::join_all;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{IdentityId, Precondition};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::policy::Rights;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::iothub::change::IdentityChange;
use crate::operations::identities::{self, IdentityError};

/// Why one change was not done.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("{0} is in this request more than once; none of these changes is done")]
    DefinedMultipleTimes(IdentityId),
    #[error("{0}: this hub keeps no twins")]
    NoTwins(IdentityId),
    #[error("{0} was changed since the import and stays as it is")]
    ChangedSince(IdentityId),
    #[error("{0} has modules that the import did not make, and stays as it is")]
    HasModules(IdentityId),
    #[error("what was there before the import cannot be read any more")]
    UndoDamaged,
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// A caller that may change many identities at once; known before what it asks for is even read.
#[derive(Debug)]
pub struct Bulk<'a> {
    hub: &'a Hub,
    caller: &'a VerifiedService,
}

impl<'a> Bulk<'a> {
    pub fn permit(hub: &'a Hub, caller: &'a VerifiedService) -> Result<Self, AuthError> {
        caller.check(Rights::REGISTRY_WRITE)?;
        Ok(Self { hub, caller })
    }

    /// Does each change on its own; one result each, in order. `Ok` means on stable storage. At most [`CHANGES_MAX`]
    /// are to be asked for at once.
    ///
    /// Within one call modules are deleted before devices change, and otherwise change after them: a device and its
    /// modules may be made, or deleted, together and in any order.
    pub async fn apply(&self, changes: Vec<IdentityChange>) -> Vec<Result<(), ChangeError>> {
        let mut times: HashMap<IdentityId, usize> = HashMap::with_capacity(changes.len());
        for change in &changes {
            *times.entry(change.id().clone()).or_default() += 1;
        }
        let mut waves: [Vec<(usize, IdentityChange)>; 3] = Default::default();
        let mut results: Vec<(usize, Result<(), ChangeError>)> = Vec::with_capacity(changes.len());
        for (place, change) in changes.into_iter().enumerate() {
            if times.get(change.id()).is_some_and(|times| *times > 1) {
                // Which of them should win nobody can tell.
                results.push((place, Err(ChangeError::DefinedMultipleTimes(change.id().clone()))));
            } else {
                waves[wave(&change)].push((place, change));
            }
        }
        for wave in waves {
            let done = wave
                .into_iter()
                .map(async |(place, change)| (place, one(self.hub, self.caller, change).await));
            results.extend(join_all(done).await);
        }
        results.sort_by_key(|(place, _)| *place);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

/// Changes of a later wave may rest on those of an earlier one.
fn wave(change: &IdentityChange) -> usize {
    match (change, &change.id().module) {
        (IdentityChange::Delete(..), Some(_)) => 0,
        (_, None) => 1,
        (_, Some(_)) => 2,
    }
}

async fn one(hub: &Hub, caller: &VerifiedService, change: IdentityChange) -> Result<(), ChangeError> {
    match change {
        IdentityChange::Create(spec) => {
            identities::put(hub, caller, spec, Precondition::Absent).await.map(|_| ())?
        }
        IdentityChange::CreateOrUpdate(spec, precondition) => {
            create_or_update(hub, caller, spec, existing(precondition)).await?;
        }
        IdentityChange::Update(spec, precondition) => {
            identities::put(hub, caller, spec, existing(precondition)).await.map(|_| ())?;
        }
        IdentityChange::Delete(id, precondition) => {
            identities::delete(hub, caller, &id, precondition).await?
        }
        IdentityChange::UpdateTwin(id) => return Err(ChangeError::NoTwins(id)),
    }
    Ok(())
}

async fn create_or_update(
    hub: &Hub,
    caller: &VerifiedService,
    spec: IdentitySpec,
    precondition: Precondition,
) -> Result<(), IdentityError> {
    loop {
        match identities::put(hub, caller, spec.clone(), precondition.clone()).await {
            // A device that is to be made, or one that somebody deleted meanwhile.
            Err(IdentityError::Registry(RegistryError::NotFound(_))) => {}
            outcome => return outcome.map(|_| ()),
        }
        match identities::put(hub, caller, spec.clone(), Precondition::Absent).await {
            // Somebody made it meanwhile.
            Err(IdentityError::Registry(RegistryError::AlreadyExists(_))) => {}
            outcome => return outcome.map(|_| ()),
        }
    }
}

/// What a PUT takes for "replace" when anything stored will do.
fn existing(precondition: Precondition) -> Precondition {
    match precondition {
        Precondition::Absent => Precondition::AnyVersion,
        given => given,
    }
}

/// IoT Hub takes at most this many changes at once.
pub const CHANGES_MAX: usize = 100;
