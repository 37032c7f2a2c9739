//! What Portcullis costs, as ratios against the simplest thing that could work.
//!
//! Each bench states its sum: what an operation is made of, and the parts it cannot do without, measured in the same
//! run. Machines differ and are noisy; read the ratio between two rows of one run, not a row.
//! `cargo bench -p portcullis-benches` runs them all.
//!
//! Programs that break a hub on purpose, or fill it, are in `src/bin`: `crash`, `powercut`, `million` and `revocation`;
//! `side_by_side` measures the same load on the hub and on what people would use instead (`peers`).

pub mod bare;
pub mod comparison;
pub mod crash;
pub mod disk;
pub mod live;
pub mod load;
pub mod peers;
pub mod process;
pub mod served;
