//! `GET /portal/devices/{device}/telemetry`: the telemetry of a device and its modules, as it arrives.

use maud::html;

use super::NamedIdentityPage;
use super::frame::{self, Tab};
use crate::operations::identities;
use crate::portal::answer::PageResult;
use crate::portal::visit::Visit;

/// `GET /portal/devices/{device}/telemetry`. The frame names the source of the events.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    let content = html! {
        div.live-bar {
            span.chip data-live-status role="status" { "needs a script" }
            span.quiet data-live-count {}
            span.rest {}
            button type="button" data-live-pause { "Pause" }
            button type="button" data-live-clear { "Clear" }
        }
        p.notice.failed data-live-refused hidden {}
        div.card.empty data-live-empty {
            strong { "Waiting for a message" }
            p {
                "New messages of the device and its modules appear here, newest first. The hub does not store them, so earlier "
                "messages are not shown."
            }
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
    };
    Ok(frame::page(&visit, &entry, Tab::Telemetry, content))
}
