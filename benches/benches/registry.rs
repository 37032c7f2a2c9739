//! A look-up is one hash and one clone of an `Arc`; the floor is the DashMap alone. A durable create is one commit
//! shared with whoever writes at the same time.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use jiff::Timestamp;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::store::{Registry, RegistryLimits};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const DEVICES: usize = 20_000;
const AT_ONCE: usize = 256;

fn device(number: usize) -> IdentityId {
    IdentityId::device(DeviceId::parse(&format!("device-{number}")).expect("an id"))
}

fn open(directory: &TempDir) -> Arc<Registry> {
    let backend = SqliteBackend::open(directory.path()).expect("a store");
    Registry::open(Box::new(backend), RegistryLimits::default()).expect("a registry")
}

/// Creates `count` devices from number `first` on, as many at once as `AT_ONCE`.
fn create(runtime: &Runtime, registry: &Arc<Registry>, first: usize, count: usize) {
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let numbers: Vec<usize> = (first..first + count).collect();
    runtime.block_on(async {
        for batch in numbers.chunks(AT_ONCE) {
            let created = batch.iter().map(|number| {
                let registry = Arc::clone(registry);
                let spec = IdentitySpec::sas_device(device(*number));
                tokio::spawn(async move { registry.create(spec, now).await })
            });
            for task in created.collect::<Vec<_>>() {
                task.await.expect("a task").expect("a new device");
            }
        }
    });
}

fn registry(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let directory = TempDir::new().expect("a directory");
    let registry = open(&directory);
    create(&runtime, &registry, 0, DEVICES);
    let map: DashMap<IdentityId, Arc<usize>> =
        (0..DEVICES).map(|number| (device(number), Arc::new(number))).collect();
    let wanted: Vec<_> = (0..DEVICES).step_by(7).map(device).collect();

    let mut group = c.benchmark_group("lookup");
    group.throughput(Throughput::Elements(wanted.len() as u64));
    group.bench_function("dashmap alone", |b| {
        b.iter(|| wanted.iter().for_each(|id| drop(black_box(map.get(id).map(|value| Arc::clone(&value))))));
    });
    group.bench_function("registry", |b| {
        b.iter(|| wanted.iter().for_each(|id| drop(black_box(registry.entry(id)))))
    });
    group.finish();

    let mut group = c.benchmark_group("durable");
    group.throughput(Throughput::Elements(AT_ONCE as u64)).sample_size(20);
    let mut next = DEVICES;
    group.bench_function("create, 256 at once", |b| {
        b.iter(|| {
            create(&runtime, &registry, next, AT_ONCE);
            next += AT_ONCE;
        });
    });
    group.finish();
    registry.close();
}

criterion_group!(benches, registry);
criterion_main!(benches);
