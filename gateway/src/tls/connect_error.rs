//! Why no connection to a server came about, in an operator's words. The libraries below name their own layers and types
//! first, and what an operator can act on last.

use std::error::Error;
use std::io;

use rustls::{CertificateError, InvalidMessage};

/// Why a server cannot be reached, or is not the one it should be. Reads well behind `HOST:PORT: `.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    #[error("the host name cannot be resolved")]
    NoSuchName,
    #[error("nothing listens there; the connection is refused")]
    Refused,
    #[error("there is no answer in time")]
    TimedOut,
    #[error("there is no route to it")]
    NoRoute,
    #[error("the connection was closed before there was an answer")]
    Closed,
    #[error("it does not speak TLS")]
    NotTls,
    #[error("its certificate is of a CA that is not trusted here")]
    UntrustedCertificate,
    #[error("its certificate is for another name: it is for {}", .0.join(", "))]
    OtherName(Vec<String>),
    #[error("its certificate has expired")]
    Expired,
    #[error("its certificate is not valid yet")]
    NotYetValid,
    #[error("its certificate cannot be used")]
    BadCertificate,
    #[error("the TLS handshake failed")]
    Handshake,
    /// The cause behind all others.
    #[error("{0}")]
    Other(String),
}

impl ConnectError {
    /// What an error of a client comes to, whichever of its causes says so.
    pub fn of(error: &(dyn Error + 'static)) -> Self {
        let mut innermost = error;
        let mut next = Some(error);
        while let Some(cause) = next {
            if let Some(known) = Self::known(cause) {
                return known;
            }
            innermost = cause;
            next = cause.source();
        }
        Self::Other(innermost.to_string())
    }

    /// Whether the server was reached and its certificate is at fault, or what is trusted here.
    pub fn is_about_certificate(&self) -> bool {
        matches!(
            self,
            Self::UntrustedCertificate
                | Self::OtherName(_)
                | Self::Expired
                | Self::NotYetValid
                | Self::BadCertificate
        )
    }

    fn known(cause: &(dyn Error + 'static)) -> Option<Self> {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return Some(Self::of_tls(error));
        }
        if cause.to_string().starts_with(LOOKUP_FAILED) {
            return Some(Self::NoSuchName);
        }
        let error = cause.downcast_ref::<io::Error>()?;
        // What an I/O error carries is not among its sources.
        if let Some(carried) = error.get_ref() {
            return Some(Self::of(carried));
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Some(Self::Refused),
            io::ErrorKind::TimedOut => Some(Self::TimedOut),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Some(Self::NoRoute),
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof => Some(Self::Closed),
            _ => None,
        }
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::NotTls,
            _ => Self::Handshake,
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::UntrustedCertificate,
            CertificateError::NotValidForNameContext { presented, .. } => {
                Self::OtherName(presented.iter().map(|name| plain_name(name).to_owned()).collect())
            }
            CertificateError::NotValidForName => Self::OtherName(vec!["another host".to_owned()]),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => Self::NotYetValid,
            _ => Self::BadCertificate,
        }
    }
}

/// The name in `DnsName("localhost")` or `IpAddress(127.0.0.1)`, as rustls shows the names of a certificate.
fn plain_name(shown: &str) -> &str {
    let inside = shown.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inside.unwrap_or(shown).trim_matches('"')
}

/// How the standard library's error of a look-up begins, which has no kind of its own.
const LOOKUP_FAILED: &str = "failed to lookup address information";

#[cfg(test)]
mod tests {
    use rustls::pki_types::ServerName;

    use super::*;

    /// An error of a client, around another one.
    #[derive(Debug, thiserror::Error)]
    #[error("client error (Connect)")]
    struct Outer<E: Error + 'static>(#[source] E);

    fn of(error: impl Error + 'static) -> String {
        ConnectError::of(&Outer(Outer(error))).to_string()
    }

    fn of_certificate(error: CertificateError) -> String {
        // As tokio-rustls hands it on.
        of(io::Error::new(io::ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error)))
    }

    #[test]
    fn a_network_is_told_of_in_plain_words() {
        for (kind, text) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens there; the connection is refused"),
            (io::ErrorKind::TimedOut, "there is no answer in time"),
            (io::ErrorKind::NetworkUnreachable, "there is no route to it"),
            (io::ErrorKind::ConnectionReset, "the connection was closed before there was an answer"),
        ] {
            assert_eq!(of(io::Error::from(kind)), text);
        }
        assert_eq!(
            of(io::Error::other("failed to lookup address information: Name or service not known")),
            "the host name cannot be resolved"
        );
        assert_eq!(of(io::Error::other("the disk is full")), "the disk is full");
    }

    #[test]
    fn a_certificate_is_told_of_in_plain_words() {
        assert_eq!(
            of_certificate(CertificateError::UnknownIssuer),
            "its certificate is of a CA that is not trusted here"
        );
        let other_name = CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("hub.test").unwrap(),
            presented: vec![r#"DnsName("localhost")"#.into(), "IpAddress(127.0.0.1)".into()],
        };
        assert_eq!(
            of_certificate(other_name),
            "its certificate is for another name: it is for localhost, 127.0.0.1"
        );
        assert_eq!(of_certificate(CertificateError::Expired), "its certificate has expired");
        assert_eq!(of_certificate(CertificateError::NotValidYet), "its certificate is not valid yet");
        assert_eq!(of_certificate(CertificateError::Revoked), "its certificate cannot be used");
    }

    #[test]
    fn a_server_without_tls_is_told_of() {
        let error = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert_eq!(of(io::Error::new(io::ErrorKind::InvalidData, error)), "it does not speak TLS");
    }
}
