//! A certificate authority of our own: makes its certificate and signs servers' with it.
//!
//! Lifetimes: the CA ten years; a server certificate 825 days, the most that Apple's platforms take from a private CA,
//! and never longer than the CA. Both begin a day early, because devices' clocks lag.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, SerialNumber,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer, X509Certificate};

use crate::key::{KeyError, PrivateKey};
use crate::pem::{self, PemError};

/// A CA with its key.
pub struct CertificateAuthority {
    certificate: CertificateDer<'static>,
    pem: String,
    valid_until: UnixTime,
    key: PrivateKey,
}

/// A certificate just made.
#[derive(Clone, Debug)]
pub struct Minted {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The same as PEM text.
    pub pem: String,
}

/// Why a CA cannot be had, or does not sign.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The text of the certificate is not PEM, or holds something else.
    #[error("the CA certificate cannot be read")]
    Pem(#[source] PemError),
    /// The key cannot be read.
    #[error("the CA's key cannot be read")]
    Key(#[source] KeyError),
    /// There are more certificates than one.
    #[error("more than one certificate where the CA's alone belongs")]
    NotAlone,
    /// The bytes are no certificate.
    #[error("the CA certificate is not X.509 DER")]
    Unreadable,
    /// The basic constraint CA:TRUE is absent.
    #[error("the CA certificate has no basic constraint CA:TRUE")]
    NotCa,
    /// The key is not the certificate's.
    #[error("the CA's key does not belong to its certificate")]
    KeyMismatch,
    /// The CA certificate has expired; it signs nothing more.
    #[error("the CA certificate has expired")]
    Expired,
    /// The library that makes certificates failed.
    #[error("no certificate can be made")]
    Mint(#[source] rcgen::Error),
    /// No serial number can be made.
    #[error("the operating system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The time is beyond what a certificate can hold.
    #[error("the clock shows a time no certificate can hold")]
    Clock,
}

impl CertificateAuthority {
    /// A new CA certificate for `key`. Its name depends on nothing but the key, so that one made again for the same
    /// key is trusted by every client that trusted the first.
    pub fn self_signed(key: PrivateKey, now: UnixTime) -> Result<Self, CaError> {
        let digest = Sha256::digest(key.public_key());
        let name =
            format!("Portcullis CA {:02x}{:02x}{:02x}{:02x}", digest[0], digest[1], digest[2], digest[3]);
        let valid_until = later(now, CA_LIFETIME);
        let mut params = params(&name, Validity { from: now, until: valid_until })?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let minted = params.self_signed(key.signer()).map_err(CaError::Mint)?;
        Ok(Self { pem: minted.pem(), certificate: minted.into(), valid_until, key })
    }

    /// A CA just made.
    pub(crate) fn new(minted: Minted, valid_until: UnixTime, key: PrivateKey) -> Self {
        Self { certificate: minted.certificate, pem: minted.pem, valid_until, key }
    }

    pub(crate) fn valid_until(&self) -> UnixTime {
        self.valid_until
    }

    /// Reads a CA from PEM texts; its key must be its certificate's.
    pub fn parse(certificate_pem: &str, key_pem: &[u8]) -> Result<Self, CaError> {
        let mut certificates = pem::read_certificates(certificate_pem.as_bytes()).map_err(CaError::Pem)?;
        let (Some(certificate), true) = (certificates.pop(), certificates.is_empty()) else {
            return Err(CaError::NotAlone);
        };
        let key = PrivateKey::parse_pem(key_pem).map_err(CaError::Key)?;
        let (_, x509) = X509Certificate::from_der(&certificate).map_err(|_| CaError::Unreadable)?;
        if !x509.is_ca() {
            return Err(CaError::NotCa);
        }
        if x509.public_key().raw != key.public_key() {
            return Err(CaError::KeyMismatch);
        }
        let valid_until = unix_time(x509.validity().not_after);
        Ok(Self { pem: certificate_pem.to_owned(), certificate, valid_until, key })
    }

    /// The certificate of the CA.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificate as PEM text: what clients must trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The CA's own key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// Signs a server certificate for `key` that carries every one of `names`; the first is the subject, too.
    pub fn sign_server(
        &self,
        key: &PrivateKey,
        names: &[ServerName<'_>],
        now: UnixTime,
    ) -> Result<Minted, CaError> {
        if now >= self.valid_until {
            return Err(CaError::Expired);
        }
        let names: Vec<String> = names.iter().map(|name| name.to_str().into_owned()).collect();
        // A subject's common name ends at 64 characters (RFC 5280, A.1); the names that count are the alternative ones.
        let subject = names.first().filter(|name| name.len() <= COMMON_NAME_MAX).map_or("", String::as_str);
        let until = later(now, SERVER_LIFETIME).min(self.valid_until);
        let mut params = params(subject, Validity { from: now, until })?;
        params.subject_alt_names = CertificateParams::new(names).map_err(CaError::Mint)?.subject_alt_names;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params, key)
    }

    /// Signs an end-entity certificate for `key`.
    pub(crate) fn sign(&self, mut params: CertificateParams, key: &PrivateKey) -> Result<Minted, CaError> {
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        self.sign_as_it_is(params, key)
    }

    /// Signs a certificate that already says what it is.
    pub(crate) fn sign_as_it_is(
        &self,
        mut params: CertificateParams,
        key: &PrivateKey,
    ) -> Result<Minted, CaError> {
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.certificate, self.key.signer()).map_err(CaError::Mint)?;
        let minted = params.signed_by(key.signer(), &issuer).map_err(CaError::Mint)?;
        Ok(Minted { pem: minted.pem(), certificate: minted.into() })
    }

    /// Whether this CA's key has signed `certificate`.
    pub fn has_signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let (Ok((_, own)), Ok((_, other))) =
            (X509Certificate::from_der(&self.certificate), X509Certificate::from_der(certificate))
        else {
            return false;
        };
        other.issuer().as_raw() == own.subject().as_raw()
            && other.verify_signature(Some(own.public_key())).is_ok()
    }
}

impl fmt::Debug for CertificateAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CertificateAuthority").field("valid_until", &self.valid_until).finish_non_exhaustive()
    }
}

/// From when until when a certificate is to hold.
pub(crate) struct Validity {
    pub(crate) from: UnixTime,
    pub(crate) until: UnixTime,
}

/// A certificate with this common name, if it is not empty, and a random serial number.
pub(crate) fn params(common_name: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if !common_name.is_empty() {
        params.distinguished_name.push(DnType::CommonName, common_name);
    }
    let early = validity.from.as_secs().saturating_sub(CLOCK_LAG.as_secs());
    params.not_before = date(early)?.to_datetime();
    params.not_after = date(validity.until.as_secs())?.to_datetime();
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(CaError::Random)?;
    // A serial number is positive (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

pub(crate) fn later(time: UnixTime, by: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(time.as_secs().saturating_add(by.as_secs())))
}

/// A certificate's time; one before 1970 counts as 1970.
pub(crate) fn unix_time(time: ASN1Time) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0)))
}

fn date(seconds: u64) -> Result<ASN1Time, CaError> {
    let seconds = i64::try_from(seconds).map_err(|_| CaError::Clock)?;
    ASN1Time::from_timestamp(seconds).map_err(|_| CaError::Clock)
}

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const CA_LIFETIME: Duration = Duration::from_secs(3_652 * DAY.as_secs());
const SERVER_LIFETIME: Duration = Duration::from_secs(825 * DAY.as_secs());
const CLOCK_LAG: Duration = DAY;
const SERIAL_BYTES: usize = 16;
const COMMON_NAME_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(days: u64) -> UnixTime {
        UnixTime::since_unix_epoch(
            Duration::from_secs(20_000 * DAY.as_secs()) + DAY * u32::try_from(days).unwrap(),
        )
    }

    fn new_ca() -> CertificateAuthority {
        CertificateAuthority::self_signed(PrivateKey::generate().unwrap(), at(0)).unwrap()
    }

    fn sign(ca: &CertificateAuthority, name: &str, now: UnixTime) -> Minted {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        ca.sign_server(&PrivateKey::generate().unwrap(), &[name], now).unwrap()
    }

    #[test]
    fn a_ca_says_what_it_is() {
        let ca = new_ca();
        let (_, x509) = X509Certificate::from_der(ca.certificate()).unwrap();
        assert!(x509.is_ca());
        let usage = x509.key_usage().unwrap().unwrap().value;
        assert!(usage.key_cert_sign() && usage.crl_sign() && !usage.digital_signature());
        assert_eq!(x509.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
        assert_eq!(later(unix_time(x509.validity().not_before), DAY), at(0));
        assert_eq!(unix_time(x509.validity().not_after), at(3_652));
    }

    #[test]
    fn a_server_certificate_says_what_it_is() {
        let ca = new_ca();
        let names = ["hub.example.test", "127.0.0.1", "::1"].map(|name| ServerName::try_from(name).unwrap());
        let minted = ca.sign_server(&PrivateKey::generate().unwrap(), &names, at(0)).unwrap();
        let (_, x509) = X509Certificate::from_der(&minted.certificate).unwrap();
        assert!(!x509.is_ca() && x509.version().0 == 2);
        assert_eq!(x509.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 3);
        let usage = x509.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.server_auth && !usage.client_auth);
        assert!(x509.key_usage().unwrap().unwrap().value.digital_signature());
        assert_eq!(unix_time(x509.validity().not_after), at(825));
        assert!(x509.raw_serial().len() <= 20 && x509.raw_serial()[0] < 0x80);
    }

    #[test]
    fn two_certificates_never_share_a_serial_number() {
        let ca = new_ca();
        let serial =
            |minted: Minted| X509Certificate::from_der(&minted.certificate).unwrap().1.raw_serial().to_vec();
        assert_ne!(serial(sign(&ca, "localhost", at(0))), serial(sign(&ca, "localhost", at(0))));
    }

    #[test]
    fn a_certificate_ends_no_later_than_its_ca() {
        let ca = new_ca();
        let minted = sign(&ca, "localhost", at(3_600));
        let (_, x509) = X509Certificate::from_der(&minted.certificate).unwrap();
        assert_eq!(unix_time(x509.validity().not_after), at(3_652));
        let name = [ServerName::try_from("localhost").unwrap()];
        let refused = ca.sign_server(&PrivateKey::generate().unwrap(), &name, at(3_652));
        assert!(matches!(refused, Err(CaError::Expired)));
    }

    #[test]
    fn a_ca_survives_pem_and_signs_on() {
        let ca = new_ca();
        let again = CertificateAuthority::parse(ca.pem(), ca.key().to_pem().as_bytes()).unwrap();
        let minted = sign(&again, "localhost", at(1));
        assert!(ca.has_signed(&minted.certificate) && again.has_signed(&minted.certificate));
        assert!(!new_ca().has_signed(&minted.certificate));
    }

    #[test]
    fn a_ca_made_again_for_its_key_is_the_same_ca() {
        let first = new_ca();
        let key = PrivateKey::parse_pem(first.key().to_pem().as_bytes()).unwrap();
        let second = CertificateAuthority::self_signed(key, at(9)).unwrap();
        assert!(first.has_signed(&sign(&second, "localhost", at(9)).certificate));
    }

    #[test]
    fn a_pair_that_does_not_fit_is_refused() {
        let (one, other) = (new_ca(), new_ca());
        let mixed = CertificateAuthority::parse(one.pem(), other.key().to_pem().as_bytes());
        assert!(matches!(mixed, Err(CaError::KeyMismatch)));
        let both = format!("{}{}", one.pem(), other.pem());
        assert!(matches!(
            CertificateAuthority::parse(&both, one.key().to_pem().as_bytes()),
            Err(CaError::NotAlone)
        ));
        let key = PrivateKey::generate().unwrap();
        let name = [ServerName::try_from("localhost").unwrap()];
        let leaf = one.sign_server(&key, &name, at(0)).unwrap();
        assert!(matches!(
            CertificateAuthority::parse(&leaf.pem, key.to_pem().as_bytes()),
            Err(CaError::NotCa)
        ));
    }

    #[test]
    fn a_name_too_long_for_the_subject_is_still_an_alternative_name() {
        let name = format!("{0}.{0}.test", "a".repeat(60));
        let minted = sign(&new_ca(), &name, at(0));
        let (_, x509) = X509Certificate::from_der(&minted.certificate).unwrap();
        assert_eq!(x509.subject().iter_common_name().count(), 0);
        assert_eq!(x509.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 1);
    }
}
