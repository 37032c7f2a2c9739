//! The cost of Portcullis, as ratios to the simplest thing that could work.
//!
//! Each bench states its sum: the parts of an operation, and the parts that it cannot avoid, measured in the same run.
//! Machines differ and are noisy, so compare two rows of one run and do not read a row alone.
//! `cargo bench -p portcullis-benches` runs them all.
//!
//! The programs in `src/bin` break a hub on purpose, or fill it: `crash`, `powercut`, `million`, `portal`, `transfer`
//! and `revocation`. `end_to_end` measures a whole hub under a fleet, beside `limit`, which is TLS and packets and
//! nothing else. `side_by_side` puts the same load on the hub, on the limit and on other brokers (`peers`). `capacity`
//! measures the cost of each connection.

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
