//! `/portal/devices/{device}` and what is below it: one device, its credentials, modules, messages and history.

use axum::extract::FromRequestParts;
use axum::extract::Path;
use axum::http::request::Parts;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};

use super::answer::Refused;

pub(super) mod created;
pub(super) mod credentials;
pub(super) mod snippets;
pub(super) mod telemetry;

/// The device or module a path names.
pub(super) struct Named(pub(super) IdentityId);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refused> {
        let Path(path) = Path::<std::collections::HashMap<String, String>>::from_request_parts(parts, state)
            .await
            .map_err(|error| crate::http::Problem::argument_invalid(error.to_string()))?;
        let device = DeviceId::parse(path.get("device").map(String::as_str).unwrap_or_default())?;
        let module = path.get("module").map(|module| ModuleId::parse(module)).transpose()?;
        Ok(Self(IdentityId { device, module }))
    }
}
