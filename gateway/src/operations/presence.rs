//! Whether an identity is connected, and what else the hub knows of it besides its record. REST answers and pages are
//! made from the same value.

use portcullis_registry::entry::Entry;
use portcullis_registry::id::IdentityId;
use portcullis_registry::identity::Identity;

use crate::hub::Hub;
use crate::iothub::identity_json::LiveState;

/// Whether a device or module has an open connection.
pub fn is_connected(hub: &Hub, id: &IdentityId) -> bool {
    hub.sessions.session(id).is_some()
}

/// The state of an identity whose entry the caller has been given.
pub(crate) fn live_state(hub: &Hub, entry: &Entry) -> LiveState {
    LiveState {
        connected: is_connected(hub, &entry.identity().id),
        queued: entry.queued(),
        connection_changed: entry.activity().connection_changed_at(),
        last_seen: entry.activity().last_seen_at(),
    }
}

/// The state of an identity that was just written. Somebody may have deleted it since, or made another one of the same
/// id: of that one nothing is told.
pub(crate) fn live_state_of_written(hub: &Hub, written: &Identity) -> LiveState {
    let entry = hub.registry.entry(&written.id);
    let entry = entry.filter(|entry| entry.identity().generation == written.generation);
    entry.map_or_else(LiveState::default, |entry| live_state(hub, &entry))
}
