//! The domain value of a device or module identity; its JSON and its record are others' business.

use jiff::Timestamp;

use crate::access::Access;
use crate::credential::{KeyPair, SymmetricKey, ThumbprintPair};
use crate::id::{ETag, GenerationId, IdentityId, Revision};
use crate::queue_max::QueueMax;

/// One state of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name; no two identities have the same.
    pub id: IdentityId,
    /// Distinguishes it from earlier identities of the same id.
    pub generation: GenerationId,
    /// Its state; the etag is made of it.
    pub revision: Revision,
    /// Whether it may connect.
    pub status: Status,
    /// At most 128 characters.
    pub status_reason: Option<String>,
    /// When `status` last changed; none if it never did.
    pub status_updated: Option<Timestamp>,
    /// How it proves itself.
    pub authentication: Authentication,
    /// Whether it is registered as an IoT Edge device (IoT Hub: capability `iotEdge`).
    pub iot_edge: bool,
    /// Who looks after a module; free text.
    pub managed_by: Option<Box<str>>,
    /// What it may do.
    pub access: Access,
    /// How many messages may wait for it; none is the bound of the hub.
    pub queue_max: Option<QueueMax>,
}

/// Whether an identity may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It may connect.
    Enabled,
    /// It may not; a live connection ends when this is set.
    Disabled,
}

/// How an identity proves itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// SAS tokens signed with either key.
    Sas(KeyPair),
    /// A client certificate with one of these thumbprints.
    SelfSigned(ThumbprintPair),
    /// A client certificate of an enrolled CA that names the identity.
    CertificateAuthority,
    /// Never.
    None,
}

/// Which way an identity proves itself, without what it does so with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthenticationKind {
    /// SAS tokens.
    Sas,
    /// A client certificate with a registered thumbprint.
    SelfSigned,
    /// A client certificate that an enrolled CA signed.
    CertificateAuthority,
    /// Never.
    None,
}

/// What a caller asks for when creating or replacing an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySpec {
    /// Whose state this is to be.
    pub id: IdentityId,
    /// Whether it may connect.
    pub status: Status,
    /// At most [`STATUS_REASON_CHARS_MAX`] characters.
    pub status_reason: Option<String>,
    /// How it is to prove itself.
    pub authentication: AuthenticationSpec,
    /// Whether it is an IoT Edge device.
    pub iot_edge: bool,
    /// Who looks after a module; free text.
    pub managed_by: Option<String>,
    /// None keeps the access it has: a caller that knows nothing of access must not widen it. A new one may do everything.
    pub access: Option<Access>,
    /// None keeps the bound it has, as with `access`; `Some(None)` is the hub's.
    pub queue_max: Option<Option<QueueMax>>,
}

/// How a new state of an identity is to prove itself. An absent key is generated on create and kept on replace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticationSpec {
    /// With SAS tokens.
    Sas {
        /// The first key.
        primary: Option<SymmetricKey>,
        /// The second key.
        secondary: Option<SymmetricKey>,
    },
    /// With a client certificate of one of these thumbprints.
    SelfSigned(ThumbprintPair),
    /// With a client certificate of an enrolled CA.
    CertificateAuthority,
    /// Not at all.
    None,
}

impl Authentication {
    /// Which way it is, without the secrets.
    pub fn kind(&self) -> AuthenticationKind {
        match self {
            Authentication::Sas(_) => AuthenticationKind::Sas,
            Authentication::SelfSigned(_) => AuthenticationKind::SelfSigned,
            Authentication::CertificateAuthority => AuthenticationKind::CertificateAuthority,
            Authentication::None => AuthenticationKind::None,
        }
    }
}

impl AuthenticationKind {
    /// Every kind.
    pub const ALL: [AuthenticationKind; 4] = [
        AuthenticationKind::Sas,
        AuthenticationKind::SelfSigned,
        AuthenticationKind::CertificateAuthority,
        AuthenticationKind::None,
    ];

    /// IoT Hub's name of it.
    pub fn as_str(self) -> &'static str {
        match self {
            AuthenticationKind::Sas => "sas",
            AuthenticationKind::SelfSigned => "selfSigned",
            AuthenticationKind::CertificateAuthority => "certificateAuthority",
            AuthenticationKind::None => "none",
        }
    }
}

impl Identity {
    /// Names this state of the identity.
    pub fn etag(&self) -> ETag {
        self.revision.etag()
    }

    /// Whether the two differ in nothing that anybody can ask for: neither generation, revision nor times count.
    pub fn is_like(&self, other: &Identity) -> bool {
        let Identity { generation, revision, status_updated, .. } = *other;
        *other == Identity { generation, revision, status_updated, ..self.clone() }
    }
}

/// Asks for exactly this state, keys and all.
impl From<&Identity> for IdentitySpec {
    fn from(identity: &Identity) -> Self {
        Self {
            id: identity.id.clone(),
            status: identity.status,
            status_reason: identity.status_reason.clone(),
            authentication: match &identity.authentication {
                Authentication::Sas(KeyPair { primary, secondary }) => AuthenticationSpec::Sas {
                    primary: Some(primary.clone()),
                    secondary: Some(secondary.clone()),
                },
                Authentication::SelfSigned(thumbprints) => {
                    AuthenticationSpec::SelfSigned(thumbprints.clone())
                }
                Authentication::CertificateAuthority => AuthenticationSpec::CertificateAuthority,
                Authentication::None => AuthenticationSpec::None,
            },
            iot_edge: identity.iot_edge,
            managed_by: identity.managed_by.as_deref().map(str::to_owned),
            access: Some(identity.access.clone()),
            queue_max: Some(identity.queue_max),
        }
    }
}

impl IdentitySpec {
    /// A device with generated keys.
    pub fn sas_device(id: IdentityId) -> Self {
        Self {
            id,
            status: Status::Enabled,
            status_reason: None,
            authentication: AuthenticationSpec::Sas { primary: None, secondary: None },
            iot_edge: false,
            managed_by: None,
            access: None,
            queue_max: None,
        }
    }

    /// The identity this would make now, from nothing or in place of `stored`; keys that are not given are made or kept.
    /// It is not stored: its revision, and the generation of a new one, are zero.
    pub fn preview(self, stored: Option<&Identity>, now: Timestamp) -> Identity {
        self.build(stored, GenerationId::new(0), Revision::new(0), now)
    }

    /// What asks for an identity as it is, for a caller to change a part of it: keys, access and bounds are kept.
    pub fn keeping(identity: &Identity) -> Self {
        let exactly = Self::from(identity);
        let authentication = match exactly.authentication {
            AuthenticationSpec::Sas { .. } => AuthenticationSpec::Sas { primary: None, secondary: None },
            other => other,
        };
        Self { authentication, access: None, queue_max: None, ..exactly }
    }

    /// The identity this makes, from nothing or in place of `stored`. Its generation is the stored one's or `generation`.
    pub(crate) fn build(
        self,
        stored: Option<&Identity>,
        generation: GenerationId,
        revision: Revision,
        now: Timestamp,
    ) -> Identity {
        let status_updated = match stored {
            Some(stored) if stored.status != self.status => Some(now),
            Some(stored) => stored.status_updated,
            None => None,
        };
        Identity {
            id: self.id,
            generation: stored.map_or(generation, |stored| stored.generation),
            revision,
            status: self.status,
            status_reason: self.status_reason,
            status_updated,
            authentication: self.authentication.build(stored.map(|stored| &stored.authentication)),
            iot_edge: self.iot_edge,
            managed_by: self.managed_by.map(Into::into),
            access: self
                .access
                .unwrap_or_else(|| stored.map_or(Access::EVERYTHING, |stored| stored.access.clone())),
            queue_max: self.queue_max.unwrap_or_else(|| stored.and_then(|stored| stored.queue_max)),
        }
    }
}

impl AuthenticationSpec {
    fn build(self, stored: Option<&Authentication>) -> Authentication {
        match self {
            AuthenticationSpec::Sas { primary, secondary } => {
                let kept = match stored {
                    Some(Authentication::Sas(keys)) => Some(keys.clone()),
                    _ => None,
                };
                let KeyPair { primary: kept_primary, secondary: kept_secondary } =
                    kept.unwrap_or_else(KeyPair::generate);
                Authentication::Sas(KeyPair {
                    primary: primary.unwrap_or(kept_primary),
                    secondary: secondary.unwrap_or(kept_secondary),
                })
            }
            AuthenticationSpec::SelfSigned(thumbprints) => Authentication::SelfSigned(thumbprints),
            AuthenticationSpec::CertificateAuthority => Authentication::CertificateAuthority,
            AuthenticationSpec::None => Authentication::None,
        }
    }
}

/// Of a status reason, as IoT Hub has it.
pub const STATUS_REASON_CHARS_MAX: usize = 128;
