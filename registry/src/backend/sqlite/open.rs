//! Opens the directory and the database in it, or refuses with the reason.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::mark::{Mark, Marked};
use super::migrate::migrate;
use super::row::unusable;
use super::tally;
use crate::backend::StoreError;

/// Makes the directory private, and takes the lock that keeps other processes out.
pub(super) fn open_directory(directory: &Path) -> Result<File, StoreError> {
    let refused = |what: &str, error: std::io::Error| {
        StoreError::Fatal(format!("{what} {}: {error}", directory.display()))
    };
    fs::create_dir_all(directory).map_err(|error| refused("cannot make", error))?;
    let mode = fs::metadata(directory).map_err(|error| refused("cannot read", error))?.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))
            .map_err(|error| refused("cannot make private", error))?;
    }
    let lock = private_file(&directory.join("lock")).map_err(|error| refused("cannot write in", error))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            Err(StoreError::Fatal(format!("{} is in use by another process", directory.display())))
        }
        Err(TryLockError::Error(error)) => Err(refused("cannot lock", error)),
    }
}

fn private_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// The database, ready to be read and written, and the mark beside it.
pub(super) fn open_database(directory: &Path) -> Result<(Connection, Mark), StoreError> {
    let path = directory.join(DATABASE);
    let size = fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);
    if Mark::is_in(directory) && size == 0 {
        let state = if path.exists() { "empty" } else { "missing" };
        return Err(StoreError::Fatal(format!(
            "{} is {state}, though there was a store: restore it from a backup",
            path.display()
        )));
    }
    drop(
        private_file(&path)
            .map_err(|error| StoreError::Fatal(format!("cannot open {}: {error}", path.display())))?,
    );
    let database = Connection::open(&path).map_err(|error| unusable(&error))?;
    if size == 0 {
        create(&database).map_err(|error| unusable(&error))?;
    }
    set_up(&database, &path)?;
    tally::begin(&database).map_err(|error| unusable(&error))?;
    let (mark, marked) = Mark::open(directory).map_err(|error| {
        StoreError::Fatal(format!("cannot use the mark in {}: {error}", directory.display()))
    })?;
    check_mark(&database, &path, marked)?;
    Ok((database, mark))
}

/// Refuses a database that had more commits when it was last acknowledged.
pub(super) fn check_mark(database: &Connection, path: &Path, marked: Marked) -> Result<(), StoreError> {
    let commits = tally::commits(database).map_err(|error| unusable(&error))?;
    match marked {
        Marked::Nothing => Ok(()),
        Marked::Damaged => {
            tracing::warn!("store.id is damaged and is written anew; if power was lost, look at the disk");
            Ok(())
        }
        Marked::Commits(acknowledged) if acknowledged <= commits => Ok(()),
        Marked::Commits(acknowledged) => Err(StoreError::Fatal(format!(
            "{} has lost acknowledged changes: it is at commit {commits}, and {acknowledged} were acknowledged. \
             It is damaged or an older copy; restore it from a backup",
            path.display()
        ))),
    }
}

/// A new store, whole or not at all: the format is set in the transaction that makes the tables.
fn create(database: &Connection) -> Result<(), rusqlite::Error> {
    let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "{SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};"
    ))?;
    transaction.commit()
}

/// Checks whose file it is and that durability is what is promised; each setting is read back.
fn set_up(database: &Connection, path: &Path) -> Result<(), StoreError> {
    let number = |name: &str| {
        database.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| unusable(&error))
    };
    if number("application_id")? == APPLICATION_ID {
        migrate(database, number("user_version")?)?;
    }
    check_format(database, path)?;
    let mode: String = database
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(|error| unusable(&error))?;
    let settings =
        "PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 8000; PRAGMA journal_size_limit = 67108864;
                    PRAGMA busy_timeout = 5000; PRAGMA cache_size = -65536;";
    database.execute_batch(settings).map_err(|error| unusable(&error))?;
    let full = 2;
    if mode != "wal" || number("synchronous")? != full {
        return Err(StoreError::Fatal(format!(
            "{} cannot be written durably (journal {mode})",
            path.display()
        )));
    }
    Ok(())
}

/// Checks whose file it is and that it has today's format.
pub(super) fn check_format(database: &Connection, path: &Path) -> Result<(), StoreError> {
    let number = |name: &str| {
        database.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|error| unusable(&error))
    };
    if number("application_id")? != APPLICATION_ID {
        return Err(StoreError::Fatal(format!("{} is no store of this program", path.display())));
    }
    let version = number("user_version")?;
    if version != SCHEMA_VERSION {
        return Err(StoreError::Fatal(format!(
            "{} has format {version}; this program reads format {SCHEMA_VERSION}",
            path.display()
        )));
    }
    Ok(())
}

/// The file of the database in the store's directory.
pub(super) const DATABASE: &str = "hub.db";
/// `PorC`.
const APPLICATION_ID: i64 = 0x506f_7243;
const SCHEMA_VERSION: i64 = 2;
/// A message's `seq` is its number. `delivery` has a row for each message that was delivered without an answer.
/// `session` holds the subscriptions of an identity.
const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE identity (dev TEXT NOT NULL, mod TEXT NOT NULL, gen INTEGER NOT NULL, rev INTEGER NOT NULL,
        crc INTEGER NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE session (dev TEXT NOT NULL, mod TEXT NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL,
        PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE c2d (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL,
        gen INTEGER NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE INDEX c2d_queue ON c2d (dev, mod);
    CREATE TABLE delivery (seq INTEGER PRIMARY KEY, count INTEGER NOT NULL, crc INTEGER NOT NULL);
    CREATE TABLE feedback (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL,
        crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE INDEX feedback_of ON feedback (dev, mod);";
