//! MQTT 3.1.1 as bytes, packets and texts: nothing here knows a socket, a session or the registry's content.
//!
//! `packet` has the packets, `codec` reads and writes them, `connect` reads the claim in client id and user name.

pub mod codec;
pub mod connect;
pub mod packet;
