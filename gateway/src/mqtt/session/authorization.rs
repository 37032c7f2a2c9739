//! What a session may go on for, and how it hears when it may not.

use std::sync::Arc;

use portcullis_registry::activity::Activity;
use portcullis_registry::policy::Policies;
use tokio::sync::watch;

use crate::auth::{Revoked, VerifiedService};
use crate::hub::Hub;
use crate::hub::close_reason::CloseReason;
use crate::hub::session_table::Seat;
use crate::mqtt::packet::ConnectReturnCode;

/// What the session may go on for, and by which it hears when it may not.
pub(super) enum Authorization {
    /// A device's place in the table; it is told through that.
    Seat(Seat),
    /// A service's policy, which it watches itself: services have no place in the table.
    Policy { who: VerifiedService, policies: watch::Receiver<Arc<Policies>> },
}

impl Authorization {
    /// Where a device's activity is noted; services have none.
    pub(super) fn activity(&self) -> Option<&Activity> {
        match self {
            Authorization::Seat(seat) => Some(seat.who().entry().activity()),
            Authorization::Policy { .. } => None,
        }
    }

    /// Why the peer has no say any more, if it has none: what it sends after a revocation was answered finds this set.
    /// One that is only overtaken may still say goodbye.
    pub(super) fn revoked(&self) -> Option<CloseReason> {
        match self {
            Authorization::Seat(seat) => seat.leave().given().filter(CloseReason::is_revocation),
            Authorization::Policy { who, policies } => {
                (!who.still_holds(&policies.borrow())).then_some(CloseReason::CredentialChanged)
            }
        }
    }

    async fn lost(&mut self, hub: &Hub) -> CloseReason {
        match self {
            Authorization::Seat(seat) => seat.leave().ordered().await,
            Authorization::Policy { who, policies } => {
                // Policies are told anew when the clock was set, too.
                let is_over = || who.expires().is_some_and(|end| hub.clock.wall() >= end);
                match policies.wait_for(|policies| is_over() || !who.still_holds(policies)).await {
                    Ok(policies) if !who.still_holds(&policies) => CloseReason::CredentialChanged,
                    Ok(_) => CloseReason::TokenExpired,
                    // Nobody can change policies any more: the hub is gone.
                    Err(_) => CloseReason::Shutdown,
                }
            }
        }
    }

    /// Waits for the order to leave, whether given to this session or to all. Cancel-safe.
    pub(super) async fn ordered(&mut self, hub: &Hub) -> CloseReason {
        tokio::select! {
            biased;
            reason = self.lost(hub) => reason,
            () = hub.stopping.cancelled() => CloseReason::Shutdown,
        }
    }
}

impl Revoked {
    /// What a peer hears when it happens while it connects.
    pub(super) fn connack(self) -> ConnectReturnCode {
        match self {
            Revoked::Deleted | Revoked::Disabled | Revoked::CredentialChanged => {
                ConnectReturnCode::NotAuthorized
            }
            // It is who it says; with its new rights it is welcome.
            Revoked::AccessNarrowed => ConnectReturnCode::ServerUnavailable,
        }
    }
}
