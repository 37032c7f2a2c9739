//! What is in a certificate, for an operator who asks why a device is or is not let in.

use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::public_key::PublicKey;

use crate::anchor::may_be_client;
use crate::ca::unix_time;
use crate::name;
use crate::thumbprint::Thumbprints;

/// What is in a certificate, readable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// 1 to 3.
    pub version: u32,
    /// The first second at which it holds.
    pub valid_from: UnixTime,
    /// The last second at which it holds.
    pub valid_until: UnixTime,
    /// The kind and length of its key.
    pub key: String,
    /// Whether its basic constraint says CA:TRUE.
    pub is_ca: bool,
    /// Whether a client may show it (extended key usage).
    pub is_for_clients: bool,
    /// Its hashes.
    pub thumbprints: Thumbprints,
}

impl Description {
    /// Describes a certificate; none if it is not X.509 DER.
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let ([], x509) = X509Certificate::from_der(certificate).ok()? else { return None };
        Some(Self {
            subject: name::shown(x509.subject()),
            issuer: name::shown(x509.issuer()),
            version: x509.version().0 + 1,
            valid_from: unix_time(x509.validity().not_before),
            valid_until: unix_time(x509.validity().not_after),
            key: key(&x509),
            is_ca: x509.is_ca(),
            is_for_clients: may_be_client(&x509),
            thumbprints: Thumbprints::of(certificate),
        })
    }
}

fn key(x509: &X509Certificate<'_>) -> String {
    match x509.public_key().parsed() {
        Ok(PublicKey::RSA(key)) => format!("RSA, {} bits", key.key_size()),
        Ok(PublicKey::EC(point)) => format!("elliptic curve, {} bits", point.key_size()),
        _ if x509.public_key().algorithm.algorithm.to_id_string() == ED25519 => "Ed25519".to_owned(),
        _ => "of another kind".to_owned(),
    }
}

const ED25519: &str = "1.3.101.112";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    #[test]
    fn a_device_and_its_ca_are_told_apart() {
        let ca = TestCa::new();
        let device = Description::of(&ca.device("d1").certificate).unwrap();
        assert_eq!((device.subject.as_str(), device.version), ("CN=d1", 3));
        assert_eq!(device.key, "elliptic curve, 256 bits");
        assert!(!device.is_ca && device.is_for_clients);
        let own = Description::of(ca.certificate()).unwrap();
        assert!(own.is_ca && own.subject == device.issuer);
        assert!(!Description::of(&ca.server(&["localhost"]).certificate).unwrap().is_for_clients);
        assert_eq!(Description::of(&CertificateDer::from(vec![0x30, 0x80])), None);
    }
}
