//! Checks that a request comes from a page of this portal, by the token of the sign-in in every form, and by the origin
//! that the browser names.
//!
//! A browser names the origin of a form, or at least that it is the page's own. Pages here send no referrer, so some
//! browsers name `null`. A client that names neither is not a browser and is refused.

use axum::http::{HeaderMap, HeaderName, Method, header};
use maud::{Markup, html};
use sha2::{Digest, Sha256};

use super::sign_in::random_hex;
use crate::auth::HostNames;

/// The token that every form of a sign-in must carry.
#[derive(Clone)]
pub(super) struct CsrfToken(String);

impl std::fmt::Debug for CsrfToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CsrfToken(…)")
    }
}

impl CsrfToken {
    pub(super) fn random() -> Self {
        Self(random_hex())
    }

    /// Whether `given` is this token. Compares hashes, so that the time it takes reveals nothing.
    pub(super) fn is(&self, given: &str) -> bool {
        Sha256::digest(given) == Sha256::digest(&self.0)
    }

    /// The hidden field of a form.
    pub(super) fn field(&self) -> Markup {
        html! { input type="hidden" name=(FIELD) value=(self.0); }
    }

    /// The headers that htmx adds to each of its requests.
    pub(super) fn headers(&self) -> String {
        serde_json::json!({ HEADER.as_str(): self.0 }).to_string()
    }
}

/// Whether a request comes from a page of this hub, as far as its browser tells. A link on another site may open a
/// page. A page of another site may neither post here nor fetch anything from here.
pub(super) fn comes_from_here(method: &Method, headers: &HeaderMap, hosts: &HostNames) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (site, mode) = (text(SEC_FETCH_SITE), text(SEC_FETCH_MODE));
    let origin = text(header::ORIGIN).filter(|origin| *origin != "null");
    let is_own = |origin: &str| {
        origin.strip_prefix("https://").is_some_and(|host| hosts.contains_name(host))
            && Some(origin_host(origin)) == text(header::HOST)
    };
    if origin.is_some_and(|origin| !is_own(origin)) {
        return false;
    }
    if *method == Method::GET || *method == Method::HEAD {
        let is_link = mode == Some("navigate");
        return is_link || site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    }
    match site {
        Some(site) => site == "same-origin",
        None => origin.is_some(),
    }
}

fn origin_host(origin: &str) -> &str {
    origin.strip_prefix("https://").unwrap_or_default()
}

/// The field of a form that holds the token.
pub(super) const FIELD: &str = "csrf";
/// The header with the token in requests by htmx.
pub(super) const HEADER: HeaderName = HeaderName::from_static("x-portcullis-csrf");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
