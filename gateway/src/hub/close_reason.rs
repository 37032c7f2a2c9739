//! Why a session ends, in the words of the log, the metrics and the rules.

use portcullis_registry::access::AccessDenied;

use crate::auth::{Credential, Revoked};
use crate::hub::outcome::ConnectionOutcome;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseReason {
    ClientDisconnected,
    ConnectionLost,
    KeepAliveMissed,
    TokenExpired,
    CertificateExpired,
    /// In words, for the operator.
    ProtocolViolation(String),
    /// The peer wanted to do what its access list does not allow.
    AccessDenied(AccessDenied),
    /// The peer does not take what is sent to it.
    SlowReader,
    /// The same identity connected anew.
    TakenOver,
    Disabled,
    Deleted,
    CredentialChanged,
    /// Its access list allows less than when it connected.
    AccessNarrowed,
    StoreUnavailable,
    /// The hub contradicted itself.
    Internal,
    Shutdown,
}

impl CloseReason {
    /// Why a session ends when what it rests on does.
    pub fn expired(credential: &Credential) -> Self {
        match credential {
            Credential::OwnKey(_) | Credential::PolicyKey { .. } => CloseReason::TokenExpired,
            Credential::Thumbprint(_) | Credential::Authority(_) => CloseReason::CertificateExpired,
        }
    }

    /// The outcome of a session that ended for this.
    pub fn outcome(&self) -> ConnectionOutcome {
        match self {
            CloseReason::ClientDisconnected => ConnectionOutcome::ClientDisconnected,
            CloseReason::ConnectionLost => ConnectionOutcome::ConnectionLost,
            CloseReason::KeepAliveMissed => ConnectionOutcome::KeepAliveMissed,
            CloseReason::TokenExpired => ConnectionOutcome::TokenExpired,
            CloseReason::CertificateExpired => ConnectionOutcome::CertificateExpired,
            CloseReason::ProtocolViolation(_) => ConnectionOutcome::BadProtocol,
            CloseReason::AccessDenied(_) => ConnectionOutcome::AccessDenied,
            CloseReason::SlowReader => ConnectionOutcome::SlowReader,
            CloseReason::TakenOver => ConnectionOutcome::TakenOver,
            CloseReason::Disabled => ConnectionOutcome::Disabled,
            CloseReason::Deleted => ConnectionOutcome::Deleted,
            CloseReason::CredentialChanged => ConnectionOutcome::CredentialChanged,
            CloseReason::AccessNarrowed => ConnectionOutcome::AccessNarrowed,
            CloseReason::StoreUnavailable => ConnectionOutcome::StoreUnavailable,
            CloseReason::Internal => ConnectionOutcome::Internal,
            CloseReason::Shutdown => ConnectionOutcome::Shutdown,
        }
    }

    /// What there is to say beyond the outcome, for the operator.
    pub fn text(&self) -> Option<String> {
        match self {
            CloseReason::ProtocolViolation(text) => Some(text.clone()),
            CloseReason::AccessDenied(denied) => Some(denied.to_string()),
            CloseReason::ClientDisconnected
            | CloseReason::ConnectionLost
            | CloseReason::KeepAliveMissed
            | CloseReason::TokenExpired
            | CloseReason::CertificateExpired
            | CloseReason::SlowReader
            | CloseReason::TakenOver
            | CloseReason::Disabled
            | CloseReason::Deleted
            | CloseReason::CredentialChanged
            | CloseReason::AccessNarrowed
            | CloseReason::StoreUnavailable
            | CloseReason::Internal
            | CloseReason::Shutdown => None,
        }
    }

    /// Whether the peer lost its right to speak. Nothing it sent counts any more, its Will included (threats P6).
    pub fn is_revocation(&self) -> bool {
        match self {
            CloseReason::Disabled
            | CloseReason::Deleted
            | CloseReason::CredentialChanged
            | CloseReason::AccessNarrowed => true,
            CloseReason::ClientDisconnected
            | CloseReason::ConnectionLost
            | CloseReason::KeepAliveMissed
            | CloseReason::TokenExpired
            | CloseReason::CertificateExpired
            | CloseReason::ProtocolViolation(_)
            | CloseReason::AccessDenied(_)
            | CloseReason::SlowReader
            | CloseReason::TakenOver
            | CloseReason::StoreUnavailable
            | CloseReason::Internal
            | CloseReason::Shutdown => false,
        }
    }
}

impl From<Revoked> for CloseReason {
    fn from(revoked: Revoked) -> Self {
        match revoked {
            Revoked::Deleted => CloseReason::Deleted,
            Revoked::Disabled => CloseReason::Disabled,
            Revoked::CredentialChanged => CloseReason::CredentialChanged,
            Revoked::AccessNarrowed => CloseReason::AccessNarrowed,
        }
    }
}
