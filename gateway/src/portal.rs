//! The portal: pages for people with a browser, at `/portal` on the HTTPS port.
//!
//! It translates pages and forms into operations (`identities`, `bulk`, `c2d` and others) and shows their results; the
//! statuses are those of `iothub::problem`. `guard` checks every request to a route of `routes`, which also says how to
//! add one. `layout` is the frame of every page. Pages are written with maud, which escapes every value. They contain no
//! inline script and no inline style, and can be read without scripts.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state, map_response};
use axum::response::{IntoResponse, Response};

use crate::hub::Hub;
use crate::iothub::problem::Problem;
use answer::RefusedPage;
use sign_in::SignIns;

mod answer;
mod assets;
mod audit_log;
mod authorities;
mod buttons;
mod chart;
mod credential_form;
mod csrf;
mod device;
mod devices;
mod fields;
mod form;
mod guard;
mod home;
mod jobs;
mod layout;
mod live;
mod login;
mod paths;
mod policies;
mod routes;
mod sign_in;
mod text;
mod visit;

pub use routes::{PageNeeds, PageRoute, routes};

/// What every page of one hub's portal rests on.
#[derive(Debug)]
pub struct Portal {
    hub: Arc<Hub>,
    sign_ins: SignIns,
}

/// The portal, and `rest` behind it for whatever is not the portal's.
pub fn in_front_of(hub: &Arc<Hub>, rest: Router) -> Router {
    let sign_ins = SignIns::new(&hub.config.limits, hub.metrics.portal_sessions.clone());
    let portal = Arc::new(Portal { hub: Arc::clone(hub), sign_ins });
    routes::router(&portal)
        .layer(from_fn_with_state(Arc::clone(hub), to_the_end))
        .layer(map_response(answer::armoured))
        .fallback_service(rest)
        .layer(from_fn(lead_browsers))
}

/// Answers a request whether or not anybody still waits for it.
async fn to_the_end(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let answer = hub.to_the_end(next.run(request)).await;
    answer.unwrap_or_else(|reason| RefusedPage(Problem::internal(reason)).into_response())
}

/// A browser that asks for nothing in particular is led to the portal; programs are answered as ever.
async fn lead_browsers(request: Request, next: Next) -> Response {
    let accepted = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let is_browser = accepted.is_some_and(|kinds| kinds.contains("text/html"));
    match request.uri().path() {
        "/" | "/portal/" if is_browser && request.method() == Method::GET => {
            answer::armoured(answer::see_other(paths::HOME)).await
        }
        _ => next.run(request).await.into_response(),
    }
}
