//! What can go wrong at the edge of this crate.

use crate::backend::StoreError;
use crate::id::IdentityId;

/// Why an operation on the registry was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    #[error("{0} is already registered")]
    AlreadyExists(IdentityId),
    #[error("{0} is not registered")]
    NotFound(IdentityId),
    #[error("{0} has another etag by now")]
    PreconditionFailed(IdentityId),
    #[error("{device} has {limit} modules, which is the limit")]
    TooManyModules { device: IdentityId, limit: usize },
    #[error("{0} was deleted meanwhile; it may have been registered again")]
    StaleGeneration(IdentityId),
    #[error(transparent)]
    Store(StoreError),
}

/// Why a cloud-to-device message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("{0} is not registered")]
    NotFound(IdentityId),
    #[error("{0} is disabled")]
    Disabled(IdentityId),
    #[error("{0} may not receive cloud-to-device messages: its access list lacks c2d")]
    AccessDenied(IdentityId),
    #[error("the queue of {to} holds {limit} messages, which is the limit")]
    QueueFull { to: IdentityId, limit: usize },
    #[error("the message has {size} bytes, body and properties together; the limit is {limit}")]
    TooLarge { size: usize, limit: usize },
    #[error("the expiry is past or more than {max_seconds} s ahead")]
    BadExpiry { max_seconds: u64 },
    #[error("a message id has at most {limit} characters")]
    LongMessageId { limit: usize },
    #[error("a property may not contain NUL")]
    BadProperty,
    #[error("the messages waiting in all queues of this hub fill its memory limit")]
    HubFull,
    #[error(transparent)]
    Store(StoreError),
}

/// Why a delivery was not completed, abandoned or rejected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettleError {
    #[error("the lock has expired, or the message is gone")]
    LockLost,
    #[error(transparent)]
    Store(#[from] StoreError),
}
