//! What a live connection rests on, kept so that a change of the registry can be held against it.

use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::policy::{Policies, Rights};

/// The key a token was signed with, and whose key it was.
#[derive(Clone, Debug)]
pub struct Proof {
    key: SymmetricKey,
    policy: Option<String>,
}

impl Proof {
    /// Signed with a key of the identity itself.
    pub(super) fn own_key(key: &SymmetricKey) -> Self {
        Self { key: key.clone(), policy: None }
    }

    /// Signed with a key of a shared access policy.
    pub(super) fn policy_key(policy: &str, key: &SymmetricKey) -> Self {
        Self { key: key.clone(), policy: Some(policy.to_owned()) }
    }

    /// Whether the key is still one that admits this identity. Swapping primary and secondary changes nothing.
    pub(super) fn holds(&self, identity: &Identity, policies: &Policies) -> bool {
        match &self.policy {
            None => match &identity.authentication {
                Authentication::Sas(keys) => is_of(&self.key, keys),
                Authentication::SelfSigned(_)
                | Authentication::CertificateAuthority
                | Authentication::None => false,
            },
            Some(name) => policies.find(name).is_some_and(|policy| {
                is_of(&self.key, &policy.keys) && policy.rights.contains(Rights::DEVICE_CONNECT)
            }),
        }
    }

    /// The value of `iothub-connection-auth-method` on telemetry.
    pub fn auth_method(&self) -> &'static str {
        match self.policy {
            None => r#"{"scope":"device","type":"sas","issuer":"iothub"}"#,
            Some(_) => r#"{"scope":"hub","type":"sas","issuer":"iothub"}"#,
        }
    }
}

/// Whether `key` is one of the pair.
pub(super) fn is_of(key: &SymmetricKey, keys: &KeyPair) -> bool {
    *key == keys.primary || *key == keys.secondary
}
