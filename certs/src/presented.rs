//! What a peer showed in the TLS handshake. Its length is bounded here, before any signature is looked at; that the
//! peer holds the leaf's key is for the handshake to prove, with the key read here, and whether the chain is trusted
//! for CONNECT to decide.

use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime};
use webpki::RawPublicKeyEntity;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::unix_time;
use crate::name;
use crate::thumbprint::Thumbprints;

/// A peer's certificate and whatever it sent along, within bounds and not yet judged.
#[derive(Clone, Debug)]
pub struct PresentedChain<'a> {
    leaf: &'a CertificateDer<'a>,
    others: &'a [CertificateDer<'a>],
    x509: X509Certificate<'a>,
}

/// Why a presented chain is not even looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainRefused {
    /// This many certificates were shown.
    #[error("the peer showed {0} certificates, more than {CERTIFICATES_MAX}")]
    TooMany(usize),
    /// The certificates have this many bytes together.
    #[error("the peer showed {0} bytes of certificates, more than {BYTES_MAX}")]
    TooLarge(usize),
    /// The bytes of the first one are no certificate.
    #[error("the peer's certificate is not X.509 DER")]
    Unreadable,
}

/// Why a certificate does not hold at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutOfTime {
    /// It ended then.
    Expired(UnixTime),
    /// It begins then.
    NotYetValid(UnixTime),
}

/// A signature is not by the key it should be by, or of a kind that is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSignature {
    /// The key is of another kind than the algorithm; another algorithm may fit.
    OtherKeyType,
    /// The signature does not fit.
    Invalid,
}

impl<'a> PresentedChain<'a> {
    /// The only way in: `leaf` is the peer's own certificate, `others` what came with it, in any order.
    pub fn parse(
        leaf: &'a CertificateDer<'a>,
        others: &'a [CertificateDer<'a>],
    ) -> Result<Self, ChainRefused> {
        let certificates = 1 + others.len();
        if certificates > CERTIFICATES_MAX {
            return Err(ChainRefused::TooMany(certificates));
        }
        let bytes = leaf.len() + others.iter().map(|certificate| certificate.len()).sum::<usize>();
        if bytes > BYTES_MAX {
            return Err(ChainRefused::TooLarge(bytes));
        }
        match X509Certificate::from_der(leaf) {
            Ok(([], x509)) => Ok(Self { leaf, others, x509 }),
            _ => Err(ChainRefused::Unreadable),
        }
    }

    /// As `parse`, of certificates in the order of TLS, the peer's own first.
    pub fn parse_all(certificates: &'a [CertificateDer<'a>]) -> Result<Self, ChainRefused> {
        let (leaf, others) = certificates.split_first().ok_or(ChainRefused::Unreadable)?;
        Self::parse(leaf, others)
    }

    /// The peer's own certificate.
    pub fn leaf(&self) -> &'a CertificateDer<'a> {
        self.leaf
    }

    /// What came with it.
    pub(crate) fn others(&self) -> &'a [CertificateDer<'a>] {
        self.others
    }

    pub(crate) fn x509(&self) -> &X509Certificate<'a> {
        &self.x509
    }

    /// Names the peer's certificate, by either hash.
    pub fn thumbprints(&self) -> Thumbprints {
        Thumbprints::of(self.leaf)
    }

    /// The subject, as a log line shows it.
    pub fn subject(&self) -> String {
        name::shown(self.x509.subject())
    }

    /// The last second at which the peer's certificate holds.
    pub fn valid_until(&self) -> UnixTime {
        unix_time(self.x509.validity().not_after)
    }

    /// Whether the peer's certificate holds at `now`. Both ends of its time belong to it (RFC 5280, 4.1.2.5).
    pub fn check_time(&self, now: UnixTime) -> Result<(), OutOfTime> {
        check_time(&self.x509, now)
    }

    /// The public key in the peer's certificate.
    pub fn public_key(&self) -> SubjectPublicKeyInfoDer<'_> {
        SubjectPublicKeyInfoDer::from(self.x509.public_key().raw)
    }

    /// Whether `signature` over `message` is by the key in the peer's certificate. Neither the certificate's version
    /// nor what it may be used for matters: all that is proven is that the peer holds the key (threats T403).
    pub fn verify_signature(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        let key = self.public_key();
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| BadSignature::Invalid)?;
        key.verify_signature(algorithm, message, signature).map_err(|error| match error {
            webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => BadSignature::OtherKeyType,
            _ => BadSignature::Invalid,
        })
    }
}

/// Whether a certificate holds at `now`.
pub(crate) fn check_time(x509: &X509Certificate<'_>, now: UnixTime) -> Result<(), OutOfTime> {
    let from = unix_time(x509.validity().not_before);
    let until = unix_time(x509.validity().not_after);
    if now < from {
        Err(OutOfTime::NotYetValid(from))
    } else if now > until {
        Err(OutOfTime::Expired(until))
    } else {
        Ok(())
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
        assert_eq!(chain.thumbprints(), Thumbprints::of(&device.certificate));
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
