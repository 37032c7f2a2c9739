//! What a device or module proves itself with, for people: hidden until somebody with the right asks for it, which is
//! recorded. A page never holds a secret before that.

use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::credential::{KeyPair, SymmetricKey, ThumbprintPair};
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::policy::Rights;

use super::{Named, snippets};
use crate::iothub::connection_string::{ConnectionString, Secret};
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult};
use crate::portal::fields::FormFields;
use crate::portal::guard::is_by_script;
use crate::portal::layout::{self, Section};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// Whether secrets are to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::portal) enum SecretDisplay {
    Hidden,
    Revealed,
}

/// `POST …/reveal`: the panel again, with everything in it.
pub(in crate::portal) async fn reveal(
    visit: Visit,
    Named(id): Named,
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

/// The page for who has no scripts.
fn whole_page(visit: &Visit, id: &IdentityId, panel: Markup) -> Response {
    let title = format!("Credentials of {id}");
    let content = html! {
        p.crumbs { a href=(paths::DEVICES) { "Devices" } " / " a href=(paths::identity(id)) { (id) } }
        h1 { (title) }
        (panel)
    };
    Html(layout::page(visit, Section::Devices, &title, content)).into_response()
}

/// Everything an identity proves itself with, and if wanted how programs do that.
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
                        p { "It shows a client certificate under an enrolled CA, with the common name "
                            code { (identity.id) } ". Nothing about the certificate is kept here." }
                    }
                    Authentication::None => { p { "It has no way to prove itself and cannot connect." } }
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
                        span.quiet { "none: no connection string can carry the ; of this id" }
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
                    span.hint { " This is recorded." }
                }
            }
            SecretDisplay::Hidden => { p.hint { "To see keys takes a policy with RegistryWrite." } }
            SecretDisplay::Revealed => { p.hint { "Whoever has a key is this device. Leave this page when you are done." } }
        }
    }
}

/// A secret as it is, with a way to copy it, or hidden. `name` is its own on the page.
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

/// An id may hold `;`, where a connection string ends a value.
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
