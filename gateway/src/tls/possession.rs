//! The check of a client certificate in the handshake: the peer must hold its key. Nothing else is checked here.
//!
//! A client need not send a certificate. The hub limits a certificate's size before it checks a signature. It always
//! checks the handshake's signature with the certificate's key, so nobody gets in with a public certificate alone
//! (threats T403). Only the key is used, so certificates of version 1 or with `CA:TRUE` are checked like any other
//! (threats T402). CONNECT checks the issuer, the purpose and the dates against the registry.

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

/// Asks for a client certificate, accepts any, and checks that the peer holds its key.
#[derive(Debug)]
pub(super) struct PossessionOnly {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl PossessionOnly {
    /// The algorithms of a signature scheme.
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

    /// Empty, so that a client sends whatever certificate it has.
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

    /// In TLS 1.2 a scheme does not name the curve, so each algorithm of the scheme is tried.
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

/// A peer sends a certificate whose key it does not hold. The certificate is probably stolen.
#[derive(Debug, thiserror::Error)]
#[error("the peer does not hold the key of the certificate it sent, {subject} (thumbprint {thumbprint})")]
struct NotItsOwn {
    subject: String,
    thumbprint: Sha256Thumbprint,
}

impl NotItsOwn {
    fn of(chain: &PresentedChain<'_>) -> Self {
        Self { subject: chain.subject(), thumbprint: chain.thumbprints().sha256 }
    }
}

/// A refusal whose reason goes to the operator. The peer gets an alert.
fn certificate_error(reason: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(reason))))
}
