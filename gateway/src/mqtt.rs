//! The MQTT front: a connection from accept to goodbye, the rules of its conversation, and MQTT 3.1.1 as bytes.
//!
//! `connection` brings a peer from TLS to CONNECT, `session` converses with it around the rules of `session::core`.
//! `packet` has the packets, `codec` reads and writes them, `connect` reads the claim in client id and user name,
//! `wire` puts packets on a byte stream, `websocket` frames one that came over HTTPS, `admin` does a service's commands.

pub mod admin;
pub mod codec;
pub mod connect;
pub mod connection;
pub mod packet;
pub mod session;
pub mod websocket;
pub mod wire;
