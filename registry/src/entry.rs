//! One identity in memory: its current state, its subscriptions, its queue, and the modules under it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::activity::Activity;
use crate::id::ModuleId;
use crate::identity::Identity;
use crate::queue::{DeviceQueue, Queued};

/// What the registry holds of one identity. It outlives connections and updates, and ends with its generation.
#[derive(Debug)]
pub struct Entry {
    identity: RwLock<Arc<Identity>>,
    subscriptions: Mutex<Option<Arc<[u8]>>>,
    modules: Mutex<Vec<ModuleId>>,
    deleted: AtomicBool,
    activity: Activity,
    pub(crate) queue: DeviceQueue,
}

impl Entry {
    pub(crate) fn new(identity: Identity) -> Self {
        Self {
            identity: RwLock::new(Arc::new(identity)),
            subscriptions: Mutex::default(),
            modules: Mutex::default(),
            deleted: AtomicBool::new(false),
            activity: Activity::default(),
            queue: DeviceQueue::default(),
        }
    }

    /// The identity as it is now.
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The stored subscriptions, in the bytes their writer chose; none when none are stored.
    pub fn subscriptions(&self) -> Option<Arc<[u8]>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When it was last active. The connections of the identity write it.
    pub fn activity(&self) -> &Activity {
        &self.activity
    }

    /// How many cloud-to-device messages wait or are on their way.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The first messages that wait or are on their way, at most `count` of them.
    pub fn peek(&self, count: usize) -> Vec<Queued> {
        self.queue.peek(count)
    }

    /// Whether this generation of the identity is gone.
    pub fn is_deleted(&self) -> bool {
        self.deleted.load(Ordering::Acquire)
    }

    pub(crate) fn set_identity(&self, identity: Identity) {
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity);
    }

    pub(crate) fn set_subscriptions(&self, subscriptions: Option<Vec<u8>>) {
        *self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner) = subscriptions.map(Into::into);
    }

    pub(crate) fn set_deleted(&self) {
        self.deleted.store(true, Ordering::Release);
    }

    /// The ids of a device's modules.
    pub(crate) fn modules(&self) -> Vec<ModuleId> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn add_module(&self, module: ModuleId) {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if !modules.contains(&module) {
            modules.push(module);
        }
    }

    pub(crate) fn remove_module(&self, module: &ModuleId) {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner).retain(|own| own != module);
    }
}
