//! A look-up is one hash and one clone of an `Arc`; the floor is the DashMap alone. A write is a record that is
//! written, read and put into the map, on a store that keeps nothing; the floor is an insert into a DashMap. A durable
//! create is one commit, shared with concurrent writers.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dashmap::DashMap;
use futures_util::FutureExt;
use jiff::Timestamp;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::store::{Registry, RegistryLimits};
use tempfile::TempDir;
use tokio::runtime::Runtime;

#[path = "support/counted.rs"]
mod counted;
#[path = "support/unkept.rs"]
mod unkept;

const DEVICES: usize = 20_000;
const AT_ONCE: usize = 256;

fn device(number: usize) -> IdentityId {
    IdentityId::device(DeviceId::parse(&format!("device-{number}")).expect("an id"))
}

fn open(directory: &TempDir) -> Arc<Registry> {
    let backend = SqliteBackend::open(directory.path()).expect("a store");
    Registry::open(Box::new(backend), RegistryLimits::default()).expect("a registry")
}

/// Creates `count` devices from number `first` on, up to `AT_ONCE` at a time.
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
    registry.close().expect("a closed store");
}

fn writes(c: &mut Criterion<counted::CpuTime>) {
    let registry = unkept::registry();
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let spec = |number| IdentitySpec::sas_device(device(number));
    let made = registry.create(spec(0), now).now_or_never().expect("a store that answers at once");
    let identity = made.expect("a new device");
    let map: DashMap<_, _> = DashMap::from_iter([(identity.id.clone(), Arc::new((*identity).clone()))]);
    let mut group = c.benchmark_group("one look-up");
    let id = device(0);
    counted::bench(&mut group, "dashmap alone", || map.get(black_box(&id)).map(|value| Arc::clone(&value)));
    counted::bench(&mut group, "registry", || registry.entry(black_box(&id)));
    group.finish();
    let mut group = c.benchmark_group("write");
    counted::bench(&mut group, "an identity into a dashmap", || {
        map.insert(identity.id.clone(), Arc::new((*identity).clone()))
    });
    counted::bench(&mut group, "replace", || {
        let replaced = registry.replace(spec(0), Precondition::AnyVersion, now);
        replaced.now_or_never().expect("a store that answers at once").expect("a device")
    });
    counted::bench(&mut group, "create, delete", || {
        let created = registry.create(spec(1), now).now_or_never().expect("a store that answers at once");
        let id = &created.expect("a new device").id;
        let deleted = registry.delete(id, Precondition::AnyVersion);
        deleted.now_or_never().expect("a store that answers at once").expect("a device")
    });
    group.finish();
}

criterion_group!(benches, registry);
criterion_group!(name = counted_benches; config = counted::criterion(); targets = writes);
criterion_main!(benches, counted_benches);
