//! A fleet of devices seen from outside, for load tests and demos of Portcullis.
//!
//! A run makes its identities over REST or takes those of a file, goes through the phases of a scenario with all of them
//! over TLS, measures each thing from when it was due, and ends with a report. In reading order: `scenario` (what to do) →
//! `plan` (who does what when) → `fleet` (the run) → `device` (one device's life) → `client` (its connection) → `report`.
//!
//! It speaks only what a stranger could: TLS, MQTT and REST, as the official SDKs speak them, to Portcullis or any IoT
//! hub. From the workspace it takes ids, SAS signing and the making of certificates, nothing else. Deliberately absent:
//! any way to skip the check of the hub's certificate.

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
