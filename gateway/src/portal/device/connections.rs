//! `GET …/connections`: the last connections and refusals of a device or module, with the reasons and what to do.

use jiff::{SignedDuration, Timestamp};
use maud::{Markup, html};
use portcullis_registry::id::IdentityId;

use super::NamedIdentityPage;
use super::frame::{self, Tab};
use crate::hub::connection_log::{Connection, Flapping};
use crate::hub::outcome::ConnectionOutcome;
use crate::hub::refusals::Refusal;
use crate::operations::identities::{self, ConnectionReport};
use crate::portal::answer::PageResult;
use crate::portal::text;
use crate::portal::visit::Visit;

/// `GET …/connections`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let entry = identities::retrieve(hub, service, &id)?;
    let ConnectionReport { connections, refused, .. } = identities::connection_report(hub, service, &id)?;
    let now = hub.clock.wall();
    let hints = hints(&id, &refused.last, &connections.last);
    let content = html! {
        @if let Some(flapping) = &connections.flapping { (flapping_notice(flapping)) }
        @if !hints.is_empty() {
            section.card aria-labelledby="hints-name" {
                h2 id="hints-name" { "What to do" }
                ul { @for (what, hint) in &hints { li { strong { (what) } ": " (commands(hint)) "." } } }
            }
        }
        h2 { "Connections" }
        @if connections.last.is_empty() {
            div.card.empty { strong { "No connection since the hub started" } p { "It has not connected over MQTT. If the hub refused it, the reason is below." } }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Connections" {
                table.stack {
                    thead { tr { th scope="col" { "Connected" } th scope="col" { "Ended" } th scope="col" { "From" } th scope="col" { "Credential" } th scope="col" { "Credential expires" } th scope="col" { "Why it ended" } } }
                    tbody { @for connection in connections.last.iter().rev() { (connection_row(connection, now)) } }
                }
            }
        }
        h2 { "Refusals" }
        @if refused.last.is_empty() { p.quiet { "None since the hub started." } }
        @else {
            p.quiet { "Refused " (text::count(usize::try_from(refused.count).unwrap_or(usize::MAX), "time")) " since the hub started. The last refusals:" }
            div.scroll tabindex="0" role="region" aria-label="Refusals" {
                table.stack {
                    thead { tr { th scope="col" { "Time" } th scope="col" { "From" } th scope="col" { "Outcome" } th scope="col" { "Reason" } th scope="col" { "Received" } th scope="col" { "Expected" } } }
                    tbody { @for refusal in &refused.last { (refusal_row(refusal)) } }
                }
            }
        }
    };
    Ok(frame::page(&visit, &entry, Tab::Connections, content))
}

fn flapping_notice(flapping: &Flapping) -> Markup {
    html! {
        p.notice role="alert" {
            "Several clients use this identity. They took its connection over " (flapping.takeovers) " more times from "
            (text::time(flapping.since)) " to " (text::time(flapping.last)) ". Give each device an identity of its own."
        }
    }
}

fn connection_row(connection: &Connection, now: Timestamp) -> Markup {
    let ended = connection.ended.as_ref();
    let until = ended.map_or(now, |ended| ended.time);
    let lasted = until.duration_since(connection.since);
    html! {
        tr {
            td data-label="Connected" { (text::time(connection.since)) }
            td data-label="Ended" {
                @match ended {
                    Some(ended) => { (text::time(ended.time)) }
                    None => { span.chip.good { "Open" } }
                }
                span.quiet { " after " (duration(lasted)) }
            }
            td data-label="From" { span.id { (connection.peer) } }
            td data-label="Credential" { (connection.method) }
            td data-label="Credential expires" { (text::time_or_never(connection.credential_end)) }
            td data-label="Why it ended" {
                @if let Some(ended) = ended {
                    (ended.reason.description()) @if let Some(text) = &ended.text { ": " (text) }
                    " " code { (ended.reason.label()) }
                }
            }
        }
    }
}

fn refusal_row(refusal: &Refusal) -> Markup {
    let contrast = refusal.contrast.as_ref();
    let left = refusal.token_end.map(|end| end.saturating_sub(refusal.time.as_second()));
    html! {
        tr {
            td data-label="Time" { (text::time(refusal.time)) }
            td data-label="From" { span.id { (refusal.peer) } span.quiet { " " (refusal.face.as_str()) } }
            td data-label="Outcome" { code { (refusal.outcome.label()) } }
            td data-label="Reason" {
                (refusal.reason)
                @match left {
                    Some(left @ 0..) => { span.quiet { " Its token had " (left) " s left." } }
                    Some(left) => { span.quiet { " Its token had expired " (left.unsigned_abs()) " s before." } }
                    None => {}
                }
            }
            td data-label="Seen" { (contrast.map_or("", |contrast| &contrast.seen)) }
            td data-label="Expected" { (contrast.map_or("", |contrast| &contrast.expected)) }
        }
    }
}

/// Advice on the last refusals and disconnects, each once and the latest first.
fn hints<'a>(
    id: &IdentityId,
    refusals: impl IntoIterator<Item = &'a Refusal>,
    connections: &'a [Connection],
) -> Vec<(&'static str, String)> {
    let refused = refusals.into_iter().map(|refusal| refusal.outcome);
    let ended = connections.iter().rev().filter_map(|connection| Some(connection.ended.as_ref()?.reason));
    let mut outcomes: Vec<ConnectionOutcome> = Vec::new();
    for outcome in refused.chain(ended) {
        if !outcomes.contains(&outcome) {
            outcomes.push(outcome);
        }
    }
    outcomes.into_iter().filter_map(|outcome| Some((outcome.label(), outcome.advice(id)?))).collect()
}

/// A hint names commands between backticks.
fn commands(hint: &str) -> Markup {
    html! {
        @for (place, part) in hint.split('`').enumerate() {
            @if place % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn duration(lasted: SignedDuration) -> String {
    match lasted.as_secs().max(0) {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        seconds => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}
