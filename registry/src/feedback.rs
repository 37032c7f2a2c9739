//! Feedback: what became of messages whose senders asked, waiting for services to fetch it, in batches.
//!
//! In memory; the backend holds its truth, and a record is stored in the same write that takes its message away. A
//! batch is ready when it is full or its first record has waited long enough. One receiver has it at a time; it comes
//! again when the receiver gives it back or is dropped, or when its lock is over. When the queue is full, the oldest
//! record makes room.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;

use crate::backend::StoreError;
use crate::id::{GenerationId, IdentityId};
use crate::lock::LockToken;
use crate::message::{C2dMessage, Outcome};
use crate::store::Registry;

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feedback {
    /// Whose message it was.
    pub device: IdentityId,
    /// The generation it was addressed to.
    pub generation: GenerationId,
    /// The id of the message.
    pub message_id: String,
    /// What became of the message.
    pub outcome: Outcome,
    /// When it became so.
    pub at: Timestamp,
}

/// Feedback delivered to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedbackBatch {
    /// To complete or abandon it by.
    pub token: LockToken,
    /// In the order of the outcomes.
    pub records: Vec<Arc<Feedback>>,
}

/// The bounds of feedback.
#[derive(Clone, Copy, Debug)]
pub struct FeedbackLimits {
    /// Records that wait for services.
    pub records_max: usize,
    /// How long a record waits for a service.
    pub ttl: Duration,
    /// How long the first record of a batch waits for others.
    pub batch_time_max: Duration,
    /// How often a record is delivered at most.
    pub deliveries_max: u32,
}

/// The feedback of one hub.
#[derive(Debug, Default)]
pub(crate) struct FeedbackQueue {
    inner: Mutex<QueuedFeedback>,
    ready: Notify,
}

#[derive(Debug, Default)]
struct QueuedFeedback {
    /// By the numbers the backend gave, which grow; those in batches are not among them.
    waiting: BTreeMap<u64, Pending>,
    batches: HashMap<LockToken, LockedBatch>,
    /// Every record there is, by the identity it is about.
    of: HashMap<IdentityId, BTreeSet<u64>>,
    count: usize,
}

#[derive(Clone, Debug)]
struct Pending {
    record: Arc<Feedback>,
    deliveries: u32,
}

#[derive(Debug)]
struct LockedBatch {
    records: BTreeMap<u64, Pending>,
    /// Absent: until its receiver is gone.
    until: Option<Instant>,
}

impl Feedback {
    pub(crate) fn of(device: &IdentityId, message: &C2dMessage, outcome: Outcome, at: Timestamp) -> Self {
        Self {
            device: device.clone(),
            generation: message.generation,
            message_id: message.message_id.clone(),
            outcome,
            at,
        }
    }
}

impl FeedbackQueue {
    pub(crate) fn push(&self, number: u64, record: Feedback) {
        let mut inner = self.lock();
        inner.of.entry(record.device.clone()).or_default().insert(number);
        inner.count += 1;
        inner.waiting.insert(number, Pending { record: Arc::new(record), deliveries: 0 });
        let is_ready = inner.waiting.len() == 1 || inner.waiting.len() >= BATCH_RECORDS_MAX;
        drop(inner);
        if is_ready {
            self.ready.notify_one();
        }
    }

    pub(crate) fn remove(&self, numbers: &[u64]) {
        let mut inner = self.lock();
        for number in numbers {
            inner.remove(*number);
        }
        inner.batches.retain(|_, batch| !batch.records.is_empty());
    }

    /// Discards the records about a deleted identity.
    pub(crate) fn forget(&self, id: &IdentityId) {
        let mut inner = self.lock();
        for number in inner.of.get(id).cloned().unwrap_or_default() {
            inner.remove(number);
        }
        inner.batches.retain(|_, batch| !batch.records.is_empty());
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().count
    }

    /// The oldest records that are in no batch: those that must go so that one more fits.
    pub(crate) fn surplus(&self, limits: &FeedbackLimits) -> Vec<u64> {
        let inner = self.lock();
        let surplus = (inner.count + 1).saturating_sub(limits.records_max);
        inner.waiting.keys().take(surplus).copied().collect()
    }

    /// Records whose time is over, that were delivered too often, or that are too many; the oldest first.
    pub(crate) fn outdated(&self, limits: &FeedbackLimits, now: Timestamp) -> Vec<u64> {
        let inner = self.lock();
        let surplus = inner.count.saturating_sub(limits.records_max);
        let is_outdated = |(index, (_, pending)): &(usize, (&u64, &Pending))| {
            *index < surplus
                || pending.deliveries >= limits.deliveries_max
                || age(&pending.record, now) >= limits.ttl
        };
        let outdated = inner.waiting.iter().enumerate().take_while(is_outdated);
        outdated.map(|(_, (number, _))| *number).take(OUTDATED_AT_ONCE).collect()
    }

    /// The next batch, if one is ready. Locked until `until`, or until it is released.
    pub(crate) fn lease(
        &self,
        limits: &FeedbackLimits,
        now: Timestamp,
        until: Option<Instant>,
    ) -> Option<FeedbackBatch> {
        let mut inner = self.lock();
        let lives = |pending: &Pending| {
            pending.deliveries < limits.deliveries_max && age(&pending.record, now) < limits.ttl
        };
        if !inner.is_ready(limits, now) {
            return None;
        }
        let numbers: Vec<u64> = {
            let living = inner.waiting.iter().filter(|(_, pending)| lives(pending));
            living.map(|(number, _)| *number).take(BATCH_RECORDS_MAX).collect()
        };
        if numbers.is_empty() {
            return None;
        }
        let take = |number| inner.waiting.remove(&number).map(|pending| (number, pending));
        let mut records: BTreeMap<u64, Pending> = numbers.into_iter().filter_map(take).collect();
        records.values_mut().for_each(|pending| pending.deliveries += 1);
        let token = LockToken::random();
        let batch = FeedbackBatch {
            token,
            records: records.values().map(|pending| Arc::clone(&pending.record)).collect(),
        };
        inner.batches.insert(token, LockedBatch { records, until });
        let is_more = inner.is_ready(limits, now);
        drop(inner);
        if is_more {
            self.ready.notify_one();
        }
        Some(batch)
    }

    /// The numbers of a batch that is still locked.
    pub(crate) fn numbers(&self, token: LockToken, monotonic: Instant) -> Option<Vec<u64>> {
        let inner = self.lock();
        let batch = inner.batches.get(&token)?;
        let is_locked = batch.until.is_none_or(|until| until > monotonic);
        is_locked.then(|| batch.records.keys().copied().collect())
    }

    /// Gives a batch back; whether it was still out.
    pub(crate) fn release(&self, token: LockToken) -> bool {
        let mut inner = self.lock();
        let is_out = inner.release(token);
        drop(inner);
        self.ready.notify_one();
        is_out
    }

    /// Gives back what was locked for a time that is over, and wakes a receiver if a batch is ready.
    pub(crate) fn tick(&self, limits: &FeedbackLimits, now: Timestamp, monotonic: Instant) {
        let mut inner = self.lock();
        let is_over = |batch: &LockedBatch| batch.until.is_some_and(|until| until <= monotonic);
        let over: Vec<LockToken> =
            inner.batches.iter().filter(|(_, batch)| is_over(batch)).map(|(token, _)| *token).collect();
        for token in over {
            inner.release(token);
        }
        if inner.is_ready(limits, now) {
            drop(inner);
            self.ready.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueuedFeedback> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuedFeedback {
    fn is_ready(&self, limits: &FeedbackLimits, now: Timestamp) -> bool {
        let Some((_, first)) = self.waiting.first_key_value() else { return false };
        self.waiting.len() >= BATCH_RECORDS_MAX
            || first.deliveries > 0
            || age(&first.record, now) >= limits.batch_time_max
            // A clock that steps back must not make it wait longer.
            || first.record.at > now
    }

    fn release(&mut self, token: LockToken) -> bool {
        let Some(batch) = self.batches.remove(&token) else { return false };
        self.waiting.extend(batch.records);
        true
    }

    fn remove(&mut self, number: u64) {
        let found = match self.waiting.remove(&number) {
            Some(pending) => Some(pending),
            None => self.batches.values_mut().find_map(|batch| batch.records.remove(&number)),
        };
        let Some(pending) = found else { return };
        self.count -= 1;
        let device = &pending.record.device;
        if let Some(numbers) = self.of.get_mut(device) {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.of.remove(device);
            }
        }
    }
}

/// Zero while the clock is behind the record.
fn age(record: &Feedback, now: Timestamp) -> Duration {
    now.duration_since(record.at).max(SignedDuration::ZERO).unsigned_abs()
}

/// One service's access to the feedback. Dropping it gives back every batch it has not completed.
#[derive(Debug)]
pub struct FeedbackReceiver {
    registry: Arc<Registry>,
    batches: Vec<LockToken>,
}

impl FeedbackReceiver {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, batches: Vec::new() }
    }

    /// Waits until `lease` may find something. Cancel-safe.
    pub async fn ready(&self) {
        self.registry.feedback_queue().ready.notified().await;
    }

    /// The next batch that is ready, locked by this receiver until it is completed or the receiver is dropped.
    pub fn lease(&mut self, now: Timestamp) -> Option<FeedbackBatch> {
        let batch = self.registry.feedback_queue().lease(self.registry.feedback_limits(), now, None)?;
        self.batches.push(batch.token);
        Some(batch)
    }

    /// The service has the batch: it is forgotten for good.
    pub async fn complete(&mut self, token: LockToken, monotonic: Instant) -> Result<bool, StoreError> {
        let Some(index) = self.batches.iter().position(|own| *own == token) else { return Ok(false) };
        let is_done = self.registry.complete_feedback(token, monotonic).await?;
        self.batches.swap_remove(index);
        Ok(is_done)
    }
}

impl Drop for FeedbackReceiver {
    fn drop(&mut self) {
        for token in self.batches.drain(..) {
            self.registry.feedback_queue().release(token);
        }
    }
}

/// Source: IoT Hub, "Send cloud-to-device messages", message feedback.
const BATCH_RECORDS_MAX: usize = 64;
const OUTDATED_AT_ONCE: usize = 512;

#[cfg(test)]
mod tests;
