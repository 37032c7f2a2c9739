//! The HTTPS face: IoT Hub's REST dialect under its own paths, ours under `/api/v1`, and health.
//!
//! A leaf: it translates requests into the operations of `identities` and `c2d` and their results back; it decides
//! nothing itself. To add an endpoint: write the operation where it belongs, a handler beside its kin in `http/`,
//! and the route below; errors become statuses in `problem` alone.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::time::timeout_at;

use crate::hub::Hub;
use crate::listener::Accepted;

mod bulk;
mod caller;
mod connections;
mod devices;
mod health;
mod messages;
mod modules;
mod policies;
mod problem;
mod wire;

/// Every route of the HTTPS listener.
pub fn router(hub: Arc<Hub>) -> Router {
    let body_bytes_max = hub.config.limits.request_body_bytes_max;
    let device = get(devices::show).put(devices::put).delete(devices::delete);
    let module = get(modules::show).put(modules::put).delete(modules::delete);
    Router::new()
        .route("/devices", get(devices::list).post(bulk::apply))
        .route("/devices/", get(devices::list).post(bulk::apply))
        .route("/devices/{device}", device.clone())
        .route("/devices/{device}/", device)
        .route("/devices/{device}/modules", get(modules::list))
        .route("/devices/{device}/modules/", get(modules::list))
        .route("/devices/{device}/modules/{module}", module.clone())
        .route("/devices/{device}/modules/{module}/", module)
        .route("/devices/{device}/messages/{bound}", post(messages::send_to_device))
        .route("/devices/{device}/modules/{module}/messages/{bound}", post(messages::send_to_module))
        .layer(axum::middleware::from_fn(caller::require_api_version))
        .route("/api/v1/policies/{name}", get(policies::show))
        .route("/api/v1/devices/{device}/connections", get(connections::of_device))
        .route("/api/v1/devices/{device}/modules/{module}/connections", get(connections::of_module))
        .merge(health::routes())
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::method_not_allowed)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .with_state(hub)
}

/// The routes of the operations listener: health and metrics, nothing else.
pub fn ops_router(hub: Arc<Hub>) -> Router {
    Router::new().route("/metrics", get(health::metrics)).merge(health::routes()).with_state(hub)
}

/// Serves one HTTPS connection from accept to goodbye. `router` is `router(hub)`, made once.
pub async fn serve(hub: Arc<Hub>, router: Router, accepted: Accepted) {
    let Accepted { stream, peer, place } = accepted;
    let deadline = Instant::now() + hub.config.limits.handshake_time_max;
    let handshake = hub.tls.https_acceptor().accept(stream);
    let stream = tokio::select! {
        () = hub.stopping.cancelled() => return,
        outcome = timeout_at(deadline.into(), handshake) => match outcome {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "no TLS session within the time allowed"),
        },
    };
    // A request proves itself; its connection keeps its place at the door until it closes.
    serve_requests(&hub, TokioIo::new(stream), router).await;
    drop(place);
}

/// Serves one connection of the operations listener, in plain HTTP. `router` is `ops_router(hub)`, made once.
pub async fn serve_ops(hub: Arc<Hub>, router: Router, accepted: Accepted) {
    serve_requests(&hub, TokioIo::new(accepted.stream), router).await;
    drop(accepted.place);
}

async fn serve_requests<I>(hub: &Hub, io: I, router: Router)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let limits = &hub.config.limits;
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_time_max)
        .max_buf_size(limits.request_head_bytes_max);
    let mut connection = std::pin::pin!(server.serve_connection(io, TowerToHyperService::new(router)));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = hub.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP connection ended");
    }
}
