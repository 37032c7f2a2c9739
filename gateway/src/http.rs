//! The HTTPS face: IoT Hub's REST dialect under its own paths, ours under `/api/v1`, and health. One path switches to a
//! WebSocket, which is no longer HTTP's.
//!
//! A leaf: it translates requests into the operations of `identities`, `query`, `policies` and `c2d` and their results
//! back; it decides nothing itself. `routes` lists every endpoint and says how to add one; errors become statuses in
//! `problem` alone.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Request, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_rustls::server::TlsStream;

use crate::auth::{Face, Peer};
use crate::hub::Hub;
use crate::hub::admission::Permit;
use crate::hub::listener::Accepted;
use crate::iothub::problem::Problem;
use crate::operations::logins;

mod audit;
mod authorities;
mod bulk;
mod c2d_messages;
mod caller;
mod connections;
mod device_side;
mod dialect;
mod feedback;
mod health;
mod identities;
mod jobs;
mod messages;
mod openapi;
mod paging;
mod policies;
mod problem;
mod query;
mod routes;
mod statistics;
mod websocket;

pub use routes::{Needs, Route, routes};

/// Every route of the HTTPS listener.
pub fn router(hub: Arc<Hub>) -> Router {
    let body_bytes_max = hub.config.limits.request_body_bytes_max;
    let routes = routes::router()
        .fallback(problem::no_such_route)
        .layer(DefaultBodyLimit::max(body_bytes_max))
        .layer(from_fn_with_state(Arc::clone(&hub), to_the_end))
        .with_state(hub);
    dialect::understood_by(routes)
}

/// Answers a request whether or not anybody still waits for it.
async fn to_the_end(State(hub): State<Arc<Hub>>, request: Request<Body>, next: Next) -> Response {
    let answer = hub.to_the_end(next.run(request)).await;
    answer.unwrap_or_else(|reason| Problem::internal(reason).into_response())
}

/// The routes of the operations listener: health and metrics, nothing else.
pub fn ops_router(hub: Arc<Hub>) -> Router {
    Router::new().route("/metrics", get(health::metrics)).merge(health::routes()).with_state(hub)
}

/// A connection that has switched to the WebSocket protocol, and is HTTP's no more.
#[derive(Debug)]
pub struct Switched {
    pub stream: TlsStream<TcpStream>,
    /// What the peer has said on it already.
    pub early: Bytes,
    pub peer: SocketAddr,
    pub permit: Permit,
}

/// Serves one HTTPS connection from accept to goodbye, or until it has switched to a WebSocket. `router` is
/// `router(hub)`, made once. A request proves itself; its connection keeps its place among the anonymous until it
/// closes.
pub async fn serve(hub: &Hub, router: Router, accepted: Accepted) -> Option<Switched> {
    let Accepted { stream, peer, permit } = accepted;
    let stream = handshake(hub, stream, peer).await?;
    let certificates = stream.get_ref().1.peer_certificates().map(Arc::from);
    let proven = Peer { address: peer.ip(), certificates };
    let (stream, early) = serve_requests(hub, stream, proven, router).await?;
    Some(Switched { stream, early, peer, permit })
}

async fn handshake(hub: &Hub, stream: TcpStream, peer: SocketAddr) -> Option<TlsStream<TcpStream>> {
    let deadline = Instant::now() + hub.config.limits.handshake_time_max;
    let handshake = hub.tls.accept_https(stream);
    tokio::select! {
        () = hub.stopping.cancelled() => None,
        outcome = timeout_at(deadline.into(), handshake) => match outcome {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                logins::report_certificate(hub, peer, Face::Rest, &error);
                tracing::debug!(%peer, %error, "TLS handshake failed");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "no TLS session within the time allowed");
                None
            }
        },
    }
}

/// Serves one connection of the operations listener, in plain HTTP. `router` is `ops_router(hub)`, made once.
pub async fn serve_ops(hub: Arc<Hub>, router: Router, accepted: Accepted) {
    let peer = Peer { address: accepted.peer.ip(), certificates: None };
    serve_requests(&hub, accepted.stream, peer, router).await;
    drop(accepted.permit);
}

/// Serves requests to the connection's end, or until it has switched to the WebSocket protocol: the stream is then left
/// to the caller, with what the peer has said on it already.
async fn serve_requests<S>(hub: &Hub, stream: S, peer: Peer, router: Router) -> Option<(S, Bytes)>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &hub.config.limits;
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_time_max)
        .max_buf_size(limits.request_head_bytes_max);
    let router = TowerToHyperService::new(router);
    let switched = AtomicBool::new(false);
    let service = service_fn(|mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer.clone());
        let answer = router.call(request);
        let switched = &switched;
        Box::pin(async move {
            let answer = answer.await;
            if answer.as_ref().is_ok_and(|answer| answer.status() == StatusCode::SWITCHING_PROTOCOLS) {
                switched.store(true, Ordering::Release);
            }
            answer
        })
    });
    let mut connection = server.serve_connection(TokioIo::new(stream), service);
    let outcome = tokio::select! {
        outcome = poll_fn(|context| connection.poll_without_shutdown(context)) => outcome,
        () = hub.stopping.cancelled() => {
            std::pin::Pin::new(&mut connection).graceful_shutdown();
            poll_fn(|context| connection.poll_without_shutdown(context)).await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP connection ended");
        return None;
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    if switched.load(Ordering::Acquire) {
        return Some((stream, parts.read_buf));
    }
    // A peer that does not take its goodbye is gone.
    let _ = timeout(GOODBYE_TIME_MAX, goodbye(hub, stream)).await;
    None
}

/// Ends a connection. Who is still sending a long request is answered already, and hears that answer only if what is on
/// its way is taken: a socket closed with something unread is reset, and the answer lost.
async fn goodbye<S: AsyncRead + AsyncWrite + Unpin>(hub: &Hub, mut stream: S) -> io::Result<()> {
    stream.shutdown().await?;
    let mut unread = vec![0; UNREAD_BYTES];
    while !hub.stopping.is_cancelled() && stream.read(&mut unread).await? > 0 {}
    Ok(())
}

/// How long the goodbye to a connection may take.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);
/// What is thrown away at a time.
const UNREAD_BYTES: usize = 16 * 1024;
