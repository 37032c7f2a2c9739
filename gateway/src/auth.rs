//! Who is this: a claim and its evidence in, proof or the exact reason against out.
//!
//! `verify` is the only place that builds a `VerifiedIdentity`, and `verify_service` the only one that builds a
//! `VerifiedService`; whatever acts for a device or an operator asks for one of them, never for a bare id.
//! No I/O happens here: the registry is looked up once, in memory, and the time is an argument.
//! The peer hears one answer whatever the reason (threats T320); the operator hears the reason.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use portcullis_registry::access::{Access, AccessDenied, Right};
use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::entry::Entry;
use portcullis_registry::id::{GenerationId, IdentityId};
use portcullis_registry::identity::{Authentication, Identity, Status};
use portcullis_registry::policy::{Policies, Policy, Rights};
use portcullis_registry::sas::{SasError, SasToken};
use portcullis_registry::store::Registry;
use rustls_pki_types::CertificateDer;

mod credential;
mod error;
pub mod hosts;
mod origin;
mod peer;
mod remembered;
mod trust;
mod x509;

pub use credential::Credential;
pub use error::{AuthError, Contrast};
pub use hosts::HostNames;
pub use origin::{Face, Origin};
pub use peer::Peer;
pub use remembered::RememberedService;
pub use trust::{Trust, TrustStore};
pub use x509::X509Error;
pub(crate) use x509::unix_time;

/// A device or module that has proven who it is. Only `verify` makes one.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    entry: Arc<Entry>,
    /// A module's device: a module goes when its device does.
    parent: Option<Arc<Entry>>,
    id: IdentityId,
    generation: GenerationId,
    credential: Credential,
    expires: Option<Timestamp>,
    weak: bool,
    access: Access,
}

/// What a peer brings to prove its claim; either may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// The password of CONNECT, which is a SAS token or nothing.
    pub password: Option<&'a str>,
    /// What the peer showed in the handshake, its own certificate first, whose key it has proven to hold.
    pub certificates: Option<&'a [CertificateDer<'a>]>,
}

/// Which kinds of identities may use SAS tokens at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SasSwitches {
    pub devices: bool,
    pub modules: bool,
}

impl VerifiedIdentity {
    pub fn entry(&self) -> &Arc<Entry> {
        &self.entry
    }

    pub fn id(&self) -> &IdentityId {
        &self.id
    }

    pub fn generation(&self) -> GenerationId {
        self.generation
    }

    /// What the connection rests on; it ends when this no longer holds.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// When the credential ends and the connection with it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether the proof rests on a hash that can be forged: a SHA-1 thumbprint.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// What it may do. It is what it was when this was proven: narrowed since, it no longer holds.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Whether it may do this.
    pub fn check(&self, wanted: Right) -> Result<(), AccessDenied> {
        self.access.check(wanted)
    }

    /// Whether the identity as it now stands in the registry would still admit this connection.
    pub fn still_holds(&self, policies: &Policies, trust: &Trust) -> Result<(), Revoked> {
        for entry in std::iter::once(&self.entry).chain(&self.parent) {
            if entry.is_deleted() {
                return Err(Revoked::Deleted);
            }
            if entry.identity().status == Status::Disabled {
                return Err(Revoked::Disabled);
            }
        }
        let identity = self.entry.identity();
        if !self.credential.holds(&identity, policies, trust) {
            return Err(Revoked::CredentialChanged);
        }
        if identity.access.covers(&self.access) { Ok(()) } else { Err(Revoked::AccessNarrowed) }
    }
}

/// Why a live connection must go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Deleted,
    Disabled,
    CredentialChanged,
    /// It may come back, with the rights it has now.
    AccessNarrowed,
}

/// An operator or back-end service that has proven to hold a policy's key. Only `verify_service` makes one.
#[derive(Clone, Debug)]
pub struct VerifiedService {
    policy: String,
    rights: Rights,
    key: SymmetricKey,
    expires: Option<Timestamp>,
    origin: Origin,
}

impl VerifiedService {
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// What the policy granted when this was proven.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Where it calls from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When the token no longer counts, and a connection with it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether the policy grants every one of these rights.
    pub fn check(&self, wanted: Rights) -> Result<(), AuthError> {
        if self.rights.contains(wanted) {
            Ok(())
        } else {
            Err(AuthError::RightMissing { policy: self.policy.clone(), wanted })
        }
    }

    /// Whether the policy still has the key this was proven with, and the rights.
    pub fn still_holds(&self, policies: &Policies) -> bool {
        policies.find(&self.policy).is_some_and(|policy| {
            credential::is_of(&self.key, &policy.keys) && policy.rights.contains(self.rights)
        })
    }
}

/// On whose behalf a connection acts.
#[derive(Debug)]
pub enum Who {
    Device(VerifiedIdentity),
    Service(VerifiedService),
}

/// Everything a verdict rests on besides the claim.
pub struct Authenticator<'a> {
    pub registry: &'a Registry,
    pub policies: &'a Policies,
    pub trust: &'a TrustStore,
    pub hosts: &'a HostNames,
    pub sas: SasSwitches,
    /// A key of nobody's, so that refusing an unknown name costs what refusing a wrong key costs.
    pub decoy: &'a SymmetricKey,
    /// How long after its `se` a token still counts.
    pub leeway: Duration,
}

impl Authenticator<'_> {
    /// Decides whether the peer that claims to be `id` is. A token decides when there is one; whatever certificate a
    /// peer shows beside it makes no difference.
    ///
    /// Source: IoT Hub, "Control access to IoT Hub by using shared access signatures" and "Authenticate identities
    /// with X.509 certificates".
    pub fn verify(
        &self,
        id: &IdentityId,
        evidence: Evidence<'_>,
        now: Timestamp,
    ) -> Result<VerifiedIdentity, AuthError> {
        match (evidence.password.filter(|text| !text.is_empty()), evidence.certificates) {
            (Some(token), _) => self.verify_token(id, token, now),
            (None, Some(certificates)) => self.verify_certificates(id, certificates, now),
            (None, None) => Err(self.nothing_presented(id)),
        }
    }

    fn nothing_presented(&self, id: &IdentityId) -> AuthError {
        let Some(entry) = self.registry.entry(id) else { return AuthError::UnknownIdentity(id.clone()) };
        match &entry.identity().authentication {
            Authentication::Sas(_) => AuthError::NoToken(id.clone()),
            other => AuthError::NoCertificate { id: id.clone(), registered: method(other) },
        }
    }

    fn verify_token(
        &self,
        id: &IdentityId,
        token: &str,
        now: Timestamp,
    ) -> Result<VerifiedIdentity, AuthError> {
        let found = self.registry.entry(id);
        let token = SasToken::parse(token).map_err(AuthError::Token)?;
        let Some(entry) = found else {
            // The same work as for a known id, so that the time of the answer tells nothing (threats T320).
            let _ = token.is_signed_by(self.decoy);
            return Err(AuthError::UnknownIdentity(id.clone()));
        };
        let identity = entry.identity();
        let keys = self.sas_keys(&identity).inspect_err(|_| {
            let _ = token.is_signed_by(self.decoy);
        })?;
        let credential = match token.policy() {
            Some(policy) => self.policy_proof(&token, policy, id)?,
            None => self.own_proof(&token, id, keys)?,
        };
        token.check_expiry(now, self.leeway).map_err(AuthError::Token)?;
        let parent = self.enabled_parent(&identity)?;
        Ok(VerifiedIdentity {
            parent,
            id: identity.id.clone(),
            generation: identity.generation,
            entry,
            credential,
            expires: self.end_of(&token),
            weak: false,
            access: identity.access.clone(),
        })
    }

    fn verify_certificates(
        &self,
        id: &IdentityId,
        certificates: &[CertificateDer<'_>],
        now: Timestamp,
    ) -> Result<VerifiedIdentity, AuthError> {
        let chain = x509::parse(certificates).map_err(AuthError::Certificate)?;
        let trust = self.trust.current();
        // Whatever the reason, a refusal costs the same work.
        let refuse = |error: AuthError| {
            x509::in_vain(&chain, &trust, now);
            error
        };
        let Some(entry) = self.registry.entry(id) else {
            return Err(refuse(AuthError::UnknownIdentity(id.clone())));
        };
        let identity = entry.identity();
        let verdict = match &identity.authentication {
            Authentication::SelfSigned(registered) => {
                x509::by_thumbprint(&chain, registered, now).map_err(|error| refuse(error.into()))?
            }
            Authentication::CertificateAuthority => x509::by_authority(&chain, id, &trust, now)?,
            other => {
                let (id, registered) = (id.clone(), method(other));
                return Err(refuse(AuthError::WrongMethod {
                    id,
                    registered,
                    presented: "client certificate",
                }));
            }
        };
        let parent = self.enabled_parent(&identity)?;
        Ok(VerifiedIdentity {
            parent,
            id: identity.id.clone(),
            generation: identity.generation,
            entry,
            credential: verdict.credential,
            expires: verdict.expires,
            weak: verdict.weak,
            access: identity.access.clone(),
        })
    }

    /// Decides whether the bearer of `token` holds a policy of this hub. `claimed` is the policy a user name states.
    pub fn verify_service(
        &self,
        token: &str,
        claimed: Option<&str>,
        origin: Origin,
        now: Timestamp,
    ) -> Result<VerifiedService, AuthError> {
        let token = SasToken::parse(token).map_err(AuthError::Token)?;
        let name = token.policy().ok_or(AuthError::PolicyMissing)?;
        if let Some(claimed) = claimed.filter(|claimed| *claimed != name) {
            return Err(AuthError::PolicyMismatch {
                claimed: claimed.to_owned(),
                presented: name.to_owned(),
            });
        }
        let (policy, key) = self.signing_policy(&token, name)?;
        let segments = self.segments_after_host(&token)?;
        if !segments.is_empty() {
            return Err(AuthError::WrongResource {
                presented: token.resource().to_owned(),
                wanted: self.hosts.primary().to_owned(),
            });
        }
        token.check_expiry(now, self.leeway).map_err(AuthError::Token)?;
        Ok(VerifiedService {
            policy: policy.name.clone(),
            rights: policy.rights,
            key: key.clone(),
            expires: self.end_of(&token),
            origin,
        })
    }

    /// Decides whether `key` is one of the named policy's.
    pub fn verify_policy_key(
        &self,
        name: &str,
        key: &SymmetricKey,
        origin: Origin,
    ) -> Result<VerifiedService, AuthError> {
        let policy = self.policies.find(name);
        // Both keys are always tried, and a name nobody has costs the same.
        let keys = policy.map_or([self.decoy; 2], |policy| [&policy.keys.primary, &policy.keys.secondary]);
        let is_own = keys.map(|own| own == key).contains(&true);
        let policy = policy.ok_or_else(|| AuthError::UnknownPolicy(name.to_owned()))?;
        if !is_own {
            return Err(AuthError::WrongPolicyKey(name.to_owned()));
        }
        Ok(VerifiedService {
            policy: policy.name.clone(),
            rights: policy.rights,
            key: key.clone(),
            expires: None,
            origin,
        })
    }

    /// The keys of an identity that may prove itself by a token: its own, or a policy's in its place. Neither an
    /// identity of another type nor one of type `none` may, whoever signed the token.
    fn sas_keys<'i>(&self, identity: &'i Identity) -> Result<&'i KeyPair, AuthError> {
        let keys = match &identity.authentication {
            Authentication::Sas(keys) => keys,
            other => {
                let (id, registered) = (identity.id.clone(), method(other));
                return Err(AuthError::WrongMethod { id, registered, presented: "SAS token" });
            }
        };
        match &identity.id.module {
            None if !self.sas.devices => Err(AuthError::SasSwitchedOff("devices")),
            Some(_) if !self.sas.modules => Err(AuthError::SasSwitchedOff("modules")),
            _ => Ok(keys),
        }
    }

    /// A token without `skn` is checked with the keys of the identity itself, and must name exactly it.
    fn own_proof(
        &self,
        token: &SasToken<'_>,
        id: &IdentityId,
        keys: &KeyPair,
    ) -> Result<Credential, AuthError> {
        let segments = self.segments_after_host(token)?;
        if !names_exactly(without_api_version(&segments), id) {
            return Err(wrong_resource(token, id));
        }
        let key = signing_key(token, &keys.primary, &keys.secondary)?;
        Ok(Credential::OwnKey(key.clone()))
    }

    /// A token with `skn` is checked with the policy's keys and may cover more than one identity.
    fn policy_proof(
        &self,
        token: &SasToken<'_>,
        name: &str,
        id: &IdentityId,
    ) -> Result<Credential, AuthError> {
        let (policy, key) = self.signing_policy(token, name)?;
        if !policy.rights.contains(Rights::DEVICE_CONNECT) {
            return Err(AuthError::RightMissing { policy: name.to_owned(), wanted: Rights::DEVICE_CONNECT });
        }
        let segments = self.segments_after_host(token)?;
        if !covers(without_api_version(&segments), id) {
            return Err(wrong_resource(token, id));
        }
        Ok(Credential::PolicyKey { policy: name.to_owned(), key: key.clone() })
    }

    fn signing_policy<'s>(
        &'s self,
        token: &SasToken<'_>,
        name: &str,
    ) -> Result<(&'s Policy, &'s SymmetricKey), AuthError> {
        let Some(policy) = self.policies.find(name) else {
            let _ = token.is_signed_by(self.decoy);
            return Err(AuthError::UnknownPolicy(name.to_owned()));
        };
        let key = signing_key(token, &policy.keys.primary, &policy.keys.secondary)?;
        Ok((policy, key))
    }

    fn segments_after_host<'t>(&self, token: &'t SasToken<'_>) -> Result<Vec<&'t str>, AuthError> {
        let mut segments = token.resource().split('/');
        let host = segments.next().unwrap_or_default();
        if !self.hosts.contains(host) {
            return Err(AuthError::WrongHost {
                presented: host.to_owned(),
                expected: self.hosts.primary().to_owned(),
            });
        }
        Ok(segments.collect())
    }

    /// When a token no longer counts; nothing when that is later than any clock shows.
    fn end_of(&self, token: &SasToken<'_>) -> Option<Timestamp> {
        Timestamp::from_second(token.expiry()).ok()?.checked_add(self.leeway).ok()
    }

    /// The device of a module, once both are found enabled.
    fn enabled_parent(&self, identity: &Identity) -> Result<Option<Arc<Entry>>, AuthError> {
        if identity.status == Status::Disabled {
            return Err(AuthError::Disabled(identity.id.clone()));
        }
        if identity.id.module.is_none() {
            return Ok(None);
        }
        // IoT Hub: a module cannot be disabled; disabling its device stops it.
        let device = identity.id.device.clone();
        match self.registry.entry(&IdentityId::device(device.clone())) {
            Some(parent) if parent.identity().status == Status::Enabled => Ok(Some(parent)),
            _ => Err(AuthError::ParentDisabled(device)),
        }
    }
}

/// How an identity proves itself, in the operator's words.
fn method(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Sas(_) => "SAS token",
        Authentication::SelfSigned(_) => "X.509 thumbprint",
        Authentication::CertificateAuthority => "X.509 CA",
        Authentication::None => "nothing (type none)",
    }
}

/// Both keys are always tried, so that the time taken does not tell which one was nearly right.
fn signing_key<'k>(
    token: &SasToken<'_>,
    primary: &'k SymmetricKey,
    secondary: &'k SymmetricKey,
) -> Result<&'k SymmetricKey, AuthError> {
    let by_primary = token.is_signed_by(primary);
    let by_secondary = token.is_signed_by(secondary);
    match (by_primary, by_secondary) {
        (true, _) => Ok(primary),
        (false, true) => Ok(secondary),
        (false, false) => Err(AuthError::Token(SasError::SignatureMismatch)),
    }
}

/// Old clients leave one trailing `api-version=…` segment of the user name in the token's resource.
fn without_api_version<'a, 's>(segments: &'a [&'s str]) -> &'a [&'s str] {
    match segments {
        [rest @ .., last] if last.starts_with("api-version=") => rest,
        all => all,
    }
}

fn names_exactly(segments: &[&str], id: &IdentityId) -> bool {
    match (segments, &id.module) {
        (["devices", device], None) => *device == id.device.as_str(),
        (["devices", device, "modules", module], Some(own)) => {
            *device == id.device.as_str() && *module == own.as_str()
        }
        _ => false,
    }
}

/// Whole segments only: `devices/d1` covers `d1` and its modules, never `d10`.
fn covers(segments: &[&str], id: &IdentityId) -> bool {
    match segments {
        [] | ["devices"] => true,
        ["devices", device] => *device == id.device.as_str(),
        _ => names_exactly(segments, id),
    }
}

fn wrong_resource(token: &SasToken<'_>, id: &IdentityId) -> AuthError {
    let wanted = match &id.module {
        None => format!("devices/{}", id.device),
        Some(module) => format!("devices/{}/modules/{module}", id.device),
    };
    AuthError::WrongResource { presented: token.resource().to_owned(), wanted }
}

#[cfg(test)]
pub(crate) mod tests;
