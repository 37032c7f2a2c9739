//! One mutation inside a transaction: its precondition is judged there, then it is written.

use rusqlite::{Connection, OptionalExtension, params};

use super::row::{
    checksum, delivery_checksum, dev, feedback_checksum, identity_checksum, message_checksum, module,
    subscriptions_checksum,
};
use crate::backend::{Change, Expect, Mutation, StoreError, Written};
use crate::id::{DeviceId, GenerationId, IdentityId, ModuleId, Revision};

/// Why one write of a batch was not done; the others may be.
pub(super) enum Rejection {
    Refused(StoreError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Rejection {
    fn from(error: rusqlite::Error) -> Self {
        Rejection::Database(error)
    }
}

/// Does one mutation inside the transaction, after judging its precondition there. One that is refused has written
/// nothing.
pub(super) fn apply(
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
        Mutation::PutSubscriptions { id, generation, subscriptions } => {
            check_generation(database, id, *generation)?;
            put_subscriptions(database, id, subscriptions.as_deref())?;
            changes.push(Change::SubscriptionsPut { id: id.clone(), subscriptions: subscriptions.clone() });
            Ok(Written::Done)
        }
        Mutation::Enqueue { id, generation, queue_max, record } => {
            enqueue(database, id, *generation, *queue_max, record, changes)
        }
        Mutation::Settle { id, number, outcome, feedback } => {
            let found = take_message(database, id, *number)?;
            if found {
                changes.push(Change::MessageGone { id: id.clone(), number: *number, outcome: *outcome });
            }
            if let (true, Some(record)) = (found, feedback) {
                put_feedback(database, id, record, changes)?;
            }
            Ok(Written::Found(found))
        }
        Mutation::NoteDelivery { id, number, delivery_count } => {
            note_delivery(database, id, *number, *delivery_count, changes)
        }
        Mutation::DropFeedback { numbers } => {
            let mut statement = database.prepare_cached("DELETE FROM feedback WHERE seq = ?1")?;
            for number in numbers {
                statement.execute(params![number])?;
            }
            changes.push(Change::FeedbackGone { numbers: numbers.clone() });
            Ok(Written::Done)
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
        database
            .prepare_cached(
                "DELETE FROM delivery WHERE seq IN (SELECT seq FROM c2d WHERE dev = ?1 AND mod = ?2)",
            )?
            .execute(params![dev(&id), module(&id)])?;
        for table in ["identity", "session", "c2d", "feedback"] {
            database
                .prepare_cached(&format!("DELETE FROM {table} WHERE dev = ?1 AND mod = ?2"))?
                .execute(params![dev(&id), module(&id)])?;
        }
        changes.push(Change::IdentityDeleted { id });
    }
    // A revision is used up, so that one made anew never repeats an etag.
    *next_revision += 1;
    put_revision(database, *next_revision)?;
    Ok(Written::Done)
}

/// Keeps the highest revision used so far, of any identity.
pub(super) fn put_revision(database: &Connection, revision: u64) -> Result<(), rusqlite::Error> {
    let value = revision.to_be_bytes();
    let crc = checksum(&[REVISION.as_bytes(), &value]);
    database
        .prepare_cached("INSERT OR REPLACE INTO meta (key, value, crc) VALUES (?1, ?2, ?3)")?
        .execute(params![REVISION, value, crc])
        .map(|_| ())
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
    let waiting: usize = database
        .prepare_cached("SELECT count(*) FROM c2d WHERE dev = ?1 AND mod = ?2")?
        .query_row(params![dev(id), module(id)], |row| row.get(0))?;
    if waiting >= queue_max {
        return Err(Rejection::Refused(StoreError::QueueFull(queue_max)));
    }
    let number = next_number(database, "c2d")?;
    let crc = message_checksum(id, number, generation, record);
    database
        .prepare_cached("INSERT INTO c2d (seq, dev, mod, gen, crc, doc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?
        .execute(params![number, dev(id), module(id), generation.number(), crc, record])?;
    changes.push(Change::MessagePut { id: id.clone(), number, generation, record: record.to_vec() });
    Ok(Written::Number(number))
}

/// Removes a message with what is noted of its deliveries; whether it was there.
fn take_message(database: &Connection, id: &IdentityId, number: u64) -> Result<bool, rusqlite::Error> {
    let removed = database
        .prepare_cached("DELETE FROM c2d WHERE seq = ?1 AND dev = ?2 AND mod = ?3")?
        .execute(params![number, dev(id), module(id)])?;
    database.prepare_cached("DELETE FROM delivery WHERE seq = ?1")?.execute(params![number])?;
    Ok(removed > 0)
}

fn note_delivery(
    database: &Connection,
    id: &IdentityId,
    number: u64,
    delivery_count: u32,
    changes: &mut Vec<Change>,
) -> Result<Written, Rejection> {
    let found = database
        .prepare_cached("SELECT 1 FROM c2d WHERE seq = ?1 AND dev = ?2 AND mod = ?3")?
        .exists(params![number, dev(id), module(id)])?;
    if found {
        database
            .prepare_cached("INSERT OR REPLACE INTO delivery (seq, count, crc) VALUES (?1, ?2, ?3)")?
            .execute(params![number, delivery_count, delivery_checksum(number, delivery_count)])?;
        changes.push(Change::DeliveryNoted { id: id.clone(), number, delivery_count });
    }
    Ok(Written::Found(found))
}

fn put_feedback(
    database: &Connection,
    id: &IdentityId,
    record: &[u8],
    changes: &mut Vec<Change>,
) -> Result<(), rusqlite::Error> {
    let number = next_number(database, "feedback")?;
    database
        .prepare_cached("INSERT INTO feedback (seq, dev, mod, crc, doc) VALUES (?1, ?2, ?3, ?4, ?5)")?
        .execute(params![number, dev(id), module(id), feedback_checksum(id, number, record), record])?;
    changes.push(Change::FeedbackPut { id: id.clone(), number, record: record.to_vec() });
    Ok(())
}

/// Greater than any number that was ever given in this table: SQLite keeps the last one of a table that counts by itself.
fn next_number(database: &Connection, table: &str) -> Result<u64, rusqlite::Error> {
    let last = database
        .prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?
        .query_row(params![table], |row| row.get::<_, u64>(0))
        .optional()?;
    Ok(last.unwrap_or(0) + 1)
}

fn put_subscriptions(
    database: &Connection,
    id: &IdentityId,
    subscriptions: Option<&[u8]>,
) -> Result<(), rusqlite::Error> {
    let Some(subscriptions) = subscriptions else {
        return database
            .prepare_cached("DELETE FROM session WHERE dev = ?1 AND mod = ?2")?
            .execute(params![dev(id), module(id)])
            .map(|_| ());
    };
    let crc = subscriptions_checksum(id, subscriptions);
    database
        .prepare_cached("INSERT OR REPLACE INTO session (dev, mod, crc, doc) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![dev(id), module(id), crc, subscriptions])
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
        (Expect::Absent, None) => Ok(stored),
        (Expect::Is(revision), Some((current, _))) if revision == current => Ok(stored),
        (Expect::Is(_), None) => Err(Rejection::Refused(StoreError::NotFound)),
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

/// Under which key the highest used revision is kept after a delete.
pub(super) const REVISION: &str = "revision";
