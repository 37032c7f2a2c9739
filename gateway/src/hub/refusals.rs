//! The last refusals of each id, so that an operator can find out why a device cannot connect.
//!
//! The numbers of ids, of refusals for each id, and of characters are limited. The id whose last refusal is oldest goes
//! first. The log keeps unregistered ids too, because an unregistered id is often the reason. It limits them
//! separately, so a flood of invented ids removes no registered one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use portcullis_registry::id::IdentityId;

use crate::auth::{Contrast, Face};
use crate::hub::outcome::ConnectionOutcome;

/// One refused attempt to connect or to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub time: Timestamp,
    pub peer: IpAddr,
    /// The interface of the attempt.
    pub face: Face,
    pub outcome: ConnectionOutcome,
    /// The exact reason, in words, without secrets.
    pub reason: String,
    /// What the peer sent and what the hub expected, if they can be told apart.
    pub contrast: Option<Contrast>,
    /// When the peer's token expires, in seconds since 1970, if the token could be parsed.
    pub token_end: Option<i64>,
}

/// The refusals of one id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RefusalHistory {
    /// Newest first. There is at least one.
    pub last: VecDeque<Refusal>,
    /// All refusals since the hub started or the id was last removed, including those that are not kept.
    pub count: u64,
}

/// The last refusals by id, for a limited number of ids.
#[derive(Debug)]
pub struct RefusalLog {
    ids_max: usize,
    inner: Mutex<RememberedRefusals>,
}

#[derive(Debug, Default)]
struct RememberedRefusals {
    registered: Ids,
    unknown: Ids,
    /// The second of the last refusals in the hub's log, and how many were logged in it.
    reported_in: i64,
    reported: u32,
}

/// Ids in the order of their last refusals.
#[derive(Debug, Default)]
struct Ids {
    refused: HashMap<IdentityId, Remembered>,
    order: BTreeMap<u64, IdentityId>,
    next: u64,
}

#[derive(Debug)]
struct Remembered {
    place: u64,
    refused: RefusalHistory,
}

impl RefusalLog {
    /// `ids_max` registered ids, and as many unregistered ones.
    pub fn new(ids_max: usize) -> Self {
        Self { ids_max: ids_max.max(1), inner: Mutex::default() }
    }

    /// Records a refusal of `id`.
    pub fn note(&self, id: &IdentityId, is_registered: bool, mut refusal: Refusal) {
        refusal.reason = bounded(refusal.reason);
        refusal.contrast = refusal
            .contrast
            .map(|contrast| Contrast { seen: bounded(contrast.seen), expected: bounded(contrast.expected) });
        let mut inner = self.lock();
        match is_registered {
            true => inner.registered.note(id, refusal, self.ids_max, REFUSALS_KEPT),
            false => inner.unknown.note(id, refusal, self.ids_max, REFUSALS_KEPT_OF_UNKNOWN),
        }
    }

    /// Counts a refusal of `id` without details. Does nothing for an id that is not kept.
    pub fn count(&self, id: &IdentityId) {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let remembered = inner.registered.refused.get_mut(id).or_else(|| inner.unknown.refused.get_mut(id));
        if let Some(remembered) = remembered {
            remembered.refused.count += 1;
        }
    }

    /// The refusals of `id`, if there are any.
    pub fn of(&self, id: &IdentityId) -> Option<RefusalHistory> {
        let inner = self.lock();
        // The id may have been refused both before and after it was registered.
        let found = [&inner.registered, &inner.unknown].map(|ids| ids.refused.get(id));
        let mut found = found.into_iter().flatten().map(|remembered| remembered.refused.clone());
        let mut all = found.next()?;
        for other in found {
            all.count += other.count;
            all.last.extend(other.last);
            all.last.make_contiguous().sort_by_key(|refusal| std::cmp::Reverse(refusal.time));
            all.last.truncate(REFUSALS_KEPT);
        }
        Some(all)
    }

    /// The last refusal of `id`, if it is kept.
    pub fn last(&self, id: &IdentityId) -> Option<Refusal> {
        self.of(id)?.last.pop_front()
    }

    /// The last refusals of the `count` most recently refused ids, newest first.
    pub fn latest(&self, count: usize) -> Vec<(IdentityId, Refusal)> {
        let inner = self.lock();
        let mut latest: Vec<_> = [&inner.registered, &inner.unknown]
            .into_iter()
            .flat_map(|ids| ids.order.values().rev().take(count).map(|id| (id, ids.refused.get(id))))
            .filter_map(|(id, remembered)| Some((id.clone(), remembered?.refused.last.front()?.clone())))
            .collect();
        latest.sort_by_key(|(_, refusal)| std::cmp::Reverse(refusal.time));
        latest.truncate(count);
        latest
    }

    /// Whether one more refusal may go to the hub's log. Many refusals must not drown other lines (threats G5).
    pub fn may_report(&self, now: Timestamp) -> bool {
        let mut inner = self.lock();
        if inner.reported_in != now.as_second() {
            inner.reported_in = now.as_second();
            inner.reported = 0;
        }
        inner.reported += 1;
        inner.reported <= TOLD_PER_SECOND
    }

    fn lock(&self) -> MutexGuard<'_, RememberedRefusals> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ids {
    fn note(&mut self, id: &IdentityId, refusal: Refusal, ids_max: usize, kept: usize) {
        self.next += 1;
        let place = self.next;
        if let Some(remembered) = self.refused.get_mut(id) {
            self.order.remove(&remembered.place);
            self.order.insert(place, id.clone());
            remembered.place = place;
            remembered.refused.add(refusal, kept);
            return;
        }
        if self.refused.len() >= ids_max
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.refused.remove(&oldest);
        }
        let mut refused = RefusalHistory::default();
        refused.add(refusal, kept);
        self.order.insert(place, id.clone());
        self.refused.insert(id.clone(), Remembered { place, refused });
    }
}

impl RefusalHistory {
    fn add(&mut self, refusal: Refusal, kept: usize) {
        self.count += 1;
        self.last.truncate(kept - 1);
        self.last.push_front(refusal);
    }
}

/// Shortens a peer's text, which may be as long as a token.
fn bounded(text: String) -> String {
    match text.len() <= TEXT_BYTES_MAX {
        true => text,
        false => format!("{}…", &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]),
    }
}

/// How many refusals of one id are kept.
const REFUSALS_KEPT: usize = 8;
/// How many refusals of an unregistered id are kept. Anybody can invent such ids.
const REFUSALS_KEPT_OF_UNKNOWN: usize = 2;
const TEXT_BYTES_MAX: usize = 256;
/// The most refusals in the hub's log each second.
const TOLD_PER_SECOND: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_registry::id::DeviceId;

    fn id(name: &str) -> IdentityId {
        IdentityId::device(DeviceId::parse(name).unwrap())
    }

    fn refusal(second: i64) -> Refusal {
        Refusal {
            time: Timestamp::from_second(second).unwrap(),
            peer: "127.0.0.1".parse().unwrap(),
            face: Face::Mqtt,
            outcome: ConnectionOutcome::UnknownDevice,
            reason: "no such identity".into(),
            contrast: None,
            token_end: None,
        }
    }

    #[test]
    fn the_id_refused_longest_ago_is_forgotten_and_repeats_are_counted() {
        let log = RefusalLog::new(2);
        for (second, name) in ["a", "b", "a", "c"].into_iter().enumerate() {
            log.note(&id(name), true, refusal(second as i64));
        }
        assert_eq!(log.last(&id("b")), None);
        assert_eq!(log.of(&id("a")).unwrap().count, 2);
        assert_eq!(log.of(&id("c")).unwrap().count, 1);
    }

    #[test]
    fn no_flood_of_invented_ids_pushes_out_one_that_exists() {
        let log = RefusalLog::new(10);
        log.note(&id("pump"), true, refusal(0));
        (0..1000).for_each(|n| log.note(&id(&format!("invented-{n}")), false, refusal(n)));
        assert_eq!(log.last(&id("pump")), Some(refusal(0)));
        assert_eq!(log.lock().unknown.refused.len(), 10);
        assert_eq!(log.lock().unknown.order.len(), 10);
    }

    #[test]
    fn the_last_ones_of_an_id_are_kept_newest_first_and_short() {
        let log = RefusalLog::new(2);
        log.note(&id("a"), false, Refusal { reason: "…".repeat(5000), ..refusal(0) });
        assert_eq!(log.last(&id("a")).unwrap().reason, "…".repeat(86));
        (1..10).for_each(|second| log.note(&id("a"), false, refusal(second)));
        // Registered meanwhile.
        (10..100).for_each(|second| log.note(&id("a"), true, refusal(second)));
        log.count(&id("a"));
        let refused = log.of(&id("a")).unwrap();
        let times: Vec<_> = refused.last.iter().map(|refusal| refusal.time.as_second()).collect();
        assert_eq!(times, [99, 98, 97, 96, 95, 94, 93, 92]);
        assert_eq!(refused.count, 10 + 90 + 1);
    }

    #[test]
    fn the_latest_come_first_whether_registered_or_not() {
        let log = RefusalLog::new(10);
        for (second, name) in ["a", "b", "c", "a"].into_iter().enumerate() {
            log.note(&id(name), name != "b", refusal(second as i64));
        }
        let latest = log.latest(2);
        let seen: Vec<_> = latest.iter().map(|(id, last)| (id.to_string(), last.time.as_second())).collect();
        assert_eq!(seen, [("a".to_owned(), 3), ("c".to_owned(), 2)]);
        assert_eq!(log.latest(9).len(), 3);
    }

    #[test]
    fn a_storm_is_told_in_part_and_a_second_later_again() {
        let log = RefusalLog::new(2);
        let reported = (0..1000).filter(|_| log.may_report(Timestamp::UNIX_EPOCH)).count();
        assert_eq!(reported, 10);
        assert!(log.may_report(Timestamp::from_second(1).unwrap()));
    }
}
