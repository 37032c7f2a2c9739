//! Errors as IoT Hub writes them: status, name, number and text. The reason for the operator is separate.
//!
//! This file has the errors of values and of the registry. `operations::problem` has those of operations.

use axum::http::StatusCode;
use portcullis_registry::access::AccessDenied;
use portcullis_registry::authority::AuthorityError;
use portcullis_registry::backend::StoreError;
use portcullis_registry::error::{RegistryError, SendError, SettleError};
use portcullis_registry::id::{IdentityId, InvalidId};

use super::error_code::ErrorCode;
use crate::auth::AuthError;

/// An error for the caller, and a reason that only the operator sees.
#[derive(Debug)]
pub(crate) struct Problem {
    code: ErrorCode,
    text: String,
    for_operator: Option<String>,
}

impl Problem {
    pub(crate) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into(), for_operator: None }
    }

    /// 401. Only the operator learns which check failed.
    pub(crate) fn unauthorized(reason: impl Into<String>) -> Self {
        let problem = Self::new(ErrorCode::IotHubUnauthorizedAccess, "Unauthorized");
        Self { for_operator: Some(reason.into()), ..problem }
    }

    /// 403. The caller is known, so the text may name what it lacks.
    pub(crate) fn forbidden(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::GenericForbidden, text)
    }

    /// The same for a caller that has authenticated. The operation refuses it because it lacks a right, and the text
    /// may name that right.
    pub(crate) fn for_known_caller(self) -> Self {
        match self.status() {
            StatusCode::UNAUTHORIZED => Self::forbidden(self.for_operator()),
            _ => self,
        }
    }

    /// 429. Only the operator learns the reason.
    pub(crate) fn throttled(reason: impl Into<String>) -> Self {
        let problem = Self::new(ErrorCode::ThrottlingException, "too many requests");
        Self { for_operator: Some(reason.into()), ..problem }
    }

    pub(crate) fn argument_invalid(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::ArgumentInvalid, text)
    }

    pub(crate) fn argument_null(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::ArgumentNull, text)
    }

    pub(crate) fn invalid_api_version() -> Self {
        Self::new(ErrorCode::InvalidProtocolVersion, "api-version must be given once, as YYYY-MM-DD")
    }

    pub(crate) fn deserialization(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::DeserializationError, text)
    }

    pub(crate) fn body_too_large() -> Self {
        Self::new(ErrorCode::MessageTooLarge, "the request body is too large")
    }

    pub(crate) fn request_timeout() -> Self {
        Self::new(ErrorCode::RequestTimedOut, "the request body did not arrive in time")
    }

    /// 500. Only the operator learns the reason.
    pub(crate) fn internal(reason: impl Into<String>) -> Self {
        let problem = Self::new(
            ErrorCode::ServerError,
            "the hub cannot handle the request because of an error of its own; the operator finds it in the hub's log",
        );
        Self { for_operator: Some(reason.into()), ..problem }
    }

    /// 503. The caller may try again. Only the operator learns the reason.
    pub(crate) fn unavailable(text: impl Into<String>, reason: impl Into<String>) -> Self {
        let problem = Self::new(ErrorCode::ServiceUnavailable, text);
        Self { for_operator: Some(reason.into()), ..problem }
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(ErrorCode::GenericNotFound, text)
    }

    /// The path exists, but not with this method.
    pub(crate) fn method_not_allowed() -> Self {
        Self::new(ErrorCode::GenericMethodNotAllowed, "this path does not take this method")
    }

    pub(crate) fn managed_identity_not_enabled() -> Self {
        Self::new(
            ErrorCode::ManagedIdentityNotEnabled,
            "this hub has no managed identity for storage; use keyBased and URIs with a SAS",
        )
    }

    pub(crate) fn encoding_not_taken() -> Self {
        Self::new(
            ErrorCode::GenericUnsupportedMediaType,
            "a JSON body must have the charset UTF-8 and no Content-Encoding",
        )
    }

    /// 404, as an IoT Hub of a tier without twins answers.
    pub(crate) fn twins_not_supported() -> Self {
        Self::new(ErrorCode::FeatureNotSupported, "Device twins are not supported by this hub.")
    }

    fn no_such_identity(id: &IdentityId) -> Self {
        let is_module = id.module.is_some();
        let code = if is_module { ErrorCode::ModuleNotFound } else { ErrorCode::DeviceNotFound };
        Self::new(code, id.to_string())
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// IoT Hub's name of the error.
    pub(crate) fn name(&self) -> &'static str {
        self.code.name()
    }

    /// IoT Hub's number of the error.
    pub(crate) fn number(&self) -> u32 {
        self.code.number()
    }

    /// What the caller is told, with the error's name.
    pub(crate) fn message(&self) -> String {
        self.code.message(&self.text)
    }

    /// The answer to a request over MQTT that IoT Hub answers with the error's number, as it does those for twins.
    pub(crate) fn numbered_body(&self) -> String {
        serde_json::json!({ "errorCode": self.number(), "message": self.message() }).to_string()
    }

    /// The text for the caller.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The reason for the operator.
    pub(crate) fn for_operator(&self) -> &str {
        self.for_operator.as_deref().unwrap_or(&self.text)
    }
}

impl From<InvalidId> for Problem {
    fn from(error: InvalidId) -> Self {
        Self::argument_invalid(error.to_string())
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        Self::unauthorized(error.to_string())
    }
}

impl From<AuthorityError> for Problem {
    fn from(error: AuthorityError) -> Self {
        let text = error.to_string();
        match error {
            AuthorityError::NotFound(_) => Self::not_found(text),
            AuthorityError::AlreadyExists(_) | AuthorityError::SameCertificate(_) => {
                Self::new(ErrorCode::GenericConflict, text)
            }
            AuthorityError::PreconditionFailed(_) => Self::new(ErrorCode::PreconditionFailed, text),
            AuthorityError::TooMany => Self::new(ErrorCode::GenericForbidden, text),
            AuthorityError::AlreadyVerified(_)
            | AuthorityError::NoCode(_)
            | AuthorityError::CodeExpired { .. }
            | AuthorityError::Reason => Self::argument_invalid(text),
        }
    }
}

/// The device has authenticated, so the text may name its rights.
impl From<AccessDenied> for Problem {
    fn from(error: AccessDenied) -> Self {
        Self::new(ErrorCode::GenericForbidden, error.to_string())
    }
}

impl From<SettleError> for Problem {
    fn from(error: SettleError) -> Self {
        match error {
            SettleError::LockLost => Self::new(ErrorCode::DeviceMessageLockLost, error.to_string()),
            SettleError::Store(error) => error.into(),
        }
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let text = error.to_string();
        match error {
            RegistryError::AlreadyExists(id) if id.module.is_some() => {
                Self::new(ErrorCode::ModuleAlreadyExistsOnDevice, text)
            }
            RegistryError::AlreadyExists(id) => Self::new(
                ErrorCode::DeviceAlreadyExists,
                format!("A device with ID '{id}' is already registered."),
            ),
            RegistryError::NotFound(id) => Self::no_such_identity(&id),
            RegistryError::StaleGeneration(id) => Self::no_such_identity(&id),
            RegistryError::PreconditionFailed(_) => {
                Self::new(ErrorCode::PreconditionFailed, "Precondition failed: Invalid ETag")
            }
            RegistryError::TooManyModules { .. } => Self::new(ErrorCode::TooManyModulesOnDevice, text),
            RegistryError::Store(error) => error.into(),
        }
    }
}

impl From<SendError> for Problem {
    fn from(error: SendError) -> Self {
        let text = error.to_string();
        match error {
            // IoT Hub: a disabled device is answered as a missing one.
            SendError::NotFound(id) | SendError::Disabled(id) => {
                Self { for_operator: Some(text), ..Self::no_such_identity(&id) }
            }
            // Ours: IoT Hub knows no access lists.
            SendError::AccessDenied(_) => Self::new(ErrorCode::GenericForbidden, text),
            SendError::QueueFull { .. } => Self::new(ErrorCode::DeviceMaximumQueueDepthExceeded, text),
            SendError::TooLarge { .. } => Self::new(ErrorCode::MessageTooLarge, text),
            SendError::BadExpiry { .. } => Self::new(ErrorCode::InvalidMessageExpiryTime, text),
            SendError::LongMessageId { .. } | SendError::BadProperty => Self::argument_invalid(text),
            SendError::HubFull => Self::new(ErrorCode::ServiceUnavailable, text),
            SendError::Store(error) => error.into(),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        // Whatever the reason, the hub has acknowledged nothing and the caller may try again.
        Self::unavailable("the hub cannot write to its store now; try again later", error.to_string())
    }
}

/// When a caller may try again, in seconds.
pub(crate) const RETRY_AFTER_SECONDS: &str = "1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t712_what_only_the_operator_may_know_is_not_sent() {
        let problem = Problem::from(StoreError::Fatal("/var/lib/portcullis/store: disk full".into()));
        assert!(problem.for_operator().contains("/var/lib") && !problem.text().contains("/var/lib"));
    }
}
