//! A walk through the identities that a query may match, in the order of their ids and in small steps.
//!
//! The position is an id, not an index, so the walk can stop and continue whatever changes in between. It holds no lock
//! between two steps.

use std::ops::Bound;
use std::sync::Arc;

use portcullis_registry::entry::Entry;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::store::Registry;

use super::statement::{Narrowing, Source};

/// A walk and its position.
#[derive(Debug)]
pub(super) struct Scan<'r> {
    registry: &'r Registry,
    source: Source,
    narrowing: Narrowing,
    after: Option<IdentityId>,
}

impl<'r> Scan<'r> {
    /// A walk that starts after `after`.
    pub(super) fn new(
        registry: &'r Registry,
        source: Source,
        narrowing: Narrowing,
        after: Option<IdentityId>,
    ) -> Self {
        Self { registry, source, narrowing, after }
    }

    /// The next identities, of about `devices` devices. None when no device is left. The list may be empty when the
    /// devices of a step have nothing to return.
    pub(super) fn step(&mut self, devices: usize) -> Option<Vec<Arc<Entry>>> {
        let (of_devices, last) = self.devices(devices);
        let last = last?;
        let found = match self.source {
            Source::Devices => of_devices,
            Source::Modules => of_devices.iter().flat_map(|device| self.modules(device)).collect(),
        };
        // The id of the device stands for all of its modules, so the walk continues with the next device.
        self.after = Some(IdentityId::device(last));
        Some(found)
    }

    /// The position of the walk.
    pub(super) fn place(&self) -> Option<&IdentityId> {
        self.after.as_ref()
    }

    /// The next devices, and the last id that was looked at; no id if none is left.
    fn devices(&self, count: usize) -> (Vec<Arc<Entry>>, Option<DeviceId>) {
        // If the walk stopped within a device's modules, that device comes again.
        let again =
            self.after.as_ref().filter(|after| after.module.is_some()).map(|after| after.device.clone());
        if let Some(device) = again {
            let entry = self.registry.entry(&IdentityId::device(device.clone()));
            return (entry.into_iter().collect(), Some(device));
        }
        let after = self.after.as_ref().map(|after| &after.device);
        match &self.narrowing {
            Narrowing::Any => self.page(after, count),
            Narrowing::Ids(ids) => {
                let from = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
                let ids: Vec<&DeviceId> = ids.range::<DeviceId, _>(from).take(count).collect();
                let entries =
                    ids.iter().filter_map(|id| self.registry.entry(&IdentityId::device((*id).clone())));
                (entries.collect(), ids.last().map(|id| (*id).clone()))
            }
            Narrowing::Prefix(prefix) => match after.filter(|after| *after >= prefix) {
                // An id that equals the prefix comes first.
                None => {
                    let entry = self.registry.entry(&IdentityId::device(prefix.clone()));
                    (entry.into_iter().collect(), Some(prefix.clone()))
                }
                Some(after) => {
                    let (mut entries, last) = self.page(Some(after), count);
                    let begins = |id: &DeviceId| id.as_str().starts_with(prefix.as_str());
                    entries.retain(|entry| begins(&entry.identity().id.device));
                    (entries, last.filter(begins))
                }
            },
        }
    }

    fn page(&self, after: Option<&DeviceId>, count: usize) -> (Vec<Arc<Entry>>, Option<DeviceId>) {
        let page = self.registry.page(after, count);
        let last = page.devices.last().map(|entry| entry.identity().id.device.clone());
        // If every device of a page was deleted in between, the walk continues after them.
        (page.devices, page.next.or(last))
    }

    /// The modules of a device after the position of the walk.
    fn modules(&self, device: &Arc<Entry>) -> Vec<Arc<Entry>> {
        let mut modules = self.registry.modules(&device.identity().id.device).unwrap_or_default();
        if let Some(after) = self.after.as_ref().filter(|after| after.module.is_some()) {
            modules.retain(|module| module.identity().id > *after);
        }
        modules
    }
}
