//! The origin of a request or connection.

use std::net::IpAddr;

/// The interface of a request or connection, and the address of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub face: Face,
    pub peer: IpAddr,
}

/// The hub's interfaces for operators, services and devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Rest,
    Mqtt,
    Portal,
}

impl Face {
    /// The name of the interface in the audit record and elsewhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Face::Rest => "rest",
            Face::Mqtt => "mqtt",
            Face::Portal => "portal",
        }
    }
}
