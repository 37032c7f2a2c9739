//! The jobs a hub remembers: at most one that is active, and those that are over, for a month at most.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use crate::auth::{AuthError, VerifiedService};
use crate::blob::container::ContainerError;
use job::Job;
use record::{JobKind, JobRecord, JobState};

pub(crate) mod job;
pub mod record;

/// Every job the hub remembers.
#[derive(Debug)]
pub struct Jobs {
    directory: PathBuf,
    /// The oldest first.
    known: Mutex<Vec<Arc<Job>>>,
}

/// Why an operation on jobs was not done.
#[derive(Debug, thiserror::Error)]
pub enum JobError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("there is no job {0:?}")]
    NotFound(String),
    #[error("a job is active; there may be one at a time")]
    Busy,
    /// What is wrong with which container.
    #[error("{0}: {1}")]
    Container(&'static str, ContainerError),
    #[error("the upload did not arrive whole: {0}")]
    Upload(String),
    #[error("the upload has more than {0} bytes")]
    TooLarge(u64),
    #[error("the upload sent nothing for {} s", .0.as_secs())]
    Idle(Duration),
    #[error("only the last import can be taken back, while its undo file is there")]
    NothingToTakeBack,
    #[error("the job has no such file")]
    NoFile,
    #[error("the jobs directory cannot be read or written: {0}")]
    Io(#[from] io::Error),
}

impl Jobs {
    /// Reads what is kept of earlier jobs. One that was cut off has failed.
    pub fn open(directory: &Path, now: Timestamp) -> io::Result<Self> {
        let mut known = Vec::new();
        for directory in directories(directory)? {
            let job = match Job::load(directory.clone()) {
                Ok(Some(job)) => job,
                // A directory without a record is one whose job never began.
                Ok(None) => {
                    fs::remove_dir_all(directory)?;
                    continue;
                }
                // No reason to keep devices out.
                Err(error) => {
                    tracing::warn!(directory = %directory.display(), %error, "the record of a job cannot be read");
                    continue;
                }
            };
            if !job.record().state.is_over() {
                job.update(|record| {
                    record.state = JobState::Failed;
                    record.failure = Some(CUT_OFF.to_owned());
                    record.ended = Some(now);
                });
                job.save()?;
                job.remove(INPUT)?;
            }
            known.push(Arc::new(job));
        }
        known.sort_by_key(|job| job.record().created);
        let jobs = Self { directory: directory.to_owned(), known: Mutex::new(known) };
        jobs.forget_old(now)?;
        Ok(jobs)
    }

    /// Begins a job, unless another one is active. It has its directory once this returns.
    pub(crate) async fn begin(
        &self,
        record: JobRecord,
        stopping: &CancellationToken,
    ) -> Result<Arc<Job>, JobError> {
        let job = Arc::new(Job::new(record, &self.directory, stopping.child_token()));
        {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            if known.iter().any(|job| !job.record().state.is_over()) {
                return Err(JobError::Busy);
            }
            known.push(Arc::clone(&job));
        }
        let mut beginning = Beginning { jobs: self, job: &job, is_done: false };
        let own = Arc::clone(&job);
        // Not under the lock: a disk may take its time.
        blocking(move || own.settle()).await?;
        beginning.is_done = true;
        drop(beginning);
        Ok(job)
    }

    /// Refuses while a job is active.
    pub(crate) fn check_idle(&self) -> Result<(), JobError> {
        if self.all().iter().any(|job| !job.record().state.is_over()) { Err(JobError::Busy) } else { Ok(()) }
    }

    fn forget(&self, job: &Arc<Job>) -> io::Result<()> {
        self.take_out(job);
        fs::remove_dir_all(&job.directory)
    }

    /// Takes back that a job began, except for its directory.
    pub(crate) fn take_out(&self, job: &Arc<Job>) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| !Arc::ptr_eq(known, job));
    }

    /// Forgets what is too old or too much, and the bulky files of all but the last of their kind.
    pub(crate) fn forget_old(&self, now: Timestamp) -> io::Result<()> {
        let all = self.all();
        let is_old = |job: &Arc<Job>| {
            job.record().state.is_over() && now.duration_since(job.record().created) > KEPT_TIME_MAX
        };
        let surplus = all.len().saturating_sub(KEPT_MAX);
        for (place, job) in all.iter().enumerate() {
            if is_old(job) || place < surplus {
                self.forget(job)?;
            }
        }
        for (kind, file) in [(JobKind::Import, UNDO), (JobKind::Export, DEVICES)] {
            let of_kind = all.iter().rev().filter(|job| job.record().kind == kind && !job.record().dry_run);
            for job in of_kind.skip(1) {
                job.remove(file)?;
            }
        }
        Ok(())
    }

    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A job that the caller may see: one who has fewer rights than whoever asked for it does not.
    pub(crate) fn find(&self, caller: &VerifiedService, id: &str) -> Result<Arc<Job>, JobError> {
        let found = self.all().into_iter().find(|job| job.record().id == id);
        let seen = found.filter(|job| caller.rights().contains(job.record().rights()));
        seen.ok_or_else(|| JobError::NotFound(id.to_owned()))
    }
}

/// A job that has no directory yet. Unless it gets one it never was, or no other could begin any more.
struct Beginning<'a> {
    jobs: &'a Jobs,
    job: &'a Arc<Job>,
    is_done: bool,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.jobs.take_out(self.job);
        }
    }
}

/// Waits for work that blocks.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| io::Error::other(error.to_string()))?
}

fn directories(jobs: &Path) -> io::Result<Vec<PathBuf>> {
    if !jobs.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(jobs)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries.iter().map(fs::DirEntry::path).filter(|path| path.is_dir()).collect())
}

/// What an export is called when nobody says; IoT Hub's name.
pub const DEVICES: &str = "devices.txt";
/// An upload, until it is imported.
pub(crate) const INPUT: &str = "input";
/// What was there before an import.
pub(crate) const UNDO: &str = "undo";
const CUT_OFF: &str =
    "the hub stopped before the job was done; what is done stays done, and the same job may be run again";
/// Jobs that are remembered.
const KEPT_MAX: usize = 50;
/// IoT Hub remembers a job for 30 days.
const KEPT_TIME_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);
