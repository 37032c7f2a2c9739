//! Certificates for a fleet: the CAs that sign devices', the devices' own, and the proof that a CA's key is held.
//!
//! Source for what they must say: IoT Hub, "Authenticate identities with X.509 certificates".

use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};
use rustls_pki_types::UnixTime;

use crate::ca::{CaError, CertificateAuthority, Minted, Validity, later, params};
use crate::key::PrivateKey;

impl CertificateAuthority {
    /// A new root CA for devices, named as the operator likes. Intermediates may be below it.
    pub fn root_for_devices(
        key: PrivateKey,
        common_name: &str,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, CaError> {
        let until = later(now, lifetime);
        let params = ca_params(common_name, Validity { from: now, until })?;
        let made = params.self_signed(key.signer()).map_err(CaError::Mint)?;
        Ok(Self::new(Minted { pem: made.pem(), certificate: made.into() }, until, key))
    }

    /// A new CA below this one; it ends no later.
    pub fn intermediate_for_devices(
        &self,
        key: PrivateKey,
        common_name: &str,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Self, CaError> {
        let until = self.end(lifetime, now)?;
        let params = ca_params(common_name, Validity { from: now, until })?;
        let minted = self.sign_as_it_is(params, &key)?;
        Ok(Self::new(minted, until, key))
    }

    /// A certificate for the device or module of exactly this name; it ends no later than the CA.
    pub fn sign_device(
        &self,
        key: &PrivateKey,
        common_name: &str,
        lifetime: Duration,
        now: UnixTime,
    ) -> Result<Minted, CaError> {
        let until = self.end(lifetime, now)?;
        self.sign(device_params(common_name, Validity { from: now, until })?, key)
    }

    /// A certificate that proves to the hub that gave `code` that the caller holds this CA's key. Valid for a day.
    pub fn prove_possession(&self, code: &str, now: UnixTime) -> Result<Minted, CaError> {
        let key = PrivateKey::generate().map_err(CaError::Key)?;
        self.sign_device(&key, code, PROOF_LIFETIME, now)
    }

    fn end(&self, lifetime: Duration, now: UnixTime) -> Result<UnixTime, CaError> {
        if now >= self.valid_until() {
            return Err(CaError::Expired);
        }
        Ok(later(now, lifetime).min(self.valid_until()))
    }
}

/// A certificate of a device's own, which no CA has signed: the hub must know its thumbprint.
pub fn self_signed_device(
    key: &PrivateKey,
    common_name: &str,
    lifetime: Duration,
    now: UnixTime,
) -> Result<Minted, CaError> {
    let mut params = device_params(common_name, Validity { from: now, until: later(now, lifetime) })?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let made = params.self_signed(key.signer()).map_err(CaError::Mint)?;
    Ok(Minted { pem: made.pem(), certificate: made.into() })
}

/// A common name of any length: ids may have 128 characters, a module's name 257, and both are compared whole.
pub(crate) fn device_params(common_name: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = params(common_name, validity)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(params)
}

fn ca_params(common_name: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    let mut params = params(common_name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

const PROOF_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::anchor::Anchor;
    use crate::chain::{self, ChainError};
    use crate::presented::PresentedChain;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn now() -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000))
    }

    fn key() -> PrivateKey {
        PrivateKey::generate().unwrap()
    }

    #[test]
    fn what_is_made_is_let_in_and_ends_with_its_ca() {
        let root = CertificateAuthority::root_for_devices(key(), "fleet", DAY * 30, now()).unwrap();
        let below = root.intermediate_for_devices(key(), "line 1", DAY * 365, now()).unwrap();
        let name = format!("{}/{}", "d".repeat(128), "m".repeat(128));
        let device = below.sign_device(&key(), &name, DAY * 365, now()).unwrap();
        let anchor = Anchor::parse_pem(root.pem().as_bytes()).unwrap();
        let others = [below.certificate().clone()];
        let chain = PresentedChain::parse(&device.certificate, &others).unwrap();
        let verified = chain::verify(&chain, &[&anchor], now()).unwrap();
        assert_eq!(verified.valid_until, later(now(), DAY * 30));
        assert_eq!(chain.common_name(), Ok(name.as_str()));
        assert!(matches!(root.sign_device(&key(), "d", DAY, later(now(), DAY * 30)), Err(CaError::Expired)));
    }

    #[test]
    fn a_proof_proves_its_ca_and_code_for_a_day() {
        let root = CertificateAuthority::root_for_devices(key(), "fleet", DAY * 30, now()).unwrap();
        let other = CertificateAuthority::root_for_devices(key(), "fleet", DAY * 30, now()).unwrap();
        let anchor = Anchor::parse_pem(root.pem().as_bytes()).unwrap();
        let proof = root.prove_possession("CODE", now()).unwrap();
        assert_eq!(anchor.check_proof(proof.pem.as_bytes(), "CODE", now()), Ok(()));
        assert!(anchor.check_proof(proof.pem.as_bytes(), "OTHER", now()).is_err());
        assert!(anchor.check_proof(proof.pem.as_bytes(), "CODE", later(now(), DAY * 2)).is_err());
        let forged = other.prove_possession("CODE", now()).unwrap();
        assert!(anchor.check_proof(forged.pem.as_bytes(), "CODE", now()).is_err());
    }

    #[test]
    fn a_device_may_sign_its_own() {
        let made = self_signed_device(&key(), "d1", DAY, now()).unwrap();
        let chain = PresentedChain::parse(&made.certificate, &[]).unwrap();
        assert_eq!(chain.common_name(), Ok("d1"));
        assert_eq!(chain.check_time(now()), Ok(()));
        assert_eq!(chain::verify(&chain, &[], now()).unwrap_err(), ChainError::SelfSigned);
    }
}
