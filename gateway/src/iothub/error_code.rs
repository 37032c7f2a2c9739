//! IoT Hub's errors: their names, and the status and number that go with each. Nothing else in the gateway pairs them.
//!
//! Source: IoT Hub, "Understand and resolve Azure IoT Hub errors"; `ErrorCode` of the C# SDK.

use axum::http::StatusCode;

/// One line an error: name, status, number.
macro_rules! error_codes {
    ($($name:ident $status:ident $number:literal,)*) => {
        /// An error, by IoT Hub's name of it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum ErrorCode {
            $($name,)*
        }

        impl ErrorCode {
            /// Every error.
            const ALL: &[ErrorCode] = &[$(ErrorCode::$name,)*];

            /// IoT Hub's name of the error.
            pub fn name(self) -> &'static str {
                match self {
                    $(ErrorCode::$name => stringify!($name),)*
                }
            }

            /// The status of an answer over HTTP, and of one over MQTT that has a status.
            pub fn status(self) -> StatusCode {
                match self {
                    $(ErrorCode::$name => StatusCode::$status,)*
                }
            }

            /// IoT Hub's number of the error: a status, and three digits that tell it from others of that status.
            pub fn number(self) -> u32 {
                match self {
                    $(ErrorCode::$name => $number,)*
                }
            }
        }
    };
}

// A number that ends in 000 is IoT Hub's own only where the name is generic; elsewhere no number is documented.
error_codes! {
    GenericBadRequest BAD_REQUEST 400_000,
    InvalidProtocolVersion BAD_REQUEST 400_001,
    InvalidOperation BAD_REQUEST 400_003,
    ArgumentInvalid BAD_REQUEST 400_004,
    ArgumentNull BAD_REQUEST 400_005,
    IotHubFormatError BAD_REQUEST 400_006,
    BlobContainerValidationError BAD_REQUEST 400_008,
    DeviceDefinedMultipleTimes BAD_REQUEST 400_011,
    DeserializationError BAD_REQUEST 400_012,
    BulkRegistryOperationFailure BAD_REQUEST 400_013,
    RequestTimedOut REQUEST_TIMEOUT 400_024,
    ConnectionForcefullyClosedOnNewConnection BAD_REQUEST 400_027,
    InvalidDeviceScope BAD_REQUEST 400_028,
    CannotRegisterModuleToModule BAD_REQUEST 400_301,
    ManagedIdentityNotEnabled BAD_REQUEST 400_000,
    GenericUnauthorized UNAUTHORIZED 401_000,
    IotHubNotFound UNAUTHORIZED 401_001,
    IotHubUnauthorizedAccess UNAUTHORIZED 401_002,
    IotHubUnauthorized UNAUTHORIZED 401_003,
    GenericForbidden FORBIDDEN 403_000,
    IotHubQuotaExceeded FORBIDDEN 403_002,
    JobQuotaExceeded FORBIDDEN 403_003,
    DeviceMaximumQueueDepthExceeded FORBIDDEN 403_004,
    DeviceMaximumQueueSizeExceeded FORBIDDEN 403_007,
    InvalidMessageExpiryTime BAD_REQUEST 403_009,
    DeviceDisabled FORBIDDEN 403_012,
    GenericNotFound NOT_FOUND 404_000,
    DeviceNotFound NOT_FOUND 404_001,
    JobNotFound NOT_FOUND 404_002,
    ModuleNotFound NOT_FOUND 404_010,
    FeatureNotSupported NOT_FOUND 404_013,
    DeviceNotOnline NOT_FOUND 404_103,
    GenericMethodNotAllowed METHOD_NOT_ALLOWED 405_000,
    GenericConflict CONFLICT 409_000,
    DeviceAlreadyExists CONFLICT 409_001,
    LinkCreationConflict CONFLICT 409_002,
    ModuleAlreadyExistsOnDevice CONFLICT 409_301,
    PreconditionFailed PRECONDITION_FAILED 412_001,
    DeviceMessageLockLost PRECONDITION_FAILED 412_002,
    JobRunPreconditionFailed PRECONDITION_FAILED 412_000,
    MessageTooLarge PAYLOAD_TOO_LARGE 413_001,
    TooManyDevices PAYLOAD_TOO_LARGE 413_002,
    TooManyModulesOnDevice PAYLOAD_TOO_LARGE 413_003,
    GenericUnsupportedMediaType UNSUPPORTED_MEDIA_TYPE 415_000,
    ThrottlingException TOO_MANY_REQUESTS 429_001,
    ServerError INTERNAL_SERVER_ERROR 500_001,
    GenericTimeout INTERNAL_SERVER_ERROR 500_008,
    ServiceUnavailable SERVICE_UNAVAILABLE 503_001,
    GatewayTimeout GATEWAY_TIMEOUT 504_101,
}

impl ErrorCode {
    /// The error of this name, if it is one that is known here.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.name() == name)
    }

    /// What a caller is told, as IoT Hub writes it.
    pub fn message(self, text: &str) -> String {
        format!("{PREFIX}{};{text}", self.name())
    }
}

/// The name and the text in what a caller was told: the opposite of [`ErrorCode::message`]. A message of another shape
/// is text and has no name.
pub fn parse_message(message: &str) -> (Option<&str>, &str) {
    match message.strip_prefix(PREFIX).and_then(|rest| rest.split_once(';')) {
        Some((name, text)) => (Some(name), text),
        None => (None, message),
    }
}

const PREFIX: &str = "ErrorCode:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_every_documented_number_stands_once() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(ErrorCode::parse(code.name()), Some(*code));
            for other in &ErrorCode::ALL[index + 1..] {
                assert_ne!(code.name(), other.name());
                assert!(code.number() != other.number() || code.number() % 1000 == 0, "{code:?} {other:?}");
            }
        }
        assert_eq!(ErrorCode::parse("Later"), None);
    }

    #[test]
    fn a_number_begins_with_the_status() {
        // IoT Hub numbers these among others than it answers with.
        let elsewhere = [ErrorCode::RequestTimedOut, ErrorCode::InvalidMessageExpiryTime];
        for code in ErrorCode::ALL.iter().filter(|code| !elsewhere.contains(code)) {
            assert_eq!(code.number() / 1000, u32::from(code.status().as_u16()), "{code:?}");
        }
    }

    #[test]
    fn a_message_is_read_as_it_is_written() {
        let message = ErrorCode::DeviceNotFound.message("pump-7; gone");
        assert_eq!(message, "ErrorCode:DeviceNotFound;pump-7; gone");
        assert_eq!(parse_message(&message), (Some("DeviceNotFound"), "pump-7; gone"));
        assert_eq!(parse_message("no; not so"), (None, "no; not so"));
    }
}
