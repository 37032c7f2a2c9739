//! `GET …/audit`: who changed this device and its modules, or this module, and who was refused.

use maud::{Markup, html};
use serde_json::Value;

use super::NamedIdentityPage;
use super::frame::{self, Tab};
use crate::hub::audit::trail::{AuditFilter, effect_text};
use crate::operations::audit;
use crate::operations::identities;
use crate::portal::answer::PageResult;
use crate::portal::visit::Visit;

/// `GET …/audit`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let entry = identities::retrieve(hub, service, &id)?;
    let wanted = AuditFilter { count: SHOWN_MAX, target: Some(id.to_string()), ..AuditFilter::default() };
    let lines = audit::read(hub, service, wanted).await?;
    let content = html! {
        @if lines.is_empty() {
            div.card.empty { strong { "No entries yet" } p { "The hub records every change here, and every refused attempt." } }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Audit record" {
                table.stack {
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Policy" } th scope="col" { "By" } th scope="col" { "Operation" } th scope="col" { "Target" } th scope="col" { "Change" } th scope="col" { "Result" } } }
                    tbody { @for line in lines.iter().rev() { (row(line)) } }
                }
            }
            p.hint { "At most the latest " (SHOWN_MAX) " lines." }
        }
    };
    Ok(frame::page(&visit, &entry, Tab::Audit, content))
}

fn row(line: &Value) -> Markup {
    let of = |member: &str| line[member].as_str().unwrap_or_default();
    let time = of("time").parse::<jiff::Timestamp>().ok();
    html! {
        tr {
            td data-label="Time" { @if let Some(time) = time { (crate::portal::text::time(time)) } }
            td data-label="Policy" { (of("actor")) }
            td data-label="By" { (of("source")) span.quiet { " from " (of("ip")) } }
            td data-label="Operation" { code { (of("op")) } }
            td data-label="Target" { span.id { (of("target")) } }
            td data-label="Change" { (effect_text(line)) }
            td data-label="Result" { @if of("result") == "done" { "done" } @else { span.chip.bad { "refused" } " " (of("result")) } }
        }
    }
}

const SHOWN_MAX: usize = 100;
