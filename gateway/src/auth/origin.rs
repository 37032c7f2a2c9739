//! Where a request of an operator or service came from.

use std::net::IpAddr;

/// The face a request came by, and the address of its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    pub face: Face,
    pub peer: IpAddr,
}

/// The faces of the hub through which operators act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Rest,
    Mqtt,
}

impl Face {
    /// The word in the audit record.
    pub fn as_str(self) -> &'static str {
        match self {
            Face::Rest => "rest",
            Face::Mqtt => "mqtt",
        }
    }
}
