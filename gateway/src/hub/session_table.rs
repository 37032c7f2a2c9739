//! Who is connected: one session per identity, the newest wins.
//!
//! A session takes its seat before it is admitted, and the seat is a guard: however the session ends, the seat goes,
//! and a late goodbye never removes a newcomer. News of a change reaches a session through its seat. A seat that was
//! taken over just now is not taken over again at once: the newest of those who want it waits, the others are sent away.

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

/// What the table knows of one session.
#[derive(Debug)]
pub struct Seated {
    connection: u64,
    who: VerifiedIdentity,
    leave: Leave,
    gone: CancellationToken,
    takeovers: TakeoverHistory,
    /// The newest of those who wait for the seat.
    next: Mutex<Option<WaitingConnection>>,
}

/// A connection that waits for a seat.
#[derive(Clone, Debug)]
struct WaitingConnection {
    connection: u64,
    sent_away: CancellationToken,
}

/// A seat that was taken.
#[derive(Debug)]
pub struct Taken {
    pub seat: Seat,
    /// What it meant to the session that had the seat, if one did.
    pub takeover: Option<Takeover>,
}

/// How one try for a seat went.
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
    /// (threats P8: the old connection is closed before the new one is answered). Nothing when a newer connection of
    /// the same identity came meanwhile.
    ///
    /// Takeovers of a seat are `wait_max` apart at least; `on_wait` is called when that makes this one wait.
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

    /// Orders the session to leave if what it rests on has ended.
    pub fn expire(&self, now: Timestamp) {
        if self.who.expires().is_some_and(|end| now >= end) {
            self.leave.order(CloseReason::expired(self.who.credential()));
        }
    }

    /// Lets a connection wait for the seat, and sends away an older one that does; false if a newer one does.
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
