//! What takes an identity's messages from its queue, for as long as a session lasts.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{Attached, Holder, Lease, QueueContent, release_if_idle};
use crate::backend::StoreError;
use crate::entry::Entry;
use crate::message::Outcome;
use crate::store::Registry;

/// Takes an identity's messages from its queue, for one session. Dropping it gives back every message it has not
/// completed.
#[derive(Debug)]
pub struct Consumer {
    registry: Arc<Registry>,
    entry: Arc<Entry>,
    number: u64,
    wake: Arc<Notify>,
}

impl Consumer {
    pub(crate) fn attach(registry: Arc<Registry>, entry: Arc<Entry>, number: u64) -> Self {
        let wake = Arc::new(Notify::new());
        let attached = Attached { number, wake: Arc::clone(&wake) };
        entry.queue.lock().get_or_insert_default().consumer = Some(attached);
        // What came before the consumer did is waiting.
        wake.notify_one();
        Self { registry, entry, number, wake }
    }

    /// Waits until `lease` may find something. Cancel-safe; one waiter at a time.
    pub async fn ready(&self) {
        self.wake.notified().await;
    }

    /// The next message in order that is with nobody and has not expired at `now`, leased to this consumer. Until it
    /// has found nothing, `ready` returns at once: a caller that stops earlier misses nothing.
    pub fn lease(&mut self, now: Timestamp) -> Option<Lease> {
        let mut guard = self.entry.queue.lock();
        let slot = guard.as_mut()?.next(now)?;
        let is_repeat = std::mem::replace(&mut slot.was_delivered, true);
        slot.holder = Holder::Consumer(self.number);
        self.wake.notify_one();
        Some(Lease { message: Arc::clone(&slot.message), is_repeat })
    }

    /// The device has the message: it leaves the queue for good. `false` when it is not leased to this consumer.
    pub async fn complete(&mut self, number: u64, now: Timestamp) -> Result<bool, StoreError> {
        self.settle(number, Outcome::Completed, now).await
    }

    /// The message can never be handed to the device: it leaves the queue for good, and its sender hears of it if it
    /// asked to. `false` when it is not leased to this session.
    pub async fn reject(&mut self, number: u64, now: Timestamp) -> Result<bool, StoreError> {
        self.settle(number, Outcome::Rejected, now).await
    }

    async fn settle(&mut self, number: u64, outcome: Outcome, now: Timestamp) -> Result<bool, StoreError> {
        let message = {
            let guard = self.entry.queue.lock();
            let slots = guard.iter().flat_map(|inner| &inner.messages);
            let ours = slots.filter(|slot| slot.holder == Holder::Consumer(self.number));
            ours.filter(|slot| slot.message.number == number).map(|slot| Arc::clone(&slot.message)).next()
        };
        let Some(message) = message else { return Ok(false) };
        self.registry.settle(&self.entry, &message, outcome, now).await
    }

    /// Stores which messages this consumer has and did not complete, so that they are marked as repeats after a restart
    /// too. For a session that ends in order; a dropped consumer does it without waiting.
    pub async fn note_unanswered(&mut self) {
        let unanswered = {
            let mut guard = self.entry.queue.lock();
            guard.as_mut().map_or_else(Vec::new, |inner| self.unanswered(inner))
        };
        self.registry.note_deliveries(&self.entry, &unanswered).await;
    }

    /// What the store does not know of yet; it is taken as known from now on.
    fn unanswered(&self, inner: &mut QueueContent) -> Vec<(u64, u32)> {
        let ours = inner.messages.iter_mut().filter(|slot| slot.holder == Holder::Consumer(self.number));
        let unknown = ours.filter_map(|slot| {
            let is_noted = std::mem::replace(&mut slot.is_noted, true);
            (!is_noted).then(|| (slot.message.number, slot.delivery_count))
        });
        unknown.collect()
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut guard = self.entry.queue.lock();
        let Some(inner) = guard.as_mut() else { return };
        let unanswered = self.unanswered(inner);
        for slot in inner.messages.iter_mut().filter(|slot| slot.holder == Holder::Consumer(self.number)) {
            slot.holder = Holder::Nobody;
        }
        if inner.consumer.as_ref().is_some_and(|attached| attached.number == self.number) {
            inner.consumer = None;
        }
        inner.wake();
        release_if_idle(&mut guard);
        drop(guard);
        self.registry.post_deliveries(&self.entry, &unanswered);
    }
}
