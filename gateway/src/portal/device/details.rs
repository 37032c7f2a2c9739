//! The first page of a device or module: its state, its credentials, and the forms that change it.

use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use portcullis_registry::entry::Entry;
use portcullis_registry::identity::Identity;
use portcullis_registry::policy::Rights;

use super::access::AccessForm;
use super::credentials::{self, SecretDisplay};
use super::frame::{self, Tab};
use super::status::StatusForm;
use super::{NamedIdentityPage, keys, token};
use crate::operations::identities;
use crate::operations::presence;
use crate::portal::answer::PageResult;
use crate::portal::form::Errors;
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// A form of the page as it was filled in, to be shown again with its errors.
#[derive(Default)]
pub(super) struct DetailsForm {
    pub(super) status: Option<StatusForm>,
    pub(super) access: Option<AccessForm>,
    pub(super) errors: Errors,
}

/// `GET /portal/devices/{device}` and `…/modules/{module}`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    Ok(page(&visit, &entry, DetailsForm::default()))
}

/// The page, with the errors of a refused form if there was one.
pub(super) fn page(visit: &Visit, entry: &Entry, draft: DetailsForm) -> Response {
    let identity = entry.identity();
    let may_write = visit.may(Rights::REGISTRY_WRITE);
    let DetailsForm { status, access, errors } = draft;
    let answer = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let content = html! {
        @if !errors.is_empty() { p.notice.failed role="alert" { "Nothing was changed. Correct the marked fields below." } }
        @if may_write { (toolbar(visit, &identity)) }
        div.cards {
            (state(visit, entry, &identity))
            section.card aria-labelledby="status-name" {
                h2 id="status-name" { (if identity.id.module.is_some() { "Module" } else { "Status" }) }
                (status.unwrap_or_else(|| StatusForm::of(&identity)).show(visit, &identity, &errors, may_write))
            }
        }
        (credentials::panel(visit, &identity, SecretDisplay::Hidden, false))
        @if may_write {
            div.cards {
                (keys::section(visit, &identity))
                (token::section(visit, &identity))
                section.card aria-labelledby="access-name" {
                    h2 id="access-name" { "Access" }
                    (access.unwrap_or_else(|| AccessForm::of(&identity)).show(visit, &identity, &errors))
                }
            }
        }
    };
    frame::page_of(visit, entry, Tab::Details, answer, content)
}

fn toolbar(visit: &Visit, identity: &Identity) -> Markup {
    let id = &identity.id;
    html! {
        div.toolbar {
            @if visit.may(Rights::SERVICE_CONNECT) {
                a.button href=(paths::under(id, "messages")) { (if id.module.is_some() { "Message to module" } else { "Message to device" }) }
            }
            @if id.module.is_none() { a.button href=(paths::under(id, "new-module")) { "Add module identity" } }
            a.button href=(paths::under(id, "credential")) { "Change authentication" }
            a.button href=(paths::identity(id)) { "Refresh" }
            span.rest {}
            a.button.danger href=(paths::under(id, "delete")) { "Delete" }
        }
    }
}

fn state(visit: &Visit, entry: &Entry, identity: &Identity) -> Markup {
    let hub = visit.hub();
    let limits = &hub.config.limits;
    let live = presence::live_state(hub, entry);
    let queue_max = identity.queue_max.map_or(limits.queue_messages_max, |own| usize::from(own.get()));
    let is_device = identity.id.module.is_none();
    // A device that was deleted since has none.
    let modules =
        identities::modules(hub, visit.service(), &identity.id.device).map_or(0, |modules| modules.len());
    html! {
        section.card aria-labelledby="state-name" {
            h2 id="state-name" { "State" }
            dl.facts {
                dt { "Connection changed" } dd { (text::time_or_never(live.connection_changed)) }
                dt { "Last activity" } dd { (text::time_or_never(live.last_seen)) }
                dt { "Authentication type" } dd { (text::authentication(identity.authentication.kind())) }
                @if is_device {
                    dt { "Type" } dd { (if identity.iot_edge { "IoT Edge device" } else { "Device" }) }
                    dt { "Modules" } dd { (modules) " of " (limits.modules_per_device_max) }
                    dt { "Status since" } dd { (text::time_or_never(identity.status_updated)) }
                }
                dt { "Messages that wait" } dd { (live.queued) " of " (queue_max) }
                dt { "May do" } dd { (identity.access) }
                dt { "Generation" } dd.mono { (identity.generation) }
                dt { "ETag" } dd.mono { (identity.etag()) }
            }
        }
    }
}
