//! One run of a fleet: provision, run the phases, drain, clean up, report.
//!
//! The run tells its devices only which phase began and when. Each device computes its own part (`plan`).

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

/// A fleet before its run.
#[derive(Debug)]
pub struct Fleet {
    access: HubAccess,
    scenario: Scenario,
    /// The identities of a file. Without them the run creates its own.
    given: Option<Vec<Identity>>,
    tally: Arc<Tally>,
    series: Arc<Series>,
}

/// The shared state of a run.
#[derive(Clone, Debug)]
pub struct Run(Arc<Shared>);

#[derive(Debug)]
pub struct Shared {
    /// Letters and digits, unique to this run.
    pub id: String,
    pub access: HubAccess,
    pub rest: Rest,
    pub scenario: Arc<Scenario>,
    pub schedule: Schedule,
    pub identities: Vec<IdentityId>,
    pub tally: Arc<Tally>,
    /// For every connection: trusts the hub, sends no certificate, resumes no session.
    pub tls: Arc<ClientConfig>,
    /// Limits how many devices connect at once.
    pub turns: Semaphore,
    pub stages: watch::Sender<Stage>,
    /// Cancelled at the end of the run: no new connection starts, and no device waits for one.
    pub leaving: CancellationToken,
    /// For each phase, the first attempts to connect for which it may wait.
    pub attempts: Vec<Countdown>,
    /// Identities that have not stopped sending yet.
    pub draining: Countdown,
    /// Notified when something in flight has arrived.
    easing: Notify,
    messages: AtomicU64,
}

/// Counts down events that are expected.
#[derive(Debug)]
pub struct Countdown {
    left: AtomicUsize,
    over: Notify,
}

/// The stage of the run.
#[derive(Clone, Copy, Debug)]
pub enum Stage {
    Waiting,
    Phase {
        number: usize,
        start: Instant,
    },
    /// Nothing new is sent, and the run waits for what is in flight.
    Drain,
    Leave,
}

/// Why a fleet cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Provision(#[from] ProvisionError),
    #[error(transparent)]
    Rest(#[from] RestError),
    #[error(transparent)]
    Scenario(#[from] InvalidScenario),
    #[error("the host {0} cannot be reached")]
    Unreachable(String, #[source] io::Error),
}

impl Fleet {
    /// Prepares a run of `scenario` against the hub of `access`. Sends nothing yet.
    pub fn new(access: HubAccess, scenario: Scenario) -> Self {
        Self { access, scenario, given: None, tally: Arc::default(), series: Arc::default() }
    }

    /// The same with existing identities instead of those of the scenario.
    pub fn of(
        access: HubAccess,
        mut scenario: Scenario,
        given: Vec<Identity>,
    ) -> Result<Self, InvalidScenario> {
        (scenario.fleet.devices, scenario.fleet.modules_per_device) = (given.len(), 0);
        let scenario = scenario.check()?;
        Ok(Self { given: Some(given), ..Self::new(access, scenario) })
    }

    /// The run's counters, which may be read during the run.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// The run's time series, which may be read during the run.
    pub fn series(&self) -> Arc<Series> {
        Arc::clone(&self.series)
    }

    /// Runs until the scenario ends or `stop`. Deletes the identities it created, also after an error, unless the
    /// scenario keeps them.
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
        // The task ends by itself, and a panic in it must not lose the report.
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
        // With a shared cache one device would resume another's session.
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

    /// Counts one event.
    pub fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.over.notify_one();
        }
    }

    fn is_over(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Waits until all events have happened. For one waiter.
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
    /// The dial settings of identity `number`. One address has about 28,000 ports, and a hub may limit an address, so
    /// on this machine the connections come from several addresses.
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

    /// Reports that something in flight has arrived.
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

/// The hub's address if it is on this machine. Other names are resolved at each connect, because they may change.
async fn address_here(hostname: &str, port: u16) -> Result<Option<IpAddr>, RunError> {
    let unreachable = |error| RunError::Unreachable(format!("{hostname}:{port}"), error);
    let mut addresses: Vec<_> = lookup_host((hostname, port)).await.map_err(unreachable)?.collect();
    // Only IPv4 has several source addresses.
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

/// Runs the phases with the fleet, and drains it. Returns how long the phases lasted.
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
    // The report counts what does not arrive in time as lost.
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

/// Waits for the end of a phase and returns its time. The next phase begins then, so that phases do not drift.
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

/// How long the end of a run waits for acknowledgements and messages in flight.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(15);
const LEAVE_TIME_MAX: Duration = Duration::from_secs(10);
/// 127.0.0.1 is for the hub.
const SOURCE_FIRST: u8 = 2;
