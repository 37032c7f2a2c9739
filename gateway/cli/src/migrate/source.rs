//! The IoT Hub that a fleet comes from. A request that fails for now is sent again, later each time. If the hub says
//! how long to wait, all requests wait that long. The program writes nothing there.

use std::cell::Cell;

use serde_json::Value;
use tokio::time::{Duration, Instant, sleep_until};

use crate::exit::{Exit, Failure};
use crate::rest::Rest;

/// A hub to read from.
pub(super) struct Source {
    rest: Rest,
    pace: Pace,
}

/// The kinds of identities, in the order they are read: a module comes after its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Devices,
    Modules,
}

/// A page of twins, and the continuation token of the next page.
pub(super) struct Page {
    pub(super) twins: Vec<Value>,
    pub(super) next: Option<String>,
}

impl Kind {
    fn query(self) -> &'static str {
        match self {
            Kind::Devices => "SELECT * FROM devices",
            Kind::Modules => "SELECT * FROM devices.modules",
        }
    }
}

impl Source {
    pub(super) fn new(rest: Rest) -> Self {
        Self { rest, pace: Pace::new() }
    }

    pub(super) fn host(&self) -> &str {
        &self.rest.login().host
    }

    /// How many devices there are; none if the policy may not read the registry.
    pub(super) async fn count_devices(&self) -> Result<Option<u64>, Failure> {
        let told = self.pace.patiently(async || self.rest.get(&["statistics", "devices"], &[]).await).await;
        match told {
            Ok(counts) => Ok(Some(counts["totalDeviceCount"].as_u64().unwrap_or_default())),
            Err(failure) if failure.exit() == Exit::Unauthorized => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    pub(super) async fn page(
        &self,
        kind: Kind,
        rows: usize,
        continuation: Option<&str>,
    ) -> Result<Page, Failure> {
        let asked = self.pace.patiently(async || self.rest.query(kind.query(), rows, continuation).await);
        asked.await.map(|(twins, next)| Page { twins, next })
    }

    /// A device with its keys; none if it was deleted.
    pub(super) async fn device(&self, device: &str) -> Result<Option<Value>, Failure> {
        self.found(&["devices", device]).await
    }

    /// The modules of a device with their keys; empty if the device was deleted.
    pub(super) async fn modules(&self, device: &str) -> Result<Vec<Value>, Failure> {
        let found = self.found(&["devices", device, "modules"]).await?;
        Ok(found.and_then(|modules| modules.as_array().cloned()).unwrap_or_default())
    }

    async fn found(&self, path: &[&str]) -> Result<Option<Value>, Failure> {
        match self.pace.patiently(async || self.rest.get(path, &[]).await).await {
            Ok(identity) => Ok(Some(identity)),
            Err(failure) if failure.exit() == Exit::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// When the next request may go out, for all requests together.
struct Pace {
    not_before: Cell<Instant>,
    /// How many pauses there were in a row.
    pauses: Cell<u32>,
    /// The time of the last answer; none before the first one.
    answered: Cell<Option<Instant>>,
}

impl Pace {
    fn new() -> Self {
        Self { not_before: Cell::new(Instant::now()), pauses: Cell::new(0), answered: Cell::new(None) }
    }

    /// Repeats a request until it succeeds, fails for good, or no request has succeeded for too long. Does not repeat
    /// it if the hub was never reached: its name may be wrong.
    async fn patiently<T>(&self, ask: impl AsyncFn() -> Result<T, Failure>) -> Result<T, Failure> {
        let began = Instant::now();
        loop {
            while Instant::now() < self.not_before.get() {
                sleep_until(self.not_before.get()).await;
            }
            let failure = match ask().await {
                Ok(answer) => {
                    self.answered.set(Some(Instant::now()));
                    self.pauses.set(0);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            let is_unreachable = failure.ends_all() && self.answered.get().is_none();
            let Some(passing) = failure.passing().filter(|_| !is_unreachable) else { return Err(failure) };
            if self.answered.get().unwrap_or(began).elapsed() > PATIENCE {
                let minutes = PATIENCE.as_secs() / 60;
                let message = format!("no answer for {minutes} minutes: {}", failure.message());
                return Err(Failure::new(Exit::Throttled, message));
            }
            self.pause(passing.after);
        }
    }

    /// Requests that ran together fail together, which counts as one reason to wait.
    fn pause(&self, after: Option<Duration>) {
        let now = Instant::now();
        let pauses = self.pauses.get();
        let is_first = now >= self.not_before.get();
        if is_first {
            self.pauses.set(pauses + 1);
        }
        let length = match after {
            Some(length) => length,
            None if is_first => PAUSE_MIN * 2u32.saturating_pow(pauses.min(DOUBLINGS_MAX)),
            None => return,
        };
        self.not_before.set(self.not_before.get().max(now + length.min(PAUSE_MAX)));
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(200);
/// 200 ms become 51 s.
const DOUBLINGS_MAX: u32 = 8;
/// The longest wait, because the hub may ask for too long a one by mistake.
const PAUSE_MAX: Duration = Duration::from_secs(120);
const PATIENCE: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled(after: Option<Duration>) -> Failure {
        Failure::new(Exit::Throttled, "slower").that_passes(after)
    }

    /// How long it takes to get an answer after these failures.
    async fn time_after(pace: &Pace, failures: Vec<Failure>) -> Duration {
        let failures = Cell::new(failures);
        let began = Instant::now();
        let ask = async || {
            let mut left = failures.take();
            let next = if left.is_empty() { Ok(()) } else { Err(left.remove(0)) };
            failures.set(left);
            next
        };
        pace.patiently(ask).await.unwrap();
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_hub_says_is_waited_for_and_without_a_word_longer_each_time() {
        let pace = Pace::new();
        let seconds = |seconds| throttled(Some(Duration::from_secs(seconds)));
        assert_eq!(time_after(&pace, vec![seconds(7), seconds(0), seconds(3)]).await.as_secs(), 10);
        let taken = time_after(&pace, vec![throttled(None), throttled(None), throttled(None)]).await;
        assert_eq!(taken.as_millis() / 10, 140);
        assert_eq!(time_after(&pace, vec![throttled(None)]).await.as_millis() / 10, 20, "it begins anew");
        assert_eq!(time_after(&pace, vec![seconds(u64::MAX)]).await.as_secs(), PAUSE_MAX.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn requests_turned_away_together_wait_once() {
        let pace = Pace::new();
        for _ in 0..8 {
            pace.pause(None);
        }
        assert_eq!(pace.pauses.get(), 1);
        assert_eq!(pace.not_before.get() - Instant::now(), PAUSE_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_and_is_not_for_what_does_not_pass() {
        let pace = Pace::new();
        let lost = || Failure::error("no route").of_the_link().that_passes(None);
        let never = async |failure: Failure| {
            let began = Instant::now();
            let failure = pace.patiently(async || Err::<(), _>(failure.clone())).await.unwrap_err();
            (failure.exit(), began.elapsed())
        };
        assert_eq!(never(lost()).await, (Exit::Error, Duration::ZERO), "nothing was ever answered");
        let wrong = Failure::new(Exit::Unauthorized, "no");
        assert_eq!(never(wrong).await, (Exit::Unauthorized, Duration::ZERO));
        pace.patiently(async || Ok(())).await.unwrap();
        let (exit, took) = never(lost()).await;
        assert_eq!(exit, Exit::Throttled);
        assert!(took >= PATIENCE && took < PATIENCE + 2 * PAUSE_MAX, "{took:?}");
    }
}
