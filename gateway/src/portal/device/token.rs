//! `POST …/token`: a SAS token signed with an identity's key, for a program that gets a token instead of the key.

use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use maud::{Markup, html};
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::sas;

use super::NamedIdentityPage;
use super::frame::crumbs_below;
use super::snippets::resource;
use crate::iothub::problem::Problem;
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult};
use crate::portal::fields::FormFields;
use crate::portal::form::{Errors, TextField};
use crate::portal::guard::is_by_script;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `POST …/token`.
pub(in crate::portal) async fn make(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    headers: HeaderMap,
    fields: FormFields,
) -> PageResult {
    let mut errors = Errors::default();
    let minutes = fields.trimmed("minutes").unwrap_or_default();
    let parsed = minutes.parse().ok().filter(|minutes| (1..=MINUTES_MAX).contains(minutes));
    let parsed =
        errors.take("minutes", parsed.ok_or(format!("enter a number of minutes from 1 to {MINUTES_MAX}")));
    let by_secondary = fields.text("key") == Some("secondary");
    // A token admits its bearer as the key does, so making one is recorded as revealing the key.
    let identity = match parsed {
        Some(_) => identities::reveal(visit.hub(), visit.service(), &id).await?,
        None => identities::retrieve(visit.hub(), visit.service(), &id)?.identity(),
    };
    let Authentication::Sas(keys) = &identity.authentication else {
        return Err(Problem::argument_invalid(format!(
            "{id} signs in with a certificate and cannot use a token."
        ))
        .into());
    };
    let key = if by_secondary { &keys.secondary } else { &keys.primary };
    let made = parsed.map(|minutes: i64| {
        let host = visit.hub().hosts.primary();
        let expiry = visit.hub().clock.wall().as_second() + minutes * 60;
        Made { token: sas::sign(&resource(host, &id), key, expiry, None), expiry }
    });
    let status = if made.is_some() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    let section = shown(&visit, &identity, minutes, by_secondary, made.as_ref(), &errors);
    if is_by_script(&headers) {
        // The form shows the error. A script uses the answer only if its status is a success.
        return Ok(Html(section).into_response());
    }
    let content = html! { (crumbs_below(&id)) h1 { "A token for " (id) } (section) };
    let page = layout::page(&visit, Section::Devices, "SAS token", content);
    Ok((status, Html(page)).into_response())
}

struct Made {
    token: String,
    expiry: i64,
}

/// The form, if there is a key to sign with.
pub(super) fn section(visit: &Visit, identity: &Identity) -> Markup {
    match identity.authentication {
        Authentication::Sas(_) => shown(visit, identity, "60", false, None, &Errors::default()),
        Authentication::SelfSigned(_) | Authentication::CertificateAuthority | Authentication::None => {
            html! {}
        }
    }
}

fn shown(
    visit: &Visit,
    identity: &Identity,
    minutes: &str,
    by_secondary: bool,
    made: Option<&Made>,
    errors: &Errors,
) -> Markup {
    let path = paths::under(&identity.id, "token");
    let field =
        TextField { name: "minutes", label: "Expiry in minutes", value: minutes, ..TextField::default() };
    html! {
        section.card id="token" aria-labelledby="token-name" {
            h2 id="token-name" { "SAS token" }
            form method="post" action=(path) hx-post=(path) hx-target="#token" hx-swap="outerHTML" {
                (visit.token_field())
                div.pair {
                    div.field {
                        label for="token-key" { "Key" }
                        select id="token-key" name="key" {
                            option value="primary" selected[!by_secondary] { "Primary" }
                            option value="secondary" selected[by_secondary] { "Secondary" }
                        }
                    }
                    (field.show(errors))
                }
                button type="submit" { "Generate" } span.hint { " The audit log records this." }
            }
            @if let Some(Made { token, expiry }) = made {
                p.hint { "Valid until "
                    @if let Ok(end) = jiff::Timestamp::from_second(*expiry) { (text::time(end)) } " UTC, or until the key is replaced." }
                div.secret {
                    span.value id="token-value" { (token) }
                    button type="button" data-copy="token-value" { "Copy" }
                }
            }
        }
    }
}

/// A year.
const MINUTES_MAX: i64 = 525_600;
