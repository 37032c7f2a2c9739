//! What a client certificate is worth at the TLS door: proof that the peer holds its key, and nothing else.
//!
//! A certificate is asked for and need not come. One that comes is bounded before a signature is looked at, and the
//! handshake's signature is checked with its key, always: a public certificate alone gets nobody in (threats T403).
//! Only the key is taken from it, so that certificates of version 1 or with `CA:TRUE` are proven like any other
//! (threats T402). Who signed it, for what and until when is decided at CONNECT, against the registry.

use std::sync::Arc;

use portcullis_certs::presented::{BadSignature, PresentedChain};
use portcullis_certs::thumbprint::Sha256Thumbprint;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerMisbehaved,
    SignatureScheme,
};

/// Asks for a client certificate, takes any, and has its key proven.
#[derive(Debug)]
pub(super) struct PossessionOnly {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionOnly {
    /// The algorithms that a signature scheme may stand for.
    fn algorithms_of(
        &self,
        scheme: SignatureScheme,
    ) -> Result<&'static [&'static dyn SignatureVerificationAlgorithm], Error> {
        let found = self.algorithms.mapping.iter().find(|(known, _)| *known == scheme);
        found
            .map(|(_, algorithms)| *algorithms)
            .ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into())
    }
}

impl ClientCertVerifier for PossessionOnly {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Empty: a client shows whatever certificate it has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        match PresentedChain::parse(end_entity, intermediates) {
            Ok(_) => Ok(ClientCertVerified::assertion()),
            Err(refused) => Err(certificate_error(refused)),
        }
    }

    /// In TLS 1.2 a scheme does not say which curve: each that fits is tried.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let chain = own_certificate(cert)?;
        for algorithm in self.algorithms_of(dss.scheme)? {
            match chain.verify_signature(*algorithm, message, dss.signature()) {
                Ok(()) => return Ok(HandshakeSignatureValid::assertion()),
                Err(BadSignature::OtherKeyType) => {}
                Err(BadSignature::Invalid) => break,
            }
        }
        Err(certificate_error(NotItsOwn::of(&chain)))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let chain = own_certificate(cert)?;
        verify_tls13_signature_with_raw_key(message, &chain.public_key(), dss, &self.algorithms).map_err(
            |error| match error {
                Error::InvalidCertificate(_) => certificate_error(NotItsOwn::of(&chain)),
                misbehaved => misbehaved,
            },
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The peer's certificate, for its key.
fn own_certificate<'a>(certificate: &'a CertificateDer<'a>) -> Result<PresentedChain<'a>, Error> {
    PresentedChain::parse(certificate, &[]).map_err(certificate_error)
}

/// A certificate that somebody shows who does not hold its key: stolen, most likely.
#[derive(Debug, thiserror::Error)]
#[error("the peer does not hold the key of the certificate it shows, {subject} (thumbprint {thumbprint})")]
struct NotItsOwn {
    subject: String,
    thumbprint: Sha256Thumbprint,
}

impl NotItsOwn {
    fn of(chain: &PresentedChain<'_>) -> Self {
        Self { subject: chain.subject(), thumbprint: chain.thumbprints().sha256 }
    }
}

/// A refusal whose reason the operator will hear; the peer hears an alert.
fn certificate_error(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}
