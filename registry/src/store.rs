//! The registry: a map in memory over a durable backend.
//!
//! Reads touch the map only. A write goes to the backend, which decides its precondition; the change feed changes the
//! map, and the write is answered after that. Lock order: a guard of the map is never held while any other lock
//! is taken or anything is awaited; the `Arc<Entry>` is copied out first.

use std::collections::{BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::Duration;

use dashmap::DashMap;
use jiff::Timestamp;

use crate::backend::{Backend, Change, Expect, Mutation, StoreError, Written};
use crate::deadlines::Deadlines;
use crate::entry::Entry;
use crate::error::RegistryError;
use crate::feedback::{FeedbackLimits, FeedbackQueue};
use crate::id::{DeviceId, GenerationId, IdentityId, Precondition, Revision};
use crate::identity::{Identity, IdentitySpec, Status};
use crate::message::{C2dMessage, Outcome};
use crate::record;

mod c2d;
mod load;

pub use c2d::QueueCounts;

/// The bounds of a registry.
#[derive(Clone, Copy, Debug)]
pub struct RegistryLimits {
    /// Modules of one device.
    pub modules_per_device_max: usize,
    /// Messages in one queue, of an identity without a bound of its own.
    pub queue_messages_max: usize,
    /// Body and properties of one message, in bytes.
    pub c2d_bytes_max: usize,
    /// How long a message lives when its sender gives no expiry.
    pub c2d_ttl_default: Duration,
    /// How long a message may live at most.
    pub c2d_ttl_max: Duration,
    /// Memory of all waiting messages together, in bytes.
    pub queued_bytes_max: usize,
    /// How often a message may be abandoned until it is given up.
    pub delivery_count_max: u32,
    /// The bounds of feedback.
    pub feedback: FeedbackLimits,
}

/// IoT Hub's own. Source: "Send cloud-to-device messages"; the bounds over all queues are ours.
impl Default for RegistryLimits {
    fn default() -> Self {
        Self {
            modules_per_device_max: 20,
            queue_messages_max: 50,
            c2d_bytes_max: 65_536,
            c2d_ttl_default: Duration::from_secs(3600),
            c2d_ttl_max: Duration::from_secs(2 * 86_400),
            queued_bytes_max: 1 << 30,
            delivery_count_max: 10,
            feedback: FeedbackLimits {
                records_max: 100_000,
                ttl: Duration::from_secs(3600),
                batch_time_max: Duration::from_secs(15),
                deliveries_max: 10,
            },
        }
    }
}

/// The identities of one hub.
#[derive(Debug)]
pub struct Registry {
    limits: RegistryLimits,
    backend: Box<dyn Backend>,
    state: Arc<RegistryState>,
    next_consumer: AtomicU64,
}

/// What happened to an identity. The observer gets it after the map shows it and before the write is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Which identity.
    pub id: IdentityId,
    /// What happened to it.
    pub kind: ChangeKind,
}

/// What can happen to an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was registered.
    Created,
    /// It was replaced.
    Updated,
    /// It was deleted.
    Deleted,
    /// A message of its queue expired.
    MessageExpired(Arc<C2dMessage>),
}

/// What a replace stored, and what it replaced.
#[derive(Clone, Debug)]
pub struct Replaced {
    /// The identity that was replaced.
    pub before: Arc<Identity>,
    /// What was stored, with the revision it was given.
    pub identity: Arc<Identity>,
}

/// How many of what there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Devices, whatever their status.
    pub devices: usize,
    /// Of the devices, those whose status is `disabled`.
    pub disabled_devices: usize,
    /// Modules of all devices.
    pub modules: usize,
}

/// Some devices in the order of their ids, or backwards.
#[derive(Clone, Debug, Default)]
pub struct DevicePage {
    /// The devices of this page.
    pub devices: Vec<Arc<Entry>>,
    /// Behind which id the next page begins; none when this is the last.
    pub next: Option<DeviceId>,
}

/// Where in the order of ids a page begins, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageStart<'a> {
    /// At the first id.
    First,
    /// Behind this id, which need not be there.
    After(&'a str),
    /// At the last id, and backwards.
    Last,
    /// Before this id, and backwards.
    Before(&'a str),
}

type Observer = Box<dyn Fn(&Changed) + Send + Sync>;

/// What the backend's change feed changes.
#[derive(Default)]
struct RegistryState {
    entries: DashMap<IdentityId, Arc<Entry>>,
    /// The devices in the order of their ids, for pages: some 30 bytes a device, for the ids are shared with the map.
    order: RwLock<BTreeSet<DeviceId>>,
    meta: Mutex<HashMap<String, Vec<u8>>>,
    devices: AtomicUsize,
    disabled_devices: AtomicUsize,
    modules: AtomicUsize,
    queued_bytes: AtomicUsize,
    deadlines: Mutex<Deadlines>,
    feedback: FeedbackQueue,
    /// How many messages ended so since the start, by outcome.
    outcomes: [AtomicU64; Outcome::ALL.len()],
    last_generation: AtomicU64,
    observer: OnceLock<Observer>,
}

impl std::fmt::Debug for RegistryState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryState")
            .field("devices", &self.devices)
            .field("modules", &self.modules)
            .finish_non_exhaustive()
    }
}

impl Registry {
    /// Loads everything the backend keeps, and starts to take writes. Blocks while it reads.
    pub fn open(backend: Box<dyn Backend>, limits: RegistryLimits) -> Result<Arc<Self>, StoreError> {
        let state = Arc::new(RegistryState::default());
        state.load(backend.as_ref())?;
        if let Some(stored) = state.meta(LAST_GENERATION) {
            let bytes = stored
                .try_into()
                .map_err(|_| StoreError::Fatal("the generation counter cannot be read".into()))?;
            state.last_generation.fetch_max(u64::from_be_bytes(bytes), Ordering::AcqRel);
        }
        let ended_in_order = state.meta(ENDED_IN_ORDER).is_some_and(|flag| flag == [1]);
        if !ended_in_order {
            state.suspect_repeats();
        }
        let fed: Weak<RegistryState> = Arc::downgrade(&state);
        backend.start(Box::new(move |change| {
            let Some(state) = fed.upgrade() else { return };
            if let Err(error) = state.apply(change) {
                tracing::error!(
                    %error,
                    "a stored change could not be applied in memory; restart the hub to read the store again"
                );
            }
        }))?;
        if ended_in_order {
            // Before any other write, so that it is gone if this run does anything and ends otherwise.
            backend.post(vec![ended(false)]);
        }
        Ok(Arc::new(Self { limits, backend, state, next_consumer: AtomicU64::new(0) }))
    }

    /// Sets the observer of changes; once, before serving. It must not block and must not call back.
    pub fn observe(&self, observer: Observer) {
        if self.state.observer.set(observer).is_err() {
            tracing::error!("the registry has an observer already; the second one gets no changes");
        }
    }

    /// The entry of an identity.
    pub fn entry(&self, id: &IdentityId) -> Option<Arc<Entry>> {
        self.state.entry(id)
    }

    /// At most `top` devices, in no promised order.
    pub fn devices(&self, top: usize) -> Vec<Arc<Entry>> {
        let devices = self.state.entries.iter().filter(|entry| entry.key().module.is_none());
        devices.take(top).map(|entry| Arc::clone(&entry)).collect()
    }

    /// At most `count` devices with ids after `after`, in byte order of the ids. What is created or deleted meanwhile
    /// may be missed; what stays is on exactly one page.
    pub fn page(&self, after: Option<&DeviceId>, count: usize) -> DevicePage {
        self.page_of("", after.map_or(PageStart::First, |id| PageStart::After(id.as_str())), count)
    }

    /// At most `count` devices whose ids begin with `prefix`, from `start` on.
    pub fn page_of(&self, prefix: &str, start: PageStart<'_>, count: usize) -> DevicePage {
        // Behind every id that begins so: no id holds this character.
        let end = format!("{prefix}\u{7f}");
        let (from, to, is_backwards) = match start {
            PageStart::First => (Bound::Included(prefix), end.as_str(), false),
            PageStart::After(id) if id < prefix => (Bound::Included(prefix), end.as_str(), false),
            PageStart::After(id) => (Bound::Excluded(id), end.as_str(), false),
            PageStart::Last => (Bound::Included(prefix), end.as_str(), true),
            PageStart::Before(id) => (Bound::Included(prefix), id.min(end.as_str()), true),
        };
        let (Bound::Included(lowest) | Bound::Excluded(lowest)) = from else { return DevicePage::default() };
        if lowest >= to {
            return DevicePage::default();
        }
        let order = self.state.order.read().unwrap_or_else(PoisonError::into_inner);
        let mut rest = order.range::<str, _>((from, Bound::Excluded(to))).cloned();
        let mut next = || if is_backwards { rest.next_back() } else { rest.next() };
        let ids: Vec<DeviceId> = std::iter::from_fn(&mut next).take(count).collect();
        let more = next().and_then(|_| ids.last().cloned());
        drop(order);
        let devices = ids.into_iter().filter_map(|id| self.entry(&IdentityId::device(id))).collect();
        DevicePage { devices, next: more }
    }

    /// The modules of a device, in order of their ids; none when there is no such device.
    pub fn modules(&self, device: &DeviceId) -> Option<Vec<Arc<Entry>>> {
        let mut ids = self.entry(&IdentityId::device(device.clone()))?.modules();
        ids.sort();
        let ids = ids.into_iter().map(|module| IdentityId::module(device.clone(), module));
        Some(ids.filter_map(|id| self.entry(&id)).collect())
    }

    /// How many identities there are.
    pub fn counts(&self) -> Counts {
        Counts {
            devices: self.state.devices.load(Ordering::Relaxed),
            disabled_devices: self.state.disabled_devices.load(Ordering::Relaxed),
            modules: self.state.modules.load(Ordering::Relaxed),
        }
    }

    /// Registers a new identity, with a generation and a queue of its own. Answers the state that was stored, even if
    /// it was changed or deleted since.
    pub async fn create(&self, spec: IdentitySpec, now: Timestamp) -> Result<Arc<Identity>, RegistryError> {
        let id = spec.id.clone();
        self.check_parent(&id)?;
        let identity = spec.build(None, self.next_generation(now), Revision::new(0), now);
        self.put(identity, Expect::Absent).await.map_err(|error| match error {
            StoreError::Conflict => RegistryError::AlreadyExists(id.clone()),
            StoreError::NotFound => RegistryError::NotFound(IdentityId::device(id.device.clone())),
            other => self.store_error(&id, other),
        })
    }

    /// Replaces an identity as a whole; absent keys stay as they are. The precondition is judged on what is stored.
    /// Answers the state that was stored, even if it was changed or deleted since.
    pub async fn replace(
        &self,
        spec: IdentitySpec,
        precondition: Precondition,
        now: Timestamp,
    ) -> Result<Replaced, RegistryError> {
        let id = spec.id.clone();
        loop {
            let stored = self.entry(&id).ok_or_else(|| RegistryError::NotFound(id.clone()))?.identity();
            if !precondition.admits(stored.revision) {
                return Err(RegistryError::PreconditionFailed(id));
            }
            let identity = spec.clone().build(Some(&stored), stored.generation, stored.revision, now);
            match self.put(identity, Expect::Is(stored.revision)).await {
                Ok(identity) => return Ok(Replaced { before: stored, identity }),
                // Another write was faster. It is in the map by now: judge again on that.
                Err(StoreError::Conflict | StoreError::NotFound) => {}
                Err(other) => return Err(self.store_error(&id, other)),
            }
        }
    }

    /// Deletes an identity with its queue and subscriptions; a device with its modules. Returns the state it had.
    pub async fn delete(
        &self,
        id: &IdentityId,
        precondition: Precondition,
    ) -> Result<Arc<Identity>, RegistryError> {
        loop {
            let stored = self.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?.identity();
            if !precondition.admits(stored.revision) {
                return Err(RegistryError::PreconditionFailed(id.clone()));
            }
            // The highest generation must outlive the identity that had it, or a clock that steps back could repeat it.
            let last_generation = self.state.last_generation.load(Ordering::Acquire).to_be_bytes().to_vec();
            let mutations = vec![
                Mutation::DeleteIdentity { id: id.clone(), expect: Expect::Is(stored.revision) },
                Mutation::PutMeta { key: LAST_GENERATION.into(), value: last_generation },
            ];
            match self.backend.submit(mutations).await {
                Ok(_) => return Ok(stored),
                Err(StoreError::Conflict | StoreError::NotFound) => {}
                Err(other) => return Err(self.store_error(id, other)),
            }
        }
    }

    /// Stores the subscriptions of an identity, or removes them. The bytes are the caller's; a re-created id inherits
    /// nothing.
    pub async fn save_subscriptions(
        &self,
        id: &IdentityId,
        generation: GenerationId,
        subscriptions: Option<Vec<u8>>,
    ) -> Result<(), RegistryError> {
        let stale = || RegistryError::StaleGeneration(id.clone());
        let entry = self.entry(id).ok_or_else(stale)?;
        if entry.subscriptions().as_deref() == subscriptions.as_deref() {
            return Ok(());
        }
        let put = Mutation::PutSubscriptions { id: id.clone(), generation, subscriptions };
        match self.backend.submit(vec![put]).await {
            Ok(_) => Ok(()),
            Err(StoreError::Conflict | StoreError::NotFound) => Err(stale()),
            Err(other) => Err(RegistryError::Store(other)),
        }
    }

    /// A hub-level record.
    pub fn meta(&self, key: &str) -> Option<Vec<u8>> {
        self.state.meta(key)
    }

    /// Keeps a hub-level record.
    pub async fn put_meta(&self, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
        self.backend.submit(vec![Mutation::PutMeta { key: key.to_owned(), value }]).await.map(|_| ())
    }

    /// Resolves when nothing can be stored any more.
    pub async fn store_lost(&self) {
        self.backend.lost().await;
    }

    /// Finishes what was submitted and closes the store; every later write is refused. Blocks.
    ///
    /// An error says why it did not end in order. Whatever was acknowledged is kept all the same.
    pub fn close(&self) -> Result<(), StoreError> {
        let is_noted = self.backend.post(vec![ended(true)]);
        self.backend.close()?;
        if !is_noted {
            let what = "the store did not take the note that it ended in order; after the next start, messages to \
                        identities with stored subscriptions may be called repeats";
            return Err(StoreError::Fatal(what.into()));
        }
        Ok(())
    }

    async fn put(&self, identity: Identity, expect: Expect) -> Result<Arc<Identity>, StoreError> {
        let put = Mutation::PutIdentity {
            id: identity.id.clone(),
            generation: identity.generation,
            expect,
            modules_max: self.limits.modules_per_device_max,
            record: record::encode_identity(&identity),
        };
        match self.backend.submit(vec![put]).await?.first() {
            Some(Written::Revision(revision)) => Ok(Arc::new(Identity { revision: *revision, ..identity })),
            _ => Err(StoreError::Fatal("the store did not give a revision".into())),
        }
    }

    fn check_parent(&self, id: &IdentityId) -> Result<(), RegistryError> {
        let device = IdentityId::device(id.device.clone());
        if id.module.is_some() && self.entry(&device).is_none() {
            return Err(RegistryError::NotFound(device));
        }
        Ok(())
    }

    /// Greater than every generation this registry ever had, whatever the clock does; close to .NET's ticks.
    fn next_generation(&self, now: Timestamp) -> GenerationId {
        let ticks = u64::try_from(now.as_nanosecond() / 100).unwrap_or(0) + TICKS_AT_1970;
        let last = &self.state.last_generation;
        let next = last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(ticks.max(last + 1)));
        GenerationId::new(ticks.max(next.unwrap_or_default() + 1))
    }

    fn store_error(&self, id: &IdentityId, error: StoreError) -> RegistryError {
        match error {
            StoreError::TooManyModules(limit) => {
                RegistryError::TooManyModules { device: IdentityId::device(id.device.clone()), limit }
            }
            other => RegistryError::Store(other),
        }
    }
}

impl RegistryState {
    fn entry(&self, id: &IdentityId) -> Option<Arc<Entry>> {
        self.entries.get(id).map(|entry| Arc::clone(&entry))
    }

    fn meta(&self, key: &str) -> Option<Vec<u8>> {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Shows one stable change in the map, then notifies the observer.
    fn apply(&self, change: Change) -> Result<(), StoreError> {
        match change {
            Change::IdentityPut { id, generation, revision, record } => {
                let identity = record::decode_identity(&id, generation, revision, &record)?;
                self.put(id, identity);
            }
            Change::IdentityDeleted { id } => self.delete(&id),
            Change::SubscriptionsPut { id, subscriptions } => {
                if let Some(entry) = self.entry(&id) {
                    entry.set_subscriptions(subscriptions);
                }
            }
            Change::MessagePut { id, number, generation, record } => {
                self.put_message(record::decode_message(&id, number, generation, &record)?, &id);
            }
            Change::DeliveryNoted { id, number, delivery_count } => {
                if let Some(entry) = self.entry(&id) {
                    entry.queue.note(number, delivery_count);
                }
            }
            Change::MessageGone { id, number, outcome } => self.remove_message(&id, number, outcome),
            Change::FeedbackPut { id, number, record } => {
                self.feedback.push(number, record::decode_feedback(&id, &record)?);
            }
            Change::FeedbackGone { numbers } => self.feedback.remove(&numbers),
            Change::MetaPut { key, value } => {
                self.meta.lock().unwrap_or_else(PoisonError::into_inner).insert(key, value);
            }
        }
        Ok(())
    }

    fn put(&self, id: IdentityId, identity: Identity) {
        self.note_generation(&identity);
        let kind = match self.entry(&id) {
            Some(entry) => {
                self.count_disabled(Some(&entry.identity()), Some(&identity));
                entry.set_identity(identity);
                ChangeKind::Updated
            }
            None => {
                self.count_disabled(None, Some(&identity));
                if id.module.is_none() {
                    self.order.write().unwrap_or_else(PoisonError::into_inner).insert(id.device.clone());
                }
                self.insert(id.clone(), Arc::new(Entry::new(identity)));
                ChangeKind::Created
            }
        };
        self.notify(id, kind);
    }

    fn note_generation(&self, identity: &Identity) {
        self.last_generation.fetch_max(identity.generation.number(), Ordering::AcqRel);
    }

    /// Puts a new entry into the map; the caller puts its id into `order`.
    fn insert(&self, id: IdentityId, entry: Arc<Entry>) {
        match &id.module {
            None => self.devices.fetch_add(1, Ordering::Relaxed),
            Some(module) => {
                if let Some(device) = self.entry(&IdentityId::device(id.device.clone())) {
                    device.add_module(module.clone());
                }
                self.modules.fetch_add(1, Ordering::Relaxed)
            }
        };
        self.entries.insert(id, entry);
    }

    fn delete(&self, id: &IdentityId) {
        let Some((_, entry)) = self.entries.remove(id) else { return };
        entry.set_deleted();
        self.forget_messages(id, &entry);
        self.count_disabled(Some(&entry.identity()), None);
        match &id.module {
            None => {
                self.order.write().unwrap_or_else(PoisonError::into_inner).remove(&id.device);
                self.devices.fetch_sub(1, Ordering::Relaxed)
            }
            Some(module) => {
                if let Some(device) = self.entry(&IdentityId::device(id.device.clone())) {
                    device.remove_module(module);
                }
                self.modules.fetch_sub(1, Ordering::Relaxed)
            }
        };
        self.notify(id.clone(), ChangeKind::Deleted);
    }

    /// Keeps the count of disabled devices when one state of an identity follows another.
    fn count_disabled(&self, before: Option<&Identity>, after: Option<&Identity>) {
        let counts = |identity: Option<&Identity>| {
            identity.is_some_and(|own| own.id.module.is_none() && own.status == Status::Disabled)
        };
        match (counts(before), counts(after)) {
            (false, true) => self.disabled_devices.fetch_add(1, Ordering::Relaxed),
            (true, false) => self.disabled_devices.fetch_sub(1, Ordering::Relaxed),
            (true, true) | (false, false) => return,
        };
    }

    fn notify(&self, id: IdentityId, kind: ChangeKind) {
        if let Some(observer) = self.observer.get() {
            observer(&Changed { id, kind });
        }
    }
}

/// Notes whether this run has ended in order, so that the next one knows that every delivery was noted.
fn ended(in_order: bool) -> Mutation {
    Mutation::PutMeta { key: ENDED_IN_ORDER.into(), value: vec![u8::from(in_order)] }
}

/// Under which key it is kept whether the last run ended in order: 1 if so.
const ENDED_IN_ORDER: &str = "ended_in_order";
/// Under which key the highest generation is kept.
const LAST_GENERATION: &str = "last_generation";
/// .NET counts 100 ns ticks from the year 1; 1970 began at this one.
const TICKS_AT_1970: u64 = 621_355_968_000_000_000;

#[cfg(test)]
mod tests;
