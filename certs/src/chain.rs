//! Does a presented chain lead to one of the CAs that may vouch for devices, and if not, exactly why.
//!
//! Paths are built and signatures checked by webpki, within its budget of signatures. What it leaves out is checked
//! here: key usage of intermediates, the anchor's own time and path length, the strength of the device's key, and a
//! bound on look-alike intermediates, without which the search for a path could take long.

use std::cell::RefCell;
use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath, aws_lc_rs as algorithms};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::anchor::{Anchor, RSA_BITS_MIN, may_be_client, may_sign, weak_rsa_bits};
use crate::ca::unix_time;
use crate::name::{self, NoCommonName};
use crate::presented::{OutOfTime, PresentedChain, check_time};

/// A chain that leads to a CA.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedChain<'a> {
    /// The enrolled CA it leads to.
    pub anchor: &'a Anchor,
    /// The last second at which every certificate of the path holds.
    pub valid_until: UnixTime,
}

/// Why a chain leads to no CA. The texts are for operators: they name what was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A certificate has expired or begins later.
    #[error("certificate {subject} {when}")]
    OutOfTime {
        /// Which certificate.
        subject: String,
        /// When it expired or begins.
        when: OutOfTime,
    },
    /// No enrolled CA issued the last certificate.
    #[error("the chain ends at issuer {issuer}, which is no enrolled CA{}", sent(*.intermediates))]
    UnknownIssuer {
        /// The issuer that is missing.
        issuer: String,
        /// How many intermediates the device sent.
        intermediates: usize,
    },
    /// The device's certificate is signed with its own key.
    #[error("the certificate is signed by itself, not by an enrolled CA")]
    SelfSigned,
    /// The enrolled CA's certificate has expired or begins later.
    #[error("the enrolled CA {subject} {when}")]
    AnchorOutOfTime {
        /// Which CA.
        subject: String,
        /// When it expired or begins.
        when: OutOfTime,
    },
    /// A signature is not by the key it should be by.
    #[error("certificate {subject} is not signed with the key of {issuer}")]
    BadSignature {
        /// Whose certificate it is on.
        subject: String,
        /// Whose key should have made it.
        issuer: String,
    },
    /// A signature is by a hash that can be forged.
    #[error("certificate {subject} is signed with {hash}, which is too weak to count")]
    WeakSignature {
        /// Whose certificate it is on.
        subject: String,
        /// The hash.
        hash: &'static str,
    },
    /// An RSA key is too short.
    #[error("certificate {subject} has an RSA key of {bits} bits; {RSA_BITS_MIN} are the least")]
    WeakKey {
        /// Whose key it is.
        subject: String,
        /// Its length, in bits.
        bits: usize,
    },
    /// The device's certificate says CA:TRUE.
    #[error("the certificate is itself a CA's (CA:TRUE), which no device's may be when a CA vouches for it")]
    CaAsDevice,
    /// The issuer of this subject does not say CA:TRUE.
    #[error("certificate {0} signed another one but is not a CA's (no CA:TRUE)")]
    IssuerNotCa(String),
    /// The key usage of the issuer of this subject does not allow to sign certificates.
    #[error("certificate {0} signed another one but its key usage lacks keyCertSign")]
    IssuerMayNotSign(String),
    /// There are more intermediates than a CA allows.
    #[error("there are more intermediates than a CA of the chain allows (path length)")]
    PathTooLong,
    /// A name is outside the name constraints of a CA.
    #[error("a name in the certificate is outside what a CA of the chain may sign (name constraints)")]
    NameConstraint,
    /// The extended key usage of this certificate has no client authentication.
    #[error("certificate {0} is not for client authentication (extended key usage)")]
    NotForClients(String),
    /// The device's certificate is of this X.509 version, not of version 3.
    #[error(
        "the certificate is of X.509 version {0}; a CA vouches for version 3 only \
         (openssl x509 -req makes one when -extfile gives it extensions)"
    )]
    Version(u32),
    /// This certificate holds a critical extension that the validator does not know.
    #[error("certificate {0} holds a critical extension that is not understood")]
    CriticalExtension(String),
    /// So many certificates have this subject that trying them all would take too long.
    #[error("more than {ALIKE_MAX} of the certificates shown have the subject {0}")]
    TooManyAlike(String),
    /// Trying the paths takes too long.
    #[error("checking the chain took too many steps; the device must send fewer certificates")]
    Budget,
    /// The validator refuses the chain for another reason, which is given.
    #[error("the chain cannot be read: {0}")]
    Unreadable(String),
}

/// Finds a path from the peer's certificate to one of `anchors`, every step of it holding at `now`.
pub fn verify<'a>(
    chain: &PresentedChain<'_>,
    anchors: &[&'a Anchor],
    now: UnixTime,
) -> Result<VerifiedChain<'a>, ChainError> {
    check_device_key(chain)?;
    check_alike(chain)?;
    let valid: Vec<&'a Anchor> =
        anchors.iter().copied().filter(|anchor| anchor.check_time(now).is_ok()).collect();
    let trust: Vec<TrustAnchor<'_>> = valid.iter().map(|anchor| anchor.trust()).collect();
    let refusal = RefCell::new(None);
    let found = RefCell::new(None);
    let verdict = EndEntityCert::try_from(chain.leaf()).and_then(|leaf| {
        let check = |path: &VerifiedPath<'_>| {
            let anchor = valid.iter().copied().find(|anchor| anchor.trust() == *path.anchor());
            let anchor = anchor.ok_or(webpki::Error::UnknownIssuer)?;
            match check_path(path, anchor) {
                Ok(intermediates_until) => {
                    let valid_until = chain.valid_until().min(anchor.valid_until()).min(intermediates_until);
                    *found.borrow_mut() = Some((anchor, valid_until));
                    Ok(())
                }
                Err(error) => {
                    refusal.borrow_mut().get_or_insert(error);
                    Err(webpki::Error::UnknownIssuer)
                }
            }
        };
        leaf.verify_for_usage(
            ALGORITHMS,
            &trust,
            chain.others(),
            now,
            KeyUsage::client_auth(),
            None,
            Some(&check),
        )
        .map(|_| ())
    });
    match (verdict, found.into_inner(), refusal.into_inner()) {
        (Ok(()), Some((anchor, valid_until)), _) => Ok(VerifiedChain { anchor, valid_until }),
        (Ok(()), None, _) => Err(ChainError::Budget),
        (Err(_), _, Some(refusal)) => Err(refusal),
        (Err(error), _, None) => Err(diagnose(chain, &error, anchors, now)),
    }
}

impl PresentedChain<'_> {
    /// The one common name in the subject of the peer's certificate, byte for byte.
    pub fn common_name(&self) -> Result<&str, NoCommonName> {
        name::common_name(self.x509().subject())
    }
}

/// The key that proves the device counts as much as those above it; webpki looks only at the latter.
fn check_device_key(chain: &PresentedChain<'_>) -> Result<(), ChainError> {
    match weak_rsa_bits(chain.x509()) {
        Some(bits) => Err(ChainError::WeakKey { subject: chain.subject(), bits }),
        None => Ok(()),
    }
}

/// With many certificates of one name there are very many ways to put them in a row.
fn check_alike(chain: &PresentedChain<'_>) -> Result<(), ChainError> {
    let others = readable(chain.others());
    for one in &others {
        let alike = others.iter().filter(|other| other.subject().as_raw() == one.subject().as_raw());
        if alike.count() > ALIKE_MAX {
            return Err(ChainError::TooManyAlike(name::shown(one.subject())));
        }
    }
    Ok(())
}

/// What webpki leaves out; the last second at which every intermediate holds.
fn check_path(path: &VerifiedPath<'_>, anchor: &Anchor) -> Result<UnixTime, ChainError> {
    let mut until = anchor.valid_until();
    let mut counted = 0;
    for intermediate in path.intermediate_certificates() {
        let der = intermediate.der();
        let Ok((_, x509)) = X509Certificate::from_der(&der) else {
            return Err(ChainError::Unreadable("an intermediate is not X.509 DER".into()));
        };
        if !may_sign(&x509) {
            return Err(ChainError::IssuerMayNotSign(name::shown(x509.subject())));
        }
        until = until.min(unix_time(x509.validity().not_after));
        // One that issued itself does not count (RFC 5280, 4.2.1.9).
        counted += u32::from(x509.subject().as_raw() != x509.issuer().as_raw());
    }
    if anchor.path_len_max().is_some_and(|most| counted > most) {
        return Err(ChainError::PathTooLong);
    }
    Ok(until)
}

/// Makes webpki's verdict an error that names the certificate at fault.
fn diagnose(
    chain: &PresentedChain<'_>,
    error: &webpki::Error,
    anchors: &[&Anchor],
    now: UnixTime,
) -> ChainError {
    let row = row(chain);
    let last = row.last().map_or_else(|| chain.x509().clone(), Clone::clone);
    let subject_where = |at_fault: &dyn Fn(&X509Certificate<'_>) -> bool| {
        let found = row.iter().find(|x509| at_fault(x509)).unwrap_or(chain.x509());
        name::shown(found.subject())
    };
    let is_ca = |x509: &X509Certificate<'_>| x509.is_ca();
    // The reasons that webpki reports as a signature it cannot check.
    let signers = row.iter().skip(1);
    let weak_key = signers.filter_map(|x509| weak_rsa_bits(x509).map(|bits| (x509, bits))).next();
    let weak = row.iter().find_map(|x509| weak_hash(x509).map(|hash| (x509, hash)));
    use webpki::Error as E;
    match error {
        E::CertExpired { .. } | E::CertNotValidYet { .. } | E::InvalidCertValidity => {
            let at_fault = row.iter().find_map(|x509| check_time(x509, now).err().map(|when| (x509, when)));
            match at_fault {
                Some((x509, when)) => ChainError::OutOfTime { subject: name::shown(x509.subject()), when },
                None => ChainError::Unreadable("a certificate ends before it begins".into()),
            }
        }
        E::UnknownIssuer => unknown_issuer(&last, row.len() - 1, anchors, now),
        // The customary self-signed ones have CA:TRUE; most likely the operator forgot to register the thumbprint.
        E::CaUsedAsEndEntity if is_self_issued(chain.x509()) => ChainError::SelfSigned,
        E::CaUsedAsEndEntity => ChainError::CaAsDevice,
        E::EndEntityUsedAsCa => {
            let others = row.iter().skip(1).find(|x509| !is_ca(x509));
            ChainError::IssuerNotCa(name::shown(others.unwrap_or(&last).subject()))
        }
        E::PathLenConstraintViolated | E::MaximumPathDepthExceeded => ChainError::PathTooLong,
        E::NameConstraintViolation => ChainError::NameConstraint,
        E::RequiredEkuNotFoundContext(_) | E::EmptyEkuExtension => {
            ChainError::NotForClients(subject_where(&|x509| !may_be_client(x509)))
        }
        E::UnsupportedCertVersion => ChainError::Version(chain.x509().version().0 + 1),
        E::UnsupportedCriticalExtension => ChainError::CriticalExtension(chain.subject()),
        E::MaximumSignatureChecksExceeded
        | E::MaximumPathBuildCallsExceeded
        | E::MaximumNameConstraintComparisonsExceeded => ChainError::Budget,
        _ => match (weak, weak_key) {
            (Some((x509, hash)), _) => {
                ChainError::WeakSignature { subject: name::shown(x509.subject()), hash }
            }
            (None, Some((x509, bits))) => ChainError::WeakKey { subject: name::shown(x509.subject()), bits },
            (None, None) if matches!(error, E::InvalidSignatureForPublicKey) => bad_signature(&row, &last),
            // A version 1 certificate has no version field, which webpki takes for bad encoding.
            (None, None) if chain.x509().version().0 != 2 => {
                ChainError::Version(chain.x509().version().0 + 1)
            }
            (None, None) => ChainError::Unreadable(format!("{error:?}")),
        },
    }
}

/// The certificates in the order of who signed whom, as far as their names lead; the device's first.
fn row<'a>(chain: &PresentedChain<'a>) -> Vec<X509Certificate<'a>> {
    let mut others = readable(chain.others());
    let mut row = vec![chain.x509().clone()];
    while let Some(last) = row.last()
        && last.issuer().as_raw() != last.subject().as_raw()
        && let Some(next) = others.iter().position(|other| other.subject().as_raw() == last.issuer().as_raw())
    {
        row.push(others.swap_remove(next));
    }
    row
}

fn unknown_issuer(
    last: &X509Certificate<'_>,
    intermediates: usize,
    anchors: &[&Anchor],
    now: UnixTime,
) -> ChainError {
    let issuer = name::shown(last.issuer());
    let out_of_time = anchors.iter().filter(|anchor| anchor.subject() == issuer);
    let out_of_time = out_of_time.filter_map(|anchor| Some((anchor, anchor.check_time(now).err()?))).next();
    if let Some((anchor, when)) = out_of_time {
        return ChainError::AnchorOutOfTime { subject: anchor.subject().to_owned(), when };
    }
    if intermediates == 0 && is_self_issued(last) {
        return ChainError::SelfSigned;
    }
    ChainError::UnknownIssuer { issuer, intermediates }
}

fn is_self_issued(x509: &X509Certificate<'_>) -> bool {
    x509.issuer().as_raw() == x509.subject().as_raw()
}

/// The step of the row that is signed by another key, or the last step, which the anchor should have signed.
fn bad_signature(row: &[X509Certificate<'_>], last: &X509Certificate<'_>) -> ChainError {
    let broken = row.windows(2).find_map(|pair| match pair {
        [one, signer] if one.verify_signature(Some(signer.public_key())).is_err() => Some(one),
        _ => None,
    });
    let at_fault = broken.unwrap_or(last);
    ChainError::BadSignature {
        subject: name::shown(at_fault.subject()),
        issuer: name::shown(at_fault.issuer()),
    }
}

fn readable<'a>(certificates: &'a [CertificateDer<'a>]) -> Vec<X509Certificate<'a>> {
    certificates.iter().filter_map(|der| X509Certificate::from_der(der).ok()).map(|(_, x509)| x509).collect()
}

/// The hash of a signature that anybody may forge by now.
pub(crate) fn weak_hash(x509: &X509Certificate<'_>) -> Option<&'static str> {
    match x509.signature_algorithm.algorithm.to_id_string().as_str() {
        "1.2.840.113549.1.1.2" => Some("MD2"),
        "1.2.840.113549.1.1.4" => Some("MD5"),
        "1.2.840.113549.1.1.5" | "1.2.840.10045.4.1" | "1.2.840.10040.4.3" => Some("SHA-1"),
        _ => None,
    }
}

fn sent(intermediates: usize) -> String {
    match intermediates {
        0 => " (no intermediate was sent along)".to_owned(),
        1 => " (1 intermediate was sent along)".to_owned(),
        many => format!(" ({many} intermediates were sent along)"),
    }
}

impl fmt::Display for OutOfTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = |time: &UnixTime| {
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX)
        };
        match self {
            OutOfTime::Expired(since) => write!(f, "expired at {}", date(since)),
            OutOfTime::NotYetValid(from) => write!(f, "is not valid before {}", date(from)),
        }
    }
}

/// What a CA may sign with. No SHA-1, no MD5, no RSA key under 2048 bits.
const ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P256_SHA512,
    algorithms::ECDSA_P384_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ECDSA_P384_SHA512,
    algorithms::ECDSA_P521_SHA256,
    algorithms::ECDSA_P521_SHA384,
    algorithms::ECDSA_P521_SHA512,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA256_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA384_ABSENT_PARAMS,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
    algorithms::RSA_PKCS1_2048_8192_SHA512_ABSENT_PARAMS,
    algorithms::RSA_PSS_2048_8192_SHA256_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA384_LEGACY_KEY,
    algorithms::RSA_PSS_2048_8192_SHA512_LEGACY_KEY,
];
/// Intermediates of one name that a chain may hold: a cross-signed one has two or three certificates.
const ALIKE_MAX: usize = 3;

#[cfg(test)]
mod tests;
