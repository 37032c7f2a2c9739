//! The thread that syncs the record's lines to stable storage, once a second while there are new ones. A caller that
//! waits for its line does not wait for the disk.

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use portcullis_registry::thread;

/// The thread, as the writer holds it.
pub(super) struct Syncer {
    shared: Arc<SyncerState>,
    thread: JoinHandle<()>,
}

struct SyncerState {
    state: Mutex<Unsynced>,
    changed: Condvar,
}

struct Unsynced {
    /// The one that is written now; what was written to an earlier one is synced already.
    file: Arc<File>,
    has_lines: bool,
    is_ending: bool,
}

impl Syncer {
    pub(super) fn start(file: Arc<File>) -> io::Result<Self> {
        let state = Mutex::new(Unsynced { file, has_lines: false, is_ending: false });
        let shared = Arc::new(SyncerState { state, changed: Condvar::new() });
        let own = Arc::clone(&shared);
        let thread = thread::start("audit-syncer", move || own.run())?;
        Ok(Self { shared, thread })
    }

    /// Lines were written to this file. They are synced a second later at most.
    pub(super) fn notify(&self, file: &Arc<File>) {
        let mut state = self.shared.lock();
        if !Arc::ptr_eq(&state.file, file) {
            state.file = Arc::clone(file);
        }
        state.has_lines = true;
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Ends the thread. What is not synced by then is the writer's to sync.
    pub(super) fn end(self) {
        self.shared.lock().is_ending = true;
        self.shared.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!("the thread that syncs the audit record broke off");
        }
    }
}

impl SyncerState {
    fn run(&self) {
        let mut state = self.lock();
        while !state.is_ending {
            if !state.has_lines {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.has_lines = false;
            let file = Arc::clone(&state.file);
            drop(state);
            sync(&file);
            let woken = self.changed.wait_timeout_while(self.lock(), PERIOD, |state| !state.is_ending);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unsynced> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until everything written to the file is on stable storage.
pub(super) fn sync(file: &File) {
    if let Err(error) = file.sync_data() {
        tracing::error!(%error, "the audit record cannot be synced");
    }
}

const PERIOD: Duration = Duration::from_secs(1);
