//! Why a connection or call was refused, as text for the operator. The peer gets the same answer whatever the reason.

use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::policy::Rights;
use portcullis_registry::sas::SasError;

use super::X509Error;

/// The exact reason why a connection or call was refused. For the operator only.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("the registry has no identity {0}")]
    UnknownIdentity(IdentityId),
    #[error("identity {0} is disabled")]
    Disabled(IdentityId),
    #[error("device {0} of this module is disabled")]
    ParentDisabled(DeviceId),
    #[error(
        "no credential was presented; identity {0} authenticates by SAS token, so the password must hold one"
    )]
    NoToken(IdentityId),
    #[error("no client certificate was presented; identity {id} authenticates by {registered}")]
    NoCertificate { id: IdentityId, registered: &'static str },
    #[error("identity {id} authenticates by {registered}, not by {presented}")]
    WrongMethod { id: IdentityId, registered: &'static str, presented: &'static str },
    #[error("this hub accepts no SAS tokens from {0} (setting sas.{0})")]
    SasSwitchedOff(&'static str),
    #[error("{0}")]
    Certificate(X509Error),
    #[error("token: {0}")]
    Token(SasError),
    #[error("token is for host {presented:?}; this hub is {expected}")]
    WrongHost { presented: String, expected: String },
    #[error("token is for {presented:?}; the peer needs one for {wanted:?}")]
    WrongResource { presented: String, wanted: String },
    #[error("this hub has no shared access policy {0:?}")]
    UnknownPolicy(String),
    #[error("the key is not one of the two keys of shared access policy {0:?}")]
    WrongPolicyKey(String),
    #[error("token names no shared access policy (skn)")]
    PolicyMissing,
    #[error("user name says policy {claimed:?}, token says {presented:?}")]
    PolicyMismatch { claimed: String, presented: String },
    #[error("policy {policy:?} lacks the right {wanted}")]
    RightMissing { policy: String, wanted: Rights },
}

/// What the peer sent and what the hub expected, as text for the operator and without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contrast {
    pub seen: String,
    pub expected: String,
}

impl Contrast {
    pub(super) fn new(seen: impl Into<String>, expected: impl Into<String>) -> Self {
        Self { seen: seen.into(), expected: expected.into() }
    }
}

impl AuthError {
    /// What the peer sent and what the hub expected.
    pub fn contrast(&self) -> Contrast {
        match self {
            AuthError::UnknownIdentity(id) => {
                Contrast::new(id.to_string(), "an id in the registry, with the same letter case")
            }
            AuthError::Disabled(_) => Contrast::new("status disabled", "status enabled"),
            AuthError::ParentDisabled(device) => {
                Contrast::new(format!("device {device} disabled"), format!("device {device} enabled"))
            }
            AuthError::NoToken(_) => {
                Contrast::new("no password and no certificate", "a SAS token as password")
            }
            AuthError::NoCertificate { registered, .. } => {
                Contrast::new("no client certificate", *registered)
            }
            AuthError::WrongMethod { registered, presented, .. } => Contrast::new(*presented, *registered),
            AuthError::SasSwitchedOff(kind) => {
                Contrast::new("SAS token", format!("client certificate, since sas.{kind} is off"))
            }
            AuthError::Certificate(error) => error.contrast(),
            AuthError::Token(error) => token_contrast(error),
            AuthError::WrongHost { presented, expected } => Contrast::new(presented, expected),
            AuthError::WrongResource { presented, wanted } => Contrast::new(presented, wanted),
            AuthError::UnknownPolicy(name) => Contrast::new(name, "a shared access policy of this hub"),
            AuthError::WrongPolicyKey(_) => {
                Contrast::new("another key", "the primary or the secondary key of the policy")
            }
            AuthError::PolicyMissing => Contrast::new("no skn", "the name of a shared access policy as skn"),
            AuthError::PolicyMismatch { claimed, presented } => Contrast::new(presented, claimed),
            AuthError::RightMissing { policy, wanted } => {
                Contrast::new(format!("policy {policy}"), format!("a policy with the right {wanted}"))
            }
        }
    }
}

fn token_contrast(error: &SasError) -> Contrast {
    match error {
        SasError::Expired { since_seconds } => Contrast::new(
            format!("a token that expired {since_seconds} s ago"),
            "a token that has not expired",
        ),
        // Shows nothing of the signature or the key, which would help an attacker to guess.
        SasError::SignatureMismatch => {
            Contrast::new("a signature with another key", "a signature by the primary or the secondary key")
        }
        SasError::NotAToken
        | SasError::TooLong
        | SasError::Missing(_)
        | SasError::Duplicate(_)
        | SasError::BadSignature
        | SasError::BadExpiry
        | SasError::BadResource
        | SasError::BadPolicy => Contrast::new(
            format!("a password that is not a token: {error}"),
            "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}",
        ),
    }
}

impl From<X509Error> for AuthError {
    fn from(error: X509Error) -> Self {
        Self::Certificate(error)
    }
}
