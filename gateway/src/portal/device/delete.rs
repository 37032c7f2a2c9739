//! `…/delete`: a page that says what is deleted with a device or module, and the deletion.

use axum::response::IntoResponse;
use maud::html;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::IdentityId;

use super::frame::crumbs_below;
use super::{NamedIdentityPage, version, version_field};
use crate::operations::identities::{self, IdentityError};
use crate::portal::answer::{Html, PageResult, see_other};
use crate::portal::fields::FormFields;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `GET …/delete`.
pub(in crate::portal) async fn ask(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    let modules = match id.module {
        None => identities::modules(visit.hub(), visit.service(), &id.device)?,
        Some(_) => Vec::new(),
    };
    let content = html! {
        (crumbs_below(&id))
        h1 { "Delete " (id) "?" }
        div.card {
            p { "The hub disconnects it at once and refuses its credentials from then on. This cannot be undone." }
            ul {
                @if !modules.is_empty() {
                    li { "The hub also deletes " (text::count(modules.len(), "module"))
                        @for module in &modules { " " code { (module.identity().id) } } }
                }
                li { (text::count(entry.queued(), "message")) " waiting for it" }
            }
            form method="post" action=(paths::under(&id, "delete")) {
                (visit.token_field()) (version_field(&entry.identity()))
                div.toolbar {
                    button.danger type="submit" { "Delete" }
                    a.button href=(paths::identity(&id)) { "Cancel" }
                }
            }
        }
    };
    Ok(Html(layout::page(&visit, Section::Devices, &format!("Delete {id}?"), content)).into_response())
}

/// `POST …/delete`.
pub(in crate::portal) async fn delete(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let precondition = version(&fields)?;
    match identities::delete(visit.hub(), visit.service(), &id, precondition).await {
        Ok(()) => {
            visit.flash(format!("{id} is deleted."));
            Ok(see_other(&match &id.module {
                None => paths::DEVICES.to_owned(),
                Some(_) => paths::under(&IdentityId::device(id.device.clone()), "modules"),
            }))
        }
        Err(IdentityError::Registry(RegistryError::PreconditionFailed(_))) => {
            visit.flash_failure(
                "It was not deleted, because somebody has changed it in the meantime. This page shows its present state.",
            );
            Ok(see_other(&paths::identity(&id)))
        }
        Err(error) => Err(error.into()),
    }
}
