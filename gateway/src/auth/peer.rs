//! The peer of a connection that carries requests.

use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// The peer of a request's connection. The HTTPS listener attaches it to every request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// The certificates of the handshake, the peer's own first. The peer has proven that it holds its key.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}
