//! `…/messages`: the queue of a device or module, a form to send a message, and a button to empty the queue.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use maud::{Markup, html};
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::Status;
use portcullis_registry::queue::Queued;

use super::NamedIdentityPage;
use super::frame::{self, Tab, crumbs_below};
use super::send::MessageForm;
use crate::iothub::problem::Problem;
use crate::operations::c2d;
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult, see_other};
use crate::portal::form::Errors;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `GET …/messages`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    page(&visit, &id, &MessageForm::default(), &Errors::default(), None)
}

/// `GET …/purge`: asks for confirmation.
pub(in crate::portal) async fn ask_purge(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
) -> PageResult {
    let queued = c2d::peek(visit.hub(), visit.service(), &id, usize::MAX)?.len();
    let content = html! {
        (crumbs_below(&id))
        h1 { "Empty the queue of " (id) "?" }
        div.card {
            p { (text::count(queued, "message")) " will never arrive. A message that is being delivered may still arrive." }
            form method="post" action=(paths::under(&id, "purge")) {
                (visit.token_field())
                div.toolbar {
                    button.danger type="submit" { "Purge" }
                    a.button href=(paths::under(&id, PATH)) { "Cancel" }
                }
            }
        }
    };
    Ok(Html(layout::page(&visit, Section::Devices, "Empty the queue?", content)).into_response())
}

/// `POST …/purge`.
pub(in crate::portal) async fn purge(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let count = c2d::purge(visit.hub(), visit.service(), &id).await?;
    visit.flash(format!("{} purged.", text::count(usize::try_from(count).unwrap_or(usize::MAX), "message")));
    Ok(see_other(&paths::under(&id, PATH)))
}

/// The page, perhaps with a message that was not accepted.
pub(super) fn page(
    visit: &Visit,
    id: &IdentityId,
    form: &MessageForm,
    errors: &Errors,
    above: Option<Problem>,
) -> PageResult {
    let hub = visit.hub();
    let queued = c2d::peek(hub, visit.service(), id, SHOWN_MAX)?;
    let entry = identities::retrieve_for_sending(hub, visit.service(), id)?;
    let status = match &above {
        Some(problem) => problem.status(),
        None if errors.is_empty() => StatusCode::OK,
        None => StatusCode::BAD_REQUEST,
    };
    let content = html! {
        @if let Some(problem) = &above { p.notice.failed role="alert" { "Not sent: " (problem.text()) } }
        @else if !errors.is_empty() { p.notice.failed role="alert" { "The message was not sent. Correct the marked fields below." } }
        @if entry.identity().status == Status::Disabled { p.notice { "It is disabled. It accepts no new messages, and the hub keeps the waiting ones." } }
        div.toolbar {
            span { (text::count(entry.queued(), "message")) ", waiting or being delivered" }
            span.rest {}
            a.button href=(paths::under(id, PATH)) { "Refresh" }
            @if entry.queued() > 0 { a.button.danger href=(paths::under(id, "purge")) { "Purge" } }
        }
        @if queued.is_empty() {
            div.card.empty { strong { "No message waits" } p { "A message reaches a connected device at once. For a disconnected device it waits." } }
        } @else {
            (table(&queued))
        }
        section.card aria-labelledby="send-name" {
            h2 id="send-name" { "Send a message" }
            (form.show(visit, id, errors))
        }
    };
    Ok(frame::page_of(visit, &entry, Tab::Messages, status, content))
}

fn table(queued: &[Queued]) -> Markup {
    html! {
        div.scroll tabindex="0" role="region" aria-label="Waiting messages" {
            table.stack {
                thead {
                    tr {
                        th.number scope="col" { "No." } th scope="col" { "Message ID" } th scope="col" { "State" }
                        th scope="col" { "Enqueued" } th scope="col" { "Expires" } th scope="col" { "Ack" }
                        th scope="col" { "Properties" } th scope="col" { "Body" }
                    }
                }
                tbody { @for message in queued { (row(message)) } }
            }
        }
    }
}

fn row(queued: &Queued) -> Markup {
    let message = &queued.message;
    html! {
        tr {
            td.number data-label="No." { (message.number) }
            td data-label="Message ID" { span.id { (message.message_id) } }
            td data-label="State" {
                @if queued.is_held { span.chip.warn { "Being delivered" } } @else { span.chip { "Waiting" } }
                @if queued.delivery_count > 0 { span.quiet { " abandoned " (queued.delivery_count) "×" } }
            }
            td data-label="Enqueued" { (text::time(message.enqueued)) }
            td data-label="Expires" { (text::time(message.expiry)) }
            td data-label="Ack" { (message.ack.as_str()) }
            td data-label="Properties" {
                @for (name, value) in &message.properties { div { code { (name) "=" (value) } } }
                @for (name, value) in [("correlation id", &message.correlation_id), ("content type", &message.content_type), ("content encoding", &message.content_encoding), ("user id", &message.user_id)] {
                    @if let Some(value) = value { div.quiet { (name) ": " (value) } }
                }
            }
            td data-label="Body" { (body(&message.body)) }
        }
    }
}

/// Text if it is text. Of a long one the beginning, with a button for the rest.
fn body(bytes: &[u8]) -> Markup {
    let (text, is_text) = match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), true),
        Err(_) => (BASE64_STANDARD.encode(bytes), false),
    };
    let end = text.floor_char_boundary(BODY_BYTES_SHOWN);
    html! {
        @if !is_text { span.chip { "base64" } " " }
        @if end == text.len() { code.body { (text) } }
        @else { details { summary { code.body { (text[..end]) "…" } " " (text::count(bytes.len(), "byte")) } pre { (text) } } }
    }
}

/// The path of these pages below the identity's.
pub(super) const PATH: &str = "messages";
const SHOWN_MAX: usize = 100;
const BODY_BYTES_SHOWN: usize = 120;
