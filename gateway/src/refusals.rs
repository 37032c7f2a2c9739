//! The last refusal of each id that was refused, so that an operator can ask why a device does not get in.
//!
//! Bounded: the oldest is forgotten first. Ids that nobody registered count too; that is often the answer.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use portcullis_registry::id::IdentityId;

/// One refused connection attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub time: Timestamp,
    pub peer: IpAddr,
    /// The metric label.
    pub outcome: &'static str,
    /// The exact reason, in words, without secrets.
    pub reason: String,
    /// Attempts refused since the hub started or the record was last forgotten, this one included.
    pub count: u64,
}

/// The last refusal by id, for at most a fixed number of ids.
#[derive(Debug)]
pub struct RefusalLog {
    ids_max: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    last: HashMap<IdentityId, Refusal>,
    order: VecDeque<IdentityId>,
    /// The second in which refusals were last told in the log, and how many.
    told_in: i64,
    told: u32,
}

/// Refusals told in the log each second at most.
const TOLD_PER_SECOND: u32 = 10;

impl RefusalLog {
    pub fn new(ids_max: usize) -> Self {
        Self { ids_max: ids_max.max(1), inner: Mutex::default() }
    }

    /// Notes a refusal of `id`.
    pub fn note(
        &self,
        id: &IdentityId,
        time: Timestamp,
        peer: IpAddr,
        outcome: &'static str,
        reason: String,
    ) {
        let mut inner = self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(last) = inner.last.get_mut(id) {
            *last = Refusal { time, peer, outcome, reason, count: last.count + 1 };
            return;
        }
        if inner.order.len() >= self.ids_max
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.last.remove(&oldest);
        }
        inner.order.push_back(id.clone());
        inner.last.insert(id.clone(), Refusal { time, peer, outcome, reason, count: 1 });
    }

    /// The last refusal of `id`, if it is remembered.
    pub fn last(&self, id: &IdentityId) -> Option<Refusal> {
        self.lock().last.get(id).cloned()
    }

    /// Whether one more refusal may be told in the log: a storm of them must not drown everything else (threats G5).
    pub fn may_tell(&self, now: Timestamp) -> bool {
        let mut inner = self.lock();
        if inner.told_in != now.as_second() {
            inner.told_in = now.as_second();
            inner.told = 0;
        }
        inner.told += 1;
        inner.told <= TOLD_PER_SECOND
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_registry::id::DeviceId;

    fn id(name: &str) -> IdentityId {
        IdentityId::device(DeviceId::parse(name).unwrap())
    }

    #[test]
    fn the_oldest_id_is_forgotten_and_repeats_are_counted() {
        let log = RefusalLog::new(2);
        let peer = "127.0.0.1".parse().unwrap();
        for name in ["a", "b", "b", "c"] {
            log.note(&id(name), Timestamp::UNIX_EPOCH, peer, "unknown_device", "no such identity".into());
        }
        assert_eq!(log.last(&id("a")), None);
        assert_eq!(log.last(&id("b")).unwrap().count, 2);
        assert_eq!(log.last(&id("c")).unwrap().count, 1);
    }

    #[test]
    fn a_storm_is_told_in_part_and_a_second_later_again() {
        let log = RefusalLog::new(2);
        let told = (0..1000).filter(|_| log.may_tell(Timestamp::UNIX_EPOCH)).count();
        assert_eq!(told, 10);
        assert!(log.may_tell(Timestamp::from_second(1).unwrap()));
    }
}
