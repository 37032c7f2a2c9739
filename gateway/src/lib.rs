//! The Portcullis gateway: everything that touches the network, and the command line.
//!
//! The data path, in reading order: `listener` (accept) → `connection` (TLS, CONNECT) → `auth` (decide) →
//! `session` and `session/core` (converse) → `d2c` (telemetry up) and `c2d` (messages down).
//! Operators come in through `http` and, with a browser, `portal`; the command line (`cli`) is a client of REST and MQTT.
//!
//! Deliberately absent: a general broker. A device has a fixed set of topics, its own; nothing a device
//! sends ever reaches another device, and no wildcard is matched between devices.

pub mod auth;
pub mod blob;
pub mod config;
pub mod http;
pub mod hub;
pub mod iothub;
pub mod mqtt;
pub mod operations;
pub mod portal;
pub mod serve;
pub mod tls;
