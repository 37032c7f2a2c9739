//! `POST /devices`: 1 to 100 identities created, replaced or deleted at once, each with a result of its own.
//!
//! An item that cannot be read is refused alone, as IoT Hub does; only an array that is none, is empty or is too long
//! is refused as a whole.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::http::caller::{Caller, JsonBody};
use crate::hub::Hub;
use crate::iothub::change::{NamedIdentity, loses_twin, parse_change};
use crate::iothub::error_code::ErrorCode;
use crate::iothub::message_properties::header as names;
use crate::iothub::problem::Problem;
use crate::iothub::strict_json::StrictObject;
use crate::operations::bulk::{Bulk, CHANGES_MAX};

/// `POST /devices`.
pub(super) async fn apply(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let bulk = Bulk::permit(&hub, &caller).await?;
    let items = parse_items(&body)?;
    let mut answer = BulkResultOut::default();
    let mut named = Vec::with_capacity(items.len());
    let mut changes = Vec::with_capacity(items.len());
    for item in items {
        match parse_change(&item) {
            Ok(change) => {
                named.push((NamedIdentity::of(&item), loses_twin(&item, &change)));
                changes.push(change);
            }
            Err(problem) => answer.errors.push(ErrorOut::new(&NamedIdentity::of(&item), &problem)),
        }
    }
    let results = bulk.apply(changes).await;
    for ((named, loses_twin), result) in named.into_iter().zip(results) {
        match result {
            Err(error) => answer.errors.push(ErrorOut::new(&named, &error.into())),
            Ok(()) if loses_twin => answer.warnings.push(WarningOut::without_twin(named)),
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

/// IoT Hub's `BulkRegistryOperationResult`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkResultOut {
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
    fn new(named: &NamedIdentity, problem: &Problem) -> Self {
        Self {
            device_id: named.device.clone(),
            module_id: named.module.clone(),
            error_code: problem.name(),
            error_status: problem.text().to_owned(),
            operation: None,
        }
    }
}

impl WarningOut {
    fn without_twin(named: NamedIdentity) -> Self {
        Self {
            device_id: named.device,
            warning_code: "DeviceRegisteredWithoutTwin",
            warning_status: "this hub keeps no twins: tags and desired properties are not stored",
        }
    }
}

impl IntoResponse for BulkResultOut {
    fn into_response(self) -> Response {
        if self.errors.is_empty() {
            return Json(Self { is_successful: true, ..self }).into_response();
        }
        // IoT Hub: the C# SDK takes a 400 for a result only when this header says so.
        let failure = ErrorCode::BulkRegistryOperationFailure;
        (failure.status(), [(names::ERROR_CODE, failure.name())], Json(self)).into_response()
    }
}
