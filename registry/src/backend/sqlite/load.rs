//! Reads everything back at start, and checks each row against its checksum.

use rusqlite::{Connection, OptionalExtension};

use super::apply::REVISION;
use super::row::{
    checksum, damaged, delivery_checksum, feedback_checksum, identity_checksum, message_checksum,
    subscriptions_checksum, unusable,
};
use super::tally::{Counted, CountedTable};
use crate::backend::{Change, StoreError};
use crate::id::{DeviceId, GenerationId, IdentityId, ModuleId, Revision};

type ChangeVisitor<'a> = &'a mut dyn FnMut(Change) -> Result<(), StoreError>;

/// Everything, each row checked by itself and all of them together.
pub(super) fn load(database: &Connection, visit: ChangeVisitor<'_>) -> Result<(), StoreError> {
    let mut counted = Counted::default();
    load_meta(database, &mut counted, visit)?;
    load_identities(database, &mut counted, visit)?;
    load_subscriptions(database, &mut counted, visit)?;
    load_messages(database, &mut counted, visit)?;
    load_deliveries(database, &mut counted, visit)?;
    load_feedback(database, &mut counted, visit)?;
    counted.check(database)
}

fn load_meta(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    let mut statement =
        database.prepare("SELECT key, value, crc FROM meta").map_err(|error| unusable(&error))?;
    let mut rows = statement.query([]).map_err(|error| unusable(&error))?;
    while let Some(row) = rows.next().map_err(|error| unusable(&error))? {
        let (key, value, crc) = read_meta(row).map_err(|error| unusable(&error))?;
        if crc != checksum(&[key.as_bytes(), &value]) {
            return Err(damaged(&format!("record {key:?}")));
        }
        counted.add(CountedTable::Meta, crc);
        visit(Change::MetaPut { key, value })?;
    }
    Ok(())
}

fn read_meta(row: &rusqlite::Row<'_>) -> Result<(String, Vec<u8>, u32), rusqlite::Error> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

/// In key order, so that every device comes before its modules: the empty text sorts first.
fn load_identities(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, gen, rev FROM identity ORDER BY dev, mod", &mut |row| {
        let (generation, revision) = (GenerationId::new(row.numbers.0), Revision::new(row.numbers.1));
        if row.crc != identity_checksum(&row.id, generation, revision, &row.record) {
            return Err(damaged(&format!("identity {}", row.id)));
        }
        counted.add(CountedTable::Identity, row.crc);
        visit(Change::IdentityPut { id: row.id, generation, revision, record: row.record })
    })
}

fn load_subscriptions(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, 0, 0 FROM session", &mut |row| {
        if row.crc != subscriptions_checksum(&row.id, &row.record) {
            return Err(damaged(&format!("the subscriptions of {}", row.id)));
        }
        counted.add(CountedTable::Subscriptions, row.crc);
        visit(Change::SubscriptionsPut { id: row.id, subscriptions: Some(row.record) })
    })
}

fn load_messages(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, seq, gen FROM c2d ORDER BY seq", &mut |row| {
        let (number, generation) = (row.numbers.0, GenerationId::new(row.numbers.1));
        if row.crc != message_checksum(&row.id, number, generation, &row.record) {
            return Err(damaged(&format!("message {number} to {}", row.id)));
        }
        counted.add(CountedTable::C2d, row.crc);
        visit(Change::MessagePut { id: row.id, number, generation, record: row.record })
    })
}

/// The messages of a store of version 1, oldest first.
pub(super) fn load_messages_v1(
    database: &Connection,
    visit: &mut dyn FnMut(IdentityId, GenerationId, Vec<u8>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, number, gen FROM c2d ORDER BY seq", &mut |row| {
        let (number, generation) = (row.numbers.0, GenerationId::new(row.numbers.1));
        if row.crc != message_checksum(&row.id, number, generation, &row.record) {
            return Err(damaged(&format!("message {number} to {}", row.id)));
        }
        visit(row.id, generation, row.record)
    })
}

/// After the messages they belong to.
fn load_deliveries(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    let sql = "SELECT c2d.dev, c2d.mod, delivery.crc, x'', delivery.seq, delivery.count
        FROM delivery JOIN c2d ON c2d.seq = delivery.seq";
    load_rows(database, sql, &mut |row| {
        let number = row.numbers.0;
        let delivery_count = u32::try_from(row.numbers.1)
            .ok()
            .filter(|count| row.crc == delivery_checksum(number, *count))
            .ok_or_else(|| damaged(&format!("the deliveries of message {number} to {}", row.id)))?;
        counted.add(CountedTable::Delivery, row.crc);
        visit(Change::DeliveryNoted { id: row.id, number, delivery_count })
    })
}

fn load_feedback(
    database: &Connection,
    counted: &mut Counted,
    visit: ChangeVisitor<'_>,
) -> Result<(), StoreError> {
    load_rows(database, "SELECT dev, mod, crc, doc, seq, 0 FROM feedback ORDER BY seq", &mut |row| {
        let number = row.numbers.0;
        if row.crc != feedback_checksum(&row.id, number, &row.record) {
            return Err(damaged(&format!("feedback {number} on {}", row.id)));
        }
        counted.add(CountedTable::Feedback, row.crc);
        visit(Change::FeedbackPut { id: row.id, number, record: row.record })
    })
}

/// One row of a table that belongs to an identity.
struct StoredRow {
    id: IdentityId,
    crc: u32,
    record: Vec<u8>,
    numbers: (u64, u64),
}

fn load_rows(
    database: &Connection,
    sql: &str,
    visit: &mut dyn FnMut(StoredRow) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut statement = database.prepare(sql).map_err(|error| unusable(&error))?;
    let mut rows = statement.query([]).map_err(|error| unusable(&error))?;
    while let Some(row) = rows.next().map_err(|error| unusable(&error))? {
        visit(read_row(row)?)?;
    }
    Ok(())
}

fn read_row(row: &rusqlite::Row<'_>) -> Result<StoredRow, StoreError> {
    // A million of them at a start: only what stays is copied.
    let text = |column| -> Result<&str, rusqlite::Error> { Ok(row.get_ref(column)?.as_str()?) };
    let read = || -> Result<(&str, &str, _, _, _), rusqlite::Error> {
        Ok((text(0)?, text(1)?, row.get(2)?, row.get(3)?, (row.get(4)?, row.get(5)?)))
    };
    let (device, module, crc, record, numbers) = read().map_err(|error| unusable(&error))?;
    let device_id = DeviceId::parse(device).map_err(|_| damaged(&format!("id {device:?}")))?;
    let module_id = Some(module).filter(|module| !module.is_empty()).map(ModuleId::parse).transpose();
    let module_id = module_id.map_err(|_| damaged(&format!("module id {module:?}")))?;
    Ok(StoredRow { id: IdentityId { device: device_id, module: module_id }, crc, record, numbers })
}

pub(super) fn stored_revision(database: &Connection) -> Result<u64, StoreError> {
    let stored = database
        .query_row("SELECT value FROM meta WHERE key = ?1", [REVISION], |row| row.get::<_, Vec<u8>>(0))
        .optional();
    let Some(bytes) = stored.map_err(|error| unusable(&error))? else { return Ok(0) };
    bytes.try_into().map(u64::from_be_bytes).map_err(|_| damaged("the revision counter"))
}
