//! The telemetry bus: carries what devices send to the service subscribers in this process.
//!
//! It is rumqttd's router with two links and one constant topic. A device's bytes enter it only inside the hub's
//! envelopes, and no device chooses a topic or filter in it. This file adds three things that the router's log lacks.
//! Credits make sure that the log never overwrites an unread message: when the bus is full, `publish` waits. A number
//! on each envelope reveals a loss. A supervisor builds a new router when one dies.

use std::error::Error;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use bytes::Bytes;
use portcullis_registry::thread;
use rumqttd::local::{LinkBuilder, LinkRx, LinkTx};
use rumqttd::{Notification, Router, RouterConfig};
use serde::{Deserialize, Serialize};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::iothub::topic::Filter;

/// One message of a device or module, as service subscribers get it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The verified sender's device id; never what the sender claims.
    pub device: String,
    /// The verified sender's module id.
    pub module: Option<String>,
    /// The percent-encoded property bag: the hub's stamp first, then the sender's properties.
    pub bag: String,
    pub payload: Bytes,
}

/// The bus, for sessions.
#[derive(Debug)]
pub struct Bus {
    input: mpsc::Sender<Posted>,
    credits: Arc<Semaphore>,
    shared: Arc<BusState>,
}

/// A service subscriber's end: the messages that match its filters, in order.
#[derive(Debug)]
pub struct Subscription {
    pub events: mpsc::Receiver<Arc<TelemetryEvent>>,
    filters: Arc<Mutex<Vec<Filter>>>,
}

/// Telemetry, with the number of messages before it that this subscriber lost because it read too slowly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryEvent {
    pub telemetry: Arc<Telemetry>,
    pub lost_before: u64,
}

/// The bus has stopped and did not take the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the telemetry bus has stopped")]
pub struct BusStopped;

#[derive(Debug, Default)]
struct BusState {
    subscribers: Mutex<Vec<Subscriber>>,
    lost: AtomicU64,
    restarts: AtomicU64,
    /// The number of the next envelope. A gap after it shows what a dead router lost.
    expected: AtomicU64,
    /// Credits of the envelopes that are in the router.
    in_router: AtomicUsize,
}

#[derive(Debug)]
struct Subscriber {
    filters: Arc<Mutex<Vec<Filter>>>,
    events: mpsc::Sender<Arc<TelemetryEvent>>,
    lost: u64,
}

/// A message on its way into the router: the envelope, its credits, and the channel for the result.
struct Posted {
    telemetry: Telemetry,
    credits: OwnedSemaphorePermit,
    taken: oneshot::Sender<()>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    number: u64,
    credits: usize,
    telemetry: Telemetry,
}

impl Bus {
    /// Starts the bus on its own threads, because rumqttd's sends block.
    pub fn start() -> std::io::Result<Self> {
        let (input, posted) = mpsc::channel(POSTED_MAX);
        let credits = Arc::new(Semaphore::new(CREDITS as usize));
        let shared = Arc::new(BusState::default());
        let supervisor =
            Supervisor { posted, credits: Arc::clone(&credits), shared: Arc::clone(&shared), next_number: 0 };
        thread::start("telemetry-bus", move || supervisor.run())?;
        Ok(Self { input, credits, shared })
    }

    /// Puts one message on the bus. Waits while the bus is full. When this returns `Ok` the bus has the message.
    /// Cancel-safe: the message is taken whole or not at all.
    pub async fn publish(&self, telemetry: Telemetry) -> Result<(), BusStopped> {
        let credits =
            Arc::clone(&self.credits).acquire_many_owned(cost(&telemetry)).await.map_err(|_| BusStopped)?;
        let (taken, answer) = oneshot::channel();
        self.input.send(Posted { telemetry, credits, taken }).await.map_err(|_| BusStopped)?;
        answer.await.map_err(|_| BusStopped)
    }

    /// A new subscriber. It gets nothing until it has filters.
    pub fn subscribe(&self) -> Subscription {
        self.subscribe_briefly(EVENTS_MAX)
    }

    /// The same for a subscriber that loses messages when more than `events_max` wait.
    pub fn subscribe_briefly(&self, events_max: usize) -> Subscription {
        let (sender, events) = mpsc::channel(events_max);
        let filters = Arc::new(Mutex::new(Vec::new()));
        lock(&self.shared.subscribers).push(Subscriber {
            filters: Arc::clone(&filters),
            events: sender,
            lost: 0,
        });
        Subscription { events, filters }
    }

    /// How many messages some subscriber did not get, over all subscribers.
    pub fn lost(&self) -> u64 {
        self.shared.lost.load(Ordering::Relaxed)
    }

    /// How often the hub had to rebuild the router.
    pub fn restarts(&self) -> u64 {
        self.shared.restarts.load(Ordering::Relaxed)
    }
}

impl Subscription {
    /// Replaces the filters.
    pub fn set_filters(&self, filters: &[Filter]) {
        lock(&self.filters).splice(.., filters.iter().cloned());
    }
}

/// The thread that owns the router. It posts envelopes, and rebuilds the router and its links when they die.
struct Supervisor {
    posted: mpsc::Receiver<Posted>,
    credits: Arc<Semaphore>,
    shared: Arc<BusState>,
    next_number: u64,
}

impl Supervisor {
    fn run(mut self) {
        let mut unsent: Option<Posted> = None;
        loop {
            let (mut link, dispatcher) = match self.open_link() {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!(%error, "the telemetry bus cannot be built");
                    return;
                }
            };
            unsent = self.post(&mut link, unsent.take());
            if unsent.is_none() {
                return;
            }
            self.shared.restarts.fetch_add(1, Ordering::Relaxed);
            tracing::error!("the telemetry bus died and is built anew");
            // The old reader ends once its router is gone. The messages that it did not read are lost; their credits
            // are not.
            let _ = dispatcher.join();
            self.credits.add_permits(self.shared.in_router.swap(0, Ordering::AcqRel));
        }
    }

    /// A new router with its reader. The supervisor posts to the link.
    fn open_link(&self) -> Result<(LinkTx, JoinHandle<()>), Box<dyn Error>> {
        let router = Router::new(0, router_config()).spawn();
        let (mut subscriber, reader, _) = LinkBuilder::new("out", router.clone()).build()?;
        subscriber.subscribe(TOPIC)?;
        let (link, _, _) = LinkBuilder::new("in", router).build()?;
        let dispatcher =
            Dispatcher { reader, credits: Arc::clone(&self.credits), shared: Arc::clone(&self.shared) };
        let spawned = thread::start("telemetry-out", move || dispatcher.run());
        Ok((link, spawned?))
    }

    /// Posts until the router dies (returns the message it did not take) or no sender is left (`None`).
    fn post(&mut self, link: &mut LinkTx, mut unsent: Option<Posted>) -> Option<Posted> {
        while let Some(posted) = unsent.take().or_else(|| self.posted.blocking_recv()) {
            let credits = posted.credits.num_permits();
            let envelope = Envelope { number: self.next_number, credits, telemetry: posted.telemetry };
            let bytes = match postcard::to_stdvec(&envelope) {
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(%error, "a telemetry message cannot be encoded");
                    continue;
                }
            };
            self.shared.in_router.fetch_add(credits, Ordering::AcqRel);
            if link.publish(TOPIC, bytes).is_err() {
                self.shared.in_router.fetch_sub(credits, Ordering::AcqRel);
                return Some(Posted {
                    telemetry: envelope.telemetry,
                    credits: posted.credits,
                    taken: posted.taken,
                });
            }
            self.next_number += 1;
            // The reader returns the credits once it has read the envelope.
            posted.credits.forget();
            // The session may have ended meanwhile.
            let _ = posted.taken.send(());
        }
        None
    }
}

/// The thread that reads the router and passes each message to the subscribers whose filters match.
struct Dispatcher {
    reader: LinkRx,
    credits: Arc<Semaphore>,
    shared: Arc<BusState>,
}

impl Dispatcher {
    fn run(mut self) {
        loop {
            match self.reader.recv() {
                Ok(Some(Notification::Forward(forward))) => self.dispatch(&forward.publish.payload),
                Ok(Some(Notification::Unschedule)) => {
                    if self.reader.ready().is_err() {
                        return;
                    }
                }
                Ok(Some(Notification::Disconnect(..))) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn dispatch(&mut self, bytes: &[u8]) {
        let Ok(envelope) = postcard::from_bytes::<Envelope>(bytes) else {
            tracing::error!("the telemetry bus returned an envelope that the hub did not put in");
            return;
        };
        self.shared.in_router.fetch_sub(envelope.credits, Ordering::AcqRel);
        self.credits.add_permits(envelope.credits);
        let lost =
            envelope.number.saturating_sub(self.shared.expected.swap(envelope.number + 1, Ordering::AcqRel));
        let telemetry = Arc::new(envelope.telemetry);
        let mut subscribers = lock(&self.shared.subscribers);
        subscribers.retain(|subscriber| !subscriber.events.is_closed());
        for subscriber in subscribers.iter_mut() {
            subscriber.lost += lost;
            if lock(&subscriber.filters)
                .iter()
                .any(|filter| filter.admits(&telemetry.device, telemetry.module.as_deref()))
            {
                subscriber.offer(&telemetry, &self.shared.lost);
            }
        }
        self.shared.lost.fetch_add(lost, Ordering::Relaxed);
    }
}

impl Subscriber {
    /// Queues the message, or counts it as lost if the subscriber's queue is full.
    fn offer(&mut self, telemetry: &Arc<Telemetry>, lost_in_all: &AtomicU64) {
        let event = TelemetryEvent { telemetry: Arc::clone(telemetry), lost_before: self.lost };
        match self.events.try_send(Arc::new(event)) {
            Ok(()) => self.lost = 0,
            Err(_) => {
                self.lost += 1;
                lost_in_all.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The credits of a message: one for each KiB, or part of one, that the router has to hold.
fn cost(telemetry: &Telemetry) -> u32 {
    let bytes = telemetry.payload.len() + telemetry.bag.len() + ENVELOPE_BYTES;
    u32::try_from(bytes.div_ceil(1024)).unwrap_or(CREDITS).min(CREDITS)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The log holds four times the credits in flight, so it never overwrites an unread message.
fn router_config() -> RouterConfig {
    RouterConfig {
        max_connections: 4,
        max_outgoing_packet_count: 200,
        max_segment_size: 8 * 1024 * 1024,
        max_segment_count: 16,
        ..RouterConfig::default()
    }
}

/// The only topic inside the router.
const TOPIC: &str = "telemetry";
/// KiB of telemetry that are accepted and not yet passed to the subscribers.
const CREDITS: u32 = 32 * 1024;
/// The most that an envelope adds to bag and payload: ids and lengths.
const ENVELOPE_BYTES: usize = 512;
/// How many messages may wait for the bus thread.
const POSTED_MAX: usize = 1024;
/// How many messages may wait for one subscriber before it loses some.
const EVENTS_MAX: usize = 8192;

#[cfg(test)]
mod tests {
    use super::*;
    use portcullis_registry::id::DeviceId;

    fn from(device: &str, module: Option<&str>, payload: &str) -> Telemetry {
        Telemetry {
            device: device.into(),
            module: module.map(Into::into),
            bag: "a=b".into(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        }
    }

    fn every_device() -> Filter {
        Filter::Events { device: None, modules: None }
    }

    #[tokio::test]
    async fn telemetry_reaches_the_subscriber_in_order() {
        let bus = Bus::start().unwrap();
        let mut subscription = bus.subscribe();
        subscription.set_filters(&[every_device()]);
        for number in 0..1000 {
            bus.publish(from("d1", None, &number.to_string())).await.unwrap();
        }
        for number in 0..1000 {
            let event = subscription.events.recv().await.unwrap();
            assert_eq!((&*event.telemetry, event.lost_before), (&from("d1", None, &number.to_string()), 0));
        }
    }

    #[tokio::test]
    async fn a_filter_for_one_device_gets_that_device_only() {
        let bus = Bus::start().unwrap();
        let mut subscription = bus.subscribe();
        let device = Some(DeviceId::parse("d1").unwrap());
        subscription.set_filters(&[Filter::Events { device, modules: None }]);
        for sender in [
            from("d10", None, "x"),
            from("D1", None, "x"),
            from("d1", Some("m"), "x"),
            from("d1", None, "mine"),
        ] {
            bus.publish(sender).await.unwrap();
        }
        assert_eq!(*subscription.events.recv().await.unwrap().telemetry, from("d1", None, "mine"));
        assert!(subscription.events.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_slow_subscriber_is_told_what_it_lost_and_slows_nobody() {
        let bus = Bus::start().unwrap();
        let mut slow = bus.subscribe();
        let mut quick = bus.subscribe();
        slow.set_filters(&[every_device()]);
        quick.set_filters(&[every_device()]);
        let surplus = 100;
        for _ in 0..EVENTS_MAX + surplus {
            bus.publish(from("d1", None, "x")).await.unwrap();
            quick.events.recv().await.unwrap();
        }
        for _ in 0..EVENTS_MAX {
            assert_eq!(slow.events.recv().await.unwrap().lost_before, 0);
        }
        bus.publish(from("d1", None, "after")).await.unwrap();
        let event = slow.events.recv().await.unwrap();
        assert_eq!(event.lost_before, surplus as u64);
        assert_eq!(bus.lost(), surplus as u64);
    }

    #[tokio::test]
    async fn t1005_more_than_the_log_holds_passes_without_loss() {
        let bus = Bus::start().unwrap();
        let mut subscription = bus.subscribe();
        subscription.set_filters(&[every_device()]);
        let payload = "x".repeat(200 * 1024);
        for number in 0..1000u32 {
            let mut telemetry = from("d1", None, &payload);
            telemetry.bag = number.to_string();
            bus.publish(telemetry).await.unwrap();
            let event = subscription.events.recv().await.unwrap();
            assert_eq!((event.telemetry.bag.as_str(), event.lost_before), (number.to_string().as_str(), 0));
        }
    }
}
