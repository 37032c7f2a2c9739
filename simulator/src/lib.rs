//! A fleet of devices seen from outside, for load tests and demos of Portcullis.
//!
//! A run provisions devices over REST, connects them all over TLS with a bound on how many handshakes are under way,
//! sends telemetry at a steady pace, acknowledges what the devices are sent, and ends with a report. In reading order:
//! `scenario` (what to do) → `access` (which hub) → `fleet` (the run) → `device` (one device's life) → `report`.
//!
//! It speaks only what a stranger could: TLS, MQTT and REST, as the official SDKs speak them. From the workspace it
//! takes ids and SAS signing, nothing else. Deliberately absent: any way to skip the check of the hub's certificate.

pub mod access;
pub mod c2d;
pub mod cli;
pub mod device;
pub mod fleet;
pub mod pacing;
pub mod progress;
pub mod provision;
pub mod report;
pub mod scenario;
pub mod tally;
