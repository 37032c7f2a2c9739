//! What a client certificate is worth at the TLS door: proof that the peer holds its key, and nothing else.
//!
//! A certificate is asked for and need not come. One that comes is bounded before a signature is looked at, and the
//! handshake's signature is checked with its key, always: a public certificate alone gets nobody in (threats T403).
//! Who signed it, for what and until when is decided at CONNECT, against the registry. A certificate that the
//! signature check cannot read (X.509 version 1) ends the handshake.

use portcullis_certs::presented::{ChainRefused, PresentedChain};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

/// Asks for a client certificate, takes any, and has its key proven.
#[derive(Debug)]
pub(super) struct PossessionOnly {
    pub(super) algorithms: WebPkiSupportedAlgorithms,
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
        let refused = match PresentedChain::parse(end_entity, intermediates) {
            Ok(_) => return Ok(ClientCertVerified::assertion()),
            Err(ChainRefused::Unreadable) => CertificateError::BadEncoding,
            Err(ChainRefused::TooMany(_) | ChainRefused::TooLarge(_)) => {
                CertificateError::ApplicationVerificationFailure
            }
        };
        Err(Error::InvalidCertificate(refused))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
