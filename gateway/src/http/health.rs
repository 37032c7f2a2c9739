//! Health and metrics. Health answers without credentials and tells nothing but its own word.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::hub::Hub;

/// The health paths and their usual aliases, for a listener without other routes.
pub(super) fn routes() -> Router<Arc<Hub>> {
    Router::new()
        .route("/healthz/live", get(live))
        .route("/livez", get(live))
        .route("/healthz/ready", get(ready))
        .route("/healthz/started", get(ready))
        .route("/healthz", get(ready))
        .route("/readyz", get(ready))
}

/// Every metric, in the OpenMetrics text format.
pub(super) async fn metrics(State(hub): State<Arc<Hub>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], hub.metrics.to_text())
}

/// Whether the process answers at all.
pub(super) async fn live() -> &'static str {
    "live\n"
}

/// Whether the hub serves. A hub answers only after its registry is loaded, so what remains to be told is that it is stopping.
pub(super) async fn ready(State(hub): State<Arc<Hub>>) -> (StatusCode, &'static str) {
    if hub.stopping.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
