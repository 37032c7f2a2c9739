//! Cloud-to-device messages in the registry: from the send to the one outcome each of them has.
//!
//! An outcome is stored in one write with the feedback the sender asked for, and the message leaves its queue after
//! that. Whatever ends by time is found by `sweep`, which looks at what is due and at nothing else.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::{ChangeKind, Registry, RegistryState};
use crate::access::Right;
use crate::backend::{Mutation, StoreError, Written};
use crate::deadlines::Deadlines;
use crate::entry::Entry;
use crate::error::{RegistryError, SendError, SettleError};
use crate::feedback::{Feedback, FeedbackBatch, FeedbackLimits, FeedbackQueue, FeedbackReceiver};
use crate::id::IdentityId;
use crate::identity::Status;
use crate::lock::LockToken;
use crate::message::{C2dMessage, NewC2d, Outcome};
use crate::queue::{Consumer, Due, Received};
use crate::record;

/// What all queues together hold, and what became of messages since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Messages in all queues.
    pub messages: usize,
    /// When the oldest waiting message was accepted.
    pub oldest: Option<Timestamp>,
    /// Feedback that waits for services.
    pub feedback_records: usize,
    /// Messages completed since the start.
    pub completed: u64,
    /// Messages rejected since the start.
    pub rejected: u64,
    /// Messages expired since the start.
    pub expired: u64,
    /// Messages given up after too many deliveries since the start.
    pub delivery_count_exceeded: u64,
    /// Messages purged since the start.
    pub purged: u64,
}

impl Registry {
    /// Puts a message into an identity's queue. `Ok` means on stable storage.
    ///
    /// Source: IoT Hub, "Send cloud-to-device messages", for limits and defaults.
    pub async fn send(
        &self,
        to: &IdentityId,
        message: NewC2d,
        now: Timestamp,
    ) -> Result<Arc<C2dMessage>, SendError> {
        let expiry = self.check_message(&message, now)?;
        let entry = self.entry(to).ok_or_else(|| SendError::NotFound(to.clone()))?;
        let identity = entry.identity();
        if identity.status == Status::Disabled {
            return Err(SendError::Disabled(to.clone()));
        }
        // It would wait in vain, and its sender would learn that only when it expires.
        if !identity.access.allows(Right::C2d) {
            return Err(SendError::AccessDenied(to.clone()));
        }
        // Its number is the backend's to give; the record does not hold it.
        let message = C2dMessage::new(message, 0, identity.generation, now, expiry);
        if self.state.queued_bytes.load(Ordering::Relaxed) + message.memory() > self.limits.queued_bytes_max {
            return Err(SendError::HubFull);
        }
        // Expired messages make room for living ones.
        let expired = entry.queue.expired(now);
        let expired = expired.iter().map(|message| self.settling(to, message, Outcome::Expired, now));
        let enqueue = Mutation::Enqueue {
            id: to.clone(),
            generation: identity.generation,
            queue_max: identity.queue_max.map_or(self.limits.queue_messages_max, |max| max.get().into()),
            record: record::encode_message(&message),
        };
        let written =
            self.backend.submit(expired.chain([enqueue]).collect()).await.map_err(|error| match error {
                StoreError::QueueFull(limit) => SendError::QueueFull { to: to.clone(), limit },
                StoreError::NotFound | StoreError::Conflict => SendError::NotFound(to.clone()),
                other => SendError::Store(other),
            })?;
        match written.last() {
            Some(Written::Number(number)) => Ok(Arc::new(C2dMessage { number: *number, ..message })),
            _ => Err(SendError::Store(StoreError::Fatal("the store did not number a message".into()))),
        }
    }

    /// Removes every message from an identity's queue, those on their way too; how many there were.
    pub async fn purge(&self, id: &IdentityId, now: Timestamp) -> Result<u64, RegistryError> {
        let entry = self.entry(id).ok_or_else(|| RegistryError::NotFound(id.clone()))?;
        let messages = entry.queue.messages();
        let settling: Vec<Mutation> =
            messages.iter().map(|message| self.settling(id, message, Outcome::Purged, now)).collect();
        if settling.is_empty() {
            return Ok(0);
        }
        let written = self.backend.submit(settling).await.map_err(RegistryError::Store)?;
        Ok(written.iter().filter(|written| **written == Written::Found(true)).count() as u64)
    }

    /// Attaches a consumer to an identity's queue; an earlier one is woken no more.
    pub fn attach(self: &Arc<Self>, entry: &Arc<Entry>) -> Consumer {
        let number = self.next_consumer.fetch_add(1, Ordering::Relaxed);
        Consumer::attach(Arc::clone(self), Arc::clone(entry), number)
    }

    /// The next message in order, for a device that polls: locked for `lock_time`, then with nobody again.
    pub fn receive(
        &self,
        entry: &Arc<Entry>,
        lock_time: Duration,
        now: Timestamp,
        monotonic: Instant,
    ) -> Option<Received> {
        let until = monotonic.checked_add(lock_time)?;
        let received = entry.queue.receive(now, monotonic, until)?;
        self.state.deadlines().add_lock(entry, until);
        Some(received)
    }

    /// The device has, or refuses for good, what it received under this token.
    pub async fn settle_received(
        &self,
        entry: &Entry,
        token: LockToken,
        outcome: Outcome,
        now: Timestamp,
        monotonic: Instant,
    ) -> Result<(), SettleError> {
        let (message, _) = entry.queue.locked(token, monotonic).ok_or(SettleError::LockLost)?;
        match self.settle(entry, &message, outcome, now).await? {
            true => Ok(()),
            false => Err(SettleError::LockLost),
        }
    }

    /// The device gives back what it received under this token: it may come again at once, unless it was given back
    /// as often as is allowed.
    ///
    /// Source: IoT Hub, "Send cloud-to-device messages": only this raises the delivery count.
    pub async fn abandon_received(
        &self,
        entry: &Entry,
        token: LockToken,
        now: Timestamp,
        monotonic: Instant,
    ) -> Result<(), SettleError> {
        let (message, delivery_count) = entry.queue.locked(token, monotonic).ok_or(SettleError::LockLost)?;
        let delivery_count = delivery_count.saturating_add(1);
        if delivery_count >= self.limits.delivery_count_max {
            return self.settle_received(entry, token, Outcome::DeliveryCountExceeded, now, monotonic).await;
        }
        let id = entry.identity().id.clone();
        let note = Mutation::NoteDelivery { id, number: message.number, delivery_count };
        match self.backend.submit(vec![note]).await?.first() {
            Some(Written::Found(true)) => Ok(()),
            _ => Err(SettleError::LockLost),
        }
    }

    /// Ends what has come to its end by time: messages, locks, feedback. To be called about once a second; it costs
    /// what is due and no more. Returns how many messages expired.
    pub async fn sweep(&self, now: Timestamp, monotonic: Instant) -> Result<usize, StoreError> {
        let unlocked = self.state.deadlines().end_locks(monotonic);
        unlocked.iter().for_each(|entry| entry.queue.end_locks(monotonic));
        self.state.feedback.tick(&self.limits.feedback, now, monotonic);
        let mut expired = 0;
        loop {
            let due = self.state.deadlines().due(now, DUE_AT_ONCE);
            let is_more = due.len() == DUE_AT_ONCE;
            let settling: Vec<Mutation> =
                due.iter().filter_map(|(entry, number)| self.settle_due(entry, *number, now)).collect();
            if !settling.is_empty() {
                let written = self.backend.submit(settling).await?;
                expired += written.iter().filter(|written| **written == Written::Found(true)).count();
            }
            if !is_more {
                break;
            }
        }
        let outdated = self.state.feedback.outdated(&self.limits.feedback, now);
        if !outdated.is_empty() {
            self.backend.submit(vec![Mutation::DropFeedback { numbers: outdated }]).await?;
        }
        Ok(expired)
    }

    /// The next batch of feedback, if one is ready, locked for `lock_time`.
    pub fn receive_feedback(
        &self,
        lock_time: Duration,
        now: Timestamp,
        monotonic: Instant,
    ) -> Option<FeedbackBatch> {
        let until = monotonic.checked_add(lock_time)?;
        self.state.feedback.lease(&self.limits.feedback, now, Some(until))
    }

    /// A receiver of feedback that keeps its batches until it is dropped.
    pub fn feedback_receiver(self: &Arc<Self>) -> FeedbackReceiver {
        FeedbackReceiver::new(Arc::clone(self))
    }

    /// Removes a batch of feedback that a service has processed. `false` when it is not locked any more.
    pub async fn complete_feedback(&self, token: LockToken, monotonic: Instant) -> Result<bool, StoreError> {
        let Some(numbers) = self.state.feedback.numbers(token, monotonic) else { return Ok(false) };
        self.backend.submit(vec![Mutation::DropFeedback { numbers }]).await.map(|_| true)
    }

    /// Gives a batch of feedback back, to be delivered again. `false` when it is not locked any more.
    pub fn abandon_feedback(&self, token: LockToken, monotonic: Instant) -> bool {
        self.state.feedback.numbers(token, monotonic).is_some() && self.state.feedback.release(token)
    }

    /// What the queues hold, and what became of messages.
    pub fn queue_counts(&self) -> QueueCounts {
        let (messages, oldest) = {
            let deadlines = self.state.deadlines();
            (deadlines.len(), deadlines.oldest())
        };
        let ended = |outcome: Outcome| self.state.outcomes[outcome as usize].load(Ordering::Relaxed);
        QueueCounts {
            messages,
            oldest,
            feedback_records: self.state.feedback.len(),
            completed: ended(Outcome::Completed),
            rejected: ended(Outcome::Rejected),
            expired: ended(Outcome::Expired),
            delivery_count_exceeded: ended(Outcome::DeliveryCountExceeded),
            purged: ended(Outcome::Purged),
        }
    }

    pub(crate) fn feedback_queue(&self) -> &FeedbackQueue {
        &self.state.feedback
    }

    pub(crate) fn feedback_limits(&self) -> &FeedbackLimits {
        &self.limits.feedback
    }

    /// Stores the outcome of a message; whether it was still there to have one.
    pub(crate) async fn settle(
        &self,
        entry: &Entry,
        message: &C2dMessage,
        outcome: Outcome,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let id = entry.identity().id.clone();
        let mut mutations = vec![self.settling(&id, message, outcome, now)];
        if message.ack.wants(outcome) {
            let surplus = self.state.feedback.surplus(&self.limits.feedback);
            if !surplus.is_empty() {
                mutations.push(Mutation::DropFeedback { numbers: surplus });
            }
        }
        let written = self.backend.submit(mutations).await?;
        Ok(written.first() == Some(&Written::Found(true)))
    }

    /// Stores that deliveries ended without an answer. Should that fail, a repeat after a restart may not be marked as
    /// one.
    pub(crate) async fn note_deliveries(&self, entry: &Entry, unanswered: &[(u64, u32)]) {
        let notes = noting(entry, unanswered);
        if !notes.is_empty() {
            let _ = self.backend.submit(notes).await;
        }
    }

    /// The same without waiting for it; if there is no room for it now, it is left undone.
    pub(crate) fn post_deliveries(&self, entry: &Entry, unanswered: &[(u64, u32)]) {
        let notes = noting(entry, unanswered);
        if !notes.is_empty() {
            self.backend.post(notes);
        }
    }

    fn settling(&self, id: &IdentityId, message: &C2dMessage, outcome: Outcome, now: Timestamp) -> Mutation {
        let feedback = message
            .ack
            .wants(outcome)
            .then(|| record::encode_feedback(&Feedback::of(id, message, outcome, now)));
        Mutation::Settle { id: id.clone(), number: message.number, outcome, feedback }
    }

    /// What to write about a message that is due. It is looked at again later in any case, should the write fail.
    fn settle_due(&self, entry: &Entry, number: u64, now: Timestamp) -> Option<Mutation> {
        let (mutation, again) = match entry.queue.due(number, now) {
            Due::Gone => (None, now.checked_add(TRY_AGAIN).unwrap_or(Timestamp::MAX)),
            Due::Later(again) => (None, again),
            Due::Settle(message) => {
                let id = entry.identity().id.clone();
                let again = now.checked_add(TRY_AGAIN).unwrap_or(Timestamp::MAX);
                (Some(self.settling(&id, &message, Outcome::Expired, now)), again)
            }
        };
        self.state.deadlines().postpone(number, again);
        mutation
    }

    fn check_message(&self, message: &NewC2d, now: Timestamp) -> Result<Timestamp, SendError> {
        let size = message.size();
        if size > self.limits.c2d_bytes_max {
            return Err(SendError::TooLarge { size, limit: self.limits.c2d_bytes_max });
        }
        if message.message_id.as_ref().is_some_and(|id| id.chars().count() > MESSAGE_ID_CHARS_MAX) {
            return Err(SendError::LongMessageId { limit: MESSAGE_ID_CHARS_MAX });
        }
        let system = [
            &message.message_id,
            &message.correlation_id,
            &message.user_id,
            &message.content_type,
            &message.content_encoding,
            &message.to,
        ];
        let application = message.properties.iter().flat_map(|(name, value)| [name, value]);
        if system.into_iter().flatten().chain(application).any(|text| text.contains('\0')) {
            return Err(SendError::BadProperty);
        }
        let bad_expiry = SendError::BadExpiry { max_seconds: self.limits.c2d_ttl_max.as_secs() };
        let Some(expiry) = message.expiry else {
            return now.checked_add(self.limits.c2d_ttl_default).map_err(|_| bad_expiry);
        };
        let latest = now.checked_add(self.limits.c2d_ttl_max).unwrap_or(Timestamp::MAX);
        if expiry <= now || expiry > latest { Err(bad_expiry) } else { Ok(expiry) }
    }
}

impl RegistryState {
    pub(super) fn deadlines(&self) -> MutexGuard<'_, Deadlines> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a message in the queue of exactly the generation it is for.
    pub(super) fn put_message(&self, message: C2dMessage, to: &IdentityId) {
        let entry = self.entry(to).filter(|entry| entry.identity().generation == message.generation);
        let Some(entry) = entry else { return };
        let message = Arc::new(message);
        self.queued_bytes.fetch_add(message.memory(), Ordering::Relaxed);
        self.deadlines().insert(&entry, &message);
        entry.queue.push(message);
    }

    /// The last run was killed: which messages were on their way to a subscriber then is not known. They count as
    /// repeats, which may be wrong and does no harm; to call a repeat a first delivery would.
    pub(super) fn suspect_repeats(&self) {
        let entries = self.deadlines().entries();
        entries
            .iter()
            .filter(|entry| entry.subscriptions().is_some())
            .for_each(|entry| entry.queue.suspect_repeats());
    }

    pub(super) fn remove_message(&self, id: &IdentityId, number: u64, outcome: Outcome) {
        self.deadlines().remove(number);
        self.outcomes[outcome as usize].fetch_add(1, Ordering::Relaxed);
        let Some(message) = self.entry(id).and_then(|entry| entry.queue.remove(number)) else { return };
        self.queued_bytes.fetch_sub(message.memory(), Ordering::Relaxed);
        if outcome == Outcome::Expired {
            self.notify(id.clone(), ChangeKind::MessageExpired(message));
        }
    }

    /// Drops the messages and the feedback of a deleted identity.
    pub(super) fn forget_messages(&self, id: &IdentityId, entry: &Entry) {
        for message in entry.queue.clear() {
            self.deadlines().remove(message.number);
            self.queued_bytes.fetch_sub(message.memory(), Ordering::Relaxed);
        }
        self.feedback.forget(id);
    }
}

fn noting(entry: &Entry, unanswered: &[(u64, u32)]) -> Vec<Mutation> {
    let id = &entry.identity().id;
    let note = |(number, delivery_count): &(u64, u32)| Mutation::NoteDelivery {
        id: id.clone(),
        number: *number,
        delivery_count: *delivery_count,
    };
    unanswered.iter().map(note).collect()
}

const MESSAGE_ID_CHARS_MAX: usize = 128;
/// Messages looked at in one go.
const DUE_AT_ONCE: usize = 512;
/// When to try again to store that a message has expired.
const TRY_AGAIN: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests;
