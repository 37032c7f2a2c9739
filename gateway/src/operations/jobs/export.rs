//! The registry as a file: one line an identity, each device before its modules.
//!
//! Devices come page by page in the order of their ids, so each is written once, in a state it had while the job ran;
//! what is made or deleted meanwhile may be there or not. Writing lines costs time and has a thread of its own, which
//! waits while a piece of the file is not yet taken.

use std::sync::Arc;

use bytes::Bytes;
use portcullis_registry::id::DeviceId;
use portcullis_registry::store::Registry;
use tokio::sync::mpsc;

use crate::iothub::identity_json::{Form, write_line};

/// A piece of the file, of whole lines.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) bytes: Bytes,
    /// Lines in it.
    pub(super) lines: u64,
    /// Devices up to its end.
    pub(super) devices: u64,
    /// None comes after it. Without such a piece the end never came.
    pub(super) is_last: bool,
}

/// Writes the whole registry, or until nobody takes the pieces any more.
pub(super) fn pieces(registry: Arc<Registry>, with_keys: bool, with_modules: bool) -> mpsc::Receiver<Piece> {
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let form = Form::Export { with_keys };
        let mut after: Option<DeviceId> = None;
        let mut text = Vec::with_capacity(PIECE_BYTES * 2);
        let (mut lines, mut devices) = (0, 0);
        loop {
            let page = registry.page(after.as_ref(), PAGE_DEVICES);
            for entry in &page.devices {
                let device = entry.identity();
                write_line(&device, form, &mut text);
                lines += 1;
                devices += 1;
                if with_modules {
                    for module in registry.modules(&device.id.device).unwrap_or_default() {
                        write_line(&module.identity(), form, &mut text);
                        lines += 1;
                    }
                }
                if text.len() >= PIECE_BYTES {
                    let bytes = Bytes::copy_from_slice(&text);
                    text.clear();
                    let lines = std::mem::take(&mut lines);
                    if sender.blocking_send(Piece { bytes, lines, devices, is_last: false }).is_err() {
                        return;
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                // A job that ended meanwhile takes no more pieces.
                let _ = sender.blocking_send(Piece { bytes: text.into(), lines, devices, is_last: true });
                return;
            }
        }
    });
    receiver
}

const PAGE_DEVICES: usize = 1000;
const PIECE_BYTES: usize = 256 * 1024;
