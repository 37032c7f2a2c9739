//! The one way to create, replace or delete an identity: it checks the right, does the write, and leaves a line in the
//! log and in the audit record.
//!
//! Writes that are asked for together share the store's commits and one wait for the audit record. An import of a
//! million lines comes through here as a single PUT does.

use std::sync::Arc;

use futures_util::future::join_all;
use jiff::Timestamp;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{IdentityId, Precondition};
use portcullis_registry::identity::{Identity, IdentitySpec};
use portcullis_registry::policy::Rights;

use crate::auth::VerifiedService;
use crate::hub::Hub;
use crate::hub::audit::effect::Effect;
use crate::hub::audit::{AuditEntry, Operation};
use crate::operations::identities::IdentityError;

/// One write that is asked for.
#[derive(Clone, Debug)]
pub(crate) enum IdentityWrite {
    Create(IdentitySpec),
    /// Of what is there, if the precondition holds.
    Replace(IdentitySpec, Precondition),
    /// Replaces what is there if the precondition holds, and creates it if nothing is there.
    CreateOrReplace(IdentitySpec, Precondition),
    /// A device takes its modules along.
    Delete(IdentityId, Precondition),
}

/// What a write did.
#[derive(Clone, Debug)]
pub(crate) struct WrittenIdentity {
    /// None when it was created.
    pub(crate) before: Option<Arc<Identity>>,
    /// None when it was deleted.
    pub(crate) after: Option<Arc<Identity>>,
}

/// Writes identities for a caller.
#[derive(Clone, Debug)]
pub(crate) struct IdentityWriter<'a> {
    hub: &'a Hub,
    caller: &'a VerifiedService,
    /// The job that writes, if one does.
    job: Option<Arc<str>>,
}

impl<'a> IdentityWriter<'a> {
    /// For a request. A write that is refused has a line, too.
    pub(crate) fn of_request(hub: &'a Hub, caller: &'a VerifiedService) -> Self {
        Self { hub, caller, job: None }
    }

    /// For a job. Each line names the job. A write that is refused has none: the results of the job tell of each and
    /// the line of its end counts them, and a file full of refused lines must not push older lines out of a record of
    /// bounded size.
    pub(crate) fn of_job(hub: &'a Hub, caller: &'a VerifiedService, job: &str) -> Self {
        Self { hub, caller, job: Some(job.into()) }
    }

    /// Does one write. `Ok` means on stable storage, and recorded.
    pub(crate) async fn write(&self, write: IdentityWrite) -> Result<WrittenIdentity, IdentityError> {
        let now = self.hub.clock.wall();
        let operation = write.operation();
        let target = write.id().to_string();
        let outcome = self.do_write(write, now).await;
        let entry = self.entry(operation, target, &outcome, now);
        self.hub.audit.record_all(entry.into_iter().collect()).await;
        outcome
    }

    /// Does each write on its own, all at the same time; one result each, in order. They are recorded together.
    pub(crate) async fn write_all(
        &self,
        writes: Vec<IdentityWrite>,
        now: Timestamp,
    ) -> Vec<Result<WrittenIdentity, IdentityError>> {
        let asked: Vec<_> = writes.iter().map(|write| (write.operation(), write.id().clone())).collect();
        let outcomes = join_all(writes.into_iter().map(|write| self.do_write(write, now))).await;
        let entries = asked.into_iter().zip(&outcomes);
        let entries = entries
            .filter_map(|((operation, id), outcome)| self.entry(operation, id.to_string(), outcome, now));
        self.hub.audit.record_all(entries.collect()).await;
        outcomes
    }

    async fn do_write(&self, write: IdentityWrite, now: Timestamp) -> Result<WrittenIdentity, IdentityError> {
        self.caller.check(Rights::REGISTRY_WRITE)?;
        let written = match write {
            IdentityWrite::Create(spec) => self.create(spec, now).await?,
            IdentityWrite::Replace(spec, precondition) => self.replace(spec, precondition, now).await?,
            IdentityWrite::CreateOrReplace(spec, precondition) => {
                self.create_or_replace(spec, precondition, now).await?
            }
            IdentityWrite::Delete(id, precondition) => {
                let before = self.hub.registry.delete(&id, precondition).await?;
                WrittenIdentity { before: Some(before), after: None }
            }
        };
        self.log(&written);
        Ok(written)
    }

    async fn create(&self, spec: IdentitySpec, now: Timestamp) -> Result<WrittenIdentity, RegistryError> {
        let created = self.hub.registry.create(spec, now).await?;
        Ok(WrittenIdentity { before: None, after: Some(created) })
    }

    async fn replace(
        &self,
        spec: IdentitySpec,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<WrittenIdentity, RegistryError> {
        let replaced = self.hub.registry.replace(spec, precondition, now).await?;
        Ok(WrittenIdentity { before: Some(replaced.before), after: Some(replaced.identity) })
    }

    async fn create_or_replace(
        &self,
        spec: IdentitySpec,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<WrittenIdentity, RegistryError> {
        loop {
            match self.replace(spec.clone(), precondition.clone(), now).await {
                // One that is to be made, or that somebody deleted meanwhile.
                Err(RegistryError::NotFound(_)) => {}
                outcome => return outcome,
            }
            match self.create(spec.clone(), now).await {
                // Somebody made it meanwhile.
                Err(RegistryError::AlreadyExists(_)) => {}
                outcome => return outcome,
            }
        }
    }

    /// Of a job's writes the job tells how many there were.
    fn log(&self, written: &WrittenIdentity) {
        let (Some(identity), None) = (written.after.as_ref().or(written.before.as_ref()), &self.job) else {
            return;
        };
        let change = match written.operation() {
            Operation::CreateIdentity => "created",
            Operation::DeleteIdentity => "deleted",
            _ => "updated",
        };
        tracing::info!(identity = %identity.id, policy = self.caller.policy(), change, "identity changed");
    }

    /// What the record is to say of a write, if anything.
    fn entry(
        &self,
        operation: Operation,
        target: String,
        outcome: &Result<WrittenIdentity, IdentityError>,
        now: Timestamp,
    ) -> Option<AuditEntry> {
        let entry = AuditEntry::of(self.caller, operation, target, now);
        match outcome {
            Ok(written) => Some(AuditEntry {
                operation: written.operation(),
                job: self.job.clone(),
                effect: Effect::of_identity(written.before.as_deref(), written.after.as_deref()),
                ..entry
            }),
            Err(error) if self.job.is_none() => {
                Some(AuditEntry { refused: Some(error.to_string()), ..entry })
            }
            Err(_) => None,
        }
    }
}

impl IdentityWrite {
    fn id(&self) -> &IdentityId {
        match self {
            IdentityWrite::Create(spec)
            | IdentityWrite::Replace(spec, _)
            | IdentityWrite::CreateOrReplace(spec, _) => &spec.id,
            IdentityWrite::Delete(id, _) => id,
        }
    }

    /// What a refusal is told to be one of.
    fn operation(&self) -> Operation {
        match self {
            IdentityWrite::Create(_) => Operation::CreateIdentity,
            IdentityWrite::Replace(..) | IdentityWrite::CreateOrReplace(..) => Operation::UpdateIdentity,
            IdentityWrite::Delete(..) => Operation::DeleteIdentity,
        }
    }
}

impl WrittenIdentity {
    fn operation(&self) -> Operation {
        match (&self.before, &self.after) {
            (None, _) => Operation::CreateIdentity,
            (Some(_), Some(_)) => Operation::UpdateIdentity,
            (Some(_), None) => Operation::DeleteIdentity,
        }
    }
}
