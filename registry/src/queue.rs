//! The queue of cloud-to-device messages that every identity is born with, in memory; the backend holds its truth.
//!
//! An empty queue allocates nothing. One consumer at a time is attached, the identity's session; a message it was
//! handed is leased until it completes it or is gone, and goes back in order when it is gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::backend::StoreError;
use crate::entry::Entry;
use crate::message::C2dMessage;
use crate::store::Registry;

/// One message handed to a consumer.
#[derive(Clone, Debug)]
pub struct Lease {
    pub message: Arc<C2dMessage>,
    /// 1 for the first delivery; more is a repeat.
    pub delivery_count: u32,
}

/// The messages of one identity.
#[derive(Debug, Default)]
pub(crate) struct DeviceQueue(Mutex<Option<Box<Inner>>>);

#[derive(Debug, Default)]
struct Inner {
    messages: Vec<Queued>,
    consumer: Option<Attached>,
}

#[derive(Debug)]
struct Queued {
    message: Arc<C2dMessage>,
    delivery_count: u32,
    leased_by: Option<u64>,
}

#[derive(Debug)]
struct Attached {
    number: u64,
    wake: Arc<Notify>,
}

impl DeviceQueue {
    /// Adds a message; the backend hands them over in order.
    pub(crate) fn push(&self, message: C2dMessage) {
        let mut guard = self.lock();
        let inner = guard.get_or_insert_default();
        inner.messages.push(Queued { message: Arc::new(message), delivery_count: 0, leased_by: None });
        inner.wake();
    }

    /// Takes a message out; what it cost in memory, if it was there.
    pub(crate) fn remove(&self, number: u64) -> Option<usize> {
        let mut guard = self.lock();
        let inner = guard.as_mut()?;
        let place = inner.messages.iter().position(|queued| queued.message.number == number)?;
        let queued = inner.messages.remove(place);
        inner.wake();
        release_if_idle(&mut guard);
        Some(queued.message.memory())
    }

    /// Takes every message out; what they cost in memory.
    pub(crate) fn clear(&self) -> usize {
        let mut guard = self.lock();
        let Some(inner) = guard.as_mut() else { return 0 };
        let memory = inner.messages.drain(..).map(|queued| queued.message.memory()).sum();
        release_if_idle(&mut guard);
        memory
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |inner| inner.messages.len())
    }

    /// The numbers of the messages that have expired and are with nobody.
    pub(crate) fn expired(&self, now: Timestamp) -> Vec<u64> {
        let guard = self.lock();
        let Some(inner) = guard.as_ref() else { return Vec::new() };
        let expired =
            inner.messages.iter().filter(|queued| queued.leased_by.is_none() && queued.message.expiry <= now);
        expired.map(|queued| queued.message.number).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<Inner>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn wake(&self) {
        if let Some(consumer) = &self.consumer {
            consumer.wake.notify_one();
        }
    }

    /// The first message that is with nobody and has not expired.
    fn next(&mut self, now: Timestamp) -> Option<&mut Queued> {
        self.messages.iter_mut().find(|queued| queued.leased_by.is_none() && queued.message.expiry > now)
    }
}

fn release_if_idle(guard: &mut MutexGuard<'_, Option<Box<Inner>>>) {
    if guard.as_ref().is_some_and(|inner| inner.messages.is_empty() && inner.consumer.is_none()) {
        **guard = None;
    }
}

/// One session's access to its identity's queue. Dropping it gives back every message it has not completed.
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

    /// The next message in order that is with nobody and has not expired at `now`, leased to this consumer. Expired
    /// ones on the way are dropped. Whoever stops before this finds nothing is woken again by its next completion.
    pub fn lease(&mut self, now: Timestamp) -> Option<Lease> {
        self.registry.drop_expired(&self.entry, now);
        let mut guard = self.entry.queue.lock();
        let queued = guard.as_mut()?.next(now)?;
        queued.leased_by = Some(self.number);
        queued.delivery_count += 1;
        Some(Lease { message: Arc::clone(&queued.message), delivery_count: queued.delivery_count })
    }

    /// The device has the message: it leaves the queue for good. `false` when it is not leased to this consumer.
    pub async fn complete(&mut self, number: u64) -> Result<bool, StoreError> {
        let is_ours =
            |queued: &Queued| queued.message.number == number && queued.leased_by == Some(self.number);
        if !self.entry.queue.lock().as_ref().is_some_and(|inner| inner.messages.iter().any(is_ours)) {
            return Ok(false);
        }
        self.registry.dequeue(&self.entry, number).await?;
        Ok(true)
    }

    /// How many messages are leased to this consumer.
    pub fn leased(&self) -> usize {
        let guard = self.entry.queue.lock();
        guard.as_ref().map_or(0, |inner| {
            inner.messages.iter().filter(|queued| queued.leased_by == Some(self.number)).count()
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        let mut guard = self.entry.queue.lock();
        let Some(inner) = guard.as_mut() else { return };
        for queued in inner.messages.iter_mut().filter(|queued| queued.leased_by == Some(self.number)) {
            queued.leased_by = None;
        }
        if inner.consumer.as_ref().is_some_and(|attached| attached.number == self.number) {
            inner.consumer = None;
        }
        inner.wake();
        release_if_idle(&mut guard);
    }
}
