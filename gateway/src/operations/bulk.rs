//! Many identities at once: each change is done or refused on its own, and the answer tells which.
//!
//! The changes are asked for together, so that the store makes them stable together; none is answered before it is.
//! Rights, the log line and the audit line of each are the business of `identities`.

use std::collections::HashMap;

use portcullis_registry::id::{IdentityId, Precondition};
use portcullis_registry::policy::Rights;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::Operation;
use crate::iothub::change::IdentityChange;
use crate::operations::audit::record_refusal;
use crate::operations::identities::{IdentityError, IdentityWrite, IdentityWriter};

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
    /// Checks the caller's right. A refusal has one line in the audit record, whatever was asked for.
    pub async fn permit(hub: &'a Hub, caller: &'a VerifiedService) -> Result<Self, AuthError> {
        if let Err(error) = caller.check(Rights::REGISTRY_WRITE) {
            let target = "several identities".to_owned();
            record_refusal(hub, caller, Operation::UpdateIdentity, target, error.to_string()).await;
            return Err(error);
        }
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
        let mut waves: [Vec<(usize, IdentityWrite)>; 3] = Default::default();
        let mut results: Vec<(usize, Result<(), ChangeError>)> = Vec::with_capacity(changes.len());
        for (place, change) in changes.into_iter().enumerate() {
            if times.get(change.id()).is_some_and(|times| *times > 1) {
                // Which of them should win nobody can tell.
                results.push((place, Err(ChangeError::DefinedMultipleTimes(change.id().clone()))));
                continue;
            }
            let wave = wave(&change);
            match write(change) {
                Ok(write) => waves[wave].push((place, write)),
                Err(error) => results.push((place, Err(error))),
            }
        }
        let writer = IdentityWriter::of_request(self.hub, self.caller);
        for wave in waves {
            let (indices, writes): (Vec<_>, Vec<_>) = wave.into_iter().unzip();
            let done = writer.write_all(writes, self.hub.clock.wall()).await;
            let done = done.into_iter().map(|result| result.map(drop).map_err(ChangeError::from));
            results.extend(indices.into_iter().zip(done));
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

/// The write that a change asks for.
fn write(change: IdentityChange) -> Result<IdentityWrite, ChangeError> {
    Ok(match change {
        IdentityChange::Create(spec) => IdentityWrite::Create(spec),
        IdentityChange::CreateOrUpdate(spec, precondition) => {
            IdentityWrite::CreateOrReplace(spec, existing(precondition))
        }
        IdentityChange::Update(spec, precondition) => IdentityWrite::Replace(spec, existing(precondition)),
        IdentityChange::Delete(id, precondition) => IdentityWrite::Delete(id, precondition),
        IdentityChange::UpdateTwin(id) => return Err(ChangeError::NoTwins(id)),
    })
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
