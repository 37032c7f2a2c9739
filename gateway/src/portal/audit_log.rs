//! `/portal/audit`: who changed what, newest first, page by page from the end of the record. The first page follows it.

use axum::http::StatusCode;
use axum::response::IntoResponse;
use maud::{Markup, html};
use serde_json::Value;

use super::answer::{Html, PageResult};
use super::fields::{FormFields, Query};
use super::layout::{self, Section};
use super::paths::{self, encoded};
use super::visit::Visit;
use crate::hub::audit::trail::{AuditFilter, effect_text};
use crate::operations::audit;

/// The filters of a query, and how its links write them.
struct AuditPageQuery {
    before: Option<u64>,
    after: u64,
    target: Option<String>,
    policy: Option<String>,
    operation: Option<String>,
    refused: bool,
}

/// `GET /portal/audit`.
pub(super) async fn show(visit: Visit, Query(query): Query) -> PageResult {
    let asked = AuditPageQuery::parse(&query);
    let lines = audit::read(visit.hub(), visit.service(), asked.filter()).await?;
    let first = lines.first().and_then(|line| line["number"].as_u64());
    let last = lines.last().and_then(|line| line["number"].as_u64());
    let content = html! {
        h1 { "Audit log" }
        p.quiet { "Every change of this hub and every refused attempt, with policy, address and result." }
        (filters(&asked))
        @if lines.is_empty() && asked.before.is_some() {
            p { "There are no older entries." }
        } @else if lines.is_empty() && asked.is_filtered() {
            p { "No entry matches." }
        } @else if lines.is_empty() {
            div.card.empty { strong { "No entries yet" } "Changes appear here from now on." }
        }
        div.scroll tabindex="0" role="region" aria-label="Audit record" {
            table.stack {
                thead {
                    tr { th.number { "No." } th { "Time" } th { "Policy" } th { "From" } th { "Operation" } th { "Target" } th { "Change" } th { "Result" } }
                }
                @if asked.before.is_none() { (follower(&asked, last.unwrap_or(0))) }
                tbody { @for line in lines.iter().rev() { (row(line)) } }
            }
        }
        nav.pager aria-label="Pages" {
            @if asked.before.is_some() { a href=(asked.address(None)) { "Newest" } } @else { span {} }
            @if let Some(first) = first.filter(|first| *first > 1 && lines.len() == LINES_SHOWN) {
                a.button href=(asked.address(Some(first))) { "Older" }
            }
        }
    };
    Ok(Html(layout::page(&visit, Section::Audit, "Audit log", content)).into_response())
}

/// `GET /portal/audit/new`: the lines after a given number, for a page that follows the record.
pub(super) async fn news(visit: Visit, Query(query): Query) -> PageResult {
    let asked = AuditPageQuery::parse(&query);
    let lines = audit::read(visit.hub(), visit.service(), asked.filter()).await?;
    let Some(last) = lines.last().and_then(|line| line["number"].as_u64()) else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let piece = html! {
        (follower(&asked, last))
        tbody { @for line in lines.iter().rev() { (row(line)) } }
    };
    Ok(Html(piece).into_response())
}

impl AuditPageQuery {
    fn parse(query: &FormFields) -> Self {
        let number = |name: &str| query.text(name).and_then(|text| text.parse().ok());
        let text = |name: &str| query.trimmed(name).map(str::to_owned);
        Self {
            before: number("before"),
            after: number("after").unwrap_or(0),
            target: text("target"),
            policy: text("policy"),
            operation: text("operation"),
            refused: query.is_ticked("refused"),
        }
    }

    fn filter(&self) -> AuditFilter {
        AuditFilter {
            after: self.after,
            before: self.before,
            count: LINES_SHOWN,
            target: self.target.clone(),
            actor: self.policy.clone(),
            operation: self.operation.clone(),
            refused: self.refused,
        }
    }

    fn is_filtered(&self) -> bool {
        self.refused || [&self.target, &self.policy, &self.operation].into_iter().any(Option::is_some)
    }

    /// The address of this view of the log, before a line or from its end.
    fn address(&self, before: Option<u64>) -> String {
        self.address_under(paths::AUDIT, before.map(|before| ("before", before)))
    }

    fn address_under(&self, path: &str, number: Option<(&str, u64)>) -> String {
        let texts = [("target", &self.target), ("policy", &self.policy), ("operation", &self.operation)];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, encoded(text.as_deref()?))));
        let refused = self.refused.then(|| ("refused", "yes".to_owned()));
        let number = number.map(|(name, number)| (name, number.to_string()));
        let pairs: Vec<_> =
            texts.chain(refused).chain(number).map(|(name, value)| format!("{name}={value}")).collect();
        if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
    }
}

/// Asks for new lines regularly, and makes room for them.
fn follower(asked: &AuditPageQuery, last: u64) -> Markup {
    let address = asked.address_under(paths::AUDIT_NEWS, Some(("after", last)));
    html! { tbody hx-get=(address) hx-trigger="every 5s" hx-swap="outerHTML" {} }
}

fn filters(asked: &AuditPageQuery) -> Markup {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    html! {
        form.filters method="get" action=(paths::AUDIT) {
            div {
                label for="target" { "Of" }
                input id="target" name="target" type="search" value=(text(&asked.target)) placeholder="a device, or a policy"
                    autocomplete="off" spellcheck="false";
            }
            div {
                label for="policy" { "Policy" }
                input id="policy" name="policy" type="search" value=(text(&asked.policy)) autocomplete="off" spellcheck="false";
            }
            div {
                label for="operation" { "Operation" }
                select id="operation" name="operation" {
                    option value="" { "anything" }
                    @for word in OPERATIONS {
                        option value=(word) selected[asked.operation.as_deref() == Some(word)] { (in_words(word)) }
                    }
                }
            }
            div.choice {
                input id="refused" type="checkbox" name="refused" value="yes" checked[asked.refused];
                label for="refused" { "refused only" }
            }
            button type="submit" { "Show" }
        }
    }
}

fn row(line: &Value) -> Markup {
    let text = |name: &str| line[name].as_str().unwrap_or_default();
    let (operation, target, result) = (text("op"), text("target"), text("result"));
    html! {
        tr {
            td.number data-label="No." { (line["number"].as_u64().unwrap_or_default()) }
            td.time data-label="Time" { (when(text("time"))) }
            td data-label="Policy" { (text("actor")) }
            td.nowrap data-label="From" { (text("ip")) " " span.quiet { (text("source")) } }
            td.nowrap data-label="Operation" { (in_words(operation)) }
            td.target data-label="Target" { span.id { (target) } }
            td.reason data-label="Change" { (effect_text(line)) }
            td.reason data-label="Result" {
                @if result == "done" { "done" } @else { span.chip.bad { "refused" } " " (result) }
                @if let Some(missing) = line["missing"].as_u64() {
                    p.error { (missing) " lines before this one are missing, because the hub could not write them." }
                }
            }
        }
    }
}

/// A time of the record, to the second.
fn when(text: &str) -> Markup {
    match text.parse() {
        Ok(moment) => super::text::time(moment),
        Err(_) => html! { (text) },
    }
}

/// `createIdentity` with blanks between its words.
fn in_words(operation: &str) -> String {
    let mut words = String::with_capacity(operation.len() + 4);
    for letter in operation.chars() {
        if letter.is_ascii_uppercase() {
            words.push(' ');
        }
        words.extend(letter.to_lowercase());
    }
    words
}

/// Lines of one page.
const LINES_SHOWN: usize = 100;
/// The operations of the filter, as the record names them.
const OPERATIONS: [&str; 16] = [
    "createIdentity",
    "updateIdentity",
    "deleteIdentity",
    "revealCredential",
    "sendMessage",
    "purgeQueue",
    "startJob",
    "cancelJob",
    "endJob",
    "createPolicy",
    "regeneratePolicy",
    "deletePolicy",
    "enrolAuthority",
    "renewAuthorityCode",
    "verifyAuthority",
    "removeAuthority",
];
