//! What the operator is told of a device's comings and goings: in the log, as events, and on request.

use std::net::SocketAddr;

use crate::auth::VerifiedIdentity;
use crate::hub::Hub;
use crate::hub::close_reason::CloseReason;
use crate::hub::connection_log::{ConnectionEnd, ConnectionNumber};
use crate::hub::events::Details;
use crate::hub::outcome::Blame;
use crate::hub::session_table::Takeover;
use crate::iothub::topic::EventName;

/// A device has connected.
pub(super) fn connected(
    hub: &Hub,
    who: &VerifiedIdentity,
    peer: SocketAddr,
    session_present: bool,
) -> ConnectionNumber {
    tracing::info!(identity = %who.id(), session_present, "connected");
    if who.is_weak() {
        tracing::info!(
            identity = %who.id(),
            "the registered thumbprint is SHA-1, which can be forged; register the SHA-256 one"
        );
    }
    let now = hub.clock.wall();
    let noted = hub.connections.opened(who.id(), now, peer, who.credential().method(), who.expires());
    if who.entry().is_deleted() {
        // Deleted in between: whoever forgets what it leaves may have been here already.
        hub.connections.forget(who.id());
    }
    hub.events.emit(EventName::Connected, who.id(), now, || from(peer));
    noted
}

/// A device is about to be gone.
pub(super) fn ended(hub: &Hub, who: &VerifiedIdentity, noted: ConnectionNumber, reason: &CloseReason) {
    let (time, text) = (hub.clock.wall(), reason.text().map(Into::into));
    hub.connections.ended(who.id(), noted, ConnectionEnd { time, reason: reason.outcome(), text });
}

/// A device is gone.
pub(super) fn disconnected(hub: &Hub, who: &VerifiedIdentity, peer: SocketAddr, reason: &CloseReason) {
    let (label, blame) = (reason.outcome().label(), reason.outcome().blame().map(Blame::as_str));
    tracing::info!(identity = %who.id(), reason = label, blame, text = reason.text(), "disconnected");
    hub.events.emit(EventName::Disconnected, who.id(), hub.clock.wall(), || Details {
        reason: Some(label),
        text: reason.text(),
        ..from(peer)
    });
}

/// A device has taken the seat of a connection of its own; one takeover of many is told, now and then.
pub(super) fn taken_over(hub: &Hub, who: &VerifiedIdentity, peer: SocketAddr, takeover: Takeover) {
    hub.metrics.takeovers.inc();
    let Takeover::Flapping { report } = takeover else { return };
    let now = hub.clock.wall();
    hub.metrics.flapping.inc();
    hub.connections.flapped(who.id(), now);
    if report {
        tracing::info!(identity = %who.id(), %peer, text = FLAPPING, "connection flapping");
        hub.events.emit(EventName::ConnectionFlapping, who.id(), now, || Details {
            text: Some(FLAPPING.to_owned()),
            ..from(peer)
        });
    }
}

fn from(peer: SocketAddr) -> Details {
    Details { peer: Some(peer.ip().to_string()), ..Details::default() }
}

const FLAPPING: &str = "several clients use this identity and take the connection from each other, or one connects \
                        again and again without closing";
