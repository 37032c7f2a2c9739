//! Reads and writes PEM text. No other file knows which library does.

use rustls_pemfile::Item;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// Why a PEM text is not what was expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// The text is not PEM; the reason is given.
    #[error("it is not PEM text: {0}")]
    Malformed(String),
    /// The text is PEM without a certificate.
    #[error("it holds no certificate")]
    NoCertificate,
    /// The text holds more certificates than are read.
    #[error("it holds more than {CERTIFICATES_MAX} certificates")]
    TooManyCertificates,
    /// The text holds a private key, which is to stay where it is.
    #[error("it holds a private key where only certificates belong")]
    KeyAmongCertificates,
    /// The text holds no private key that is not encrypted.
    #[error("it holds no private key (an encrypted one cannot be used)")]
    NoKey,
    /// The text holds more private keys than one.
    #[error("it holds more than one private key")]
    ManyKeys,
}

/// Every certificate of a bundle, in its order; at least one.
pub fn read_certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let items = items(text)?;
    let is_key = |item: &Item| matches!(item, Item::Pkcs1Key(_) | Item::Pkcs8Key(_) | Item::Sec1Key(_));
    if items.iter().any(is_key) {
        return Err(PemError::KeyAmongCertificates);
    }
    certificates(items)
}

/// As `read_certificates`, of a file that may hold its owner's key too.
pub fn read_certificates_beside_keys(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    certificates(items(text)?)
}

fn certificates(items: Vec<Item>) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates: Vec<_> = items
        .into_iter()
        .filter_map(|item| match item {
            Item::X509Certificate(certificate) => Some(certificate),
            _ => None,
        })
        .collect();
    match certificates.len() {
        0 => Err(PemError::NoCertificate),
        1..=CERTIFICATES_MAX => Ok(certificates),
        _ => Err(PemError::TooManyCertificates),
    }
}

/// A certificate as PEM text.
pub fn write_certificate(certificate: &CertificateDer<'_>) -> String {
    let block = ::pem::Pem::new("CERTIFICATE", certificate.as_ref());
    ::pem::encode_config(&block, ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF))
}

/// The one private key of a text; certificates beside it are passed over.
pub fn read_key(text: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    let mut keys = items(text)?.into_iter().filter_map(|item| match item {
        Item::Pkcs1Key(key) => Some(PrivateKeyDer::Pkcs1(key)),
        Item::Pkcs8Key(key) => Some(PrivateKeyDer::Pkcs8(key)),
        Item::Sec1Key(key) => Some(PrivateKeyDer::Sec1(key)),
        _ => None,
    });
    let key = keys.next().ok_or(PemError::NoKey)?;
    if keys.next().is_some() { Err(PemError::ManyKeys) } else { Ok(key) }
}

fn items(mut text: &[u8]) -> Result<Vec<Item>, PemError> {
    let items = rustls_pemfile::read_all(&mut text);
    items.collect::<Result<_, _>>().map_err(|error| PemError::Malformed(error.to_string()))
}

/// More than any system's list of trusted roots.
const CERTIFICATES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn a_bundle_is_read_in_order() {
        let ca = TestCa::new();
        let server = ca.server(&["localhost"]);
        let bundle = format!("a comment\n{}{}", server.certificate_pem, ca.pem());
        let read = read_certificates(bundle.as_bytes()).unwrap();
        assert_eq!(read, [server.certificate, ca.certificate().clone()]);
    }

    #[test]
    fn what_is_written_is_read() {
        let ca = TestCa::new();
        let text = write_certificate(ca.certificate());
        assert!(text.ends_with("-----END CERTIFICATE-----\n") && !text.contains('\r'));
        assert_eq!(read_certificates(text.as_bytes()).unwrap(), [ca.certificate().clone()]);
    }

    #[test]
    fn a_key_is_read_beside_its_certificate() {
        let server = TestCa::new().server(&["localhost"]);
        let both = format!("{}{}", server.certificate_pem, server.key_pem);
        assert_eq!(read_key(both.as_bytes()), Ok(server.key));
        assert_eq!(read_certificates_beside_keys(both.as_bytes()), Ok(vec![server.certificate]));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let server = TestCa::new().server(&["localhost"]);
        let twice = format!("{0}{0}", server.key_pem);
        assert_eq!(read_certificates(b""), Err(PemError::NoCertificate));
        assert_eq!(read_certificates(server.key_pem.as_bytes()), Err(PemError::KeyAmongCertificates));
        assert_eq!(read_key(server.certificate_pem.as_bytes()), Err(PemError::NoKey));
        assert_eq!(read_key(twice.as_bytes()), Err(PemError::ManyKeys));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(read_key(encrypted.as_bytes()), Err(PemError::NoKey));
    }

    #[test]
    fn t912_a_cut_file_is_refused() {
        let pem = TestCa::new().pem().to_owned();
        for end in 1..pem.len() - "-\n".len() {
            assert!(read_certificates(&pem.as_bytes()[..end]).is_err(), "cut at {end}");
        }
    }

    #[test]
    fn a_bundle_has_a_bound() {
        let pem = TestCa::new().pem().repeat(CERTIFICATES_MAX + 1);
        assert_eq!(read_certificates(pem.as_bytes()), Err(PemError::TooManyCertificates));
    }
}
