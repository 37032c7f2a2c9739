//! A service that has proven itself once, kept for its next request without the key it did so with.

use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::{Policies, Rights};
use sha2::{Digest, Sha256};

use super::{Origin, VerifiedService};

/// Which policy it was and which of its keys. Tells nothing from which a key could be had.
#[derive(Clone, Debug)]
pub struct RememberedService {
    policy: String,
    rights: Rights,
    /// SHA-256 of the key, which is random and long, so that nothing leads back.
    key: [u8; 32],
}

impl VerifiedService {
    /// What to keep of it.
    pub fn remember(&self) -> RememberedService {
        RememberedService { policy: self.policy.clone(), rights: self.rights, key: digest(&self.key) }
    }
}

impl RememberedService {
    /// The service as it calls now; nothing when the policy is gone, or that key or any right of it (threats P6).
    /// A key that has become the other one of the pair still counts.
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
