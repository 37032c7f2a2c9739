//! The CA certificates a hub has enrolled: under which name, and whether a proof of its key was shown.
//!
//! A certificate is bytes here; the caller looks inside and decides whether it may be enrolled at all. Only a verified
//! CA vouches for devices.
//!
//! Source: IoT Hub, "Authenticate identities with X.509 certificates".

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::id::{Precondition, Revision};

/// The name of an enrolled CA: 1 to 64 letters, digits and `-._`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorityName(Box<str>);

/// A text that names no CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name of a CA has 1 to {NAME_BYTES_MAX} letters, digits and -._, and is neither . nor ..")]
pub struct InvalidAuthorityName;

impl AuthorityName {
    /// Reads a name. Refuses what has another length or alphabet.
    pub fn parse(text: &str) -> Result<Self, InvalidAuthorityName> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let good = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed);
        if good && !matches!(text, "." | "..") { Ok(Self(text.into())) } else { Err(InvalidAuthorityName) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One enrolled CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Under which name it is enrolled.
    pub name: AuthorityName,
    /// DER.
    pub certificate: Vec<u8>,
    /// Its state; the etag of REST is made of it.
    pub revision: Revision,
    /// When it was enrolled.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
    /// Whether it may vouch for devices.
    pub verification: Verification,
}

/// Whether a CA may vouch for devices, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// Not yet. With a code, a certificate that names the code is awaited.
    Pending(Option<VerificationCode>),
    /// A certificate signed with the CA's key named the code.
    Proven,
    /// An operator marked it so, for this reason.
    Asserted {
        /// What the operator gave as the reason.
        reason: String,
    },
}

/// What a proof must name, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationCode {
    /// 48 upper-case hex digits.
    pub code: String,
    /// From then on the code does not count.
    pub expires: Timestamp,
}

/// Why a change of the enrolled CAs is refused. Nothing is changed then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// A CA of this name is enrolled.
    #[error("a CA named {0} is enrolled already")]
    AlreadyExists(AuthorityName),
    /// No CA has this name.
    #[error("no CA named {0} is enrolled")]
    NotFound(AuthorityName),
    /// The caller's etag is not the stored one.
    #[error("CA {0} has another etag by now")]
    PreconditionFailed(AuthorityName),
    /// The same certificate is enrolled under this name.
    #[error("this certificate is enrolled already, as {0}")]
    SameCertificate(AuthorityName),
    /// As many CAs are enrolled as a hub takes.
    #[error("{AUTHORITIES_MAX} CAs are enrolled, which is the limit")]
    TooMany,
    /// A verified CA needs no code.
    #[error("CA {0} is verified already")]
    AlreadyVerified(AuthorityName),
    /// There is no code a proof could name.
    #[error("CA {0} has no verification code; ask for one first")]
    NoCode(AuthorityName),
    /// The code's time is over.
    #[error("the verification code of CA {name} expired at {since}; ask for another")]
    CodeExpired {
        /// Whose code it is.
        name: AuthorityName,
        /// When it expired.
        since: Timestamp,
    },
    /// The reason is empty or too long.
    #[error("the reason why a CA is marked verified has 1 to {REASON_CHARS_MAX} characters")]
    Reason,
}

/// Stored CAs that cannot be read. No CA vouches for a device then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored CA certificates are damaged or of a newer version")]
pub struct AuthoritiesDamaged;

/// The enrolled CAs of a hub, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authorities(Vec<Authority>);

impl Authority {
    /// Whether it may vouch for devices.
    pub fn is_verified(&self) -> bool {
        match self.verification {
            Verification::Pending(_) => false,
            Verification::Proven | Verification::Asserted { .. } => true,
        }
    }
}

impl Verification {
    /// Marked verified by an operator, who gives a reason.
    pub fn asserted(reason: &str) -> Result<Self, AuthorityError> {
        let reason = reason.trim();
        match reason.chars().count() {
            1..=REASON_CHARS_MAX => Ok(Self::Asserted { reason: reason.to_owned() }),
            _ => Err(AuthorityError::Reason),
        }
    }
}

impl Authorities {
    /// Every enrolled CA, in the order of the names.
    pub fn all(&self) -> &[Authority] {
        &self.0
    }

    /// The CA of exactly this name.
    pub fn find(&self, name: &AuthorityName) -> Result<&Authority, AuthorityError> {
        let found = self.0.iter().find(|own| own.name == *name);
        found.ok_or_else(|| AuthorityError::NotFound(name.clone()))
    }

    /// Enrols a CA, or with a precondition replaces the one of this name.
    pub fn enrol(
        &mut self,
        name: AuthorityName,
        certificate: Vec<u8>,
        verification: Verification,
        precondition: &Precondition,
        now: Timestamp,
    ) -> Result<(), AuthorityError> {
        let alike = self.0.iter().find(|own| own.certificate == certificate && own.name != name);
        if let Some(alike) = alike {
            return Err(AuthorityError::SameCertificate(alike.name.clone()));
        }
        let revision = self.next_revision();
        if *precondition != Precondition::Absent {
            let own = self.admitted(&name, precondition)?;
            *own =
                Authority { name, certificate, revision, created: own.created, updated: now, verification };
            return Ok(());
        }
        let Err(index) = self.0.binary_search_by(|own| own.name.cmp(&name)) else {
            return Err(AuthorityError::AlreadyExists(name));
        };
        if self.0.len() >= AUTHORITIES_MAX {
            return Err(AuthorityError::TooMany);
        }
        let enrolled = Authority { name, certificate, revision, created: now, updated: now, verification };
        self.0.insert(index, enrolled);
        Ok(())
    }

    /// Makes the code that a proof must name; any earlier one no longer counts.
    pub fn renew_code(
        &mut self,
        name: &AuthorityName,
        now: Timestamp,
    ) -> Result<VerificationCode, AuthorityError> {
        let revision = self.next_revision();
        let own = self.admitted(name, &Precondition::AnyVersion)?;
        if own.is_verified() {
            return Err(AuthorityError::AlreadyVerified(name.clone()));
        }
        let code = crate::random_bytes::<CODE_BYTES>().iter().map(|byte| format!("{byte:02X}")).collect();
        let code =
            VerificationCode { code, expires: now.checked_add(CODE_LIFETIME).unwrap_or(Timestamp::MAX) };
        own.verification = Verification::Pending(Some(code.clone()));
        own.revision = revision;
        own.updated = now;
        Ok(code)
    }

    /// The code that a proof must name now.
    pub fn expected_code(&self, name: &AuthorityName, now: Timestamp) -> Result<&str, AuthorityError> {
        match &self.find(name)?.verification {
            Verification::Proven | Verification::Asserted { .. } => {
                Err(AuthorityError::AlreadyVerified(name.clone()))
            }
            Verification::Pending(None) => Err(AuthorityError::NoCode(name.clone())),
            Verification::Pending(Some(code)) if now >= code.expires => {
                Err(AuthorityError::CodeExpired { name: name.clone(), since: code.expires })
            }
            Verification::Pending(Some(code)) => Ok(&code.code),
        }
    }

    /// Notes that the CA's key was proven. The code is used up with it.
    pub fn set_proven(&mut self, name: &AuthorityName, now: Timestamp) -> Result<(), AuthorityError> {
        let revision = self.next_revision();
        let own = self.admitted(name, &Precondition::AnyVersion)?;
        *own = Authority { verification: Verification::Proven, revision, updated: now, ..own.clone() };
        Ok(())
    }

    /// Forgets a CA.
    pub fn remove(
        &mut self,
        name: &AuthorityName,
        precondition: &Precondition,
    ) -> Result<(), AuthorityError> {
        self.admitted(name, precondition)?;
        self.0.retain(|own| own.name != *name);
        Ok(())
    }

    /// As bytes to be stored.
    pub fn encode(&self) -> Vec<u8> {
        let stored = StoredAuthorities::V1(self.0.iter().map(StoredAuthority::from).collect());
        postcard::to_stdvec(&stored).expect("writing to memory cannot fail")
    }

    /// From stored bytes. Damaged ones are refused: a hub must not take them for "no CA".
    pub fn decode(bytes: &[u8]) -> Result<Self, AuthoritiesDamaged> {
        let Ok((StoredAuthorities::V1(stored), [])) = postcard::take_from_bytes(bytes) else {
            return Err(AuthoritiesDamaged);
        };
        let all: Option<Vec<_>> = stored.into_iter().map(StoredAuthority::into_authority).collect();
        all.map(Self).ok_or(AuthoritiesDamaged)
    }

    fn admitted(
        &mut self,
        name: &AuthorityName,
        precondition: &Precondition,
    ) -> Result<&mut Authority, AuthorityError> {
        let own = self.0.iter_mut().find(|own| own.name == *name);
        let own = own.ok_or_else(|| AuthorityError::NotFound(name.clone()))?;
        if precondition.admits(own.revision) {
            Ok(own)
        } else {
            Err(AuthorityError::PreconditionFailed(name.clone()))
        }
    }

    /// One counter for all, so that a name that is enrolled again does not meet an old etag by chance.
    fn next_revision(&self) -> Revision {
        let last = self.0.iter().map(|own| own.revision.number()).max();
        let random = u64::from_be_bytes(crate::random_bytes()) >> 16;
        Revision::new(last.map_or(random, |last| last + 1))
    }
}

#[derive(Serialize, Deserialize)]
enum StoredAuthorities {
    V1(Vec<StoredAuthority>),
}

#[derive(Serialize, Deserialize)]
struct StoredAuthority {
    name: String,
    certificate: Vec<u8>,
    revision: u64,
    created_ns: i128,
    updated_ns: i128,
    verification: StoredVerification,
}

#[derive(Serialize, Deserialize)]
enum StoredVerification {
    Pending,
    Awaited { code: String, expires_ns: i128 },
    Proven,
    Asserted { reason: String },
}

impl From<&Authority> for StoredAuthority {
    fn from(own: &Authority) -> Self {
        Self {
            name: own.name.to_string(),
            certificate: own.certificate.clone(),
            revision: own.revision.number(),
            created_ns: own.created.as_nanosecond(),
            updated_ns: own.updated.as_nanosecond(),
            verification: match &own.verification {
                Verification::Pending(None) => StoredVerification::Pending,
                Verification::Pending(Some(code)) => StoredVerification::Awaited {
                    code: code.code.clone(),
                    expires_ns: code.expires.as_nanosecond(),
                },
                Verification::Proven => StoredVerification::Proven,
                Verification::Asserted { reason } => StoredVerification::Asserted { reason: reason.clone() },
            },
        }
    }
}

impl StoredAuthority {
    fn into_authority(self) -> Option<Authority> {
        let time = |nanoseconds| Timestamp::from_nanosecond(nanoseconds).ok();
        Some(Authority {
            name: AuthorityName::parse(&self.name).ok()?,
            certificate: self.certificate,
            revision: Revision::new(self.revision),
            created: time(self.created_ns)?,
            updated: time(self.updated_ns)?,
            verification: match self.verification {
                StoredVerification::Pending => Verification::Pending(None),
                StoredVerification::Awaited { code, expires_ns } => {
                    Verification::Pending(Some(VerificationCode { code, expires: time(expires_ns)? }))
                }
                StoredVerification::Proven => Verification::Proven,
                StoredVerification::Asserted { reason } => Verification::Asserted { reason },
            },
        })
    }
}

const NAME_BYTES_MAX: usize = 64;
/// CAs of one hub: all of them are looked at when a device connects.
const AUTHORITIES_MAX: usize = 100;
const REASON_CHARS_MAX: usize = 128;
/// 48 digits: a common name has at most 64 characters.
const CODE_BYTES: usize = 24;
/// A CA's key may be kept in a safe; fetching it takes days, not minutes.
const CODE_LIFETIME: SignedDuration = SignedDuration::from_hours(7 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> AuthorityName {
        AuthorityName::parse(text).unwrap()
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_893_456_000 + hours * 3_600).unwrap()
    }

    fn with(names: &[&str]) -> Authorities {
        let mut authorities = Authorities::default();
        for own in names {
            let certificate = own.as_bytes().to_vec();
            let pending = Verification::Pending(None);
            authorities.enrol(name(own), certificate, pending, &Precondition::Absent, at(0)).unwrap();
        }
        authorities
    }

    #[test]
    fn names_have_an_alphabet() {
        for good in ["a", "fleet-2026.v1_x", &"x".repeat(64)] {
            assert!(AuthorityName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a%2f", &"x".repeat(65)] {
            assert!(AuthorityName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn they_are_found_in_order_and_once_each() {
        let mut authorities = with(&["b", "a", "c"]);
        let names: Vec<_> = authorities.all().iter().map(|own| own.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        let again = |authorities: &mut Authorities, own: &str, certificate: &[u8]| {
            let pending = Verification::Pending(None);
            authorities.enrol(name(own), certificate.to_vec(), pending, &Precondition::Absent, at(0))
        };
        assert_eq!(again(&mut authorities, "a", b"x"), Err(AuthorityError::AlreadyExists(name("a"))));
        assert_eq!(again(&mut authorities, "d", b"c"), Err(AuthorityError::SameCertificate(name("c"))));
        for number in 3..AUTHORITIES_MAX {
            again(&mut authorities, &format!("n{number}"), number.to_string().as_bytes()).unwrap();
        }
        assert_eq!(again(&mut authorities, "one-more", b"y"), Err(AuthorityError::TooMany));
    }

    #[test]
    fn t412_a_code_is_good_once_and_for_a_week() {
        let mut authorities = with(&["a"]);
        assert_eq!(authorities.expected_code(&name("a"), at(0)), Err(AuthorityError::NoCode(name("a"))));
        let first = authorities.renew_code(&name("a"), at(0)).unwrap();
        let code = authorities.renew_code(&name("a"), at(1)).unwrap();
        assert_ne!(first.code, code.code);
        assert_eq!(code.code.len(), 48);
        assert_eq!(authorities.expected_code(&name("a"), at(168)), Ok(code.code.as_str()));
        assert_eq!(
            authorities.expected_code(&name("a"), at(169)),
            Err(AuthorityError::CodeExpired { name: name("a"), since: code.expires })
        );
        authorities.set_proven(&name("a"), at(2)).unwrap();
        assert!(authorities.find(&name("a")).unwrap().is_verified());
        assert_eq!(
            authorities.expected_code(&name("a"), at(3)),
            Err(AuthorityError::AlreadyVerified(name("a")))
        );
    }

    #[test]
    fn a_change_needs_the_present_etag_and_makes_another() {
        let mut authorities = with(&["a", "b"]);
        let etag = |authorities: &Authorities| {
            Precondition::Version(authorities.find(&name("a")).unwrap().revision.etag())
        };
        let before = etag(&authorities);
        let asserted = Verification::asserted("seen in person").unwrap();
        authorities.enrol(name("a"), b"new".to_vec(), asserted, &before, at(5)).unwrap();
        assert_ne!(etag(&authorities), before);
        let own = authorities.find(&name("a")).unwrap();
        assert!(own.is_verified() && own.created == at(0) && own.updated == at(5));
        assert_eq!(
            authorities.remove(&name("a"), &before),
            Err(AuthorityError::PreconditionFailed(name("a")))
        );
        authorities.remove(&name("a"), &Precondition::AnyVersion).unwrap();
        assert!(authorities.find(&name("a")).is_err());
        assert_eq!(
            authorities.remove(&name("a"), &Precondition::Absent),
            Err(AuthorityError::NotFound(name("a")))
        );
        for reason in ["", "  ", &"x".repeat(129)] {
            assert_eq!(Verification::asserted(reason), Err(AuthorityError::Reason));
        }
    }

    #[test]
    fn t906_stored_ones_come_back_and_damaged_ones_are_refused() {
        let mut authorities = with(&["a", "b", "c"]);
        authorities.renew_code(&name("a"), at(0)).unwrap();
        authorities.set_proven(&name("b"), at(0)).unwrap();
        let bytes = authorities.encode();
        assert_eq!(Authorities::decode(&bytes), Ok(authorities));
        for end in 0..bytes.len() {
            assert_eq!(Authorities::decode(&bytes[..end]), Err(AuthoritiesDamaged), "{end}");
        }
        assert_eq!(Authorities::decode(&Authorities::default().encode()), Ok(Authorities::default()));
    }
}
