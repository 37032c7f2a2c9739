use std::path::Path;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::backend::sqlite::SqliteBackend;
use crate::error::SendError;
use crate::identity::{Authentication, AuthenticationSpec};
use crate::message::NewC2d;

mod access;
mod answers;
mod model;
mod pages;
mod queue_max;

fn open(directory: &Path) -> Arc<Registry> {
    Registry::open(Box::new(SqliteBackend::open(directory).unwrap()), RegistryLimits::default()).unwrap()
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

fn module(name: &str, module: &str) -> IdentityId {
    IdentityId::module(DeviceId::parse(name).unwrap(), crate::id::ModuleId::parse(module).unwrap())
}

fn text(body: &str) -> NewC2d {
    NewC2d { body: Bytes::copy_from_slice(body.as_bytes()), ..NewC2d::default() }
}

fn bodies(registry: &Arc<Registry>, id: &IdentityId, now: Timestamp) -> Vec<String> {
    let mut consumer = registry.attach(&registry.entry(id).unwrap());
    let mut bodies = Vec::new();
    while let Some(lease) = consumer.lease(now) {
        bodies.push(String::from_utf8(lease.message.body.to_vec()).unwrap());
    }
    bodies
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let created = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let of_module = registry.create(IdentitySpec::sas_device(module("d1", "m")), now()).await.unwrap();
    registry
        .save_subscriptions(&created.id, created.generation, Some(b"subscriptions".to_vec()))
        .await
        .unwrap();
    for body in ["one", "two", "three"] {
        registry.send(&created.id, text(body), now()).await.unwrap();
    }
    registry.put_meta("policies", b"keys".to_vec()).await.unwrap();
    close(registry).await;

    let registry = open(directory.path());
    let entry = registry.entry(&created.id).unwrap();
    assert_eq!(entry.identity(), created);
    assert_eq!(registry.entry(&of_module.id).unwrap().identity(), of_module);
    assert_eq!(entry.subscriptions().as_deref(), Some(&b"subscriptions"[..]));
    assert_eq!(registry.meta("policies"), Some(b"keys".to_vec()));
    assert_eq!(bodies(&registry, &created.id, now()), ["one", "two", "three"]);
    assert_eq!(registry.modules(&created.id.device).unwrap().len(), 1);
    assert_eq!(registry.counts(), Counts { devices: 1, disabled_devices: 0, modules: 1 });
}

#[tokio::test]
async fn t705_one_of_many_racing_creates_wins() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let racers = (0..100).map(|_| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.create(IdentitySpec::sas_device(device("d1")), now()).await })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, RegistryError::AlreadyExists(device("d1"))),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn t705_one_of_many_racers_on_an_etag_wins() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let created = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let racers = (0..100).map(|_| {
        let (registry, etag) = (Arc::clone(&registry), created.etag());
        let spec = IdentitySpec::sas_device(device("d1"));
        tokio::spawn(async move { registry.replace(spec, Precondition::Version(etag), now()).await })
    });
    let mut won = 0;
    for racer in racers.collect::<Vec<_>>() {
        match racer.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error, RegistryError::PreconditionFailed(device("d1"))),
        }
    }
    assert_eq!(won, 1);
}

#[tokio::test]
async fn t707_absent_keys_are_made_once_and_kept_by_a_replace() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let created = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let Authentication::Sas(keys) = &created.authentication else { panic!("not SAS") };
    assert_ne!(keys.primary, keys.secondary);
    let replaced = registry
        .replace(IdentitySpec::sas_device(device("d1")), Precondition::AnyVersion, later(1))
        .await
        .unwrap();
    assert_eq!(replaced.before.revision, created.revision);
    let replaced = replaced.identity;
    assert_eq!(replaced.authentication, created.authentication);
    assert_eq!(replaced.generation, created.generation);
    assert_ne!(replaced.etag(), created.etag());
}

#[tokio::test]
async fn a_change_of_status_is_dated_and_other_changes_are_not() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let disabled = IdentitySpec { status: Status::Disabled, ..IdentitySpec::sas_device(device("d1")) };
    let first = registry.replace(disabled.clone(), Precondition::AnyVersion, later(5)).await.unwrap();
    let second = registry.replace(disabled, Precondition::AnyVersion, later(9)).await.unwrap();
    assert_eq!(
        (first.identity.status_updated, second.identity.status_updated),
        (Some(later(5)), Some(later(5)))
    );
}

#[tokio::test]
async fn what_keeps_an_identity_changes_nothing_but_its_version() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let thumbprint = crate::credential::Thumbprint::parse(&"ab".repeat(32)).ok();
    let pair = crate::credential::ThumbprintPair { primary: thumbprint, secondary: None };
    for (name, authentication) in [
        ("sas", AuthenticationSpec::Sas { primary: None, secondary: None }),
        ("thumbprint", AuthenticationSpec::SelfSigned(pair)),
        ("ca", AuthenticationSpec::CertificateAuthority),
        ("none", AuthenticationSpec::None),
    ] {
        let spec = IdentitySpec {
            status: Status::Disabled,
            status_reason: Some("stolen".into()),
            authentication,
            iot_edge: true,
            managed_by: Some("ops".into()),
            access: Some(crate::access::Access::parse(["c2d"]).unwrap()),
            queue_max: Some(crate::queue_max::QueueMax::new(7)),
            ..IdentitySpec::sas_device(device(name))
        };
        let before = registry.create(spec, now()).await.unwrap();
        let kept = registry.replace(IdentitySpec::keeping(&before), Precondition::AnyVersion, later(5)).await;
        let after = kept.unwrap().identity;
        assert_ne!(after.revision, before.revision);
        assert_eq!(Identity { revision: before.revision, ..(*after).clone() }, *before);
    }
}

#[tokio::test]
async fn t611_an_id_made_anew_inherits_nothing() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let first = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    registry.send(&first.id, text("old"), now()).await.unwrap();
    registry.save_subscriptions(&first.id, first.generation, Some(vec![1])).await.unwrap();
    let old_entry = registry.entry(&first.id).unwrap();
    registry.delete(&first.id, Precondition::Absent).await.unwrap();
    assert!(old_entry.is_deleted());

    // The clock has stepped back meanwhile; the generation and the etag are new all the same.
    let second = registry.create(IdentitySpec::sas_device(device("d1")), later(-86_400)).await.unwrap();
    assert!(second.generation > first.generation);
    assert_ne!(second.etag(), first.etag());
    assert_eq!(bodies(&registry, &second.id, now()), Vec::<String>::new());
    assert_eq!(registry.entry(&second.id).unwrap().subscriptions(), None);
    let stale = registry.save_subscriptions(&first.id, first.generation, Some(vec![2])).await;
    assert_eq!(stale, Err(RegistryError::StaleGeneration(device("d1"))));
}

#[tokio::test]
async fn t611_a_generation_is_never_repeated_across_a_restart() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let first = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    registry.delete(&first.id, Precondition::AnyVersion).await.unwrap();
    close(registry).await;
    let registry = open(directory.path());
    let second = registry.create(IdentitySpec::sas_device(device("d1")), later(-86_400)).await.unwrap();
    assert!(second.generation > first.generation);
    assert!(second.revision > first.revision);
}

#[tokio::test]
async fn t614_a_device_takes_its_modules_along() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    registry.create(IdentitySpec::sas_device(device("d10")), now()).await.unwrap();
    registry.create(IdentitySpec::sas_device(module("d1", "m1")), now()).await.unwrap();
    registry.create(IdentitySpec::sas_device(module("d10", "m1")), now()).await.unwrap();
    registry.delete(&device("d1"), Precondition::Absent).await.unwrap();
    assert!(registry.entry(&module("d1", "m1")).is_none());
    assert!(registry.entry(&module("d10", "m1")).is_some());
    assert_eq!(registry.counts(), Counts { devices: 1, disabled_devices: 0, modules: 1 });
}

#[tokio::test]
async fn a_module_needs_its_device_and_room() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let orphan = registry.create(IdentitySpec::sas_device(module("d1", "m")), now()).await;
    assert_eq!(orphan, Err(RegistryError::NotFound(device("d1"))));
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    for number in 0..20 {
        registry.create(IdentitySpec::sas_device(module("d1", &number.to_string())), now()).await.unwrap();
    }
    let surplus = registry.create(IdentitySpec::sas_device(module("d1", "m")), now()).await;
    assert_eq!(surplus, Err(RegistryError::TooManyModules { device: device("d1"), limit: 20 }));
}

#[tokio::test]
async fn t717_of_sixty_sends_at_once_fifty_are_taken() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let senders = (0..60).map(|number| {
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { registry.send(&device("d1"), text(&number.to_string()), now()).await })
    });
    let mut taken = 0;
    for sender in senders.collect::<Vec<_>>() {
        match sender.await.unwrap() {
            Ok(_) => taken += 1,
            Err(error) => assert_eq!(error, SendError::QueueFull { to: device("d1"), limit: 50 }),
        }
    }
    assert_eq!(taken, 50);
    assert_eq!(registry.entry(&device("d1")).unwrap().queued(), 50);
}

#[tokio::test]
async fn t717_messages_beyond_the_limits_are_refused() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let to = device("d1");
    let send = |message| registry.send(&to, message, now());
    assert!(send(text(&"x".repeat(65_536))).await.is_ok());
    assert_eq!(
        send(text(&"x".repeat(65_537))).await,
        Err(SendError::TooLarge { size: 65_537, limit: 65_536 })
    );
    let bad_expiry = Err(SendError::BadExpiry { max_seconds: 172_800 });
    for seconds in [-1, 0, 172_801] {
        assert_eq!(send(NewC2d { expiry: Some(later(seconds)), ..text("x") }).await, bad_expiry, "{seconds}");
    }
    assert!(send(NewC2d { expiry: Some(later(172_800)), ..text("x") }).await.is_ok());
    assert_eq!(
        registry.send(&device("nobody"), text("x"), now()).await,
        Err(SendError::NotFound(device("nobody")))
    );
    let nul = NewC2d { properties: vec![("a".into(), "\0".into())], ..text("x") };
    assert_eq!(send(nul).await, Err(SendError::BadProperty));
}

#[tokio::test]
async fn expired_messages_reach_nobody_and_make_room() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    for _ in 0..50 {
        let short = NewC2d { expiry: Some(later(10)), ..text("short") };
        registry.send(&device("d1"), short, now()).await.unwrap();
    }
    registry.send(&device("d1"), text("long"), later(10)).await.unwrap();
    assert_eq!(bodies(&registry, &device("d1"), later(10)), ["long"]);
    assert_eq!(registry.entry(&device("d1")).unwrap().queued(), 1);
}

#[tokio::test]
async fn what_a_session_leaves_comes_again_in_order_as_a_repeat() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    for body in ["one", "two", "three"] {
        registry.send(&device("d1"), text(body), now()).await.unwrap();
    }
    let entry = registry.entry(&device("d1")).unwrap();
    let mut consumer = registry.attach(&entry);
    let first = consumer.lease(now()).unwrap();
    let second = consumer.lease(now()).unwrap();
    assert!(!first.is_repeat);
    let is_held = entry.peek(3).iter().map(|queued| queued.is_held).collect::<Vec<_>>();
    assert_eq!(is_held, [true, true, false]);
    assert_eq!(consumer.complete(second.message.number, now()).await, Ok(true));
    assert_eq!(consumer.complete(second.message.number, now()).await, Ok(false));
    drop(consumer);

    let mut consumer = registry.attach(&entry);
    let again = consumer.lease(now()).unwrap();
    assert_eq!((again.message.number, again.is_repeat), (first.message.number, true));
    assert!(!consumer.lease(now()).unwrap().is_repeat);
    assert!(consumer.lease(now()).is_none());
}

#[tokio::test]
async fn a_waiting_consumer_hears_of_a_message() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let mut consumer = registry.attach(&registry.entry(&device("d1")).unwrap());
    consumer.ready().await;
    assert!(consumer.lease(now()).is_none());
    let to = device("d1");
    let (sent, ()) = tokio::join!(registry.send(&to, text("x"), now()), consumer.ready());
    assert_eq!(consumer.lease(now()).unwrap().message.number, sent.unwrap().number);
}

#[tokio::test]
async fn a_purge_counts_what_it_removes() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    for _ in 0..3 {
        registry.send(&device("d1"), text("x"), now()).await.unwrap();
    }
    assert_eq!(registry.purge(&device("d1"), now()).await, Ok(3));
    assert_eq!(registry.entry(&device("d1")).unwrap().queued(), 0);
}

#[tokio::test]
async fn the_observer_hears_after_the_map_shows_it() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (seen, watched) = (Arc::clone(&heard), Arc::downgrade(&registry));
    registry.observe(Box::new(move |changed| {
        let shown = watched.upgrade().unwrap().entry(&changed.id).is_some();
        seen.lock().unwrap().push((changed.kind.clone(), shown));
    }));
    registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    registry.replace(IdentitySpec::sas_device(device("d1")), Precondition::AnyVersion, now()).await.unwrap();
    registry.delete(&device("d1"), Precondition::Absent).await.unwrap();
    let expected =
        vec![(ChangeKind::Created, true), (ChangeKind::Updated, true), (ChangeKind::Deleted, false)];
    assert_eq!(*heard.lock().unwrap(), expected);
}

#[tokio::test]
async fn t506_device_and_module_never_collide() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    for id in [
        device("ab"),
        device("a"),
        device("A"),
        device("ab%"),
        module("a", "b"),
        module("a", "B"),
        module("ab", "b"),
    ] {
        registry.create(IdentitySpec::sas_device(id), now()).await.unwrap();
    }
    registry.send(&module("a", "b"), text("for a/b"), now()).await.unwrap();
    assert_eq!(bodies(&registry, &module("a", "b"), now()), ["for a/b"]);
    for other in [device("ab"), device("a"), module("a", "B"), module("ab", "b")] {
        assert_eq!(registry.entry(&other).unwrap().queued(), 0, "{other}");
    }
}

#[tokio::test]
async fn a_thumbprint_identity_comes_back_as_it_was() {
    let directory = TempDir::new().unwrap();
    let registry = open(directory.path());
    let thumbprint = crate::credential::Thumbprint::parse(&"ab".repeat(32)).unwrap();
    let pair = crate::credential::ThumbprintPair { primary: Some(thumbprint), secondary: None };
    let spec = IdentitySpec {
        authentication: AuthenticationSpec::SelfSigned(pair.clone()),
        status_reason: Some("grün".into()),
        ..IdentitySpec::sas_device(device("d1"))
    };
    registry.create(spec, now()).await.unwrap();
    close(Arc::clone(&registry)).await;
    drop(registry);
    let identity = open(directory.path()).entry(&device("d1")).unwrap().identity();
    assert_eq!(identity.authentication, Authentication::SelfSigned(pair));
    assert_eq!(identity.status_reason.as_deref(), Some("grün"));
}
