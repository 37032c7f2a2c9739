//! `/portal/authorities`: the enrolled CAs: enrol one, prove that its key is held, remove it.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use jiff::Timestamp;
use maud::{Markup, html};
use portcullis_certs::pem;
use portcullis_registry::authority::{
    Authority, AuthorityError, AuthorityName, Verification, VerificationCode,
};
use portcullis_registry::id::Precondition;
use portcullis_registry::policy::Rights;

use super::answer::{Html, PageResult, see_other};
use super::buttons::Button;
use super::fields::FormFields;
use super::form::{Errors, TextField, checkbox, field_message};
use super::layout::{self, Section};
use super::paths;
use super::text::time;
use super::visit::Visit;
use crate::iothub::problem::Problem;
use crate::operations::authorities::{self, CaError, Enrolment};

/// `GET /portal/authorities`.
pub(super) async fn list(visit: Visit) -> PageResult {
    show_list(&visit, StatusCode::OK, &FormFields::default(), &Errors::default())
}

/// `POST /portal/authorities`: enrols a CA.
pub(super) async fn enrol(visit: Visit, fields: FormFields) -> PageResult {
    let mut errors = Errors::default();
    let name = AuthorityName::parse(fields.trimmed("name").unwrap_or_default());
    let Some(name) = errors.take("name", name) else {
        return show_list(&visit, StatusCode::BAD_REQUEST, &fields, &errors);
    };
    let certificate = fields.text("certificate").unwrap_or_default().as_bytes();
    let asserted = fields.is_ticked("vouch").then(|| fields.trimmed("reason").unwrap_or_default());
    let enrolment = Enrolment { name, certificate, asserted };
    let enrolled = authorities::enrol(visit.hub(), visit.service(), enrolment, Precondition::Absent).await;
    match enrolled {
        Ok(authority) => {
            visit.flash(format!("The CA {} is enrolled.", authority.name));
            Ok(see_other(&paths::authority(&authority.name)))
        }
        Err(error) => {
            let (field, error) = (field_of(&error), Problem::from(error));
            let Some(field) = field else { return Err(error.into()) };
            errors.add(field, error.text());
            show_list(&visit, error.status(), &fields, &errors)
        }
    }
}

/// The field that an error is about.
fn field_of(error: &CaError) -> Option<&'static str> {
    match error {
        CaError::Refused(AuthorityError::AlreadyExists(_)) => Some("name"),
        CaError::Refused(AuthorityError::Reason) => Some("reason"),
        CaError::Certificate(_)
        | CaError::OutOfTime(_)
        | CaError::Unreadable(_)
        | CaError::NoProof { .. }
        | CaError::Refused(_) => Some("certificate"),
        CaError::Forbidden(_) | CaError::Store(_) => None,
    }
}

/// `GET /portal/authorities/{name}`.
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> PageResult {
    let authority = authorities::retrieve(visit.hub(), visit.service(), &AuthorityName::parse(&name)?)?;
    Ok(Html(page(&visit, &authority, &FormFields::default(), &Errors::default())).into_response())
}

/// `POST /portal/authorities/{name}/code`: makes the code that a proof must name.
pub(super) async fn renew_code(visit: Visit, Path(name): Path<String>) -> PageResult {
    let name = AuthorityName::parse(&name)?;
    authorities::renew_code(visit.hub(), visit.service(), &name).await?;
    Ok(see_other(&paths::authority(&name)))
}

/// `POST /portal/authorities/{name}/verify`: the proof.
pub(super) async fn verify(visit: Visit, Path(name): Path<String>, fields: FormFields) -> PageResult {
    let name = AuthorityName::parse(&name)?;
    let proof = fields.text("proof").unwrap_or_default().as_bytes();
    match authorities::verify(visit.hub(), visit.service(), &name, proof).await {
        Ok(_) => {
            visit.flash(format!("The CA {name} is verified. The hub trusts its devices from now on."));
            Ok(see_other(&paths::authority(&name)))
        }
        Err(error @ CaError::NoProof { .. }) => {
            let authority = authorities::retrieve(visit.hub(), visit.service(), &name)?;
            let problem = Problem::from(error);
            let mut errors = Errors::default();
            errors.add("proof", problem.text());
            let page = page(&visit, &authority, &fields, &errors);
            Ok((problem.status(), Html(page)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /portal/authorities/{name}/delete`.
pub(super) async fn delete(visit: Visit, Path(name): Path<String>) -> PageResult {
    let name = AuthorityName::parse(&name)?;
    authorities::remove(visit.hub(), visit.service(), &name, Precondition::AnyVersion).await?;
    visit.flash(format!("The CA {name} is removed."));
    Ok(see_other(paths::AUTHORITIES))
}

fn show_list(visit: &Visit, status: StatusCode, fields: &FormFields, errors: &Errors) -> PageResult {
    let all = authorities::list(visit.hub(), visit.service())?;
    let may_write = visit.may(Rights::REGISTRY_WRITE);
    let content = html! {
        h1 { "Certificate authorities" }
        p.quiet {
            "A device with the authentication type “X.509 CA signed” connects with a certificate that names the device. "
            "One of these CAs, or a CA below one, must have signed it. The hub trusts a CA's devices once the CA is verified."
        }
        @if all.all().is_empty() {
            div.card.empty {
                strong { "No CA is enrolled" }
                @if may_write { "Below, enrol the CA that signs your devices' certificates." }
            }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="CAs" { (table(all.all(), visit.hub().clock.wall())) }
        }
        @if may_write { (enrol_form(visit, fields, errors)) }
    };
    let page = layout::page(visit, Section::Authorities, "Certificate authorities", content);
    Ok((status, Html(page)).into_response())
}

fn table(authorities: &[Authority], now: Timestamp) -> Markup {
    html! {
        table.stack {
            thead { tr { th { "Name" } th { "Status" } th { "Subject" } th { "Ends" } } }
            tbody {
                @for authority in authorities {
                    @let described = authorities::describe(authority);
                    tr {
                        td { a.id href=(paths::authority(&authority.name)) { (authority.name) } }
                        td data-label="Status" { (status(authority)) }
                        td data-label="Subject" { @if let Some(described) = &described { (described.subject) } }
                        td data-label="Ends" { @if let Some(described) = &described { (end(described.end, now)) } }
                    }
                }
            }
        }
    }
}

fn enrol_form(visit: &Visit, fields: &FormFields, errors: &Errors) -> Markup {
    let value = |name: &str| fields.text(name).unwrap_or_default();
    let name = TextField {
        name: "name",
        label: "Name",
        value: value("name"),
        hint: Some("Letters, digits and -._"),
        is_required: true,
        length_max: Some(64),
        ..TextField::default()
    };
    let reason = TextField {
        name: "reason",
        label: "Reason",
        value: value("reason"),
        hint: Some("Why it is verified without a proof. The hub keeps it with the CA."),
        length_max: Some(256),
        ..TextField::default()
    };
    let hint = "PEM text of the CA's own certificate, root or intermediate. You may drop a file here.";
    html! {
        section.card aria-labelledby="enrol" {
            h2 id="enrol" { "Enrol a CA" }
            form method="post" action=(paths::AUTHORITIES) {
                (visit.token_field())
                (name.show(errors))
                (pem_field("certificate", "Certificate", value("certificate"), hint, errors))
                (checkbox("vouch", "Mark it verified without a proof, because I know who holds its key", fields.is_ticked("vouch")))
                (reason.show(errors))
                button.primary type="submit" { "Enrol" }
            }
        }
    }
}

/// A field for a certificate, pasted or from a file.
fn pem_field(name: &str, label: &str, value: &str, hint: &str, errors: &Errors) -> Markup {
    let error = errors.at(name);
    html! {
        div.field {
            label for=(name) { (label) }
            textarea id=(name) name=(name) rows="6" required spellcheck="false" aria-describedby={ (name) "-says" }
                aria-invalid=[error.map(|_| "true")] placeholder="-----BEGIN CERTIFICATE-----" data-drop { "\n" (value) }
            input type="file" accept=".pem,.crt,.cer" data-file-into=(name) aria-label={ "Read " (label) " from a file" } hidden;
            (field_message(name, error, Some(hint), false))
        }
    }
}

fn page(visit: &Visit, authority: &Authority, fields: &FormFields, errors: &Errors) -> Markup {
    let path = paths::authority(&authority.name);
    let described = authorities::describe(authority);
    let may_write = visit.may(Rights::REGISTRY_WRITE);
    let certificate = authority.certificate.clone().into();
    let delete = format!("{path}/delete");
    let content = html! {
        p.crumbs { a href=(paths::AUTHORITIES) { "Certificate authorities" } }
        h1 { (authority.name) }
        div.card {
            dl.facts {
                dt { "Status" } dd { (status(authority)) }
                @if let Some(described) = &described {
                    dt { "Subject" } dd { (described.subject) }
                    dt { "SHA-256 thumbprint" } dd.mono { (described.thumbprint) }
                    dt { "Ends" } dd { (end(described.end, visit.hub().clock.wall())) }
                }
                dt { "Enrolled" } dd { (time(authority.created)) }
                dt { "Last change" } dd { (time(authority.updated)) }
                @if let Verification::Asserted { reason } = &authority.verification {
                    dt { "Reason for verification" } dd { (reason) }
                }
            }
        }
        @if may_write && let Verification::Pending(code) = &authority.verification {
            (proof(visit, &path, code.as_ref(), fields, errors))
        }
        h2 { "Certificate" }
        details { summary { "Show as PEM" } pre tabindex="0" { (pem::write_certificate(&certificate)) } }
        @if may_write {
            h2 { "Change" }
            (Button { label: "Remove this CA", action: &delete, fields: &[] }.ask_first(
                visit,
                "The hub stops trusting its devices and closes their connections. You can enrol the CA again."
            ))
        }
    };
    layout::page(visit, Section::Authorities, authority.name.as_str(), content)
}

/// The steps that prove that the operator holds the CA's key.
fn proof(
    visit: &Visit,
    path: &str,
    code: Option<&VerificationCode>,
    fields: &FormFields,
    errors: &Errors,
) -> Markup {
    let (renew, verify) = (format!("{path}/code"), format!("{path}/verify"));
    let Some(code) = code else {
        return html! {
            h2 { "Verify" }
            div.card {
                p { "To prove that you hold the CA's key, sign a certificate with it that names a code of this hub." }
                div.toolbar { (Button { label: "Make a code", action: &renew, fields: &[] }.show(visit)) }
            }
        };
    };
    html! {
        h2 { "Verify" }
        div.card {
            h3 { "1. On the machine that holds the CA's key, sign a certificate that names the code" }
            dl.facts { dt { "Code" } dd.mono id="code" { (code.code) } dt { "Valid until" } dd { (time(code.expires)) } }
            pre id="commands" tabindex="0" { (commands(&code.code)) }
            div.toolbar {
                button type="button" data-copy="commands" { "Copy the commands" }
                (Button { label: "Make another code", action: &renew, fields: &[] }.show(visit))
            }
            h3 { "2. Submit the certificate" }
            form method="post" action=(verify) {
                (visit.token_field())
                (pem_field(
                    "proof",
                    "The signed certificate",
                    fields.text("proof").unwrap_or_default(),
                    "PEM text, as in proof.pem. You may drop a file here.",
                    errors
                ))
                button.primary type="submit" { "Verify" }
            }
        }
    }
}

fn commands(code: &str) -> String {
    format!(
        "openssl req -new -newkey rsa:2048 -nodes -keyout proof-key.pem -subj '/CN={code}' -out proof.csr\n\
         openssl x509 -req -in proof.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 1 -out proof.pem"
    )
}

fn status(authority: &Authority) -> Markup {
    match &authority.verification {
        Verification::Pending(None) => html! { span.chip.warn { "Not verified" } },
        Verification::Pending(Some(_)) => html! { span.chip.warn { "Waiting for proof" } },
        Verification::Proven => html! { span.chip.good { "Verified by proof" } },
        Verification::Asserted { .. } => html! { span.chip.good { "Verified without proof" } },
    }
}

fn end(moment: Timestamp, now: Timestamp) -> Markup {
    html! { (time(moment)) @if moment <= now { " " span.chip.bad { "ended" } } }
}
