//! Authentication: takes a claim and its evidence, and returns a verified identity or the exact reason of the refusal.
//!
//! Only `verify` builds a `VerifiedIdentity`, and only `verify_service` builds a `VerifiedService`. Code that acts for
//! a device or an operator takes one of them, never a bare id. No I/O happens here: the registry is looked up once, in
//! memory, and the time is an argument. The peer gets the same answer whatever the reason (threats T320). The operator
//! sees the reason.

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

/// An authenticated device or module. Only `verify` makes one.
#[derive(Clone, Debug)]
pub struct VerifiedIdentity {
    entry: Arc<Entry>,
    /// A module's device. The module's connection ends when its device is removed.
    parent: Option<Arc<Entry>>,
    id: IdentityId,
    generation: GenerationId,
    credential: Credential,
    expires: Option<Timestamp>,
    weak: bool,
    access: Access,
}

/// The credentials that a peer sends for its claim. Either may be missing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// The password of CONNECT, which must be a SAS token.
    pub password: Option<&'a str>,
    /// The certificates of the handshake, the peer's own first. The peer has proven that it holds its key.
    pub certificates: Option<&'a [CertificateDer<'a>]>,
}

/// Which kinds of identities may use SAS tokens.
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

    /// The credential of the connection. The connection ends when the credential is no longer valid.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// When the credential expires, and the connection with it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Whether the credential depends on a hash that can be forged: a SHA-1 thumbprint.
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// The access list at the time of authentication. If it is narrowed later, the connection ends.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Checks whether the identity has a right.
    pub fn check(&self, wanted: Right) -> Result<(), AccessDenied> {
        self.access.check(wanted)
    }

    /// Checks whether the identity's current entry in the registry would still admit this connection.
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

/// Why a live connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked {
    Deleted,
    Disabled,
    CredentialChanged,
    /// The peer may connect again, with its present rights.
    AccessNarrowed,
}

/// An operator or back-end service that has authenticated with a policy's key. Only `verify_service` makes one.
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

    /// The policy's rights at the time of authentication.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The address and interface of the caller.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// When the token expires, and a connection with it.
    pub fn expires(&self) -> Option<Timestamp> {
        self.expires
    }

    /// Checks whether the policy grants every one of these rights.
    pub fn check(&self, wanted: Rights) -> Result<(), AuthError> {
        if self.rights.contains(wanted) {
            Ok(())
        } else {
            Err(AuthError::RightMissing { policy: self.policy.clone(), wanted })
        }
    }

    /// Whether the policy still has the key of this service, and the rights.
    pub fn still_holds(&self, policies: &Policies) -> bool {
        policies.find(&self.policy).is_some_and(|policy| {
            credential::is_of(&self.key, &policy.keys) && policy.rights.contains(self.rights)
        })
    }
}

/// The party for which a connection acts.
#[derive(Debug)]
pub enum Who {
    Device(VerifiedIdentity),
    Service(VerifiedService),
}

/// What authentication depends on, besides the claim and its evidence.
pub struct Authenticator<'a> {
    pub registry: &'a Registry,
    pub policies: &'a Policies,
    pub trust: &'a TrustStore,
    pub hosts: &'a HostNames,
    pub sas: SasSwitches,
    /// A key of no identity. It makes refusing an unknown name cost the same as refusing a wrong key.
    pub decoy: &'a SymmetricKey,
    /// How long a token is valid after its `se`.
    pub leeway: Duration,
}

impl Authenticator<'_> {
    /// Authenticates the peer that claims to be `id`. If there is a token, the token decides, and a certificate beside
    /// it makes no difference.
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
            // Does the same work as for a known id, so that the time of the answer reveals nothing (threats T320).
            let _ = token.is_signed_by(self.decoy);
            return Err(AuthError::UnknownIdentity(id.clone()));
        };
        let identity = entry.identity();
        let keys = self.sas_keys(&identity).inspect_err(|_| {
            let _ = token.is_signed_by(self.decoy);
        })?;
        let credential = match token.policy() {
            Some(policy) => self.policy_credential(&token, policy, id)?,
            None => self.own_credential(&token, id, keys)?,
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
        // A refusal costs the same work for every reason.
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

    /// Authenticates a service by its token. `claimed` is the policy that a user name states.
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

    /// Authenticates a service by a key of the named policy.
    pub fn verify_policy_key(
        &self,
        name: &str,
        key: &SymmetricKey,
        origin: Origin,
    ) -> Result<VerifiedService, AuthError> {
        let policy = self.policies.find(name);
        // Always tries both keys, and an unknown name costs the same.
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

    /// The keys of an identity that may use a token: its own, or a policy's instead. Identities with a certificate or
    /// of type `none` may not use a token, whoever signed it.
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

    /// Checks a token without `skn`. The identity's own key must have signed it, and it must name exactly the identity.
    fn own_credential(
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

    /// Checks a token with `skn`. The policy's key must have signed it, and it may cover more than one identity.
    fn policy_credential(
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

    /// When a token expires; none if that is later than any clock can show.
    fn end_of(&self, token: &SasToken<'_>) -> Option<Timestamp> {
        Timestamp::from_second(token.expiry()).ok()?.checked_add(self.leeway).ok()
    }

    /// The device of a module, after checking that both are enabled.
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

/// How an identity authenticates, as text for the operator.
fn method(authentication: &Authentication) -> &'static str {
    match authentication {
        Authentication::Sas(_) => "SAS token",
        Authentication::SelfSigned(_) => "X.509 thumbprint",
        Authentication::CertificateAuthority => "X.509 CA",
        Authentication::None => "nothing (type none)",
    }
}

/// Always tries both keys, so that the time reveals nothing about them.
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

/// Removes the segment `api-version=…`, which old clients copy from the user name into the token's resource.
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

/// Compares whole segments: `devices/d1` covers `d1` and its modules, but not `d10`.
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
