//! What devices and modules do over HTTPS: post telemetry, and poll their queue and settle what they were handed.
//!
//! Source: IoT Hub, REST API of the device. A long wait is not offered: an empty queue is answered at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use portcullis_registry::error::SettleError;
use portcullis_registry::id::IdentityId;
use portcullis_registry::lock::LockToken;
use portcullis_registry::queue::Received;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::caller::{Body, DeviceCaller};
use crate::http::messages::{check_bound, text};
use crate::hub::Hub;
use crate::iothub::message_properties::{header as names, property_of_header};
use crate::iothub::problem::Problem;
use crate::iothub::property_bag::{PropertyBag, write_pair};
use crate::iothub::topic::{address, round_trip_time};
use crate::operations::c2d;
use crate::operations::d2c::{self, Incoming};

/// Where a path names the queue and a delivery from it; device and module are the caller's business.
#[derive(Deserialize)]
pub(super) struct Delivery {
    bound: String,
    token: String,
}

/// The part of a path that names the queue.
#[derive(Deserialize)]
pub(super) struct Bound {
    pub(super) bound: String,
}

/// One message of a batch.
#[derive(Deserialize, ToSchema)]
pub(super) struct Batched {
    /// In base64, unless `base64Encoded` is false.
    body: String,
    #[serde(rename = "base64Encoded", default = "is_encoded")]
    is_base64: bool,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

/// `POST …/messages/events`: telemetry, one message, or a batch of them, all read before the first is taken.
pub(super) async fn telemetry(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(who): DeviceCaller,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<StatusCode, Problem> {
    let messages = match headers.get(header::CONTENT_TYPE) {
        Some(kind) if kind.as_bytes().starts_with(BATCH.as_bytes()) => parse_batch(&body)?,
        _ => vec![(parse_headers(&headers)?, body)],
    };
    for (bag, payload) in &messages {
        if payload.len() > hub.config.limits.telemetry_payload_bytes_max {
            return Err(Problem::body_too_large());
        }
        PropertyBag::parse(bag).map_err(|error| Problem::argument_invalid(error.to_string()))?;
    }
    if !d2c::may_post(&hub, &who, messages.len()) {
        return Err(Problem::throttled("the device sends faster than it may"));
    }
    for (bag, payload) in messages {
        d2c::accept(&hub, &who, Incoming { bag: &bag, payload, retain: false, will: false }).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `GET …/messages/deviceBound`: the next message, locked until it is settled or the lock is over.
pub(super) async fn receive(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(who): DeviceCaller,
    Path(Bound { bound }): Path<Bound>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    check_bound(&bound)?;
    let lock_time = lock_time(&headers)?;
    Ok(match c2d::receive(&hub, &who, lock_time)? {
        Some(received) => message(who.id(), &received),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// `DELETE …/messages/deviceBound/{lockToken}`: the device has the message, or with `reject` refuses it.
pub(super) async fn complete_or_reject(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(who): DeviceCaller,
    Path(Delivery { bound, token }): Path<Delivery>,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    check_bound(&bound)?;
    let token = parse_token(&token)?;
    let mut names = query.as_deref().unwrap_or_default().split('&').map(|pair| pair.split('=').next());
    // IoT Hub: `?reject`, `?reject=` and `&reject` are all in use.
    match names.any(|name| name == Some("reject")) {
        true => c2d::reject(&hub, &who, token).await?,
        false => c2d::complete(&hub, &who, token).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/messages/deviceBound/{lockToken}/abandon`: the device gives the message back.
pub(super) async fn abandon(
    State(hub): State<Arc<Hub>>,
    DeviceCaller(who): DeviceCaller,
    Path(Delivery { bound, token }): Path<Delivery>,
) -> Result<StatusCode, Problem> {
    check_bound(&bound)?;
    c2d::abandon(&hub, &who, parse_token(&token)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A text that is no token names a delivery that is over as much as any.
pub(super) fn parse_token(text: &str) -> Result<LockToken, Problem> {
    LockToken::parse(text).ok_or_else(|| SettleError::LockLost.into())
}

fn lock_time(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(text) = text(headers, HeaderName::from_static(names::LOCK_TIMEOUT))? else {
        return Ok(None);
    };
    match text.parse() {
        Ok(seconds @ LOCK_SECONDS_MIN..=LOCK_SECONDS_MAX) => Ok(Some(Duration::from_secs(seconds))),
        _ => Err(Problem::argument_invalid(format!(
            "a message is locked for {LOCK_SECONDS_MIN} to {LOCK_SECONDS_MAX} seconds, not {text:?}"
        ))),
    }
}

/// The message as an answer: its body, and everything else in headers. Application properties come as
/// `iothub-app-{name}` as far as HTTP can carry them so, and all together, percent-encoded, in `iothub-properties`.
fn message(to: &IdentityId, received: &Received) -> Response {
    let message = &received.message;
    let mut response = message.body.clone().into_response();
    let headers = response.headers_mut();
    let mut put = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(value.as_bytes())) {
            headers.insert(name, value);
        }
    };
    for (name, value) in &message.properties {
        put(&format!("{}{name}", names::APPLICATION_PREFIX), value);
    }
    if !message.properties.is_empty() {
        let mut bag = String::new();
        message.properties.iter().for_each(|(name, value)| write_pair(&mut bag, name, value));
        put(names::PROPERTIES, &bag);
    }
    put("etag", &format!("\"{}\"", received.token));
    put(names::MESSAGE_ID, &message.message_id);
    put(names::SEQUENCE_NUMBER, &message.number.to_string());
    put(names::ENQUEUED_TIME, &round_trip_time(message.enqueued));
    put(names::EXPIRY, &round_trip_time(message.expiry));
    put(names::DELIVERY_COUNT, &received.delivery_count.to_string());
    put(names::ACK, message.ack.as_str());
    put(names::TO, &message.to.clone().unwrap_or_else(|| address(to)));
    let optional = [
        (names::CORRELATION_ID, &message.correlation_id),
        (names::USER_ID, &message.user_id),
        (names::CONTENT_TYPE, &message.content_type),
        (names::CONTENT_ENCODING, &message.content_encoding),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            put(name, value);
        }
    }
    response
}

/// The property bag that headers spell.
fn parse_headers(headers: &HeaderMap) -> Result<String, Problem> {
    let mut properties = Vec::new();
    for name in headers.keys() {
        if let Some(property) = property_of_header(name.as_str())
            && let Some(value) = text(headers, name.clone())?
        {
            properties.push((property.to_owned(), value));
        }
    }
    Ok(to_bag(&properties))
}

fn parse_batch(body: &[u8]) -> Result<Vec<(String, Bytes)>, Problem> {
    let batch: Vec<Batched> =
        serde_json::from_slice(body).map_err(|error| Problem::deserialization(error.to_string()))?;
    let read = |batched: Batched| {
        let payload = match batched.is_base64 {
            true => BASE64_STANDARD
                .decode(&batched.body)
                .map_err(|_| Problem::argument_invalid("a body is not base64"))?,
            false => batched.body.into_bytes(),
        };
        let named = |(name, value): (&String, &String)| {
            property_of_header(name).map(|property| (property.to_owned(), value.clone()))
        };
        let properties: Vec<_> = batched.properties.iter().filter_map(named).collect();
        Ok((to_bag(&properties), Bytes::from(payload)))
    };
    batch.into_iter().map(read).collect()
}

/// System properties first, as everywhere.
fn to_bag(properties: &[(String, String)]) -> String {
    let mut bag = PropertyBag::default();
    properties.iter().for_each(|(name, value)| bag.push(name, value));
    bag.encode()
}

fn is_encoded() -> bool {
    true
}

pub(super) const BATCH: &str = "application/vnd.microsoft.iothub.json";
/// Source: IoT Hub, the lock of feedback; that of messages is 60 s there.
const LOCK_SECONDS_MIN: u64 = 5;
const LOCK_SECONDS_MAX: u64 = 300;
