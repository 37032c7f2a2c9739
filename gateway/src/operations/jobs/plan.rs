//! What one change would do to what is stored: decided before anything is written, so that the earlier state can be
//! kept first and a dry run can tell. No I/O.

use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{IdentityId, Precondition, Revision};
use portcullis_registry::identity::{Identity, IdentitySpec};

use super::undo::Fingerprint;
use crate::iothub::change::IdentityChange;
use crate::operations::bulk::ChangeError;

/// What a job is asked to do to one identity.
#[derive(Clone, Debug)]
pub(super) enum LineRequest {
    Line(IdentityChange),
    TakeBack(TakeBack),
}

/// A change of an import that is to be taken back.
#[derive(Clone, Debug)]
pub(super) struct TakeBack {
    pub(super) id: IdentityId,
    /// What was there; none when nothing was.
    pub(super) before: Option<IdentitySpec>,
    /// What the import left there; none when nothing.
    pub(super) after: Option<Fingerprint>,
}

/// What is to be done to an identity.
#[derive(Clone, Debug)]
pub(super) enum Plan {
    Create(Box<Identity>),
    Replace {
        before: Arc<Identity>,
        after: Box<Identity>,
    },
    Delete {
        before: Arc<Identity>,
    },
    /// It is so already.
    Nothing,
}

/// What a change asks for, once its precondition holds.
#[derive(Debug)]
pub(super) enum Decision<'a> {
    Put(&'a IdentitySpec),
    Delete,
}

/// Whether a change may be done to an identity of which this revision is stored, or none.
pub(super) fn decide(change: &IdentityChange, stored: Option<Revision>) -> Result<Decision<'_>, ChangeError> {
    let id = change.id();
    match (change, stored) {
        (IdentityChange::Create(spec), None) => Ok(Decision::Put(spec)),
        (IdentityChange::Create(_), Some(_)) => Err(RegistryError::AlreadyExists(id.clone())),
        (IdentityChange::CreateOrUpdate(spec, _), None) => Ok(Decision::Put(spec)),
        (
            IdentityChange::CreateOrUpdate(spec, condition) | IdentityChange::Update(spec, condition),
            Some(revision),
        ) => check(id, condition, revision).map(|()| Decision::Put(spec)),
        (IdentityChange::Delete(_, condition), Some(revision)) => {
            check(id, condition, revision).map(|()| Decision::Delete)
        }
        (IdentityChange::Update(..) | IdentityChange::Delete(..), None) => {
            Err(RegistryError::NotFound(id.clone()))
        }
        (IdentityChange::UpdateTwin(_), _) => return Err(ChangeError::NoTwins(id.clone())),
    }
    .map_err(not_done)
}

/// What a change does to what is stored.
pub(super) fn plan(
    change: &IdentityChange,
    stored: Option<Arc<Identity>>,
    now: Timestamp,
) -> Result<Plan, ChangeError> {
    let decision = decide(change, stored.as_ref().map(|stored| stored.revision))?;
    Ok(match decision {
        Decision::Put(spec) => put(spec, stored, now),
        Decision::Delete => stored.map_or(Plan::Nothing, |before| Plan::Delete { before }),
    })
}

impl LineRequest {
    pub(super) fn id(&self) -> &IdentityId {
        match self {
            LineRequest::Line(change) => change.id(),
            LineRequest::TakeBack(TakeBack { id, .. }) => id,
        }
    }

    /// Whether the identity may be gone afterwards.
    pub(super) fn may_delete(&self) -> bool {
        match self {
            LineRequest::Line(IdentityChange::Delete(..)) => true,
            LineRequest::Line(_) => false,
            LineRequest::TakeBack(TakeBack { before, .. }) => before.is_none(),
        }
    }
}

impl TakeBack {
    /// What takes the change back: nothing if it was never made or is taken back already, and an error if somebody has
    /// changed the identity since.
    pub(super) fn plan(&self, stored: Option<Arc<Identity>>, now: Timestamp) -> Result<Plan, ChangeError> {
        let is = stored.as_deref().map(Fingerprint::of);
        if is != self.after {
            let was = self.before.clone().map(|before| Fingerprint::of(&before.preview(None, now)));
            return if is == was {
                Ok(Plan::Nothing)
            } else {
                Err(ChangeError::ChangedSince(self.id.clone()))
            };
        }
        Ok(match (&self.before, stored) {
            (Some(before), stored) => put(before, stored, now),
            (None, Some(before)) => Plan::Delete { before },
            (None, None) => Plan::Nothing,
        })
    }
}

fn put(spec: &IdentitySpec, stored: Option<Arc<Identity>>, now: Timestamp) -> Plan {
    let after = Box::new(spec.clone().preview(stored.as_deref(), now));
    match stored {
        None => Plan::Create(after),
        Some(before) if after.is_like(&before) => Plan::Nothing,
        Some(before) => Plan::Replace { before, after },
    }
}

/// A registry's refusal as one of a change.
pub(super) fn not_done(error: RegistryError) -> ChangeError {
    ChangeError::Identity(error.into())
}

fn check(id: &IdentityId, condition: &Precondition, stored: Revision) -> Result<(), RegistryError> {
    if condition.admits(stored) { Ok(()) } else { Err(RegistryError::PreconditionFailed(id.clone())) }
}
