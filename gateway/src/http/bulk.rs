//! `POST /devices`: 1 to 100 identities created, replaced or deleted at once, each with a result of its own.
//!
//! An item that cannot be read is refused alone, as IoT Hub does; only an array that is none, is empty or is too long
//! is refused as a whole. The SDKs differ in the letter case of modes and of the member `eTag`: any is read.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::operations::bulk::{Bulk, CHANGES_MAX, Change};
use crate::http::caller::{Caller, JsonBody};
use crate::http::problem::Problem;
use crate::http::wire::IdentityIn;
use crate::hub::Hub;
use crate::iothub::strict_json::StrictObject;

/// `POST /devices`.
pub(super) async fn apply(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let bulk = Bulk::permit(&hub, &caller)?;
    let items = parse_items(&body)?;
    let mut answer = ResultOut::default();
    let mut about = Vec::with_capacity(items.len());
    let mut changes = Vec::with_capacity(items.len());
    for item in items {
        match parse_change(&item) {
            Ok(change) => {
                about.push(About::of(&item).of_change(&change));
                changes.push(change);
            }
            Err(problem) => answer.errors.push(ErrorOut::new(&About::of(&item), &problem)),
        }
    }
    let results = bulk.apply(changes).await;
    for (about, result) in about.into_iter().zip(results) {
        match result {
            Err(error) => answer.errors.push(ErrorOut::new(&about, &error.into())),
            Ok(()) if about.has_twin => answer.warnings.push(WarningOut::without_twin(about)),
            Ok(()) => {}
        }
    }
    Ok(answer.into_response())
}

fn parse_items(body: &[u8]) -> Result<Vec<Map<String, Value>>, Problem> {
    let items: Vec<StrictObject> = serde_json::from_slice(body).map_err(|error| {
        Problem::deserialization(format!("the body is not an array of identities: {error}"))
    })?;
    match items.len() {
        1..=CHANGES_MAX => Ok(items.into_iter().map(|StrictObject(item)| item).collect()),
        0 => Err(Problem::argument_invalid("the array is empty")),
        count => Err(Problem::argument_invalid(format!("{count} identities are more than {CHANGES_MAX}"))),
    }
}

/// What one item asks for. Source: IoT Hub, "Bulk identity operations", for the modes.
pub(super) fn parse_change(item: &Map<String, Value>) -> Result<Change, Problem> {
    let device = text(item, "id")?.ok_or_else(|| Problem::argument_null("id is missing"))?;
    let id = match text(item, "moduleId")? {
        None => IdentityId::device(DeviceId::parse(device)?),
        Some(module) => IdentityId::module(DeviceId::parse(device)?, ModuleId::parse(module)?),
    };
    let any = Precondition::AnyVersion;
    let spec = || IdentityIn::parse_item(item)?.into_spec(id.clone());
    let mode = text(item, "importMode")?.unwrap_or("createOrUpdate");
    match mode.to_ascii_lowercase().as_str() {
        "create" => Ok(Change::Create(spec()?)),
        "createorupdate" => Ok(Change::CreateOrUpdate(spec()?, any)),
        "createorupdateifmatchetag" => match parse_etag(item)? {
            Some(etag) => Ok(Change::CreateOrUpdate(spec()?, etag)),
            // What is stored always has an etag, and it is not this.
            None => Ok(Change::Create(spec()?)),
        },
        "update" => Ok(Change::Update(spec()?, any)),
        "updateifmatchetag" => Ok(Change::Update(spec()?, needed_etag(item)?)),
        "delete" => Ok(Change::Delete(id, any)),
        "deleteifmatchetag" => Ok(Change::Delete(id, needed_etag(item)?)),
        "updatetwin" | "updatetwinifmatchetag" => Ok(Change::UpdateTwin(id)),
        _ => Err(Problem::argument_invalid(format!("importMode {mode:?} is unknown"))),
    }
}

fn needed_etag(item: &Map<String, Value>) -> Result<Precondition, Problem> {
    parse_etag(item)?.ok_or_else(|| Problem::argument_null("eTag is missing"))
}

/// The item's etag, quoted or not; `*` is any. Two of different spelling are refused: which one counts nobody can tell.
fn parse_etag(item: &Map<String, Value>) -> Result<Option<Precondition>, Problem> {
    let mut names = item.keys().filter(|name| name.eq_ignore_ascii_case("etag"));
    let (Some(name), None) = (names.next(), names.next()) else {
        return if item.keys().any(|name| name.eq_ignore_ascii_case("etag")) {
            Err(Problem::argument_invalid("eTag is given twice"))
        } else {
            Ok(None)
        };
    };
    let Some(etag) = text(item, name)? else { return Ok(None) };
    let parsed = Precondition::parse_if_match(Some(etag));
    parsed.map(Some).map_err(|error| Problem::argument_invalid(format!("eTag: {error}")))
}

/// A member's text; absent, `null` and empty are the same.
fn text<'a>(item: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, Problem> {
    match item.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
        Some(_) => Err(Problem::deserialization(format!("{name} is not a text"))),
    }
}

/// Which item a result is about, in the item's own words.
pub(super) struct About {
    pub(super) device: String,
    pub(super) module: Option<String>,
    /// The item has tags or desired properties, which are not kept.
    pub(super) has_twin: bool,
}

impl About {
    pub(super) fn of(item: &Map<String, Value>) -> Self {
        let own = |name: &str| item.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
        // IoT Hub's own members begin with a dollar sign; it exports them for a twin nobody has written to.
        let filled = |value: Option<&Value>| {
            let members = value.and_then(Value::as_object);
            members.is_some_and(|members| members.keys().any(|name| !name.starts_with('$')))
        };
        let desired = item.get("properties").and_then(|properties| properties.get("desired"));
        Self {
            device: own("id").unwrap_or_default().to_owned(),
            module: own("moduleId").map(str::to_owned),
            has_twin: filled(item.get("tags")) || filled(desired),
        }
    }

    /// What is deleted loses nothing by having no twin.
    fn of_change(self, change: &Change) -> Self {
        Self { has_twin: self.has_twin && !matches!(change, Change::Delete(..)), ..self }
    }
}

/// IoT Hub's `BulkRegistryOperationResult`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ResultOut {
    is_successful: bool,
    errors: Vec<ErrorOut>,
    warnings: Vec<WarningOut>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ErrorOut {
    device_id: String,
    module_id: Option<String>,
    error_code: &'static str,
    error_status: String,
    operation: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct WarningOut {
    device_id: String,
    warning_code: &'static str,
    warning_status: &'static str,
}

impl ErrorOut {
    fn new(about: &About, problem: &Problem) -> Self {
        Self {
            device_id: about.device.clone(),
            module_id: about.module.clone(),
            error_code: problem.name(),
            error_status: problem.text().to_owned(),
            operation: None,
        }
    }
}

impl WarningOut {
    fn without_twin(about: About) -> Self {
        Self {
            device_id: about.device,
            warning_code: "DeviceRegisteredWithoutTwin",
            warning_status: "this hub keeps no twins: tags and desired properties are not stored",
        }
    }
}

impl IntoResponse for ResultOut {
    fn into_response(self) -> Response {
        if self.errors.is_empty() {
            return Json(Self { is_successful: true, ..self }).into_response();
        }
        // IoT Hub: the C# SDK takes a 400 for a result only when this header says so.
        let code = (HeaderName::from_static("iothub-errorcode"), HeaderValue::from_static(FAILURE));
        (StatusCode::BAD_REQUEST, [code], Json(self)).into_response()
    }
}

const FAILURE: &str = "BulkRegistryOperationFailure";
