//! Where a request or connection came from.

use std::net::IpAddr;

/// The face a request came by, and the address of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub face: Face,
    pub peer: IpAddr,
}

/// The faces of the hub by which operators, services and devices come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Rest,
    Mqtt,
    Portal,
}

impl Face {
    /// The word in the audit record and wherever else it is told.
    pub fn as_str(self) -> &'static str {
        match self {
            Face::Rest => "rest",
            Face::Mqtt => "mqtt",
            Face::Portal => "portal",
        }
    }
}
