//! One run of a fleet, from the first REST call to the last: provision, ramp up, send, drain, report, clean up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use portcullis_registry::id::DeviceId;
use portcullis_registry::random_bytes;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::HubAccess;
use crate::c2d;
use crate::device::Device;
use crate::provision::{Provisioned, Provisioner, RestError};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::tally::{Count, Tally};

/// A fleet that has not been run yet.
#[derive(Debug)]
pub struct Fleet {
    run: Run,
}

/// What everything in one run shares.
#[derive(Clone, Debug)]
pub struct Run {
    /// Letters and digits that no other run has.
    pub id: String,
    pub access: HubAccess,
    pub provisioner: Provisioner,
    pub scenario: Arc<Scenario>,
    pub tally: Arc<Tally>,
    pub ramp: Arc<Ramp>,
    /// Devices send no more, wait for their acknowledgements and leave.
    pub stop: CancellationToken,
    /// Devices end at once.
    pub gone: CancellationToken,
}

/// Lets devices connect a few at a time, and all start to send together.
#[derive(Debug)]
pub struct Ramp {
    turns: Semaphore,
    untried: AtomicUsize,
    /// Cancelled when every device has tried to connect once.
    over: CancellationToken,
    start: watch::Sender<Option<Instant>>,
}

impl Fleet {
    /// Prepares a run of `scenario` against the hub of `access`; nothing is asked of the hub yet.
    pub fn new(access: HubAccess, scenario: Scenario) -> Result<Self, RestError> {
        let run = Run {
            id: random_bytes::<4>().map(|byte| format!("{byte:02x}")).concat(),
            provisioner: Provisioner::new(access.clone())?,
            access,
            tally: Arc::default(),
            ramp: Arc::new(Ramp::new(scenario.devices)),
            scenario: Arc::new(scenario),
            stop: CancellationToken::new(),
            gone: CancellationToken::new(),
        };
        Ok(Self { run })
    }

    /// The run's counters, to be read while it goes on.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.run.tally)
    }

    /// Runs to the end of the scenario or until `stop`. Devices that were made are deleted again, also after an
    /// error, unless the scenario keeps them.
    pub async fn run(self, stop: CancellationToken) -> Result<Report, RestError> {
        let run = self.run;
        let mut made = Vec::new();
        let outcome = match provision(&run, &stop, &mut made).await {
            Ok(provisioned) => Ok(converse(&run, &stop, provisioned).await),
            Err(error) => Err(error),
        };
        if !run.scenario.keep {
            delete(&run, made).await;
        }
        let sending = outcome?;
        Ok(Report::new(run.scenario.devices, sending, &run.tally))
    }
}

impl Ramp {
    fn new(devices: usize) -> Self {
        Self {
            turns: Semaphore::new(CONNECTING_MAX),
            untried: AtomicUsize::new(devices),
            over: CancellationToken::new(),
            start: watch::Sender::new(None),
        }
    }

    /// A device's turn to connect, for as long as the permit lives.
    pub async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("the semaphore of the ramp is never closed")
    }

    /// A device's first attempt to connect has ended, however it did.
    pub fn tried(&self) {
        if self.untried.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.over.cancel();
        }
    }

    /// When the fleet starts to send; waits until that is known. `None` when it never will be.
    pub async fn started(&self) -> Option<Instant> {
        self.start.subscribe().wait_for(Option::is_some).await.ok().and_then(|start| *start)
    }
}

/// Makes or finds the devices of the scenario; those made are noted in `made` even when a later one fails.
async fn provision(
    run: &Run,
    stop: &CancellationToken,
    made: &mut Vec<DeviceId>,
) -> Result<Vec<Provisioned>, RestError> {
    let ids = run.scenario.device_ids().unwrap_or_default();
    let requests =
        ids.into_iter().take_while(|_| !stop.is_cancelled()).map(|id| run.provisioner.provision(id));
    let mut answers = stream::iter(requests).buffered(REQUESTS_MAX);
    let mut provisioned = Vec::with_capacity(run.scenario.devices);
    let mut failure = None;
    // Requests under way are awaited even after a failure: a device may have been made by one of them.
    while let Some(answer) = answers.next().await {
        match answer {
            Ok(device) => {
                run.tally.add(Count::Provisioned, 1);
                if device.made {
                    made.push(device.id.clone());
                }
                provisioned.push(device);
            }
            Err(error) => {
                stop.cancel();
                failure.get_or_insert(error);
            }
        }
    }
    failure.map_or(Ok(provisioned), Err)
}

/// Connects the devices, lets them talk, and sees them off. Says how long telemetry was sent.
async fn converse(run: &Run, stop: &CancellationToken, provisioned: Vec<Provisioned>) -> Duration {
    let ids: Vec<DeviceId> = provisioned.iter().map(|device| device.id.clone()).collect();
    let mut devices = JoinSet::new();
    for (place, identity) in provisioned.into_iter().enumerate() {
        let phase = place as f64 / ids.len() as f64;
        devices.spawn(Device { identity, phase }.live(run.clone()));
    }
    tokio::select! {
        () = stop.cancelled() => {}
        () = run.ramp.over.cancelled() => {}
    }
    let start = Instant::now();
    run.ramp.start.send_replace(Some(start));
    let sending_ends = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = sleep(run.scenario.duration.unwrap_or(Duration::MAX)) => {}
        }
        stop.cancel();
    };
    tokio::join!(sending_ends, c2d::send(run, &ids, stop));
    let sending = start.elapsed();
    await_c2d(run).await;
    run.stop.cancel();
    let all_left = timeout(DRAIN_TIME_MAX, async { while devices.join_next().await.is_some() {} });
    if all_left.await.is_err() {
        run.gone.cancel();
        while devices.join_next().await.is_some() {}
    }
    sending
}

/// Waits a bounded time for the cloud-to-device messages under way.
async fn await_c2d(run: &Run) {
    let all_arrived = async {
        while run.tally.c2d_waiting() > 0 {
            sleep(C2D_LOOK_PERIOD).await;
        }
    };
    // Messages that do not arrive in time are told by the report: fewer received than sent.
    let _ = timeout(DRAIN_TIME_MAX, all_arrived).await;
}

/// Deletes the devices the run made. What fails is told and left: the run itself is over.
async fn delete(run: &Run, made: Vec<DeviceId>) {
    let requests = made.into_iter().map(|id| run.provisioner.delete(id));
    let mut answers = stream::iter(requests).buffer_unordered(REQUESTS_MAX);
    while let Some(answer) = answers.next().await {
        if let Err(error) = answer {
            run.tally.failed("delete", error.reason());
        }
    }
}

/// TLS handshakes under way at a time.
const CONNECTING_MAX: usize = 64;
/// REST requests under way at a time.
const REQUESTS_MAX: usize = 64;
/// How long the end of a run waits for acknowledgements and messages under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);
const C2D_LOOK_PERIOD: Duration = Duration::from_millis(20);
