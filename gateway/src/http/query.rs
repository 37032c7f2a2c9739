//! `POST /devices/query`: a query and its answer, page by page.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::caller::{Caller, JsonBody};
use crate::http::paging::{self, CONTINUATION};
use crate::hub::Hub;
use crate::iothub::problem::Problem;
use crate::operations::query::{self, ItemKind};

/// A query.
#[derive(Deserialize, ToSchema)]
pub(super) struct QueryIn {
    query: String,
}

/// `POST /devices/query`. `x-ms-max-item-count` bounds a page; `x-ms-continuation` asks for the next one.
pub(super) async fn run(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let QueryIn { query } = serde_json::from_slice(&body)
        .map_err(|error| Problem::deserialization(format!("the body is not a query: {error}")))?;
    let rows_max = paging::parse_count(&headers)?.unwrap_or(ROWS_DEFAULT);
    let continuation = paging::continuation(&headers)?;
    let answer = query::run(&hub, &caller, &query, rows_max, continuation).await?;
    let kind = match answer.kind {
        ItemKind::Twin => "twin",
        ItemKind::Raw => "raw",
    };
    let mut response = ([(ITEM_TYPE, kind)], Json(answer.rows)).into_response();
    // The SDKs take any value for "there is more", so the last page has no such header.
    if let Some(next) = answer.next.and_then(|next| HeaderValue::from_str(&next).ok()) {
        response.headers_mut().insert(CONTINUATION, next);
    }
    Ok(response)
}

const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");
/// IoT Hub's own default.
const ROWS_DEFAULT: usize = 100;
