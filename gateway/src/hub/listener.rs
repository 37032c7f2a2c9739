//! Listeners: bind addresses, accept connections, and start a task for each.
//!
//! A listener waits for the next connection only, so a slow peer delays nobody else.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpStream};

use crate::hub::Hub;
use crate::hub::admission::{AdmissionControl, Crowded, Permit};
use crate::hub::metrics::Scope;

/// An accepted connection. Only the peer's address is known.
#[derive(Debug)]
pub struct Accepted {
    pub stream: TcpStream,
    pub peer: SocketAddr,
    pub permit: Permit,
}

/// Binds `address`. An IPv6 socket accepts IPv6 only, so that both families can be bound at once.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the hub stops. Starts `serve` for each connection that gets a permit from `admission`.
pub async fn run<F, S>(hub: Arc<Hub>, listener: TcpListener, admission: Arc<AdmissionControl>, serve: S)
where
    S: Fn(Arc<Hub>, Accepted) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let accepted = tokio::select! {
            () = hub.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&hub, &admission, stream, peer, &serve),
            Err(error) => {
                tracing::debug!(%error, "a connection could not be accepted");
                pause_if_exhausted(&error).await;
            }
        }
    }
}

fn admit<F, S>(
    hub: &Arc<Hub>,
    admission: &Arc<AdmissionControl>,
    stream: TcpStream,
    peer: SocketAddr,
    serve: &S,
) where
    S: Fn(Arc<Hub>, Accepted) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    match admission.admit(peer.ip(), Instant::now()) {
        Ok(permit) => {
            // Without it packets wait a little; a connection that is gone already is found out by its task.
            let _ = stream.set_nodelay(true);
            hub.tasks.spawn(serve(Arc::clone(hub), Accepted { stream, peer, permit }));
        }
        Err(crowded) => {
            match crowded {
                Crowded::InAll | Crowded::FromAddress => _ = hub.metrics.turned_away.inc(),
                Crowded::FailedLogins => hub.metrics.throttled(Scope::Address),
            }
            tracing::debug!(%peer, reason = %crowded, "connection refused");
            // A reset keeps no state for the peer in the kernel, unlike a normal close.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
    }
}

/// Waits a moment when the process is out of file handles, because the next accept would fail at once (threats T1003).
async fn pause_if_exhausted(error: &io::Error) {
    const EMFILE: i32 = 24;
    const ENFILE: i32 = 23;
    if matches!(error.raw_os_error(), Some(EMFILE | ENFILE)) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How many connections the kernel may hold between two accepts.
const BACKLOG: i32 = 4096;
