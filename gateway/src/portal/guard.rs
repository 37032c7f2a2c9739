//! The checks before every page: the request is for this hub and from its own pages, the caller is signed in, the
//! policy has the rights, and a form belongs to this sign-in. A request that fails one ends here. Handlers get a
//! `Visit` and `FormFields`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::RequestPartsExt;
use axum::body::{Body, to_bytes};
use axum::extract::{RawPathParams, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::answer::{Html, RefusalText, RefusedPage, see_other};
use super::csrf::{self, comes_from_here};
use super::fields::FormFields;
use super::routes::PageNeeds;
use super::sign_in::SignInId;
use super::visit::Visit;
use super::{Portal, layout, paths};
use crate::auth::{Face, Origin, Peer, RememberedService};
use crate::hub::audit::Operation;
use crate::iothub::problem::Problem;
use crate::operations::audit;
use crate::operations::logins;

/// What the guard knows of one route.
#[derive(Clone)]
pub(super) struct RouteGuard {
    pub(super) portal: Arc<Portal>,
    pub(super) needs: PageNeeds,
    /// The operation of a form on this route, which the audit record names if it is refused.
    pub(super) operation: Option<Operation>,
    /// Whether pages request it by themselves, which does not count as activity of the person.
    pub(super) in_background: bool,
    /// Whether its body is a file, which the handler reads.
    pub(super) takes_a_file: bool,
}

/// Why a request ends before its handler.
enum Stop {
    Refused(RefusedPage),
    /// The caller is not signed in.
    SignIn,
}

pub(super) async fn guard(State(route): State<RouteGuard>, request: Request, next: Next) -> Response {
    let (mut parts, mut body) = request.into_parts();
    let is_htmx = is_by_script(&parts.headers);
    let target = parts.uri.path_and_query().map_or(paths::HOME, |path| path.as_str()).to_owned();
    let is_read = parts.method == Method::GET || parts.method == Method::HEAD;
    let response = match route.admit(&mut parts, &mut body).await {
        Ok(()) => next.run(Request::from_parts(parts.clone(), body)).await,
        Err(Stop::Refused(refused)) => refused.into_response(),
        Err(Stop::SignIn) => return sign_in(is_htmx, if is_read { &target } else { paths::HOME }),
    };
    let Some(RefusalText(text)) = response.extensions().get::<RefusalText>().cloned() else {
        return response;
    };
    let status = response.status();
    let page = match parts.extensions.get::<Visit>() {
        _ if is_htmx => layout::notice(&text),
        Some(visit) => layout::refusal(visit, status, &text),
        None => layout::refusal_to_stranger(status, &text),
    };
    (status, Html(page)).into_response()
}

impl RouteGuard {
    /// Checks a request, and attaches the caller and the fields of a form to it.
    async fn admit(&self, parts: &mut Parts, body: &mut Body) -> Result<(), Stop> {
        let hub = &self.portal.hub;
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if !hub.hosts.contains_name(host) {
            return Err(Stop::refused(Problem::argument_invalid(other_name(hub.hosts.primary(), host))));
        }
        if !comes_from_here(&parts.method, &parts.headers, &hub.hosts) {
            let text = "This request comes from a page of another site.";
            return Err(Stop::refused(Problem::forbidden(text)));
        }
        let is_form = parts.method == Method::POST;
        if self.needs == PageNeeds::Nothing {
            return if is_form { self.read(parts, std::mem::take(body)).await.map(drop) } else { Ok(()) };
        }
        let visit = self.visit(parts)?;
        parts.extensions.insert(visit.clone());
        if is_form {
            let fields = match self.takes_a_file {
                true => FormFields::default(),
                false => self.read(parts, std::mem::take(body)).await?,
            };
            let given = parts.headers.get(csrf::HEADER).and_then(|value| value.to_str().ok());
            let given = given.or_else(|| fields.text(csrf::FIELD)).unwrap_or_default();
            if !visit.token().is(given) {
                let text = "This form belongs to another sign-in. Load its page again.";
                return Err(Stop::refused(Problem::forbidden(text)));
            }
            // The body may have taken long, and the caller may have been revoked since (threats P6).
            if !visit.still_holds() {
                return Err(Stop::SignIn);
            }
        }
        if let PageNeeds::Rights(wanted) = self.needs
            && let Err(error) = visit.service().check(wanted)
        {
            self.record_refusal(parts, &visit, error.to_string()).await;
            return Err(Stop::refused(Problem::forbidden(format!("The {error}."))));
        }
        Ok(())
    }

    /// The signed-in caller.
    fn visit(&self, parts: &Parts) -> Result<Visit, Stop> {
        let origin = Origin { face: Face::Portal, peer: peer(parts).map_err(Stop::refused)? };
        let hub = &self.portal.hub;
        let id = session_id(&parts.headers).ok_or(Stop::SignIn)?;
        let recall = |remembered: &RememberedService| logins::recall_service(hub, remembered, origin);
        let now = hub.clock.now().monotonic;
        let found = self.portal.sign_ins.find(&id, now, !self.in_background, recall).ok_or(Stop::SignIn)?;
        Ok(Visit::new(Arc::clone(&self.portal), found.service, found.key, found.token))
    }

    /// Reads a form, within the limits of time and size for a request.
    async fn read(&self, parts: &mut Parts, body: Body) -> Result<FormFields, Stop> {
        let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        if !kind.is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded")) {
            return Err(Stop::refused(Problem::argument_invalid("This address accepts a form only.")));
        }
        let limits = &self.portal.hub.config.limits;
        let read = to_bytes(body, limits.request_body_bytes_max);
        let fields = match tokio::time::timeout(limits.request_time_max, read).await {
            Ok(Ok(bytes)) => FormFields::parse(&bytes),
            Ok(Err(_)) => return Err(Stop::refused(Problem::body_too_large())),
            Err(_) => return Err(Stop::refused(Problem::request_timeout())),
        };
        parts.extensions.insert(fields.clone());
        Ok(fields)
    }

    /// Records that a caller asked for a change without having the right (threats T716).
    async fn record_refusal(&self, parts: &mut Parts, visit: &Visit, refused: String) {
        let Some(operation) = self.operation else { return };
        let path = parts.extract::<RawPathParams>().await;
        let named: Vec<_> = path.iter().flatten().map(|(_, value)| value.to_owned()).collect();
        let fields = parts.extensions.get::<FormFields>().cloned().unwrap_or_default();
        let ticked: Vec<_> = fields.all("id").map(str::to_owned).take(TARGETS_MAX).collect();
        let targets = match (named.is_empty(), ticked.is_empty()) {
            (false, _) => vec![named.join("/")],
            (true, false) => ticked,
            // A resource that does not exist yet has at most a name.
            (true, true) => vec![fields.text("name").unwrap_or_default().to_owned()],
        };
        for target in targets {
            audit::record_refusal(visit.hub(), visit.service(), operation, target, refused.clone()).await;
        }
    }
}

impl Stop {
    fn refused(problem: Problem) -> Self {
        Stop::Refused(RefusedPage(problem))
    }
}

/// The text for a caller that uses a name that is not the hub's.
fn other_name(own: &str, host: &str) -> String {
    let port = host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    format!(
        "This hub is called {own}, and its portal is at https://{own}{port}/portal only. Its operator can give it other \
         names (aliases)."
    )
}

/// Redirects a caller who is not signed in to the sign-in page, and from there back.
fn sign_in(is_htmx: bool, next: &str) -> Response {
    let path = paths::sign_in_for(next);
    match HeaderValue::from_str(&path) {
        Ok(path) if is_htmx => (StatusCode::UNAUTHORIZED, [(HX_REDIRECT, path)]).into_response(),
        _ => see_other(&path),
    }
}

/// The peer of the request's connection.
pub(super) fn peer(parts: &Parts) -> Result<IpAddr, Problem> {
    let peer = parts.extensions.get::<Peer>();
    peer.map(|peer| peer.address).ok_or_else(|| Problem::internal("a request from nowhere"))
}

/// Whether a script of a page requests a part of a page.
pub(super) fn is_by_script(headers: &HeaderMap) -> bool {
    headers.contains_key(HX_REQUEST)
}

/// The id of the sign-in in a request's cookie.
pub(super) fn session_id(headers: &HeaderMap) -> Option<SignInId> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).and_then(|(_, value)| SignInId::parse(value))
}

/// The most targets that a form may change at once.
const TARGETS_MAX: usize = 100;
/// With this prefix, browsers accept the cookie only from this host and from a secure page.
pub(super) const COOKIE: &str = "__Host-portcullis";
const HX_REQUEST: HeaderName = HeaderName::from_static("hx-request");
const HX_REDIRECT: HeaderName = HeaderName::from_static("hx-redirect");
