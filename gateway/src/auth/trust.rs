//! The enrolled CAs, parsed for authentication: the verified ones, and those that are not verified yet.

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
    /// Enrolled, but not verified. They explain a refusal and admit no device.
    pending: Vec<(AuthorityName, Anchor)>,
}

/// The current state, and a lock for changing it.
#[derive(Debug)]
pub struct TrustStore {
    current: RwLock<Arc<Trust>>,
    /// Guards no data. A change reads, stores and counts, and no other change may come between.
    turn: tokio::sync::Semaphore,
}

impl Trust {
    /// Parses every certificate. Fails if one is not a CA's, because the hub would not have enrolled it.
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

    /// The authorities that this state was parsed from.
    pub fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// The CAs whose devices the hub trusts.
    pub(super) fn verified(&self) -> Vec<&Anchor> {
        self.verified.iter().collect()
    }

    pub(super) fn pending(&self) -> &[(AuthorityName, Anchor)] {
        &self.pending
    }

    /// Whether the hub trusts the devices of the CA with this certificate.
    pub(super) fn is_verified(&self, certificate: Sha256Thumbprint) -> bool {
        self.verified.iter().any(|anchor| anchor.thumbprints().sha256 == certificate)
    }
}

impl TrustStore {
    pub fn new(trust: Trust) -> Self {
        Self { current: RwLock::new(Arc::new(trust)), turn: tokio::sync::Semaphore::new(1) }
    }

    /// Waits until no other change is under way. The permit holds off other changes until it is dropped.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.turn.acquire().await.ok()
    }

    /// The present state.
    pub fn current(&self) -> Arc<Trust> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the state.
    pub(crate) fn set(&self, trust: Trust) {
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(trust);
    }
}
