//! Watches the server certificate's files. A valid new pair is used from the next handshake on. An invalid one changes
//! only a counter and the log. Checks on SIGHUP, and once a minute if a file has changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::hub::Hub;

/// Reloads at each `hangup` and when a file has changed, until the hub stops.
pub async fn follow(hub: Arc<Hub>, mut hangup: Signal) {
    let mut files = Files::new(hub.tls.files(&hub.config));
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_reminder = Instant::now() + REMIND_EVERY;
    loop {
        tokio::select! {
            () = hub.stopping.cancelled() => return,
            _ = hangup.recv() => {
                files.have_changed();
                reload(&hub).await;
            }
            _ = looks.tick() => {
                if files.have_changed() {
                    reload(&hub).await;
                } else if Instant::now() >= next_reminder {
                    next_reminder = Instant::now() + REMIND_EVERY;
                    report_expiry(&hub);
                }
            }
        }
    }
}

/// Reads the certificate again. Logs and counts the result. Returns whether the new certificate is in use.
pub async fn reload(hub: &Arc<Hub>) -> bool {
    let reading = Arc::clone(hub);
    let read = tokio::task::spawn_blocking(move || reading.tls.reload(&reading.config)).await;
    let outcome = match read {
        Ok(outcome) => outcome.map_err(anyhow::Error::new),
        Err(error) => Err(anyhow::Error::new(error)),
    };
    hub.metrics.certificate_reloaded(outcome.is_ok());
    match &outcome {
        Ok(()) => {
            tracing::info!(expires = %hub.tls.expires(), "the hub has reloaded the server certificate");
            report_expiry(hub);
        }
        Err(error) => {
            let reason = format!("{error:#}");
            tracing::warn!(reason, "the new server certificate cannot be used; the hub keeps the old one");
        }
    }
    outcome.is_ok()
}

/// Sets the metric of the server certificate's expiry, and warns if it expires soon.
pub fn report_expiry(hub: &Hub) {
    let expires = hub.tls.expires();
    hub.metrics.set_certificate_expiry(expires.as_second());
    let left = expires.duration_since(hub.clock.wall());
    if left.as_secs() < WARN_BEFORE.as_secs().cast_signed() {
        let days = left.as_hours() / 24;
        tracing::warn!(%expires, days, "the server certificate expires soon; devices will then refuse this hub; replace it");
    }
}

/// The watched files.
#[derive(Debug)]
struct Files {
    paths: [PathBuf; 2],
    seen: [Option<Stamp>; 2],
}

/// What identifies a file's version without reading it: its time of change, its length, and which file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    changed: (i64, i64),
    length: u64,
    inode: u64,
}

impl Files {
    fn new(paths: [PathBuf; 2]) -> Self {
        let seen = paths.each_ref().map(stamp);
        Self { paths, seen }
    }

    /// Whether a file has changed since the last check.
    fn have_changed(&mut self) -> bool {
        let now = self.paths.each_ref().map(stamp);
        std::mem::replace(&mut self.seen, now) != now
    }
}

/// Follows a link to its file, because orchestrators replace certificates by changing links.
fn stamp(path: &PathBuf) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    let changed = (metadata.mtime(), metadata.mtime_nsec());
    Some(Stamp { changed, length: metadata.len(), inode: metadata.ino() })
}

const LOOK_EVERY: Duration = Duration::from_secs(60);
const REMIND_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// Enough time to get another certificate.
const WARN_BEFORE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t115_a_replaced_file_is_seen_once() {
        let directory = tempfile::tempdir().unwrap();
        let paths = ["chain.pem", "key.pem"].map(|name| directory.path().join(name));
        let mut files = Files::new(paths.clone());
        assert!(!files.have_changed());
        fs::write(&paths[0], "one").unwrap();
        assert!(files.have_changed());
        assert!(!files.have_changed());
        // The same length within the same moment: another file all the same.
        fs::write(directory.path().join("new"), "two").unwrap();
        fs::rename(directory.path().join("new"), &paths[0]).unwrap();
        assert!(files.have_changed());
        fs::remove_file(&paths[0]).unwrap();
        assert!(files.have_changed());
        assert!(!files.have_changed());
    }
}
