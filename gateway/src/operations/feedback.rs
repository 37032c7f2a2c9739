//! Feedback for services: read over REST batch by batch, or pushed to subscribers of `$admin/feedback`.

use std::time::Duration;

use portcullis_registry::error::SettleError;
use portcullis_registry::feedback::{Feedback, FeedbackBatch};
use portcullis_registry::lock::LockToken;
use portcullis_registry::message::Outcome;
use portcullis_registry::policy::Rights;
use serde::Serialize;
use utoipa::ToSchema;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::iothub::topic::round_trip_time;

/// Why feedback was not delivered, completed or abandoned.
#[derive(Debug, thiserror::Error)]
pub enum FeedbackError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error(transparent)]
    Settle(#[from] SettleError),
}

/// The next batch, locked for a minute; none if no batch is ready.
pub fn receive(hub: &Hub, caller: &VerifiedService) -> Result<Option<FeedbackBatch>, FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let now = hub.clock.now();
    Ok(hub.registry.receive_feedback(LOCK_TIME, now.wall, now.monotonic))
}

/// The caller completes the batch, which is then removed.
pub async fn complete(hub: &Hub, caller: &VerifiedService, token: LockToken) -> Result<(), FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let done = hub.registry.complete_feedback(token, hub.clock.now().monotonic).await;
    if done.map_err(SettleError::Store)? { Ok(()) } else { Err(SettleError::LockLost.into()) }
}

/// The caller abandons the batch, which is delivered again at once.
pub fn abandon(hub: &Hub, caller: &VerifiedService, token: LockToken) -> Result<(), FeedbackError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let is_out = hub.registry.abandon_feedback(token, hub.clock.now().monotonic);
    if is_out { Ok(()) } else { Err(SettleError::LockLost.into()) }
}

/// What became of one message. Source: IoT Hub, "Send cloud-to-device messages", message feedback.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FeedbackOut {
    original_message_id: String,
    description: &'static str,
    /// `Success`, `Rejected`, `Expired`, `DeliveryCountExceeded` or `Purged`.
    status_code: &'static str,
    device_id: String,
    /// Ours: IoT Hub has no messages to modules.
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<String>,
    device_generation_id: String,
    enqueued_time_utc: String,
}

// Not in IoT Hub, which has no messages to modules.
pub fn to_json(batch: &FeedbackBatch) -> String {
    let records: Vec<_> = batch.records.iter().map(|record| FeedbackOut::new(record)).collect();
    serde_json::to_string(&records).expect("texts are JSON")
}

impl FeedbackOut {
    fn new(record: &Feedback) -> Self {
        let status = status_code(record.outcome);
        Self {
            original_message_id: record.message_id.clone(),
            description: status,
            status_code: status,
            device_id: record.device.device.to_string(),
            module_id: record.device.module.as_ref().map(ToString::to_string),
            device_generation_id: record.generation.to_string(),
            enqueued_time_utc: round_trip_time(record.at),
        }
    }
}

/// The names that SDKs know.
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
