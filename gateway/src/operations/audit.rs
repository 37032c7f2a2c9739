//! The audit record: how an operation leaves its line there, how a front's refusal does, and how the owner reads it.

use std::fmt::Display;
use std::io;

use portcullis_registry::policy::Rights;
use serde_json::Value;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::audit::effect::Effect;
use crate::hub::audit::trail::{self, AuditFilter};
use crate::hub::audit::{AuditEntry, Operation};

/// Why the record is not read.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the audit record cannot be read: {0}")]
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

/// Does what `caller` asks for, and leaves a line that says what it did or why it was refused. It returns once the line
/// is written.
pub(crate) async fn audited<T, E: Display>(
    hub: &Hub,
    caller: &VerifiedService,
    operation: Operation,
    target: String,
    work: impl Future<Output = Result<(T, Effect), E>>,
) -> Result<T, E> {
    let entry = AuditEntry::of(caller, operation, target, hub.clock.wall());
    let (outcome, entry) = match work.await {
        Ok((done, effect)) => (Ok(done), AuditEntry { effect, ..entry }),
        Err(error) => {
            let refused = Some(error.to_string());
            (Err(error), AuditEntry { refused, ..entry })
        }
    };
    hub.audit.record(entry).await;
    outcome
}

/// Leaves a line for an answer that shows keys to `caller`. It does not wait until the line is written: reads stay as
/// fast as memory, and a line that cannot be written is counted as missing and told of by the next.
pub(crate) async fn note_reveal(
    hub: &Hub,
    caller: &VerifiedService,
    target: String,
    details: Vec<(&'static str, Value)>,
) {
    let entry = AuditEntry::of(caller, Operation::RevealCredential, target, hub.clock.wall());
    hub.audit.note(AuditEntry { effect: Effect::with_details(details), ..entry }).await;
}
