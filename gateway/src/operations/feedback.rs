//! Feedback for services: fetched over REST batch by batch, or pushed to subscribers of `$admin/feedback`.

use std::time::Duration;

use portcullis_registry::error::SettleError;
use portcullis_registry::feedback::{Feedback, FeedbackBatch};
use portcullis_registry::lock::LockToken;
use portcullis_registry::message::Outcome;
use portcullis_registry::policy::Rights;
use serde_json::{Map, Value};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::iothub::topic::round_trip_time;

/// Why feedback was not handed out, completed or abandoned.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error(transparent)]
    Settle(#[from] SettleError),
}

/// The next batch, locked for a minute; none while no batch is ready.
pub fn receive(hub: &Hub, caller: &VerifiedService) -> Result<Option<FeedbackBatch>, FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let now = hub.clock.now();
    Ok(hub.registry.receive_feedback(LOCK_TIME, now.wall, now.monotonic))
}

/// The caller has the batch: it is forgotten.
pub async fn complete(hub: &Hub, caller: &VerifiedService, token: LockToken) -> Result<(), FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let done = hub.registry.complete_feedback(token, hub.clock.now().monotonic).await;
    if done.map_err(SettleError::Store)? { Ok(()) } else { Err(SettleError::LockLost.into()) }
}

/// The caller gives the batch back; it comes again at once.
pub fn abandon(hub: &Hub, caller: &VerifiedService, token: LockToken) -> Result<(), FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let is_out = hub.registry.abandon_feedback(token, hub.clock.now().monotonic);
    if is_out { Ok(()) } else { Err(SettleError::LockLost.into()) }
}

/// The body of a batch. Source: IoT Hub, "Send cloud-to-device messages", message feedback.
pub fn to_json(batch: &FeedbackBatch) -> String {
    Value::from_iter(batch.records.iter().map(|record| record_to_json(record))).to_string()
}

fn record_to_json(record: &Feedback) -> Value {
    let status = status_code(record.outcome);
    let mut json = Map::new();
    let mut put = |name: &str, value: String| _ = json.insert(name.to_owned(), Value::String(value));
    put("originalMessageId", record.message_id.clone());
    put("description", status.to_owned());
    put("statusCode", status.to_owned());
    put("deviceId", record.device.device.as_str().to_owned());
    // Ours: IoT Hub has no messages to modules.
    if let Some(module) = &record.device.module {
        put("moduleId", module.as_str().to_owned());
    }
    put("deviceGenerationId", record.generation.to_string());
    put("enqueuedTimeUtc", round_trip_time(record.at));
    Value::Object(json)
}

/// The words SDKs know.
fn status_code(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Completed => "Success",
        Outcome::Rejected => "Rejected",
        Outcome::Expired => "Expired",
        Outcome::DeliveryCountExceeded => "DeliveryCountExceeded",
        Outcome::Purged => "Purged",
    }
}

const LOCK_TIME: Duration = Duration::from_secs(60);
