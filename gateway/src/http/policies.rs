//! `/api/v1/policies`: shared access policies with their keys, for the owner.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::{Policy, Renewal, Rights};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::caller::{Caller, JsonBody};
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::policies;

/// A policy in an answer.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyOut {
    name: String,
    rights: Vec<&'static str>,
    primary_key: String,
    secondary_key: String,
    /// Whether it came with the hub and cannot be deleted.
    built_in: bool,
}

/// A policy to be created.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyIn {
    /// Of `RegistryRead`, `RegistryWrite`, `ServiceConnect`, `DeviceConnect`; one at least.
    rights: Vec<String>,
    /// Made when absent or empty.
    primary_key: Option<String>,
    /// Made when absent or empty.
    secondary_key: Option<String>,
}

/// Which keys are to change.
#[derive(Deserialize, ToSchema)]
pub(super) struct RegenerateIn {
    key: Which,
}

#[derive(Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
enum Which {
    Primary,
    Secondary,
    Both,
    Swap,
}

/// `GET /api/v1/policies`.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Vec<PolicyOut>>, Problem> {
    let policies = policies::reveal_all(&hub, &caller).await?;
    Ok(Json(policies.iter().map(PolicyOut::new).collect()))
}

/// `GET /api/v1/policies/{name}`.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<Json<PolicyOut>, Problem> {
    Ok(Json(PolicyOut::new(&policies::reveal(&hub, &caller, &name).await?)))
}

/// `PUT /api/v1/policies/{name}`: creates only.
pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<PolicyOut>, Problem> {
    let wanted: PolicyIn = parse(&body)?;
    let rights = Rights::parse_names(wanted.rights.iter().map(String::as_str));
    let rights = rights.map_err(|error| Problem::argument_invalid(error.to_string()))?;
    let primary = key("primaryKey", wanted.primary_key)?;
    let secondary = key("secondaryKey", wanted.secondary_key)?;
    let created = policies::create(&hub, &caller, &name, rights, primary, secondary).await?;
    Ok(Json(PolicyOut::new(&created)))
}

/// `POST /api/v1/policies/{name}/regenerate`.
pub(super) async fn regenerate(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Json<PolicyOut>, Problem> {
    let RegenerateIn { key } = parse(&body)?;
    let renewal = match key {
        Which::Primary => Renewal::Primary,
        Which::Secondary => Renewal::Secondary,
        Which::Both => Renewal::Both,
        Which::Swap => Renewal::Swap,
    };
    Ok(Json(PolicyOut::new(&policies::regenerate(&hub, &caller, &name, renewal).await?)))
}

/// `DELETE /api/v1/policies/{name}`.
pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(name): Path<String>,
) -> Result<StatusCode, Problem> {
    policies::delete(&hub, &caller, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl PolicyOut {
    fn new(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            rights: policy.rights.names(),
            primary_key: policy.keys.primary.to_base64().as_str().to_owned(),
            secondary_key: policy.keys.secondary.to_base64().as_str().to_owned(),
            built_in: policy.is_built_in(),
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| Problem::deserialization(format!("the body: {error}")))
}

fn key(name: &str, text: Option<String>) -> Result<Option<SymmetricKey>, Problem> {
    let given = text.filter(|text| !text.is_empty());
    let parsed = given.map(|text| SymmetricKey::parse_base64(&text)).transpose();
    parsed.map_err(|error| Problem::argument_invalid(format!("{name}: {error}")))
}
