//! `/portal/devices/{device}` and the pages below it: one device, its credentials, modules, messages and history, and
//! the same for a module.
//!
//! `frame` is the common frame of these pages. A form that changes an identity carries the version it was made from, so
//! that it does not overwrite a later change.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use maud::{Markup, html};
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::Identity;

use super::answer::{PageResult, RefusedPage, see_other};
use super::fields::FormFields;
use super::paths;
use super::visit::Visit;
use crate::iothub::problem::Problem;
use crate::operations::identities::IdentityError;

pub(super) mod access;
pub(super) mod audit;
pub(super) mod change;
pub(super) mod connections;
pub(super) mod created;
pub(super) mod credentials;
pub(super) mod delete;
pub(super) mod details;
mod frame;
pub(super) mod keys;
pub(super) mod messages;
pub(super) mod modules;
pub(super) mod send;
pub(super) mod snippets;
pub(super) mod status;
pub(super) mod telemetry;
pub(super) mod token;

/// The device or module that a path names.
pub(super) struct NamedIdentityPage(pub(super) IdentityId);

impl<S: Send + Sync> FromRequestParts<S> for NamedIdentityPage {
    type Rejection = RefusedPage;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, RefusedPage> {
        let Path(path) = Path::<HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| Problem::argument_invalid(error.to_string()))?;
        let device = DeviceId::parse(path.get("device").map(String::as_str).unwrap_or_default())?;
        let module = path.get("module").map(|module| ModuleId::parse(module)).transpose()?;
        Ok(Self(IdentityId { device, module }))
    }
}

/// The version a form was made from, as a hidden field.
fn version_field(identity: &Identity) -> Markup {
    html! { input type="hidden" name="etag" value=(identity.etag()); }
}

/// The version a form was made from.
fn version(fields: &FormFields) -> Result<Precondition, Problem> {
    match Precondition::parse_if_match(fields.text("etag")) {
        Ok(version @ Precondition::Version(_)) => Ok(version),
        _ => Err(Problem::argument_invalid(
            "The form does not name the version it changes. Load its page again.",
        )),
    }
}

/// The answer to a form that changes an identity: a redirection to its page, which shows the result.
fn changed(
    visit: &Visit,
    outcome: Result<std::sync::Arc<Identity>, IdentityError>,
    id: &IdentityId,
    done: &str,
) -> PageResult {
    match outcome {
        Ok(_) => visit.flash(done),
        Err(IdentityError::Registry(RegistryError::PreconditionFailed(_))) => {
            visit.flash_failure(
                "Nothing was changed, because somebody else has changed it in the meantime. This page shows its present state.",
            );
        }
        Err(error) => return Err(error.into()),
    }
    Ok(see_other(&paths::identity(id)))
}
