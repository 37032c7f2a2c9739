//! Which messages wait in all queues, by age and by when something is due for them: so that what expires next is found
//! without a walk over the queues of a million idle devices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;

use crate::entry::Entry;
use crate::message::C2dMessage;

/// Every waiting message, and every lock that ends by itself.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    messages: BTreeMap<u64, WaitingMessage>,
    due: BTreeSet<(Timestamp, u64)>,
    locks: BTreeMap<Instant, Vec<Arc<Entry>>>,
}

#[derive(Debug)]
struct WaitingMessage {
    entry: Arc<Entry>,
    enqueued: Timestamp,
    due: Timestamp,
}

impl Deadlines {
    pub(crate) fn insert(&mut self, entry: &Arc<Entry>, message: &C2dMessage) {
        let waiting =
            WaitingMessage { entry: Arc::clone(entry), enqueued: message.enqueued, due: message.expiry };
        self.due.insert((waiting.due, message.number));
        self.messages.insert(message.number, waiting);
    }

    pub(crate) fn remove(&mut self, number: u64) {
        if let Some(waiting) = self.messages.remove(&number) {
            self.due.remove(&(waiting.due, number));
        }
    }

    /// Looks at a message again at another time.
    pub(crate) fn postpone(&mut self, number: u64, due: Timestamp) {
        if let Some(waiting) = self.messages.get_mut(&number) {
            self.due.remove(&(waiting.due, number));
            waiting.due = due;
            self.due.insert((due, number));
        }
    }

    /// At most `count` messages for which something is due, the longest due first.
    pub(crate) fn due(&self, now: Timestamp, count: usize) -> Vec<(Arc<Entry>, u64)> {
        let due = self.due.iter().take_while(|(due, _)| *due <= now).take(count);
        let found = due.filter_map(|(_, number)| {
            self.messages.get(number).map(|waiting| (Arc::clone(&waiting.entry), *number))
        });
        found.collect()
    }

    /// Notes that a lock on a message of `entry` ends then.
    pub(crate) fn add_lock(&mut self, entry: &Arc<Entry>, until: Instant) {
        self.locks.entry(until).or_default().push(Arc::clone(entry));
    }

    /// The entries whose locks are over; each comes once for each lock.
    pub(crate) fn end_locks(&mut self, monotonic: Instant) -> Vec<Arc<Entry>> {
        let mut over = Vec::new();
        while let Some(first) = self.locks.first_entry().filter(|first| *first.key() <= monotonic) {
            over.extend(first.remove());
        }
        over
    }

    /// Whose messages wait; an entry comes once for each message.
    pub(crate) fn entries(&self) -> Vec<Arc<Entry>> {
        self.messages.values().map(|waiting| Arc::clone(&waiting.entry)).collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// When the oldest message was accepted.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.messages.first_key_value().map(|(_, waiting)| waiting.enqueued)
    }
}
