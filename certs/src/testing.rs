//! Certificates for tests: a CA and whatever it signs, in one call each. Everything panics instead of failing.

use std::time::Duration;

use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::ca::{self, CertificateAuthority, Minted, Validity};
use crate::key::PrivateKey;

/// A CA of its own for one test.
#[derive(Debug)]
pub struct TestCa(CertificateAuthority);

/// A certificate and its key, as values and as PEM text.
#[derive(Debug)]
pub struct TestCert {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key: PrivateKeyDer<'static>,
    pub key_pem: String,
}

impl TestCa {
    #[expect(clippy::new_without_default, reason = "each one is different: nothing here is a default")]
    pub fn new() -> Self {
        Self(CertificateAuthority::self_signed(new_key(), UnixTime::now()).expect("a CA"))
    }

    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.0.certificate()
    }

    pub fn pem(&self) -> &str {
        self.0.pem()
    }

    /// A server's certificate for these DNS names and IP addresses.
    pub fn server(&self, names: &[&str]) -> TestCert {
        self.server_at(names, UnixTime::now())
    }

    /// A server's certificate that has expired.
    pub fn expired_server(&self, names: &[&str]) -> TestCert {
        self.server_at(names, UnixTime::since_unix_epoch(Duration::from_secs(LONG_AGO)))
    }

    /// A device's certificate, valid for an hour.
    pub fn device(&self, common_name: &str) -> TestCert {
        let key = new_key();
        let minted = self.0.sign(device_params(common_name), &key).expect("a device certificate");
        TestCert::new(minted, &key)
    }

    /// A device's certificate that no CA has signed, valid for an hour. It says `CA:TRUE`, as those of the customary
    /// `openssl req -x509` do.
    pub fn self_signed_device(common_name: &str) -> TestCert {
        let key = new_key();
        let mut params = device_params(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let made = params.self_signed(key.signer()).expect("a device certificate");
        TestCert::new(Minted { pem: made.pem(), certificate: made.into() }, &key)
    }

    fn server_at(&self, names: &[&str], now: UnixTime) -> TestCert {
        let key = new_key();
        let names: Vec<_> =
            names.iter().map(|name| ServerName::try_from(*name).expect("a server's name")).collect();
        TestCert::new(self.0.sign_server(&key, &names, now).expect("a server certificate"), &key)
    }
}

impl TestCert {
    fn new(minted: Minted, key: &PrivateKey) -> Self {
        Self {
            certificate: minted.certificate,
            certificate_pem: minted.pem,
            key: key.to_der(),
            key_pem: key.to_pem(),
        }
    }
}

fn device_params(common_name: &str) -> rcgen::CertificateParams {
    let now = UnixTime::now();
    let validity = Validity { from: now, until: ca::later(now, Duration::from_secs(60 * 60)) };
    let mut params = ca::params(common_name, validity).expect("certificate parameters");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn new_key() -> PrivateKey {
    PrivateKey::generate().expect("a key")
}

/// September 2001, in seconds since 1970.
const LONG_AGO: u64 = 1_000_000_000;
