//! `/devices/{id}/modules`: create, replace, retrieve, delete and list the module identities of a device.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use portcullis_registry::entry::Entry;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};

use crate::http::caller::{Caller, JsonBody};
use crate::http::devices::{live, precondition};
use crate::hub::Hub;
use crate::iothub::identity_json::{IdentityIn, ModuleOut};
use crate::iothub::problem::Problem;
use crate::operations::identities;

/// `PUT /devices/{id}/modules/{mid}`: without `If-Match` creates, with it replaces.
pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let id = parse(&path)?;
    let spec = IdentityIn::parse(&body)?.into_spec(id.clone())?;
    identities::put(&hub, &caller, spec, precondition(&headers)?).await?;
    let entry = hub.registry.entry(&id).ok_or_else(|| Problem::not_found(id.to_string()))?;
    Ok(answer(&hub, &entry))
}

/// `GET /devices/{id}/modules/{mid}`.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(path): Path<(String, String)>,
) -> Result<Response, Problem> {
    let entry = identities::retrieve(&hub, &caller, &parse(&path)?)?;
    Ok(answer(&hub, &entry))
}

/// `DELETE /devices/{id}/modules/{mid}`.
pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(path): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    identities::delete(&hub, &caller, &parse(&path)?, precondition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /devices/{id}/modules`.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(device): Path<String>,
) -> Result<Json<Vec<ModuleOut>>, Problem> {
    let modules = identities::modules(&hub, &caller, &DeviceId::parse(&device)?)?;
    Ok(Json(modules.iter().map(|entry| ModuleOut::new(&entry.identity(), live(&hub, entry))).collect()))
}

fn parse((device, module): &(String, String)) -> Result<IdentityId, Problem> {
    Ok(IdentityId::module(DeviceId::parse(device)?, ModuleId::parse(module)?))
}

fn answer(hub: &Hub, entry: &Entry) -> Response {
    let identity = entry.identity();
    let etag = [(header::ETAG, identity.etag().quoted())];
    (etag, Json(ModuleOut::new(&identity, live(hub, entry)))).into_response()
}
