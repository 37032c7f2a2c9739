//! Operations on the enrolled CAs as operators may call them: each checks the caller's right, does the one thing, and
//! leaves a line in the log and the audit record. What is answered is stored, and counts at once, for live connections
//! too.

use jiff::Timestamp;
use portcullis_certs::anchor::{Anchor, InvalidAnchor, NoProof};
use portcullis_certs::pem;
use portcullis_certs::presented::OutOfTime;
use portcullis_registry::authority::{
    Authorities, Authority, AuthorityError, AuthorityName, Verification, VerificationCode,
};
use portcullis_registry::backend::StoreError;
use portcullis_registry::id::{IdentityId, Precondition};
use portcullis_registry::policy::Rights;

use crate::auth::{AuthError, Evidence, Trust, VerifiedService, unix_time};
use crate::hub::Hub;
use crate::hub::audit::Operation;
use crate::hub::audit::effect::{Effect, FieldChange, open};
use crate::operations::audit::audited;

/// Why an operation on a CA was not done.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error(transparent)]
    Forbidden(AuthError),
    #[error("the CA certificate is not taken: {0}")]
    Certificate(InvalidAnchor),
    #[error("the CA certificate is not taken: it {0}")]
    OutOfTime(OutOfTime),
    #[error(transparent)]
    Refused(AuthorityError),
    #[error("CA {name} stays unverified: {reason}")]
    NoProof { name: AuthorityName, reason: NoProof },
    #[error("the certificate cannot be judged: {0}")]
    Unreadable(pem::PemError),
    #[error(transparent)]
    Store(StoreError),
}

/// A CA to be enrolled.
#[derive(Clone, Debug)]
pub struct Enrolment<'a> {
    pub name: AuthorityName,
    /// PEM text of the CA's certificate alone.
    pub certificate: &'a [u8],
    /// Why it counts as verified without a proof; none: it awaits one.
    pub asserted: Option<&'a str>,
}

/// What the certificate of an enrolled CA says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    pub subject: String,
    /// SHA-256, in hex.
    pub thumbprint: String,
    pub end: Timestamp,
}

/// What the certificate of an enrolled CA says. It was read when it was enrolled and at each start, so there is always
/// something to say.
pub fn describe(authority: &Authority) -> Option<Described> {
    let anchor = Anchor::parse(authority.certificate.clone().into()).ok()?;
    let end = i64::try_from(anchor.valid_until().as_secs()).ok();
    Some(Described {
        subject: anchor.subject().to_owned(),
        thumbprint: anchor.thumbprints().sha256.to_string(),
        end: end.and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(Timestamp::MAX),
    })
}

/// Every enrolled CA, in the order of their names.
pub fn list(hub: &Hub, caller: &VerifiedService) -> Result<Authorities, CaError> {
    caller.check(Rights::REGISTRY_READ).map_err(CaError::Forbidden)?;
    Ok(hub.trust.current().authorities().clone())
}

/// One enrolled CA.
pub fn retrieve(hub: &Hub, caller: &VerifiedService, name: &AuthorityName) -> Result<Authority, CaError> {
    let all = list(hub, caller)?;
    all.find(name).cloned().map_err(CaError::Refused)
}

/// Enrols a CA, or with a precondition replaces one.
pub async fn enrol(
    hub: &Hub,
    caller: &VerifiedService,
    enrolment: Enrolment<'_>,
    precondition: Precondition,
) -> Result<Authority, CaError> {
    let Enrolment { name, certificate, asserted } = enrolment;
    let now = hub.clock.wall();
    change(hub, caller, Operation::EnrolAuthority, &name, |all| {
        let anchor = Anchor::parse_pem(certificate).map_err(CaError::Certificate)?;
        anchor.check_time(unix_time(now)).map_err(CaError::OutOfTime)?;
        let verification = match asserted {
            Some(reason) => Verification::asserted(reason).map_err(CaError::Refused)?,
            None => Verification::Pending(None),
        };
        let der = anchor.certificate().to_vec();
        all.enrol(name.clone(), der, verification, &precondition, now).map_err(CaError::Refused)?;
        all.find(&name).cloned().map_err(CaError::Refused)
    })
    .await
}

/// A new verification code for a CA; an earlier one no longer counts.
pub async fn renew_code(
    hub: &Hub,
    caller: &VerifiedService,
    name: &AuthorityName,
) -> Result<VerificationCode, CaError> {
    let now = hub.clock.wall();
    change(hub, caller, Operation::RenewAuthorityCode, name, |all| {
        all.renew_code(name, now).map_err(CaError::Refused)
    })
    .await
}

/// Verifies a CA by `proof`, PEM text of a certificate that names the code and is signed with the CA's key.
pub async fn verify(
    hub: &Hub,
    caller: &VerifiedService,
    name: &AuthorityName,
    proof: &[u8],
) -> Result<Authority, CaError> {
    let now = hub.clock.wall();
    change(hub, caller, Operation::VerifyAuthority, name, |all| {
        let code = all.expected_code(name, now).map_err(CaError::Refused)?;
        let certificate = all.find(name).map_err(CaError::Refused)?.certificate.clone();
        let anchor = Anchor::parse(certificate.into()).map_err(CaError::Certificate)?;
        let proven = anchor.check_proof(proof, code, unix_time(now));
        proven.map_err(|reason| CaError::NoProof { name: name.clone(), reason })?;
        all.set_proven(name, now).map_err(CaError::Refused)?;
        all.find(name).cloned().map_err(CaError::Refused)
    })
    .await
}

/// Forgets a CA. Connections that rest on it are told to leave before this answers.
pub async fn remove(
    hub: &Hub,
    caller: &VerifiedService,
    name: &AuthorityName,
    precondition: Precondition,
) -> Result<(), CaError> {
    change(hub, caller, Operation::RemoveAuthority, name, |all| {
        all.remove(name, &precondition).map_err(CaError::Refused)
    })
    .await
}

/// Whether a device that holds the key of a certificate would be admitted as `id` now, and if not, exactly why.
/// `chain` is PEM text, the device's own certificate first.
pub fn judge(
    hub: &Hub,
    caller: &VerifiedService,
    id: &IdentityId,
    chain: &[u8],
) -> Result<Result<(), AuthError>, CaError> {
    caller.check(Rights::REGISTRY_READ).map_err(CaError::Forbidden)?;
    let certificates = pem::read_certificates(chain).map_err(CaError::Unreadable)?;
    let evidence = Evidence { password: None, certificates: Some(&certificates) };
    let policies = hub.policies();
    Ok(hub.authenticator(&policies).verify(id, evidence, hub.clock.wall()).map(drop))
}

/// Changes the enrolled CAs and tells the operator how it went.
async fn change<T>(
    hub: &Hub,
    caller: &VerifiedService,
    operation: Operation,
    name: &AuthorityName,
    change: impl FnOnce(&mut Authorities) -> Result<T, CaError>,
) -> Result<T, CaError> {
    audited(hub, caller, operation, format!("authority {name}"), async {
        caller.check(Rights::REGISTRY_WRITE).map_err(CaError::Forbidden)?;
        let done = store(hub, name, change).await?;
        tracing::info!(authority = %name, policy = caller.policy(), ?operation, "CA changed");
        Ok(done)
    })
    .await
}

/// Changes the enrolled CAs as a whole: stored first, then counted. Changes take turns. With what it did to the CA of
/// this name.
async fn store<T>(
    hub: &Hub,
    name: &AuthorityName,
    change: impl FnOnce(&mut Authorities) -> Result<T, CaError>,
) -> Result<(T, Effect), CaError> {
    let _turn = hub.trust.turn().await;
    let mut authorities = hub.trust.current().authorities().clone();
    let before = authorities.find(name).ok().cloned();
    let outcome = change(&mut authorities)?;
    let effect = effect(before.as_ref(), authorities.find(name).ok());
    let stored = authorities.encode();
    let trust = Trust::new(authorities).map_err(CaError::Certificate)?;
    hub.registry.put_meta(STORED, stored).await.map_err(CaError::Store)?;
    hub.set_trust(trust);
    Ok((outcome, effect))
}

/// What became of a CA. Of a code that proves possession it is told that it is another, not which.
fn effect(before: Option<&Authority>, after: Option<&Authority>) -> Effect {
    let etag = |authority: Option<&Authority>| authority.map(|authority| authority.revision.etag());
    let (etag_before, etag_after) = (etag(before), etag(after));
    let Some(after) = after else { return Effect { etag_before, ..Effect::default() } };
    let thumbprint = |authority: &Authority| describe(authority).map(|described| described.thumbprint);
    let mut changes = Vec::new();
    changes.extend(open("thumbprint", before.and_then(thumbprint).into(), thumbprint(after).into()));
    let verification = |authority: &Authority| verification_text(&authority.verification);
    changes.extend(open("verification", before.map(verification).into(), verification(after).into()));
    let code = |verification: &Verification| match verification {
        Verification::Pending(code) => code.clone(),
        Verification::Proven | Verification::Asserted { .. } => None,
    };
    let after_code = code(&after.verification);
    if after_code.is_some() && after_code != before.and_then(|before| code(&before.verification)) {
        changes.push(FieldChange::Secret { field: "verificationCode" });
    }
    Effect { etag_before, etag_after, changes, details: Vec::new() }
}

fn verification_text(verification: &Verification) -> String {
    match verification {
        Verification::Pending(_) => "pending".to_owned(),
        Verification::Proven => "proven".to_owned(),
        Verification::Asserted { reason } => format!("asserted: {reason}"),
    }
}

/// Under which key the store keeps the enrolled CAs.
pub const STORED: &str = "authorities";
