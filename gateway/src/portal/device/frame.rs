//! The common frame of the pages of one device or module: its path, its state in a line, and its tabs.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::entry::Entry;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Rights;

use crate::operations::presence;
use crate::portal::answer::Html;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// A page of one identity. To add one: a variant, a line in `ALL` and in `place`, and a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    Details,
    Modules,
    Messages,
    Telemetry,
    Connections,
    Audit,
}

impl Tab {
    const ALL: [Tab; 6] =
        [Tab::Details, Tab::Modules, Tab::Messages, Tab::Telemetry, Tab::Connections, Tab::Audit];

    /// Its name, its path below the identity's page, and the rights that it needs.
    fn place(self) -> (&'static str, &'static str, Rights) {
        match self {
            Tab::Details => ("Details", "", Rights::REGISTRY_READ),
            Tab::Modules => ("Module identities", "modules", Rights::REGISTRY_READ),
            Tab::Messages => ("C2D queue", "messages", Rights::SERVICE_CONNECT),
            Tab::Telemetry => {
                ("Live telemetry", "telemetry", Rights::REGISTRY_READ | Rights::SERVICE_CONNECT)
            }
            Tab::Connections => ("Connections", "connections", Rights::REGISTRY_READ),
            Tab::Audit => ("Audit", "audit", Rights::ALL),
        }
    }

    /// Modules have no modules. Their telemetry is on the page of their device.
    fn is_of(self, id: &IdentityId) -> bool {
        !matches!(self, Tab::Modules | Tab::Telemetry) || id.module.is_none()
    }
}

/// A whole page.
pub(super) fn page(visit: &Visit, entry: &Entry, tab: Tab, content: Markup) -> Response {
    page_of(visit, entry, tab, StatusCode::OK, content)
}

/// The same, as the answer to a refused form.
pub(super) fn page_of(
    visit: &Visit,
    entry: &Entry,
    tab: Tab,
    status: StatusCode,
    content: Markup,
) -> Response {
    let identity = entry.identity();
    let id = &identity.id;
    let is_connected = presence::is_connected(visit.hub(), id);
    let content = html! {
        (crumbs(id))
        h1 {
            (id.module.as_ref().map_or(id.device.as_str(), |module| module.as_str())) " "
            @if id.module.is_none() { (text::status(identity.status)) " " }
            span data-connection-of=(id) data-live=(live(id, tab)) { (text::connection(is_connected)) }
        }
        nav.tabs aria-label="About this identity" {
            @for own in Tab::ALL.into_iter().filter(|own| own.is_of(id)) {
                @let (name, path, needs) = own.place();
                @if visit.may(needs) {
                    a href=(if path.is_empty() { paths::identity(id) } else { paths::under(id, path) })
                        aria-current=[(own == tab).then_some("page")] { (name) }
                }
            }
        }
        (content)
    };
    let page = layout::page(visit, Section::Devices, &id.to_string(), content);
    (status, Html(page)).into_response()
}

/// The address of the live events for an open page.
fn live(id: &IdentityId, tab: Tab) -> String {
    match tab {
        Tab::Telemetry => paths::live_telemetry(&id.device),
        Tab::Details | Tab::Modules | Tab::Messages | Tab::Connections | Tab::Audit => {
            paths::live_presence(std::iter::once(&id.device))
        }
    }
}

/// The path to the page: the list, and the device above it.
pub(super) fn crumbs(id: &IdentityId) -> Markup {
    html! {
        p.crumbs {
            a href=(paths::DEVICES) { "Devices" }
            @if id.module.is_some() {
                " / " a href=(paths::device(&id.device)) { (id.device) }
                " / " a href=(paths::under(&IdentityId::device(id.device.clone()), "modules")) { "modules" }
            }
        }
    }
}

/// The path to a page below an identity's own.
pub(super) fn crumbs_below(id: &IdentityId) -> Markup {
    html! {
        p.crumbs { a href=(paths::DEVICES) { "Devices" } " / " a href=(paths::identity(id)) { (id) } }
    }
}
