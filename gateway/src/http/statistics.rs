//! `/statistics`: how many devices there are and how many are connected.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::caller::Caller;
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::identities;

/// How many devices there are.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceStatisticsOut {
    total_device_count: usize,
    enabled_device_count: usize,
    disabled_device_count: usize,
}

/// How many devices are connected.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceStatisticsOut {
    connected_device_count: usize,
}

/// `GET /statistics/devices`.
pub(super) async fn of_devices(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<DeviceStatisticsOut>, Problem> {
    let counts = identities::counts(&hub, &caller)?;
    Ok(Json(DeviceStatisticsOut {
        total_device_count: counts.devices,
        // The two are read one after the other, and a disabled device may go between them.
        enabled_device_count: counts.devices.saturating_sub(counts.disabled_devices),
        disabled_device_count: counts.disabled_devices,
    }))
}

/// `GET /statistics/service`.
pub(super) async fn of_service(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<ServiceStatisticsOut>, Problem> {
    Ok(Json(ServiceStatisticsOut { connected_device_count: identities::connected(&hub, &caller)? }))
}
