//! The certificate of a CA that may vouch for devices: whether it is fit to, and the proof that its key is held.
//!
//! Only this certificate is trusted, whatever signed it: it may be a root or an intermediate.

use std::fmt;

use rustls_pki_types::{CertificateDer, Der, TrustAnchor, UnixTime};
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::ca::unix_time;
use crate::chain::weak_hash;
use crate::name::{self, NoCommonName};
use crate::pem::{self, PemError};
use crate::presented::{self, OutOfTime};
use crate::thumbprint::Thumbprints;

/// A CA's certificate, found fit to vouch for devices.
#[derive(Clone)]
pub struct Anchor {
    certificate: CertificateDer<'static>,
    trust: TrustAnchor<'static>,
    subject: String,
    thumbprints: Thumbprints,
    valid_from: UnixTime,
    valid_until: UnixTime,
    path_len_max: Option<u32>,
}

/// Why a certificate cannot vouch for devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAnchor {
    /// The text is not PEM, or holds something else than certificates.
    #[error(transparent)]
    Pem(PemError),
    /// This many certificates are in the text.
    #[error("it holds {0} certificates, where the CA's alone belongs")]
    NotAlone(usize),
    /// The certificate has this many bytes.
    #[error("it has {0} bytes; a CA certificate may have {ANCHOR_BYTES_MAX} at most")]
    TooLarge(usize),
    /// The bytes are no certificate.
    #[error("it is not X.509 DER")]
    Unreadable,
    /// The basic constraint CA:TRUE is absent; the subject is given.
    #[error("{0} is not a CA certificate: it has no basic constraint CA:TRUE")]
    NotCa(String),
    /// The key usage does not allow to sign certificates; the subject is given.
    #[error("{0} may not sign certificates: its key usage lacks keyCertSign")]
    MayNotSign(String),
    /// The RSA key is too short.
    #[error("{subject} has an RSA key of {bits} bits; {RSA_BITS_MIN} are the least")]
    WeakKey {
        /// Whose key it is.
        subject: String,
        /// Its length, in bits.
        bits: usize,
    },
}

/// Why a certificate does not prove that its maker holds a CA's key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// The text is not PEM, or holds something else than certificates.
    #[error("the proof cannot be read: {0}")]
    Pem(PemError),
    /// This many certificates are in the text.
    #[error("the proof holds {0} certificates, where one belongs")]
    NotAlone(usize),
    /// The bytes are no certificate.
    #[error("the proof is not X.509 DER")]
    Unreadable,
    /// The certificate does not have the one common name that counts.
    #[error("the proof cannot be used: {0}")]
    Name(NoCommonName),
    /// The certificate names something else than the code.
    #[error("the proof's common name is {seen:?}, wanted is the verification code {wanted:?}")]
    OtherName {
        /// The common name it has.
        seen: String,
        /// The code it should name.
        wanted: String,
    },
    /// The certificate names another issuer.
    #[error("the proof was issued by {seen}, wanted is {wanted}")]
    OtherIssuer {
        /// The issuer it names.
        seen: String,
        /// The subject of the CA.
        wanted: String,
    },
    /// The signature is by this hash, which can be forged.
    #[error("the proof is signed with {0}, which is too weak to count")]
    WeakSignature(&'static str),
    /// The signature is not by the key of the CA of this subject.
    #[error("the proof is not signed with the key of {0}")]
    BadSignature(String),
    /// The certificate has expired or begins later.
    #[error("the proof is not valid now: {0}")]
    OutOfTime(OutOfTime),
}

impl Anchor {
    /// Reads one CA certificate from PEM text. Anything beside it, a private key above all, is refused.
    pub fn parse_pem(text: &[u8]) -> Result<Self, InvalidAnchor> {
        let mut certificates = pem::read_certificates(text).map_err(InvalidAnchor::Pem)?;
        match (certificates.pop(), certificates.len()) {
            (Some(certificate), 0) => Self::parse(certificate),
            (_, others) => Err(InvalidAnchor::NotAlone(others + 1)),
        }
    }

    /// Reads a CA certificate.
    pub fn parse(certificate: CertificateDer<'static>) -> Result<Self, InvalidAnchor> {
        if certificate.len() > ANCHOR_BYTES_MAX {
            return Err(InvalidAnchor::TooLarge(certificate.len()));
        }
        let Ok(([], x509)) = X509Certificate::from_der(&certificate) else {
            return Err(InvalidAnchor::Unreadable);
        };
        let subject = name::shown(x509.subject());
        let constraints = x509.basic_constraints().map_err(|_| InvalidAnchor::Unreadable)?;
        let Some(constraints) = constraints.map(|found| found.value).filter(|value| value.ca) else {
            return Err(InvalidAnchor::NotCa(subject));
        };
        if !may_sign(&x509) {
            return Err(InvalidAnchor::MayNotSign(subject));
        }
        if let Some(bits) = weak_rsa_bits(&x509) {
            return Err(InvalidAnchor::WeakKey { subject, bits });
        }
        let trust = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| InvalidAnchor::Unreadable)?;
        let trust = trust.to_owned();
        Ok(Self {
            trust,
            subject,
            thumbprints: Thumbprints::of(&certificate),
            valid_from: unix_time(x509.validity().not_before),
            valid_until: unix_time(x509.validity().not_after),
            path_len_max: constraints.path_len_constraint,
            certificate,
        })
    }

    /// The certificate itself.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The subject, as a log line shows it.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The hashes of the certificate.
    pub fn thumbprints(&self) -> Thumbprints {
        self.thumbprints
    }

    /// The last second at which it holds.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// Whether it holds at `now`.
    pub fn check_time(&self, now: UnixTime) -> Result<(), OutOfTime> {
        if now < self.valid_from {
            Err(OutOfTime::NotYetValid(self.valid_from))
        } else if now > self.valid_until {
            Err(OutOfTime::Expired(self.valid_until))
        } else {
            Ok(())
        }
    }

    /// Whether `proof`, PEM text of one certificate, shows that its maker holds this CA's key: it names `code` and is
    /// signed with the key. Its version and usage do not matter.
    ///
    /// Source: IoT Hub, "Tutorial: Upload and verify a CA certificate to IoT Hub".
    pub fn check_proof(&self, proof: &[u8], code: &str, now: UnixTime) -> Result<(), NoProof> {
        let certificates = pem::read_certificates(proof).map_err(NoProof::Pem)?;
        let [proof] = certificates.as_slice() else { return Err(NoProof::NotAlone(certificates.len())) };
        let Ok(([], x509)) = X509Certificate::from_der(proof) else { return Err(NoProof::Unreadable) };
        let seen = name::common_name(x509.subject()).map_err(NoProof::Name)?;
        if seen != code {
            let seen = name::Shown(seen).to_string();
            return Err(NoProof::OtherName { seen, wanted: code.to_owned() });
        }
        let Ok((_, own)) = X509Certificate::from_der(&self.certificate) else {
            return Err(NoProof::Unreadable);
        };
        if x509.issuer().as_raw() != own.subject().as_raw() {
            let seen = name::shown(x509.issuer());
            return Err(NoProof::OtherIssuer { seen, wanted: self.subject.clone() });
        }
        if let Some(hash) = weak_hash(&x509) {
            return Err(NoProof::WeakSignature(hash));
        }
        if x509.verify_signature(Some(own.public_key())).is_err() {
            return Err(NoProof::BadSignature(self.subject.clone()));
        }
        presented::check_time(&x509, now).map_err(NoProof::OutOfTime)
    }

    /// The same anchor for the path validator, without a copy.
    pub(crate) fn trust(&self) -> TrustAnchor<'_> {
        TrustAnchor {
            subject: Der::from_slice(self.trust.subject.as_ref()),
            subject_public_key_info: Der::from_slice(self.trust.subject_public_key_info.as_ref()),
            name_constraints: self.trust.name_constraints.as_ref().map(|der| Der::from_slice(der.as_ref())),
        }
    }

    /// How many intermediates may be between this CA and a device; none: any number.
    pub(crate) fn path_len_max(&self) -> Option<u32> {
        self.path_len_max
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anchor").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// Whether the key usage allows to sign certificates; a certificate without key usage allows everything.
pub(crate) fn may_sign(x509: &X509Certificate<'_>) -> bool {
    match x509.key_usage() {
        Ok(None) => true,
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Err(_) => false,
    }
}

/// The length of an RSA key that is too short.
pub(crate) fn weak_rsa_bits(x509: &X509Certificate<'_>) -> Option<usize> {
    match x509.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => Some(key.key_size()).filter(|bits| *bits < RSA_BITS_MIN),
        _ => None,
    }
}

/// Whether an extended key usage, where there is one, allows a client to prove itself.
pub(crate) fn may_be_client(x509: &X509Certificate<'_>) -> bool {
    let usage = x509.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::ExtendedKeyUsage(usage) => Some(usage),
        _ => None,
    });
    usage.is_none_or(|usage| usage.client_auth)
}

/// The shortest RSA key that counts.
pub(crate) const RSA_BITS_MIN: usize = 2048;
/// Longest CA certificate taken.
const ANCHOR_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests;
