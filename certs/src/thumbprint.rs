//! The SHA-256 thumbprint of a certificate, for the operator's eyes.

use std::fmt;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};

/// SHA-256 over a certificate's DER bytes; shown as 64 upper-case hexadecimal digits, as IoT Hub does.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sha256Thumbprint([u8; 32]);

impl Sha256Thumbprint {
    pub fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl fmt::Display for Sha256Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Sha256Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256Thumbprint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_sha256_in_upper_case() {
        let shown = Sha256Thumbprint::of(&CertificateDer::from(b"abc".as_slice())).to_string();
        assert_eq!(shown, "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD");
    }
}
