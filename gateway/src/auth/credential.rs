//! The credential of a live connection, which is checked again after each change of the registry.

use portcullis_certs::thumbprint::{Sha256Thumbprint, Thumbprints};
use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::identity::{Authentication, Identity};
use portcullis_registry::policy::{Policies, Rights};

use super::trust::Trust;

/// The credential a connection was opened with.
#[derive(Clone, Debug)]
pub enum Credential {
    /// A token signed with a key of the identity itself.
    OwnKey(SymmetricKey),
    /// A token signed with a key of a shared access policy.
    PolicyKey { policy: String, key: SymmetricKey },
    /// The key of a certificate whose thumbprint is registered.
    Thumbprint(Thumbprints),
    /// The key of a certificate under the CA that has this certificate.
    Authority(Sha256Thumbprint),
}

impl Credential {
    /// Whether the credential still admits this identity. A swap of primary and secondary changes nothing.
    pub(super) fn holds(&self, identity: &Identity, policies: &Policies, trust: &Trust) -> bool {
        match (self, &identity.authentication) {
            (Credential::OwnKey(key), Authentication::Sas(keys)) => is_of(key, keys),
            (Credential::PolicyKey { policy, key }, Authentication::Sas(_)) => {
                policies.find(policy).is_some_and(|policy| {
                    is_of(key, &policy.keys) && policy.rights.contains(Rights::DEVICE_CONNECT)
                })
            }
            (Credential::Thumbprint(shown), Authentication::SelfSigned(registered)) => {
                registered.iter().any(|own| shown.are_named_by(own.as_str()))
            }
            (Credential::Authority(certificate), Authentication::CertificateAuthority) => {
                trust.is_verified(*certificate)
            }
            (
                _,
                Authentication::Sas(_)
                | Authentication::SelfSigned(_)
                | Authentication::CertificateAuthority
                | Authentication::None,
            ) => false,
        }
    }

    /// The kind of credential, as text for the operator.
    pub fn method(&self) -> &'static str {
        match self {
            Credential::OwnKey(_) => "SAS token",
            Credential::PolicyKey { .. } => "SAS token of a policy",
            Credential::Thumbprint(_) => "X.509 thumbprint",
            Credential::Authority(_) => "X.509 CA",
        }
    }

    /// The value of `iothub-connection-auth-method` on telemetry.
    pub fn auth_method(&self) -> &'static str {
        match self {
            Credential::OwnKey(_) => r#"{"scope":"device","type":"sas","issuer":"iothub"}"#,
            Credential::PolicyKey { .. } => r#"{"scope":"hub","type":"sas","issuer":"iothub"}"#,
            Credential::Thumbprint(_) | Credential::Authority(_) => {
                r#"{"scope":"device","type":"x509","issuer":"external"}"#
            }
        }
    }
}

/// Whether `key` is one of the two.
pub(super) fn is_of(key: &SymmetricKey, keys: &KeyPair) -> bool {
    *key == keys.primary || *key == keys.secondary
}
