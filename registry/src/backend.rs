//! The boundary to what keeps things: preconditions go down with each write, changes come up after it is stable.
//!
//! Above it stay records, limits, clocks and expiry; below it SQL, files and group commit. A backend decides a write's
//! preconditions itself, in the order in which it makes writes stable, so that one whose truth lies on other machines
//! fits too. A write is answered only after the change feed has had its changes, so whoever gets the answer sees them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use crate::id::{GenerationId, IdentityId, Revision};
use crate::message::Outcome;

pub mod sqlite;

/// Keeps identities, subscriptions, messages, feedback and hub-level records on stable storage.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Everything kept, as the changes that made it; devices before their modules, messages in order. Once, at start.
    fn load(&self, visit: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError>;

    /// From now on writes are taken; `feed` gets each change, in the order in which they became stable.
    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError>;

    /// Does all of `mutations` or none of them. One result each, in order. `Ok` means on stable storage.
    /// Dropping the future does not undo the write.
    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_>;

    /// As `submit`, for what nobody waits for; `false` when there is no room for it now.
    fn post(&self, mutations: Vec<Mutation>) -> bool;

    /// Resolves when the backend takes no more writes, for whatever reason.
    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Finishes what was submitted and closes. An error says why the store did not end in order; closing what is
    /// closed already is none. Blocks.
    fn close(&self) -> Result<(), StoreError>;
}

/// Takes each change that became stable; must not block for long and must not submit.
pub type ChangeFeed = Box<dyn Fn(Change) + Send>;

/// What becomes of a write.
pub type Submitted<'a> = Pin<Box<dyn Future<Output = Result<Vec<Written>, StoreError>> + Send + 'a>>;

/// What must hold for a mutation to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Is(Revision),
}

/// One change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Creates or replaces an identity. A module needs its device, and counts against `modules_max` when it is new.
    PutIdentity {
        id: IdentityId,
        generation: GenerationId,
        expect: Expect,
        modules_max: usize,
        record: Vec<u8>,
    },
    /// Deletes an identity with its subscriptions, messages and feedback; a device with its modules and theirs.
    DeleteIdentity { id: IdentityId, expect: Expect },
    /// Stores or removes the subscriptions of exactly this generation.
    PutSubscriptions { id: IdentityId, generation: GenerationId, subscriptions: Option<Vec<u8>> },
    /// Adds a message to the queue of exactly this generation, unless `queue_max` are in it.
    Enqueue { id: IdentityId, generation: GenerationId, queue_max: usize, record: Vec<u8> },
    /// Removes a message, and adds the feedback its sender asked for, if any. One that is gone already is no error,
    /// and leaves no feedback.
    Settle { id: IdentityId, number: u64, outcome: Outcome, feedback: Option<Vec<u8>> },
    /// Keeps that a message was delivered in vain, and how often it was abandoned. One that is gone is no error.
    NoteDelivery { id: IdentityId, number: u64, delivery_count: u32 },
    /// Removes feedback; what is gone already is no error.
    DropFeedback { numbers: Vec<u64> },
    /// Keeps a hub-level record.
    PutMeta { key: String, value: Vec<u8> },
}

/// The result of a mutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The identity's new revision.
    Revision(Revision),
    /// The message's number: greater than any message ever had.
    Number(u64),
    /// Whether the message was there.
    Found(bool),
    Done,
}

/// One change that is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    IdentityPut { id: IdentityId, generation: GenerationId, revision: Revision, record: Vec<u8> },
    IdentityDeleted { id: IdentityId },
    SubscriptionsPut { id: IdentityId, subscriptions: Option<Vec<u8>> },
    MessagePut { id: IdentityId, number: u64, generation: GenerationId, record: Vec<u8> },
    DeliveryNoted { id: IdentityId, number: u64, delivery_count: u32 },
    MessageGone { id: IdentityId, number: u64, outcome: Outcome },
    FeedbackPut { id: IdentityId, number: u64, record: Vec<u8> },
    FeedbackGone { numbers: Vec<u64> },
    MetaPut { key: String, value: Vec<u8> },
}

/// Why a write was not done, or a store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("what is stored was changed meanwhile")]
    Conflict,
    #[error("it is not in the store")]
    NotFound,
    #[error("the queue holds {0} messages already")]
    QueueFull(usize),
    #[error("the device has {0} modules already")]
    TooManyModules(usize),
    /// Certainly not done.
    #[error("the store takes no writes")]
    Unavailable,
    #[error("the disk is full")]
    DiskFull,
    /// Nothing can be acknowledged any more.
    #[error("{0}")]
    Fatal(String),
}
