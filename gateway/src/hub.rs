//! The shared handle: the registry and everything around it that connections and requests need.
//!
//! Orders go down through it by function call. News comes up: a change of the registry is held against the live
//! connections that rest on what changed, before the change is answered.

use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::IdentityId;
use portcullis_registry::policy::Policies;
use portcullis_registry::store::{ChangeKind, Changed, Registry};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::auth::{AuthError, Authenticator, HostNames, Revoked, Trust, TrustStore, VerifiedIdentity};
use crate::config::Config;
use crate::hub::admission::AdmissionControl;
use crate::hub::audit::Audit;
use crate::hub::bus::Bus;
use crate::hub::clock::Clock;
use crate::hub::connection_log::ConnectionLog;
use crate::hub::events::{Details, Events};
use crate::hub::history::History;
use crate::hub::metrics::{Metrics, QueueCollector};
use crate::hub::refusals::RefusalLog;
use crate::hub::session_table::SessionTable;
use crate::hub::throttle::{Rate, Throttle};
use crate::iothub::topic::EventName;
use crate::tls::ServerTls;
use job_store::Jobs;

pub mod admission;
pub mod audit;
pub mod bus;
pub mod certificate_reload;
pub mod clock;
pub mod close_reason;
pub mod connection_log;
pub mod events;
pub mod history;
pub mod job_store;
pub mod listener;
pub mod metrics;
pub mod outcome;
pub mod refusals;
pub(crate) mod reverse_lines;
pub mod session_table;
pub mod throttle;

/// One hub.
#[derive(Debug)]
pub struct Hub {
    pub config: Config,
    pub clock: Clock,
    pub hosts: HostNames,
    pub tls: ServerTls,
    /// The enrolled CAs.
    pub trust: TrustStore,
    pub registry: Arc<Registry>,
    pub sessions: Arc<SessionTable>,
    pub bus: Bus,
    pub events: Events,
    pub audit: Audit,
    pub admission: Arc<AdmissionControl>,
    pub refusals: RefusalLog,
    pub connections: ConnectionLog,
    pub history: History,
    pub jobs: Jobs,
    /// Failed logins by the identity they claimed.
    pub(crate) failed_identities: Throttle<IdentityId>,
    /// Telemetry that came over HTTPS.
    pub(crate) posted: Throttle<IdentityId>,
    pub metrics: Metrics,
    /// Cancelled once: stop accepting, tell every session.
    pub stopping: CancellationToken,
    /// Every connection's task; a stop waits for them.
    pub tasks: TaskTracker,
    /// Permits of the watchers of telemetry and presence.
    pub(crate) watchers: Arc<Semaphore>,
    /// The turn of whoever changes the shared access policies.
    pub(crate) policy_changes: Semaphore,
    policies: watch::Sender<Arc<Policies>>,
    decoy: SymmetricKey,
}

impl Hub {
    /// A hub that serves nobody yet. `hosts` are the names it answers to.
    pub fn new(
        config: Config,
        hosts: HostNames,
        tls: ServerTls,
        registry: Arc<Registry>,
        policies: Policies,
        trust: Trust,
    ) -> std::io::Result<Arc<Self>> {
        let limits = &config.limits;
        let mut metrics = Metrics::new();
        metrics.add_collector(Box::new(QueueCollector(Arc::clone(&registry))));
        let hub = Arc::new(Self {
            admission: AdmissionControl::new(
                limits.anonymous_connections_max,
                limits.anonymous_per_address_max,
                Rate::per_second(limits.failed_logins_per_address_per_second_max),
            ),
            failed_identities: Throttle::new(
                Rate::per_second(limits.failed_logins_per_identity_per_second_max),
                THROTTLED_IDENTITIES_MAX,
            ),
            posted: Throttle::new(
                Rate::per_second(limits.messages_per_identity_per_second_max),
                THROTTLED_IDENTITIES_MAX,
            ),
            refusals: RefusalLog::new(limits.refused_identities_max),
            connections: ConnectionLog::default(),
            history: History::default(),
            jobs: Jobs::open(&config.data_dir.join(JOBS_DIRECTORY), Timestamp::now())?,
            clock: Clock::default(),
            hosts,
            tls,
            trust: TrustStore::new(trust),
            registry,
            sessions: Arc::default(),
            bus: Bus::start()?,
            events: Events::default(),
            audit: Audit::open(&config.data_dir.join(AUDIT_DIRECTORY))?,
            metrics,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
            watchers: Arc::new(Semaphore::new(limits.watchers_max)),
            policy_changes: Semaphore::new(1),
            policies: watch::Sender::new(Arc::new(policies)),
            decoy: SymmetricKey::generate(),
            config,
        });
        let watcher = Arc::downgrade(&hub);
        hub.registry.observe(Box::new(move |changed| {
            if let Some(hub) = watcher.upgrade() {
                hub.on_changed(changed);
            }
        }));
        Ok(hub)
    }

    /// The shared access policies as they are now.
    pub fn policies(&self) -> Arc<Policies> {
        Arc::clone(&self.policies.borrow())
    }

    /// The shared access policies as they change, for a connection that rests on one.
    pub fn watch_policies(&self) -> watch::Receiver<Arc<Policies>> {
        self.policies.subscribe()
    }

    /// Puts other policies in force and holds them against every live session (threats P6).
    pub(crate) fn set_policies(&self, policies: Policies) {
        self.policies.send_replace(Arc::new(policies));
        self.recheck_all();
    }

    /// What verdicts rest on.
    pub fn authenticator<'a>(&'a self, policies: &'a Policies) -> Authenticator<'a> {
        Authenticator {
            registry: &self.registry,
            policies,
            trust: &self.trust,
            hosts: &self.hosts,
            sas: self.config.sas,
            decoy: &self.decoy,
            leeway: self.config.limits.sas_expiry_leeway,
        }
    }

    /// Whether everything a live connection rests on still holds.
    pub fn still_holds(&self, who: &VerifiedIdentity) -> Result<(), Revoked> {
        who.still_holds(&self.policies(), &self.trust.current())
    }

    /// From now on these CAs vouch for devices; whoever rests on another one leaves.
    pub fn set_trust(&self, trust: Trust) {
        self.trust.set(trust);
        self.recheck_all();
    }

    /// The wall clock was set: whoever's credential has ended by now leaves, whatever its session waits for (threats P7).
    pub(crate) fn clock_was_set(&self) {
        let now = self.clock.wall();
        for session in self.sessions.all() {
            session.expire(now);
        }
        // Services watch their policy, and look at the clock when they hear of it.
        self.policies.send_modify(|_| {});
    }

    /// Whether a user name's host is this hub.
    pub fn check_host(&self, host: &str) -> Result<(), AuthError> {
        if self.hosts.contains(host) {
            return Ok(());
        }
        Err(AuthError::WrongHost { presented: host.to_owned(), expected: self.hosts.primary().to_owned() })
    }

    /// Does the work of a request to its end, even when nobody waits for its answer any more: a client that goes away in
    /// the middle, or takes its own right away, must not leave a change without its line in the audit record. An error
    /// says how the work broke off.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, String> {
        self.tasks.spawn(work).await.map_err(|error| error.to_string())
    }

    /// Stops: no new connections, every session told, every task awaited, the store flushed.
    pub async fn stop(self: &Arc<Self>) {
        self.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_TIME_MAX, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = self.tasks.len(),
                "some connections did not end in time and are cut"
            );
        }
        let hub = Arc::clone(self);
        // Closing the store and the audit record waits for their threads.
        let closed = tokio::task::spawn_blocking(move || {
            if let Err(error) = hub.registry.close() {
                tracing::error!(%error, "the store did not close in order");
            }
            hub.audit.close();
        })
        .await;
        if let Err(error) = closed {
            tracing::error!(%error, "the store and the audit record did not close in order");
        }
    }

    /// Holds a change of the registry against the sessions that rest on the identity: called after the registry
    /// shows the change and before the change is answered (threats P6).
    fn on_changed(&self, changed: &Changed) {
        self.emit_change(changed);
        match changed.kind {
            ChangeKind::Created | ChangeKind::MessageExpired(_) => {}
            ChangeKind::Updated => {
                self.recheck(&changed.id);
                if changed.id.module.is_none() {
                    // A module rests on its device too.
                    let modules = self.registry.modules(&changed.id.device).unwrap_or_default();
                    modules.iter().for_each(|module| self.recheck(&module.identity().id));
                }
            }
            // A device's modules are deleted with it, and each is told of.
            ChangeKind::Deleted => self.recheck(&changed.id),
        }
    }

    fn emit_change(&self, changed: &Changed) {
        let name = match changed.kind {
            ChangeKind::Created => EventName::IdentityCreated,
            ChangeKind::Updated => EventName::IdentityUpdated,
            ChangeKind::Deleted => {
                self.connections.forget(&changed.id);
                EventName::IdentityDeleted
            }
            ChangeKind::MessageExpired(_) => EventName::C2dExpired,
        };
        self.events.emit(name, &changed.id, self.clock.wall(), || self.details(changed));
    }

    fn details(&self, changed: &Changed) -> Details {
        match &changed.kind {
            ChangeKind::Created | ChangeKind::Updated => {
                let entry = self.registry.entry(&changed.id);
                let etag = entry.map(|entry| entry.identity().etag().to_string());
                Details { etag, ..Details::default() }
            }
            ChangeKind::Deleted => Details::default(),
            ChangeKind::MessageExpired(message) => {
                Details { message_id: Some(message.message_id.clone()), ..Details::default() }
            }
        }
    }

    fn recheck(&self, id: &IdentityId) {
        if let Some(session) = self.sessions.session(id) {
            session.recheck(&self.policies(), &self.trust.current());
        }
    }

    fn recheck_all(&self) {
        let (policies, trust) = (self.policies(), self.trust.current());
        self.sessions.all().iter().for_each(|session| session.recheck(&policies, &trust));
    }
}

/// Where in the data directory the jobs are.
const JOBS_DIRECTORY: &str = "jobs";
/// Where in the data directory the audit record is.
const AUDIT_DIRECTORY: &str = "audit";
/// Identities whose rate is kept at once: those of the last second.
const THROTTLED_IDENTITIES_MAX: usize = 65_536;
/// How long a stop waits for connections to end.
const DRAIN_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);
