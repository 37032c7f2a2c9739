//! The enrolled CAs, read once and ready for verdicts: which of them vouch for devices, and which only will.

use std::sync::{Arc, PoisonError, RwLock};

use portcullis_certs::anchor::{Anchor, InvalidAnchor};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use portcullis_registry::authority::{Authorities, AuthorityName};
use rustls_pki_types::CertificateDer;

/// One state of the enrolled CAs.
#[derive(Debug)]
pub struct Trust {
    authorities: Authorities,
    verified: Vec<Anchor>,
    /// Enrolled, but nobody has shown to hold the key: they explain a refusal and admit nobody.
    pending: Vec<(AuthorityName, Anchor)>,
}

/// The state that holds now, and whose turn it is to change it.
#[derive(Debug)]
pub struct TrustStore {
    current: RwLock<Arc<Trust>>,
    /// Guards no data: a change reads, stores and counts, and no other may come between.
    turn: tokio::sync::Semaphore,
}

impl Trust {
    /// Reads every certificate. One that is not fit to be a CA's refuses the whole: it was never enrolled through us.
    pub fn new(authorities: Authorities) -> Result<Self, InvalidAnchor> {
        let (mut verified, mut pending) = (Vec::new(), Vec::new());
        for authority in authorities.all() {
            let anchor = Anchor::parse(CertificateDer::from(authority.certificate.clone()))?;
            if authority.is_verified() {
                verified.push(anchor);
            } else {
                pending.push((authority.name.clone(), anchor));
            }
        }
        Ok(Self { authorities, verified, pending })
    }

    /// What they were read from.
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The CAs that vouch for devices.
    pub(super) fn verified(&self) -> Vec<&Anchor> {
        self.verified.iter().collect()
    }

    pub(super) fn pending(&self) -> &[(AuthorityName, Anchor)] {
        &self.pending
    }

    /// Whether the CA with this certificate vouches for devices.
    pub(super) fn is_verified(&self, certificate: Sha256Thumbprint) -> bool {
        self.verified.iter().any(|anchor| anchor.thumbprints().sha256 == certificate)
    }
}

impl TrustStore {
    pub fn new(trust: Trust) -> Self {
        Self { current: RwLock::new(Arc::new(trust)), turn: tokio::sync::Semaphore::new(1) }
    }

    /// Waits for the turn to change the enrolled CAs; it ends when the permit is dropped.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turn.acquire().await.ok()
    }

    /// The enrolled CAs as they are now.
    pub fn current(&self) -> Arc<Trust> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From now on these count.
    pub(crate) fn set(&self, trust: Trust) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }
}
