//! What a write answers: the state that was stored, whatever becomes of the identity before the answer is read.

use super::*;
use crate::backend::{ChangeFeed, Submitted};

/// What somebody else does to an identity of which this revision was just stored.
type Overtaking = Box<dyn FnOnce(&Identity) -> Mutation + Send>;

/// A store in which somebody else is faster: what `overtaking` makes is stored after the next identity, and before
/// whoever wrote that identity is answered.
#[derive(Debug)]
struct OvertakenBackend {
    store: SqliteBackend,
    overtaking: NextOvertaking,
}

#[derive(Clone, Default)]
struct NextOvertaking(Arc<Mutex<Option<Overtaking>>>);

impl std::fmt::Debug for NextOvertaking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NextOvertaking")
    }
}

impl NextOvertaking {
    fn set(&self, overtaking: impl FnOnce(&Identity) -> Mutation + Send + 'static) {
        *self.0.lock().unwrap() = Some(Box::new(overtaking));
    }

    fn is_used_up(&self) -> bool {
        self.0.lock().unwrap().is_none()
    }
}

impl Backend for OvertakenBackend {
    fn load(&self, visit: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.store.load(visit)
    }

    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError> {
        self.store.start(feed)
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(async move {
            let put = mutations.first().cloned();
            let written = self.store.submit(mutations).await?;
            if let (
                Some(Mutation::PutIdentity { id, generation, record, .. }),
                [Written::Revision(revision)],
            ) = (put, written.as_slice())
            {
                let overtaking = self.overtaking.0.lock().unwrap().take();
                if let Some(overtaking) = overtaking {
                    let stored = record::decode_identity(&id, generation, *revision, &record)?;
                    self.store.submit(vec![overtaking(&stored)]).await?;
                }
            }
            Ok(written)
        })
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        self.store.post(mutations)
    }

    fn lost(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.store.lost()
    }

    fn close(&self) -> Result<(), StoreError> {
        self.store.close()
    }
}

fn open_overtaken(directory: &Path) -> (Arc<Registry>, NextOvertaking) {
    let overtaking = NextOvertaking::default();
    let store = SqliteBackend::open(directory).unwrap();
    let backend = OvertakenBackend { store, overtaking: overtaking.clone() };
    (Registry::open(Box::new(backend), RegistryLimits::default()).unwrap(), overtaking)
}

/// Every state of an identity the map ever shows.
fn shown(registry: &Arc<Registry>) -> Arc<Mutex<Vec<Arc<Identity>>>> {
    let shown = Arc::new(Mutex::new(Vec::new()));
    let (seen, watched) = (Arc::clone(&shown), Arc::downgrade(registry));
    registry.observe(Box::new(move |changed| {
        if let Some(entry) = watched.upgrade().and_then(|registry| registry.entry(&changed.id)) {
            seen.lock().unwrap().push(entry.identity());
        }
    }));
    shown
}

fn deleting(stored: &Identity) -> Mutation {
    Mutation::DeleteIdentity { id: stored.id.clone(), expect: Expect::Is(stored.revision) }
}

fn replacing(stored: &Identity) -> Mutation {
    let other = Identity { status_reason: Some("of somebody else".into()), ..stored.clone() };
    Mutation::PutIdentity {
        id: stored.id.clone(),
        generation: stored.generation,
        expect: Expect::Is(stored.revision),
        modules_max: 20,
        record: record::encode_identity(&other),
    }
}

fn mine() -> IdentitySpec {
    IdentitySpec { status_reason: Some("mine".into()), ..IdentitySpec::sas_device(device("d1")) }
}

#[tokio::test]
async fn a_create_answers_what_it_stored_though_it_is_deleted_or_changed_by_then() {
    let directory = TempDir::new().unwrap();
    let (registry, overtaking) = open_overtaken(directory.path());
    let shown = shown(&registry);
    overtaking.set(deleting);
    let created = registry.create(mine(), now()).await.unwrap();
    assert!(overtaking.is_used_up() && registry.entry(&device("d1")).is_none());
    assert_eq!(*shown.lock().unwrap(), [Arc::clone(&created)]);

    overtaking.set(replacing);
    let created = registry.create(mine(), now()).await.unwrap();
    assert!(overtaking.is_used_up());
    assert_ne!(registry.entry(&device("d1")).unwrap().identity().etag(), created.etag());
    assert_eq!(shown.lock().unwrap()[1], created);
}

#[tokio::test]
async fn a_replace_answers_what_it_stored_though_it_is_deleted_or_changed_by_then() {
    let directory = TempDir::new().unwrap();
    let (registry, overtaking) = open_overtaken(directory.path());
    let created = registry.create(IdentitySpec::sas_device(device("d1")), now()).await.unwrap();
    let shown = shown(&registry);
    overtaking.set(replacing);
    let replaced = registry.replace(mine(), Precondition::AnyVersion, later(1)).await.unwrap();
    assert!(overtaking.is_used_up());
    assert_eq!((replaced.before.revision, &shown.lock().unwrap()[0]), (created.revision, &replaced.identity));
    let current = registry.entry(&device("d1")).unwrap().identity();
    assert_ne!(current.etag(), replaced.identity.etag());

    overtaking.set(deleting);
    let replaced = registry.replace(mine(), Precondition::Version(current.etag()), later(2)).await.unwrap();
    assert!(overtaking.is_used_up() && registry.entry(&device("d1")).is_none());
    assert_eq!((replaced.before.revision, &shown.lock().unwrap()[2]), (current.revision, &replaced.identity));
}
