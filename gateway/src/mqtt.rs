//! MQTT 3.1.1 as bytes, packets and texts: nothing here knows a socket, a session or the registry's content.
//!
//! `packet` has the packets, `codec` reads and writes them, `connect` reads the claim in client id and user name,
//! `topic` turns topic texts into values and back, `bag` does the same for the property bag at a topic's end.
//!
//! To add a topic: a variant in `topic::PublishTopic` or `topic::Filter`, its text in the parser beside it, its rule
//! in `session::core`.

pub mod bag;
pub mod codec;
pub mod connect;
pub mod packet;
pub mod topic;
