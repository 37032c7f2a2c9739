//! What Portcullis costs, as ratios against the simplest thing that could work.
//!
//! Each bench states its sum: what an operation is made of, and the parts it cannot do without, measured in the same
//! run. Machines differ and are noisy; read the ratio between two rows of one run, not a row.
//! `cargo bench -p portcullis-benches` runs them all.
//!
//! Programs that break a hub on purpose, or fill it, are in `src/bin`: `crash`, `powercut`, `million`, `portal`, `transfer`
//! and `revocation`; `end_to_end` measures a whole hub under a fleet beside `limit`, which is TLS and packets with nothing
//! behind them, `side_by_side` the same load on the hub, the limit and what people would use instead (`peers`), and
//! `capacity` what each connection costs.

pub mod bare;
pub mod comparison;
pub mod crash;
pub mod crowd;
pub mod disk;
pub mod early;
pub mod limit;
pub mod live;
pub mod load;
pub mod peers;
pub mod process;
pub mod program;
pub mod served;
pub mod table;
