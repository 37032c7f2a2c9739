//! What follows a failed login over any front: the hub counts it, reports it to the operator, and holds it against the
//! address and the identity it claimed.
//!
//! Only failures are counted. To verify a token costs less than to look up whether to verify it, so a real device is never
//! refused for what others did in its name (threats T321). A storm of bad logins gets no answers, no room in the record,
//! and no handshakes.

use std::net::{IpAddr, SocketAddr};

use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::IdentityId;
use portcullis_registry::sas::SasToken;
use rustls::{CertificateError, OtherError};

use crate::auth::{
    AuthError, Contrast, Evidence, Face, Origin, RememberedService, VerifiedIdentity, VerifiedService,
};
use crate::hub::Hub;
use crate::hub::events::Details;
use crate::hub::metrics::Scope;
use crate::hub::outcome::{Blame, ConnectionOutcome};
use crate::hub::refusals::Refusal;
use crate::iothub::topic::EventName;

/// Who tried to get in, and by what.
#[derive(Clone, Copy, Debug)]
pub struct LoginAttempt<'a> {
    pub peer: IpAddr,
    pub face: Face,
    /// The identity it claimed to be, if one.
    pub id: Option<&'a IdentityId>,
    /// What it gave as a token.
    pub password: Option<&'a str>,
}

/// Why it did not.
#[derive(Clone, Debug)]
pub struct Fault {
    pub outcome: ConnectionOutcome,
    /// In words, for the operator.
    pub reason: String,
    pub contrast: Option<Contrast>,
}

/// Whether a peer hears of its refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Send,
    /// It has failed too often to be worth it.
    Withhold,
}

/// Tells the operator of a failed login and holds it against whoever tried; whether the peer is to be answered.
pub fn failed(hub: &Hub, attempt: LoginAttempt<'_>, fault: &Fault) -> Reply {
    let now = hub.clock.now();
    let address_is_good = hub.admission.login_failed(attempt.peer, now.monotonic);
    let identity_is_good = attempt.id.is_none_or(|id| hub.failed_identities.spend(id.clone(), now.monotonic));
    if !address_is_good {
        hub.metrics.throttled(Scope::Address);
    }
    if !identity_is_good {
        hub.metrics.throttled(Scope::Identity);
    }
    let reply = match address_is_good && identity_is_good {
        true => Reply::Send,
        false => Reply::Withhold,
    };
    report(hub, attempt, fault, reply);
    reply
}

/// Tells the operator of a client certificate that ended a handshake: as a metric and in the log. Whose it is nobody
/// has said yet.
pub fn report_certificate(hub: &Hub, peer: SocketAddr, face: Face, error: &std::io::Error) {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    let Some(rustls::Error::InvalidCertificate(cause)) = cause else { return };
    let reason = match cause {
        CertificateError::Other(OtherError(reason)) => reason.to_string(),
        other => other.to_string(),
    };
    let fault = Fault::new(ConnectionOutcome::X509NotProven, reason);
    hub.metrics.connection_attempt(fault.outcome);
    failed(hub, LoginAttempt { peer: peer.ip(), face, id: None, password: None }, &fault);
}

/// Tells the operator why somebody did not get in.
pub fn report(hub: &Hub, attempt: LoginAttempt<'_>, fault: &Fault, reply: Reply) {
    if let Some(id) = attempt.id {
        record(hub, attempt, id, fault, reply);
    }
    if reply == Reply::Send && hub.refusals.may_report(hub.clock.wall()) {
        let Fault { outcome, reason, .. } = fault;
        let (peer, face) = (attempt.peer, attempt.face.as_str());
        let identity = attempt.id.map(tracing::field::display);
        let (outcome, blame) = (outcome.label(), outcome.blame().map(Blame::as_str));
        tracing::info!(%peer, face, identity, outcome, blame, reason, "refused");
    }
}

/// Each refusal is an event; the record keeps those that were answered, and the number of the others.
fn record(hub: &Hub, attempt: LoginAttempt<'_>, id: &IdentityId, fault: &Fault, reply: Reply) {
    let now = hub.clock.wall();
    match reply {
        Reply::Withhold => hub.refusals.count(id),
        Reply::Send => {
            let token = attempt.password.and_then(|text| SasToken::parse(text).ok());
            let refusal = Refusal {
                time: now,
                peer: attempt.peer,
                face: attempt.face,
                outcome: fault.outcome,
                reason: fault.reason.clone(),
                contrast: fault.contrast.clone(),
                token_end: token.map(|token| token.expiry()),
            };
            hub.refusals.note(id, hub.registry.entry(id).is_some(), refusal);
        }
    }
    hub.events.emit(EventName::CredentialRefused, id, now, || Details {
        reason: Some(fault.outcome.label()),
        text: Some(fault.reason.clone()),
        peer: Some(attempt.peer.to_string()),
        ..Details::default()
    });
}

/// Judges a token that a request presents as one of a shared access policy.
pub fn authenticate_service(hub: &Hub, token: &str, origin: Origin) -> Result<VerifiedService, Fault> {
    let policies = hub.policies();
    let verdict = hub.authenticator(&policies).verify_service(token, None, origin, hub.clock.wall());
    verdict.map_err(|error| Fault::from(&error))
}

/// Judges the name and key of a shared access policy, as a person signs in with them.
pub fn authenticate_policy(
    hub: &Hub,
    policy: &str,
    key: &SymmetricKey,
    origin: Origin,
) -> Result<VerifiedService, Fault> {
    let policies = hub.policies();
    let verdict = hub.authenticator(&policies).verify_policy_key(policy, key, origin);
    verdict.map_err(|error| Fault::from(&error))
}

/// Judges what a request presents as proof that a device or module sends it. One that does was seen at this time.
pub fn authenticate_device(
    hub: &Hub,
    id: &IdentityId,
    evidence: Evidence<'_>,
) -> Result<VerifiedIdentity, Fault> {
    let policies = hub.policies();
    let now = hub.clock.wall();
    let verified = hub.authenticator(&policies).verify(id, evidence, now);
    let verified = verified.map_err(|error| Fault::from(&error))?;
    verified.entry().activity().seen(now);
    Ok(verified)
}

/// Whether the policy by which a service has proven itself still has its key and rights.
pub fn service_still_holds(hub: &Hub, service: &VerifiedService) -> bool {
    service.still_holds(&hub.policies())
}

/// Whether everything by which a device has proven itself still holds.
pub fn device_still_holds(hub: &Hub, device: &VerifiedIdentity) -> bool {
    hub.still_holds(device).is_ok()
}

/// The service that was remembered, if its policy still has its key; `origin` is where it asks from now.
pub fn recall_service(hub: &Hub, remembered: &RememberedService, origin: Origin) -> Option<VerifiedService> {
    remembered.verify(&hub.policies(), origin)
}

/// Counts a request without valid credentials and, where it is known who sent it, holds it against the sender.
pub fn refuse_request(hub: &Hub, attempt: Option<LoginAttempt<'_>>, fault: &Fault) -> Reply {
    hub.metrics.requests_refused.inc();
    attempt.map_or(Reply::Send, |attempt| failed(hub, attempt, fault))
}

/// Whether an address has failed so often that nothing it presents is judged now; each such attempt is counted.
pub fn is_turned_away(hub: &Hub, peer: IpAddr) -> bool {
    let is_turned_away = hub.admission.is_turned_away(peer, hub.clock.now().monotonic);
    if is_turned_away {
        hub.metrics.throttled(Scope::Address);
    }
    is_turned_away
}

impl Fault {
    pub fn new(outcome: ConnectionOutcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into(), contrast: None }
    }
}

impl From<&AuthError> for Fault {
    fn from(error: &AuthError) -> Self {
        Self { outcome: error.outcome(), reason: error.to_string(), contrast: Some(error.contrast()) }
    }
}
