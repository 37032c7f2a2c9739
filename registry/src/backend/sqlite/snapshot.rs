//! A copy of the store in one file, taken while it may be open elsewhere; the check of a copy, and its way back.
//!
//! A copy is one long read: the writer goes on meanwhile, and what was acknowledged before is in it. Rows that were
//! deleted are not. The file of a backup around the copy is `backup`'s business.

use std::fs;
use std::io::Read;
use std::path::Path;

use rusqlite::{Connection, MAIN_DB, OpenFlags};

use super::apply::put_revision;
use super::load::{load, stored_revision};
use super::open::{DATABASE, check_format, check_mark, open_database, open_directory};
use super::row::unusable;
use super::{mark, tally};
use crate::backend::{Change, StoreError};
use crate::record;

/// How many of what a copy holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CopyCounts {
    pub(crate) devices: u64,
    pub(crate) modules: u64,
    pub(crate) messages: u64,
}

/// Copies the store in `directory` into the empty file `to`. `progress` is called with how many bytes are done, of how
/// many expected.
pub(crate) fn copy(
    directory: &Path,
    to: &Path,
    progress: impl Fn(u64, u64) + Send + 'static,
) -> Result<(), StoreError> {
    let path = directory.join(DATABASE);
    let marked = mark::read(directory);
    // Not read-only: after a crash the first connection has to recover the WAL.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let database = Connection::open_with_flags(&path, flags)
        .map_err(|error| StoreError::Fatal(format!("there is no store at {}: {error}", path.display())))?;
    database.busy_timeout(BUSY_TIME_MAX).map_err(|error| unusable(&error))?;
    check_format(&database, &path)?;
    check_mark(&database, &path, marked)?;
    let pages = "SELECT (page_count - freelist_count) * page_size
        FROM pragma_page_count, pragma_freelist_count, pragma_page_size";
    let expected = database.query_row(pages, [], |row| row.get(0)).map_err(|error| unusable(&error))?;
    let growing = to.to_owned();
    let watch = move || {
        progress(fs::metadata(&growing).map_or(0, |metadata| metadata.len()), expected);
        false
    };
    database.progress_handler(PROGRESS_STEPS, Some(watch)).map_err(|error| unusable(&error))?;
    let to = to.to_str().ok_or_else(|| StoreError::Fatal(format!("{} is not UTF-8", to.display())))?;
    database.execute("VACUUM INTO ?1", [to]).map_err(|error| unusable(&error))?;
    Ok(())
}

/// Reads a copy of `bytes` bytes into memory.
pub(crate) fn read(from: impl Read, bytes: u64) -> Result<Connection, StoreError> {
    let bytes = usize::try_from(bytes).map_err(|_| StoreError::Fatal("the copy is too large".into()))?;
    let mut database = Connection::open_in_memory().map_err(|error| unusable(&error))?;
    database.deserialize_read_exact(MAIN_DB, from, bytes, true).map_err(|error| unusable(&error))?;
    Ok(database)
}

/// Opens the file of a copy for reading.
pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(|error| unusable(&error))
}

/// Checks every row and every page of a copy.
pub(crate) fn check(database: &Connection) -> Result<CopyCounts, StoreError> {
    check_format(database, Path::new("the copy of the store"))?;
    let verdict: String = database
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(|error| unusable(&error))?;
    if verdict != "ok" {
        return Err(StoreError::Fatal(format!("the copy of the store is damaged: {verdict}")));
    }
    let mut counts = CopyCounts::default();
    load(database, &mut |change| {
        match &change {
            Change::IdentityPut { id, generation, revision, record } => {
                record::decode_identity(id, *generation, *revision, record)?;
                *(if id.module.is_none() { &mut counts.devices } else { &mut counts.modules }) += 1;
            }
            Change::MessagePut { id, number, generation, record } => {
                record::decode_message(id, *number, *generation, record)?;
                counts.messages += 1;
            }
            // What else is kept has no form of its own.
            _ => {}
        }
        Ok(())
    })?;
    Ok(counts)
}

/// Makes a store of a copy that was put into `directory`.
pub(crate) fn adopt(directory: &Path) -> Result<CopyCounts, StoreError> {
    let _lock = open_directory(directory)?;
    let (database, mark) = open_database(directory)?;
    let counts = check(&database)?;
    let highest: u64 = database
        .query_row("SELECT coalesce(max(rev), 0) FROM identity", [], |row| row.get(0))
        .map_err(|error| unusable(&error))?;
    let next_revision = highest.max(stored_revision(&database)?) + REVISIONS_SKIPPED;
    put_revision(&database, next_revision).map_err(|error| unusable(&error))?;
    let commits = tally::commits(&database).map_err(|error| unusable(&error))?;
    let marked = mark.write(commits).and_then(|()| mark.sync());
    marked.map_err(|error| {
        StoreError::Fatal(format!("the mark beside the store cannot be written: {error}"))
    })?;
    database.close().map_err(|(_, error)| unusable(&error))?;
    Ok(counts)
}

/// Steps of SQLite's between two looks at how far a copy is.
const PROGRESS_STEPS: i32 = 100_000;
const BUSY_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(5);
/// A restored hub skips so many revisions: etags handed out after the backup was made must never name other states.
const REVISIONS_SKIPPED: u64 = 1 << 32;
