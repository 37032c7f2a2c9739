//! Certificates for tests: a CA and whatever it signs, in one call each. Everything panics instead of failing.

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::ASN1Time;

use crate::ca::{self, CertificateAuthority, Minted, Validity};
use crate::fleet;
use crate::key::PrivateKey;

/// A CA of its own for one test.
#[derive(Debug)]
pub struct TestCa(CertificateAuthority);

/// A certificate and its key, as values and as PEM text.
#[derive(Debug)]
pub struct TestCert {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The same as PEM text.
    pub certificate_pem: String,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
    /// The same as PEM text.
    pub key_pem: String,
}

impl TestCa {
    /// A new root CA for servers, unlike any other.
    #[expect(clippy::new_without_default, reason = "each one is different: nothing here is a default")]
    pub fn new() -> Self {
        Self(CertificateAuthority::self_signed(new_key(), UnixTime::now()).expect("a CA"))
    }

    /// The certificate of the CA.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        self.0.certificate()
    }

    /// The same as PEM text.
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

    /// A server's certificate that says what `change` makes of it.
    pub fn server_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> TestCert {
        self.device_with(names.first().copied().unwrap_or_default(), |params| {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            params.subject_alt_names = CertificateParams::new(names).expect("names").subject_alt_names;
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            change(params);
        })
    }

    /// A device's certificate, valid for an hour.
    pub fn device(&self, common_name: &str) -> TestCert {
        let key = new_key();
        let minted = self.0.sign(device_params(common_name), &key).expect("a device certificate");
        TestCert::new(minted, &key)
    }

    /// An end entity's certificate that says what `change` makes of a device's.
    pub fn device_with(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> TestCert {
        let key = new_key();
        let mut params = device_params(common_name);
        params.is_ca = IsCa::ExplicitNoCa;
        change(&mut params);
        TestCert::new(self.0.sign_as_it_is(params, &key).expect("a device certificate"), &key)
    }

    /// A root CA for devices, valid for a day, that says what `change` makes of it.
    pub fn root_with(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = new_key();
        let made = ca_params(common_name, change).self_signed(key.signer()).expect("a CA");
        Self::of(Minted { pem: made.pem(), certificate: made.into() }, key)
    }

    /// A CA below this one, valid for a day, that says what `change` makes of it.
    pub fn intermediate_with(&self, common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = new_key();
        let minted = self.0.sign_as_it_is(ca_params(common_name, change), &key).expect("an intermediate");
        Self::of(minted, key)
    }

    /// A device's certificate that holds from and until so many seconds from now.
    pub fn device_at(&self, common_name: &str, from: i64, until: i64) -> TestCert {
        self.device_with(common_name, |params| set_time(params, from, until))
    }

    /// An intermediate CA below this one.
    pub fn intermediate(&self, common_name: &str) -> Self {
        self.intermediate_with(common_name, |_| {})
    }

    /// A root CA for devices.
    pub fn root(common_name: &str) -> Self {
        Self::root_with(common_name, |_| {})
    }

    /// Another certificate for the same key and name, signed by `signer`.
    pub fn cross_signed_by(&self, signer: &TestCa, common_name: &str) -> CertificateDer<'static> {
        let params = ca_params(common_name, |_| {});
        signer.0.sign_as_it_is(params, self.0.key()).expect("a cross-signed certificate").certificate
    }

    fn of(minted: Minted, key: PrivateKey) -> Self {
        let until = ca::later(UnixTime::now(), Duration::from_secs(24 * 60 * 60));
        Self(CertificateAuthority::new(minted, until, key))
    }

    /// The CA itself.
    pub fn authority(&self) -> &CertificateAuthority {
        &self.0
    }

    /// A device's certificate that no CA has signed, which says what `change` makes of it.
    pub fn self_signed_with(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> TestCert {
        let key = new_key();
        let mut params = device_params(common_name);
        change(&mut params);
        let made = params.self_signed(key.signer()).expect("a device certificate");
        TestCert::new(Minted { pem: made.pem(), certificate: made.into() }, &key)
    }

    /// A device's certificate that no CA has signed, valid for an hour. It says `CA:TRUE`, as those of the customary
    /// `openssl req -x509` do.
    pub fn self_signed_device(common_name: &str) -> TestCert {
        Self::self_signed_with(common_name, |params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))
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

/// What a device's certificate says here; a test may make it say something else.
pub fn device_params(common_name: &str) -> CertificateParams {
    let now = UnixTime::now();
    let validity = Validity { from: now, until: ca::later(now, Duration::from_secs(60 * 60)) };
    fleet::device_params(common_name, validity).expect("certificate parameters")
}

fn ca_params(common_name: &str, change: impl FnOnce(&mut CertificateParams)) -> CertificateParams {
    let now = UnixTime::now();
    let validity = Validity { from: now, until: ca::later(now, Duration::from_secs(24 * 60 * 60)) };
    let mut params = ca::params(common_name, validity).expect("certificate parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    change(&mut params);
    params
}

/// Makes a certificate hold from and until so many seconds from now; negative ones are past.
pub fn set_time(params: &mut CertificateParams, from: i64, until: i64) {
    let now = i64::try_from(UnixTime::now().as_secs()).expect("a time of this age");
    let date = |seconds| ASN1Time::from_timestamp(now + seconds).expect("a time").to_datetime();
    params.not_before = date(from);
    params.not_after = date(until);
}

fn new_key() -> PrivateKey {
    PrivateKey::generate().expect("a key")
}

/// September 2001, in seconds since 1970.
const LONG_AGO: u64 = 1_000_000_000;
