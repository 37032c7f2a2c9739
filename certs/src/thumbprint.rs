//! A certificate's thumbprints: SHA-1, as old registrations have it, and SHA-256, which everything new should use.

use std::fmt;

use rustls_pki_types::CertificateDer;
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// SHA-256 over a certificate's DER bytes; shown as 64 upper-case hexadecimal digits, as IoT Hub does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Thumbprint([u8; 32]);

/// SHA-1 over a certificate's DER bytes; shown as 40 upper-case hexadecimal digits. Weak: a peer that can have two
/// certificates made of the same hash may show either.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha1Thumbprint([u8; 20]);

/// Both hashes of one certificate: a registration may name it by either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thumbprints {
    /// The hash by SHA-1.
    pub sha1: Sha1Thumbprint,
    /// The hash by SHA-256.
    pub sha256: Sha256Thumbprint,
}

impl Sha256Thumbprint {
    /// The thumbprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl Sha1Thumbprint {
    /// The thumbprint of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha1::digest(certificate).into())
    }
}

impl Thumbprints {
    /// The thumbprints of a certificate.
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self { sha1: Sha1Thumbprint::of(certificate), sha256: Sha256Thumbprint::of(certificate) }
    }

    /// Whether `hex`, upper-case digits without separators, names this certificate: its length says by which hash.
    pub fn are_named_by(&self, hex: &str) -> bool {
        is_written(&self.sha1.0, hex) || is_written(&self.sha256.0, hex)
    }
}

/// Whether `hex` is `bytes` in upper-case digits; without an allocation, for it runs at every connect.
fn is_written(bytes: &[u8], hex: &str) -> bool {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    hex.len() == 2 * bytes.len()
        && hex.as_bytes().chunks_exact(2).zip(bytes).all(|(pair, byte)| {
            pair == [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]].as_slice()
        })
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
}

impl fmt::Display for Sha256Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Sha256Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Thumbprint({self})")
    }
}

impl fmt::Display for Sha1Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Sha1Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha1Thumbprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_abc() -> Thumbprints {
        Thumbprints::of(&CertificateDer::from(b"abc".as_slice()))
    }

    #[test]
    fn they_are_hashes_in_upper_case() {
        assert_eq!(of_abc().sha1.to_string(), "A9993E364706816ABA3E25717850C26C9CD0D89D");
        assert_eq!(
            of_abc().sha256.to_string(),
            "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD"
        );
    }

    #[test]
    fn t401_either_hash_names_the_certificate_and_nothing_else_does() {
        let own = of_abc();
        let (sha1, sha256) = (own.sha1.to_string(), own.sha256.to_string());
        assert!(own.are_named_by(&sha1) && own.are_named_by(&sha256));
        for other in ["", &sha1[..38], &sha256[..40], &sha1.replace('A', "B"), &format!("{sha1}{sha1}")] {
            assert!(!own.are_named_by(other), "{other}");
        }
    }
}
