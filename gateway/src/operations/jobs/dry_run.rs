//! What an import would do, told without doing it: each line is held against what is stored and against the earlier
//! lines of the file.
//!
//! Of an identity that an earlier line would change, a fingerprint is remembered, not the identity; so an update that
//! leaves out its keys counts as a change where the real run might find none. Only so many identities are remembered;
//! beyond them a line is held against what is stored alone, and `is_full` says so.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{IdentityId, Revision};
use portcullis_registry::identity::Identity;
use portcullis_registry::store::Registry;

use super::import::ImportItem;
use super::plan::{Decision, LineRequest, decide, not_done};
use super::results::{Done, LineOutcome};
use super::undo::Fingerprint;
use crate::iothub::change::IdentityChange;
use crate::iothub::change::NamedIdentity;
use crate::operations::bulk::ChangeError;

/// The registry as it would be.
#[derive(Debug)]
pub(super) struct DryRun<'a> {
    registry: &'a Registry,
    modules_max: usize,
    /// What earlier lines would have made of an identity, by a hash of its id: a random one, so that no file can make
    /// two ids meet.
    assumed: HashMap<u64, Assumed>,
    hasher: RandomState,
    is_full: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Assumed {
    /// None: it is gone.
    fingerprint: Option<u64>,
    /// How often its device had been deleted by then: a later delete takes a module along.
    deletes: u32,
    /// Modules added to a device, less those taken away.
    modules: i32,
    /// Whether it says anything of the identity itself, and not only of its modules.
    is_known: bool,
}

enum Known {
    Stored(Arc<Identity>),
    Assumed(u64),
    Nothing,
}

impl<'a> DryRun<'a> {
    pub(super) fn new(registry: &'a Registry, modules_max: usize) -> Self {
        let (assumed, hasher) = (HashMap::new(), RandomState::new());
        Self { registry, modules_max, assumed, hasher, is_full: false }
    }

    /// What would become of each line.
    pub(super) fn judge(&mut self, batch: Vec<ImportItem>, now: Timestamp) -> Vec<Done> {
        batch.into_iter().map(|item| self.judge_one(item, now)).collect()
    }

    /// Whether more identities would be changed than are remembered.
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    fn judge_one(&mut self, ImportItem { line, ask, has_twin }: ImportItem, now: Timestamp) -> Done {
        let (about, outcome) = match ask {
            Err((about, refusal)) => (about, LineOutcome::Refused(refusal)),
            Ok(LineRequest::Line(change)) => {
                let outcome = self.outcome(&change, now);
                let outcome = outcome.unwrap_or_else(|error| LineOutcome::Refused(error.into()));
                (NamedIdentity::from(change.id()), outcome)
            }
            // Only a rollback takes back, and it is never dry.
            Ok(LineRequest::TakeBack(change)) => (NamedIdentity::from(&change.id), LineOutcome::Unchanged),
        };
        let lost_twin = has_twin && outcome.keeps_identity();
        Done { line, about, outcome, lost_twin }
    }

    fn outcome(&mut self, change: &IdentityChange, now: Timestamp) -> Result<LineOutcome, ChangeError> {
        let id = change.id();
        let known = self.known(id);
        let revision = match &known {
            Known::Stored(identity) => Some(identity.revision),
            // Its real etag is nobody's yet.
            Known::Assumed(_) => Some(Revision::new(u64::MAX)),
            Known::Nothing => None,
        };
        match decide(change, revision)? {
            Decision::Delete => {
                self.remember_delete(id);
                Ok(LineOutcome::Deleted)
            }
            Decision::Put(spec) => {
                let stored = match &known {
                    Known::Stored(identity) => Some(&**identity),
                    Known::Assumed(_) | Known::Nothing => None,
                };
                let after = spec.clone().preview(stored, now);
                let fingerprint = self.fingerprint(&after);
                let outcome = match &known {
                    Known::Stored(before) if after.is_like(before) => return Ok(LineOutcome::Unchanged),
                    Known::Assumed(before) if *before == fingerprint => return Ok(LineOutcome::Unchanged),
                    Known::Stored(_) | Known::Assumed(_) => LineOutcome::Changed,
                    Known::Nothing => {
                        self.check_parent(id)?;
                        LineOutcome::Created
                    }
                };
                self.remember(id, Some(fingerprint));
                if id.module.is_some() && matches!(outcome, LineOutcome::Created) {
                    self.count_module(id, 1);
                }
                Ok(outcome)
            }
        }
    }

    fn known(&self, id: &IdentityId) -> Known {
        let deletes = self.deletes(id);
        match self.assumed.get(&self.hash(id)).filter(|assumed| assumed.is_known) {
            Some(assumed) if id.module.is_none() || assumed.deletes == deletes => {
                assumed.fingerprint.map_or(Known::Nothing, Known::Assumed)
            }
            // The device was deleted since.
            Some(_) => Known::Nothing,
            None if id.module.is_some() && deletes > 0 => Known::Nothing,
            None => self.registry.entry(id).map_or(Known::Nothing, |entry| Known::Stored(entry.identity())),
        }
    }

    /// A new module needs its device, and room there.
    fn check_parent(&self, id: &IdentityId) -> Result<(), ChangeError> {
        if id.module.is_none() {
            return Ok(());
        }
        let device = IdentityId::device(id.device.clone());
        if matches!(self.known(&device), Known::Nothing) {
            return Err(not_done(RegistryError::NotFound(device)));
        }
        let stored = match self.deletes(id) {
            0 => self.registry.modules(&id.device).map_or(0, |modules| modules.len()),
            _ => 0,
        };
        let added = self.assumed.get(&self.hash(&device)).map_or(0, |assumed| assumed.modules);
        let count = i64::try_from(stored).unwrap_or(i64::MAX).saturating_add(i64::from(added));
        if count >= i64::try_from(self.modules_max).unwrap_or(i64::MAX) {
            return Err(not_done(RegistryError::TooManyModules { device, limit: self.modules_max }));
        }
        Ok(())
    }

    fn remember_delete(&mut self, id: &IdentityId) {
        if id.module.is_some() {
            self.count_module(id, -1);
        }
        self.remember(id, None);
        if id.module.is_none()
            && let Some(assumed) = self.assumed_mut(id)
        {
            assumed.deletes += 1;
            assumed.modules = 0;
        }
    }

    fn remember(&mut self, id: &IdentityId, fingerprint: Option<u64>) {
        let deletes = self.deletes(id);
        if let Some(assumed) = self.assumed_mut(id) {
            assumed.fingerprint = fingerprint;
            assumed.is_known = true;
            assumed.deletes = deletes;
        }
    }

    fn count_module(&mut self, id: &IdentityId, change: i32) {
        if let Some(assumed) = self.assumed_mut(&IdentityId::device(id.device.clone())) {
            assumed.modules += change;
        }
    }

    /// How often the file would have deleted the device by now.
    fn deletes(&self, id: &IdentityId) -> u32 {
        let device = self.hash(&IdentityId::device(id.device.clone()));
        self.assumed.get(&device).map_or(0, |assumed| assumed.deletes)
    }

    fn assumed_mut(&mut self, id: &IdentityId) -> Option<&mut Assumed> {
        let hash = self.hash(id);
        if self.assumed.len() >= REMEMBERED_MAX && !self.assumed.contains_key(&hash) {
            self.is_full = true;
            return None;
        }
        Some(self.assumed.entry(hash).or_default())
    }

    fn hash(&self, id: &IdentityId) -> u64 {
        self.hasher.hash_one(id)
    }

    fn fingerprint(&self, identity: &Identity) -> u64 {
        self.hasher.hash_one(Fingerprint::of(identity))
    }
}

/// Identities that a dry run remembers: some 40 MiB.
pub(super) const REMEMBERED_MAX: usize = 1_000_000;
