//! The cost of a cloud-to-device message before it reaches the network. A send is one commit, shared with concurrent
//! writers, so the floor is the store's own group commit. A delivery is one wake and one lease. A queued message takes
//! its bytes and some bookkeeping. An empty queue takes nothing.
//!
//! The figures are plain, not samples, because commits are too slow and too noisy for finer ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use jiff::Timestamp;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::backend::{Backend, Mutation};
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::message::NewC2d;
use portcullis_registry::store::{Registry, RegistryLimits};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

const DEVICES: usize = 20_000;
const ONLINE: usize = 1_000;
const AT_ONCE: usize = 256;
const BODY_BYTES: usize = 100;

fn device(number: usize) -> IdentityId {
    IdentityId::device(DeviceId::parse(&format!("device-{number}")).expect("an id"))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn message() -> NewC2d {
    NewC2d { body: vec![b'x'; BODY_BYTES].into(), ..NewC2d::default() }
}

/// Does `count` operations, up to `AT_ONCE` at a time. Returns how many per second.
async fn per_second<F>(count: usize, make: impl Fn(usize) -> F) -> f64
where
    F: Future<Output = ()> + Send + 'static,
{
    let started = Instant::now();
    let mut running = JoinSet::new();
    for number in 0..count {
        if running.len() >= AT_ONCE {
            running.join_next().await;
        }
        running.spawn(make(number));
    }
    running.join_all().await;
    count as f64 / started.elapsed().as_secs_f64()
}

/// The store alone: durable records as long as a message's, through the same group commit.
async fn group_commit() -> f64 {
    let directory = TempDir::new().expect("a directory");
    let backend = Arc::new(SqliteBackend::open(directory.path()).expect("a store"));
    backend.start(Box::new(|_| {})).expect("a store that writes");
    let rate = per_second(DEVICES, |number| {
        let backend = Arc::clone(&backend);
        async move {
            let put = Mutation::PutMeta { key: number.to_string(), value: vec![0; BODY_BYTES + 80] };
            backend.submit(vec![put]).await.expect("a commit");
        }
    });
    let rate = rate.await;
    tokio::task::spawn_blocking(move || backend.close()).await.expect("a thread").expect("a closed store");
    rate
}

async fn filled_registry(directory: &TempDir) -> Arc<Registry> {
    let backend = SqliteBackend::open(directory.path()).expect("a store");
    let registry = Registry::open(Box::new(backend), RegistryLimits::default()).expect("a registry");
    per_second(DEVICES, |number| {
        let registry = Arc::clone(&registry);
        async move {
            registry.create(IdentitySpec::sas_device(device(number)), now()).await.expect("a new device");
        }
    })
    .await;
    registry
}

/// Sends to every device `rounds` times. Returns the accepted messages per second.
async fn sends(registry: &Arc<Registry>, rounds: usize) -> f64 {
    per_second(DEVICES * rounds, |number| {
        let registry = Arc::clone(registry);
        async move {
            registry.send(&device(number % DEVICES), message(), now()).await.expect("an accepted message");
        }
    })
    .await
}

/// The time from the call of `send` to the lease by a waiting session, in microseconds, with `senders` at once.
async fn latency(registry: &Arc<Registry>, senders: usize) -> Histogram<u64> {
    let (tell, mut heard) = tokio::sync::mpsc::channel(AT_ONCE);
    let started = Instant::now();
    let mut sessions = JoinSet::new();
    for number in 0..ONLINE {
        let entry = registry.entry(&device(number)).expect("a device");
        let mut session = registry.attach(&entry);
        let tell = tell.clone();
        sessions.spawn(async move {
            loop {
                session.ready().await;
                while let Some(lease) = session.lease(now()) {
                    let arrived = started.elapsed();
                    let sent =
                        std::str::from_utf8(&lease.message.body).ok().and_then(|text| text.parse().ok());
                    let sent = Duration::from_nanos(sent.expect("a time"));
                    let _ = tell.send(arrived.saturating_sub(sent)).await;
                    session.complete(lease.message.number, now()).await.expect("a completed message");
                }
            }
        });
    }
    let counts = tokio::spawn(async move {
        let mut histogram = Histogram::new(3).expect("a histogram");
        for _ in 0..ONLINE * 10 {
            let waited: Duration = heard.recv().await.expect("a delivery");
            histogram.record(waited.as_micros() as u64).expect("a duration");
        }
        histogram
    });
    let mut running = JoinSet::new();
    for number in 0..ONLINE * 10 {
        if running.len() >= senders {
            running.join_next().await;
        }
        let registry = Arc::clone(registry);
        running.spawn(async move {
            let body = started.elapsed().as_nanos().to_string().into();
            let message = NewC2d { body, ..NewC2d::default() };
            registry.send(&device(number % ONLINE), message, now()).await.expect("an accepted message");
        });
    }
    running.join_all().await;
    let histogram = counts.await.expect("all deliveries");
    sessions.shutdown().await;
    histogram
}

/// The memory of this process, in bytes.
fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells");
    let pages: f64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096.0
}

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let floor = group_commit().await;
        println!("group commit alone     {floor:>9.0} durable records/s, {AT_ONCE} at once");
        let directory = TempDir::new().expect("a directory");
        let registry = filled_registry(&directory).await;
        let before = resident();
        let rate = sends(&registry, 5).await;
        println!("sends accepted         {rate:>9.0} /s, {:.2} of the group commit", rate / floor);
        let per_message = (resident() - before) / (DEVICES * 5) as f64;
        println!("a queued message       {per_message:>9.0} bytes in memory, {BODY_BYTES} of them its body");
        let started = Instant::now();
        let gone = registry.sweep(now() + Duration::from_secs(7_200), started).await.expect("a sweep");
        println!("expired in one sweep   {:>9.0} /s", gone as f64 / started.elapsed().as_secs_f64());
        println!(
            "a queue emptied again  {:>9.0} bytes more than one never used (the allocator keeps some)",
            ((resident() - before) / DEVICES as f64).max(0.0)
        );
        for senders in [1, 64] {
            let waited = latency(&registry, senders).await;
            println!(
                "send to lease, online  {:>9} us p50, {} us p99, {senders} senders at once",
                waited.value_at_quantile(0.5),
                waited.value_at_quantile(0.99)
            );
        }
        tokio::task::spawn_blocking(move || registry.close())
            .await
            .expect("a thread")
            .expect("a closed store");
    });
}
