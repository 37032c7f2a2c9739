//! `POST …/messages/deviceBound`: sends a cloud-to-device message. The body is the message, the headers its properties.
//! `DELETE …/commands` takes back those that are not delivered yet.
//!
//! Application properties come as `iothub-app-{name}` headers, as IoT Hub has them, or all together in
//! `iothub-properties: k=v&k2=v2`, percent-encoded: HTTP header names have no letter case, property names do.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use portcullis_registry::message::{Ack, NewC2d};
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::caller::{Body, Caller, Named};
use crate::http::device_side::Bound;
use crate::hub::Hub;
use crate::iothub::message_properties::header as names;
use crate::iothub::problem::Problem;
use crate::iothub::property_bag::PropertyBag;
use crate::operations::c2d;

/// What a purge is answered, in IoT Hub's words.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PurgedOut {
    total_messages_purged: u64,
    device_id: String,
    module_id: Option<String>,
}

/// To a device or module.
pub(super) async fn send(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(to): Named,
    Path(Bound { bound }): Path<Bound>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, Problem> {
    check_bound(&bound)?;
    let accepted = c2d::send(&hub, &caller, &to, parse_message(&headers, body)?).await?;
    Ok((StatusCode::NO_CONTENT, [(names::MESSAGE_ID, accepted.message_id.clone())]).into_response())
}

/// `DELETE …/commands`: empties the queue of a device; of a module too, which is ours.
pub(super) async fn purge(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
) -> Result<Json<PurgedOut>, Problem> {
    let total_messages_purged = c2d::purge(&hub, &caller, &id).await?;
    let module_id = id.module.map(|module| module.to_string());
    Ok(Json(PurgedOut { total_messages_purged, device_id: id.device.to_string(), module_id }))
}

/// IoT Hub: both `deviceBound` and `devicebound` are in use.
pub(super) fn check_bound(bound: &str) -> Result<(), Problem> {
    if bound.eq_ignore_ascii_case("devicebound") {
        Ok(())
    } else {
        Err(Problem::not_found("there is nothing at this path"))
    }
}

fn parse_message(headers: &HeaderMap, body: axum::body::Bytes) -> Result<NewC2d, Problem> {
    let text = |name: &'static str| text(headers, HeaderName::from_static(name));
    Ok(NewC2d {
        message_id: text(names::MESSAGE_ID)?,
        correlation_id: text(names::CORRELATION_ID)?,
        user_id: text(names::USER_ID)?,
        content_type: text(names::CONTENT_TYPE)?,
        content_encoding: match text(names::CONTENT_ENCODING)? {
            None => self::text(headers, header::CONTENT_ENCODING)?,
            given => given,
        },
        to: text(names::TO)?,
        ack: parse_ack(text(names::ACK)?.as_deref())?,
        expiry: text(names::EXPIRY)?.as_deref().map(parse_expiry).transpose()?,
        properties: properties(headers)?,
        body,
    })
}

/// A header's text; absent and empty are the same.
pub(super) fn text(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let text = std::str::from_utf8(value.as_bytes())
        .map_err(|_| Problem::argument_invalid(format!("header {name} is not UTF-8")))?;
    Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty()))
}

pub(super) fn parse_ack(text: Option<&str>) -> Result<Ack, Problem> {
    match text.map(str::to_ascii_lowercase).as_deref() {
        None | Some("none") => Ok(Ack::None),
        Some("positive") => Ok(Ack::Positive),
        Some("negative") => Ok(Ack::Negative),
        Some("full") => Ok(Ack::Full),
        Some(other) => {
            Err(Problem::argument_invalid(format!("ack {other:?} is none of none, positive, negative, full")))
        }
    }
}

pub(super) fn parse_expiry(text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|_| {
        Problem::argument_invalid(format!("expiry {text:?} is not an ISO 8601 time with a zone"))
    })
}

pub(super) fn properties(headers: &HeaderMap) -> Result<Vec<(String, String)>, Problem> {
    let mut properties = Vec::new();
    for (name, value) in headers {
        if let Some(own) = name.as_str().strip_prefix(names::APPLICATION_PREFIX) {
            let value = std::str::from_utf8(value.as_bytes());
            let value =
                value.map_err(|_| Problem::argument_invalid(format!("header {name} is not UTF-8")))?;
            properties.push((own.to_owned(), value.to_owned()));
        }
    }
    if let Some(bag) = text(headers, HeaderName::from_static(names::PROPERTIES))? {
        let bag = PropertyBag::parse(&bag)
            .map_err(|error| Problem::argument_invalid(format!("{}: {error}", names::PROPERTIES)))?;
        properties.extend(bag.into_application());
    }
    Ok(properties)
}
