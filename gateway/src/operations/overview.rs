//! The hub at a glance, for callers that may read the registry: sizes, rates, refusals, what expires soon, and what is
//! wrong. All numbers are counted elsewhere already, so the cost does not depend on the fleet's size.

use std::time::Instant;

use jiff::Timestamp;
use portcullis_registry::authority::AuthorityName;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Rights;
use portcullis_registry::store::Counts;

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::history::Sample;
use crate::hub::refusals::Refusal;
use crate::operations::authorities;

/// The hub at one moment.
#[derive(Clone, Debug)]
pub struct Overview {
    pub time: Timestamp,
    pub counts: Counts,
    /// The last hour, oldest first. The last sample is the present.
    pub samples: Vec<Sample>,
    /// The last refusal of each recently refused id, newest first.
    pub refusals: Vec<(IdentityId, Refusal)>,
    pub server_certificate_end: Timestamp,
    pub authorities: Vec<AuthorityEnd>,
    /// Problems that the operator should solve; empty if there are none.
    pub health_issues: Vec<HealthIssue>,
}

/// When an enrolled CA expires.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityEnd {
    pub name: AuthorityName,
    pub end: Option<Timestamp>,
    pub is_verified: bool,
}

/// A problem of the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthIssue {
    /// The hub is about to stop.
    Stopping,
    /// Changes that the hub made but could not write to the audit record.
    AuditMissing(u64),
    /// Telemetry that at least one subscriber did not get.
    TelemetryLost(u64),
    /// How often the hub had to rebuild the telemetry bus.
    BusRestarted(u64),
    /// Connections that the hub closed because there were too many anonymous ones.
    TurnedAway(u64),
}

/// The present numbers, for the history.
pub fn sample(hub: &Hub, now: Instant) -> Sample {
    Sample {
        taken: now,
        connected: hub.sessions.devices(),
        queued: hub.registry.queue_counts().messages,
        messages: hub.metrics.messages_received(),
        delivered: hub.metrics.c2d_delivered.get(),
        attempts: hub.metrics.attempts_by_outcome(),
    }
}

/// The present state of the hub.
pub fn of(hub: &Hub, caller: &VerifiedService) -> Result<Overview, AuthError> {
    caller.check(Rights::REGISTRY_READ)?;
    let trust = hub.trust.current();
    let ends = trust.authorities().all().iter().map(|authority| AuthorityEnd {
        name: authority.name.clone(),
        end: authorities::describe(authority).map(|described| described.end),
        is_verified: authority.is_verified(),
    });
    Ok(Overview {
        time: hub.clock.wall(),
        counts: hub.registry.counts(),
        samples: hub.history.until(sample(hub, hub.clock.now().monotonic)),
        refusals: hub.refusals.latest(REFUSALS_SHOWN),
        server_certificate_end: hub.tls.expires(),
        authorities: ends.collect(),
        health_issues: health_issues(hub),
    })
}

fn health_issues(hub: &Hub) -> Vec<HealthIssue> {
    let counted = [
        (hub.audit.missing(), HealthIssue::AuditMissing as fn(u64) -> HealthIssue),
        (hub.bus.lost(), HealthIssue::TelemetryLost),
        (hub.bus.restarts(), HealthIssue::BusRestarted),
        (hub.metrics.turned_away.get(), HealthIssue::TurnedAway),
    ];
    let counted = counted.into_iter().filter(|(count, _)| *count > 0).map(|(count, issue)| issue(count));
    hub.stopping.is_cancelled().then_some(HealthIssue::Stopping).into_iter().chain(counted).collect()
}

const REFUSALS_SHOWN: usize = 10;
