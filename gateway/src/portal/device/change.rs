//! `…/credential`: changes how an identity authenticates: another type, other keys, or other thumbprints.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;
use portcullis_registry::identity::{Authentication, AuthenticationKind, Identity, IdentitySpec};

use super::frame::crumbs_below;
use super::{NamedIdentityPage, changed, version, version_field};
use crate::operations::identities;
use crate::portal::answer::{Html, PageResult};
use crate::portal::credential_form::CredentialForm;
use crate::portal::fields::FormFields;
use crate::portal::form::Errors;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `GET …/credential`.
pub(in crate::portal) async fn show(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    let identity = entry.identity();
    let form = match &identity.authentication {
        Authentication::SelfSigned(thumbprints) => {
            CredentialForm::new(AuthenticationKind::SelfSigned, Some(thumbprints))
        }
        other => CredentialForm::new(other.kind(), None),
    };
    Ok(page(&visit, &identity, &form, &Errors::default()))
}

/// `POST …/credential`.
pub(in crate::portal) async fn save(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let precondition = version(&fields)?;
    let entry = identities::retrieve(hub, service, &id)?;
    let identity = entry.identity();
    let form = CredentialForm::read(&fields);
    let mut errors = Errors::default();
    let Some(authentication) = form.parse(&mut errors) else {
        return Ok(page(&visit, &identity, &form, &errors));
    };
    let spec = IdentitySpec { authentication, ..IdentitySpec::keeping(&identity) };
    changed(
        &visit,
        identities::put(hub, service, spec, precondition).await,
        &id,
        "The authentication is changed.",
    )
}

fn page(visit: &Visit, identity: &Identity, form: &CredentialForm, errors: &Errors) -> Response {
    let id = &identity.id;
    let content = html! {
        (crumbs_below(id))
        h1 { "Change the authentication of " (id) }
        @if !errors.is_empty() { p.notice.failed role="alert" { "Nothing was changed. Correct the marked fields below." } }
        form.card.form method="post" action=(paths::under(id, "credential")) {
            (visit.token_field()) (version_field(identity))
            p {
                "Now: " strong { (text::authentication(identity.authentication.kind())) }
                ". Saving replaces it and closes a connection that uses it."
            }
            (form.show(errors))
            div.toolbar {
                button.primary type="submit" { "Save" }
                a.button href=(paths::identity(id)) { "Cancel" }
            }
        }
    };
    let status = if errors.is_empty() { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    (status, Html(layout::page(visit, Section::Devices, "Change authentication", content))).into_response()
}
