//! A store with a fault: it acknowledges each write some time before the write is on stable storage, as a cache that
//! writes behind might. The crash programs must find that out.
//!
//! A write is done and answered in a scratch copy beside the store, and follows into the store itself a little later.
//! So every answer is right, and a kill or lost power takes the last ones back.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::backend::{Backend, Change, ChangeFeed, Mutation, StoreError, Submitted};

/// A store that acknowledges before it commits.
#[derive(Debug)]
pub struct EarlyBackend {
    store: Arc<SqliteBackend>,
    scratch: SqliteBackend,
    /// One write at a time: both take them in the same order, and so give the same revisions and numbers.
    turn: tokio::sync::Mutex<()>,
    follower: Mutex<Option<Follower>>,
}

/// The thread that brings acknowledged writes into the store.
#[derive(Debug)]
struct Follower {
    writes: mpsc::Sender<Acknowledged>,
    thread: JoinHandle<()>,
}

#[derive(Debug)]
struct Acknowledged {
    at: Instant,
    mutations: Vec<Mutation>,
}

impl EarlyBackend {
    /// Opens the store in `directory` and makes the scratch copy beside it.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        let scratch = copy_beside(directory).map_err(|error| {
            StoreError::Fatal(format!("cannot copy the store in {}: {error}", directory.display()))
        })?;
        Ok(Self {
            store: Arc::new(SqliteBackend::open(directory)?),
            scratch: SqliteBackend::open(&scratch)?,
            turn: tokio::sync::Mutex::default(),
            follower: Mutex::default(),
        })
    }

    fn follow(&self, mutations: Vec<Mutation>) {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(follower) = follower.as_ref() {
            // Once the thread is gone nothing follows any more: the fault this store has anyway.
            let _ = follower.writes.send(Acknowledged { at: Instant::now(), mutations });
        }
    }
}

impl Backend for EarlyBackend {
    fn load(&self, visit: &mut dyn FnMut(Change) -> Result<(), StoreError>) -> Result<(), StoreError> {
        self.store.load(visit)
    }

    fn start(&self, feed: ChangeFeed) -> Result<(), StoreError> {
        self.scratch.start(feed)?;
        self.store.start(Box::new(|_| {}))?;
        let (writes, acknowledged) = mpsc::channel();
        let store = Arc::clone(&self.store);
        let thread = thread::spawn(move || write_late(&store, acknowledged));
        *self.follower.lock().unwrap_or_else(PoisonError::into_inner) = Some(Follower { writes, thread });
        Ok(())
    }

    fn submit(&self, mutations: Vec<Mutation>) -> Submitted<'_> {
        Box::pin(async move {
            let _turn = self.turn.lock().await;
            let written = self.scratch.submit(mutations.clone()).await?;
            self.follow(mutations);
            Ok(written)
        })
    }

    fn post(&self, mutations: Vec<Mutation>) -> bool {
        let is_taken = self.scratch.post(mutations.clone());
        if is_taken {
            self.follow(mutations);
        }
        is_taken
    }

    fn lost(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        self.store.lost()
    }

    fn close(&self) -> Result<(), StoreError> {
        let follower = self.follower.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Follower { writes, thread }) = follower {
            drop(writes);
            thread.join().map_err(|_| StoreError::Fatal("the follower panicked".into()))?;
        }
        self.scratch.close()?;
        self.store.close()
    }
}

fn write_late(store: &SqliteBackend, acknowledged: Receiver<Acknowledged>) {
    for Acknowledged { at, mutations } in acknowledged {
        thread::sleep(LAG.saturating_sub(at.elapsed()));
        store.post(mutations);
    }
}

/// A copy of a store that nobody has open, in place of an earlier one.
fn copy_beside(directory: &Path) -> io::Result<PathBuf> {
    let scratch = directory.with_added_extension("early");
    match fs::remove_dir_all(&scratch) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir_all(&scratch)?;
    if directory.exists() {
        for file in fs::read_dir(directory)? {
            let file = file?;
            fs::copy(file.path(), scratch.join(file.file_name()))?;
        }
    }
    Ok(scratch)
}

/// How much later than its acknowledgement a write reaches the store.
const LAG: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
    use portcullis_registry::identity::IdentitySpec;
    use portcullis_registry::store::{Registry, RegistryLimits};

    use super::*;

    #[test]
    fn what_is_closed_in_order_is_in_the_store_as_it_was_acknowledged() {
        let temporary = tempfile::tempdir().unwrap();
        let directory = temporary.path().join("store");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let now = "2026-05-01T08:00:00Z".parse().unwrap();
        let mut acknowledged = Vec::new();
        for round in 0..2 {
            let early = Box::new(EarlyBackend::open(&directory).unwrap());
            let registry = Registry::open(early, RegistryLimits::default()).unwrap();
            for number in 0..3 {
                let id = IdentityId::device(DeviceId::parse(&format!("d{round}{number}")).unwrap());
                runtime.block_on(async {
                    registry.create(IdentitySpec::sas_device(id.clone()), now).await.unwrap();
                    registry.delete(&id, Precondition::AnyVersion).await.unwrap();
                    acknowledged
                        .push(registry.create(IdentitySpec::sas_device(id.clone()), now).await.unwrap());
                });
                assert!(registry.entry(&id).is_some());
            }
            registry.close().unwrap();
        }
        let honest = Box::new(SqliteBackend::open(&directory).unwrap());
        let registry = Registry::open(honest, RegistryLimits::default()).unwrap();
        assert_eq!(registry.counts().devices, acknowledged.len());
        for identity in acknowledged {
            assert_eq!(registry.entry(&identity.id).unwrap().identity(), identity);
        }
    }
}
