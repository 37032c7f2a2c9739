//! A store that keeps nothing. It completes each write at once, on the calling thread, so that a bench measures the
//! registry alone.

use std::future::{pending, ready};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use portcullis_registry::backend::{Backend, Change, ChangeFeed, Mutation, StoreError, Submitted, Written};
use portcullis_registry::id::Revision;
use portcullis_registry::store::{Registry, RegistryLimits};

/// A registry on such a store.
pub(crate) fn registry() -> Arc<Registry> {
    Registry::open(Box::new(Unkept::default()), RegistryLimits::default()).expect("a registry")
}

#[derive(Default)]
struct Unkept {
    feed: Mutex<Option<ChangeFeed>>,
    last: AtomicU64,
}

impl std::fmt::Debug for Unkept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unkept")
    }
}

impl Unkept {
    fn next(&self) -> u64 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The change that a mutation makes, and the result for its writer.
    fn done(&self, mutation: Mutation) -> (Vec<Change>, Written) {
        match mutation {
            Mutation::PutIdentity { id, generation, record, .. } => {
                let revision = Revision::new(self.next());
                (vec![Change::IdentityPut { id, generation, revision, record }], Written::Revision(revision))
            }
            Mutation::DeleteIdentity { id, .. } => (vec![Change::IdentityDeleted { id }], Written::Done),
            Mutation::PutSubscriptions { id, subscriptions, .. } => {
                (vec![Change::SubscriptionsPut { id, subscriptions }], Written::Done)
            }
            Mutation::Enqueue { id, generation, record, .. } => {
                let number = self.next();
                (vec![Change::MessagePut { id, number, generation, record }], Written::Number(number))
            }
            Mutation::Settle { id, number, outcome, feedback } => {
                let told = feedback.map(|record| Change::FeedbackPut {
                    id: id.clone(),
                    number: self.next(),
                    record,
                });
                let gone = Change::MessageGone { id, number, outcome };
                (std::iter::once(gone).chain(told).collect(), Written::Found(true))
            }
            Mutation::NoteDelivery { id, number, delivery_count } => {
                (vec![Change::DeliveryNoted { id, number, delivery_count }], Written::Found(true))
            }
            Mutation::DropFeedback { numbers } => (vec![Change::FeedbackGone { numbers }], Written::Done),
            Mutation::PutMeta { key, value } => (vec![Change::MetaPut { key, value }], Written::Done),
        }
    }

    fn write(&self, mutations: Vec<Mutation>) -> Vec<Written> {
        let feed = self.feed.lock().expect("nobody panics here");
        let tell = feed.as_ref().expect("a store that was started");
        let write = |mutation| {
            let (changes, written) = self.done(mutation);
            changes.into_iter().for_each(tell);
            written
        };
        mutations.into_iter().map(write).collect()
    }
}

impl Backend for Unkept {
    fn load(&self, _: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        Ok(())
    }

    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError> {
        *self.feed.lock().expect("nobody panics here") = Some(feed);
        Ok(())
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(ready(Ok(self.write(mutations))))
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        self.write(mutations);
        true
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(pending())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
