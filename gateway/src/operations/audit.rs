//! Reading the audit record: who changed what, for the owner alone. And the line of a change that a front refused before
//! its operation was called.

use std::io;

use portcullis_registry::policy::Rights;
use serde_json::Value;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::trail::{self, AuditFilter};
use crate::hub::audit::{AuditEntry, Operation};

/// Why the record is not read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the audit record: {0}")]
    Unreadable(io::Error),
}

/// The latest lines that are wanted, oldest first. Who changed what is for the owner alone.
pub async fn read(
    hub: &Hub,
    caller: &VerifiedService,
    wanted: AuditFilter,
) -> Result<Vec<Value>, AuditError> {
    caller.check(Rights::ALL)?;
    let directory = hub.audit.directory().to_owned();
    let lines = tokio::task::spawn_blocking(move || trail::read(&directory, &wanted)).await;
    let lines = lines.unwrap_or_else(|error| Err(io::Error::other(error)));
    lines.map_err(AuditError::Unreadable)
}

/// Records a change that `caller` asked for and was refused before its operation was called, and why.
pub async fn record_refusal(
    hub: &Hub,
    caller: &VerifiedService,
    operation: Operation,
    target: String,
    reason: String,
) {
    let entry = AuditEntry::of(caller, operation, target, hub.clock.wall());
    hub.audit.record(AuditEntry { refused: Some(reason), ..entry }).await;
}
