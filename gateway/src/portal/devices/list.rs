//! `GET /portal/devices`: the list, page by page, with filters and actions on several devices at once.

use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::entry::Entry;
use portcullis_registry::id::DeviceId;
use portcullis_registry::identity::{AuthenticationKind, Status};
use portcullis_registry::policy::Rights;
use portcullis_registry::store::Counts;

use super::list_query::{Count, From, ListQuery};
use crate::operations::identities::{self, IdentityError};
use crate::operations::listing::{self, IdFilter, Listing};
use crate::operations::presence;
use crate::portal::answer::{Html, PageResult};
use crate::portal::fields::Query;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `GET /portal/devices`.
pub(in crate::portal) async fn show(visit: Visit, Query(query): Query) -> PageResult {
    let view = View::of(&visit, ListQuery::parse(&query)).await?;
    let counts = identities::counts(visit.hub(), visit.service())?;
    Ok(page(&visit, &view, counts))
}

/// One page of the list, with its neighbours.
pub(super) struct View {
    asked: ListQuery,
    pub(super) listing: Listing,
    previous: Option<ListQuery>,
    next: Option<ListQuery>,
}

impl View {
    pub(super) async fn of(visit: &Visit, asked: ListQuery) -> Result<Self, IdentityError> {
        let (hub, service) = (visit.hub(), visit.service());
        let Count(count) = asked.count;
        let (place, is_reversed) = asked.place();
        let listing = listing::devices(hub, service, &asked.filter, place, count).await?;
        if !is_reversed {
            let id = |entry: &std::sync::Arc<Entry>| entry.identity().id.device.to_string();
            let first = listing.devices.first().filter(|_| asked.from != From::Beginning);
            let previous = first.map(|first| asked.at(From::Before(id(first))));
            let next = listing.next.as_ref().map(|last| asked.at(From::After(last.to_string())));
            return Ok(Self { asked, listing, previous, next });
        }
        let Some(first) = listing.next.clone() else {
            // The search backwards has reached the beginning of the list.
            let asked = asked.at(From::Beginning);
            let (place, _) = asked.place();
            let listing = listing::devices(hub, service, &asked.filter, place, count).await?;
            let next = listing.next.as_ref().map(|last| asked.at(From::After(last.to_string())));
            return Ok(Self { asked, listing, previous: None, next });
        };
        let mut listing = listing;
        listing.devices.reverse();
        let last = listing.devices.last().map_or(first.clone(), |last| last.identity().id.device.clone());
        let previous = Some(asked.at(From::Before(first.to_string())));
        let next = Some(asked.at(From::After(last.to_string())));
        Ok(Self { asked, listing, previous, next })
    }
}

fn page(visit: &Visit, view: &View, counts: Counts) -> Response {
    let content = html! {
        h1 { "Devices" }
        p.quiet {
            "View, create, delete, and update devices in your IoT hub. "
            (text::count(counts.devices, "device")) ", " (text::grouped(counts.disabled_devices)) " disabled, "
            (text::count(counts.modules, "module")) "."
        }
        @if counts.devices == 0 {
            (nobody_yet(visit))
        } @else {
            (filters(&view.asked))
            (devices(visit, view))
        }
    };
    Html(layout::page(visit, Section::Devices, "Devices", content)).into_response()
}

/// The page of a hub without devices.
fn nobody_yet(visit: &Visit) -> Markup {
    html! {
        div.card.empty {
            strong { "No devices yet" }
            p { "A device needs an id and a credential: a key or a certificate. It connects with any Azure IoT device SDK or any MQTT client." }
            @if visit.may(Rights::REGISTRY_WRITE) {
                a.button.primary href=(paths::NEW_DEVICE) { "Add the first device" }
            } @else {
                p { "To create one, sign in with a policy that has RegistryWrite." }
            }
        }
    }
}

fn filters(asked: &ListQuery) -> Markup {
    let filter = &asked.filter;
    let (text, contains) = match &filter.id {
        IdFilter::Any => ("", false),
        IdFilter::Begins(text) => (text.as_str(), false),
        IdFilter::Contains(text) => (text.as_str(), true),
    };
    let option =
        |value: &str, name: &str, is_it: bool| html! { option value=(value) selected[is_it] { (name) } };
    html! {
        form.filters role="search" method="get" action=(paths::DEVICES) hx-get=(paths::DEVICES) hx-target="#devices"
            hx-select="#devices" hx-swap="outerHTML" hx-push-url="true" hx-sync="this:replace"
            hx-trigger="input changed delay:250ms from:#q, change, submit" {
            div {
                label for="q" { "Device ID" }
                input id="q" name="q" type="search" value=(text) placeholder="enter device ID" maxlength="128"
                    spellcheck="false" autocapitalize="off" autocomplete="off";
            }
            div {
                label for="match" { "Match" }
                select id="match" name="match" {
                    (option("", "begins with", !contains))
                    (option("contains", "contains", contains))
                }
            }
            div {
                label for="type" { "Type" }
                select id="type" name="type" {
                    (option("", "any", filter.iot_edge.is_none()))
                    (option("device", "Device", filter.iot_edge == Some(false)))
                    (option("edge", "IoT Edge device", filter.iot_edge == Some(true)))
                }
            }
            div {
                label for="status" { "Status" }
                select id="status" name="status" {
                    (option("", "any", filter.status.is_none()))
                    (option("enabled", "Enabled", filter.status == Some(Status::Enabled)))
                    (option("disabled", "Disabled", filter.status == Some(Status::Disabled)))
                }
            }
            div {
                label for="auth" { "Authentication" }
                select id="auth" name="auth" {
                    (option("", "any", filter.authentication.is_none()))
                    @for kind in AuthenticationKind::ALL {
                        (option(kind.as_str(), text::authentication(kind), filter.authentication == Some(kind)))
                    }
                }
            }
            div {
                label for="connected" { "Connection" }
                select id="connected" name="connected" {
                    (option("", "any", filter.connected.is_none()))
                    (option("yes", "Connected", filter.connected == Some(true)))
                    (option("no", "Disconnected", filter.connected == Some(false)))
                }
            }
            div {
                label for="count" { "Per page" }
                select id="count" name="count" {
                    @for count in Count::ALL { (option(&count.to_string(), &count.to_string(), asked.count == Count(count))) }
                }
            }
            @if asked.is_descending { input type="hidden" name="order" value="descending"; }
            noscript { div { button type="submit" { "Search" } } }
        }
    }
}

/// The part of the page that changes with the filters.
fn devices(visit: &Visit, view: &View) -> Markup {
    let here = view.asked.address(paths::DEVICES);
    let content = html! {
        (toolbar(visit, view, &here))
        (found(visit, view))
        (pager(view))
    };
    if !visit.may(Rights::REGISTRY_WRITE) {
        return html! { div #devices { (content) } };
    }
    html! {
        form #devices method="post" action=(paths::SELECTED_DELETE) {
            (visit.token_field())
            input type="hidden" name="back" value=(here);
            (content)
        }
    }
}

fn toolbar(visit: &Visit, view: &View, here: &str) -> Markup {
    let may_write = visit.may(Rights::REGISTRY_WRITE);
    html! {
        div.toolbar {
            @if may_write { a.button.primary href=(paths::NEW_DEVICE) { "Add device" } }
            a.button href=(here) { "Refresh" }
            @if may_write {
                button type="submit" formaction=(paths::SELECTED_ENABLE) data-needs-ticks { "Enable" }
                button type="submit" formaction=(paths::SELECTED_DISABLE) data-needs-ticks { "Disable" }
                button.danger type="submit" data-needs-ticks { "Delete" }
                span.quiet data-ticked {}
            }
            span.rest {}
            a.button href=(view.asked.address(paths::DEVICES_CSV)) download="devices.csv" { "Export this page" }
        }
    }
}

fn found(visit: &Visit, view: &View) -> Markup {
    let View { listing, next, .. } = view;
    html! {
        @if !listing.devices.is_empty() { (table(visit, view)) }
        @else if !listing.is_unfinished {
            div.card.empty {
                strong { "No device matches" }
                p { "The case of letters in an id matters." }
                a.button href=(paths::DEVICES) { "Show all devices" }
            }
        }
        @if let Some(next) = next.as_ref().filter(|_| listing.is_unfinished) {
            (unfinished(&next.address(paths::DEVICES), view))
        }
    }
}

/// A page whose search did not look at every device. While nothing is found, a script continues the search.
fn unfinished(next: &str, view: &View) -> Markup {
    let looks_on = view.listing.devices.is_empty();
    let so_far = view.listing.next.as_ref().map(DeviceId::as_str).unwrap_or_default();
    html! {
        p.notice role="status" hx-get=[looks_on.then_some(next)] hx-trigger=[looks_on.then_some("load")]
            hx-target=[looks_on.then_some("#devices")] hx-select=[looks_on.then_some("#devices")]
            hx-swap=[looks_on.then_some("outerHTML")] {
            "There are many devices. The search has reached " code { (so_far) } ". "
            a href=(next) { "Continue the search" }
        }
    }
}

fn pager(view: &View) -> Markup {
    let View { asked, previous, next, .. } = view;
    let beginning = asked.at(From::Beginning);
    let beginning = (*asked != beginning).then_some(beginning);
    html! {
        nav.pager aria-label="Pages" {
            span {
                @for (to, name) in [(&beginning, "First"), (previous, "Previous"), (next, "Next")] {
                    @if let Some(to) = to { a.button href=(to.address(paths::DEVICES)) { (name) } " " }
                }
            }
            @if !asked.is_unfiltered() { a href=(paths::DEVICES) { "Clear filters" } }
        }
    }
}

fn table(visit: &Visit, view: &View) -> Markup {
    let (asked, may_write) = (&view.asked, visit.may(Rights::REGISTRY_WRITE));
    let order = if asked.is_descending { "descending" } else { "ascending" };
    let shown: Vec<_> = view.listing.devices.iter().map(|entry| entry.identity()).collect();
    let live = paths::live_presence(shown.iter().map(|identity| &identity.id.device));
    html! {
        div.scroll tabindex="0" role="region" aria-label="Devices" data-live=(live) {
            table.stack {
                thead {
                    tr {
                        @if may_write {
                            th.check scope="col" { input type="checkbox" data-tick-all aria-label="Select every device of this page" hidden; }
                        }
                        th scope="col" aria-sort=(order) {
                            a href=(asked.turned().address(paths::DEVICES)) { "Device ID " (if asked.is_descending { "↓" } else { "↑" }) }
                        }
                        th scope="col" { "Type" }
                        th scope="col" { "Status" }
                        th scope="col" { "Last status update" }
                        th scope="col" { "Authentication type" }
                        th.number scope="col" { abbr title="Waiting cloud-to-device messages" { "C2D messages" } }
                        th scope="col" { "Connection" }
                        th scope="col" { "Last activity" }
                    }
                }
                tbody {
                    @for entry in &view.listing.devices { (row(visit, entry, may_write)) }
                }
            }
        }
    }
}

fn row(visit: &Visit, entry: &Entry, may_write: bool) -> Markup {
    let identity = entry.identity();
    let device: &DeviceId = &identity.id.device;
    let live = presence::live_state(visit.hub(), entry);
    html! {
        tr {
            @if may_write {
                td.check { input type="checkbox" name="id" value=(device) aria-label={ "Select " (device) }; }
            }
            td.name data-label="Device ID" { a.id href=(paths::device(device)) { (device) } }
            td.minor data-label="Type" { (if identity.iot_edge { "IoT Edge device" } else { "Device" }) }
            td.bare data-label="Status" title=[identity.status_reason.as_deref()] { (text::status(identity.status)) }
            td.minor data-label="Last status update" { (text::time_or_never(identity.status_updated)) }
            td data-label="Authentication type" { (text::authentication(identity.authentication.kind())) }
            td.number data-label="C2D messages" { (live.queued) }
            td.bare data-label="Connection" data-connection-of=(device) { (text::connection(live.connected)) }
            td data-label="Last activity" { (text::time_or_never(live.last_seen)) }
        }
    }
}
