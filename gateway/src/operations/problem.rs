//! What each error of an operation is to IoT Hub.

use crate::iothub::error_code::ErrorCode;
use crate::iothub::problem::Problem;
use crate::operations::audit::AuditError;
use crate::operations::authorities::CaError;
use crate::operations::bulk::ChangeError;
use crate::operations::c2d::{C2dError, DeviceQueueError};
use crate::operations::d2c::IngestError;
use crate::operations::feedback::FeedbackError;
use crate::operations::identities::IdentityError;
use crate::operations::jobs::JobError;
use crate::operations::policies::PolicyError;
use crate::operations::query::QueryError;
use crate::operations::watch::WatchError;

impl From<IdentityError> for Problem {
    fn from(error: IdentityError) -> Self {
        match error {
            IdentityError::Forbidden(error) => error.into(),
            IdentityError::Registry(error) => error.into(),
        }
    }
}

impl From<CaError> for Problem {
    fn from(error: CaError) -> Self {
        let text = error.to_string();
        match error {
            CaError::Forbidden(error) => error.into(),
            CaError::Certificate(_)
            | CaError::OutOfTime(_)
            | CaError::NoProof { .. }
            | CaError::Unreadable(_) => Self::argument_invalid(text),
            CaError::Refused(error) => error.into(),
            CaError::Store(error) => error.into(),
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let text = error.to_string();
        match error {
            JobError::Forbidden(error) => error.into(),
            JobError::NotFound(_) => Self::new(ErrorCode::JobNotFound, text),
            JobError::NoFile => Self::not_found(text),
            JobError::Busy => Self::new(ErrorCode::JobQuotaExceeded, text),
            JobError::Container(..) => Self::new(ErrorCode::BlobContainerValidationError, text),
            JobError::Upload(_) => Self::argument_invalid(text),
            JobError::TooLarge(_) => Self::new(ErrorCode::MessageTooLarge, text),
            JobError::Idle(_) => Self::request_timeout(),
            JobError::NothingToTakeBack => Self::new(ErrorCode::JobRunPreconditionFailed, text),
            JobError::Io(_) => Self::unavailable("the files of jobs cannot be written now", text),
        }
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::DefinedMultipleTimes(_) => Self::new(ErrorCode::DeviceDefinedMultipleTimes, text),
            ChangeError::ChangedSince(_) | ChangeError::HasModules(_) | ChangeError::UndoDamaged => {
                Self::new(ErrorCode::PreconditionFailed, text)
            }
            ChangeError::NoTwins(_) => Self::new(ErrorCode::FeatureNotSupported, text),
            ChangeError::Identity(error) => error.into(),
        }
    }
}

impl From<PolicyError> for Problem {
    fn from(error: PolicyError) -> Self {
        let text = error.to_string();
        match error {
            PolicyError::Forbidden(error) => error.into(),
            PolicyError::NotFound(_) => Self::not_found(text),
            PolicyError::AlreadyExists(_) => Self::new(ErrorCode::GenericConflict, text),
            PolicyError::BuiltIn(_) | PolicyError::Configured(_) => {
                Self::new(ErrorCode::GenericForbidden, text)
            }
            PolicyError::TooMany => Self::new(ErrorCode::GenericForbidden, text),
            PolicyError::Invalid(_) => Self::argument_invalid(text),
            PolicyError::Stored(_) | PolicyError::Stopping => {
                Self::unavailable("the hub cannot write to its store now; try again later", text)
            }
            PolicyError::Store(error) => error.into(),
        }
    }
}

impl From<AuditError> for Problem {
    fn from(error: AuditError) -> Self {
        match error {
            AuditError::Forbidden(error) => error.into(),
            AuditError::Unreadable(_) => Self::internal(error.to_string()),
        }
    }
}

impl From<WatchError> for Problem {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Forbidden(error) => error.into(),
            WatchError::TooMany(_) => Self::throttled(error.to_string()),
        }
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let text = error.to_string();
        match error {
            QueryError::Forbidden(error) => error.into(),
            QueryError::Invalid(_) | QueryError::Continuation | QueryError::TooManyGroups(_) => {
                Self::argument_invalid(text)
            }
        }
    }
}

impl From<C2dError> for Problem {
    fn from(error: C2dError) -> Self {
        match error {
            C2dError::Forbidden(error) => error.into(),
            C2dError::PropertiesTooLong => {
                Self::new(ErrorCode::MessageTooLarge, "the properties are too long for an MQTT topic")
            }
            C2dError::Send(error) => error.into(),
            C2dError::Queue(error) => error.into(),
        }
    }
}

impl From<DeviceQueueError> for Problem {
    fn from(error: DeviceQueueError) -> Self {
        match error {
            DeviceQueueError::Denied(error) => error.into(),
            DeviceQueueError::Settle(error) => error.into(),
        }
    }
}

impl From<FeedbackError> for Problem {
    fn from(error: FeedbackError) -> Self {
        match error {
            FeedbackError::Forbidden(error) => error.into(),
            FeedbackError::Settle(error) => error.into(),
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        match error {
            IngestError::Denied(error) => error.into(),
            IngestError::Bag(error) => Self::argument_invalid(error.to_string()),
            IngestError::Bus(error) => Self::new(ErrorCode::ServiceUnavailable, error.to_string()),
        }
    }
}
