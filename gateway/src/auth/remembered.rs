//! A service that has authenticated once, kept for its next requests without its key.

use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::{Policies, Rights};
use sha2::{Digest, Sha256};

use super::{Origin, VerifiedService};

/// The policy and which of its keys was used. The key cannot be derived from it.
#[derive(Clone, Debug)]
pub struct RememberedService {
    policy: String,
    rights: Rights,
    /// SHA-256 of the key. The key is random and long, so it cannot be guessed.
    key: [u8; 32],
}

impl VerifiedService {
    /// What is kept of this service.
    pub fn remember(&self) -> RememberedService {
        RememberedService { policy: self.policy.clone(), rights: self.rights, key: digest(&self.key) }
    }
}

impl RememberedService {
    /// The service for its present call. None if the policy, its key or a right of it is gone (threats P6). A key that
    /// has moved to the other place of the pair still counts.
    pub fn verify(&self, policies: &Policies, origin: Origin) -> Option<VerifiedService> {
        let policy = policies.find(&self.policy).filter(|policy| policy.rights.contains(self.rights))?;
        let keys = [&policy.keys.primary, &policy.keys.secondary];
        let key = keys.into_iter().find(|key| digest(key) == self.key)?;
        Some(VerifiedService {
            policy: self.policy.clone(),
            rights: self.rights,
            key: key.clone(),
            expires: None,
            origin,
        })
    }
}

fn digest(key: &SymmetricKey) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}
