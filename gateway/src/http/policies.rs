//! `GET /api/v1/policies/{name}`: a shared access policy with its keys, for the owner.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use portcullis_registry::policy::Rights;
use serde_json::{Value, json};

use crate::http::caller::Caller;
use crate::http::problem::Problem;
use crate::hub::Hub;

/// The policy named in the path. Its keys open what it grants, so only a policy with every right may ask.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<Json<Value>, Problem> {
    caller.check(Rights::ALL)?;
    let policies = hub.policies();
    let policy = policies
        .find(&name)
        .ok_or_else(|| Problem::not_found(format!("no shared access policy {name:?}")))?;
    Ok(Json(json!({
        "name": policy.name,
        "rights": policy.rights.names(),
        "primaryKey": policy.keys.primary.to_base64().as_str(),
        "secondaryKey": policy.keys.secondary.to_base64().as_str(),
    })))
}
