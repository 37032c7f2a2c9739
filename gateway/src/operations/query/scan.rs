//! A walk through the identities a query may be about, in the order of their ids and in small steps.
//!
//! A place in the walk is an id, not a position, so it can be left and taken up again whatever happens meanwhile. No
//! lock is held between two steps.

use std::ops::Bound;
use std::sync::Arc;

use portcullis_registry::entry::Entry;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::store::Registry;

use super::statement::{Narrowing, Source};

/// A walk and how far it has come.
#[derive(Debug)]
pub(super) struct Scan<'r> {
    registry: &'r Registry,
    source: Source,
    narrowing: Narrowing,
    after: Option<IdentityId>,
}

impl<'r> Scan<'r> {
    /// A walk that begins after `after`.
    pub(super) fn new(
        registry: &'r Registry,
        source: Source,
        narrowing: Narrowing,
        after: Option<IdentityId>,
    ) -> Self {
        Self { registry, source, narrowing, after }
    }

    /// The next identities, of about `devices` devices; none when there are no more devices to look at. A step may
    /// come upon nothing: then it is an empty list.
    pub(super) fn step(&mut self, devices: usize) -> Option<Vec<Arc<Entry>>> {
        let (of_devices, last) = self.devices(devices);
        let last = last?;
        let found = match self.source {
            Source::Devices => of_devices,
            Source::Modules => of_devices.iter().flat_map(|device| self.modules(device)).collect(),
        };
        // The device stands for all of its modules: the walk goes on with the next one.
        self.after = Some(IdentityId::device(last));
        Some(found)
    }

    /// How far the walk has come.
    pub(super) fn place(&self) -> Option<&IdentityId> {
        self.after.as_ref()
    }

    /// The next devices, and the last id that was looked at; no id when there is none left.
    fn devices(&self, count: usize) -> (Vec<Arc<Entry>>, Option<DeviceId>) {
        // In the middle of a device's modules that device comes again.
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
                // What is exactly the prefix comes first.
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
        // Where every device of a page went meanwhile, the walk goes on behind them.
        (page.devices, page.next.or(last))
    }

    /// The modules of a device that come after the place the walk has come to.
    fn modules(&self, device: &Arc<Entry>) -> Vec<Arc<Entry>> {
        let mut modules = self.registry.modules(&device.identity().id.device).unwrap_or_default();
        if let Some(after) = self.after.as_ref().filter(|after| after.module.is_some()) {
            modules.retain(|module| module.identity().id > *after);
        }
        modules
    }
}
