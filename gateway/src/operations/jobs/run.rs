//! A job's work from its start to its end, however it ends: the record says so before anybody else may begin one.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use jiff::Timestamp;
use portcullis_registry::id::DeviceId;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};

use super::dry_run::DryRun;
use super::import::{ImportError, Importer};
use super::results::{Done, REFUSED, Results};
use super::source::{LineBatch, SourceError};
use super::undo::UndoWriter;
use super::{export, rollback, source};
use crate::auth::VerifiedService;
use crate::blob::container::{Container, ContainerError, Pieces};
use crate::hub::Hub;
use crate::hub::audit::effect::Effect;
use crate::hub::audit::{AuditEntry, Operation};
use crate::hub::job_store::job::Job;
use crate::hub::job_store::record::{JobKind, JobRecord, JobState};
use crate::hub::job_store::{INPUT, UNDO, blocking};
use crate::operations::identities::IdentityWriter;

/// What there is to do.
pub(super) enum Work {
    Import {
        pieces: Pieces,
        /// Where the list of refused lines goes besides the job's own files.
        errors_to: Option<Container>,
    },
    Export {
        to: Container,
        file: String,
        with_keys: bool,
        with_modules: bool,
    },
    Rollback {
        /// The import whose changes are taken back.
        of: Arc<Job>,
    },
}

/// A job that runs, and what it needs.
pub(super) struct Running {
    pub(super) hub: Arc<Hub>,
    pub(super) caller: VerifiedService,
    pub(super) job: Arc<Job>,
}

type Batches = mpsc::Receiver<Result<LineBatch, SourceError>>;

/// Why a job did not do all its work. The texts are told to whoever may see the job.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("it was cancelled")]
    Cancelled,
    #[error("the hub was stopped; what is done stays done, and the same job may be run again")]
    Stopping,
    #[error("the policy that asked for it was changed or deleted")]
    Revoked,
    #[error("the input: {0}")]
    Source(#[from] SourceError),
    #[error("the output: {0}")]
    Output(ContainerError),
    #[error(transparent)]
    Import(#[from] ImportError),
    #[error("the files of the job cannot be written: {0}")]
    Io(#[from] io::Error),
}

impl Running {
    /// Works until all is done or cannot be. Ends the job in any case.
    pub(super) async fn run(self, work: Work) {
        let id = self.job.record().id;
        let ending = Ending(self);
        let running = &ending.0;
        let now = running.hub.clock.wall();
        let entry = AuditEntry::of(&running.caller, Operation::StartJob, id.clone(), now);
        let effect = Effect::with_details(details(&running.job.record()));
        running.hub.audit.record(AuditEntry { effect, ..entry }).await;
        running.enter(JobState::Running);
        running.forget_old(now).await;
        tracing::info!(job = %id, kind = running.job.record().kind.as_str(), policy = running.caller.policy(), "job started");
        let outcome = match running.save().await {
            Ok(()) => running.work(work).await,
            Err(error) => Err(error.into()),
        };
        ending.end(outcome).await;
    }

    async fn work(&self, work: Work) -> Result<(), RunError> {
        match work {
            Work::Import { pieces, errors_to } => self.import(pieces, errors_to).await,
            Work::Export { to, file, with_keys, with_modules } => {
                self.export(&to, &file, with_keys, with_modules).await
            }
            Work::Rollback { of } => self.rollback(&of).await,
        }
    }

    async fn import(&self, pieces: Pieces, errors_to: Option<Container>) -> Result<(), RunError> {
        let mut results = Results::create(&self.job.directory).await?;
        let outcome = self.import_lines(pieces, &mut results).await;
        // Whatever was done is told, also when not all was.
        results.sync().await?;
        let told = match errors_to {
            Some(container) => self.report_refused(&container, results.counts().refused).await,
            None => Ok(()),
        };
        outcome.and(told)
    }

    async fn import_lines(&self, pieces: Pieces, results: &mut Results) -> Result<(), RunError> {
        let batches = source::batches(pieces);
        if self.job.record().dry_run {
            return self.judge(batches, results).await;
        }
        let undo = self.job.directory.join(UNDO);
        let undo = blocking(move || UndoWriter::create(&undo)).await?;
        self.apply(&self.importer(Some(undo)), batches, results).await
    }

    fn importer(&self, undo: Option<UndoWriter>) -> Importer<'_> {
        let writer = IdentityWriter::of_job(&self.hub, &self.caller, &self.job.record().id);
        Importer { registry: &self.hub.registry, writer, undo: undo.map(Mutex::new) }
    }

    async fn rollback(&self, of: &Arc<Job>) -> Result<(), RunError> {
        let mut results = Results::create(&self.job.directory).await?;
        let batches = rollback::batches(&of.directory.join(UNDO));
        let outcome = self.apply(&self.importer(None), batches, &mut results).await;
        results.sync().await?;
        outcome?;
        // Taken back once, it cannot be again.
        let of = Arc::clone(of);
        Ok(blocking(move || of.remove(UNDO)).await?)
    }

    /// Tells of every line what would become of it.
    async fn judge(&self, mut batches: Batches, results: &mut Results) -> Result<(), RunError> {
        let hub = &self.hub;
        let mut judge = DryRun::new(&hub.registry, hub.config.limits.modules_per_device_max);
        let mut saved = Instant::now();
        loop {
            let batch = self.next(&mut batches).await?.ok_or(SourceError::BrokeOff)??;
            let done = judge.judge(batch.items, hub.clock.wall());
            self.record_results(&done, batch.read, results).await?;
            self.save_at_times(&mut saved).await?;
            if batch.is_last {
                break;
            }
        }
        if judge.is_full() {
            let note = format!(
                "more than {} identities would change; lines beyond these were held against what is stored alone",
                super::dry_run::REMEMBERED_MAX
            );
            self.job.update(|record| record.note = Some(note));
        }
        Ok(())
    }

    /// Applies batch after batch; while the store makes one stable the next is planned, unless the two have a device in
    /// common. What was begun is told of, also when there is to be no more.
    async fn apply(
        &self,
        importer: &Importer<'_>,
        mut batches: Batches,
        results: &mut Results,
    ) -> Result<(), RunError> {
        let mut saved = Instant::now();
        let mut running = FuturesOrdered::new();
        let mut devices: VecDeque<HashSet<DeviceId>> = VecDeque::new();
        let mut waiting: Option<(LineBatch, HashSet<DeviceId>)> = None;
        let mut outcome: Option<Result<(), RunError>> = None;
        loop {
            if outcome.is_none()
                && let Some((batch, own)) =
                    waiting.take_if(|(_, own)| devices.iter().all(|other| own.is_disjoint(other)))
            {
                if batch.is_last {
                    outcome = Some(Ok(()));
                }
                devices.push_back(own);
                let now = self.hub.clock.wall();
                running.push_back(async move { (batch.read, importer.apply(batch.items, now).await) });
            }
            let is_full = running.len() >= BATCHES_AT_ONCE || waiting.is_some();
            tokio::select! {
                biased;
                Some((read, (done, ended))) = running.next(), if !running.is_empty() => {
                    devices.pop_front();
                    // An error ends the reading. What runs beside is still finished, and its lines recorded.
                    if let Err(error) = self.record_results(&done, read, results).await {
                        outcome = Some(Err(error.into()));
                    }
                    if let Err(error) = ended {
                        outcome = Some(Err(error.into()));
                    }
                    if let Err(error) = self.save_at_times(&mut saved).await {
                        outcome = Some(Err(error.into()));
                    }
                }
                next = self.next(&mut batches), if outcome.is_none() && !is_full => {
                    match next.and_then(|next| Ok(next.ok_or(SourceError::BrokeOff)??)) {
                        Ok(batch) => {
                            let own = batch.devices();
                            waiting = Some((batch, own));
                        }
                        Err(error) => outcome = Some(Err(error)),
                    }
                }
                else => return outcome.unwrap_or(Ok(())),
            }
        }
    }

    async fn export(
        &self,
        to: &Container,
        file: &str,
        with_keys: bool,
        with_modules: bool,
    ) -> Result<(), RunError> {
        let registry = Arc::clone(&self.hub.registry);
        self.job.update(|record| record.progress.total = Some(registry.counts().devices as u64));
        let mut writer = to.write(file).await.map_err(RunError::Output)?;
        let mut pieces = export::pieces(registry, with_keys, with_modules);
        let mut saved = Instant::now();
        loop {
            let piece = self.next(&mut pieces).await?.ok_or(SourceError::BrokeOff)?;
            writer.write(piece.bytes).await.map_err(RunError::Output)?;
            self.hub.metrics.job_items(JobKind::Export, "exported", piece.lines);
            self.job.update(|record| {
                record.progress.done = piece.devices;
                record.progress.lines += piece.lines;
            });
            self.save_at_times(&mut saved).await?;
            if piece.is_last {
                break;
            }
        }
        writer.finish().await.map_err(RunError::Output)
    }

    /// Puts the list of refused lines into the container, or takes away one of an earlier run when none was refused.
    async fn report_refused(&self, container: &Container, refused: u64) -> Result<(), RunError> {
        if refused == 0 {
            return container.delete(REFUSED).await.map_err(RunError::Output);
        }
        let own = Container::own(self.job.directory.clone());
        let mut pieces = own.read(REFUSED).await.map_err(RunError::Output)?;
        let mut writer = container.write(REFUSED).await.map_err(RunError::Output)?;
        while let Some(piece) = pieces.next().await {
            writer.write(piece.map_err(RunError::Output)?).await.map_err(RunError::Output)?;
        }
        writer.finish().await.map_err(RunError::Output)
    }

    /// The next of what a thread makes, unless the job is to end.
    async fn next<T>(&self, from: &mut mpsc::Receiver<T>) -> Result<Option<T>, RunError> {
        if !self.caller.still_holds(&self.hub.policies()) {
            return Err(RunError::Revoked);
        }
        tokio::select! {
            biased;
            () = self.job.cancelled.cancelled() => Err(match self.hub.stopping.is_cancelled() {
                true => RunError::Stopping,
                false => RunError::Cancelled,
            }),
            next = from.recv() => Ok(next),
        }
    }

    async fn record_results(&self, done: &[Done], read: u64, results: &mut Results) -> io::Result<()> {
        let before = results.counts();
        done.iter().for_each(|done| results.add(done));
        results.flush().await?;
        let counts = results.counts();
        let kind = self.job.update(|record| {
            record.progress.counts = counts;
            record.progress.done = read;
            record.progress.lines += done.len() as u64;
            record.kind
        });
        let items = [
            ("created", counts.created - before.created),
            ("changed", counts.changed - before.changed),
            ("unchanged", counts.unchanged - before.unchanged),
            ("deleted", counts.deleted - before.deleted),
            ("refused", counts.refused - before.refused),
        ];
        items.into_iter().for_each(|(result, count)| self.hub.metrics.job_items(kind, result, count));
        Ok(())
    }

    async fn save_at_times(&self, saved: &mut Instant) -> io::Result<()> {
        if saved.elapsed() < SAVED_EVERY {
            return Ok(());
        }
        *saved = Instant::now();
        self.save().await
    }

    async fn save(&self) -> io::Result<()> {
        let job = Arc::clone(&self.job);
        blocking(move || job.save()).await
    }

    async fn forget_old(&self, now: Timestamp) {
        let hub = Arc::clone(&self.hub);
        if let Err(error) = blocking(move || hub.jobs.forget_old(now)).await {
            tracing::warn!(%error, "files of earlier jobs cannot be removed");
        }
    }

    fn enter(&self, state: JobState) {
        let now = self.hub.clock.wall();
        let (kind, before) = self.job.update(|record| {
            let before = std::mem::replace(&mut record.state, state);
            if state.is_over() {
                record.ended = Some(now);
            } else {
                record.started = Some(now);
            }
            (record.kind, before)
        });
        self.hub.metrics.job_moved(kind, Some(before), state);
    }
}

/// What the audit record says of a job: of an export whether keys went along.
fn details(record: &JobRecord) -> Vec<(&'static str, Value)> {
    let mut details = vec![("kind", record.kind.as_str().into())];
    match record.kind {
        JobKind::Import => details.push(("dryRun", record.dry_run.into())),
        JobKind::Export => details.push(("keys", (!record.exclude_keys).into())),
        JobKind::Rollback => details.push(("rollbackOf", record.rollback_of.clone().into())),
    }
    details
}

/// How many lines came to what. What was refused has no line of its own in the audit record.
fn outcomes(record: &JobRecord) -> Vec<(&'static str, Value)> {
    let counts = record.progress.counts;
    match record.kind {
        JobKind::Export => vec![("exported", record.progress.lines.into())],
        JobKind::Import | JobKind::Rollback => vec![
            ("created", counts.created.into()),
            ("changed", counts.changed.into()),
            ("unchanged", counts.unchanged.into()),
            ("deleted", counts.deleted.into()),
            ("refused", counts.refused.into()),
        ],
    }
}

/// A job that is not over until this is gone, even if its work broke off by a mistake of ours.
struct Ending(Running);

impl Ending {
    async fn end(self, outcome: Result<(), RunError>) {
        let running = &self.0;
        let job = Arc::clone(&running.job);
        let state = match &outcome {
            Ok(()) => JobState::Completed,
            Err(RunError::Cancelled) => JobState::Cancelled,
            Err(_) => JobState::Failed,
        };
        let failure = outcome.err().map(|error| error.to_string());
        let cleaned = Arc::clone(&job);
        // What was uploaded may hold keys and is of no more use.
        if let Err(error) = blocking(move || cleaned.remove(INPUT)).await {
            let file = job.directory.join(INPUT);
            tracing::warn!(%error, file = %file.display(), "an uploaded file cannot be removed, and may hold keys");
        }
        let record = job.record();
        let entry =
            AuditEntry::of(&running.caller, Operation::EndJob, record.id.clone(), running.hub.clock.wall());
        let counts = record.progress.counts;
        let effect = Effect::with_details([details(&record), outcomes(&record)].concat());
        running.hub.audit.record(AuditEntry { refused: failure.clone(), effect, ..entry }).await;
        tracing::info!(
            job = %record.id,
            kind = record.kind.as_str(),
            state = state.as_str(),
            lines = record.progress.lines,
            refused = counts.refused,
            failure = failure.as_deref().unwrap_or_default(),
            "job ended"
        );
        let failure = failure.filter(|_| state == JobState::Failed);
        // Kept before it is told: what has ended for somebody has ended after a crash, too.
        let ended = JobRecord { state, failure, ended: Some(running.hub.clock.wall()), ..record };
        let (kept, kind, id) = (ended.clone(), ended.kind, ended.id.clone());
        let saved = {
            let job = Arc::clone(&job);
            blocking(move || job.save_as(&kept)).await
        };
        if let Err(error) = saved {
            tracing::warn!(job = %id, %error, "the end of a job cannot be kept; after a restart it counts as failed");
        }
        let before = job.update(|record| std::mem::replace(record, ended).state);
        running.hub.metrics.job_moved(kind, Some(before), state);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let running = &self.0;
        if !running.job.record().state.is_over() {
            running
                .job
                .update(|record| record.failure = Some("the hub made a mistake; see its log".to_owned()));
            running.enter(JobState::Failed);
        }
    }
}

/// Batches that are applied at the same time: one is planned while the store makes another stable.
const BATCHES_AT_ONCE: usize = 2;
/// How often a running job's record is kept.
const SAVED_EVERY: Duration = Duration::from_secs(1);
