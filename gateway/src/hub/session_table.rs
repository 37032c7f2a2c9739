//! The connected identities: one session for each identity. The newest connection wins.
//!
//! A session takes its seat before it is admitted. The seat is a guard: however the session ends, dropping the seat
//! removes it, and a session that ends late never removes a newer one. Changes reach a session through its seat. After
//! a takeover, the seat cannot be taken over again at once: the newest connection waits, and older ones are refused.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use jiff::Timestamp;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Policies;
use tokio::sync::Notify;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;

use crate::auth::{Trust, VerifiedIdentity};
use crate::hub::close_reason::CloseReason;
use takeovers::TakeoverHistory;

pub use takeovers::Takeover;

mod takeovers;

/// The sessions of this hub, by identity.
#[derive(Debug, Default)]
pub struct SessionTable {
    seats: DashMap<IdentityId, Arc<Seated>>,
    devices: AtomicUsize,
    next: AtomicU64,
}

/// The table's entry for one session.
#[derive(Debug)]
pub struct Seated {
    connection: u64,
    who: VerifiedIdentity,
    leave: Leave,
    gone: CancellationToken,
    takeovers: TakeoverHistory,
    /// The newest connection that waits for the seat.
    next: Mutex<Option<WaitingConnection>>,
}

/// A connection that waits for a seat.
#[derive(Clone, Debug)]
struct WaitingConnection {
    connection: u64,
    sent_away: CancellationToken,
}

/// A seat that a session has taken.
#[derive(Debug)]
pub struct Taken {
    pub seat: Seat,
    /// The takeover, if another session had the seat.
    pub takeover: Option<Takeover>,
}

/// The result of one attempt to take a seat.
enum Try {
    Vacant(Seat),
    TakenOver {
        seat: Seat,
        before: Arc<Seated>,
        takeover: Takeover,
    },
    Busy {
        holder: Arc<Seated>,
        until: Instant,
    },
    /// A newer connection has the seat or waits for it.
    Overtaken,
}

/// A session's seat in the table. Dropping it frees the seat and wakes the connections that wait for it.
#[derive(Debug)]
pub struct Seat {
    table: Arc<SessionTable>,
    seated: Arc<Seated>,
}

/// The order to close. It is given at most once, and every later query sees it.
#[derive(Debug, Default)]
pub struct Leave {
    reason: OnceLock<CloseReason>,
    news: Notify,
}

impl Leave {
    /// Orders the session to close. The first order counts.
    pub fn order(&self, reason: CloseReason) {
        if self.reason.set(reason).is_ok() {
            self.news.notify_one();
        }
    }

    /// The order, if there is one.
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
    /// Takes the seat of `who`. Orders a session that has the seat to close, and waits until it has closed (threats P8:
    /// the old connection is closed before the new one is answered). Returns none if a newer connection of the same
    /// identity came in the meantime.
    ///
    /// Two takeovers of a seat are at least `wait_max` apart. Calls `on_wait` if this takeover has to wait for that.
    pub async fn take(
        self: &Arc<Self>,
        who: VerifiedIdentity,
        wait_max: Duration,
        on_wait: impl Fn(),
    ) -> Option<Taken> {
        let connection = self.next.fetch_add(1, Ordering::Relaxed);
        let waiting = WaitingConnection { connection, sent_away: CancellationToken::new() };
        loop {
            match self.try_take(&who, &waiting, wait_max) {
                Try::Vacant(seat) => return Some(Taken { seat, takeover: None }),
                Try::TakenOver { seat, before, takeover } => {
                    before.leave.order(CloseReason::TakenOver);
                    before.gone.cancelled().await;
                    return Some(Taken { seat, takeover: Some(takeover) });
                }
                Try::Busy { holder, until } => {
                    on_wait();
                    tokio::select! {
                        biased;
                        () = waiting.sent_away.cancelled() => return None,
                        () = holder.gone.cancelled() => {}
                        () = sleep_until(until.into()) => {}
                    }
                }
                Try::Overtaken => return None,
            }
        }
    }

    fn try_take(
        self: &Arc<Self>,
        who: &VerifiedIdentity,
        waiting: &WaitingConnection,
        wait_max: Duration,
    ) -> Try {
        let now = Instant::now();
        let seated = |takeovers| {
            Arc::new(Seated {
                connection: waiting.connection,
                who: who.clone(),
                leave: Leave::default(),
                gone: CancellationToken::new(),
                takeovers,
                next: Mutex::default(),
            })
        };
        let seat = |seated: &Arc<Seated>| Seat { table: Arc::clone(self), seated: Arc::clone(seated) };
        match self.seats.entry(who.id().clone()) {
            Slot::Vacant(slot) => {
                let seated = seated(TakeoverHistory::default());
                self.devices.fetch_add(usize::from(seated.is_device()), Ordering::Relaxed);
                slot.insert(Arc::clone(&seated));
                Try::Vacant(seat(&seated))
            }
            Slot::Occupied(mut slot) => {
                let holder = Arc::clone(slot.get());
                if holder.connection > waiting.connection || !holder.let_wait(waiting) {
                    return Try::Overtaken;
                }
                if let Some(until) = holder.takeovers.busy_until(wait_max, now) {
                    return Try::Busy { holder, until };
                }
                let (takeovers, takeover) = holder.takeovers.taken_over(now);
                let seated = seated(takeovers);
                slot.insert(Arc::clone(&seated));
                Try::TakenOver { seat: seat(&seated), before: holder, takeover }
            }
        }
    }

    /// The session of `id`, if one is connected.
    pub fn session(&self, id: &IdentityId) -> Option<Arc<Seated>> {
        self.seats.get(id).map(|seated| Arc::clone(&seated))
    }

    /// Every connected session.
    pub fn all(&self) -> Vec<Arc<Seated>> {
        self.seats.iter().map(|seat| Arc::clone(&seat)).collect()
    }

    /// The number of connected devices, without modules.
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

    /// Orders the session to close unless its credential is still valid.
    pub fn recheck(&self, policies: &Policies, trust: &Trust) {
        if let Err(revoked) = self.who.still_holds(policies, trust) {
            self.leave.order(CloseReason::from(revoked));
        }
    }

    /// Orders the session to close if its credential has expired.
    pub fn expire(&self, now: Timestamp) {
        if self.who.expires().is_some_and(|end| now >= end) {
            self.leave.order(CloseReason::expired(self.who.credential()));
        }
    }

    /// Lets a connection wait for the seat in place of an older one. Returns false if a newer one waits.
    fn let_wait(&self, waiting: &WaitingConnection) -> bool {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        match &*next {
            Some(other) if other.connection > waiting.connection => return false,
            Some(other) if other.connection < waiting.connection => other.sent_away.cancel(),
            _ => {}
        }
        *next = Some(waiting.clone());
        true
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
