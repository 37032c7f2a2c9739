//! `GET /api/v1/devices/{id}/connections`: is it connected, and if it was refused, exactly why.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::policy::Rights;
use serde_json::{Value, json};

use crate::auth::VerifiedService;
use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::hub::Hub;

/// For a device.
pub(super) async fn of_device(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(device): Path<String>,
) -> Result<Json<Value>, Problem> {
    describe(&hub, &caller, &IdentityId::device(DeviceId::parse(&device)?))
}

/// For a module.
pub(super) async fn of_module(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path((device, module)): Path<(String, String)>,
) -> Result<Json<Value>, Problem> {
    describe(&hub, &caller, &IdentityId::module(DeviceId::parse(&device)?, ModuleId::parse(&module)?))
}

/// Ids that are not registered answer too: that an id is unknown is often what the operator needs to see.
fn describe(hub: &Hub, caller: &VerifiedService, id: &IdentityId) -> Result<Json<Value>, Problem> {
    caller.check(Rights::REGISTRY_READ)?;
    let refusal = hub.refusals.last(id).map(|refusal| {
        json!({
            "time": refusal.time.to_string(),
            "peer": refusal.peer.to_string(),
            "outcome": refusal.outcome,
            "reason": refusal.reason,
            "count": refusal.count,
        })
    });
    Ok(Json(json!({
        "registered": hub.registry.entry(id).is_some(),
        "connected": hub.sessions.session(id).is_some(),
        "lastRefusal": refusal,
    })))
}
