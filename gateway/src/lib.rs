//! The Portcullis gateway: everything that touches the network.
//!
//! # The data path
//!
//! Read these functions in this order:
//!
//! ```text
//! device ─TCP→ listener::run ─spawn→ connection::serve ─→ session::run ─→ SessionCore::on_packet ─→ d2c::accept
//! operator ─HTTPS or $admin topic→ c2d::send ─→ Registry::send ~wakes~> session::run ─→ SessionCore::on_message ─→ wire
//! ```
//!
//! | step | where | what it does |
//! |---|---|---|
//! | accept | [`hub::listener`] | takes a permit from admission control, accepts, spawns; awaits nothing else |
//! | identify | [`mqtt::connection`] | TLS, then CONNECT, each within its time; answers a refusal |
//! | decide | [`auth`] | claim and evidence in, `VerifiedIdentity` or the exact reason out |
//! | converse | [`mqtt::session`] | one `select!`: order to leave, packet, queued message, deadline |
//! | rules | [`mqtt::session::core`] | the rules of MQTT and IoT Hub as a plain state machine: no socket, no clock |
//! | up | [`operations::d2c`], [`hub::bus`] | stamps the verified sender, puts the message on the telemetry bus |
//! | down | [`operations::c2d`], `portcullis_registry::queue` | stores the message, wakes the session of its device |
//!
//! # The rooms
//!
//! A folder says what its code may touch. Imports run downwards only; `tests/tidy.rs` holds the table.
//!
//! | room | what is in it | imports from |
//! |---|---|---|
//! | [`serve`] | puts a hub and its fronts together and serves | all |
//! | [`mqtt`] | front: connection, session, codec, framing, admin commands | operations, hub, ground |
//! | [`http`] | front: REST, the device side over HTTPS, metrics and health | operations, hub's handles, ground |
//! | [`portal`] | front: pages for people | operations, hub's handles, ground |
//! | [`operations`] | what can be asked of a hub, each once: rights are checked and audit lines written here | hub, ground |
//! | [`hub`] | what a hub holds: session table, telemetry bus, events, audit record, metrics, job store, clock | ground |
//! | [`iothub`] | ground: the words of IoT Hub: topics, property bags, JSON of identities, errors, connection strings | auth |
//! | [`blob`] | ground: containers of blobs, for import and export | tls, config |
//! | [`tls`] | ground: the server's certificate, its own CA, possession of client certificates | config |
//! | [`config`] | ground: settings, limits, the access file | auth |
//! | [`auth`] | ground: who a peer is, from a claim and its evidence | |
//!
//! Only operations and the MQTT front use what a hub holds; REST and the portal ask operations. The command line is the
//! package `portcullis-cli`, the test harness `portcullis-testing`; nothing here imports from either.
//!
//! To add an endpoint: an operation, a handler beside its kin in [`http`], a row in `http::routes` and in
//! `tests/strangers.rs`. To add a topic: see [`iothub`].
//!
//! # Words
//!
//! | word | means here |
//! |---|---|
//! | session | one MQTT conversation, from CONNACK to the end of its connection |
//! | subscriptions | what a session asked to hear, kept in the store for the next one |
//! | sign-in | a person's use of the portal, from login to logout |
//! | seat | an identity's entry in the session table; the newest connection has it |
//! | takeover | a connection takes the seat of an older one of the same identity |
//! | permit | what an anonymous connection holds until its peer is known |
//! | credential | what a connection was opened with: a key, a certificate, a policy's key |
//! | authorization | what a live session rests on; it ends when that is withdrawn |
//! | outbound | what a peer is sent: the messages of its queue, or telemetry, feedback and events |
//! | authority | an enrolled CA; the `Authenticator` decides who a peer is |
//! | proof | what the holder of a CA's key hands in to have the CA verified |
//! | front | a protocol's edge: it translates and decides nothing |
//! | problem | an error as IoT Hub states it |
//! | blame | whose fault an outcome is: the device's, the operator's, the hub's |
//!
//! # Deliberately absent
//!
//! A general broker. A device has a fixed set of topics, its own; nothing a device sends ever reaches another device, and
//! no wildcard is matched between devices.

#![warn(clippy::print_stdout)]

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
