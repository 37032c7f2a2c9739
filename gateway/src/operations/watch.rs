//! Looking on while devices live: what one of them sends, and how some of them come, go and are refused.
//!
//! Whoever looks on slows nobody down. The bus and the events hand over what there is and count what does not fit;
//! a watcher that falls behind hears how much it missed. Only so many watch at once.

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

/// Somebody who looks on.
#[derive(Debug)]
pub struct Watch {
    /// There for whoever reads telemetry.
    telemetry: Option<Subscription>,
    events: broadcast::Receiver<Arc<events::Event>>,
    devices: HashSet<DeviceId>,
    _permit: OwnedSemaphorePermit,
}

/// What there is to see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A device or module has sent something; how much before it was missed the event says.
    Telemetry(Arc<bus::TelemetryEvent>),
    /// Something happened to a device or a module of it.
    Event(Arc<events::Event>),
    /// So many events, of whatever devices, were missed: what was known of any may be old.
    Missed(u64),
}

/// Why somebody may not look on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error("{0} look on already, which is limits.watchers_max")]
    TooMany(usize),
}

/// Looks on how devices come, go and are refused.
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

/// Looks on how a device comes, goes and is refused, and at what it and its modules send.
pub fn telemetry(hub: &Hub, caller: &VerifiedService, device: DeviceId) -> Result<Watch, WatchError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let watch = presence(hub, caller, HashSet::from([device.clone()]))?;
    let subscription = hub.bus.subscribe_briefly(WAITING_MAX);
    // What a filter says of modules adds to what it says of the device itself.
    let filter = |modules| Filter::Events { device: Some(device.clone()), modules };
    subscription.set_filters(&[filter(None), filter(Some(None))]);
    Ok(Watch { telemetry: Some(subscription), ..watch })
}

impl Watch {
    /// What comes next; nothing when the hub has stopped. Cancel-safe.
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

    /// Whose coming and going is watched.
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

/// Messages that wait for one watcher before it misses some: what a screen or two show.
const WAITING_MAX: usize = 64;
