//! A simulated fleet of devices, for load tests and demos of Portcullis.
//!
//! A run creates its identities over REST or takes those of a file. It runs the phases of a scenario over TLS, measures
//! each operation from when it was due, and ends with a report. In reading order: `scenario` (what to do) → `plan` (who
//! does what when) → `fleet` (the run) → `device` (one device) → `client` (its connection) → `report`.
//!
//! It speaks only TLS, MQTT and REST, as the official SDKs do, to Portcullis or any IoT hub. From the workspace it
//! takes only ids, SAS signing and the making of certificates. Deliberately absent: any way to skip the check of the
//! hub's certificate.

pub mod access;
pub mod c2d;
pub mod cli;
pub mod client;
pub mod connection_strings;
pub mod device;
pub mod fleet;
pub mod hostile;
pub mod identity;
pub mod live;
pub mod pacing;
pub mod plan;
pub mod provision;
pub mod report;
pub mod rest;
pub mod scenario;
pub mod seed;
pub mod series;
pub mod tally;
