//! The first page: the hub at a glance. Its numbers refresh while it is open.

use axum::response::IntoResponse;
use jiff::Timestamp;
use maud::{Markup, html};
use portcullis_registry::policy::Rights;

use super::answer::{Html, PageResult};
use super::chart::{self, Point};
use super::layout::{self, Section};
use super::paths;
use super::text::{grouped, time};
use super::visit::Visit;
use crate::hub::history::Sample;
use crate::operations::overview::{self, HealthIssue, Overview};

/// `GET /portal`.
pub(super) async fn show(visit: Visit) -> PageResult {
    let content = html! {
        h1 { "Overview" }
        @if visit.may(Rights::REGISTRY_READ) {
            (glance(&visit, &overview::of(visit.hub(), visit.service())?))
        } @else {
            p {
                "Signed in with the policy " strong { (visit.service().policy()) } ", which has the rights "
                (visit.service().rights()) ". This page needs the right RegistryRead."
            }
        }
    };
    Ok(Html(layout::page(&visit, Section::Overview, "Overview", content)).into_response())
}

/// `GET /portal/overview`: the part of the page that refreshes.
pub(super) async fn renew(visit: Visit) -> PageResult {
    Ok(Html(glance(&visit, &overview::of(visit.hub(), visit.service())?)).into_response())
}

fn glance(visit: &Visit, seen: &Overview) -> Markup {
    html! {
        div id="glance" hx-get=(paths::OVERVIEW) hx-trigger="every 30s" hx-swap="outerHTML" {
            @if seen.counts.devices == 0 { (first_step(visit)) }
            (tiles(seen))
            section aria-labelledby="hour" {
                h2 id="hour" { "The last hour" }
                (charts(&seen.samples))
            }
            div.cards {
                section.card aria-labelledby="reasons" {
                    h2 id="reasons" { "Refused, by reason" }
                    (reasons(&seen.samples))
                }
                section.card aria-labelledby="health" {
                    h2 id="health" { "Health" }
                    (health(seen))
                }
            }
            section aria-labelledby="refusals" {
                h2 id="refusals" { "Latest refusals" }
                (refusals(seen))
            }
        }
    }
}

fn first_step(visit: &Visit) -> Markup {
    html! {
        section.card.empty {
            h2 { "No devices yet" }
            @if visit.may(Rights::REGISTRY_WRITE) {
                p { "Create the first one. It needs only a name, and the next page shows how to connect it." }
                p { a.button.primary href=(paths::NEW_DEVICE) { "Create a device" } }
            } @else {
                p { "To create the first one, sign in with a policy that has RegistryWrite." }
            }
        }
    }
}

fn tiles(seen: &Overview) -> Markup {
    let counts = seen.counts;
    let enabled = counts.devices.saturating_sub(counts.disabled_devices);
    let connected = seen.samples.last().map_or(0, |now| now.connected);
    let tile = |name: &str, count: usize, path: &str| {
        html! { a.tile href=(path) { span.what { (name) } strong { (grouped(count)) } } }
    };
    html! {
        nav.tiles aria-label="Devices by status" {
            (tile("Devices", counts.devices, paths::DEVICES))
            (tile("Enabled", enabled, &format!("{}?status=enabled", paths::DEVICES)))
            (tile("Disabled", counts.disabled_devices, &format!("{}?status=disabled", paths::DEVICES)))
            (tile("Connected now", connected, &format!("{}?connected=yes", paths::DEVICES)))
        }
    }
}

fn charts(samples: &[Sample]) -> Markup {
    let Some(now) = samples.last() else { return html! {} };
    let level = |title: &str, unit: &str, of: fn(&Sample) -> usize| {
        let points: Vec<_> = samples.iter().map(|sample| point(sample, now, of(sample) as f64)).collect();
        chart::line(title, &grouped(of(now)), unit, &points)
    };
    let rate = |title: &str, of: fn(&Sample) -> u64| {
        let points = rates(samples, of);
        let last = points.last().map_or(0.0, |point| point.value);
        chart::line(title, &chart::number(last), "a minute", &points)
    };
    html! {
        div.charts {
            (level("Devices connected", "", |sample| sample.connected))
            (rate("Connects", Sample::connects))
            (rate("Refused", |sample| sample.refusals().map(|(_, count)| count).sum()))
            (rate("Telemetry", |sample| sample.messages))
            (rate("Messages delivered to devices", |sample| sample.delivered))
            (level("Messages waiting for devices", "", |sample| sample.queued))
        }
    }
}

fn point(sample: &Sample, now: &Sample, value: f64) -> Point {
    Point { ago: now.taken.saturating_duration_since(sample.taken).as_secs_f64(), value }
}

/// The growth of a counter per minute. Skips samples that are too close together.
fn rates(samples: &[Sample], of: fn(&Sample) -> u64) -> Vec<Point> {
    let Some(now) = samples.last() else { return Vec::new() };
    let mut points = Vec::new();
    let mut before = 0;
    for (place, sample) in samples.iter().enumerate().skip(1) {
        let seconds = sample.taken.saturating_duration_since(samples[before].taken).as_secs_f64();
        if seconds < SECONDS_APART {
            continue;
        }
        let grown = of(sample).saturating_sub(of(&samples[before]));
        points.push(point(sample, now, grown as f64 * 60.0 / seconds));
        before = place;
    }
    points
}

fn reasons(samples: &[Sample]) -> Markup {
    let (Some(first), Some(now)) = (samples.first(), samples.last()) else { return html! {} };
    let grown = now
        .refusals()
        .map(|(reason, count)| (reason.label(), count.saturating_sub(first.attempts_with(reason))));
    let mut rows: Vec<_> = grown.filter(|(_, count)| *count > 0).collect();
    rows.sort_by_key(|(reason, count)| (std::cmp::Reverse(*count), *reason));
    let rows: Vec<_> = rows.into_iter().map(|(reason, count)| (in_words(reason), count as usize)).collect();
    html! {
        @if rows.is_empty() {
            p.quiet { "The hub refused no connection in the last hour." }
        } @else {
            (chart::bars(&rows))
        }
    }
}

fn refusals(seen: &Overview) -> Markup {
    if seen.refusals.is_empty() {
        return html! {
            p.quiet {
                "None since the hub started. When the hub refuses a device, this page and the device's page show the exact reason."
            }
        };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Latest refusals" {
            table.stack {
                thead { tr { th { "Time" } th { "Identity" } th { "From" } th { "Reason" } } }
                tbody {
                    @for (id, refusal) in &seen.refusals {
                        tr {
                            td.time data-label="Time" { (time(refusal.time)) }
                            td data-label="Identity" { a.id href=(paths::device(&id.device)) { (id) } }
                            td data-label="From" { (refusal.peer) " " span.quiet { (refusal.face.as_str()) } }
                            td.reason data-label="Reason" { (refusal.reason) }
                        }
                    }
                }
            }
        }
    }
}

fn health(seen: &Overview) -> Markup {
    html! {
        ul.health {
            @if seen.health_issues.is_empty() { li.good { "The hub is healthy." } }
            @for issue in &seen.health_issues { li.bad { (describe(*issue)) } }
            (end("The server certificate", seen.server_certificate_end, seen.time))
            @for authority in &seen.authorities {
                @let name = format!("The CA {}", authority.name);
                @match authority.end {
                    Some(moment) => { (end(&name, moment, seen.time)) }
                    None => { li.bad { (name) " cannot be read." } }
                }
                @if !authority.is_verified {
                    li.soon { (name) " is not verified, so the hub does not trust its devices yet." }
                }
            }
        }
    }
}

/// When a certificate expires, and how soon that is.
fn end(name: &str, moment: Timestamp, now: Timestamp) -> Markup {
    let days = moment.duration_since(now).as_hours() / 24;
    let class = match days {
        _ if moment <= now => "bad",
        days if days < DAYS_SOON => "soon",
        _ => "good",
    };
    html! {
        li class=(class) {
            (name) " " @if moment <= now { "expired" } @else { "expires" } " on " (moment.strftime("%Y-%m-%d"))
            @if moment > now { ", in " (days) @if days == 1 { " day" } @else { " days" } }
            "."
        }
    }
}

fn describe(issue: HealthIssue) -> String {
    let times = |count: u64, one: &str, many: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{} {many}", grouped(count as usize)),
    };
    match issue {
        HealthIssue::Stopping => "The hub is stopping.".into(),
        HealthIssue::AuditMissing(count) => {
            format!(
                "{} missing from the audit log; see the hub's own log.",
                times(count, "line is", "lines are")
            )
        }
        HealthIssue::TelemetryLost(count) => {
            let lost = times(count, "message", "messages");
            format!("{lost} of telemetry did not reach a reader that was too slow.")
        }
        HealthIssue::BusRestarted(count) => {
            format!("The hub rebuilt the telemetry bus {}.", times(count, "time", "times"))
        }
        HealthIssue::TurnedAway(count) => {
            let closed = times(count, "connection was", "connections were");
            format!("{closed} closed because there were too many anonymous connections.")
        }
    }
}

/// A metric label as text.
fn in_words(label: &str) -> String {
    label.replace('_', " ")
}

/// An overview between two samples must not turn a few events of one second into a peak.
const SECONDS_APART: f64 = 15.0;
/// Enough time to get another certificate.
const DAYS_SOON: i64 = 30;

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_rate_is_what_a_counter_grew_by_in_a_minute() {
        let start = Instant::now();
        let samples: Vec<_> = [(0, 0), (30, 10), (60, 10), (62, 999)]
            .into_iter()
            .map(|(seconds, messages)| Sample {
                taken: start + Duration::from_secs(seconds),
                connected: 0,
                queued: 0,
                messages,
                delivered: 0,
                attempts: Vec::new(),
            })
            .collect();
        let rates: Vec<_> = rates(&samples, |sample| sample.messages)
            .into_iter()
            .map(|point| (point.ago, point.value))
            .collect();
        assert_eq!(rates, [(32.0, 20.0), (2.0, 0.0)]);
    }
}
