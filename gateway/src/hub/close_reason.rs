//! Why a session ends, in the words of the log, the metrics and the rules.

use portcullis_registry::access::AccessDenied;

use crate::auth::{Credential, Revoked};

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

    /// The metric label: a public, fixed set of words.
    pub fn label(&self) -> &'static str {
        match self {
            CloseReason::ClientDisconnected => "client_disconnected",
            CloseReason::ConnectionLost => "connection_lost",
            CloseReason::KeepAliveMissed => "keep_alive_missed",
            CloseReason::TokenExpired => "token_expired",
            CloseReason::CertificateExpired => "certificate_expired",
            CloseReason::ProtocolViolation(_) => "bad_protocol",
            CloseReason::AccessDenied(_) => "access_denied",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::TakenOver => "taken_over",
            CloseReason::Disabled => "disabled",
            CloseReason::Deleted => "deleted",
            CloseReason::CredentialChanged => "credential_changed",
            CloseReason::AccessNarrowed => "access_narrowed",
            CloseReason::StoreUnavailable => "store_unavailable",
            CloseReason::Shutdown => "shutdown",
        }
    }

    /// What there is to say beyond the label, for the operator.
    pub fn text(&self) -> Option<String> {
        match self {
            CloseReason::ProtocolViolation(text) => Some(text.clone()),
            CloseReason::AccessDenied(denied) => Some(denied.to_string()),
            _ => None,
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
