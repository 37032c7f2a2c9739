//! Applying the lines of a file to the registry, batch after batch, in what amounts to the order of the file.
//!
//! Lines of different devices go together, so that the store makes hundreds of them stable at once; lines of one device
//! follow each other in waves. Batches without a common device may be applied at the same time. Before a wave is asked
//! for, what it will change is in the undo file. Each change states the very revision it was planned on: when somebody
//! else was faster it is planned anew.

use std::collections::HashMap;
use std::io;

use jiff::Timestamp;
use portcullis_registry::backend::StoreError;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::{Identity, IdentitySpec};
use portcullis_registry::store::Registry;
use tokio::sync::Mutex;

use super::line::LineRefusal;
use super::plan::{LineRequest, Plan, not_done, plan};
use super::results::{Done, LineOutcome};
use super::undo::UndoWriter;
use crate::iothub::change::NamedIdentity;
use crate::operations::bulk::ChangeError;
use crate::operations::identities::{IdentityError, IdentityWrite, IdentityWriter, WrittenIdentity};

/// Applies lines.
#[derive(Debug)]
pub(super) struct Importer<'a> {
    pub(super) registry: &'a Registry,
    pub(super) writer: IdentityWriter<'a>,
    /// None when what is done is itself an undoing.
    pub(super) undo: Option<Mutex<UndoWriter>>,
}

/// Why no more lines can be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("the store takes no writes now: {0}")]
    Store(#[from] StoreError),
    #[error("the undo file cannot be written: {0}")]
    Undo(io::Error),
}

/// One line, or one change of an earlier import that is to be taken back.
#[derive(Debug)]
pub(super) struct ImportItem {
    pub(super) line: u64,
    pub(super) ask: Result<LineRequest, (NamedIdentity, LineRefusal)>,
    /// It has tags or desired properties, which are not kept.
    pub(super) has_twin: bool,
}

/// One change of a batch.
struct Step {
    /// Its place in the batch.
    place: usize,
    line: u64,
    ask: LineRequest,
}

impl Importer<'_> {
    /// Applies a batch; what became of each line, in order. What is told is on stable storage. An error says why no more
    /// can be done; lines of which nothing is told may be done or not.
    pub(super) async fn apply(
        &self,
        batch: Vec<ImportItem>,
        now: Timestamp,
    ) -> (Vec<Done>, Result<(), ImportError>) {
        let mut outcomes: Vec<Option<LineOutcome>> = Vec::with_capacity(batch.len());
        let mut told = Vec::with_capacity(batch.len());
        let mut waves = Waves::default();
        for (place, ImportItem { line, ask, has_twin }) in batch.into_iter().enumerate() {
            match ask {
                Ok(ask) => {
                    told.push((line, NamedIdentity::from(ask.id()), has_twin));
                    outcomes.push(None);
                    waves.add(Step { place, line, ask });
                }
                Err((about, refusal)) => {
                    told.push((line, about, false));
                    outcomes.push(Some(LineOutcome::Refused(refusal)));
                }
            }
        }
        let mut ended = Ok(());
        for wave in waves.0 {
            ended = self.apply_wave(wave, now, &mut outcomes).await;
            if ended.is_err() {
                break;
            }
        }
        let done = told.into_iter().zip(outcomes).filter_map(|((line, about, has_twin), outcome)| {
            let outcome = outcome?;
            let lost_twin = has_twin && outcome.keeps_identity();
            Some(Done { line, about, outcome, lost_twin })
        });
        (done.collect(), ended)
    }

    async fn apply_wave(
        &self,
        mut wave: Vec<Step>,
        now: Timestamp,
        outcomes: &mut [Option<LineOutcome>],
    ) -> Result<(), ImportError> {
        for round in 1.. {
            let mut planned = Vec::with_capacity(wave.len());
            for step in wave {
                match self.plan(&step.ask, now) {
                    Err(error) => outcomes[step.place] = Some(self.refused(error)),
                    Ok(Plan::Nothing) => outcomes[step.place] = Some(LineOutcome::Unchanged),
                    Ok(plan) => planned.push((step, plan)),
                }
            }
            if planned.is_empty() {
                break;
            }
            self.keep_earlier(&planned).await.map_err(ImportError::Undo)?;
            let (steps, writes): (Vec<_>, Vec<_>) =
                planned.into_iter().filter_map(|(step, plan)| Some((step, write(&plan)?))).unzip();
            let done = self.writer.write_all(writes, now).await;
            let mut failed = None;
            wave = Vec::new();
            for (step, result) in steps.into_iter().zip(done) {
                match result {
                    Ok(written) => outcomes[step.place] = Some(outcome(&written)),
                    Err(IdentityError::Registry(RegistryError::Store(error))) => failed = Some(error),
                    Err(error) if is_overtaken(&error) && round < ROUNDS_MAX => wave.push(step),
                    Err(error) => outcomes[step.place] = Some(self.refused(error.into())),
                }
            }
            if let Some(error) = failed {
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn plan(&self, ask: &LineRequest, now: Timestamp) -> Result<Plan, ChangeError> {
        let id = ask.id();
        let device = IdentityId::device(id.device.clone());
        let stored = self.registry.entry(id).map(|entry| entry.identity());
        let plan = match ask {
            LineRequest::Line(change) => plan(change, stored, now)?,
            LineRequest::TakeBack(change) => change.plan(stored, now)?,
        };
        match (&plan, ask) {
            (Plan::Create(_), _) if id.module.is_some() && self.registry.entry(&device).is_none() => {
                Err(not_done(RegistryError::NotFound(device)))
            }
            // Modules that the import made are gone by now, and a device would take the others along.
            (Plan::Delete { .. }, LineRequest::TakeBack(_)) if self.has_modules(id) => {
                Err(ChangeError::HasModules(id.clone()))
            }
            _ => Ok(plan),
        }
    }

    fn has_modules(&self, id: &IdentityId) -> bool {
        id.module.is_none() && self.registry.modules(&id.device).is_some_and(|modules| !modules.is_empty())
    }

    /// Returns once the undo file has what is to be changed as it is now.
    async fn keep_earlier(&self, planned: &[(Step, Plan)]) -> io::Result<()> {
        let Some(undo) = &self.undo else { return Ok(()) };
        let mut undo = undo.lock().await;
        for (Step { line, .. }, plan) in planned {
            match plan {
                Plan::Create(after) => undo.note(*line, None, Some(after))?,
                Plan::Replace { before, after } => undo.note(*line, Some(before), Some(after))?,
                Plan::Delete { before } => {
                    // A device takes its modules along. Read backwards, the device is made again before them.
                    let modules = match before.id.module {
                        None => self.registry.modules(&before.id.device).unwrap_or_default(),
                        Some(_) => Vec::new(),
                    };
                    modules.iter().try_for_each(|module| undo.note(*line, Some(&module.identity()), None))?;
                    undo.note(*line, Some(before), None)?;
                }
                Plan::Nothing => {}
            }
        }
        undo.sync().await
    }

    fn refused(&self, error: ChangeError) -> LineOutcome {
        LineOutcome::Refused(error.into())
    }
}

/// Writes what was planned, if what it was planned on still holds. None when there is nothing to do.
fn write(plan: &Plan) -> Option<IdentityWrite> {
    let version = |before: &Identity| Precondition::Version(before.etag());
    match plan {
        Plan::Create(after) => Some(IdentityWrite::Create(IdentitySpec::from(&**after))),
        Plan::Replace { before, after } => {
            Some(IdentityWrite::Replace(IdentitySpec::from(&**after), version(before)))
        }
        Plan::Delete { before } => Some(IdentityWrite::Delete(before.id.clone(), version(before))),
        Plan::Nothing => None,
    }
}

fn outcome(written: &WrittenIdentity) -> LineOutcome {
    match (&written.before, &written.after) {
        (None, _) => LineOutcome::Created,
        (Some(_), Some(_)) => LineOutcome::Changed,
        (Some(_), None) => LineOutcome::Deleted,
    }
}

/// Whether what is stored is no longer what the change was planned on.
fn is_overtaken(error: &IdentityError) -> bool {
    match error {
        IdentityError::Registry(
            RegistryError::AlreadyExists(_)
            | RegistryError::NotFound(_)
            | RegistryError::PreconditionFailed(_),
        ) => true,
        IdentityError::Registry(
            RegistryError::StaleGeneration(_)
            | RegistryError::TooManyModules { .. }
            | RegistryError::Store(_),
        )
        | IdentityError::Forbidden(_) => false,
    }
}

/// The steps of a batch, each wave after the one before it.
#[derive(Default)]
struct Waves(Vec<Vec<Step>>, HashMap<DeviceId, Heights>);

/// In which wave the last step of a device was.
#[derive(Default)]
struct Heights {
    /// Of the device itself.
    device: usize,
    /// Of anything of the device.
    highest: usize,
    modules: HashMap<ModuleId, usize>,
}

impl Waves {
    /// A device's step comes after all earlier ones of the device and its modules, a module's after all of the device
    /// and its own. A module that goes makes room for the next, so it counts as a step of its device.
    fn add(&mut self, step: Step) {
        let Self(waves, heights) = self;
        let id = step.ask.id();
        let heights = heights.entry(id.device.clone()).or_default();
        let height = match &id.module {
            Some(module) if !step.ask.may_delete() => {
                let own = heights.modules.entry(module.clone()).or_default();
                *own = 1 + heights.device.max(*own);
                *own
            }
            _ => {
                heights.device = heights.highest + 1;
                heights.device
            }
        };
        heights.highest = heights.highest.max(height);
        if waves.len() < height {
            waves.resize_with(height, Vec::new);
        }
        waves[height - 1].push(step);
    }
}

/// How often a change is planned anew at most.
const ROUNDS_MAX: usize = 8;
