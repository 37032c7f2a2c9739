//! Errors in an answer.
//!
//! The body is IoT Hub's: `{"Message":"ErrorCode:Name;text","ExceptionMessage":"Tracking ID:…-TimeStamp:…"}` with the
//! same name in the header `iothub-errorcode`. What only the operator may know is never sent.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::iothub::message_properties::header as names;
use crate::iothub::problem::{Problem, RETRY_AFTER_SECONDS};

/// An error in an answer.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ProblemOut {
    /// `ErrorCode:Name;text`
    message: String,
    exception_message: String,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let tracking = tracking_id();
        let time = Timestamp::now().strftime("%m/%d/%Y %H:%M:%S");
        let body = ProblemOut {
            message: self.message(),
            exception_message: format!("Tracking ID:{tracking}-TimeStamp:{time}"),
        };
        let mut response = (self.status(), Json(body)).into_response();
        let headers = response.headers_mut();
        if matches!(self.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        headers.insert(names::ERROR_CODE, HeaderValue::from_static(self.name()));
        if let Ok(tracking) = HeaderValue::from_str(&tracking) {
            headers.insert("x-ms-request-id", tracking);
        }
        response
    }
}

/// No such path.
pub(super) async fn no_such_route() -> Problem {
    Problem::not_found("there is nothing at this path")
}

/// A random id by which caller and operator can speak of the same failure.
pub(super) fn tracking_id() -> String {
    portcullis_registry::random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_registry::backend::StoreError;

    use super::*;

    #[test]
    fn who_may_try_again_is_told_when() {
        let busy = Problem::from(StoreError::Unavailable).into_response();
        assert_eq!(
            (busy.status(), &busy.headers()[header::RETRY_AFTER]),
            (StatusCode::SERVICE_UNAVAILABLE, &HeaderValue::from_static("1"))
        );
        assert!(!Problem::not_found("x").into_response().headers().contains_key(header::RETRY_AFTER));
    }
}
