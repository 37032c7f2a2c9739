//! What a peer does that ends its session.

use portcullis_registry::access::AccessDenied;

use super::allowance;
use crate::hub::close_reason::CloseReason;
use crate::iothub::topic::TopicError;

/// What a peer did that ends its session. MQTT 3.1.1 has no answer to it but closing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("{0} is not allowed now")]
    UnexpectedPacket(&'static str),
    #[error("published at quality of service 2")]
    QoS2,
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error(transparent)]
    Access(#[from] AccessDenied),
    #[error("{count} filters in one packet; at most {count_max} are allowed")]
    TooManyFilters { count: usize, count_max: usize },
    #[error("more than {} packets a second that carry no message", allowance::PER_SECOND)]
    Flood,
}

impl From<SessionError> for CloseReason {
    fn from(error: SessionError) -> Self {
        match error {
            SessionError::Access(denied) => CloseReason::AccessDenied(denied),
            other => CloseReason::ProtocolViolation(other.to_string()),
        }
    }
}
