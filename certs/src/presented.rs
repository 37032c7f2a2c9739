//! What a peer showed in the TLS handshake. Its length is bounded here, before any signature is looked at; that the
//! peer holds the leaf's key is for the handshake to prove, and whether the chain is trusted for CONNECT to decide.

use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::thumbprint::Sha256Thumbprint;

/// A peer's certificate and whatever it sent along, within bounds and not yet judged.
#[derive(Clone, Copy, Debug)]
pub struct PresentedChain<'a> {
    leaf: &'a CertificateDer<'a>,
}

/// Why a presented chain is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainRefused {
    #[error("the peer showed {0} certificates, more than {CERTIFICATES_MAX}")]
    TooMany(usize),
    #[error("the peer showed {0} bytes of certificates, more than {BYTES_MAX}")]
    TooLarge(usize),
    #[error("the peer's certificate is not X.509 DER")]
    Unreadable,
}

impl<'a> PresentedChain<'a> {
    /// The only way in: `leaf` is the peer's own certificate, `others` what came with it, in any order.
    pub fn parse(leaf: &'a CertificateDer<'a>, others: &[CertificateDer<'_>]) -> Result<Self, ChainRefused> {
        let certificates = 1 + others.len();
        if certificates > CERTIFICATES_MAX {
            return Err(ChainRefused::TooMany(certificates));
        }
        let bytes = leaf.len() + others.iter().map(|certificate| certificate.len()).sum::<usize>();
        if bytes > BYTES_MAX {
            return Err(ChainRefused::TooLarge(bytes));
        }
        match X509Certificate::from_der(leaf) {
            Ok(([], _)) => Ok(Self { leaf }),
            _ => Err(ChainRefused::Unreadable),
        }
    }

    /// Names the peer's certificate.
    pub fn thumbprint(&self) -> Sha256Thumbprint {
        Sha256Thumbprint::of(self.leaf)
    }
}

/// Longest chain looked at.
pub const CERTIFICATES_MAX: usize = 10;
/// Most bytes of certificates looked at.
pub const BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn a_leaf_alone_and_a_full_chain_are_taken() {
        let ca = TestCa::new();
        let device = ca.device("d1");
        let others = vec![ca.certificate().clone(); CERTIFICATES_MAX - 1];
        let chain = PresentedChain::parse(&device.certificate, &others).unwrap();
        assert_eq!(chain.thumbprint(), Sha256Thumbprint::of(&device.certificate));
        assert!(PresentedChain::parse(&device.certificate, &[]).is_ok());
    }

    #[test]
    fn t111_a_chain_too_long_or_too_large_is_refused() {
        let ca = TestCa::new();
        let device = ca.device("d1");
        let long = vec![ca.certificate().clone(); 99];
        assert_eq!(
            PresentedChain::parse(&device.certificate, &long).unwrap_err(),
            ChainRefused::TooMany(100)
        );
        let large = [CertificateDer::from(vec![0; BYTES_MAX])];
        let refused = PresentedChain::parse(&device.certificate, &large).unwrap_err();
        assert!(matches!(refused, ChainRefused::TooLarge(_)), "{refused}");
    }

    #[test]
    fn t411_bad_der_is_refused() {
        let good = TestCa::new().device("d1").certificate;
        let trailing = [good.as_ref(), &[0]].concat();
        for bad in [b"".as_slice(), b"0", &[0x30, 0x80, 0, 0], &good[..good.len() - 1], &trailing] {
            let bad = CertificateDer::from(bad);
            assert_eq!(PresentedChain::parse(&bad, &[]).unwrap_err(), ChainRefused::Unreadable);
        }
    }
}
