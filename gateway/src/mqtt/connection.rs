//! The life of one device connection: four states, each made from the one before, so that no step can be skipped.
//!
//! accepted → TLS established (possession of any certificate proven) → authenticated (the first packet was CONNECT and
//! its claim is proven) → session open (CONNACK sent) → conversation. Each step has its own time limit; a refusal is
//! answered and told to the operator here. A device that comes over a WebSocket joins them at the second state.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Rights;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout_at};
use tokio_rustls::server::TlsStream;
use tracing::Instrument;

use crate::auth::{AuthError, Evidence, Face, Origin, Who};
use crate::hub::Hub;
use crate::hub::admission::Permit;
use crate::hub::listener::Accepted;
use crate::hub::metrics::Scope;
use crate::hub::outcome::ConnectionOutcome;
use crate::mqtt::admin::Commands;
use crate::mqtt::codec::{DecodeError, PacketLimits, Side};
use crate::mqtt::connect::{self, Claim, ClaimError};
use crate::mqtt::packet::{Connect, ConnectReturnCode, Packet};
use crate::mqtt::session;
use crate::mqtt::websocket::WebSocket;
use crate::mqtt::wire::{Wire, WireError};
use crate::operations::logins::{self, Fault, LoginAttempt, Reply};

/// A stream a device session runs on.
pub trait DeviceStream: AsyncRead + AsyncWrite + Unpin + Send {
    /// The peer is known now and may send packets of this length.
    fn allow(&mut self, packet_bytes_max: usize);

    /// The certificates the peer showed, its own first; it has proven to hold the key of that one.
    fn certificates(&self) -> Option<&[CertificateDer<'static>]>;
}

/// The TLS connection of one device.
pub type DeviceTls = Box<TlsStream<TcpStream>>;

/// TLS is up; the peer holds the key of any certificate it showed; nothing else is known.
struct TlsEstablished<S> {
    wire: Wire<S>,
    peer: SocketAddr,
    connect_deadline: Instant,
    permit: Permit,
}

/// The peer has proven what its CONNECT claims.
struct Authenticated<S> {
    wire: Wire<S>,
    who: Who,
    connect: Box<Connect>,
}

/// Why a connection ended before it had a session.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("no TLS session within the time allowed")]
    HandshakeTimeout,
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] std::io::Error),
    #[error("no CONNECT within the time allowed")]
    ConnectTimeout,
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the first packet was not CONNECT")]
    NotConnect,
    #[error("refused: {0}")]
    Refused(String),
    #[error("the hub is stopping")]
    Stopping,
}

/// Serves one device connection from accept to goodbye. A service's commands go through `commands`.
pub async fn serve(hub: Arc<Hub>, commands: Arc<Commands>, accepted: Accepted) {
    let peer = accepted.peer;
    // Boxed, so that a device that stays for months does not carry along the room its handshake took.
    let known = Box::pin(async { accepted.handshake(&hub).await?.authenticate(&hub).await });
    converse(&hub, &commands, peer, known).await;
}

/// Serves a device whose connection has switched from HTTP, to its goodbye. The time for CONNECT begins now. `early` is
/// what the peer has said already.
pub async fn serve_websocket(
    hub: Arc<Hub>,
    commands: Arc<Commands>,
    stream: DeviceTls,
    early: Bytes,
    peer: SocketAddr,
    permit: Permit,
) {
    let stream = WebSocket::server(stream, early, hub.config.limits.connect_packet_bytes_max);
    let connect_deadline = Instant::now() + hub.config.limits.connect_time_max;
    let established = TlsEstablished::new(&hub, stream, peer, connect_deadline, permit);
    let known = Box::pin(established.authenticate(&hub));
    converse(&hub, &commands, peer, known).await;
}

/// What follows once the peer is known, whichever way it came.
async fn converse<S: DeviceStream>(
    hub: &Arc<Hub>,
    commands: &Commands,
    peer: SocketAddr,
    known: Pin<Box<impl Future<Output = Result<Authenticated<S>, ConnectionError>>>>,
) {
    let span = tracing::info_span!("conn", %peer, identity = tracing::field::Empty);
    async {
        let session = match known.await {
            Ok(known) => session::run(hub, commands, known.wire, peer, known.who, known.connect),
            Err(error) => {
                hub.metrics.ended_before_session(error.outcome());
                tracing::debug!(%error, "connection ended before it had a session");
                return;
            }
        };
        session.await;
    }
    .instrument(span)
    .await;
}

impl DeviceStream for DeviceTls {
    /// TLS keeps no packets.
    fn allow(&mut self, _packet_bytes_max: usize) {}

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.get_ref().1.peer_certificates()
    }
}

impl DeviceStream for WebSocket<DeviceTls> {
    fn allow(&mut self, packet_bytes_max: usize) {
        self.set_message_bytes_max(packet_bytes_max);
    }

    fn certificates(&self) -> Option<&[CertificateDer<'static>]> {
        self.carrier().certificates()
    }
}

impl Accepted {
    async fn handshake(self, hub: &Hub) -> Result<TlsEstablished<DeviceTls>, ConnectionError> {
        let accepted_at = Instant::now();
        let deadline = accepted_at + hub.config.limits.handshake_time_max;
        let handshake = hub.tls.mqtt_acceptor().accept(self.stream);
        let stream = tokio::select! {
            () = hub.stopping.cancelled() => return Err(ConnectionError::Stopping),
            outcome = timeout_at(deadline.into(), handshake) => outcome
                .map_err(|_| ConnectionError::HandshakeTimeout)?
                .inspect_err(|error| logins::report_certificate(hub, self.peer, Face::Mqtt, error))
                .map_err(ConnectionError::Handshake)?,
        };
        hub.metrics.tls_handshake_duration.observe(accepted_at.elapsed().as_secs_f64());
        let connect_deadline = accepted_at + hub.config.limits.connect_time_max;
        Ok(TlsEstablished::new(hub, Box::new(stream), self.peer, connect_deadline, self.permit))
    }
}

impl<S: DeviceStream> TlsEstablished<S> {
    fn new(hub: &Hub, stream: S, peer: SocketAddr, connect_deadline: Instant, permit: Permit) -> Self {
        let limits = PacketLimits::before_connect(hub.config.limits.connect_packet_bytes_max);
        Self { wire: Wire::new(stream, limits, Side::Client), peer, connect_deadline, permit }
    }

    async fn authenticate(mut self, hub: &Hub) -> Result<Authenticated<S>, ConnectionError> {
        let first = tokio::select! {
            () = hub.stopping.cancelled() => return Err(ConnectionError::Stopping),
            () = sleep_until(self.connect_deadline.into()) => return Err(ConnectionError::ConnectTimeout),
            packet = self.wire.read() => packet,
        };
        let connect = match first {
            Ok(Packet::Connect(connect)) => connect,
            Ok(_) => return Err(ConnectionError::NotConnect),
            Err(WireError::Malformed(error)) => {
                self.answer_malformed(&error).await;
                return Err(WireError::Malformed(error).into());
            }
            Err(error) => return Err(error.into()),
        };
        match self.verdict(hub, &connect) {
            Ok(who) => {
                // The peer is known now: the permit is free for another anonymous connection.
                drop(self.permit);
                let limits = &hub.config.limits;
                let packets =
                    PacketLimits::after_connect(limits.packet_bytes_max, limits.telemetry_payload_bytes_max);
                self.wire.set_limits(packets);
                self.wire.stream_mut().allow(limits.packet_bytes_max);
                Ok(Authenticated { wire: self.wire, who, connect })
            }
            Err(refusal) => {
                if let Some(code) = refusal.code {
                    self.wire.send(&Packet::ConnAck { session_present: false, code });
                    self.close_in_order().await;
                }
                Err(ConnectionError::Refused(refusal.reason))
            }
        }
    }

    /// The claim of CONNECT, proven or refused. The reason of a refusal goes to the operator, never to the peer.
    fn verdict(&self, hub: &Hub, connect: &Connect) -> Result<Who, ConnectRefusal> {
        let started = Instant::now();
        let user_name = connect.username.as_deref().unwrap_or_default();
        let password = connect.password.as_ref().map(|password| password.as_str());
        let anybody = LoginAttempt { peer: self.peer.ip(), face: Face::Mqtt, id: None, password };
        let claim = connect::parse_claim(&connect.client_id, user_name).map_err(|error| {
            let attempt = LoginAttempt { id: error.identity(), ..anybody };
            self.refuse(hub, attempt, Fault::from(&error))
        })?;
        let verdict = match &claim {
            Claim::Device { host, id, .. } => {
                let evidence = Evidence { password, certificates: self.wire.stream().certificates() };
                self.device_verdict(hub, host, id, evidence)
            }
            Claim::Service { host, policy, .. } => self.service_verdict(hub, host, policy, password),
        };
        hub.metrics.auth_duration.observe(started.elapsed().as_secs_f64());
        let id = match &claim {
            Claim::Device { id, .. } => Some(id),
            Claim::Service { .. } => None,
        };
        let attempt = LoginAttempt { id, ..anybody };
        let refuse = |fault| self.refuse(hub, attempt, fault);
        let who = verdict.map_err(|error| refuse(Fault::from(&error)))?;
        if let Some(will) = &connect.will {
            session::check_will(&who, will)
                .map_err(|reason| refuse(Fault::new(ConnectionOutcome::WillRefused, reason)))?;
        }
        self.check_room(hub, &who, attempt)?;
        Ok(who)
    }

    fn device_verdict(
        &self,
        hub: &Hub,
        host: &str,
        id: &IdentityId,
        evidence: Evidence<'_>,
    ) -> Result<Who, AuthError> {
        tracing::Span::current().record("identity", tracing::field::display(id));
        hub.check_host(host)?;
        let policies = hub.policies();
        hub.authenticator(&policies).verify(id, evidence, hub.clock.wall()).map(Who::Device)
    }

    fn service_verdict(
        &self,
        hub: &Hub,
        host: &str,
        policy: &str,
        password: Option<&str>,
    ) -> Result<Who, AuthError> {
        hub.check_host(host)?;
        let policies = hub.policies();
        let service = hub.authenticator(&policies).verify_service(
            password.unwrap_or_default(),
            Some(policy),
            Origin { face: Face::Mqtt, peer: self.peer.ip() },
            hub.clock.wall(),
        )?;
        // What it may do here each command and subscription tells; a policy that may only act for devices may do nothing.
        if service.rights() == Rights::DEVICE_CONNECT {
            service.check(Rights::SERVICE_CONNECT)?;
        }
        Ok(Who::Service(service))
    }

    /// A refusal for lack of proof. Whoever fails too often gets no answer.
    fn refuse(&self, hub: &Hub, attempt: LoginAttempt<'_>, fault: Fault) -> ConnectRefusal {
        hub.metrics.connection_attempt(fault.outcome);
        let reply = logins::failed(hub, attempt, &fault);
        let code = (reply == Reply::Send).then_some(ConnectReturnCode::NotAuthorized);
        ConnectRefusal { code, reason: fault.reason }
    }

    /// Everybody finds a place who has one already: a device that takes its own seat over, for one.
    fn check_room(&self, hub: &Hub, who: &Who, attempt: LoginAttempt<'_>) -> Result<(), ConnectRefusal> {
        let connections_max = i64::try_from(hub.config.limits.connections_max).unwrap_or(i64::MAX);
        let is_seated = matches!(who, Who::Device(device) if hub.sessions.session(device.id()).is_some());
        if is_seated || hub.metrics.connections.get() < connections_max {
            return Ok(());
        }
        let reason = format!("{connections_max} connections are open, which is limits.connections_max");
        let fault = Fault::new(ConnectionOutcome::ConnectionLimit, reason);
        hub.metrics.connection_attempt(fault.outcome);
        hub.metrics.throttled(Scope::Connections);
        logins::report(hub, attempt, &fault, Reply::Send);
        Err(ConnectRefusal { code: Some(ConnectReturnCode::ServerUnavailable), reason: fault.reason })
    }

    /// Some malformed CONNECTs have an answer of their own: an unknown protocol level, a missing client id.
    async fn answer_malformed(&mut self, error: &DecodeError) {
        if let Some(answer) = error.answer() {
            self.wire.send_raw(answer);
            self.close_in_order().await;
        }
    }

    /// Sends what is gathered and closes, within the time the peer has left to become known.
    async fn close_in_order(&mut self) {
        let deadline = Instant::now() + GOODBYE_TIME_MAX;
        let _ = timeout_at(deadline.into(), async {
            self.wire.flush().await?;
            self.wire.shutdown().await
        })
        .await;
    }
}

/// What a refused peer hears, and what the operator hears.
struct ConnectRefusal {
    /// None is no answer at all.
    code: Option<ConnectReturnCode>,
    reason: String,
}

impl ConnectionError {
    /// The outcome of a connection that ended for this.
    fn outcome(&self) -> ConnectionOutcome {
        match self {
            ConnectionError::HandshakeTimeout => ConnectionOutcome::HandshakeTimeout,
            ConnectionError::Handshake(_) => ConnectionOutcome::HandshakeFailed,
            ConnectionError::ConnectTimeout => ConnectionOutcome::ConnectTimeout,
            ConnectionError::Wire(WireError::Malformed(_)) | ConnectionError::NotConnect => {
                ConnectionOutcome::BadProtocol
            }
            ConnectionError::Wire(WireError::Closed | WireError::Io(_)) => ConnectionOutcome::ConnectionLost,
            ConnectionError::Refused(_) => ConnectionOutcome::Refused,
            ConnectionError::Stopping => ConnectionOutcome::Shutdown,
        }
    }
}

impl From<&ClaimError> for Fault {
    fn from(error: &ClaimError) -> Self {
        Self::new(error.outcome(), error.to_string())
    }
}

/// How long a refused peer may take to read its refusal.
const GOODBYE_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(1);
