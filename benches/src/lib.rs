//! What Portcullis costs, as ratios against the simplest thing that could work.
//!
//! Each bench states its sum: what an operation is made of, and the parts it cannot do without, measured in the same
//! run. Machines differ and are noisy; read the ratio between two rows of one run, not a row.
//! `cargo bench -p portcullis-benches` runs them all.
//!
//! Programs that break a hub on purpose, or fill it, are in `src/bin`: `crash`, `powercut` and `million`.

use std::time::Duration;

use portcullis_registry::store::RegistryLimits;

pub mod bare;
pub mod crash;
pub mod disk;
pub mod served;

/// The bounds of the registries measured here.
pub fn limits() -> RegistryLimits {
    RegistryLimits {
        modules_per_device_max: 20,
        queue_messages_max: 50,
        c2d_bytes_max: 65_536,
        c2d_ttl_default: Duration::from_secs(3600),
        c2d_ttl_max: Duration::from_secs(7200),
        queued_bytes_max: 1 << 30,
    }
}
