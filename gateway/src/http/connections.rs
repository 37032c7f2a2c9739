//! `GET /api/v1/devices/{id}/connections`: is it connected, how did its last connections go, and if it was refused,
//! exactly why.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::caller::{Caller, Named};
use crate::hub::Hub;
use crate::hub::connection_log::{Connection, Flapping};
use crate::hub::refusals::Refusal;
use crate::iothub::problem::Problem;
use crate::operations::identities::{self, ConnectionReport};

/// For a device or module.
pub(super) async fn show(
    State(hub): State<Arc<Hub>>,
    Caller(caller): Caller,
    Named(id): Named,
) -> Result<Json<ConnectionsOut>, Problem> {
    let ConnectionReport { is_registered, is_connected, connections, refused } =
        identities::connection_report(&hub, &caller, &id)?;
    let now = hub.clock.wall();
    Ok(Json(ConnectionsOut {
        time: now.to_string(),
        registered: is_registered,
        connected: is_connected,
        last_refusal: refused.last.front().map(|refusal| LastRefusalOut::new(refusal, refused.count)),
        refusal_count: refused.count,
        connections: connections
            .last
            .iter()
            .rev()
            .map(|connection| ConnectionOut::new(connection, now))
            .collect(),
        refusals: refused.last.iter().map(RefusalOut::new).collect(),
        flapping: connections.flapping.as_deref().map(FlappingOut::new),
    }))
}

/// What a request for an identity's connections is answered.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConnectionsOut {
    /// The hub's clock.
    time: String,
    registered: bool,
    connected: bool,
    last_refusal: Option<LastRefusalOut>,
    /// Refusals since the hub started or the id was last forgotten.
    refusal_count: u64,
    /// Newest first.
    connections: Vec<ConnectionOut>,
    /// Newest first.
    refusals: Vec<RefusalOut>,
    flapping: Option<FlappingOut>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct LastRefusalOut {
    time: String,
    peer: String,
    outcome: &'static str,
    reason: String,
    count: u64,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ConnectionOut {
    connected: String,
    /// Null while it is open.
    disconnected: Option<String>,
    duration_seconds: i64,
    peer: String,
    /// How it proved itself.
    method: &'static str,
    /// When the token or certificate ends, and the connection with it.
    credential_end: Option<String>,
    /// How far ahead that lay by the hub's clock when it connected.
    credential_seconds_left: Option<i64>,
    /// Why it ended, a fixed word.
    reason: Option<&'static str>,
    /// What there is to say beyond it.
    text: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RefusalOut {
    time: String,
    peer: String,
    /// `mqtt` or `rest`.
    face: &'static str,
    outcome: &'static str,
    reason: String,
    seen: Option<String>,
    expected: Option<String>,
    /// When the token that was shown ends.
    token_end: Option<String>,
    /// How far ahead that lay by the hub's clock; below 0, how long ago it was.
    token_seconds_left: Option<i64>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct FlappingOut {
    since: String,
    last: String,
    takeovers: u64,
}

impl LastRefusalOut {
    fn new(refusal: &Refusal, count: u64) -> Self {
        Self {
            time: refusal.time.to_string(),
            peer: refusal.peer.to_string(),
            outcome: refusal.outcome.label(),
            reason: refusal.reason.clone(),
            count,
        }
    }
}

impl ConnectionOut {
    fn new(connection: &Connection, now: Timestamp) -> Self {
        let ended = connection.ended.as_ref();
        let until = ended.map_or(now, |ended| ended.time);
        let left = |end: Timestamp| end.duration_since(connection.since).as_secs();
        Self {
            connected: connection.since.to_string(),
            disconnected: ended.map(|ended| ended.time.to_string()),
            duration_seconds: until.duration_since(connection.since).as_secs().max(0),
            peer: connection.peer.to_string(),
            method: connection.method,
            credential_end: connection.credential_end.map(|end| end.to_string()),
            credential_seconds_left: connection.credential_end.map(left),
            reason: ended.map(|ended| ended.reason.label()),
            text: ended.and_then(|ended| ended.text.as_deref().map(str::to_owned)),
        }
    }
}

impl RefusalOut {
    fn new(refusal: &Refusal) -> Self {
        let contrast = refusal.contrast.as_ref();
        // Any number is a token's end; not any is a time.
        let token_end = refusal.token_end.and_then(|end| Timestamp::from_second(end).ok());
        Self {
            time: refusal.time.to_string(),
            peer: refusal.peer.to_string(),
            face: refusal.face.as_str(),
            outcome: refusal.outcome.label(),
            reason: refusal.reason.clone(),
            seen: contrast.map(|contrast| contrast.seen.clone()),
            expected: contrast.map(|contrast| contrast.expected.clone()),
            token_end: token_end.map(|end| end.to_string()),
            token_seconds_left: refusal.token_end.map(|end| end.saturating_sub(refusal.time.as_second())),
        }
    }
}

impl FlappingOut {
    fn new(flapping: &Flapping) -> Self {
        Self {
            since: flapping.since.to_string(),
            last: flapping.last.to_string(),
            takeovers: flapping.takeovers,
        }
    }
}
