//! Live watching of devices: the telemetry of one device, or the connects, disconnects and refusals of some.
//!
//! A watcher slows nobody down. The bus and the events deliver what fits and count the rest. A slow watcher learns how
//! much it missed. The number of watchers is limited.

use std::collections::HashSet;
use std::sync::Arc;

use portcullis_registry::id::DeviceId;
use portcullis_registry::policy::Rights;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, broadcast};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use crate::hub::bus::{self, Subscription};
use crate::hub::events;
use crate::iothub::topic::Filter;

/// One watcher.
#[derive(Debug)]
pub struct Watch {
    /// Present if the watcher reads telemetry.
    telemetry: Option<Subscription>,
    events: broadcast::Receiver<Arc<events::Event>>,
    devices: HashSet<DeviceId>,
    _permit: OwnedSemaphorePermit,
}

/// One thing that a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Telemetry of a device or module. The event states how much was missed before it.
    Telemetry(Arc<bus::TelemetryEvent>),
    /// An event of a device or of one of its modules.
    Event(Arc<events::Event>),
    /// How many events, of any device, were missed. What the watcher knows may be out of date.
    Missed(u64),
}

/// Why the hub refuses a watcher.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("the hub has {0} watchers, the most that limits.watchers_max allows; try again later")]
    TooMany(usize),
}

/// Watches the connects, disconnects and refusals of devices.
pub fn presence(
    hub: &Hub,
    caller: &VerifiedService,
    devices: HashSet<DeviceId>,
) -> Result<Watch, WatchError> {
    caller.check(Rights::REGISTRY_READ)?;
    let too_many = |_| WatchError::TooMany(hub.config.limits.watchers_max);
    let permit = Arc::clone(&hub.watchers).try_acquire_owned().map_err(too_many)?;
    Ok(Watch { telemetry: None, events: hub.events.listen(), devices, _permit: permit })
}

/// Watches the connects, disconnects and refusals of a device, and the telemetry of it and its modules.
pub fn telemetry(hub: &Hub, caller: &VerifiedService, device: DeviceId) -> Result<Watch, WatchError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let watch = presence(hub, caller, HashSet::from([device.clone()]))?;
    let subscription = hub.bus.subscribe_briefly(WAITING_MAX);
    // A filter on modules does not include the device itself, so there are two.
    let filter = |modules| Filter::Events { device: Some(device.clone()), modules };
    subscription.set_filters(&[filter(None), filter(Some(None))]);
    Ok(Watch { telemetry: Some(subscription), ..watch })
}

impl Watch {
    /// The next thing to see; none when the hub has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<News> {
        loop {
            tokio::select! {
                sent = sent(&mut self.telemetry) => return sent.map(News::Telemetry),
                heard = self.events.recv() => match heard {
                    Ok(event) if self.devices.contains(&event.id.device) => return Some(News::Event(event)),
                    Ok(_) => {}
                    Err(RecvError::Lagged(count)) => return Some(News::Missed(count)),
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }

    /// The watched devices.
    pub fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.devices.iter()
    }
}

async fn sent(telemetry: &mut Option<Subscription>) -> Option<Arc<bus::TelemetryEvent>> {
    match telemetry {
        Some(subscription) => subscription.events.recv().await,
        None => std::future::pending().await,
    }
}

/// How many messages may wait for one watcher before it misses some: one or two screens full.
const WAITING_MAX: usize = 64;
