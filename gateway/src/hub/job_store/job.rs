//! One job in memory: its record, the directory where it keeps its files, and the word that ends it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use portcullis_registry::durable_file;
use tokio_util::sync::CancellationToken;

use super::record::JobRecord;

/// A job.
#[derive(Debug)]
pub(crate) struct Job {
    record: Mutex<JobRecord>,
    pub(crate) directory: PathBuf,
    /// Cancelled when somebody asks for it, and when the hub stops.
    pub(crate) cancelled: CancellationToken,
}

impl Job {
    /// A new job that will have a directory of its own under `jobs`.
    pub(crate) fn new(record: JobRecord, jobs: &Path, cancelled: CancellationToken) -> Self {
        let directory = jobs.join(&record.id);
        Self { record: Mutex::new(record), directory, cancelled }
    }

    /// Makes its directory, which is there after a crash, too. Blocks.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let jobs = self.directory.parent().unwrap_or(&self.directory);
        DirBuilder::new().recursive(true).mode(0o700).create(jobs)?;
        DirBuilder::new().mode(0o700).create(&self.directory)?;
        self.save()?;
        for directory in [Some(jobs), jobs.parent()].into_iter().flatten() {
            File::open(directory)?.sync_all()?;
        }
        Ok(())
    }

    /// A job of an earlier run; nothing when the directory is none of a job.
    pub(crate) fn load(directory: PathBuf) -> io::Result<Option<Self>> {
        let bytes = match fs::read(directory.join(RECORD)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
        };
        let record: JobRecord = serde_json::from_slice(&bytes)?;
        Ok(Some(Self { record: Mutex::new(record), directory, cancelled: CancellationToken::new() }))
    }

    pub(crate) fn record(&self) -> JobRecord {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn update<T>(&self, change: impl FnOnce(&mut JobRecord) -> T) -> T {
        change(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns once the record is on stable storage as it is now. Blocks.
    pub(crate) fn save(&self) -> io::Result<()> {
        self.save_as(&self.record())
    }

    /// Returns once this record of it is on stable storage. Blocks.
    pub(crate) fn save_as(&self, record: &JobRecord) -> io::Result<()> {
        durable_file::replace(&self.directory.join(RECORD), &serde_json::to_vec(record)?, 0o600)
    }

    /// Removes one of its files; one that is not there is no error. Blocks.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.directory.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

const RECORD: &str = "job.json";
