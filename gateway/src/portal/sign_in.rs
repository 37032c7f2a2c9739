//! The sign-ins of people: a limited number, each known by a random id that only the browser has.
//!
//! The hub keeps the hash of the id, and which policy and which of its keys the person used, but never a key. A sign-in
//! ends when the person signs out, when it is idle or lasts for too long, when the policy or that key is gone, or when
//! there are too many and it has been idle longest. Time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::gauge::Gauge;
use sha2::{Digest, Sha256};

use super::csrf::CsrfToken;
use crate::auth::{RememberedService, VerifiedService};
use crate::config::Limits;

/// The sign-ins of one hub's portal.
#[derive(Debug)]
pub(super) struct SignIns {
    sessions_max: usize,
    idle_time_max: Duration,
    time_max: Duration,
    /// The number of sign-ins, as a metric.
    count: Gauge,
    inner: Mutex<HashMap<SignInKey, SignIn>>,
}

/// The secret of a browser, as the cookie carries it.
pub(super) struct SignInId(String);

/// The hash that identifies a sign-in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct SignInKey([u8; 32]);

#[derive(Debug)]
struct SignIn {
    service: RememberedService,
    token: CsrfToken,
    begun: Instant,
    seen: Instant,
    notice: Option<Notice>,
}

/// A message for the next page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub(super) kind: NoticeKind,
    pub(super) text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeKind {
    Done,
    Failed,
}

/// A valid sign-in.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) key: SignInKey,
    pub(super) service: VerifiedService,
    pub(super) token: CsrfToken,
}

impl SignIns {
    pub(super) fn new(limits: &Limits, count: Gauge) -> Self {
        Self {
            sessions_max: limits.portal_sessions_max,
            idle_time_max: limits.portal_idle_time_max,
            time_max: limits.portal_session_time_max,
            count,
            inner: Mutex::default(),
        }
    }

    /// Starts a sign-in of a service that has just authenticated.
    pub(super) fn begin(
        &self,
        service: &VerifiedService,
        now: Instant,
        still_holds: impl Fn(&RememberedService) -> bool,
    ) -> SignInId {
        let id = SignInId::random();
        let sign_in = SignIn {
            service: service.remember(),
            token: CsrfToken::random(),
            begun: now,
            seen: now,
            notice: None,
        };
        let mut inner = self.lock();
        if inner.len() >= self.sessions_max {
            inner.retain(|_, own| self.is_in_time(own, now) && still_holds(&own.service));
        }
        if inner.len() >= self.sessions_max
            && let Some(idle) = inner.iter().min_by_key(|(_, own)| own.seen).map(|(key, _)| *key)
        {
            inner.remove(&idle);
        }
        inner.insert(id.key(), sign_in);
        self.report_count(&inner);
        id
    }

    /// The sign-in with this id, if it is still valid; otherwise it ends. `is_doing` tells whether the person is
    /// active, or a page only refreshes itself.
    pub(super) fn find(
        &self,
        id: &SignInId,
        now: Instant,
        is_doing: bool,
        recall: impl Fn(&RememberedService) -> Option<VerifiedService>,
    ) -> Option<Found> {
        let key = id.key();
        let mut inner = self.lock();
        let sign_in = inner.get_mut(&key)?;
        let in_time = self.is_in_time(sign_in, now);
        let service = recall(&sign_in.service).filter(|_| in_time);
        let Some(service) = service else {
            inner.remove(&key);
            self.report_count(&inner);
            return None;
        };
        if is_doing {
            sign_in.seen = now;
        }
        Some(Found { key, service, token: sign_in.token.clone() })
    }

    /// Whether the sign-in exists and has not timed out. Does not check its policy.
    pub(super) fn is_open(&self, key: SignInKey, now: Instant) -> bool {
        self.lock().get(&key).is_some_and(|sign_in| self.is_in_time(sign_in, now))
    }

    pub(super) fn end(&self, key: SignInKey) {
        let mut inner = self.lock();
        inner.remove(&key);
        self.report_count(&inner);
    }

    /// Keeps a message for the next page of the sign-in.
    pub(super) fn flash(&self, key: SignInKey, notice: Notice) {
        if let Some(sign_in) = self.lock().get_mut(&key) {
            sign_in.notice = Some(notice);
        }
    }

    pub(super) fn take_notice(&self, key: SignInKey) -> Option<Notice> {
        self.lock().get_mut(&key)?.notice.take()
    }

    fn report_count(&self, sign_ins: &HashMap<SignInKey, SignIn>) {
        self.count.set(i64::try_from(sign_ins.len()).unwrap_or(i64::MAX));
    }

    fn is_in_time(&self, sign_in: &SignIn, now: Instant) -> bool {
        now.saturating_duration_since(sign_in.seen) < self.idle_time_max
            && now.saturating_duration_since(sign_in.begun) < self.time_max
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SignInKey, SignIn>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SignInId {
    fn random() -> Self {
        Self(random_hex())
    }

    /// Parses a cookie's value. Only a value that `random` makes is an id.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        (text.len() == 64 && is_hex).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn key(&self) -> SignInKey {
        SignInKey(Sha256::digest(self.0.as_bytes()).into())
    }
}

/// 256 random bits.
pub(super) fn random_hex() -> String {
    portcullis_registry::random_bytes::<32>().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_registry::policy::{Policies, Policy, Renewal, Rights};

    use super::*;
    use crate::auth::{Face, Origin};

    const MINUTE: Duration = Duration::from_secs(60);

    fn origin() -> Origin {
        Origin { face: Face::Portal, peer: "127.0.0.1".parse().unwrap() }
    }

    fn sign_ins(sessions_max: usize) -> SignIns {
        let limits = Limits {
            portal_sessions_max: sessions_max,
            portal_idle_time_max: 10 * MINUTE,
            portal_session_time_max: 60 * MINUTE,
            ..Limits::default()
        };
        SignIns::new(&limits, Gauge::default())
    }

    struct Hub {
        policies: Policies,
        sign_ins: SignIns,
    }

    impl Hub {
        fn new(sessions_max: usize) -> Self {
            let mut policies = Policies::generate();
            policies.insert(Policy::new("reader", Rights::REGISTRY_READ, None, None).unwrap()).unwrap();
            Self { policies, sign_ins: sign_ins(sessions_max) }
        }

        fn begin(&self, policy: &str, now: Instant) -> SignInId {
            let service = crate::auth::tests::service_of(&self.policies, policy, origin());
            let still_holds = |other: &RememberedService| self.recall(other).is_some();
            self.sign_ins.begin(&service, now, still_holds)
        }

        fn is_in(&self, id: &SignInId, now: Instant) -> bool {
            self.sign_ins.find(id, now, true, |own| self.recall(own)).is_some()
        }

        fn recall(&self, remembered: &RememberedService) -> Option<VerifiedService> {
            remembered.verify(&self.policies, origin())
        }
    }

    #[test]
    fn t715_a_session_ends_when_idle_and_in_any_case() {
        let (hub, now) = (Hub::new(10), Instant::now());
        let idle = hub.begin("reader", now);
        assert!(hub.is_in(&idle, now + 9 * MINUTE));
        assert!(!hub.is_in(&idle, now + 19 * MINUTE));
        assert!(!hub.is_in(&idle, now));
        let busy = hub.begin("reader", now);
        assert!((0..12).all(|turn| hub.is_in(&busy, now + 5 * turn * MINUTE)));
        assert!(!hub.is_in(&busy, now + 60 * MINUTE));
    }

    #[test]
    fn what_a_page_does_by_itself_keeps_nobody_signed_in() {
        let (hub, now) = (Hub::new(10), Instant::now());
        let id = hub.begin("reader", now);
        let look = |now| hub.sign_ins.find(&id, now, false, |own| hub.recall(own)).is_some();
        assert!(look(now + 9 * MINUTE));
        assert!(!look(now + 10 * MINUTE));
    }

    #[test]
    fn t604_a_session_goes_with_its_key_and_stays_when_keys_are_swapped() {
        let (mut hub, now) = (Hub::new(10), Instant::now());
        let id = hub.begin("reader", now);
        hub.policies.renew_keys("reader", Renewal::Swap).unwrap();
        hub.policies.renew_keys("reader", Renewal::Primary).unwrap();
        assert!(hub.is_in(&id, now));
        hub.policies.renew_keys("reader", Renewal::Secondary).unwrap();
        assert!(!hub.is_in(&id, now));
        let id = hub.begin("reader", now);
        hub.policies.remove("reader").unwrap();
        assert!(!hub.is_in(&id, now));
    }

    #[test]
    fn beyond_the_bound_the_longest_idle_goes() {
        let (hub, now) = (Hub::new(3), Instant::now());
        let ids: Vec<_> = (0..3).map(|turn| hub.begin("reader", now + turn * MINUTE)).collect();
        assert!(hub.is_in(&ids[0], now + 4 * MINUTE));
        let last = hub.begin("reader", now + 5 * MINUTE);
        let later = now + 5 * MINUTE;
        assert!(hub.is_in(&ids[0], later) && !hub.is_in(&ids[1], later));
        assert!(hub.is_in(&ids[2], later) && hub.is_in(&last, later));
        assert_eq!((hub.sign_ins.lock().len(), hub.sign_ins.count.get()), (3, 3));
    }

    #[test]
    fn t715_ids_are_random_and_nothing_else_is_one() {
        let (hub, now) = (Hub::new(3), Instant::now());
        let (one, other) = (hub.begin("reader", now), hub.begin("reader", now));
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(SignInId::parse(one.as_str()).unwrap().key(), one.key());
        for bad in ["", "0", &one.as_str()[1..], &one.as_str().replace(|_| true, "G"), &"é".repeat(32)] {
            assert!(SignInId::parse(bad).is_none(), "{bad}");
        }
        hub.sign_ins.end(one.key());
        assert!(!hub.is_in(&one, now) && hub.is_in(&other, now));
    }
}
