//! How an attempt to connect or call goes and how a connection ends, as one closed set: the word of the metrics and the
//! log for each, what it means, what to do about it, and who can put it right.
//!
//! Errors and close reasons say more than an outcome does; each maps to exactly one. Labels are a public contract:
//! dashboards and alerts are built on them.

use portcullis_certs::chain::ChainError;
use portcullis_certs::presented::OutOfTime;
use portcullis_registry::id::IdentityId;
use portcullis_registry::sas::SasError;

use crate::auth::{AuthError, X509Error};

/// Declares the outcomes, each with its label and the stages it can come at.
macro_rules! outcomes {
    ($($(#[$doc:meta])* $outcome:ident = $label:literal, [$($stage:ident),*];)*) => {
        /// How an attempt to connect or call went, or how a connection ended.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ConnectionOutcome {
            $($(#[$doc])* $outcome,)*
        }

        impl ConnectionOutcome {
            /// Every outcome there is.
            pub const ALL: &[Self] = &[$(Self::$outcome),*];

            /// The word of the metrics, the log and the interfaces.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$outcome => $label,)*
                }
            }

            /// At which stages of a connection it can come. Those of calls over HTTP alone have none.
            pub fn stages(self) -> &'static [Stage] {
                match self {
                    $(Self::$outcome => &[$(Stage::$stage),*],)*
                }
            }
        }
    };
}

/// A stage of an MQTT connection that ends with an outcome. Each has a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All that comes before a session: `connections_ended_early`.
    Early,
    /// CONNECT, from its claim to its answer: `connection_attempts`.
    Connect,
    /// The session: `disconnects`.
    Session,
}

/// Who can put an outcome right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The device or service that connects: its configuration, its program or its network.
    Device,
    /// Who runs the hub: what is registered, allowed, enrolled or configured.
    Operator,
    /// The hub itself.
    Hub,
}

outcomes! {
    Succeeded = "succeeded", [Connect];
    /// A newer connection of the same identity came before this one had its turn.
    Overtaken = "overtaken", [Connect];

    UnknownDevice = "unknown_device", [Connect];
    Disabled = "disabled", [Connect, Session];
    Deleted = "deleted", [Connect, Session];
    NoCredential = "no_credential", [Connect];
    WrongAuthMethod = "wrong_auth_method", [Connect];
    SasSwitchedOff = "sas_switched_off", [Connect];
    SasExpired = "sas_expired", [Connect];
    SasBadSignature = "sas_bad_signature", [Connect];
    SasMalformed = "sas_malformed", [Connect];
    SasWrongAudience = "sas_wrong_audience", [Connect];
    HubUnknown = "hub_unknown", [Connect];
    UnknownPolicy = "unknown_policy", [Connect];
    WrongKey = "wrong_key", [];
    RightMissing = "right_missing", [Connect];
    ClientIdMismatch = "client_id_mismatch", [Connect];
    BadApiVersion = "bad_api_version", [Connect];
    BadUserName = "bad_user_name", [Connect];
    WillRefused = "will_refused", [Connect];
    ConnectionLimit = "connection_limit", [Connect];
    /// The peer does not hold the key of its client certificate, or the certificate ended the handshake.
    X509NotProven = "x509_not_proven", [Connect];
    X509Malformed = "x509_malformed", [Connect];
    X509Expired = "x509_expired", [Connect];
    X509NotYetValid = "x509_not_yet_valid", [Connect];
    X509ThumbprintMismatch = "x509_thumbprint_mismatch", [Connect];
    X509ChainUntrusted = "x509_chain_untrusted", [Connect];
    X509CaUnverified = "x509_ca_unverified", [Connect];
    X509NameMismatch = "x509_name_mismatch", [Connect];

    HandshakeTimeout = "handshake_timeout", [Early];
    HandshakeFailed = "handshake_failed", [Early];
    ConnectTimeout = "connect_timeout", [Early];
    /// CONNECT was refused; the attempt has the outcome that says why.
    Refused = "refused", [Early];

    ClientDisconnected = "client_disconnected", [Session];
    ConnectionLost = "connection_lost", [Early, Session];
    KeepAliveMissed = "keep_alive_missed", [Session];
    TokenExpired = "token_expired", [Session];
    CertificateExpired = "certificate_expired", [Session];
    BadProtocol = "bad_protocol", [Early, Session];
    AccessDenied = "access_denied", [Session];
    SlowReader = "slow_reader", [Session];
    TakenOver = "taken_over", [Session];
    CredentialChanged = "credential_changed", [Connect, Session];
    AccessNarrowed = "access_narrowed", [Connect, Session];
    StoreUnavailable = "store_unavailable", [Connect, Session];
    /// The hub contradicted itself.
    Internal = "internal", [Session];
    Shutdown = "shutdown", [Early, Session];
}

impl ConnectionOutcome {
    /// The outcome of this label; none for a label that this version does not know.
    pub fn parse(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|outcome| outcome.label() == label)
    }

    /// Every outcome that can come at `stage`.
    pub fn at(stage: Stage) -> impl Iterator<Item = Self> {
        Self::ALL.iter().copied().filter(move |outcome| outcome.stages().contains(&stage))
    }

    /// Who can put it right; nobody where nothing is wrong.
    pub fn blame(self) -> Option<Blame> {
        match self {
            Self::Succeeded | Self::ClientDisconnected => None,
            Self::Overtaken
            | Self::NoCredential
            | Self::WrongAuthMethod
            | Self::SasExpired
            | Self::SasBadSignature
            | Self::SasMalformed
            | Self::SasWrongAudience
            | Self::HubUnknown
            | Self::UnknownPolicy
            | Self::WrongKey
            | Self::RightMissing
            | Self::ClientIdMismatch
            | Self::BadApiVersion
            | Self::BadUserName
            | Self::WillRefused
            | Self::X509NotProven
            | Self::X509Malformed
            | Self::X509Expired
            | Self::X509NotYetValid
            | Self::X509ThumbprintMismatch
            | Self::X509ChainUntrusted
            | Self::X509NameMismatch
            | Self::HandshakeTimeout
            | Self::HandshakeFailed
            | Self::ConnectTimeout
            | Self::Refused
            | Self::ConnectionLost
            | Self::KeepAliveMissed
            | Self::TokenExpired
            | Self::CertificateExpired
            | Self::BadProtocol
            | Self::AccessDenied
            | Self::SlowReader
            | Self::TakenOver => Some(Blame::Device),
            Self::UnknownDevice
            | Self::Disabled
            | Self::Deleted
            | Self::SasSwitchedOff
            | Self::ConnectionLimit
            | Self::X509CaUnverified
            | Self::CredentialChanged
            | Self::AccessNarrowed
            | Self::Shutdown => Some(Blame::Operator),
            Self::StoreUnavailable | Self::Internal => Some(Blame::Hub),
        }
    }

    /// What happened, in words.
    pub fn description(self) -> &'static str {
        match self {
            Self::Succeeded => "it connected",
            Self::Overtaken => "a newer connection of the same identity came first",
            Self::UnknownDevice => "no identity of this id is registered",
            Self::Disabled => "it or its device was disabled",
            Self::Deleted => "it was deleted",
            Self::NoCredential => "it showed neither a token nor a certificate",
            Self::WrongAuthMethod => "it proved itself by another method than the registered one",
            Self::SasSwitchedOff => "it showed a token, and the hub takes none",
            Self::SasExpired => "its token had ended",
            Self::SasBadSignature => "its token is signed with another key",
            Self::SasMalformed => "its password is not a SAS token",
            Self::SasWrongAudience => "its token is for something else",
            Self::HubUnknown => "it called the hub by another name",
            Self::UnknownPolicy => "it named a policy that does not exist",
            Self::WrongKey => "the key is not the policy's",
            Self::RightMissing => "its policy lacks a right",
            Self::ClientIdMismatch => "its client id and its user name differ",
            Self::BadApiVersion => "its user name has no api-version",
            Self::BadUserName => "its user name has another form",
            Self::WillRefused => "its will was refused",
            Self::ConnectionLimit => "the hub had as many connections as it may have",
            Self::X509NotProven => "its certificate did not pass the TLS handshake",
            Self::X509Malformed => "its certificate could not be read",
            Self::X509Expired => "its certificate had ended",
            Self::X509NotYetValid => "its certificate was not valid yet",
            Self::X509ThumbprintMismatch => "its certificate is not the registered one",
            Self::X509ChainUntrusted => "its certificate leads to no trusted CA",
            Self::X509CaUnverified => "the CA of its certificate is not verified",
            Self::X509NameMismatch => "its certificate is issued for another name",
            Self::HandshakeTimeout => "it took too long for the TLS handshake",
            Self::HandshakeFailed => "the TLS handshake failed",
            Self::ConnectTimeout => "it took too long to send CONNECT",
            Self::Refused => "its CONNECT was refused",
            Self::ClientDisconnected => "it said goodbye",
            Self::ConnectionLost => "the connection broke",
            Self::KeepAliveMissed => "nothing was heard of it for too long",
            Self::TokenExpired => "its token ended",
            Self::CertificateExpired => "its certificate ended",
            Self::BadProtocol => "it did what MQTT or IoT Hub do not allow",
            Self::AccessDenied => "it did what its access list does not allow",
            Self::SlowReader => "it did not take what it was sent",
            Self::TakenOver => "the same identity connected anew",
            Self::CredentialChanged => "what it signed in with was changed",
            Self::AccessNarrowed => "its access list was narrowed",
            Self::StoreUnavailable => "the hub could not store what it asked for",
            Self::Internal => "the hub made a mistake",
            Self::Shutdown => "the hub stopped",
        }
    }

    /// What to do about it where `id` had this outcome, if there is something to do.
    pub fn advice(self, id: &IdentityId) -> Option<String> {
        let (verb, flags) = match &id.module {
            None => ("device-identity", format!("-d {}", id.device)),
            Some(module) => ("module-identity", format!("-d {} -m {module}", id.device)),
        };
        let show = format!("`portcullis connection-string show {flags}`");
        Some(match self {
            Self::UnknownDevice => format!(
                "`portcullis {verb} create {flags}` registers it; ids are compared letter by letter, so look at its \
                 case too"
            ),
            Self::Disabled => {
                format!("`portcullis device-identity update -d {} --status enabled` lets it in again", id.device)
            }
            Self::NoCredential => {
                format!("{show} prints what it must be configured with; SDKs make the token from that")
            }
            Self::WrongAuthMethod => format!(
                "configure the device with what is registered, or register what it has: `portcullis {verb} update \
                 {flags} --auth-method …`"
            ),
            Self::SasSwitchedOff => {
                "give it a certificate, or switch tokens on again in the hub's configuration (sas)".into()
            }
            Self::SasExpired | Self::TokenExpired => {
                "SDKs make new tokens by themselves from a connection string; if this one was new, the device's clock \
                 is wrong: compare it with the hub's"
                    .into()
            }
            Self::SasBadSignature => format!(
                "the device has another key than the registry: {show} prints the right one; who signs by hand must \
                 decode the key from base64 first"
            ),
            Self::SasMalformed => {
                format!("the password must be a SAS token; `portcullis generate-sas-token {flags}` prints one")
            }
            Self::SasWrongAudience => {
                format!("the token is another identity's: {show} prints this one's connection string")
            }
            Self::HubUnknown => {
                "the device calls the hub by a name it does not answer to: change HostName, or start the hub with \
                 --hostname"
                    .into()
            }
            Self::UnknownPolicy | Self::RightMissing => {
                "`portcullis policy list -o table` prints the policies and their rights; a device needs DeviceConnect"
                    .into()
            }
            Self::ClientIdMismatch => "the client id must be the id in the user name".into(),
            Self::BadApiVersion | Self::BadUserName => {
                "the user name must be {host}/{id}/?api-version=2021-04-12".into()
            }
            Self::WillRefused => "a will may only be telemetry, on the device's own topic".into(),
            Self::X509ThumbprintMismatch => format!(
                "`portcullis cert thumbprint FILE` prints a certificate's; `portcullis {verb} update {flags} --ptp …` \
                 registers it"
            ),
            Self::X509Expired | Self::X509NotYetValid | Self::CertificateExpired => {
                "the device needs a certificate that holds now: `portcullis cert device rotate` replaces one; look at \
                 the hub's clock too"
                    .into()
            }
            Self::X509ChainUntrusted => {
                "`portcullis cert ca list` prints the CAs that are trusted; the device must show its intermediates too"
                    .into()
            }
            Self::X509CaUnverified => "`portcullis cert ca verify --name NAME` proves that the CA is yours".into(),
            Self::X509NameMismatch => format!("the certificate must be issued for the common name {id}"),
            Self::X509Malformed => "`portcullis cert inspect FILE` says what is wrong with it".into(),
            Self::ConnectionLimit => {
                "the hub is full: raise limits.connections_max, or find who holds the connections".into()
            }
            Self::TakenOver => {
                "another client connected with this identity, or the device came back before its old connection was \
                 over"
                    .into()
            }
            Self::KeepAliveMissed | Self::ConnectionLost => "look at the device's network and power".into(),
            Self::SlowReader => "the device does not read what it is sent".into(),
            Self::AccessDenied | Self::AccessNarrowed => {
                format!("`portcullis {verb} show {flags}` prints its access list, which says what it may do")
            }
            Self::CredentialChanged => {
                format!("its keys, certificate or policy were changed: {show} prints the new ones")
            }
            Self::StoreUnavailable => {
                "the hub could not write to its data directory: look at its log and at the free space of the disk".into()
            }
            Self::Internal => "report it with the hub's log of that moment".into(),
            Self::Succeeded
            | Self::Overtaken
            | Self::Deleted
            | Self::WrongKey
            | Self::X509NotProven
            | Self::HandshakeTimeout
            | Self::HandshakeFailed
            | Self::ConnectTimeout
            | Self::Refused
            | Self::ClientDisconnected
            | Self::BadProtocol
            | Self::Shutdown => return None,
        })
    }
}

impl Blame {
    /// The word of the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Operator => "operator",
            Self::Hub => "hub",
        }
    }
}

impl AuthError {
    /// The outcome of an attempt that failed for this.
    pub fn outcome(&self) -> ConnectionOutcome {
        match self {
            AuthError::UnknownIdentity(_) => ConnectionOutcome::UnknownDevice,
            AuthError::Disabled(_) | AuthError::ParentDisabled(_) => ConnectionOutcome::Disabled,
            AuthError::NoToken(_) | AuthError::NoCertificate { .. } => ConnectionOutcome::NoCredential,
            AuthError::WrongMethod { .. } => ConnectionOutcome::WrongAuthMethod,
            AuthError::SasSwitchedOff(_) => ConnectionOutcome::SasSwitchedOff,
            AuthError::Certificate(error) => certificate_outcome(error),
            AuthError::Token(error) => token_outcome(error),
            AuthError::WrongHost { .. } => ConnectionOutcome::HubUnknown,
            AuthError::WrongResource { .. } => ConnectionOutcome::SasWrongAudience,
            AuthError::UnknownPolicy(_) | AuthError::PolicyMissing | AuthError::PolicyMismatch { .. } => {
                ConnectionOutcome::UnknownPolicy
            }
            AuthError::WrongPolicyKey(_) => ConnectionOutcome::WrongKey,
            AuthError::RightMissing { .. } => ConnectionOutcome::RightMissing,
        }
    }
}

fn token_outcome(error: &SasError) -> ConnectionOutcome {
    match error {
        SasError::Expired { .. } => ConnectionOutcome::SasExpired,
        SasError::SignatureMismatch => ConnectionOutcome::SasBadSignature,
        SasError::NotAToken
        | SasError::TooLong
        | SasError::Missing(_)
        | SasError::Duplicate(_)
        | SasError::BadSignature
        | SasError::BadExpiry
        | SasError::BadResource
        | SasError::BadPolicy => ConnectionOutcome::SasMalformed,
    }
}

fn certificate_outcome(error: &X509Error) -> ConnectionOutcome {
    match error {
        X509Error::Refused(_) => ConnectionOutcome::X509Malformed,
        X509Error::OutOfTime(OutOfTime::Expired(_)) => ConnectionOutcome::X509Expired,
        X509Error::OutOfTime(OutOfTime::NotYetValid(_)) => ConnectionOutcome::X509NotYetValid,
        X509Error::OtherThumbprint { .. } => ConnectionOutcome::X509ThumbprintMismatch,
        X509Error::Chain(ChainError::OutOfTime { when: OutOfTime::Expired(_), .. }) => {
            ConnectionOutcome::X509Expired
        }
        X509Error::Chain(_) => ConnectionOutcome::X509ChainUntrusted,
        X509Error::NotVerified(_) => ConnectionOutcome::X509CaUnverified,
        X509Error::NoCommonName { .. } | X509Error::OtherCommonName { .. } => {
            ConnectionOutcome::X509NameMismatch
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use portcullis_registry::id::DeviceId;

    use super::*;

    #[test]
    fn each_label_is_a_plain_word_of_one_outcome() {
        let labels: BTreeSet<_> = ConnectionOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        assert_eq!(labels.len(), ConnectionOutcome::ALL.len());
        for outcome in ConnectionOutcome::ALL {
            let label = outcome.label();
            assert!(
                label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            assert_eq!(ConnectionOutcome::parse(label), Some(*outcome));
        }
        assert_eq!(ConnectionOutcome::parse("of a later version"), None);
    }

    #[test]
    fn whoever_is_to_put_an_outcome_right_is_told_how_where_the_hub_can_know() {
        let id = IdentityId::device(DeviceId::parse("pump-7").unwrap());
        for outcome in ConnectionOutcome::ALL {
            let advice = outcome.advice(&id);
            if outcome.blame().is_none() {
                assert_eq!(advice, None, "{outcome:?}");
            }
            if outcome.blame() == Some(Blame::Hub) {
                assert!(advice.is_some(), "{outcome:?}");
            }
            assert!(
                !advice.is_some_and(|advice| advice.ends_with('.') || advice.contains("\n")),
                "{outcome:?}"
            );
        }
    }
}
