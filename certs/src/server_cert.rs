//! A server's certificate and key from PEM: do they belong together, which names, until when.

use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ca::unix_time;
use crate::key::PrivateKey;
use crate::pem::{self, PemError};

/// What a TLS server shows and signs with. The key belongs to the first certificate of the chain.
#[derive(Debug)]
pub struct ServerCert {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    names: Vec<Name>,
    valid_from: UnixTime,
    valid_until: UnixTime,
}

/// A name a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Dns(String),
    Ip(IpAddr),
}

/// Why a certificate and key cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServerCertError {
    /// The text of the chain is not PEM, or holds something else.
    #[error("the certificate cannot be read")]
    Chain(#[source] PemError),
    /// The text of the key is not PEM, or does not hold one key.
    #[error("the private key cannot be read")]
    Key(#[source] PemError),
    /// The bytes of the first one are no certificate.
    #[error("the certificate is not X.509 DER")]
    Unreadable,
    /// The key is of a kind that cannot serve TLS here.
    #[error("the private key is of a kind this program cannot use")]
    KeyUnsupported,
    /// The key is not the certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
}

impl ServerCert {
    /// Reads a chain (the server's own certificate first) and the key that belongs to it.
    pub fn parse(chain_pem: &[u8], key_pem: &[u8]) -> Result<Self, ServerCertError> {
        let chain = pem::read_certificates(chain_pem).map_err(ServerCertError::Chain)?;
        let key = pem::read_key(key_pem).map_err(ServerCertError::Key)?;
        let (_, leaf) = X509Certificate::from_der(&chain[0]).map_err(|_| ServerCertError::Unreadable)?;
        let own = PrivateKey::from_der(&key).map_err(|_| ServerCertError::KeyUnsupported)?;
        if leaf.public_key().raw != own.public_key() {
            return Err(ServerCertError::KeyMismatch);
        }
        let names = names(&leaf);
        let valid_from = unix_time(leaf.validity().not_before);
        let valid_until = unix_time(leaf.validity().not_after);
        Ok(Self { chain, key, names, valid_from, valid_until })
    }

    /// The chain and its key, for the TLS library.
    pub fn into_parts(self) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
        (self.chain, self.key)
    }

    /// The server's own certificate.
    pub fn leaf(&self) -> &CertificateDer<'static> {
        &self.chain[0]
    }

    /// Whether a client that dials `name` takes this certificate for the server's. A wildcard matches one label.
    pub fn covers(&self, name: &ServerName<'_>) -> bool {
        match name {
            ServerName::DnsName(dialled) => self.names.iter().any(|own| match own {
                Name::Dns(pattern) => matches(pattern, dialled.as_ref()),
                Name::Ip(_) => false,
            }),
            ServerName::IpAddress(dialled) => self.names.contains(&Name::Ip(IpAddr::from(*dialled))),
            _ => false,
        }
    }

    /// The first second at which it holds.
    pub fn valid_from(&self) -> UnixTime {
        self.valid_from
    }

    /// The last second at which it holds.
    pub fn valid_until(&self) -> UnixTime {
        self.valid_until
    }
}

/// The alternative names; a certificate's common name has not counted as a name since RFC 6125.
fn names(leaf: &X509Certificate<'_>) -> Vec<Name> {
    let Ok(Some(alternatives)) = leaf.subject_alternative_name() else { return Vec::new() };
    alternatives.value.general_names.iter().filter_map(name).collect()
}

fn name(general: &GeneralName<'_>) -> Option<Name> {
    match general {
        GeneralName::DNSName(text) => Some(Name::Dns((*text).to_owned())),
        GeneralName::IPAddress(octets) => {
            let four = <[u8; 4]>::try_from(*octets).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(*octets).map(IpAddr::from)).ok().map(Name::Ip)
        }
        _ => None,
    }
}

fn matches(pattern: &str, dialled: &str) -> bool {
    if let Some(domain) = pattern.strip_prefix("*.") {
        return dialled
            .split_once('.')
            .is_some_and(|(label, rest)| !label.is_empty() && rest.eq_ignore_ascii_case(domain));
    }
    pattern.eq_ignore_ascii_case(dialled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestCa;

    fn covers(names: &[&str], dialled: &str) -> bool {
        let made = TestCa::new().server(names);
        let cert = ServerCert::parse(made.certificate_pem.as_bytes(), made.key_pem.as_bytes()).unwrap();
        cert.covers(&ServerName::try_from(dialled).unwrap())
    }

    #[test]
    fn a_certificate_covers_its_names_and_no_others() {
        let names = ["hub.example.test", "localhost", "127.0.0.1", "::1"];
        for own in ["hub.example.test", "HUB.example.TEST", "localhost", "127.0.0.1", "::1"] {
            assert!(covers(&names, own), "{own}");
        }
        for other in ["example.test", "a.hub.example.test", "127.0.0.2", "::2", "ub.example.test"] {
            assert!(!covers(&names, other), "{other}");
        }
    }

    #[test]
    fn a_wildcard_is_one_label() {
        assert!(matches("*.example.test", "hub.EXAMPLE.test"));
        assert!(!matches("*.example.test", "a.hub.example.test"));
        assert!(!matches("*.example.test", "example.test"));
        assert!(!matches("*.example.test", ".example.test"));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let ca = TestCa::new();
        let (one, other) = (ca.server(&["localhost"]), ca.server(&["localhost"]));
        let mixed = ServerCert::parse(one.certificate_pem.as_bytes(), other.key_pem.as_bytes());
        assert_eq!(mixed.unwrap_err(), ServerCertError::KeyMismatch);
        let swapped = ServerCert::parse(one.key_pem.as_bytes(), one.certificate_pem.as_bytes());
        assert_eq!(swapped.unwrap_err(), ServerCertError::Chain(PemError::KeyAmongCertificates));
    }

    #[test]
    fn the_first_certificate_is_the_servers_own() {
        let ca = TestCa::new();
        let made = ca.server(&["localhost"]);
        let chain = format!("{}{}", made.certificate_pem, ca.pem());
        let cert = ServerCert::parse(chain.as_bytes(), made.key_pem.as_bytes()).unwrap();
        assert_eq!(cert.leaf(), &made.certificate);
        assert_eq!(cert.into_parts().0.len(), 2);
        let reversed = format!("{}{}", ca.pem(), made.certificate_pem);
        let refused = ServerCert::parse(reversed.as_bytes(), made.key_pem.as_bytes());
        assert_eq!(refused.unwrap_err(), ServerCertError::KeyMismatch);
    }
}
