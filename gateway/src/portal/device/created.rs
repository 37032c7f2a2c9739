//! `GET /portal/created/{device}`: a new device's credentials and how a program uses them.

use axum::response::IntoResponse;
use maud::html;

use super::NamedIdentityPage;
use super::credentials::{self, SecretDisplay};
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult};
use crate::portal::layout::{self, Section};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// `GET /portal/created/{device}`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    let content = html! {
        p.crumbs { a href=(paths::DEVICES) { "Devices" } " / " a href=(paths::identity(&id)) { (id) } }
        h1 { "Connect " (id) }
        (credentials::panel(&visit, &entry.identity(), SecretDisplay::Hidden, true))
        div.toolbar {
            a.button.primary href=(paths::identity(&id)) { "Open the device" }
            a.button href=(paths::NEW_DEVICE) { "Add another device" }
        }
    };
    Ok(Html(layout::page(&visit, Section::Devices, &format!("Connect {id}"), content)).into_response())
}
