//! `/messages/serviceBound/feedback`: what became of messages, batch by batch, for services that poll.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::http::caller::Caller;
use crate::http::device_side::parse_token;
use crate::hub::Hub;
use crate::iothub::message_properties::header as names;
use crate::iothub::problem::Problem;
use crate::operations::feedback;

/// The next batch, or 204 while none is ready.
pub(super) async fn receive(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Response, Problem> {
    let Some(batch) = feedback::receive(&hub, &caller)? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), FEEDBACK_JSON.to_owned()),
        (header::ETAG.as_str(), format!("\"{}\"", batch.token)),
        (names::USER_ID, hub.hosts.primary().to_owned()),
    ];
    Ok((headers, feedback::to_json(&batch)).into_response())
}

/// The service has the batch.
pub(super) async fn complete(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    feedback::complete(&hub, &caller, parse_token(&token)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The service gives the batch back.
pub(super) async fn abandon(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(token): Path<String>,
) -> Result<StatusCode, Problem> {
    feedback::abandon(&hub, &caller, parse_token(&token)?)?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) const FEEDBACK_JSON: &str = "application/vnd.microsoft.iothub.feedback.json";
