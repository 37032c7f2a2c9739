//! `/statistics`: how many devices there are and how many are connected.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::http::caller::Caller;
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::identities;

/// `GET /statistics/devices`.
pub(super) async fn of_devices(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Value>, Problem> {
    let counts = identities::counts(&hub, &caller)?;
    Ok(Json(json!({
        "totalDeviceCount": counts.devices,
        // The two are read one after the other, and a disabled device may go between them.
        "enabledDeviceCount": counts.devices.saturating_sub(counts.disabled_devices),
        "disabledDeviceCount": counts.disabled_devices,
    })))
}

/// `GET /statistics/service`.
pub(super) async fn of_service(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Value>, Problem> {
    Ok(Json(json!({ "connectedDeviceCount": identities::connected(&hub, &caller)? })))
}
