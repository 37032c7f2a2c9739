use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::backend::sqlite::SqliteBackend;
use crate::id::{DeviceId, Precondition};
use crate::identity::IdentitySpec;
use crate::message::Ack;
use crate::store::RegistryLimits;

const LOCK: Duration = Duration::from_secs(60);

fn open(directory: &Path) -> Arc<Registry> {
    open_with(directory, RegistryLimits::default())
}

fn open_with(directory: &Path, limits: RegistryLimits) -> Arc<Registry> {
    Registry::open(Box::new(SqliteBackend::open(directory).unwrap()), limits).unwrap()
}

async fn close(registry: Arc<Registry>) {
    tokio::task::spawn_blocking(move || registry.close()).await.unwrap().unwrap();
}

fn now() -> Timestamp {
    "2026-05-01T08:00:00Z".parse().unwrap()
}

fn later(seconds: i64) -> Timestamp {
    now() + jiff::SignedDuration::from_secs(seconds)
}

fn device(name: &str) -> IdentityId {
    IdentityId::device(DeviceId::parse(name).unwrap())
}

/// A message whose body is its id, living for ten seconds.
fn message(body: &str, ack: Ack) -> NewC2d {
    NewC2d {
        message_id: Some(body.into()),
        body: Bytes::copy_from_slice(body.as_bytes()),
        expiry: Some(later(10)),
        ack,
        ..NewC2d::default()
    }
}

async fn with_device(directory: &TempDir, bodies: &[&str]) -> (Arc<Registry>, Arc<Entry>) {
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    for body in bodies {
        registry.send(&device("d1"), message(body, Ack::Full), now()).await.unwrap();
    }
    let entry = registry.entry(&device("d1")).unwrap();
    (registry, entry)
}

fn body(message: &C2dMessage) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

/// Every feedback there is, as id and outcome.
fn feedback(registry: &Registry) -> Vec<(String, Outcome)> {
    let mut outcomes = Vec::new();
    while let Some(batch) = registry.receive_feedback(LOCK, later(1_000), Instant::now()) {
        outcomes.extend(batch.records.iter().map(|record| (record.message_id.clone(), record.outcome)));
    }
    outcomes
}

#[tokio::test]
async fn what_is_polled_is_locked_and_comes_again_when_the_lock_is_over() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let start = Instant::now();
    let one = registry.receive(&entry, LOCK, now(), start).unwrap();
    let two = registry.receive(&entry, LOCK, now(), start).unwrap();
    assert_eq!((body(&one.message), body(&two.message)), ("one", "two"));
    assert!(registry.receive(&entry, LOCK, now(), start).is_none());
    let over = start + LOCK;
    // Locks follow the monotonic clock (threats T911): one hour on the wall changes nothing.
    let lost = registry.settle_received(&entry, one.token, Outcome::Completed, later(5), over).await;
    assert_eq!(lost, Err(SettleError::LockLost));
    let again = registry.receive(&entry, LOCK, now(), over).unwrap();
    // A lock timed out is no delivery that failed by the device's word.
    assert_eq!((body(&again.message), again.delivery_count), ("one", 0));
    assert_ne!(again.token, one.token);
}

#[tokio::test]
async fn complete_and_reject_end_a_message_once_and_are_told() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let start = Instant::now();
    for (name, outcome) in [("one", Outcome::Completed), ("two", Outcome::Rejected)] {
        let received = registry.receive(&entry, LOCK, now(), start).unwrap();
        assert_eq!(body(&received.message), name);
        let settle = || registry.settle_received(&entry, received.token, outcome, now(), start);
        assert_eq!(settle().await, Ok(()));
        assert_eq!(settle().await, Err(SettleError::LockLost));
    }
    assert_eq!(entry.queued(), 0);
    let expected = [("one".to_owned(), Outcome::Completed), ("two".to_owned(), Outcome::Rejected)];
    assert_eq!(feedback(&registry), expected);
}

#[tokio::test]
async fn the_tenth_abandon_is_the_last() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let start = Instant::now();
    for count in 0..10 {
        let received = registry.receive(&entry, LOCK, now(), start).unwrap();
        // What is given back stays in front.
        assert_eq!((body(&received.message), received.delivery_count), ("one", count));
        registry.abandon_received(&entry, received.token, now(), start).await.unwrap();
        let lost = registry.abandon_received(&entry, received.token, now(), start).await;
        assert_eq!(lost, Err(SettleError::LockLost));
    }
    assert_eq!(body(&registry.receive(&entry, LOCK, now(), start).unwrap().message), "two");
    assert_eq!(feedback(&registry), [("one".to_owned(), Outcome::DeliveryCountExceeded)]);
    assert_eq!(registry.queue_counts().delivery_count_exceeded, 1);
}

#[tokio::test]
async fn counts_and_deliveries_survive_opening_again() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two", "three"]).await;
    let received = registry.receive(&entry, LOCK, now(), Instant::now()).unwrap();
    registry.abandon_received(&entry, received.token, now(), Instant::now()).await.unwrap();
    let mut consumer = registry.attach(&entry);
    consumer.lease(now()).unwrap();
    consumer.lease(now()).unwrap();
    drop(consumer);
    drop(entry);
    close(Arc::clone(&registry)).await;
    drop(registry);

    let registry = open(directory.path());
    let entry = registry.entry(&device("d1")).unwrap();
    let counts: Vec<_> = entry.peek(10).iter().map(|queued| queued.delivery_count).collect();
    assert_eq!(counts, [1, 0, 0]);
    let mut consumer = registry.attach(&entry);
    let repeats: Vec<_> = std::iter::from_fn(|| consumer.lease(now())).map(|lease| lease.is_repeat).collect();
    assert_eq!(repeats, [true, true, false]);
}

#[tokio::test]
async fn after_a_kill_what_a_subscriber_may_have_had_counts_as_a_repeat() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one"]).await;
    registry.create(IdentitySpec::sas_device(device("d2")), now()).await.unwrap();
    registry.send(&device("d2"), message("two", Ack::None), now()).await.unwrap();
    let generation = entry.identity().generation;
    registry.save_subscriptions(&device("d1"), generation, Some(vec![1])).await.unwrap();
    let is_repeat = |registry: &Arc<Registry>, name: &str| {
        registry.attach(&registry.entry(&device(name)).unwrap()).lease(now()).unwrap().is_repeat
    };
    // Closed without a word of it, as far as a process can kill itself.
    let killed = Arc::clone(&registry);
    tokio::task::spawn_blocking(move || killed.backend.close()).await.unwrap().unwrap();
    drop((registry, entry));
    let registry = open(directory.path());
    assert_eq!((is_repeat(&registry, "d1"), is_repeat(&registry, "d2")), (true, false));
    registry.send(&device("d1"), message("new", Ack::None), now()).await.unwrap();
    close(Arc::clone(&registry)).await;
    drop(registry);
    // Closed in order, the store knows of each.
    let registry = open(directory.path());
    let mut consumer = registry.attach(&registry.entry(&device("d1")).unwrap());
    let repeats: Vec<_> = std::iter::from_fn(|| consumer.lease(now())).map(|lease| lease.is_repeat).collect();
    assert_eq!(repeats, [true, false]);
}

#[tokio::test]
async fn a_consumer_and_a_poll_never_have_the_same_message() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two", "three"]).await;
    let start = Instant::now();
    let polled = registry.receive(&entry, LOCK, now(), start).unwrap();
    let mut consumer = registry.attach(&entry);
    let leased: Vec<_> = std::iter::from_fn(|| consumer.lease(now())).map(|lease| lease.message).collect();
    assert_eq!(leased.iter().map(|message| body(message)).collect::<Vec<_>>(), ["two", "three"]);
    assert!(registry.receive(&entry, LOCK, now(), start).is_none());
    assert_eq!(consumer.complete(polled.message.number, now()).await, Ok(false));
    // The consumer was woken for everything so far, and is woken by the lock's end.
    assert!(consumer.lease(now()).is_none());
    consumer.ready().await;
    registry.sweep(now(), start + LOCK).await.unwrap();
    consumer.ready().await;
    let again = consumer.lease(now()).unwrap();
    assert_eq!((body(&again.message), again.is_repeat), ("one", true));
}

#[tokio::test]
async fn an_expired_message_is_told_though_nobody_connects() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one"]).await;
    assert_eq!(registry.sweep(later(9), Instant::now()).await, Ok(0));
    assert_eq!(registry.sweep(later(10), Instant::now()).await, Ok(1));
    assert_eq!((entry.queued(), registry.queue_counts().messages), (0, 0));
    assert_eq!(feedback(&registry), [("one".to_owned(), Outcome::Expired)]);
    assert_eq!(registry.sweep(later(10), Instant::now()).await, Ok(0));
}

#[tokio::test]
async fn a_burst_of_expiries_ends_in_one_sweep() {
    let directory = TempDir::new().unwrap();
    let registry = open_with(
        directory.path(),
        RegistryLimits { queue_messages_max: 2_000, ..RegistryLimits::default() },
    );
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let to = device("d1");
    for number in 0..1_100 {
        registry.send(&to, message(&number.to_string(), Ack::None), now()).await.unwrap();
    }
    assert_eq!(registry.sweep(later(11), Instant::now()).await, Ok(1_100));
    assert_eq!(registry.queue_counts().expired, 1_100);
}

#[tokio::test]
async fn t911_an_expired_message_never_revives() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let mut consumer = registry.attach(&entry);
    assert!(consumer.lease(later(10)).is_none());
    // The clock steps back a day: what was seen to be over stays so.
    assert!(consumer.lease(later(-86_400)).is_none());
    assert!(registry.receive(&entry, LOCK, later(-86_400), Instant::now()).is_none());
    registry.sweep(later(10), Instant::now()).await.unwrap();
    assert_eq!(entry.queued(), 0);
}

#[tokio::test]
async fn a_message_with_a_consumer_may_be_acknowledged_a_while_after_its_expiry() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let mut consumer = registry.attach(&entry);
    let one = consumer.lease(now()).unwrap();
    consumer.lease(now()).unwrap();
    assert_eq!(registry.sweep(later(69), Instant::now()).await, Ok(0));
    assert_eq!(consumer.complete(one.message.number, later(69)).await, Ok(true));
    // But its sender does not wait for ever.
    assert_eq!(registry.sweep(later(70), Instant::now()).await, Ok(1));
    let expected = [("one".to_owned(), Outcome::Completed), ("two".to_owned(), Outcome::Expired)];
    assert_eq!(feedback(&registry), expected);
}

#[tokio::test]
async fn t718_a_purge_during_delivery_counts_right_and_what_it_took_never_comes_back() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two", "three"]).await;
    let mut consumer = registry.attach(&entry);
    let one = consumer.lease(now()).unwrap();
    let two = consumer.lease(now()).unwrap();
    consumer.complete(one.message.number, now()).await.unwrap();
    assert_eq!(registry.purge(&device("d1"), now()).await, Ok(2));
    // A new message has a new number: the late acknowledgement of a purged one cannot complete it.
    registry.send(&device("d1"), message("new", Ack::None), now()).await.unwrap();
    assert_eq!(consumer.complete(two.message.number, now()).await, Ok(false));
    drop(consumer);
    let mut consumer = registry.attach(&entry);
    let left: Vec<_> = std::iter::from_fn(|| consumer.lease(now())).map(|lease| lease.message).collect();
    assert_eq!(left.iter().map(|message| body(message)).collect::<Vec<_>>(), ["new"]);
    assert_eq!(feedback(&registry)[1..], ["two", "three"].map(|name| (name.to_owned(), Outcome::Purged)));
}

#[tokio::test]
async fn t611_nothing_of_an_older_generation_is_told_or_completed() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one", "two"]).await;
    let mut old = registry.attach(&entry);
    let leased = old.lease(now()).unwrap();
    let received = registry.receive(&entry, LOCK, now(), Instant::now()).unwrap();
    old.complete(leased.message.number, now()).await.unwrap();
    registry.delete(&device("d1"), Precondition::Absent).await.unwrap();
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    registry.send(&device("d1"), message("new", Ack::Full), now()).await.unwrap();
    let new = registry.entry(&device("d1")).unwrap();

    assert!(old.lease(now()).is_none());
    let stale = registry.settle_received(&entry, received.token, Outcome::Completed, now(), Instant::now());
    assert_eq!(stale.await, Err(SettleError::LockLost));
    drop(old);
    assert_eq!((new.queued(), feedback(&registry).len()), (1, 0));
}

#[tokio::test]
async fn feedback_survives_opening_again_until_it_is_completed() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one"]).await;
    let mut consumer = registry.attach(&entry);
    let one = consumer.lease(now()).unwrap();
    consumer.complete(one.message.number, now()).await.unwrap();
    drop(consumer);
    drop(entry);
    close(Arc::clone(&registry)).await;
    drop(registry);

    let registry = open(directory.path());
    let mut receiver = registry.feedback_receiver();
    receiver.ready().await;
    let batch = receiver.lease(later(15)).unwrap();
    assert_eq!(batch.records[0].generation, registry.entry(&device("d1")).unwrap().identity().generation);
    drop(receiver);
    // A receiver that is gone leaves it to the next.
    let mut receiver = registry.feedback_receiver();
    let batch = receiver.lease(later(15)).unwrap();
    assert_eq!(receiver.complete(batch.token, Instant::now()).await, Ok(true));
    assert_eq!(receiver.complete(batch.token, Instant::now()).await, Ok(false));
    drop(receiver);
    close(Arc::clone(&registry)).await;
    drop(registry);
    assert_eq!(open(directory.path()).queue_counts(), QueueCounts::default());
}

#[tokio::test]
async fn only_the_outcomes_asked_for_are_told() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &[]).await;
    let asked = [Ack::None, Ack::Positive, Ack::Negative, Ack::Full];
    for ack in asked {
        registry.send(&device("d1"), message(ack.as_str(), ack), now()).await.unwrap();
    }
    let mut consumer = registry.attach(&entry);
    while let Some(lease) = consumer.lease(now()) {
        consumer.complete(lease.message.number, now()).await.unwrap();
    }
    drop(consumer);
    let expected = ["positive", "full"].map(|name| (name.to_owned(), Outcome::Completed));
    assert_eq!(feedback(&registry), expected);
    for ack in asked {
        registry.send(&device("d1"), message(ack.as_str(), ack), now()).await.unwrap();
    }
    registry.purge(&device("d1"), now()).await.unwrap();
    let expected = ["negative", "full"].map(|name| (name.to_owned(), Outcome::Purged));
    assert_eq!(feedback(&registry), expected);
}

#[tokio::test]
async fn the_counts_tell_what_waits_and_since_when() {
    let directory = TempDir::new().unwrap();
    let (registry, entry) = with_device(&directory, &["one"]).await;
    registry.send(&device("d1"), message("two", Ack::None), later(5)).await.unwrap();
    let counts = registry.queue_counts();
    assert_eq!((counts.messages, counts.oldest), (2, Some(now())));
    let mut consumer = registry.attach(&entry);
    let one = consumer.lease(now()).unwrap();
    consumer.complete(one.message.number, now()).await.unwrap();
    assert_eq!(registry.queue_counts().oldest, Some(later(5)));
    registry.delete(&device("d1"), Precondition::Absent).await.unwrap();
    let counts = registry.queue_counts();
    assert_eq!((counts.messages, counts.oldest, counts.completed), (0, None, 1));
}
