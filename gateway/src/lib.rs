//! The Portcullis gateway: everything that touches the network, and the command line.
//!
//! The data path, in reading order: `listener` (accept) → `connection` (TLS, CONNECT) → `auth` (decide) →
//! `session` and `session/core` (converse) → `d2c` (telemetry up) and `c2d` (messages down).
//! Operators come in through `http` and, with a browser, `portal`; the command line (`cli`) is a client of REST and MQTT.
//!
//! Deliberately absent: a general broker. A device has a fixed set of topics, its own; nothing a device
//! sends ever reaches another device, and no wildcard is matched between devices.

#![warn(clippy::print_stdout)]

pub mod admin;
pub mod audit;
pub mod auth;
pub mod authorities;
mod backwards;
pub mod blob;
pub mod bulk;
pub mod bus;
pub mod c2d;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub(crate) mod connection_string;
pub mod connections;
pub mod d2c;
pub mod doors;
pub mod events;
pub mod feedback;
pub(crate) mod hint;
pub mod history;
pub mod http;
pub mod hub;
pub mod identities;
pub mod jobs;
mod json;
pub mod listener;
pub mod listing;
pub mod logins;
pub mod metrics;
pub mod mqtt;
pub mod overview;
pub mod policies;
pub mod portal;
pub mod query;
pub mod refusals;
pub mod serve;
pub mod session;
pub mod sweeper;
#[cfg(feature = "testing")]
pub mod testing;
pub mod throttle;
pub mod tls;
pub mod watch;
pub mod websocket;
pub mod wire;
