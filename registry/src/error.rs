//! What can go wrong at the edge of this crate.

use crate::backend::StoreError;
use crate::id::IdentityId;

/// Why an operation on the registry was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// An identity of this id is registered.
    #[error("{0} is already registered")]
    AlreadyExists(IdentityId),
    /// No identity of this id is registered.
    #[error("{0} is not registered")]
    NotFound(IdentityId),
    /// The caller's etag is not the stored one.
    #[error("{0} has another etag by now")]
    PreconditionFailed(IdentityId),
    /// The device may have no more modules.
    #[error("{device} has {limit} modules, which is the limit")]
    TooManyModules {
        /// Which device.
        device: IdentityId,
        /// How many it may have.
        limit: usize,
    },
    /// The generation that was meant is gone.
    #[error("{0} was deleted meanwhile; it may have been registered again")]
    StaleGeneration(IdentityId),
    /// The store refused the write.
    #[error(transparent)]
    Store(StoreError),
}

/// Why a cloud-to-device message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// No identity of this id is registered.
    #[error("{0} is not registered")]
    NotFound(IdentityId),
    /// The identity is disabled.
    #[error("{0} is disabled")]
    Disabled(IdentityId),
    /// The identity's access list does not allow it to receive messages.
    #[error("{0} may not receive cloud-to-device messages: its access list lacks c2d")]
    AccessDenied(IdentityId),
    /// The queue is full.
    #[error("the queue of {to} holds {limit} messages, which is the limit")]
    QueueFull {
        /// Whose queue.
        to: IdentityId,
        /// How many messages it takes.
        limit: usize,
    },
    /// The message is too large.
    #[error("the message has {size} bytes, body and properties together; the limit is {limit}")]
    TooLarge {
        /// Its body and properties, in bytes.
        size: usize,
        /// How many bytes it may have.
        limit: usize,
    },
    /// The expiry is past or too far ahead.
    #[error("the expiry is past or more than {max_seconds} s ahead")]
    BadExpiry {
        /// How far ahead it may be, in seconds.
        max_seconds: u64,
    },
    /// The message id is too long.
    #[error("a message id has at most {limit} characters")]
    LongMessageId {
        /// How many characters it may have.
        limit: usize,
    },
    /// A property holds a NUL, which no topic can carry.
    #[error("a property may not contain NUL")]
    BadProperty,
    /// The messages of all queues together are as large as the hub allows.
    #[error("the messages waiting in all queues of this hub fill its memory limit")]
    HubFull,
    /// The store refused the write.
    #[error(transparent)]
    Store(StoreError),
}

/// Why a delivery was not completed, abandoned or rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    /// The lock has expired, or the message has an outcome already.
    #[error("the lock has expired, or the message is gone")]
    LockLost,
    /// The store refused the write.
    #[error(transparent)]
    Store(#[from] StoreError),
}
