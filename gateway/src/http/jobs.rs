//! Import and export jobs: `/jobs` as IoT Hub's SDKs call it, and our own uploads, downloads and rollback.
//!
//! Source: IoT Hub REST reference, "Jobs", and the SDKs for the letter case they send.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::caller::{Caller, JsonBody};
use crate::hub::Hub;
use crate::hub::job_store::record::{JobFile, JobKind, JobRecord};
use crate::iothub::problem::Problem;
use crate::iothub::time::time_text;
use crate::operations::jobs::{self, Address, ContainerJob, DEVICES};

/// IoT Hub's `JobProperties`, as a request has them. What only an answer says is passed over.
#[derive(Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobIn {
    /// `import` or `export`.
    r#type: Option<String>,
    input_blob_container_uri: Option<String>,
    output_blob_container_uri: Option<String>,
    /// `devices.txt` when absent.
    input_blob_name: Option<String>,
    /// `devices.txt` when absent.
    output_blob_name: Option<String>,
    exclude_keys_in_export: Option<bool>,
    /// `keyBased`; this hub has no identity of its own.
    storage_authentication_type: Option<String>,
    include_configurations: Option<bool>,
}

/// IoT Hub's `JobProperties`, and what this hub knows besides.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct JobOut {
    job_id: String,
    r#type: &'static str,
    status: &'static str,
    /// In percent.
    progress: u64,
    start_time_utc: String,
    end_time_utc: Option<String>,
    failure_reason: Option<String>,
    /// Without its query.
    input_blob_container_uri: Option<String>,
    /// Without its query.
    output_blob_container_uri: Option<String>,
    input_blob_name: Option<String>,
    output_blob_name: Option<String>,
    exclude_keys_in_export: bool,
    storage_authentication_type: &'static str,
    /// The import it takes back.
    #[serde(skip_serializing_if = "Option::is_none")]
    rollback_of: Option<String>,
    dry_run: bool,
    lines_done: u64,
    lines_failed: u64,
    lines_per_second: u64,
    eta_seconds: Option<u64>,
    /// What became of the lines of an import, or would in a dry run.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcomes: Option<OutcomesOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize, ToSchema)]
struct OutcomesOut {
    created: u64,
    changed: u64,
    unchanged: u64,
    deleted: u64,
    refused: u64,
}

/// `POST /jobs/create`.
pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    JsonBody(body): JsonBody,
) -> Result<Json<JobOut>, Problem> {
    caller.check(jobs::RIGHTS)?;
    let wanted: JobIn = serde_json::from_slice(&body)
        .map_err(|error| Problem::deserialization(format!("the body is no job: {error}")))?;
    let record = jobs::create(&hub, &caller, wanted.parse()?).await?;
    Ok(Json(JobOut::new(record, hub.clock.wall())))
}

/// `GET /jobs`: the latest first.
pub(super) async fn list(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
) -> Result<Json<Vec<JobOut>>, Problem> {
    let now = hub.clock.wall();
    let records = jobs::list(&hub, &caller)?;
    Ok(Json(records.into_iter().map(|record| JobOut::new(record, now)).collect()))
}

/// `GET /jobs/{job}`.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(job): Path<String>,
) -> Result<Json<JobOut>, Problem> {
    Ok(Json(JobOut::new(jobs::show(&hub, &caller, &job)?, hub.clock.wall())))
}

/// `DELETE /jobs/{job}`.
pub(super) async fn cancel(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(job): Path<String>,
) -> Result<StatusCode, Problem> {
    jobs::cancel(&hub, &caller, &job).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /api/v1/imports`: the lines are the body, plain or gzip. It may take its time, but not stand still.
pub(super) async fn import(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let dry_run = flag(query.as_deref(), "dryRun", false)?;
    let body = request.into_body().into_data_stream().map_err(|error| error.to_string()).boxed();
    let record = jobs::import(&hub, &caller, dry_run, body).await?;
    Ok(accepted(&hub, record))
}

/// `POST /api/v1/exports`.
pub(super) async fn export(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let with_keys = flag(query.as_deref(), "includeKeys", false)?;
    let with_modules = flag(query.as_deref(), "includeModules", true)?;
    let record = jobs::export(&hub, &caller, with_keys, with_modules).await?;
    Ok(accepted(&hub, record))
}

/// `POST /api/v1/jobs/{job}/rollback`.
pub(super) async fn roll_back(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path(job): Path<String>,
) -> Result<Response, Problem> {
    let record = jobs::roll_back(&hub, &caller, &job).await?;
    Ok(accepted(&hub, record))
}

/// `GET /api/v1/jobs/{job}/files/{name}`.
pub(super) async fn file(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Path((job, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let pieces = jobs::download(&hub, &caller, &job, &name).await?;
    // It may hold keys.
    let headers = [(header::CONTENT_TYPE, "application/x-ndjson"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers.map(|(name, value)| (name, HeaderValue::from_static(value))), Body::from_stream(pieces))
        .into_response())
}

fn accepted(hub: &Hub, record: JobRecord) -> Response {
    (StatusCode::ACCEPTED, Json(JobOut::new(record, hub.clock.wall()))).into_response()
}

/// A query parameter that is `true` or `false`.
fn flag(query: Option<&str>, name: &str, default: bool) -> Result<bool, Problem> {
    let pairs = query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(own, _)| *own == name).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(default),
        (Some("true"), None) => Ok(true),
        (Some("false"), None) => Ok(false),
        _ => Err(Problem::argument_invalid(format!("{name} is given once, as true or false"))),
    }
}

impl JobIn {
    fn parse(self) -> Result<ContainerJob, Problem> {
        let is = |text: &Option<String>, word: &str| {
            text.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(word))
        };
        if is(&self.storage_authentication_type, "identityBased") {
            return Err(Problem::managed_identity_not_enabled());
        }
        if self.include_configurations == Some(true) {
            return Err(Problem::argument_invalid("includeConfigurations: this hub has no configurations"));
        }
        let output =
            || address("outputBlobContainerUri", &self.output_blob_container_uri, &self.output_blob_name);
        if is(&self.r#type, "export") {
            return Ok(ContainerJob::Export {
                output: output()?,
                exclude_keys: self.exclude_keys_in_export.unwrap_or(false),
            });
        }
        if is(&self.r#type, "import") {
            let input =
                address("inputBlobContainerUri", &self.input_blob_container_uri, &self.input_blob_name)?;
            // IoT Hub: outputBlobName is of an export; what an import writes there has a name of its own.
            return Ok(ContainerJob::Import { input, output: output()? });
        }
        Err(Problem::argument_invalid("type is neither import nor export"))
    }
}

fn address(name: &str, uri: &Option<String>, file: &Option<String>) -> Result<Address, Problem> {
    let container = uri.clone().filter(|uri| !uri.is_empty());
    let container = container.ok_or_else(|| Problem::argument_null(format!("{name} is missing")))?;
    let file = file.clone().filter(|file| !file.is_empty()).unwrap_or_else(|| DEVICES.to_owned());
    Ok(Address { container, file })
}

impl JobOut {
    fn new(record: JobRecord, now: Timestamp) -> Self {
        let split = |place: &Option<JobFile>| match place {
            Some(JobFile { container, file }) => (Some(container.clone()), Some(file.clone())),
            None => (None, None),
        };
        let (input, output) = (split(&record.input), split(&record.output));
        let counts = record.progress.counts;
        let outcomes = match record.kind {
            JobKind::Export => None,
            JobKind::Import | JobKind::Rollback => Some(OutcomesOut {
                created: counts.created,
                changed: counts.changed,
                unchanged: counts.unchanged,
                deleted: counts.deleted,
                refused: counts.refused,
            }),
        };
        Self {
            r#type: match record.kind {
                // IoT Hub's SDKs know no rollback, and it does what an import does.
                JobKind::Import | JobKind::Rollback => "import",
                JobKind::Export => "export",
            },
            status: record.state.as_str(),
            progress: record.percent(),
            start_time_utc: time_text(Some(record.started.unwrap_or(record.created))),
            end_time_utc: record.ended.map(|ended| time_text(Some(ended))),
            lines_per_second: record.lines_per_second(now),
            eta_seconds: record.time_left(now).map(|left| left.as_secs()),
            job_id: record.id,
            failure_reason: record.failure,
            input_blob_container_uri: input.0,
            input_blob_name: input.1,
            output_blob_container_uri: output.0,
            output_blob_name: output.1,
            exclude_keys_in_export: record.exclude_keys,
            storage_authentication_type: "keyBased",
            rollback_of: record.rollback_of,
            dry_run: record.dry_run,
            lines_done: record.progress.lines,
            lines_failed: counts.refused,
            outcomes,
            note: record.note,
        }
    }
}
