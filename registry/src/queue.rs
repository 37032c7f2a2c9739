//! The queue of cloud-to-device messages that every identity has, in memory; the backend holds its truth.
//!
//! An empty queue allocates nothing. A message is with nobody, with the identity's one consumer until that ends, or
//! locked by a device that polled it until the lock's time is over. What comes back keeps its position. A message found
//! expired is never delivered again, whatever the clock does, and leaves once its outcome is stored.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::lock::LockToken;
use crate::message::C2dMessage;

mod consumer;

pub use consumer::Consumer;

/// One message leased to a consumer.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub message: Arc<C2dMessage>,
    /// Whether it was delivered before; after a kill, whether it may have been.
    pub is_repeat: bool,
}

/// One message delivered to a device that polls.
#[derive(Clone, Debug)]
pub struct Received {
    /// The message.
    pub message: Arc<C2dMessage>,
    /// To complete, abandon or reject it by.
    pub token: LockToken,
    /// Whether it was delivered before, as far as is known.
    pub is_repeat: bool,
    /// How often it was abandoned before.
    pub delivery_count: u32,
}

/// A message in its queue, as an operator sees it.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The message.
    pub message: Arc<C2dMessage>,
    /// How often it was abandoned.
    pub delivery_count: u32,
    /// Whether it is on its way to the device and not acknowledged yet.
    pub is_held: bool,
}

/// The messages of one identity.
#[derive(Debug, Default)]
pub(crate) struct DeviceQueue(Mutex<Option<Box<QueueContent>>>);

#[derive(Debug, Default)]
struct QueueContent {
    messages: Vec<Slot>,
    consumer: Option<Attached>,
}

#[derive(Debug)]
struct Slot {
    message: Arc<C2dMessage>,
    /// How often it was abandoned.
    delivery_count: u32,
    was_delivered: bool,
    /// Whether the store knows that it was delivered.
    is_noted: bool,
    /// Found expired; only its outcome is still to be stored.
    is_expired: bool,
    holder: Holder,
}

/// Who has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Holder {
    Nobody,
    /// The consumer of this number, until it ends.
    Consumer(u64),
    /// The device that polled it, until this time on the monotonic clock.
    Lock {
        token: LockToken,
        until: Instant,
    },
}

#[derive(Debug)]
struct Attached {
    number: u64,
    wake: Arc<Notify>,
}

/// What is to be done about a message whose time has come.
#[derive(Debug)]
pub(crate) enum Due {
    /// It is not there any more.
    Gone,
    /// It has expired and is with nobody: its outcome is to be stored.
    Settle(Arc<C2dMessage>),
    /// It is with the device, which may still acknowledge it; look again then.
    Later(Timestamp),
}

impl DeviceQueue {
    /// Adds a message; the backend gives them in order.
    pub(crate) fn push(&self, message: Arc<C2dMessage>) {
        let mut guard = self.lock();
        let inner = guard.get_or_insert_default();
        inner.messages.push(Slot {
            message,
            delivery_count: 0,
            was_delivered: false,
            is_noted: false,
            is_expired: false,
            holder: Holder::Nobody,
        });
        inner.wake();
    }

    /// Takes a message out, if it was there.
    pub(crate) fn remove(&self, number: u64) -> Option<Arc<C2dMessage>> {
        let mut guard = self.lock();
        let inner = guard.as_mut()?;
        let index = inner.index_of(number)?;
        let slot = inner.messages.remove(index);
        release_if_idle(&mut guard);
        Some(slot.message)
    }

    /// Takes every message out.
    pub(crate) fn clear(&self) -> Vec<Arc<C2dMessage>> {
        let mut guard = self.lock();
        let Some(inner) = guard.as_mut() else { return Vec::new() };
        let messages = inner.messages.drain(..).map(|slot| slot.message).collect();
        release_if_idle(&mut guard);
        messages
    }

    /// The store knows of a delivery that ended without an answer, or of one given back.
    pub(crate) fn note(&self, number: u64, delivery_count: u32) {
        let mut guard = self.lock();
        let Some(inner) = guard.as_mut() else { return };
        let Some(index) = inner.index_of(number) else { return };
        let slot = &mut inner.messages[index];
        let is_given_back = delivery_count > slot.delivery_count;
        slot.delivery_count = slot.delivery_count.max(delivery_count);
        (slot.was_delivered, slot.is_noted) = (true, true);
        if is_given_back && matches!(slot.holder, Holder::Lock { .. }) {
            slot.holder = Holder::Nobody;
            inner.wake();
        }
    }

    /// Every message may have been delivered before.
    pub(crate) fn suspect_repeats(&self) {
        if let Some(inner) = self.lock().as_mut() {
            inner.messages.iter_mut().for_each(|slot| slot.was_delivered = true);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().as_ref().map_or(0, |inner| inner.messages.len())
    }

    /// The first messages, at most `count` of them.
    pub(crate) fn peek(&self, count: usize) -> Vec<Queued> {
        let guard = self.lock();
        let Some(inner) = guard.as_ref() else { return Vec::new() };
        let seen = inner.messages.iter().take(count).map(|slot| Queued {
            message: Arc::clone(&slot.message),
            delivery_count: slot.delivery_count,
            is_held: slot.holder != Holder::Nobody,
        });
        seen.collect()
    }

    /// Every message there is now.
    pub(crate) fn messages(&self) -> Vec<Arc<C2dMessage>> {
        let guard = self.lock();
        guard.as_ref().map_or_else(Vec::new, |inner| {
            inner.messages.iter().map(|slot| Arc::clone(&slot.message)).collect()
        })
    }

    /// The messages that have expired and are with nobody.
    pub(crate) fn expired(&self, now: Timestamp) -> Vec<Arc<C2dMessage>> {
        let mut guard = self.lock();
        let Some(inner) = guard.as_mut() else { return Vec::new() };
        let expired = inner.messages.iter_mut().filter_map(|slot| slot.expire(now).then_some(&slot.message));
        expired.cloned().collect()
    }

    /// What to do about one message at `now`.
    pub(crate) fn due(&self, number: u64, now: Timestamp) -> Due {
        let mut guard = self.lock();
        let Some(inner) = guard.as_mut() else { return Due::Gone };
        let Some(index) = inner.index_of(number) else { return Due::Gone };
        let slot = &mut inner.messages[index];
        if slot.expire(now) {
            return Due::Settle(Arc::clone(&slot.message));
        }
        // A device that has it may acknowledge it for a while; the sender shall not wait for ever.
        let given_up_at = slot.message.expiry.saturating_add(HELD_TIME_MAX).unwrap_or(Timestamp::MAX);
        match slot.holder {
            Holder::Consumer(_) if now >= given_up_at => {
                slot.is_expired = true;
                Due::Settle(Arc::clone(&slot.message))
            }
            Holder::Consumer(_) => Due::Later(given_up_at),
            Holder::Nobody | Holder::Lock { .. } => {
                Due::Later(now.saturating_add(LOOK_AGAIN).unwrap_or(Timestamp::MAX))
            }
        }
    }

    /// Locks the first message that is with nobody and has not expired, until `until`.
    pub(crate) fn receive(&self, now: Timestamp, monotonic: Instant, until: Instant) -> Option<Received> {
        let mut guard = self.lock();
        let inner = guard.as_mut()?;
        inner.end_locks(monotonic);
        let slot = inner.next(now)?;
        let token = LockToken::random();
        slot.holder = Holder::Lock { token, until };
        let is_repeat = std::mem::replace(&mut slot.was_delivered, true);
        Some(Received {
            message: Arc::clone(&slot.message),
            token,
            is_repeat,
            delivery_count: slot.delivery_count,
        })
    }

    /// The message a token locks, while its time is not over, and how often it was abandoned.
    pub(crate) fn locked(&self, token: LockToken, monotonic: Instant) -> Option<(Arc<C2dMessage>, u32)> {
        let guard = self.lock();
        let mut slots = guard.as_ref()?.messages.iter();
        let is_locked = |slot: &&Slot| matches!(slot.holder, Holder::Lock { token: own, until } if own == token && until > monotonic);
        slots.find(is_locked).map(|slot| (Arc::clone(&slot.message), slot.delivery_count))
    }

    /// Gives back what was locked for a time that is over.
    pub(crate) fn end_locks(&self, monotonic: Instant) {
        if let Some(inner) = self.lock().as_mut() {
            inner.end_locks(monotonic);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Box<QueueContent>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueContent {
    fn wake(&self) {
        if let Some(consumer) = &self.consumer {
            consumer.wake.notify_one();
        }
    }

    fn index_of(&self, number: u64) -> Option<usize> {
        // In order of their numbers, since they were pushed so.
        self.messages.binary_search_by_key(&number, |slot| slot.message.number).ok()
    }

    /// The first message that is with nobody and has not expired.
    fn next(&mut self, now: Timestamp) -> Option<&mut Slot> {
        self.messages
            .iter_mut()
            .filter(|slot| slot.holder == Holder::Nobody)
            .find_map(|slot| if slot.expire(now) { None } else { Some(slot) })
    }

    fn end_locks(&mut self, monotonic: Instant) {
        let mut is_any = false;
        for slot in &mut self.messages {
            if matches!(slot.holder, Holder::Lock { until, .. } if until <= monotonic) {
                slot.holder = Holder::Nobody;
                is_any = true;
            }
        }
        if is_any {
            self.wake();
        }
    }
}

impl Slot {
    /// Whether it is with nobody and has expired; if so, it has for good.
    fn expire(&mut self, now: Timestamp) -> bool {
        self.is_expired |= self.holder == Holder::Nobody && self.message.expiry <= now;
        self.is_expired && self.holder == Holder::Nobody
    }
}

fn release_if_idle(guard: &mut MutexGuard<'_, Option<Box<QueueContent>>>) {
    if guard.as_ref().is_some_and(|inner| inner.messages.is_empty() && inner.consumer.is_none()) {
        **guard = None;
    }
}

/// How long after its expiry a message with a consumer may still be acknowledged. Source: IoT Hub, the lock time.
const HELD_TIME_MAX: SignedDuration = SignedDuration::from_secs(60);
/// When to look again at an expired message that is locked.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);
