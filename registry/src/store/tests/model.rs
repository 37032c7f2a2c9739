//! Random operations, restarts among them, against a plain map that knows what each must do.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::id::ETag;

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Replace(usize, bool, Condition),
    Delete(usize, Condition),
    Send(usize, u8),
    TakeAll(usize),
    SaveSubscriptions(usize, u8),
    Reopen,
}

/// Which `If-Match` a write carries.
#[derive(Clone, Copy, Debug)]
enum Condition {
    Any,
    Current,
    /// The etag the identity had before its last change, or one of another identity.
    Stale,
}

/// What is known of one identity.
#[derive(Clone, Debug)]
struct Known {
    etag: ETag,
    disabled: bool,
    queue: Vec<String>,
    subscriptions: Option<Vec<u8>>,
}

struct World {
    registry: Arc<Registry>,
    directory: TempDir,
    known: BTreeMap<IdentityId, Known>,
    /// The last etag of each identity that no longer holds.
    stale: BTreeMap<IdentityId, ETag>,
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0..IDS;
    let condition = || prop_oneof![Just(Condition::Any), Just(Condition::Current), Just(Condition::Stale)];
    prop_oneof![
        4 => id().prop_map(Step::Create),
        3 => (id(), any::<bool>(), condition()).prop_map(|(id, disabled, when)| Step::Replace(id, disabled, when)),
        2 => (id(), condition()).prop_map(|(id, when)| Step::Delete(id, when)),
        3 => (id(), any::<u8>()).prop_map(|(id, body)| Step::Send(id, body)),
        1 => id().prop_map(Step::TakeAll),
        1 => (id(), any::<u8>()).prop_map(|(id, bytes)| Step::SaveSubscriptions(id, bytes)),
        1 => Just(Step::Reopen),
    ]
}

/// Ids that differ by case, by prefix, and by being a module.
fn id_of(number: usize) -> IdentityId {
    let ids: [IdentityId; IDS] = [
        device("d"),
        device("D"),
        device("dd"),
        device("d%"),
        module("d", "d"),
        module("D", "m"),
        module("d", "m"),
    ];
    ids[number].clone()
}

impl World {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let registry = open(directory.path());
        Self { registry, directory, known: BTreeMap::new(), stale: BTreeMap::new() }
    }

    async fn run(&mut self, step: Step) {
        match step {
            Step::Create(number) => self.create(id_of(number)).await,
            Step::Replace(number, disabled, when) => self.replace(id_of(number), disabled, when).await,
            Step::Delete(number, when) => self.delete(id_of(number), when).await,
            Step::Send(number, body) => self.send(id_of(number), body.to_string()).await,
            Step::TakeAll(number) => self.take_all(id_of(number)).await,
            Step::SaveSubscriptions(number, bytes) => {
                self.save_subscriptions(id_of(number), vec![bytes]).await
            }
            Step::Reopen => {
                close(Arc::clone(&self.registry)).await;
                // The old one, and with it its lock, must be gone first.
                drop(std::mem::replace(&mut self.registry, dangling()));
                self.registry = open(self.directory.path());
            }
        }
        self.check();
    }

    async fn create(&mut self, id: IdentityId) {
        let created = self.registry.create(IdentitySpec::sas_device(id.clone()), now()).await;
        let parent = IdentityId::device(id.device.clone());
        if id.module.is_some() && !self.known.contains_key(&parent) {
            return assert_eq!(created, Err(RegistryError::NotFound(parent)));
        }
        if self.known.contains_key(&id) {
            return assert_eq!(created, Err(RegistryError::AlreadyExists(id)));
        }
        let etag = created.unwrap().etag();
        self.known.insert(id, Known { etag, disabled: false, queue: Vec::new(), subscriptions: None });
    }

    async fn replace(&mut self, id: IdentityId, disabled: bool, when: Condition) {
        let status = if disabled { Status::Disabled } else { Status::Enabled };
        let spec = IdentitySpec { status, ..IdentitySpec::sas_device(id.clone()) };
        let Some(precondition) = self.precondition(&id, when) else { return };
        let replaced =
            self.registry.replace(spec, precondition, now()).await.map(|replaced| replaced.identity);
        match (self.known.get_mut(&id), when) {
            (None, _) => assert_eq!(replaced, Err(RegistryError::NotFound(id))),
            (Some(_), Condition::Stale) => assert_eq!(replaced, Err(RegistryError::PreconditionFailed(id))),
            (Some(known), _) => {
                let etag = replaced.unwrap().etag();
                assert_ne!(etag, known.etag);
                self.stale.insert(id, std::mem::replace(&mut known.etag, etag));
                known.disabled = disabled;
            }
        }
    }

    async fn delete(&mut self, id: IdentityId, when: Condition) {
        let Some(precondition) = self.precondition(&id, when) else { return };
        let deleted = self.registry.delete(&id, precondition).await.map(drop);
        match (self.known.get(&id), when) {
            (None, _) => assert_eq!(deleted, Err(RegistryError::NotFound(id))),
            (Some(_), Condition::Stale) => assert_eq!(deleted, Err(RegistryError::PreconditionFailed(id))),
            (Some(_), _) => {
                assert_eq!(deleted, Ok(()));
                let goes =
                    |other: &IdentityId| *other == id || (id.module.is_none() && other.device == id.device);
                let gone: Vec<_> = self.known.keys().filter(|other| goes(other)).cloned().collect();
                for id in gone {
                    let known = self.known.remove(&id).unwrap();
                    self.stale.insert(id, known.etag);
                }
            }
        }
    }

    async fn send(&mut self, id: IdentityId, body: String) {
        let sent = self.registry.send(&id, text(&body), now()).await.map(drop);
        match self.known.get_mut(&id) {
            None => assert_eq!(sent, Err(SendError::NotFound(id))),
            Some(known) if known.disabled => assert_eq!(sent, Err(SendError::Disabled(id))),
            Some(known) if known.queue.len() >= 50 => {
                assert_eq!(sent, Err(SendError::QueueFull { to: id, limit: 50 }));
            }
            Some(known) => {
                assert_eq!(sent, Ok(()));
                known.queue.push(body);
            }
        }
    }

    async fn take_all(&mut self, id: IdentityId) {
        let Some(entry) = self.registry.entry(&id) else { return };
        let mut consumer = self.registry.attach(&entry);
        let mut taken = Vec::new();
        while let Some(lease) = consumer.lease(now()) {
            taken.push(String::from_utf8(lease.message.body.to_vec()).unwrap());
            assert_eq!(consumer.complete(lease.message.number, now()).await, Ok(true));
        }
        assert_eq!(Some(taken), self.known.get_mut(&id).map(|known| std::mem::take(&mut known.queue)));
    }

    async fn save_subscriptions(&mut self, id: IdentityId, subscriptions: Vec<u8>) {
        let Some(entry) = self.registry.entry(&id) else { return };
        let generation = entry.identity().generation;
        self.registry.save_subscriptions(&id, generation, Some(subscriptions.clone())).await.unwrap();
        self.known.get_mut(&id).unwrap().subscriptions = Some(subscriptions);
    }

    /// None when there is no etag of that kind.
    fn precondition(&self, id: &IdentityId, when: Condition) -> Option<Precondition> {
        match when {
            Condition::Any => Some(Precondition::AnyVersion),
            Condition::Current => self.known.get(id).map(|known| Precondition::Version(known.etag.clone())),
            Condition::Stale => self.stale.get(id).map(|etag| Precondition::Version(etag.clone())),
        }
    }

    /// Everything the registry shows is what is known, and nothing else.
    fn check(&self) {
        for number in 0..IDS {
            let id = id_of(number);
            let shown = self.registry.entry(&id);
            assert_eq!(shown.is_some(), self.known.contains_key(&id), "{id}");
            let (Some(entry), Some(known)) = (shown, self.known.get(&id)) else { continue };
            let identity = entry.identity();
            assert_eq!(identity.etag(), known.etag, "{id}");
            assert_eq!(identity.status == Status::Disabled, known.disabled, "{id}");
            assert_eq!(
                (entry.queued(), entry.subscriptions().as_deref()),
                (known.queue.len(), known.subscriptions.as_deref()),
                "{id}"
            );
        }
        let devices: Vec<_> = self.known.keys().filter(|id| id.module.is_none()).cloned().collect();
        let page = self.registry.page(None, IDS).devices;
        assert_eq!(page.iter().map(|entry| entry.identity().id.clone()).collect::<Vec<_>>(), devices);
        let disabled_devices = devices.iter().filter(|id| self.known[id].disabled).count();
        let modules = self.known.len() - devices.len();
        assert_eq!(self.registry.counts(), Counts { devices: devices.len(), disabled_devices, modules });
    }
}

/// A registry of nothing, to stand in while another is opened.
fn dangling() -> Arc<Registry> {
    open(TempDir::new().unwrap().path())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_match_a_plain_map(steps in prop::collection::vec(step(), 1..80)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            for step in steps {
                world.run(step).await;
            }
        });
    }
}

const IDS: usize = 7;
