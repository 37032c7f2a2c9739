//! Takeover against revocation against delivery, in many orders of their steps (threats P3, P6, P8, T609, T612).
//!
//! The table of sessions, its seats and orders to leave, the verdicts, the registry and the queues are the real ones. Two
//! things are models: a backend that keeps one device in memory, and a driver that takes a session's steps in the order
//! in which `session` takes them. `shuttle` picks which task goes on at each await and each step, by chance and by
//! priorities that change; what is between two steps is not parted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use jiff::Timestamp;
use portcullis::auth::{
    AuthError, Authenticator, Evidence, HostNames, SasSwitches, Trust, TrustStore, VerifiedIdentity,
};
use portcullis::hub::session_table::{Seat, SessionTable, Taken};
use portcullis_registry::authority::Authorities;
use portcullis_registry::backend::{Backend, Change, ChangeFeed, Mutation, StoreError, Submitted, Written};
use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::id::{Precondition, Revision};
use portcullis_registry::identity::{AuthenticationSpec, IdentitySpec, Status};
use portcullis_registry::message::NewC2d;
use portcullis_registry::policy::Policies;
use portcullis_registry::queue::Consumer;
use portcullis_registry::sas;
use portcullis_registry::store::{ChangeKind, Registry, RegistryLimits};
use portcullis_testing::x509::identity;
use shuttle::future::{block_on, spawn, yield_now};

const MESSAGES: usize = 3;
const NOW: i64 = 1_893_456_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Keeps one device in memory; what is written is stable at once, and others may go on before and after.
#[derive(Default)]
struct Memory {
    feed: OnceLock<Mutex<ChangeFeed>>,
    next: AtomicU64,
    messages: Mutex<BTreeSet<u64>>,
}

impl std::fmt::Debug for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Memory")
    }
}

impl Memory {
    fn apply(&self, mutation: Mutation) -> Written {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (change, written) = match mutation {
            Mutation::PutIdentity { id, generation, record, .. } => {
                let revision = Revision::new(number);
                (Change::IdentityPut { id, generation, revision, record }, Written::Revision(revision))
            }
            Mutation::Enqueue { id, generation, record, .. } => {
                self.messages.lock().unwrap().insert(number);
                (Change::MessagePut { id, number, generation, record }, Written::Number(number))
            }
            Mutation::Settle { id, number, outcome, .. } => {
                if !self.messages.lock().unwrap().remove(&number) {
                    return Written::Found(false);
                }
                (Change::MessageGone { id, number, outcome }, Written::Found(true))
            }
            Mutation::NoteDelivery { id, number, delivery_count } => {
                let is_there = self.messages.lock().unwrap().contains(&number);
                (Change::DeliveryNoted { id, number, delivery_count }, Written::Found(is_there))
            }
            Mutation::PutMeta { key, value } => (Change::MetaPut { key, value }, Written::Done),
            other => panic!("nobody asks for {other:?} here"),
        };
        (self.feed.get().unwrap().lock().unwrap())(change);
        written
    }
}

impl Backend for Memory {
    fn load(&self, _: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        Ok(())
    }

    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError> {
        self.feed.set(Mutex::new(feed)).map_err(|_| StoreError::Unavailable)
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(async move {
            yield_now().await;
            let written = mutations.into_iter().map(|mutation| self.apply(mutation)).collect();
            yield_now().await;
            Ok(written)
        })
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        mutations.into_iter().for_each(|mutation| _ = self.apply(mutation));
        true
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn close(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A hub with one device, and what must be true of it.
struct World {
    registry: Arc<Registry>,
    sessions: Arc<SessionTable>,
    policies: Policies,
    trust: TrustStore,
    hosts: HostNames,
    decoy: SymmetricKey,
    token: String,
    /// Sessions between their CONNACK and their end.
    open: AtomicUsize,
    /// Set while the device is disabled and its operator has been told so.
    is_revoked: AtomicBool,
    delivered: Mutex<Vec<u64>>,
    completed: Mutex<Vec<u64>>,
}

impl World {
    async fn new() -> Arc<Self> {
        let registry = Registry::open(Box::<Memory>::default(), RegistryLimits::default()).unwrap();
        let keys = KeyPair::generate();
        let token = sas::sign("localhost/devices/d1", &keys.primary, NOW + 3600, None);
        let KeyPair { primary, secondary } = keys;
        let authentication = AuthenticationSpec::Sas { primary: Some(primary), secondary: Some(secondary) };
        let spec = IdentitySpec { authentication, ..IdentitySpec::sas_device(identity("d1")) };
        registry.create(spec, now()).await.unwrap();
        let world = Arc::new(Self {
            registry,
            sessions: Arc::default(),
            policies: Policies::generate(),
            trust: TrustStore::new(Trust::new(Authorities::default()).unwrap()),
            hosts: HostNames::new(vec!["localhost".into()], vec![8883]),
            decoy: SymmetricKey::generate(),
            token,
            open: AtomicUsize::new(0),
            is_revoked: AtomicBool::new(false),
            delivered: Mutex::default(),
            completed: Mutex::default(),
        });
        // As the hub does.
        let hub = Arc::downgrade(&world);
        world.registry.observe(Box::new(move |changed| {
            let hub = hub.upgrade().unwrap();
            if changed.kind == ChangeKind::Updated
                && let Some(session) = hub.sessions.session(&changed.id)
            {
                session.recheck(&hub.policies, &hub.trust.current());
            }
        }));
        world
    }

    fn verify(&self) -> Result<VerifiedIdentity, AuthError> {
        let authority = Authenticator {
            registry: &self.registry,
            policies: &self.policies,
            trust: &self.trust,
            hosts: &self.hosts,
            sas: SasSwitches { devices: true, modules: true },
            decoy: &self.decoy,
            leeway: Duration::ZERO,
        };
        authority.verify(&identity("d1"), Evidence { password: Some(&self.token), certificates: None }, now())
    }

    async fn set_status(&self, status: Status) {
        let spec = IdentitySpec { status, ..IdentitySpec::sas_device(identity("d1")) };
        self.registry.replace(spec, Precondition::AnyVersion, now()).await.unwrap();
    }

    /// Disables the device and enables it again. In between, nothing happens in its name.
    async fn operate(self: Arc<Self>) {
        yield_now().await;
        self.set_status(Status::Disabled).await;
        self.is_revoked.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            yield_now().await;
        }
        assert!(self.verify().is_err());
        self.is_revoked.store(false, Ordering::SeqCst);
        self.set_status(Status::Enabled).await;
    }

    async fn send(self: Arc<Self>) {
        for _ in 0..MESSAGES {
            let message = NewC2d { body: Bytes::from_static(b"x"), ..NewC2d::default() };
            // One sent while the device is disabled is refused: it is sent again.
            while self.registry.send(&identity("d1"), message.clone(), now()).await.is_err() {
                yield_now().await;
            }
        }
    }

    /// One connection, from CONNECT to its end; as `session` does it. `patience` is how many messages it takes until it
    /// vanishes, in the middle of one.
    async fn connect(self: Arc<Self>, patience: usize) {
        let Ok(who) = self.verify() else { return };
        yield_now().await;
        // No seat is busy for a while here: there is no clock.
        let taken = self.sessions.take(who.clone(), Duration::ZERO, || ()).await;
        let Some(Taken { seat, .. }) = taken else { return };
        yield_now().await;
        if who.still_holds(&self.policies, &self.trust.current()).is_err() {
            return;
        }
        assert_eq!(self.open.fetch_add(1, Ordering::SeqCst), 0, "two sessions of one identity are open");
        self.may_still("be admitted");
        let mut consumer = self.registry.attach(who.entry());
        self.converse(&seat, &mut consumer, patience).await;
        self.open.fetch_sub(1, Ordering::SeqCst);
        yield_now().await;
        drop(consumer);
        yield_now().await;
        drop(seat);
    }

    /// Connects until every message is completed: a connection proven earlier may still take over from a later one.
    async fn come_again(self: Arc<Self>) {
        while self.completed.lock().unwrap().len() < MESSAGES {
            Arc::clone(&self).connect(usize::MAX).await;
            yield_now().await;
        }
    }

    async fn converse(&self, seat: &Seat, consumer: &mut Consumer, patience: usize) {
        let mut taken = 0;
        loop {
            let must_leave = {
                let ready = pin!(consumer.ready());
                matches!(select(pin!(seat.leave().ordered()), ready).await, Either::Left(_))
            };
            if must_leave {
                return;
            }
            while let Some(lease) = consumer.lease(now()) {
                yield_now().await;
                if seat.leave().given().is_some() {
                    return;
                }
                self.may_still("hear a message");
                self.deliver(lease.message.number, lease.is_repeat);
                yield_now().await;
                // It answers, unless it has had enough.
                if taken == patience || seat.leave().given().is_some() {
                    return;
                }
                self.may_still("complete a message");
                if consumer.complete(lease.message.number, now()).await.unwrap() {
                    self.completed.lock().unwrap().push(lease.message.number);
                }
                taken += 1;
            }
        }
    }

    fn deliver(&self, number: u64, is_repeat: bool) {
        let mut delivered = self.delivered.lock().unwrap();
        let was_delivered = delivered.contains(&number);
        assert!(is_repeat || !was_delivered, "a repeat is told as one");
        assert!(
            was_delivered || delivered.iter().all(|earlier| *earlier < number),
            "first deliveries in order"
        );
        assert!(!self.completed.lock().unwrap().contains(&number), "what was completed came again");
        delivered.push(number);
    }

    fn may_still(&self, what: &str) {
        assert!(!self.is_revoked.load(Ordering::SeqCst), "a revoked device may {what}");
    }
}

/// Two connections take over from each other while the device is disabled and enabled and messages are sent.
fn scenario() {
    block_on(async {
        let world = World::new().await;
        let tasks = [
            spawn(Arc::clone(&world).connect(1)),
            spawn(Arc::clone(&world).connect(0)),
            spawn(Arc::clone(&world).operate()),
            spawn(Arc::clone(&world).send()),
        ];
        let [first, second, operator, sender] = tasks;
        operator.await.unwrap();
        sender.await.unwrap();
        // Whatever happened: one more comes in, ends whoever is still there, and gets the rest.
        let last = spawn(Arc::clone(&world).come_again());
        while world.completed.lock().unwrap().len() < MESSAGES {
            yield_now().await;
        }
        world.set_status(Status::Disabled).await;
        first.await.unwrap();
        second.await.unwrap();
        last.await.unwrap();

        assert!(world.sessions.is_empty() && world.sessions.devices() == 0, "a ghost stays");
        assert_eq!(world.registry.entry(&identity("d1")).unwrap().queued(), 0);
        let completed: BTreeSet<u64> = world.completed.lock().unwrap().iter().copied().collect();
        assert_eq!(completed.len(), MESSAGES, "each was completed once");
    });
}

#[test]
fn p3_p6_p8_hold_in_orders_picked_by_chance() {
    shuttle::check_random(scenario, 3_000);
}

#[test]
fn p3_p6_p8_hold_in_orders_picked_by_priorities() {
    shuttle::check_pct(scenario, 3_000, 4);
}
