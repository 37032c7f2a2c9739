//! The embedded backend: one SQLite file, one thread that writes it, group commit.
//!
//! Layout of the directory: `hub.db` with its WAL, `lock` (held while open), `store.id` (says that there is a store, so
//! that a missing file is never taken for an empty registry). Every row carries a CRC32C; a damaged one stops the start.
//! After an I/O error nothing is acknowledged any more; a failed sync is never tried again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::future::Future;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use crate::backend::{Backend, Change, Expect, Feed, Mutation, StoreError, Submitted, Written};
use crate::id::{DeviceId, GenerationId, IdentityId, ModuleId, Revision};

/// The store in one directory.
#[derive(Debug)]
pub struct SqliteBackend {
    jobs: mpsc::Sender<Job>,
    writer: Mutex<Option<Writer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One write and who waits for it.
#[derive(Debug)]
struct Job {
    mutations: Vec<Mutation>,
    answer: Option<oneshot::Sender<Result<Vec<Written>, StoreError>>>,
}

/// What only the writing thread touches, once started.
#[derive(Debug)]
struct Writer {
    database: Connection,
    jobs: mpsc::Receiver<Job>,
    next_revision: u64,
    /// Keeps a second process out for as long as it is open.
    _lock: File,
}

/// Why one write of a batch was not done; the others may be.
enum Rejection {
    Refused(StoreError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Rejection {
    fn from(error: rusqlite::Error) -> Self {
        Rejection::Database(error)
    }
}

impl SqliteBackend {
    /// Opens the store in `directory`, or makes one there when the directory is new or empty.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let lock = open_directory(directory)?;
        let database = open_database(directory)?;
        let next_revision = database
            .query_row("SELECT coalesce(max(rev), 0) FROM identity", [], |row| row.get::<_, u64>(0))
            .map_err(|error| unusable(&error))?
            .max(stored_revision(&database)?)
            + 1;
        let (sender, jobs) = mpsc::channel(JOBS_MAX);
        let writer = Writer { database, jobs, next_revision, _lock: lock };
        Ok(Self { jobs: sender, writer: Mutex::new(Some(writer)), thread: Mutex::default() })
    }
}

impl Backend for SqliteBackend {
    fn load(&self, visit: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let guard = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let writer = guard.as_ref().ok_or(StoreError::Unavailable)?;
        load_meta(&writer.database, visit)?;
        load_identities(&writer.database, visit)?;
        load_sessions(&writer.database, visit)?;
        load_messages(&writer.database, visit)
    }

    fn start(&self, feed: Feed) -> Result<(), StoreError> {
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .ok_or(StoreError::Unavailable)?;
        let spawned = thread::Builder::new().name("store-writer".into()).spawn(move || writer.run(&feed));
        let handle = spawned
            .map_err(|error| StoreError::Fatal(format!("the store's thread cannot be started: {error}")))?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(handle);
        Ok(())
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(async move {
            let (answer, outcome) = oneshot::channel();
            let job = Job { mutations, answer: Some(answer) };
            self.jobs.send(job).await.map_err(|_| StoreError::Unavailable)?;
            outcome.await.map_err(|_| StoreError::Unavailable)?
        })
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        self.jobs.try_send(Job { mutations, answer: None }).is_ok()
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.jobs.closed())
    }

    fn close(&self) {
        // An empty job tells the writer to finish.
        let _ = self.jobs.blocking_send(Job { mutations: Vec::new(), answer: None });
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    /// Writes batch after batch until told to finish or until the disk fails.
    fn run(mut self, feed: &Feed) {
        let mut batch = Vec::new();
        let mut finishing = false;
        while !finishing && self.jobs.blocking_recv_many(&mut batch, BATCH_JOBS_MAX) > 0 {
            finishing = batch.iter().any(|job| job.mutations.is_empty());
            if let Err(error) = self.write(&mut batch, feed) {
                tracing::error!(%error, "the store failed; nothing is acknowledged any more");
                return;
            }
        }
        self.jobs.close();
        // Only tidiness: what is in the WAL is as safe as what is in the file.
        let _ = self.database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)");
    }

    /// One transaction for the whole batch. An error means the store can no longer be trusted.
    fn write(&mut self, batch: &mut Vec<Job>, feed: &Feed) -> Result<(), StoreError> {
        match self.commit(batch) {
            Ok((outcomes, changes)) => {
                changes.into_iter().for_each(feed);
                for (job, outcome) in batch.drain(..).zip(outcomes) {
                    job.tell(outcome);
                }
                Ok(())
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                tracing::warn!("the disk is full; writes are refused until it is not");
                batch.drain(..).for_each(|job| job.tell(Err(StoreError::DiskFull)));
                Ok(())
            }
            Err(error) => {
                batch.drain(..).for_each(|job| job.tell(Err(StoreError::Unavailable)));
                Err(unusable(&error))
            }
        }
    }

    #[allow(clippy::type_complexity, reason = "a private pair of lists, one place")]
    fn commit(
        &mut self,
        batch: &[Job],
    ) -> Result<(Vec<Result<Vec<Written>, StoreError>>, Vec<Change>), rusqlite::Error> {
        let mut next_revision = self.next_revision;
        let mut changes = Vec::new();
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut transaction = self.database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for job in batch {
            let before = (changes.len(), next_revision);
            let mut savepoint = transaction.savepoint()?;
            let outcome: Result<Vec<_>, _> = job
                .mutations
                .iter()
                .map(|mutation| apply(&savepoint, mutation, &mut next_revision, &mut changes))
                .collect();
            match outcome {
                Ok(written) => {
                    savepoint.commit()?;
                    outcomes.push(Ok(written));
                }
                Err(Rejection::Refused(error)) => {
                    savepoint.rollback()?;
                    savepoint.commit()?;
                    changes.truncate(before.0);
                    next_revision = before.1;
                    outcomes.push(Err(error));
                }
                Err(Rejection::Database(error)) => return Err(error),
            }
        }
        transaction.commit()?;
        self.next_revision = next_revision;
        Ok((outcomes, changes))
    }
}

impl Job {
    fn tell(self, outcome: Result<Vec<Written>, StoreError>) {
        if let Some(answer) = self.answer {
            // Whoever asked may be gone; the write stands.
            let _ = answer.send(outcome);
        }
    }
}

/// Does one mutation inside the transaction, after judging its precondition there.
fn apply(
    database: &Connection,
    mutation: &Mutation,
    next_revision: &mut u64,
    changes: &mut Vec<Change>,
) -> Result<Written, Rejection> {
    match mutation {
        Mutation::PutIdentity { id, generation, expect, modules_max, record } => {
            put_identity(database, id, *generation, *expect, *modules_max, record, next_revision, changes)
        }
        Mutation::DeleteIdentity { id, expect } => {
            delete_identity(database, id, *expect, next_revision, changes)
        }
        Mutation::PutSession { id, generation, session } => {
            check_generation(database, id, *generation)?;
            put_session(database, id, session.as_deref())?;
            changes.push(Change::SessionPut { id: id.clone(), session: session.clone() });
            Ok(Written::Done)
        }
        Mutation::Enqueue { id, generation, queue_max, record } => {
            enqueue(database, id, *generation, *queue_max, record, changes)
        }
        Mutation::Dequeue { id, number } => {
            let removed = database
                .prepare_cached("DELETE FROM c2d WHERE dev = ?1 AND mod = ?2 AND number = ?3")?
                .execute(params![dev(id), module(id), number])?;
            changes.push(Change::MessageGone { id: id.clone(), number: *number });
            Ok(Written::Removed(removed as u64))
        }
        Mutation::Purge { id } => {
            let removed = database
                .prepare_cached("DELETE FROM c2d WHERE dev = ?1 AND mod = ?2")?
                .execute(params![dev(id), module(id)])?;
            changes.push(Change::Purged { id: id.clone() });
            Ok(Written::Removed(removed as u64))
        }
        Mutation::PutMeta { key, value } => {
            let crc = checksum(&[key.as_bytes(), value]);
            database
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?1, ?2, ?3)")?
                .execute(params![key, value, crc])?;
            changes.push(Change::MetaPut { key: key.clone(), value: value.clone() });
            Ok(Written::Done)
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "the fields of one mutation")]
fn put_identity(
    database: &Connection,
    id: &IdentityId,
    generation: GenerationId,
    expect: Expect,
    modules_max: usize,
    record: &[u8],
    next_revision: &mut u64,
    changes: &mut Vec<Change>,
) -> Result<Written, Rejection> {
    let stored = check_expected(database, id, expect)?;
    if stored.is_none() && id.module.is_some() {
        check_room_for_module(database, id, modules_max)?;
    }
    let revision = Revision::new(*next_revision);
    *next_revision += 1;
    let crc = identity_checksum(id, generation, revision, record);
    database
        .prepare_cached(
            "INSERT OR REPLACE INTO identity (dev, mod, gen, rev, crc, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![dev(id), module(id), generation.number(), revision.number(), crc, record])?;
    changes.push(Change::IdentityPut { id: id.clone(), generation, revision, record: record.to_vec() });
    Ok(Written::Revision(revision))
}

fn delete_identity(
    database: &Connection,
    id: &IdentityId,
    expect: Expect,
    next_revision: &mut u64,
    changes: &mut Vec<Change>,
) -> Result<Written, Rejection> {
    check_expected(database, id, expect)?;
    // A device takes its modules along, and they go first.
    let mut gone = if id.module.is_none() { modules_of(database, &id.device)? } else { Vec::new() };
    gone.push(id.clone());
    for id in gone {
        for table in ["identity", "session", "c2d"] {
            database
                .prepare_cached(&format!("DELETE FROM {table} WHERE dev = ?1 AND mod = ?2"))?
                .execute(params![dev(&id), module(&id)])?;
        }
        changes.push(Change::IdentityDeleted { id });
    }
    // A revision is used up, so that one made anew never repeats an etag.
    *next_revision += 1;
    let value = next_revision.to_be_bytes();
    let crc = checksum(&[REVISION.as_bytes(), &value]);
    database
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?1, ?2, ?3)")?
        .execute(params![REVISION, value, crc])?;
    Ok(Written::Done)
}

fn enqueue(
    database: &Connection,
    id: &IdentityId,
    generation: GenerationId,
    queue_max: usize,
    record: &[u8],
    changes: &mut Vec<Change>,
) -> Result<Written, Rejection> {
    check_generation(database, id, generation)?;
    let (waiting, last): (usize, u64) = database
        .prepare_cached("SELECT count(*), coalesce(max(number), 0) FROM c2d WHERE dev = ?1 AND mod = ?2")?
        .query_row(params![dev(id), module(id)], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if waiting >= queue_max {
        return Err(Rejection::Refused(StoreError::QueueFull(queue_max)));
    }
    let number = last + 1;
    let crc = message_checksum(id, number, generation, record);
    database
        .prepare_cached("INSERT INTO c2d (dev, mod, number, gen, crc, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![dev(id), module(id), number, generation.number(), crc, record])?;
    changes.push(Change::MessagePut { id: id.clone(), number, generation, record: record.to_vec() });
    Ok(Written::Number(number))
}

fn put_session(
    database: &Connection,
    id: &IdentityId,
    session: Option<&[u8]>,
) -> Result<(), rusqlite::Error> {
    let Some(session) = session else {
        return database
            .prepare_cached("DELETE FROM session WHERE dev = ?1 AND mod = ?2")?
            .execute(params![dev(id), module(id)])
            .map(|_| ());
    };
    let crc = checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", session]);
    database
        .prepare_cached("INSERT OR REPLACE INTO session (dev, mod, crc, doc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![dev(id), module(id), crc, session])
        .map(|_| ())
}

/// The stored revision and generation, once they are as expected.
fn check_expected(
    database: &Connection,
    id: &IdentityId,
    expect: Expect,
) -> Result<Option<(Revision, GenerationId)>, Rejection> {
    let stored = stored(database, id)?;
    match (expect, stored) {
        (Expect::Absent, None) | (Expect::Exists, Some(_)) => Ok(stored),
        (Expect::Is(revision), Some((current, _))) if revision == current => Ok(stored),
        (Expect::Exists | Expect::Is(_), None) => Err(Rejection::Refused(StoreError::NotFound)),
        (Expect::Absent | Expect::Is(_), Some(_)) => Err(Rejection::Refused(StoreError::Conflict)),
    }
}

fn check_generation(
    database: &Connection,
    id: &IdentityId,
    generation: GenerationId,
) -> Result<(), Rejection> {
    match stored(database, id)? {
        Some((_, current)) if current == generation => Ok(()),
        Some(_) => Err(Rejection::Refused(StoreError::Conflict)),
        None => Err(Rejection::Refused(StoreError::NotFound)),
    }
}

fn check_room_for_module(
    database: &Connection,
    id: &IdentityId,
    modules_max: usize,
) -> Result<(), Rejection> {
    let device = IdentityId::device(id.device.clone());
    if stored(database, &device)?.is_none() {
        return Err(Rejection::Refused(StoreError::NotFound));
    }
    if modules_of(database, &id.device)?.len() >= modules_max {
        return Err(Rejection::Refused(StoreError::TooManyModules(modules_max)));
    }
    Ok(())
}

fn stored(
    database: &Connection,
    id: &IdentityId,
) -> Result<Option<(Revision, GenerationId)>, rusqlite::Error> {
    database
        .prepare_cached("SELECT rev, gen FROM identity WHERE dev = ?1 AND mod = ?2")?
        .query_row(params![dev(id), module(id)], |row| {
            Ok((Revision::new(row.get(0)?), GenerationId::new(row.get(1)?)))
        })
        .optional()
}

fn modules_of(database: &Connection, device: &DeviceId) -> Result<Vec<IdentityId>, rusqlite::Error> {
    let mut statement = database.prepare_cached("SELECT mod FROM identity WHERE dev = ?1 AND mod <> ''")?;
    let texts = statement.query_map(params![device.as_str()], |row| row.get::<_, String>(0))?;
    let mut modules = Vec::new();
    for text in texts {
        if let Ok(module) = ModuleId::parse(&text?) {
            modules.push(IdentityId::module(device.clone(), module));
        }
    }
    Ok(modules)
}

type Visit<'a> = &'a mut dyn FnMut(Change) -> Result<(), StoreError>;

fn load_meta(database: &Connection, visit: Visit<'_>) -> Result<(), StoreError> {
    let mut statement =
        database.prepare("SELECT key, value, crc FROM meta").map_err(|error| unusable(&error))?;
    let mut rows = statement.query([]).map_err(|error| unusable(&error))?;
    while let Some(row) = rows.next().map_err(|error| unusable(&error))? {
        let (key, value, crc) = read_meta(row).map_err(|error| unusable(&error))?;
        if crc != checksum(&[key.as_bytes(), &value]) {
            return Err(damaged(&format!("record {key:?}")));
        }
        visit(Change::MetaPut { key, value })?;
    }
    Ok(())
}

fn read_meta(row: &rusqlite::Row<'_>) -> Result<(String, Vec<u8>, u32), rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// In key order, so that every device comes before its modules: the empty text sorts first.
fn load_identities(database: &Connection, visit: Visit<'_>) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, gen, rev FROM identity ORDER BY dev, mod", &mut |row| {
        let (generation, revision) = (GenerationId::new(row.numbers.0), Revision::new(row.numbers.1));
        if row.crc != identity_checksum(&row.id, generation, revision, &row.record) {
            return Err(damaged(&format!("identity {}", row.id)));
        }
        visit(Change::IdentityPut { id: row.id, generation, revision, record: row.record })
    })
}

fn load_sessions(database: &Connection, visit: Visit<'_>) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, 0, 0 FROM session", &mut |row| {
        let parts: [&[u8]; 5] =
            [dev(&row.id).as_bytes(), b"/", module(&row.id).as_bytes(), b"/", &row.record];
        if row.crc != checksum(&parts) {
            return Err(damaged(&format!("session of {}", row.id)));
        }
        visit(Change::SessionPut { id: row.id, session: Some(row.record) })
    })
}

fn load_messages(database: &Connection, visit: Visit<'_>) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, number, gen FROM c2d ORDER BY seq", &mut |row| {
        let (number, generation) = (row.numbers.0, GenerationId::new(row.numbers.1));
        if row.crc != message_checksum(&row.id, number, generation, &row.record) {
            return Err(damaged(&format!("message {number} to {}", row.id)));
        }
        visit(Change::MessagePut { id: row.id, number, generation, record: row.record })
    })
}

/// One row of a table that belongs to an identity.
struct Row {
    id: IdentityId,
    crc: u32,
    record: Vec<u8>,
    numbers: (u64, u64),
}

fn load_rows(
    database: &Connection,
    sql: &str,
    visit: &mut dyn FnMut(Row) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = database.prepare(sql).map_err(|error| unusable(&error))?;
    let mut rows = statement.query([]).map_err(|error| unusable(&error))?;
    while let Some(row) = rows.next().map_err(|error| unusable(&error))? {
        visit(read_row(row)?)?;
    }
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<Row, StoreError> {
    let read = || -> Result<_, rusqlite::Error> {
        Ok((
            row.get::<_, String>(0)?,
            row.get::<_, String>(1)?,
            row.get(2)?,
            row.get(3)?,
            (row.get(4)?, row.get(5)?),
        ))
    };
    let (device, module, crc, record, numbers) = read().map_err(|error| unusable(&error))?;
    let device_id = DeviceId::parse(&device).map_err(|_| damaged(&format!("id {device:?}")))?;
    let module_id =
        Some(module.as_str()).filter(|module| !module.is_empty()).map(ModuleId::parse).transpose();
    let module_id = module_id.map_err(|_| damaged(&format!("module id {module:?}")))?;
    Ok(Row { id: IdentityId { device: device_id, module: module_id }, crc, record, numbers })
}

/// Makes the directory private, and takes the lock that keeps other processes out.
fn open_directory(directory: &Path) -> Result<File, StoreError> {
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

fn open_database(directory: &Path) -> Result<Connection, StoreError> {
    let path = directory.join("hub.db");
    let marker = directory.join("store.id");
    let size = fs::metadata(&path).map(|metadata| metadata.len()).unwrap_or(0);
    if marker.exists() && size == 0 {
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
    if !marker.exists() {
        let file = private_file(&marker).and_then(|file| file.sync_all());
        let directory = file.and_then(|()| File::open(directory)?.sync_all());
        directory
            .map_err(|error| StoreError::Fatal(format!("cannot write {}: {error}", marker.display())))?;
    }
    Ok(database)
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

fn stored_revision(database: &Connection) -> Result<u64, StoreError> {
    let stored = database
        .query_row("SELECT value FROM meta WHERE key = ?1", [REVISION], |row| row.get::<_, Vec<u8>>(0))
        .optional();
    let Some(bytes) = stored.map_err(|error| unusable(&error))? else { return Ok(0) };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged("the revision counter"))
}

fn dev(id: &IdentityId) -> &str {
    id.device.as_str()
}

/// The empty text stands for the device itself; no module id is empty.
fn module(id: &IdentityId) -> &str {
    id.module.as_ref().map_or("", |module| module.as_str())
}

fn identity_checksum(id: &IdentityId, generation: GenerationId, revision: Revision, record: &[u8]) -> u32 {
    let numbers = [generation.number().to_be_bytes(), revision.number().to_be_bytes()].concat();
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", &numbers, record])
}

fn message_checksum(id: &IdentityId, number: u64, generation: GenerationId, record: &[u8]) -> u32 {
    let numbers = [number.to_be_bytes(), generation.number().to_be_bytes()].concat();
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", &numbers, record])
}

fn checksum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Fatal(format!(
        "the store is damaged: the checksum of {what} does not fit; restore it from a backup"
    ))
}

fn unusable(error: &rusqlite::Error) -> StoreError {
    StoreError::Fatal(format!("the store cannot be used: {error}"))
}

/// `PorC`.
const APPLICATION_ID: i64 = 0x506f_7243;
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL, crc INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE identity (dev TEXT NOT NULL, mod TEXT NOT NULL, gen INTEGER NOT NULL, rev INTEGER NOT NULL,
        crc INTEGER NOT NULL, doc BLOB NOT NULL, PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE session (dev TEXT NOT NULL, mod TEXT NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL,
        PRIMARY KEY (dev, mod)) WITHOUT ROWID;
    CREATE TABLE c2d (seq INTEGER PRIMARY KEY AUTOINCREMENT, dev TEXT NOT NULL, mod TEXT NOT NULL, number INTEGER NOT NULL,
        gen INTEGER NOT NULL, crc INTEGER NOT NULL, doc BLOB NOT NULL);
    CREATE UNIQUE INDEX c2d_queue ON c2d (dev, mod, number);";
/// Under which key the highest used revision is kept after a delete.
const REVISION: &str = "revision";
/// Writes that may wait for the writer.
const JOBS_MAX: usize = 4096;
/// Writes in one transaction at most.
const BATCH_JOBS_MAX: usize = 1024;

#[cfg(test)]
mod tests;
