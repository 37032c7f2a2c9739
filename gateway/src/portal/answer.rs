//! The portal's answers: pages, redirections and refusals, with the headers that every one of them carries.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::Markup;

use crate::iothub::problem::{Problem, RETRY_AFTER_SECONDS};

/// The result of a handler.
pub(super) type PageResult = Result<Response, RefusedPage>;

/// A page or a part of one.
#[derive(Debug)]
pub(super) struct Html(pub(super) Markup);

impl IntoResponse for Html {
    fn into_response(self) -> Response {
        let kind = HeaderValue::from_static("text/html; charset=utf-8");
        ([(header::CONTENT_TYPE, kind)], self.0.into_string()).into_response()
    }
}

/// A refused request. The caller is signed in, so it may learn the reason. `guard` makes a page of it.
#[derive(Debug)]
pub(super) struct RefusedPage(pub(super) Problem);

/// The text of a refusal, of which `guard` makes a page.
#[derive(Clone, Debug)]
pub(super) struct RefusalText(pub(super) String);

impl<E: Into<Problem>> From<E> for RefusedPage {
    fn from(error: E) -> Self {
        Self(error.into().for_known_caller())
    }
}

impl IntoResponse for RefusedPage {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        if problem.status() == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(reason = problem.for_operator(), "a page of the portal failed");
        }
        let mut response = problem.status().into_response();
        response.extensions_mut().insert(RefusalText(problem.text().to_owned()));
        response
    }
}

/// The redirection after a posted form. The browser follows with GET.
pub(super) fn see_other(path: &str) -> Response {
    match HeaderValue::from_str(path) {
        Ok(path) => (StatusCode::SEE_OTHER, [(header::LOCATION, path)]).into_response(),
        Err(error) => RefusedPage(Problem::internal(error.to_string())).into_response(),
    }
}

/// Adds the headers that limit what a browser does with an answer.
pub(super) async fn armoured(mut response: Response) -> Response {
    let comes_too_early =
        matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let headers = response.headers_mut();
    for (name, value) in ARMOUR {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Assets are named by their content. A page may show what the next user of this browser must not see.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if comes_too_early {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
    }
    response
}

const ARMOUR: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The same as frame-ancestors, for browsers that do not know it.
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];
