//! A private key of ours: made, read, written. It never shows itself in a log.

use std::fmt;

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::pem::{self, PemError};

/// A private key that signs: ECDSA P-256 when made here; RSA and other curves can be read.
pub struct PrivateKey(KeyPair);

/// Why a private key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The library that makes keys failed.
    #[error("no key can be made")]
    Generate(#[source] rcgen::Error),
    /// The text is not PEM, or does not hold one key.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// The key is of a kind that cannot sign here.
    #[error("the private key is of a kind this program cannot use")]
    Unsupported,
}

impl PrivateKey {
    /// A new ECDSA P-256 key.
    pub fn generate() -> Result<Self, KeyError> {
        KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map(Self).map_err(KeyError::Generate)
    }

    /// Reads a key from PEM text: PKCS #8, PKCS #1 or SEC 1, not encrypted.
    pub fn parse_pem(text: &[u8]) -> Result<Self, KeyError> {
        Self::from_der(&pem::read_key(text)?)
    }

    pub(crate) fn from_der(key: &PrivateKeyDer<'_>) -> Result<Self, KeyError> {
        KeyPair::try_from(key).map(Self).map_err(|_| KeyError::Unsupported)
    }

    /// The secret itself, as PKCS #8 PEM text.
    pub fn to_pem(&self) -> String {
        self.0.serialize_pem()
    }

    /// The secret itself, as PKCS #8.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.0.serialize_der()).into()
    }

    /// The public half, as a DER SubjectPublicKeyInfo.
    pub fn public_key(&self) -> Vec<u8> {
        self.0.subject_public_key_info()
    }

    pub(crate) fn signer(&self) -> &KeyPair {
        &self.0
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_pem() {
        let key = PrivateKey::generate().unwrap();
        let again = PrivateKey::parse_pem(key.to_pem().as_bytes()).unwrap();
        assert_eq!(again.public_key(), key.public_key());
        assert_eq!(again.to_der(), key.to_der());
    }

    #[test]
    fn a_key_does_not_show_itself() {
        assert_eq!(format!("{:?}", PrivateKey::generate().unwrap()), "PrivateKey(..)");
    }

    #[test]
    fn t913_no_two_keys_are_alike() {
        assert_ne!(
            PrivateKey::generate().unwrap().public_key(),
            PrivateKey::generate().unwrap().public_key()
        );
    }

    #[test]
    fn rubbish_is_no_key() {
        let rubbish = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert!(matches!(PrivateKey::parse_pem(rubbish.as_bytes()), Err(KeyError::Unsupported)));
    }
}
