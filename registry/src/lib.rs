//! Who may connect to Portcullis, and what waits for them: identities, credentials, SAS tokens, queues, the store.
//!
//! The registry is a map in memory over a durable backend: reads touch the map only, a write answers after it is on
//! stable storage. Time is an argument everywhere.
//!
//! Deliberately absent: sockets, MQTT, HTTP and their wire formats; X.509 beyond a registered thumbprint
//! or CA certificate, which are bytes here; any clock.
//! Domain types do not derive `Serialize`: what is written down is a promise kept in `record`, what is inside is not.

#![warn(missing_docs, clippy::print_stdout)]

pub mod access;
pub mod activity;
pub mod authority;
pub mod backend;
pub mod backup;
pub mod credential;
mod deadlines;
pub mod durable_file;
pub mod entry;
pub mod error;
pub mod feedback;
pub mod id;
pub mod identity;
pub mod lines;
pub mod lock;
pub mod message;
pub mod policy;
pub mod queue;
pub mod queue_max;
mod record;
pub mod sas;
pub mod store;
pub mod thread;

/// Random bytes for secrets, from the operating system.
///
/// # Panics
/// When the operating system has no randomness to give: nothing secret can be made then.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
