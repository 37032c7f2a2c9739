//! `GET /api/v1/audit`: the latest changes and who asked for them, oldest first.
//!
//! `count` (1 to 1,000, 100 if absent) bounds how many, `after` leaves out lines up to that number, `target` leaves out
//! what is about another device.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use portcullis_registry::policy::Rights;
use serde::Deserialize;
use serde_json::Value;

use crate::http::caller::Caller;
use crate::hub::Hub;
use crate::hub::audit::trail::AuditFilter;
use crate::iothub::problem::Problem;
use crate::operations::audit;

#[derive(Debug, Deserialize)]
pub(super) struct AuditQuery {
    count: Option<usize>,
    after: Option<u64>,
    target: Option<String>,
}

/// Whoever may not hears nothing of what else is wrong.
pub(super) async fn read(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    asked: Result<Query<AuditQuery>, QueryRejection>,
) -> Result<Json<Vec<Value>>, Problem> {
    caller.check(Rights::ALL)?;
    let Query(asked) = asked.map_err(|error| Problem::argument_invalid(error.body_text()))?;
    let count = asked.count.unwrap_or(COUNT_DEFAULT);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(Problem::argument_invalid(format!("count is not a number from 1 to {COUNT_MAX}")));
    }
    let wanted = AuditFilter {
        after: asked.after.unwrap_or(0),
        count,
        target: asked.target,
        ..AuditFilter::default()
    };
    Ok(Json(audit::read(&hub, &caller, wanted).await?))
}

const COUNT_DEFAULT: usize = 100;
const COUNT_MAX: usize = 1000;
