//! The first page: how the hub is, at a glance, and where to go from here.

use axum::response::{IntoResponse, Response};
use maud::html;
use portcullis_registry::policy::Rights;

use super::answer::Html;
use super::layout::{self, Section};
use super::paths;
use super::visit::Visit;

/// `GET /portal`.
pub(super) async fn show(visit: Visit) -> Response {
    let content = html! {
        h1 { "Overview" }
        p { "Signed in with the policy " strong { (visit.service().policy()) } ": " (visit.service().rights()) "." }
        @if visit.may(Rights::REGISTRY_READ) {
            p { a href=(paths::DEVICES) { "Devices" } }
        }
    };
    Html(layout::page(&visit, Section::Overview, "Overview", content)).into_response()
}
