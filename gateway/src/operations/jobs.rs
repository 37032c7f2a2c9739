//! Jobs: whole fleets in and out, and an import taken back. One at a time.
//!
//! A file comes in through `source`, which reads its lines, and `import`, which applies them; `dry_run` tells what they
//! would do; `undo` keeps what was there before and `rollback` plays it backwards; `export` writes the registry out;
//! `results` tells what became of each line. `run` leads a job from start to end, `record` is what is kept of it.
//!
//! A job that a crash or stop of the hub cuts off ends as failed and says so: what it had done stays done, each line
//! whole, and running it again does the rest.

use std::fs;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use portcullis_registry::policy::Rights;
use tokio::task::JoinHandle;

use crate::auth::{AuthError, VerifiedService};
use crate::blob::container::{Container, ContainerError, Pieces};
use crate::hub::Hub;
use crate::hub::audit::effect::Effect;
use crate::hub::audit::{AuditEntry, Operation};
use crate::hub::job_store::job::Job;
use crate::hub::job_store::record::{JobFile, JobKind, JobRecord};
use crate::hub::job_store::{INPUT, UNDO};
use crate::operations::audit::{audited, note_reveal};
use run::{Running, Work};

mod dry_run;
mod export;
mod import;
pub mod line;
mod plan;
mod results;
mod rollback;
mod run;
mod source;
mod undo;

pub use crate::hub::job_store::{DEVICES, JobError};
pub use results::{REFUSED, RESULTS};

/// A file of a container, as a caller names it.
#[derive(Clone)]
pub struct Address {
    /// A container's URI; its query is a secret.
    pub container: String,
    pub file: String,
}

/// What a job in containers is to do.
#[derive(Clone, Debug)]
pub enum ContainerJob {
    Import { input: Address, output: Address },
    Export { output: Address, exclude_keys: bool },
}

/// Starts a job that reads and writes containers.
pub async fn create(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    wanted: ContainerJob,
) -> Result<JobRecord, JobError> {
    let kind = match &wanted {
        ContainerJob::Import { .. } => JobKind::Import,
        ContainerJob::Export { .. } => JobKind::Export,
    };
    or_refused(hub, caller, kind, async {
        caller.check(RIGHTS)?;
        hub.jobs.check_idle()?;
        let now = hub.clock.wall();
        let (record, work) = match wanted {
            ContainerJob::Import { input, output } => {
                let from = input.open(hub).map_err(|error| JobError::Container(INPUT_NAME, error))?;
                let to = output.open(hub).map_err(|error| JobError::Container(OUTPUT_NAME, error))?;
                let pieces =
                    from.read(&input.file).await.map_err(|error| JobError::Container(INPUT_NAME, error))?;
                check_writable(&to).await.map_err(|error| JobError::Container(OUTPUT_NAME, error))?;
                let places = (Some(input.file()), Some(output.file()));
                let record = JobRecord {
                    input: places.0,
                    output: places.1,
                    ..JobRecord::new(JobKind::Import, caller, now)
                };
                (record, Work::Import { pieces, errors_to: Some(to) })
            }
            ContainerJob::Export { output, exclude_keys } => {
                let to = output.open(hub).map_err(|error| JobError::Container(OUTPUT_NAME, error))?;
                // Given up at once: it only tells whether the name may be used.
                to.write(&output.file).await.map_err(|error| JobError::Container(OUTPUT_NAME, error))?;
                check_writable(&to).await.map_err(|error| JobError::Container(OUTPUT_NAME, error))?;
                let record = JobRecord::new(JobKind::Export, caller, now);
                let record = JobRecord { output: Some(output.file()), exclude_keys, ..record };
                let (file, with_keys) = (output.file, !exclude_keys);
                (record, Work::Export { to, file, with_keys, with_modules: true })
            }
        };
        start(hub, caller, record, work).await
    })
    .await
}

/// Takes a file of identities and starts to import it, or in a dry run to tell what an import would do.
pub async fn import(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    dry_run: bool,
    upload: impl Stream<Item = Result<Bytes, String>> + Send + Unpin,
) -> Result<JobRecord, JobError> {
    or_refused(hub, caller, JobKind::Import, async {
        caller.check(RIGHTS)?;
        let record = JobRecord { dry_run, ..JobRecord::new(JobKind::Import, caller, hub.clock.wall()) };
        let job = hub.jobs.begin(record, &hub.stopping).await?;
        let mut upload_of = UploadOf { hub, job: &job, is_spooled: false };
        let spooled = upload_of.spool(upload).await;
        upload_of.is_spooled = true;
        drop(upload_of);
        let (pieces, bytes) = match spooled {
            Ok(spooled) => spooled,
            Err(error) => {
                forget_upload(hub, &job).await.map_err(|error| JobError::Io(io::Error::other(error)))?;
                return Err(error);
            }
        };
        job.update(|record| record.progress.total = Some(bytes));
        Ok(launch(hub, caller, job, Work::Import { pieces, errors_to: None }))
    })
    .await
}

/// Starts to write the registry to a file of the job.
pub async fn export(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    with_keys: bool,
    with_modules: bool,
) -> Result<JobRecord, JobError> {
    or_refused(hub, caller, JobKind::Export, async {
        caller.check(Rights::REGISTRY_READ)?;
        let record = JobRecord {
            exclude_keys: !with_keys,
            ..JobRecord::new(JobKind::Export, caller, hub.clock.wall())
        };
        let job = hub.jobs.begin(record, &hub.stopping).await?;
        let to = Container::own(job.directory.clone());
        Ok(launch(hub, caller, job, Work::Export { to, file: DEVICES.to_owned(), with_keys, with_modules }))
    })
    .await
}

/// Starts to take back what the last import changed.
pub async fn roll_back(hub: &Arc<Hub>, caller: &VerifiedService, id: &str) -> Result<JobRecord, JobError> {
    or_refused(hub, caller, JobKind::Rollback, async {
        caller.check(RIGHTS)?;
        let of = hub.jobs.find(caller, id)?;
        hub.jobs.check_idle()?;
        // Of earlier imports there is no such file any more.
        if !of.directory.join(UNDO).exists() {
            return Err(JobError::NothingToTakeBack);
        }
        let record = JobRecord::new(JobKind::Rollback, caller, hub.clock.wall());
        let record = JobRecord { rollback_of: Some(id.to_owned()), ..record };
        start(hub, caller, record, Work::Rollback { of }).await
    })
    .await
}

/// Every job the caller may see, the latest first.
pub fn list(hub: &Hub, caller: &VerifiedService) -> Result<Vec<JobRecord>, JobError> {
    caller.check(Rights::REGISTRY_READ)?;
    let records = hub.jobs.all().into_iter().rev().map(|job| job.record());
    Ok(records.filter(|record| caller.rights().contains(record.rights())).collect())
}

/// One job.
pub fn show(hub: &Hub, caller: &VerifiedService, id: &str) -> Result<JobRecord, JobError> {
    caller.check(Rights::REGISTRY_READ)?;
    Ok(hub.jobs.find(caller, id)?.record())
}

/// Ends a job that is active; one that is over stays as it is.
pub async fn cancel(hub: &Hub, caller: &VerifiedService, id: &str) -> Result<(), JobError> {
    let found = caller.check(Rights::REGISTRY_READ).map_err(JobError::from);
    let found = found.and_then(|()| hub.jobs.find(caller, id));
    if found.as_ref().is_ok_and(|job| job.record().state.is_over()) {
        return Ok(());
    }
    audited(hub, caller, Operation::CancelJob, id.to_owned(), async {
        found?.cancelled.cancel();
        Ok(((), Effect::default()))
    })
    .await
}

/// A file that a job has made.
pub async fn file(hub: &Hub, caller: &VerifiedService, id: &str, name: &str) -> Result<Pieces, JobError> {
    caller.check(Rights::REGISTRY_READ)?;
    let job = hub.jobs.find(caller, id)?;
    if ![DEVICES, RESULTS, REFUSED].contains(&name) {
        return Err(JobError::NoFile);
    }
    Container::own(job.directory.clone()).read(name).await.map_err(|error| match error {
        ContainerError::NotFound(_) => JobError::NoFile,
        other => JobError::Container("the file", other),
    })
}

/// Whether a person may have a file with the keys of a fleet in it: whoever may see them may become its devices, so
/// reading is not enough; each time is recorded. `of` is the job, or what is asked for.
pub async fn reveal(hub: &Hub, caller: &VerifiedService, of: &str) -> Result<(), AuthError> {
    let permitted = async { caller.check(Rights::REGISTRY_WRITE).map(|()| ((), Effect::default())) };
    audited(hub, caller, Operation::RevealCredential, format!("job {of}"), permitted).await
}

/// A file that a job has made, for a program; one with keys in it is recorded as shown. Whoever may see the job may have
/// it, as IoT Hub gives keys to whoever may read the registry.
pub async fn download(hub: &Hub, caller: &VerifiedService, id: &str, name: &str) -> Result<Pieces, JobError> {
    let pieces = file(hub, caller, id, name).await?;
    let record = show(hub, caller, id)?;
    if name == DEVICES && record.kind == JobKind::Export && !record.exclude_keys {
        note_reveal(hub, caller, format!("job {id}"), Vec::new()).await;
    }
    Ok(pieces)
}

/// Records that a job was asked for and not begun. One that begins says so itself.
async fn or_refused(
    hub: &Hub,
    caller: &VerifiedService,
    kind: JobKind,
    asked: impl Future<Output = Result<JobRecord, JobError>>,
) -> Result<JobRecord, JobError> {
    let outcome = asked.await;
    if let Err(error) = &outcome {
        let entry = AuditEntry::of(caller, Operation::StartJob, kind.as_str().to_owned(), hub.clock.wall());
        hub.audit.record(AuditEntry { refused: Some(error.to_string()), ..entry }).await;
    }
    outcome
}

async fn start(
    hub: &Arc<Hub>,
    caller: &VerifiedService,
    record: JobRecord,
    work: Work,
) -> Result<JobRecord, JobError> {
    let job = hub.jobs.begin(record, &hub.stopping).await?;
    Ok(launch(hub, caller, job, work))
}

fn launch(hub: &Arc<Hub>, caller: &VerifiedService, job: Arc<Job>, work: Work) -> JobRecord {
    let record = job.record();
    hub.metrics.job_moved(record.kind, None, record.state);
    let running = Running { hub: Arc::clone(hub), caller: caller.clone(), job };
    hub.tasks.spawn(running.run(work));
    record
}

/// A job whose file is on its way. It is forgotten when its sender goes away meanwhile.
struct UploadOf<'a> {
    hub: &'a Hub,
    job: &'a Arc<Job>,
    /// The file is there, or it is known why it is not.
    is_spooled: bool,
}

impl UploadOf<'_> {
    /// Keeps the file in the job's directory; its pieces, and how many bytes there are.
    async fn spool(
        &self,
        mut upload: impl Stream<Item = Result<Bytes, String>> + Unpin,
    ) -> Result<(Pieces, u64), JobError> {
        let limits = &self.hub.config.limits;
        let failed = |error| match error {
            ContainerError::Io(error) => JobError::Io(error),
            other => JobError::Container("the upload", other),
        };
        let own = Container::own(self.job.directory.clone());
        let mut writer = own.write(INPUT).await.map_err(failed)?;
        let mut bytes: u64 = 0;
        loop {
            let piece = tokio::select! {
                () = self.job.cancelled.cancelled() => {
                    return Err(JobError::Upload("the job was cancelled".to_owned()));
                }
                piece = tokio::time::timeout(limits.upload_idle_time_max, upload.next()) => piece,
            };
            let piece = piece.map_err(|_| JobError::Idle(limits.upload_idle_time_max))?;
            let Some(piece) = piece else { break };
            let piece = piece.map_err(JobError::Upload)?;
            bytes += piece.len() as u64;
            if bytes > limits.upload_bytes_max as u64 {
                return Err(JobError::TooLarge(limits.upload_bytes_max as u64));
            }
            writer.write(piece).await.map_err(failed)?;
        }
        writer.finish().await.map_err(failed)?;
        Ok((own.read(INPUT).await.map_err(failed)?, bytes))
    }
}

impl Drop for UploadOf<'_> {
    fn drop(&mut self) {
        if !self.is_spooled {
            // It goes on by itself; the hub waits for it when it stops.
            drop(forget_upload(self.hub, self.job));
        }
    }
}

/// Takes back that a job began whose file did not arrive. What there is of the file is removed on a thread of its own,
/// whoever waits for that.
fn forget_upload(hub: &Hub, job: &Arc<Job>) -> JoinHandle<()> {
    hub.jobs.take_out(job);
    let directory = job.directory.clone();
    hub.tasks.spawn_blocking(move || {
        if let Err(error) = fs::remove_dir_all(&directory) {
            let directory = directory.display();
            tracing::warn!(%error, %directory, "an upload that did not arrive cannot be removed, and may hold keys");
        }
    })
}

/// Tries whether files can be written there, and removed again.
async fn check_writable(container: &Container) -> Result<(), ContainerError> {
    let probe = format!("portcullis-probe-{:016x}", u64::from_ne_bytes(portcullis_registry::random_bytes()));
    container.write(&probe).await?.finish().await?;
    container.delete(&probe).await
}

impl Address {
    fn open(&self, hub: &Hub) -> Result<Container, ContainerError> {
        Container::open(&self.container, &hub.config)
    }

    fn file(&self) -> JobFile {
        let container = self.container.split(['?', '#']).next().unwrap_or_default().to_owned();
        JobFile { container, file: self.file.clone() }
    }
}

/// The query of a container's URI is a secret.
impl std::fmt::Debug for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.file().fmt(f)
    }
}

/// What an import, and any job in a container, asks for.
pub const RIGHTS: Rights = Rights::REGISTRY_READ_WRITE;
const INPUT_NAME: &str = "Failed to read devices blob from the input container";
const OUTPUT_NAME: &str = "Failed to write to the output container";
