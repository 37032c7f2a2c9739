//! `/devices` and `/devices/{id}/modules`: create, replace, retrieve, delete and list device and module identities.

use std::slice::from_ref;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_registry::entry::Entry;
use portcullis_registry::id::{DeviceId, Precondition};
use portcullis_registry::identity::Identity;

use crate::auth::VerifiedService;
use crate::http::caller::{Caller, JsonBody, Named};
use crate::http::paging::{self, CONTINUATION, ITEMS_MAX};
use crate::hub::Hub;
use crate::iothub::identity_json::{DeviceOut, IdentityIn, LiveState, ModuleOut};
use crate::iothub::problem::Problem;
use crate::operations::identities;
use crate::operations::presence;

/// `PUT /devices/{id}` and `…/modules/{mid}`: without `If-Match` creates, with it replaces. The answer is what was
/// written, whatever became of it since.
pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let spec = IdentityIn::parse(&body)?.into_spec(id)?;
    let written = identities::put(&hub, &caller, spec, precondition(&headers)?).await?;
    Ok(answer(&written, presence::live_state_of_written(&hub, &written)))
}

/// `GET /devices/{id}` and `…/modules/{mid}`.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
) -> Result<Response, Problem> {
    let entry = identities::retrieve(&hub, &caller, &id)?;
    identities::note_keys_shown(&hub, &caller, id.device.as_str(), from_ref(&entry)).await;
    Ok(answer(&entry.identity(), presence::live_state(&hub, &entry)))
}

/// `DELETE /devices/{id}` and `…/modules/{mid}`.
pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    identities::delete(&hub, &caller, &id, precondition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /devices?top=N`: at most 1,000; a `top` outside 1 to 1,000 counts as 1,000.
///
/// Beyond IoT Hub: a request with `x-ms-max-item-count` gets a page of that many devices in the order of their ids,
/// and `x-ms-continuation` to send with the request for the next page, unless this is the last one.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    if let Some(count) = paging::parse_count(&headers)? {
        return list_page(&hub, &caller, count, parse_continuation(&headers)?).await;
    }
    let query = query.unwrap_or_default();
    let top = query.split('&').find_map(|pair| pair.strip_prefix("top=")).and_then(|text| text.parse().ok());
    let top = top.filter(|top| (1..=ITEMS_MAX).contains(top)).unwrap_or(ITEMS_MAX);
    let devices = identities::list(&hub, &caller, top)?;
    identities::note_keys_shown(&hub, &caller, LIST, &devices).await;
    Ok(array(&hub, &devices))
}

/// `GET /devices/{id}/modules`.
pub(super) async fn list_modules(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(device): Path<String>,
) -> Result<Json<Vec<ModuleOut>>, Problem> {
    let modules = identities::modules(&hub, &caller, &DeviceId::parse(&device)?)?;
    identities::note_keys_shown(&hub, &caller, &device, &modules).await;
    let module = |entry: &Arc<Entry>| ModuleOut::new(&entry.identity(), presence::live_state(&hub, entry));
    Ok(Json(modules.iter().map(module).collect()))
}

async fn list_page(
    hub: &Hub,
    caller: &VerifiedService,
    count: usize,
    after: Option<DeviceId>,
) -> Result<Response, Problem> {
    let page = identities::page(hub, caller, after.as_ref(), count)?;
    identities::note_keys_shown(hub, caller, LIST, &page.devices).await;
    let answer = array(hub, &page.devices);
    let Some(next) = page.next else { return Ok(answer) };
    Ok(([(CONTINUATION, STANDARD.encode(next.as_str()))], answer).into_response())
}

/// The id in a continuation token. A forged one tells nothing that another page would not.
fn parse_continuation(headers: &HeaderMap) -> Result<Option<DeviceId>, Problem> {
    let Some(token) = paging::continuation(headers)? else { return Ok(None) };
    let id = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    match id.as_deref().map(DeviceId::parse) {
        Some(Ok(id)) => Ok(Some(id)),
        _ => Err(paging::no_token_of_ours()),
    }
}

/// The precondition a request states. Whatever cannot be read is refused rather than taken for "none".
pub(super) fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let first = values.next().map(|value| value.to_str()).transpose();
    let first = first.map_err(|_| Problem::argument_invalid("If-Match is not ASCII"))?;
    if values.next().is_some() {
        return Err(Problem::argument_invalid("If-Match is given twice"));
    }
    Precondition::parse_if_match(first)
        .map_err(|error| Problem::argument_invalid(format!("If-Match: {error}")))
}

fn array(hub: &Hub, devices: &[Arc<Entry>]) -> Response {
    let device = |entry: &Arc<Entry>| DeviceOut::new(&entry.identity(), presence::live_state(hub, entry));
    Json(devices.iter().map(device).collect::<Vec<_>>()).into_response()
}

fn answer(identity: &Identity, live: LiveState) -> Response {
    let etag = [(header::ETAG, identity.etag().quoted())];
    match identity.id.module {
        None => (etag, Json(DeviceOut::new(identity, live))).into_response(),
        Some(_) => (etag, Json(ModuleOut::new(identity, live))).into_response(),
    }
}

/// What the audit record calls a list of devices; no id has a blank in it.
const LIST: &str = "list of devices";
