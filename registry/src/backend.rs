//! The boundary to what keeps things: preconditions go down with each write, changes come up after it is stable.
//!
//! Above it stay records, limits, clocks and expiry; below it SQL, files and group commit. A backend decides a write's
//! preconditions itself, in the order in which it makes writes stable, so that one whose truth lies on other machines
//! fits too. A write is answered only after the change feed has had its changes, so the caller finds them in the map.

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

    /// As `submit`, without an answer; `false` when there is no room for it now.
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
    /// The identity is not there.
    Absent,
    /// The identity is there in exactly this state.
    Is(Revision),
}

/// One change that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Creates or replaces an identity. A module needs its device, and counts against `modules_max` when it is new.
    PutIdentity {
        /// Which identity.
        id: IdentityId,
        /// Its generation; the stored one's when it is replaced.
        generation: GenerationId,
        /// What must be stored now.
        expect: Expect,
        /// How many modules the device may have, this one included.
        modules_max: usize,
        /// What is stored, as `record` encodes it.
        record: Vec<u8>,
    },
    /// Deletes an identity with its subscriptions, messages and feedback; a device with its modules and theirs.
    DeleteIdentity {
        /// Which identity.
        id: IdentityId,
        /// What must be stored now.
        expect: Expect,
    },
    /// Stores or removes the subscriptions of exactly this generation.
    PutSubscriptions {
        /// Whose they are.
        id: IdentityId,
        /// The generation they belong to.
        generation: GenerationId,
        /// The new subscriptions; none removes them.
        subscriptions: Option<Vec<u8>>,
    },
    /// Adds a message to the queue of exactly this generation, unless `queue_max` are in it.
    Enqueue {
        /// To whom it goes.
        id: IdentityId,
        /// The generation it is for.
        generation: GenerationId,
        /// How many messages the queue takes.
        queue_max: usize,
        /// The message, as `record` encodes it.
        record: Vec<u8>,
    },
    /// Removes a message, and adds the feedback its sender asked for, if any. One that is gone already is no error,
    /// and leaves no feedback.
    Settle {
        /// In whose queue it is.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// What became of it.
        outcome: Outcome,
        /// The feedback for its sender, as `record` encodes it.
        feedback: Option<Vec<u8>>,
    },
    /// Keeps that a message was delivered without an answer, and how often it was abandoned. One that is gone is no
    /// error.
    NoteDelivery {
        /// In whose queue it is.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// How often it was abandoned by now.
        delivery_count: u32,
    },
    /// Removes feedback; what is gone already is no error.
    DropFeedback {
        /// The numbers of the records.
        numbers: Vec<u64>,
    },
    /// Keeps a hub-level record.
    PutMeta {
        /// Under which name it is kept.
        key: String,
        /// The record, in bytes its writer chose.
        value: Vec<u8>,
    },
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
    /// Done; there is nothing to report.
    Done,
}

/// One change that is on stable storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An identity was created or replaced.
    IdentityPut {
        /// Which identity.
        id: IdentityId,
        /// Its generation.
        generation: GenerationId,
        /// Its new revision.
        revision: Revision,
        /// What was stored, as `record` encodes it.
        record: Vec<u8>,
    },
    /// An identity was deleted; each module of a device has a change of its own, before the device's.
    IdentityDeleted {
        /// Which identity.
        id: IdentityId,
    },
    /// Subscriptions were stored or removed.
    SubscriptionsPut {
        /// Whose they are.
        id: IdentityId,
        /// The stored subscriptions; none when they were removed.
        subscriptions: Option<Vec<u8>>,
    },
    /// A message was added to a queue.
    MessagePut {
        /// In whose queue it is.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// The generation it is for.
        generation: GenerationId,
        /// The message, as `record` encodes it.
        record: Vec<u8>,
    },
    /// A delivery was noted that ended without an answer, or an abandonment.
    DeliveryNoted {
        /// In whose queue the message is.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// How often it was abandoned by now.
        delivery_count: u32,
    },
    /// A message left its queue.
    MessageGone {
        /// In whose queue it was.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// What became of it.
        outcome: Outcome,
    },
    /// Feedback was added.
    FeedbackPut {
        /// Whose message it is about.
        id: IdentityId,
        /// Its number.
        number: u64,
        /// The feedback, as `record` encodes it.
        record: Vec<u8>,
    },
    /// Feedback was removed.
    FeedbackGone {
        /// The numbers of the records.
        numbers: Vec<u64>,
    },
    /// A hub-level record was stored.
    MetaPut {
        /// Under which name it is kept.
        key: String,
        /// The record, in bytes its writer chose.
        value: Vec<u8>,
    },
}

/// Why a write was not done, or a store cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// What is stored is not what the write expected.
    #[error("what is stored was changed meanwhile")]
    Conflict,
    /// What the write needs is not stored.
    #[error("it is not in the store")]
    NotFound,
    /// The queue is full; this many messages fit.
    #[error("the queue holds {0} messages already")]
    QueueFull(usize),
    /// The device has as many modules as it may have; this many fit.
    #[error("the device has {0} modules already")]
    TooManyModules(usize),
    /// Certainly not done.
    #[error("the store takes no writes")]
    Unavailable,
    /// There is no room on the disk. Certainly not done; it may be done when there is room.
    #[error("the disk is full")]
    DiskFull,
    /// Nothing can be acknowledged any more.
    #[error("{0}")]
    Fatal(String),
}
