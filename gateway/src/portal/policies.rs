//! `/portal/policies`: the shared access policies, for their owner. A form reveals keys, and the audit record says so.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use maud::{Markup, html};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::{InvalidPolicy, Policy, Renewal, Rights};

use super::answer::{Html, PageResult, see_other};
use super::buttons::Button;
use super::device::credentials::{SecretDisplay, secret};
use super::fields::FormFields;
use super::form::{Errors, TextField, field_message};
use super::layout::{self, Section};
use super::paths;
use super::visit::Visit;
use crate::iothub::connection_string::ConnectionString;
use crate::iothub::problem::Problem;
use crate::operations::policies::{self, PolicyError};

/// `GET /portal/policies`.
pub(super) async fn list(visit: Visit) -> PageResult {
    show_list(&visit, StatusCode::OK, &FormFields::default(), &Errors::default())
}

/// `POST /portal/policies`: creates one.
pub(super) async fn create(visit: Visit, fields: FormFields) -> PageResult {
    let name = fields.trimmed("name").unwrap_or_default();
    let made = match Rights::parse_names(fields.all("right")) {
        Ok(rights) => policies::create(visit.hub(), visit.service(), name, rights, None, None).await,
        Err(error) => Err(error.into()),
    };
    let (field, error) = match made {
        Ok(policy) => {
            visit.flash(format!("The policy {} is created.", policy.name));
            return Ok(see_other(&paths::policy(&policy.name)));
        }
        Err(error) => (field_of(&error), Problem::from(error)),
    };
    // An error that is not in a field gets its own page.
    let Some(field) = field else { return Err(error.into()) };
    let mut errors = Errors::default();
    errors.add(field, error.text());
    show_list(&visit, error.status(), &fields, &errors)
}

/// The field that an error is about.
fn field_of(error: &PolicyError) -> Option<&'static str> {
    match error {
        PolicyError::Invalid(InvalidPolicy::NoRights | InvalidPolicy::Right(_)) => Some("rights"),
        PolicyError::Invalid(InvalidPolicy::Name) | PolicyError::AlreadyExists(_) => Some("name"),
        PolicyError::Forbidden(_)
        | PolicyError::NotFound(_)
        | PolicyError::BuiltIn(_)
        | PolicyError::Configured(_)
        | PolicyError::TooMany
        | PolicyError::Stored(_)
        | PolicyError::Store(_)
        | PolicyError::Stopping => None,
    }
}

/// `GET /portal/policies/{name}`.
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> PageResult {
    let policy = policies::show(visit.hub(), visit.service(), &name)?;
    Ok(Html(page(&visit, &policy, SecretDisplay::Hidden)).into_response())
}

/// `POST /portal/policies/{name}/reveal`: the page with the policy's keys.
pub(super) async fn reveal(visit: Visit, Path(name): Path<String>) -> PageResult {
    let policy = policies::reveal(visit.hub(), visit.service(), &name).await?;
    Ok(Html(page(&visit, &policy, SecretDisplay::Revealed)).into_response())
}

/// `POST /portal/policies/{name}/regenerate`.
pub(super) async fn regenerate(visit: Visit, Path(name): Path<String>, fields: FormFields) -> PageResult {
    let (renewal, done) = match fields.text("which") {
        Some("primary") => (Renewal::Primary, "The policy has a new primary key."),
        Some("secondary") => (Renewal::Secondary, "The policy has a new secondary key."),
        Some("swap") => (Renewal::Swap, "The two keys are swapped."),
        _ => return Err(Problem::argument_invalid("which must be primary, secondary or swap").into()),
    };
    let policy = policies::regenerate(visit.hub(), visit.service(), &name, renewal).await?;
    visit.flash(done);
    Ok(see_other(&paths::policy(&policy.name)))
}

/// `POST /portal/policies/{name}/delete`.
pub(super) async fn delete(visit: Visit, Path(name): Path<String>) -> PageResult {
    policies::delete(visit.hub(), visit.service(), &name).await?;
    visit.flash(format!("The policy {name} is deleted."));
    Ok(see_other(paths::POLICIES))
}

fn show_list(visit: &Visit, status: StatusCode, fields: &FormFields, errors: &Errors) -> PageResult {
    let all = policies::list(visit.hub(), visit.service())?;
    let content = html! {
        h1 { "Shared access policies" }
        p.quiet {
            "A policy has a name, two keys and rights. Services and operators sign in with one of its keys. "
            "Devices have their own keys."
        }
        div.scroll tabindex="0" role="region" aria-label="Policies" {
            table.stack {
                thead { tr { th { "Policy" } th { "Rights" } th { "Kind" } } }
                tbody {
                    @for policy in all.iter() {
                        tr {
                            td { a.id href=(paths::policy(&policy.name)) { (policy.name) } }
                            td data-label="Rights" { (policy.rights) }
                            td data-label="Kind" { (kind(policy)) }
                        }
                    }
                }
            }
        }
        (create_form(visit, fields, errors))
    };
    Ok((status, Html(layout::page(visit, Section::Policies, "Policies", content))).into_response())
}

fn create_form(visit: &Visit, fields: &FormFields, errors: &Errors) -> Markup {
    let name = TextField {
        name: "name",
        label: "Name",
        value: fields.text("name").unwrap_or_default(),
        hint: Some("Letters, digits and -._; the hub generates the keys."),
        is_required: true,
        length_max: Some(64),
        ..TextField::default()
    };
    html! {
        section.card aria-labelledby="create" {
            h2 id="create" { "Create a policy" }
            form method="post" action=(paths::POLICIES) {
                (visit.token_field())
                (name.show(errors))
                fieldset aria-describedby="rights-says" {
                    legend { "Rights" }
                    @for (name, what) in RIGHTS {
                        div.choice {
                            input id=(name) type="checkbox" name="right" value=(name)
                                checked[fields.all("right").any(|given| given == name)];
                            label for=(name) { strong { (name) } " " span.quiet { (what) } }
                        }
                    }
                    (field_message("rights", errors.at("rights"), None, false))
                }
                button.primary type="submit" { "Create" }
            }
        }
    }
}

fn page(visit: &Visit, policy: &Policy, shown: SecretDisplay) -> Markup {
    let path = paths::policy(&policy.name);
    let action = |verb: &str| format!("{path}/{verb}");
    let content = html! {
        p.crumbs { a href=(paths::POLICIES) { "Policies" } }
        h1 { (policy.name) }
        dl.facts {
            dt { "Rights" } dd { (policy.rights) }
            dt { "Kind" } dd { (kind(policy)) }
        }
        h2 { "Keys" }
        div.card {
            dl.facts { (keys(visit, policy, shown)) }
            @if shown == SecretDisplay::Hidden {
                div.toolbar.below {
                    (Button { label: "Reveal keys", action: &action("reveal"), fields: &[] }.show(visit))
                    span.quiet { "The audit log records that you revealed them." }
                }
            }
        }
        h2 { "Change" }
        @for (label, which, what_follows) in RENEWALS {
            (Button { label, action: &action("regenerate"), fields: &[("which", which)] }.ask_first(visit, what_follows))
        }
        @if !policy.is_built_in() {
            (Button { label: "Delete this policy", action: &action("delete"), fields: &[] }.ask_first(
                visit,
                "The hub refuses its keys from then on and closes every connection that uses them. This cannot be undone."
            ))
        }
    };
    layout::page(visit, Section::Policies, &policy.name, content)
}

fn keys(visit: &Visit, policy: &Policy, shown: SecretDisplay) -> Markup {
    let pair = [("Primary", &policy.keys.primary), ("Secondary", &policy.keys.secondary)];
    let host = visit.hub().hosts.primary();
    let connection_string = |key: &SymmetricKey| ConnectionString::of_policy(host, &policy.name, key);
    html! {
        @for (which, key) in pair {
            dt { (which) " key" }
            dd { (secret(&format!("{which}-key"), shown, || key.to_base64().as_str().to_owned())) }
        }
        @for (which, key) in pair {
            dt { (which) " connection string" }
            dd {
                (secret(&format!("{which}-connection-string"), shown, || connection_string(key).to_string()))
            }
        }
    }
}

fn kind(policy: &Policy) -> &'static str {
    if policy.is_built_in() { "built in" } else { "yours" }
}

const RIGHTS: [(&str, &str); 4] = [
    ("RegistryRead", "see devices, their keys and how they connect"),
    ("RegistryWrite", "create, change and delete devices"),
    ("ServiceConnect", "read telemetry and send messages to devices"),
    ("DeviceConnect", "connect and send as any device"),
];
const RENEWALS: [(&str, &str, &str); 3] = [
    (
        "Regenerate the primary key",
        "primary",
        "The hub refuses the old primary key and closes every connection that uses it. If you signed in with it, you are \
         signed out too.",
    ),
    (
        "Regenerate the secondary key",
        "secondary",
        "The hub refuses the old secondary key and closes every connection that uses it. If you signed in with it, you are \
         signed out too.",
    ),
    ("Swap the keys", "swap", "The two keys swap places. Both stay valid, and no connection is closed."),
];
