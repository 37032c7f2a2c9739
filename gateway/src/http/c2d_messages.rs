//! `/api/v1/…c2d-messages`, which are ours: many messages sent with one request, and a look into a queue.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::message::NewC2d;
use portcullis_registry::policy::Rights;
use portcullis_registry::queue::Queued;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::http::caller::{Caller, JsonBody};
use crate::http::messages::{parse_ack, parse_expiry};
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::iothub::topic::{address, round_trip_time};
use crate::operations::c2d;

/// One message of a batch.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Order {
    device_id: String,
    module_id: Option<String>,
    #[serde(default)]
    body: String,
    /// `base64`, or absent for text.
    body_encoding: Option<String>,
    #[serde(default)]
    properties: Map<String, Value>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    to: Option<String>,
    ack: Option<String>,
    expiry: Option<String>,
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
) -> Result<Json<Value>, Problem> {
    // Who may send nothing is told once, not for each message.
    caller.check(Rights::SERVICE_CONNECT)?;
    let orders: Vec<Order> =
        serde_json::from_slice(&body).map_err(|error| Problem::deserialization(error.to_string()))?;
    if orders.is_empty() || orders.len() > MESSAGES_MAX {
        return Err(Problem::argument_invalid(format!("between 1 and {MESSAGES_MAX} messages are needed")));
    }
    let names: Vec<_> =
        orders.iter().map(|order| (order.device_id.clone(), order.module_id.clone())).collect();
    let mut results: Vec<Option<Value>> = vec![None; orders.len()];
    let (mut places, mut messages) = (Vec::new(), Vec::new());
    for (place, order) in orders.into_iter().enumerate() {
        match order.parse() {
            Ok(message) => {
                places.push(place);
                messages.push(message);
            }
            Err(problem) => results[place] = Some(refused(&problem)),
        }
    }
    let sent = c2d::send_all(&hub, &caller, messages).await;
    for (place, sent) in places.into_iter().zip(sent) {
        results[place] = Some(match sent {
            Ok(message) => json!({
                "accepted": true, "messageId": message.message_id, "sequenceNumber": message.number,
            }),
            Err(error) => refused(&error.into()),
        });
    }
    let named = names.into_iter().zip(results).map(|((device, module), result)| {
        let mut result = result.unwrap_or_default();
        result["deviceId"] = device.into();
        if let Some(module) = module {
            result["moduleId"] = module.into();
        }
        result
    });
    Ok(Json(named.collect()))
}

/// `GET /api/v1/devices/{id}/c2d-messages`: what waits for a device; it stays where it is.
pub(super) async fn of_device(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(device): Path<String>,
    Query(Top { top }): Query<Top>,
) -> Result<Json<Value>, Problem> {
    show(&hub, &caller, &IdentityId::device(DeviceId::parse(&device)?), top)
}

/// `GET /api/v1/devices/{id}/modules/{mid}/c2d-messages`: what waits for a module.
pub(super) async fn of_module(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path((device, module)): Path<(String, String)>,
    Query(Top { top }): Query<Top>,
) -> Result<Json<Value>, Problem> {
    show(&hub, &caller, &IdentityId::module(DeviceId::parse(&device)?, ModuleId::parse(&module)?), top)
}

fn show(
    hub: &Hub,
    caller: &crate::auth::VerifiedService,
    id: &IdentityId,
    top: Option<usize>,
) -> Result<Json<Value>, Problem> {
    let count = top.unwrap_or(MESSAGES_MAX).min(MESSAGES_MAX);
    let queued = c2d::peek(hub, caller, id, count)?;
    Ok(Json(queued.iter().map(|queued| queued_to_json(id, queued)).collect()))
}

fn queued_to_json(id: &IdentityId, queued: &Queued) -> Value {
    let message = &queued.message;
    let mut json = json!({
        "sequenceNumber": message.number,
        // The words of IoT Hub's life cycle of a message.
        "state": if queued.is_held { "Invisible" } else { "Enqueued" },
        "deliveryCount": queued.delivery_count,
        "enqueuedTime": round_trip_time(message.enqueued),
        "expiry": round_trip_time(message.expiry),
        "messageId": message.message_id,
        "correlationId": message.correlation_id,
        "userId": message.user_id,
        "contentType": message.content_type,
        "contentEncoding": message.content_encoding,
        "to": message.to.clone().unwrap_or_else(|| address(id)),
        "ack": message.ack.as_str(),
        "properties": message
            .properties
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect::<Map<_, _>>(),
    });
    match std::str::from_utf8(&message.body) {
        Ok(text) => json["body"] = text.into(),
        Err(_) => {
            json["body"] = BASE64_STANDARD.encode(&message.body).into();
            json["bodyEncoding"] = "base64".into();
        }
    }
    json
}

fn refused(problem: &Problem) -> Value {
    json!({ "accepted": false, "errorCode": problem.name(), "errorStatus": problem.text() })
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
