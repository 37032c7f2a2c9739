//! `/portal/authorities`: the CAs that vouch for devices: enrol one, show that its key is held, forget it.

use axum::extract::Path;
use axum::response::IntoResponse;
use jiff::Timestamp;
use maud::{Markup, html};
use portcullis_certs::pem;
use portcullis_registry::authority::{
    Authority, AuthorityName, InvalidAuthorityName, Verification, VerificationCode,
};
use portcullis_registry::id::Precondition;
use portcullis_registry::policy::Rights;

use super::answer::{Answer, Html, see_other};
use super::buttons::{Button, sentence};
use super::fields::Fields;
use super::layout::{self, Section};
use super::paths;
use super::visit::Visit;
use super::words::time;
use crate::authorities::{self, CaError, Enrolment};
use crate::http::Problem;

/// `GET /portal/authorities`.
pub(super) async fn list(visit: Visit) -> Answer {
    show_list(&visit, &Fields::default(), None)
}

/// `POST /portal/authorities`: enrols one.
pub(super) async fn enrol(visit: Visit, fields: Fields) -> Answer {
    let name = match AuthorityName::parse(fields.trimmed("name").unwrap_or_default()) {
        Ok(name) => name,
        Err(error) => return show_list(&visit, &fields, Some(Wrong::Name(error))),
    };
    let certificate = fields.text("certificate").unwrap_or_default().as_bytes();
    let asserted = fields.is_ticked("vouch").then(|| fields.trimmed("reason").unwrap_or_default());
    let enrolment = Enrolment { name, certificate, asserted };
    let enrolled = authorities::enrol(visit.hub(), visit.service(), enrolment, Precondition::Absent).await;
    match enrolled {
        Ok(authority) => {
            visit.tell(format!("The CA {} is enrolled.", authority.name));
            Ok(see_other(&paths::authority(&authority.name)))
        }
        Err(error) => show_list(&visit, &fields, Some(Wrong::Enrolment(error))),
    }
}

/// `GET /portal/authorities/{name}`.
pub(super) async fn show(visit: Visit, Path(name): Path<String>) -> Answer {
    let authority = authorities::retrieve(visit.hub(), visit.service(), &AuthorityName::parse(&name)?)?;
    Ok(Html(page(&visit, &authority, &Fields::default(), None)).into_response())
}

/// `POST /portal/authorities/{name}/code`: makes the code that a proof must name.
pub(super) async fn renew_code(visit: Visit, Path(name): Path<String>) -> Answer {
    let name = AuthorityName::parse(&name)?;
    authorities::renew_code(visit.hub(), visit.service(), &name).await?;
    Ok(see_other(&paths::authority(&name)))
}

/// `POST /portal/authorities/{name}/verify`: the proof.
pub(super) async fn verify(visit: Visit, Path(name): Path<String>, fields: Fields) -> Answer {
    let name = AuthorityName::parse(&name)?;
    let proof = fields.text("proof").unwrap_or_default().as_bytes();
    match authorities::verify(visit.hub(), visit.service(), &name, proof).await {
        Ok(_) => {
            visit.tell(format!("The CA {name} is verified: it vouches for devices from now on."));
            Ok(see_other(&paths::authority(&name)))
        }
        Err(error @ CaError::NoProof { .. }) => {
            let authority = authorities::retrieve(visit.hub(), visit.service(), &name)?;
            let problem = Problem::from(error);
            let page = page(&visit, &authority, &fields, Some(problem.text()));
            Ok((problem.status(), Html(page)).into_response())
        }
        Err(error) => Err(error.into()),
    }
}

/// `POST /portal/authorities/{name}/delete`.
pub(super) async fn delete(visit: Visit, Path(name): Path<String>) -> Answer {
    let name = AuthorityName::parse(&name)?;
    authorities::remove(visit.hub(), visit.service(), &name, Precondition::AnyVersion).await?;
    visit.tell(format!("The CA {name} is forgotten."));
    Ok(see_other(paths::AUTHORITIES))
}

/// What is wrong with a CA that was to be enrolled.
enum Wrong {
    Name(InvalidAuthorityName),
    Enrolment(CaError),
}

/// Under which field of the form a text stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Name,
    Certificate,
    Reason,
}

impl Wrong {
    fn place(&self) -> Place {
        use portcullis_registry::authority::AuthorityError as Refused;
        match self {
            Wrong::Name(_) | Wrong::Enrolment(CaError::Refused(Refused::AlreadyExists(_))) => Place::Name,
            Wrong::Enrolment(CaError::Refused(Refused::Reason)) => Place::Reason,
            Wrong::Enrolment(_) => Place::Certificate,
        }
    }
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        match wrong {
            Wrong::Name(error) => error.into(),
            Wrong::Enrolment(error) => error.into(),
        }
    }
}

fn show_list(visit: &Visit, fields: &Fields, wrong: Option<Wrong>) -> Answer {
    let all = authorities::list(visit.hub(), visit.service())?;
    let place = wrong.as_ref().map(Wrong::place);
    let problem = wrong.map(|wrong| Problem::from(wrong).to_known_caller());
    let beside =
        |own: Place| problem.as_ref().filter(|_| place == Some(own)).map(|problem| sentence(problem.text()));
    let may_write = visit.may(Rights::REGISTRY_WRITE);
    let content = html! {
        h1 { "Certificate authorities" }
        p.quiet {
            "A device whose authentication is “X.509 CA signed” gets in with a certificate that leads to one of these and "
            "that names the device. A CA vouches for nobody until it is verified."
        }
        @if all.all().is_empty() {
            div.card.empty {
                strong { "No CA is enrolled" }
                @if may_write { "Enrol the one that signs your devices' certificates below." }
            }
        } @else {
            div.scroll { (table(all.all(), visit.hub().clock.wall())) }
        }
        @if may_write { (enrol_form(visit, fields, &beside)) }
    };
    let page = Html(layout::page(visit, Section::Authorities, "Certificate authorities", content));
    Ok(match problem {
        Some(problem) => (problem.status(), page).into_response(),
        None => page.into_response(),
    })
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

fn enrol_form(visit: &Visit, fields: &Fields, beside: &dyn Fn(Place) -> Option<String>) -> Markup {
    let told = |place: Place, id: &str, hint: &str| {
        html! {
            @match beside(place) {
                Some(text) => { p.error id=(id) role="alert" { (text) } }
                None => { p.hint id=(id) { (hint) } }
            }
        }
    };
    let invalid = |place: Place| beside(place).map(|_| "true");
    let (certificate_hint, reason_hint) = (
        "PEM text of the CA's own certificate, root or intermediate. A file may be dropped here.",
        "Kept with the CA, for who asks later.",
    );
    html! {
        section.card aria-labelledby="enrol" {
            h2 id="enrol" { "Enrol a CA" }
            form method="post" action=(paths::AUTHORITIES) {
                (visit.token_field())
                div.field {
                    label for="name" { "Name" }
                    input id="name" name="name" type="text" required maxlength="64" autocomplete="off" spellcheck="false"
                        autocapitalize="off" value=(fields.text("name").unwrap_or_default())
                        aria-invalid=[invalid(Place::Name)] aria-describedby="name-hint";
                    (told(Place::Name, "name-hint", "Letters, digits and -._"))
                }
                div.field {
                    label for="certificate" { "Certificate" }
                    textarea id="certificate" name="certificate" rows="8" required spellcheck="false" data-file-text
                        placeholder="-----BEGIN CERTIFICATE-----" aria-invalid=[invalid(Place::Certificate)]
                        aria-describedby="certificate-hint" { (fields.text("certificate").unwrap_or_default()) }
                    (told(Place::Certificate, "certificate-hint", certificate_hint))
                }
                div.choice {
                    input id="vouch" type="checkbox" name="vouch" value="yes" checked[fields.is_ticked("vouch")];
                    label for="vouch" { "Count it as verified without a proof, because I know whose it is" }
                }
                div.field {
                    label for="reason" { "Why, if so" }
                    input id="reason" name="reason" type="text" maxlength="256"
                        value=(fields.text("reason").unwrap_or_default())
                        aria-invalid=[invalid(Place::Reason)] aria-describedby="reason-hint";
                    (told(Place::Reason, "reason-hint", reason_hint))
                }
                button.primary type="submit" { "Enrol" }
            }
        }
    }
}

fn page(visit: &Visit, authority: &Authority, fields: &Fields, failure: Option<&str>) -> Markup {
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
                    dt { "Verified because" } dd { (reason) }
                }
            }
        }
        @if may_write && let Verification::Pending(code) = &authority.verification {
            (proof(visit, &path, code.as_ref(), fields, failure))
        }
        h2 { "Certificate" }
        details { summary { "Show as PEM" } pre tabindex="0" { (pem::write_certificate(&certificate)) } }
        @if may_write {
            h2 { "Change" }
            (Button { label: "Forget this CA", action: &delete, fields: &[] }.ask_first(
                visit,
                "It vouches for nobody any more, and connections that rest on it are closed. It can be enrolled again."
            ))
        }
    };
    layout::page(visit, Section::Authorities, authority.name.as_str(), content)
}

/// How to show that one holds the CA's key, step by step.
fn proof(
    visit: &Visit,
    path: &str,
    code: Option<&VerificationCode>,
    fields: &Fields,
    failure: Option<&str>,
) -> Markup {
    let (renew, verify) = (format!("{path}/code"), format!("{path}/verify"));
    let Some(code) = code else {
        return html! {
            h2 { "Verify" }
            div.card {
                p { "To show that you hold the CA's key, sign a certificate with it that names a code from here." }
                div.toolbar { (Button { label: "Make a code", action: &renew, fields: &[] }.show(visit)) }
            }
        };
    };
    html! {
        h2 { "Verify" }
        div.card {
            h3 { "1. Where the CA's key is, sign a certificate that names the code" }
            dl.facts { dt { "Code" } dd.mono id="code" { (code.code) } dt { "Good until" } dd { (time(code.expires)) } }
            pre id="commands" tabindex="0" { (commands(&code.code)) }
            div.toolbar {
                button type="button" data-copy="commands" { "Copy the commands" }
                (Button { label: "Make another code", action: &renew, fields: &[] }.show(visit))
            }
            h3 { "2. Hand it in" }
            form method="post" action=(verify) {
                (visit.token_field())
                div.field {
                    label for="proof" { "The certificate that was signed" }
                    textarea id="proof" name="proof" rows="6" required spellcheck="false" data-file-text
                        placeholder="-----BEGIN CERTIFICATE-----" aria-invalid=[failure.map(|_| "true")]
                        aria-describedby="proof-hint" { (fields.text("proof").unwrap_or_default()) }
                    @match failure {
                        Some(text) => { p.error id="proof-hint" role="alert" { (sentence(text)) } }
                        None => { p.hint id="proof-hint" { "PEM text, as in proof.pem. A file may be dropped here." } }
                    }
                }
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
        Verification::Pending(Some(_)) => html! { span.chip.warn { "Awaits its proof" } },
        Verification::Proven => html! { span.chip.good { "Verified by proof" } },
        Verification::Asserted { .. } => html! { span.chip.good { "Verified on somebody's word" } },
    }
}

fn end(moment: Timestamp, now: Timestamp) -> Markup {
    html! { (time(moment)) @if moment <= now { " " span.chip.bad { "ended" } } }
}
