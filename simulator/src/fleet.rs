//! One run of a fleet, from the first REST call to the last: provision, phase after phase, drain, clean up, report.
//!
//! The run tells its devices which phase began and when, and nothing more: each works out its own part (`plan`).

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use portcullis_registry::id::IdentityId;
use portcullis_registry::random_bytes;
use rustls::ClientConfig;
use rustls::client::Resumption;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::HubAccess;
use crate::c2d;
use crate::client::Dial;
use crate::device::Device;
use crate::hostile;
use crate::identity::Identity;
use crate::plan::Schedule;
use crate::provision::{self, Made, ProvisionError};
use crate::report::Report;
use crate::rest::{Rest, RestError};
use crate::scenario::{InvalidScenario, Phase, Scenario};
use crate::series::Series;
use crate::tally::{Count, Tally};

/// A fleet that has not been run yet.
#[derive(Debug)]
pub struct Fleet {
    access: HubAccess,
    scenario: Scenario,
    /// Those of a file; otherwise the run makes its own.
    given: Option<Vec<Identity>>,
    tally: Arc<Tally>,
    series: Arc<Series>,
}

/// What everything in one run shares.
#[derive(Clone, Debug)]
pub struct Run(Arc<Shared>);

#[derive(Debug)]
pub struct Shared {
    /// Letters and digits that no other run has.
    pub id: String,
    pub access: HubAccess,
    pub rest: Rest,
    pub scenario: Arc<Scenario>,
    pub schedule: Schedule,
    pub identities: Vec<IdentityId>,
    pub tally: Arc<Tally>,
    /// For every connection: trusts the hub, shows nothing, resumes nothing.
    pub tls: Arc<ClientConfig>,
    /// Turns to connect.
    pub turns: Semaphore,
    pub stages: watch::Sender<Stage>,
    /// The run is over: no connection is begun or waited for.
    pub leaving: CancellationToken,
    /// For each phase, the first attempts to connect that it may wait for.
    pub attempts: Vec<Countdown>,
    /// Identities that have not heard yet that nothing new is to be sent.
    pub draining: Countdown,
    /// Something that was under way has arrived.
    easing: Notify,
    messages: AtomicU64,
}

/// Things that are still to happen.
#[derive(Debug)]
pub struct Countdown {
    left: AtomicUsize,
    over: Notify,
}

/// Where the run is.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    Waiting,
    Phase {
        number: usize,
        start: Instant,
    },
    /// Nothing new; what is under way gets its chance.
    Drain,
    Leave,
}

/// Why a fleet cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error(transparent)]
    Scenario(#[from] InvalidScenario),
    #[error("{0} cannot be reached")]
    Unreachable(String, #[source] io::Error),
}

impl Fleet {
    /// Prepares a run of `scenario` against the hub of `access`; nothing is asked of the hub yet.
    pub fn new(access: HubAccess, scenario: Scenario) -> Self {
        Self { access, scenario, given: None, tally: Arc::default(), series: Arc::default() }
    }

    /// The same with identities that are there already, in place of those the scenario would make.
    pub fn of(
        access: HubAccess,
        mut scenario: Scenario,
        given: Vec<Identity>,
    ) -> Result<Self, InvalidScenario> {
        (scenario.fleet.devices, scenario.fleet.modules_per_device) = (given.len(), 0);
        let scenario = scenario.check()?;
        Ok(Self { given: Some(given), ..Self::new(access, scenario) })
    }

    /// The run's counters, to be read while it goes on.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The run's course, to be read while it goes on.
    pub fn series(&self) -> Arc<Series> {
        Arc::clone(&self.series)
    }

    /// Runs to the end of the scenario or until `stop`. Identities that were made are deleted again, also after an
    /// error, unless the scenario keeps them.
    pub async fn run(self, stop: CancellationToken) -> Result<Report, RunError> {
        let Self { mut access, scenario, given, tally, series } = self;
        access.address = match access.address {
            Some(address) => Some(address),
            None => address_here(&access.hostname, access.mqtt_port).await?,
        };
        let run = Run::new(access, scenario, given.as_deref(), tally)?;
        let ended = CancellationToken::new();
        let sampling = tokio::spawn(Arc::clone(&series).sample(run.clone(), ended.clone()));
        let mut made = Made::default();
        let outcome = match given {
            Some(given) => {
                run.tally.add(Count::Provisioned, given.len() as u64);
                Ok(given)
            }
            None => provision::provision(&run, &stop, &mut made).await,
        };
        let outcome = match outcome {
            Ok(identities) => Ok(converse(&run, &stop, &series, identities).await),
            Err(error) => Err(error),
        };
        ended.cancel();
        // It ends by itself, and a panic there is no reason to lose the report.
        let _ = sampling.await;
        if !run.scenario.fleet.keep {
            provision::delete(&run, made).await;
        }
        let lasted = outcome?;
        Ok(Report::new(&run.scenario, lasted, &run.tally, &series))
    }
}

impl Run {
    fn new(
        access: HubAccess,
        scenario: Scenario,
        given: Option<&[Identity]>,
        tally: Arc<Tally>,
    ) -> Result<Self, RunError> {
        let identities = match given {
            Some(given) => given.iter().map(|identity| identity.id.clone()).collect(),
            None => scenario.identities().map_err(InvalidScenario::Prefix)?,
        };
        let mut tls = (*access.tls).clone();
        // One memory for all would have one device resume another's session.
        tls.resumption = Resumption::disabled();
        let scenario = Arc::new(scenario);
        let schedule = Schedule::new(Arc::clone(&scenario));
        let connecting =
            |phase| (0..identities.len()).filter(|number| schedule.plan(phase, *number).connects).count();
        let attempts = (0..scenario.phases.len()).map(|phase| Countdown::from(connecting(phase))).collect();
        Ok(Self(Arc::new(Shared {
            id: random_bytes::<4>().map(|byte| format!("{byte:02x}")).concat(),
            rest: Rest::new(access.clone())?,
            access,
            attempts,
            draining: Countdown::from(identities.len()),
            schedule,
            identities,
            tally,
            tls: Arc::new(tls),
            turns: Semaphore::new(scenario.fleet.connecting_max),
            stages: watch::Sender::new(Stage::Waiting),
            leaving: CancellationToken::new(),
            easing: Notify::new(),
            messages: AtomicU64::new(0),
            scenario,
        })))
    }
}

impl Countdown {
    fn from(count: usize) -> Self {
        Self { left: AtomicUsize::new(count), over: Notify::new() }
    }

    /// One of them has happened.
    pub fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.notify_one();
        }
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Waits until all have; for one waiter.
    async fn over(&self) {
        while !self.is_over() {
            self.over.notified().await;
        }
    }
}

impl Deref for Run {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl Shared {
    /// The way to the hub for identity `number`. One address has some 28,000 ports, and a hub may limit what comes from
    /// one; on this machine there are millions of addresses.
    pub fn dial(&self, number: usize) -> Dial {
        let is_here = self.access.address.is_some_and(|address| address.is_ipv4() && address.is_loopback());
        let last = SOURCE_FIRST + (number % self.scenario.fleet.source_addresses) as u8;
        Dial {
            hostname: self.access.hostname.clone(),
            port: self.access.mqtt_port,
            address: self.access.address,
            source: is_here.then(|| Ipv4Addr::new(127, 0, 0, last).into()),
        }
    }

    /// Something that was under way has arrived.
    pub fn eased(&self) {
        self.easing.notify_one();
    }

    /// The number of a new cloud-to-device message.
    pub fn next_message(&self) -> u64 {
        self.messages.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_at_rest(&self) -> bool {
        self.tally.count(Count::Acknowledged) >= self.tally.count(Count::Sent)
            && self.tally.c2d_waiting() == 0
    }
}

/// The hub's address if it is one of this machine's; others are asked for at each connect, for they may change.
async fn address_here(hostname: &str, port: u16) -> Result<Option<IpAddr>, RunError> {
    let unreachable = |error| RunError::Unreachable(format!("{hostname}:{port}"), error);
    let mut addresses: Vec<_> = lookup_host((hostname, port)).await.map_err(unreachable)?.collect();
    // Several source addresses are there for version 4 alone.
    addresses.sort_by_key(|address| !address.is_ipv4());
    let mut failure = io::Error::from(io::ErrorKind::NotFound);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(_) => return Ok(Some(address.ip()).filter(IpAddr::is_loopback)),
            Err(error) => failure = error,
        }
    }
    Err(unreachable(failure))
}

/// Goes through the phases with the fleet, and sees it off. Says how long the phases lasted.
async fn converse(
    run: &Run,
    stop: &CancellationToken,
    series: &Series,
    identities: Vec<Identity>,
) -> Duration {
    let mut devices = JoinSet::new();
    for (number, identity) in identities.into_iter().enumerate() {
        devices.spawn(Device::new(number, identity, run.clone()).live());
    }
    let began = Instant::now();
    let mut start = began;
    let mut sending = JoinSet::new();
    for (number, phase) in run.scenario.phases.iter().enumerate() {
        series.phase(&phase.name);
        run.stages.send_replace(Stage::Phase { number, start });
        let company = async {
            let receivers = run.schedule.receivers(number);
            let c2d = (phase.c2d_per_second, phase.payload_bytes);
            tokio::join!(
                c2d::send(run, receivers, start, c2d, &mut sending),
                hostile::come(run, start, phase.hostile)
            );
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = company => {}
            end = end_of(phase, start, &run.attempts[number]) => start = end,
        }
    }
    let lasted = began.elapsed();
    series.phase("drain");
    run.stages.send_replace(Stage::Drain);
    // What does not arrive in time is told by the report as lost.
    let _ = timeout(DRAIN_TIME_MAX, async {
        run.draining.over().await;
        while sending.join_next().await.is_some() {}
        while !run.is_at_rest() {
            run.easing.notified().await;
        }
    })
    .await;
    run.stages.send_replace(Stage::Leave);
    run.leaving.cancel();
    let all_left = timeout(LEAVE_TIME_MAX, async { while devices.join_next().await.is_some() {} });
    if all_left.await.is_err() {
        devices.shutdown().await;
    }
    lasted
}

/// Waits for the end of a phase; when that was. The next begins then, so that phases do not drift.
async fn end_of(phase: &Phase, start: Instant, attempts: &Countdown) -> Instant {
    let Some(end) = phase.duration.map(|duration| start + duration) else {
        return std::future::pending().await;
    };
    sleep_until(end).await;
    if !phase.settle || attempts.is_over() {
        return end;
    }
    attempts.over().await;
    Instant::now()
}

/// How long the end of a run waits for acknowledgements and messages under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(15);
const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);
/// 127.0.0.1 is left to the hub.
const SOURCE_FIRST: u8 = 2;
