//! Rate limits: an average number per second, with bursts of up to one second's worth.
//!
//! A bucket is stored as the moment at which it is full again. A full bucket needs no entry, which keeps the map of
//! many buckets small. Time is an argument. Looking at a bucket never takes from it, so refusing a peer for earlier
//! failures does not count as a failure.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A number per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(NonZeroU32);

/// What was taken at a rate and is not refilled yet.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    full_at: Instant,
}

/// Buckets by key, all with one rate. Their number is limited.
#[derive(Debug)]
pub struct Throttle<K> {
    rate: Option<Rate>,
    keys_max: usize,
    inner: Mutex<Buckets<K>>,
}

#[derive(Debug)]
struct Buckets<K> {
    buckets: HashMap<K, Bucket>,
    /// The number of buckets at which full ones are removed.
    sweep_at: usize,
}

impl Rate {
    /// A number per second; none means no limit.
    pub fn per_second(count: usize) -> Option<Self> {
        NonZeroU32::new(u32::try_from(count).unwrap_or(u32::MAX)).map(Self)
    }

    /// The time that refills one.
    fn one(self) -> Duration {
        Duration::from_secs(1) / self.0.get()
    }

    /// The time to fill a bucket, less the time that refills one. One may be taken while no more than this is missing.
    fn slack(self) -> Duration {
        Duration::from_secs(1).saturating_sub(self.one())
    }
}

impl Bucket {
    pub fn full(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When one may be taken: now or later.
    pub fn ready_at(&self, rate: Rate, now: Instant) -> Instant {
        self.full_at.checked_sub(rate.slack()).map_or(now, |at| at.max(now))
    }

    /// Takes `count`. The bucket goes into debt if it holds fewer.
    pub fn take(&mut self, count: u32, rate: Rate, now: Instant) {
        self.full_at = self.full_at.max(now) + rate.one() * count;
    }

    /// Takes `count` if the bucket holds at least one. Otherwise takes nothing and returns false.
    fn try_take(&mut self, count: u32, rate: Rate, now: Instant) -> bool {
        let ready = self.ready_at(rate, now) <= now;
        if ready {
            self.take(count, rate, now);
        }
        ready
    }
}

impl<K: Eq + Hash> Throttle<K> {
    /// Without a rate there is no limit.
    pub fn new(rate: Option<Rate>, keys_max: usize) -> Self {
        let inner = Buckets { buckets: HashMap::new(), sweep_at: SWEEP_MIN.min(keys_max) };
        Self { rate, keys_max, inner: Mutex::new(inner) }
    }

    /// Counts one for `key`. Returns false and counts nothing if the rate is used up.
    pub fn spend(&self, key: K, now: Instant) -> bool {
        self.spend_many(key, 1, now)
    }

    /// Counts `count` for `key`, which may go into debt. Returns false and counts nothing if the rate is used up.
    pub fn spend_many(&self, key: K, count: u32, now: Instant) -> bool {
        let Some(rate) = self.rate else { return true };
        let mut inner = self.lock();
        if let Some(bucket) = inner.buckets.get_mut(&key) {
            return bucket.try_take(count, rate, now);
        }
        inner.make_room(self.keys_max, now);
        // Without room this key is not counted. Filling the map takes more refusals a second than any hub can make.
        if inner.buckets.len() < self.keys_max {
            let mut bucket = Bucket::full(now);
            bucket.take(count, rate, now);
            inner.buckets.insert(key, bucket);
        }
        true
    }

    /// Whether `key` has used its rate up.
    pub fn is_spent(&self, key: &K, now: Instant) -> bool {
        let Some(rate) = self.rate else { return false };
        self.lock().buckets.get(key).is_some_and(|bucket| bucket.ready_at(rate, now) > now)
    }

    fn lock(&self) -> MutexGuard<'_, Buckets<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Buckets<K> {
    /// Removes full buckets each time their number has doubled, so the work is spread.
    fn make_room(&mut self, keys_max: usize, now: Instant) {
        if self.buckets.len() < self.sweep_at {
            return;
        }
        self.buckets.retain(|_, bucket| bucket.full_at > now);
        self.sweep_at = (2 * self.buckets.len()).clamp(SWEEP_MIN.min(keys_max), keys_max);
    }
}

/// Up to this number, full buckets are not removed.
const SWEEP_MIN: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn throttle(per_second: usize, keys_max: usize) -> Throttle<u32> {
        Throttle::new(Rate::per_second(per_second), keys_max)
    }

    #[test]
    fn t1007_a_seconds_worth_goes_at_once_and_then_one_by_one() {
        let (throttle, now) = (throttle(10, 10), Instant::now());
        assert_eq!((0..100).filter(|_| throttle.spend(1, now)).count(), 10);
        assert!(throttle.is_spent(&1, now));
        let later = now + Duration::from_millis(100);
        assert!(!throttle.is_spent(&1, later));
        assert!(throttle.spend(1, later));
        assert!(!throttle.spend(1, later));
        assert_eq!((0..100).filter(|_| throttle.spend(1, later + Duration::from_secs(60))).count(), 10);
    }

    #[test]
    fn looking_does_not_spend_and_keys_do_not_share() {
        let (throttle, now) = (throttle(1, 10), Instant::now());
        assert!((0..10).all(|_| !throttle.is_spent(&1, now)));
        assert!(throttle.spend(1, now));
        assert!(throttle.is_spent(&1, now) && !throttle.is_spent(&2, now));
        assert!(throttle.spend(2, now));
    }

    #[test]
    fn many_at_once_are_taken_whole_and_paid_back() {
        let (throttle, now) = (throttle(10, 10), Instant::now());
        assert!(throttle.spend_many(1, 30, now));
        assert!(!throttle.spend(1, now + Duration::from_millis(2099)));
        assert!(throttle.spend(1, now + Duration::from_millis(2100)));
    }

    #[test]
    fn none_a_second_is_no_limit() {
        let (throttle, now) = (throttle(0, 10), Instant::now());
        assert!((0..10_000).all(|_| throttle.spend(1, now)) && !throttle.is_spent(&1, now));
    }

    #[test]
    fn no_flood_of_keys_makes_the_map_grow_beyond_its_bound() {
        let (throttle, now) = (throttle(10, 1000), Instant::now());
        assert!((0..5000).all(|key| throttle.spend(key, now)));
        assert_eq!(throttle.lock().buckets.len(), 1000);
        // A second later all of it is forgotten, and what comes then is counted again.
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| throttle.spend(9999, later)).count(), 10);
        assert_eq!(throttle.lock().buckets.len(), 1);
    }

    #[test]
    fn a_bucket_in_debt_tells_when_the_next_may_be_taken() {
        let (rate, now) = (Rate::per_second(10).unwrap(), Instant::now());
        let mut bucket = Bucket::full(now);
        for _ in 0..10 {
            assert_eq!(bucket.ready_at(rate, now), now);
            bucket.take(1, rate, now);
        }
        assert_eq!(bucket.ready_at(rate, now), now + Duration::from_millis(100));
    }
}
