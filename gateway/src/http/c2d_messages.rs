//! `/api/v1/…c2d-messages`, which are ours: many messages sent with one request, and a look into a queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::message::NewC2d;
use portcullis_registry::policy::Rights;
use portcullis_registry::queue::Queued;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::caller::{Caller, JsonBody, Named};
use crate::http::messages::{parse_ack, parse_expiry};
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::iothub::topic::{address, round_trip_time};
use crate::operations::c2d;

/// One message of a batch.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Order {
    device_id: String,
    module_id: Option<String>,
    /// Text, or base64 if `bodyEncoding` says so.
    #[serde(default)]
    body: String,
    /// `base64`, or absent for text.
    body_encoding: Option<String>,
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    properties: Map<String, Value>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    to: Option<String>,
    /// `none`, `positive`, `negative` or `full`.
    ack: Option<String>,
    /// An ISO 8601 time with a zone.
    expiry: Option<String>,
}

/// What became of one message of a batch.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SentOut {
    accepted: bool,
    device_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    /// Of an accepted message.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    /// Of an accepted message.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence_number: Option<u64>,
    /// Of a refused message.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<&'static str>,
    /// Of a refused message.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_status: Option<String>,
}

/// A message that waits.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct QueuedOut {
    sequence_number: u64,
    /// `Enqueued`, or `Invisible` while it is on its way.
    state: &'static str,
    delivery_count: u64,
    enqueued_time: String,
    expiry: String,
    message_id: String,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    to: String,
    ack: &'static str,
    properties: BTreeMap<String, String>,
    /// Text, or base64 if `bodyEncoding` says so.
    body: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_encoding: Option<&'static str>,
}

/// To whom a message is addressed, as the request says it.
struct Addressee {
    device: String,
    module: Option<String>,
}

/// How many messages to show.
#[derive(Deserialize)]
pub(super) struct Top {
    top: Option<usize>,
}

/// `POST /api/v1/c2d-messages`: sends up to 100 messages; one result each, in their order.
pub(super) async fn send_all(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<Vec<SentOut>>, Problem> {
    // Who may send nothing is told once, not for each message.
    caller.check(Rights::SERVICE_CONNECT)?;
    let orders: Vec<Order> =
        serde_json::from_slice(&body).map_err(|error| Problem::deserialization(error.to_string()))?;
    if orders.is_empty() || orders.len() > MESSAGES_MAX {
        return Err(Problem::argument_invalid(format!("between 1 and {MESSAGES_MAX} messages are needed")));
    }
    let mut results: Vec<Option<SentOut>> = orders.iter().map(|_| None).collect();
    let (mut asked, mut messages) = (Vec::new(), Vec::new());
    for (index, order) in orders.into_iter().enumerate() {
        let named = Addressee { device: order.device_id.clone(), module: order.module_id.clone() };
        match order.parse() {
            Ok(message) => {
                asked.push((index, named));
                messages.push(message);
            }
            Err(problem) => results[index] = Some(SentOut::new(named, Err(problem))),
        }
    }
    let sent = c2d::send_all(&hub, &caller, messages).await;
    for ((index, named), sent) in asked.into_iter().zip(sent) {
        let sent = sent.map(|message| (message.message_id.clone(), message.number));
        results[index] = Some(SentOut::new(named, sent.map_err(Problem::from)));
    }
    Ok(Json(results.into_iter().flatten().collect()))
}

/// `GET …/c2d-messages`: what waits for a device or module; it stays where it is.
pub(super) async fn look(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
    Query(Top { top }): Query<Top>,
) -> Result<Json<Vec<QueuedOut>>, Problem> {
    let count = top.unwrap_or(MESSAGES_MAX).min(MESSAGES_MAX);
    let queued = c2d::peek(&hub, &caller, &id, count)?;
    Ok(Json(queued.iter().map(|queued| QueuedOut::new(&id, queued)).collect()))
}

impl QueuedOut {
    fn new(id: &IdentityId, queued: &Queued) -> Self {
        let message = &queued.message;
        let (body, body_encoding) = match std::str::from_utf8(&message.body) {
            Ok(text) => (text.to_owned(), None),
            Err(_) => (BASE64_STANDARD.encode(&message.body), Some("base64")),
        };
        Self {
            sequence_number: message.number,
            // The words of IoT Hub's life cycle of a message.
            state: if queued.is_held { "Invisible" } else { "Enqueued" },
            delivery_count: queued.delivery_count.into(),
            enqueued_time: round_trip_time(message.enqueued),
            expiry: round_trip_time(message.expiry),
            message_id: message.message_id.clone(),
            correlation_id: message.correlation_id.clone(),
            user_id: message.user_id.clone(),
            content_type: message.content_type.clone(),
            content_encoding: message.content_encoding.clone(),
            to: message.to.clone().unwrap_or_else(|| address(id)),
            ack: message.ack.as_str(),
            properties: message.properties.iter().cloned().collect(),
            body,
            body_encoding,
        }
    }
}

impl SentOut {
    fn new(named: Addressee, outcome: Result<(String, u64), Problem>) -> Self {
        let (sent, problem) = match outcome {
            Ok(sent) => (Some(sent), None),
            Err(problem) => (None, Some(problem)),
        };
        let (message_id, sequence_number) = sent.unzip();
        Self {
            accepted: problem.is_none(),
            device_id: named.device,
            module_id: named.module,
            message_id,
            sequence_number,
            error_code: problem.as_ref().map(Problem::name),
            error_status: problem.map(|problem| problem.text().to_owned()),
        }
    }
}

impl Order {
    fn parse(self) -> Result<(IdentityId, NewC2d), Problem> {
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let to = IdentityId {
            device: DeviceId::parse(&self.device_id)?,
            module: given(self.module_id).as_deref().map(ModuleId::parse).transpose()?,
        };
        let body = match self.body_encoding.as_deref() {
            None | Some("") => Bytes::from(self.body),
            Some("base64") => BASE64_STANDARD
                .decode(&self.body)
                .map_err(|_| Problem::argument_invalid("the body is not base64"))?
                .into(),
            Some(_) => return Err(Problem::argument_invalid("bodyEncoding is base64 or absent")),
        };
        let property = |(name, value): (String, Value)| match value {
            Value::String(text) => Ok((name, text)),
            _ => Err(Problem::argument_invalid(format!("property {name:?} is not a string"))),
        };
        let message = NewC2d {
            message_id: given(self.message_id),
            correlation_id: given(self.correlation_id),
            user_id: given(self.user_id),
            content_type: given(self.content_type),
            content_encoding: given(self.content_encoding),
            to: given(self.to),
            ack: parse_ack(given(self.ack).as_deref())?,
            expiry: given(self.expiry).as_deref().map(parse_expiry).transpose()?,
            properties: self.properties.into_iter().map(property).collect::<Result<_, _>>()?,
            body,
        };
        Ok((to, message))
    }
}

/// Messages in one request.
const MESSAGES_MAX: usize = 100;
