//! Signing in with a shared access policy, by its name and key or its connection string, and signing out.
//!
//! A failed sign-in is counted, logged and charged to its address like any other (`logins`). After too many, the portal
//! refuses the address without checking anything.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::credential::SymmetricKey;

use super::answer::{Html, PageResult, see_other};
use super::fields::{FormFields, Query};
use super::guard::{COOKIE, peer, session_id};
use super::visit::Visit;
use super::{Portal, layout, paths};
use crate::auth::{Face, Origin, VerifiedService};
use crate::hub::Hub;
use crate::iothub::connection_string::{ConnectionString, Secret};
use crate::iothub::problem::Problem;
use crate::operations::logins::{self, LoginAttempt, Reply};

/// `GET /portal/sign-in`.
pub(super) async fn show(State(portal): State<Arc<Portal>>, Query(query): Query) -> Response {
    Html(page(&portal.hub, query.text("next"), &FormFields::default(), None)).into_response()
}

/// `POST /portal/sign-in`.
pub(super) async fn sign_in(
    State(portal): State<Arc<Portal>>,
    headers: HeaderMap,
    fields: FormFields,
    request: Request,
) -> PageResult {
    let hub = &portal.hub;
    let next = fields.text("next").and_then(paths::local).unwrap_or(paths::HOME);
    let (parts, _) = request.into_parts();
    let origin = Origin { face: Face::Portal, peer: peer(&parts)? };
    let now = hub.clock.now().monotonic;
    let again = |problem: Problem| {
        let page = page(hub, Some(next), &fields, Some(problem.text()));
        (problem.status(), Html(page)).into_response()
    };
    if logins::is_turned_away(hub, origin.peer) {
        return Ok(again(Problem::throttled("too many failed logins from this address")));
    }
    let credential = match SignInCredential::parse(&fields, hub) {
        Ok(credential) => credential,
        Err(text) => return Ok(again(Problem::argument_invalid(text))),
    };
    let service = match verify(hub, &credential, origin) {
        Ok(service) => service,
        Err(problem) => return Ok(again(problem)),
    };
    if let Some(before) = session_id(&headers) {
        portal.sign_ins.end(before.key());
    }
    let id =
        portal.sign_ins.begin(&service, now, |other| logins::recall_service(hub, other, origin).is_some());
    tracing::info!(policy = service.policy(), peer = %origin.peer, "signed in to the portal");
    let cookie = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax", id.as_str());
    with_cookie(see_other(next), &cookie)
}

/// `POST /portal/sign-out`.
pub(super) async fn sign_out(visit: Visit) -> PageResult {
    visit.sign_out();
    tracing::info!(policy = visit.service().policy(), "signed out of the portal");
    with_cookie(
        see_other(paths::SIGN_IN),
        &format!("{COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0"),
    )
}

fn with_cookie(mut response: Response, cookie: &str) -> PageResult {
    let cookie = HeaderValue::from_str(cookie).map_err(|error| Problem::internal(error.to_string()))?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    Ok(response)
}

/// The credential of a sign-in.
struct SignInCredential {
    policy: String,
    key: SymmetricKey,
}

impl SignInCredential {
    /// Reads the form. The error is text for the person who filled it in, and contains no part of a secret.
    fn parse(fields: &FormFields, hub: &Hub) -> Result<Self, String> {
        if let Some(text) = fields.trimmed("connection-string") {
            return Self::parse_connection_string(text, hub);
        }
        let policy = fields.trimmed("policy").ok_or("Enter a connection string, or a policy and its key.")?;
        let key = fields.trimmed("key").ok_or("The key of the policy is missing.")?;
        let key = SymmetricKey::parse_base64(key).map_err(|error| format!("Key: {error}."))?;
        Ok(Self { policy: policy.to_owned(), key })
    }

    fn parse_connection_string(text: &str, hub: &Hub) -> Result<Self, String> {
        let read = ConnectionString::parse(text).map_err(|error| format!("Connection string: {error}."))?;
        if !hub.hosts.contains_name(&read.host) {
            let own = hub.hosts.primary();
            return Err(format!(
                "This connection string is for the hub {}, but this hub is {own}.",
                read.host
            ));
        }
        match (read.device, read.secret) {
            (None, Secret::Key { policy: Some(policy), key }) => Ok(Self { policy, key }),
            (Some(_), _) => {
                Err("This is the connection string of a device. Enter one of a shared access policy.".into())
            }
            (None, _) => Err("The connection string names no shared access policy.".into()),
        }
    }
}

/// Checks the credential. The person gets the same answer whatever is wrong with it.
fn verify(hub: &Hub, credential: &SignInCredential, origin: Origin) -> Result<VerifiedService, Problem> {
    let verdict = logins::authenticate_policy(hub, &credential.policy, &credential.key, origin);
    verdict.map_err(|fault| {
        let attempt = LoginAttempt { peer: origin.peer, face: Face::Portal, id: None, password: None };
        match logins::refuse_request(hub, Some(attempt), &fault) {
            Reply::Send => Problem::unauthorized(fault.reason),
            Reply::Withhold => Problem::throttled(fault.reason),
        }
    })
}

fn page(hub: &Hub, next: Option<&str>, fields: &FormFields, failure: Option<&str>) -> Markup {
    let failure = failure.map(|text| match text {
        "Unauthorized" => "No policy of this name has this key.",
        "too many requests" => "Too many failed sign-ins from your address. Wait a moment, then try again.",
        other => other,
    });
    let content = html! {
        h1 { "Sign in" }
        p.quiet { "to " strong { (hub.hosts.primary()) } " with one of its shared access policies" }
        @if let Some(text) = failure {
            p.notice.failed role="alert" id="failure" { (text) }
        }
        form method="post" action=(paths::SIGN_IN) {
            @if let Some(next) = next.and_then(paths::local) {
                input type="hidden" name="next" value=(next);
            }
            label for="connection-string" { "Connection string" }
            input id="connection-string" name="connection-string" type="password" autocomplete="off" spellcheck="false"
                placeholder="HostName=…;SharedAccessKeyName=…;SharedAccessKey=…" autofocus;
            p.hint { "On the hub's machine, " code { "portcullis connection-string show" } " prints the owner's connection string." }
            p.or { span { "or" } }
            label for="policy" { "Policy" }
            input id="policy" name="policy" type="text" autocomplete="username" spellcheck="false" autocapitalize="off"
                placeholder="iothubowner" value=(fields.text("policy").unwrap_or_default());
            label for="key" { "Key" }
            input id="key" name="key" type="password" autocomplete="current-password" spellcheck="false";
            button.primary type="submit" { "Sign in" }
        }
    };
    layout::for_strangers("Sign in", content)
}
