//! The current certificate of all listeners. It can be replaced while connections are open: they keep the old one, and
//! the next handshake uses the new one.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use portcullis_certs::server_cert::ServerCert;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// The certificate of the listeners.
#[derive(Debug)]
pub(super) struct Served(RwLock<Arc<ServedChain>>);

#[derive(Debug)]
struct ServedChain {
    key: Arc<CertifiedKey>,
    expires: Timestamp,
}

impl Served {
    pub(super) fn new(cert: ServerCert) -> Result<Self, rustls::Error> {
        Ok(Self(RwLock::new(Arc::new(ServedChain::new(cert)?))))
    }

    /// Uses this certificate from now on. A certificate that TLS cannot use changes nothing.
    pub(super) fn replace(&self, cert: ServerCert) -> Result<(), rustls::Error> {
        let shown = Arc::new(ServedChain::new(cert)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = shown;
        Ok(())
    }

    /// When the current certificate expires.
    pub(super) fn expires(&self) -> Timestamp {
        self.current().expires
    }

    fn current(&self) -> Arc<ServedChain> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServedChain {
    fn new(cert: ServerCert) -> Result<Self, rustls::Error> {
        let expires = Timestamp::from_second(i64::try_from(cert.valid_until().as_secs()).unwrap_or(i64::MAX));
        let (chain, key) = cert.into_parts();
        let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        Ok(Self { key: Arc::new(key), expires: expires.unwrap_or(Timestamp::MAX) })
    }
}

impl ResolvesServerCert for Served {
    /// The same certificate for every name and without one (threats T106).
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().key))
    }
}
