//! The other end of a connection that carries requests.

use std::net::IpAddr;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

/// Who is at the other end of a request's connection; the HTTPS listener notes it on every request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: IpAddr,
    /// What it showed in the handshake, its own certificate first, whose key it has proven to hold.
    pub certificates: Option<Arc<[CertificateDer<'static>]>>,
}
