//! Fills the map from the backend, at start: one thread reads the rows and checks them, another decodes and shows them.

use std::collections::BTreeSet;
use std::mem;
use std::panic::resume_unwind;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, PoisonError};
use std::thread;

use super::RegistryState;
use crate::backend::{Backend, Change, StoreError};
use crate::entry::Entry;
use crate::id::DeviceId;
use crate::record;

impl RegistryState {
    /// Shows everything the backend keeps. There is no observer yet.
    pub(super) fn load(&self, backend: &dyn Backend) -> Result<(), StoreError> {
        let devices = thread::scope(|scope| {
            let (sender, batches) = sync_channel(BATCHES_MAX);
            let showing = scope.spawn(|| self.show(batches));
            let mut batch = Vec::with_capacity(BATCH_CHANGES);
            let read = backend.load(&mut |change| {
                batch.push(change);
                if batch.len() < BATCH_CHANGES {
                    return Ok(());
                }
                let full = mem::replace(&mut batch, Vec::with_capacity(BATCH_CHANGES));
                // It stops taking them when it fails, and then its own error counts.
                sender.send(full).map_err(|_| StoreError::Unavailable)
            });
            let _ = sender.send(batch);
            drop(sender);
            let devices = showing.join().unwrap_or_else(|panic| resume_unwind(panic))?;
            read.map(|()| devices)
        })?;
        // They come in order, so the set is built at once and densely.
        *self.order.write().unwrap_or_else(PoisonError::into_inner) = BTreeSet::from_iter(devices);
        Ok(())
    }

    /// Shows change after change; the devices among them.
    fn show(&self, batches: Receiver<Vec<Change>>) -> Result<Vec<DeviceId>, StoreError> {
        let mut devices = Vec::new();
        for change in batches.into_iter().flatten() {
            match change {
                Change::IdentityPut { id, generation, revision, record } => {
                    let identity = record::decode_identity(&id, generation, revision, &record)?;
                    if id.module.is_none() {
                        devices.push(id.device.clone());
                    }
                    self.note_generation(&identity);
                    self.count_disabled(None, Some(&identity));
                    self.insert(id, Arc::new(Entry::new(identity)));
                }
                other => self.apply(other)?,
            }
        }
        Ok(devices)
    }
}

/// Changes that go from one thread to the other at once.
const BATCH_CHANGES: usize = 256;
/// Batches that may wait between them.
const BATCHES_MAX: usize = 4;
