//! `GET /portal/devices/{device}/telemetry`: what a device and its modules send, as it comes.

use axum::response::IntoResponse;
use maud::{Markup, html};

use super::Named;
use crate::identities;
use crate::portal::answer::{Answer, Html};
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, words};

/// `GET /portal/devices/{device}/telemetry`.
pub(in crate::portal) async fn show(visit: Visit, Named(id): Named) -> Answer {
    identities::retrieve(visit.hub(), visit.service(), &id)?;
    let is_connected = visit.hub().sessions.session(&id).is_some();
    let content = html! {
        p.crumbs { a href=(paths::DEVICES) { "Devices" } " / " a href=(paths::identity(&id)) { (id) } }
        h1 { "Telemetry of " (id) }
        (stream(&paths::live_telemetry(&id.device), id.device.as_str(), is_connected))
    };
    Ok(Html(layout::page(&visit, Section::Devices, &format!("Telemetry of {id}"), content)).into_response())
}

/// The place where a stream of telemetry comes in. `address` is where it comes from.
fn stream(address: &str, device: &str, is_connected: bool) -> Markup {
    html! {
        div data-live=(address) {
            div.live-bar {
                span data-connection-of=(device) { (words::connection(is_connected)) }
                span.chip data-live-status role="status" { "needs a script" }
                span.quiet data-live-count {}
                span.rest {}
                button type="button" data-live-pause { "Pause" }
                button type="button" data-live-clear { "Clear" }
            }
            p.notice.failed data-live-refused hidden {}
            div.card.empty data-live-empty {
                strong { "Waiting for a message" }
                p { "What the device and its modules send from now on stands here, newest first. Nothing is kept: what was sent before is gone." }
            }
            ol.messages data-live-messages tabindex="0" aria-label="Messages, newest first" {}
            template #live-message {
                li {
                    div.head {
                        span data-field="time" {}
                        span data-field="sender" {}
                        span data-field="size" {}
                        span.mono data-field="properties" {}
                    }
                    pre data-field="body" {}
                }
            }
        }
    }
}
