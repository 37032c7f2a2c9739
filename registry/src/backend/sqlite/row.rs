//! How an identity names its rows, and what guards them: one CRC32C over key and content.

use crate::backend::StoreError;
use crate::id::{GenerationId, IdentityId, Revision};

pub(super) fn dev(id: &IdentityId) -> &str {
    id.device.as_str()
}

/// The empty text means the device itself; no module id is empty.
pub(super) fn module(id: &IdentityId) -> &str {
    id.module.as_ref().map_or("", |module| module.as_str())
}

pub(super) fn identity_checksum(
    id: &IdentityId,
    generation: GenerationId,
    revision: Revision,
    record: &[u8],
) -> u32 {
    let numbers = [generation.number().to_be_bytes(), revision.number().to_be_bytes()].concat();
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", &numbers, record])
}

pub(super) fn message_checksum(id: &IdentityId, number: u64, generation: GenerationId, record: &[u8]) -> u32 {
    let numbers = [number.to_be_bytes(), generation.number().to_be_bytes()].concat();
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", &numbers, record])
}

pub(super) fn subscriptions_checksum(id: &IdentityId, subscriptions: &[u8]) -> u32 {
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", subscriptions])
}

pub(super) fn delivery_checksum(number: u64, delivery_count: u32) -> u32 {
    checksum(&[&number.to_be_bytes(), &delivery_count.to_be_bytes()])
}

pub(super) fn feedback_checksum(id: &IdentityId, number: u64, record: &[u8]) -> u32 {
    checksum(&[dev(id).as_bytes(), b"/", module(id).as_bytes(), b"/", &number.to_be_bytes(), record])
}

pub(super) fn checksum(parts: &[&[u8]]) -> u32 {
    parts.iter().fold(0, |crc, part| crc32c::crc32c_append(crc, part))
}

pub(super) fn damaged(what: &str) -> StoreError {
    StoreError::Fatal(format!(
        "the store is damaged: the checksum of {what} does not fit; restore it from a backup"
    ))
}

pub(super) fn unusable(error: &rusqlite::Error) -> StoreError {
    StoreError::Fatal(format!("the store cannot be used: {error}"))
}
