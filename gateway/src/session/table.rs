//! Who is connected: one session per identity, the newest wins.
//!
//! A session takes its seat before it is admitted, and the seat is a guard: however the session ends, the seat goes,
//! and a late goodbye never removes a newcomer. News of a change reaches a session through its seat.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Policies;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::auth::{Trust, VerifiedIdentity};
use crate::session::core::CloseReason;

/// The sessions of this hub, by identity.
#[derive(Debug, Default)]
pub struct SessionTable {
    seats: DashMap<IdentityId, Arc<Seated>>,
    devices: AtomicUsize,
    next: AtomicU64,
}

/// What the table knows of one session.
#[derive(Debug)]
pub struct Seated {
    connection: u64,
    who: VerifiedIdentity,
    leave: Leave,
    gone: CancellationToken,
}

/// A session's place in the table; dropping it frees the place and tells whoever waits for it.
#[derive(Debug)]
pub struct Seat {
    table: Arc<SessionTable>,
    seated: Arc<Seated>,
}

/// The order to leave: given at most once, heard whenever it is asked for.
#[derive(Debug, Default)]
pub struct Leave {
    reason: OnceLock<CloseReason>,
    news: Notify,
}

impl Leave {
    /// Orders the session to close. The first order stands.
    pub fn order(&self, reason: CloseReason) {
        if self.reason.set(reason).is_ok() {
            self.news.notify_one();
        }
    }

    /// The order, if it was given.
    pub fn given(&self) -> Option<CloseReason> {
        self.reason.get().cloned()
    }

    /// Waits for the order. Cancel-safe; one waiter at a time.
    pub async fn ordered(&self) -> CloseReason {
        loop {
            if let Some(reason) = self.given() {
                self.news.notify_one();
                return reason;
            }
            self.news.notified().await;
        }
    }
}

impl SessionTable {
    /// Takes the seat of `who`, telling any session that has it to leave, and waits until that one is gone
    /// (threats P8: the old connection is closed before the new one is answered). The second value tells whether there was one.
    pub async fn take(self: &Arc<Self>, who: VerifiedIdentity) -> (Seat, bool) {
        let seated = Arc::new(Seated {
            connection: self.next.fetch_add(1, Ordering::Relaxed),
            who,
            leave: Leave::default(),
            gone: CancellationToken::new(),
        });
        let before = match self.seats.entry(seated.who.id().clone()) {
            Slot::Occupied(mut slot) => Some(slot.insert(Arc::clone(&seated))),
            Slot::Vacant(slot) => {
                self.devices.fetch_add(usize::from(seated.is_device()), Ordering::Relaxed);
                slot.insert(Arc::clone(&seated));
                None
            }
        };
        let seat = Seat { table: Arc::clone(self), seated };
        let Some(before) = before else { return (seat, false) };
        before.leave.order(CloseReason::TakenOver);
        before.gone.cancelled().await;
        (seat, true)
    }

    /// The session of `id`, if one is connected.
    pub fn session(&self, id: &IdentityId) -> Option<Arc<Seated>> {
        self.seats.get(id).map(|seated| Arc::clone(&seated))
    }

    /// Every session now connected.
    pub fn all(&self) -> Vec<Arc<Seated>> {
        self.seats.iter().map(|seat| Arc::clone(&seat)).collect()
    }

    /// How many devices are connected; modules do not count.
    pub fn devices(&self) -> usize {
        self.devices.load(Ordering::Relaxed)
    }

    pub fn len(&self) -> usize {
        self.seats.len()
    }

    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }
}

impl Seated {
    pub fn who(&self) -> &VerifiedIdentity {
        &self.who
    }

    pub fn leave(&self) -> &Leave {
        &self.leave
    }

    /// Orders the session to leave unless what it rests on still holds.
    pub fn recheck(&self, policies: &Policies, trust: &Trust) {
        if let Err(revoked) = self.who.still_holds(policies, trust) {
            self.leave.order(CloseReason::from(revoked));
        }
    }

    fn is_device(&self) -> bool {
        self.who.id().module.is_none()
    }
}

impl Seat {
    pub fn who(&self) -> &VerifiedIdentity {
        &self.seated.who
    }

    pub fn leave(&self) -> &Leave {
        &self.seated.leave
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Slot::Occupied(slot) = self.table.seats.entry(self.seated.who.id().clone())
            && slot.get().connection == self.seated.connection
        {
            self.table.devices.fetch_sub(usize::from(self.seated.is_device()), Ordering::Relaxed);
            slot.remove();
        }
        self.seated.gone.cancel();
    }
}
