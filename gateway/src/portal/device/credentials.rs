//! The credentials of a device or module, for people. They stay hidden until a caller with the right reveals them,
//! which the audit record says. A page never contains a secret before that.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::credential::{KeyPair, SymmetricKey, ThumbprintPair};
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::policy::Rights;

use super::{NamedIdentityPage, snippets};
use crate::iothub::connection_string::{ConnectionString, Secret};
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult};
use crate::portal::fields::FormFields;
use crate::portal::guard::is_by_script;
use crate::portal::layout::{self, Section};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// Whether secrets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portal) enum SecretDisplay {
    Hidden,
    Revealed,
}

/// `POST …/reveal`: the panel again, with everything in it.
pub(in crate::portal) async fn reveal(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    headers: HeaderMap,
    fields: FormFields,
) -> PageResult {
    let identity = identities::reveal(visit.hub(), visit.service(), &id).await?;
    let with_snippets = fields.is_ticked("snippets");
    let panel = panel(&visit, &identity, SecretDisplay::Revealed, with_snippets);
    if is_by_script(&headers) {
        return Ok(Html(panel).into_response());
    }
    Ok(whole_page(&visit, &id, panel))
}

/// The whole page, for a browser without scripts.
fn whole_page(visit: &Visit, id: &IdentityId, panel: Markup) -> Response {
    let title = format!("Credentials of {id}");
    let content = html! {
        p.crumbs { a href=(paths::DEVICES) { "Devices" } " / " a href=(paths::identity(id)) { (id) } }
        h1 { (title) }
        (panel)
    };
    Html(layout::page(visit, Section::Devices, &title, content)).into_response()
}

/// All credentials of an identity, and on request how programs use them.
pub(in crate::portal) fn panel(
    visit: &Visit,
    identity: &Identity,
    shown: SecretDisplay,
    with_snippets: bool,
) -> Markup {
    html! {
        div #credentials {
            section.card aria-labelledby="credentials-name" {
                h2 id="credentials-name" { "Credentials" }
                @match &identity.authentication {
                    Authentication::Sas(keys) => { (of_keys(visit, identity, keys, shown, with_snippets)) }
                    Authentication::SelfSigned(thumbprints) => { (of_thumbprints(thumbprints)) }
                    Authentication::CertificateAuthority => {
                        p { "It connects with a client certificate of an enrolled CA that has the common name "
                            code { (identity.id) } ". The hub stores nothing about the certificate." }
                    }
                    Authentication::None => { p { "It has no credential and cannot connect." } }
                }
            }
            @if with_snippets { (snippets::section(visit.hub(), identity, shown)) }
        }
    }
}

fn of_keys(
    visit: &Visit,
    identity: &Identity,
    keys: &KeyPair,
    shown: SecretDisplay,
    with_snippets: bool,
) -> Markup {
    let id = &identity.id;
    let rows = [("Primary", &keys.primary), ("Secondary", &keys.secondary)];
    html! {
        dl.facts {
            @for (which, key) in rows {
                dt { (which) " key" }
                dd { (secret(&format!("{which}-key"), shown, || key.to_base64().as_str().to_owned())) }
            }
            @for (which, key) in rows {
                dt { (which) " connection string" }
                dd {
                    @if is_expressible(id) {
                        (secret(&format!("{which}-connection-string"), shown, || connection_string(visit, id, key)))
                    } @else {
                        span.quiet { "none: a connection string cannot hold the ; of this id" }
                    }
                }
            }
        }
        @match shown {
            SecretDisplay::Hidden if visit.may(Rights::REGISTRY_WRITE) => {
                form.reveal method="post" action=(paths::under(id, "reveal")) hx-post=(paths::under(id, "reveal"))
                    hx-target="#credentials" hx-swap="outerHTML" {
                    (visit.token_field())
                    @if with_snippets { input type="hidden" name="snippets" value="yes"; }
                    button type="submit" { "Reveal keys and connection strings" }
                    span.hint { " The audit log records this." }
                }
            }
            SecretDisplay::Hidden => { p.hint { "To see the keys, sign in with a policy that has RegistryWrite." } }
            SecretDisplay::Revealed => { p.hint { "Anyone who has a key can connect as this device. Leave this page when you are done." } }
        }
    }
}

/// A secret in full with a button to copy it, or hidden. `name` is unique on the page.
pub(in crate::portal) fn secret(name: &str, shown: SecretDisplay, value: impl Fn() -> String) -> Markup {
    let id = format!("secret-{}", name.to_ascii_lowercase());
    html! {
        div.secret {
            @match shown {
                SecretDisplay::Hidden => { span.value aria-label="hidden" { "••••••••••••••••" } }
                SecretDisplay::Revealed => {
                    span.value id=(id) { (value()) }
                    button type="button" data-copy=(id) { "Copy" }
                }
            }
        }
    }
}

fn of_thumbprints(thumbprints: &ThumbprintPair) -> Markup {
    let rows =
        [("Primary thumbprint", &thumbprints.primary), ("Secondary thumbprint", &thumbprints.secondary)];
    html! {
        dl.facts {
            @for (name, thumbprint) in rows {
                dt { (name) }
                dd {
                    @match thumbprint {
                        Some(thumbprint) => {
                            code { (thumbprint) }
                            @if thumbprint.is_weak() {
                                " " span.chip.warn title="Two certificates can be made with the same SHA-1 hash" { "SHA-1" }
                            }
                        }
                        None => { span.quiet { "none" } }
                    }
                }
            }
        }
    }
}

/// Whether a connection string can hold the id. An id may contain `;`, which ends a value there.
pub(super) fn is_expressible(id: &IdentityId) -> bool {
    !id.to_string().contains(';')
}

pub(super) fn connection_string(visit: &Visit, id: &IdentityId, key: &SymmetricKey) -> String {
    of_secret(visit.hub().hosts.primary(), id, Secret::Key { policy: None, key: key.clone() })
}

/// The connection string of an identity with this secret.
pub(super) fn of_secret(host: &str, id: &IdentityId, secret: Secret) -> String {
    ConnectionString::of_identity(host, id, secret).to_string()
}
