//! A cloud-to-device message through its queue, on a store that keeps nothing: enqueue, lease, complete. Each is one
//! look-up and one lock, and includes writing and reading the record. The floor is a map of queues.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;

use criterion::{Criterion, criterion_group, criterion_main};
use dashmap::DashMap;
use futures_util::FutureExt;
use jiff::Timestamp;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::message::NewC2d;
use portcullis_registry::message::Outcome;
use portcullis_registry::store::Registry;

#[path = "support/counted.rs"]
mod counted;
#[path = "support/unkept.rs"]
mod unkept;

fn id() -> IdentityId {
    IdentityId::device(DeviceId::parse("pump-7").expect("an id"))
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).expect("a time")
}

fn message(body: &Bytes) -> NewC2d {
    let properties = vec![("valve".to_owned(), "3".to_owned())];
    NewC2d { message_id: Some("m-1".to_owned()), properties, body: body.clone(), ..NewC2d::default() }
}

/// Runs a future that is ready at once, without a runtime.
fn done<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("a store that answers at once")
}

fn send(registry: &Arc<Registry>, body: &Bytes) -> u64 {
    done(registry.send(&id(), message(body), now())).expect("an accepted message").number
}

fn queue(c: &mut Criterion<counted::CpuTime>) {
    let registry = unkept::registry();
    done(registry.create(IdentitySpec::sas_device(id()), now())).expect("a new device");
    let entry = registry.entry(&id()).expect("a device");
    let body = Bytes::from(vec![b'x'; 100]);
    let mut group = c.benchmark_group("queue");

    let floor: DashMap<IdentityId, Arc<Mutex<VecDeque<Arc<NewC2d>>>>> = DashMap::new();
    floor.insert(id(), Arc::default());
    counted::bench(&mut group, "a map of queues alone: add, take", || {
        let queue = Arc::clone(&floor.get(black_box(&id())).expect("a device"));
        queue.lock().expect("a lock").push_back(Arc::new(message(&body)));
        queue.lock().expect("a lock").pop_front()
    });
    let mut session = registry.attach(&entry);
    counted::bench(&mut group, "enqueue, lease, complete", || {
        send(&registry, black_box(&body));
        let lease = session.lease(now()).expect("a message");
        assert_eq!(done(session.complete(lease.message.number, now())), Ok(true));
    });
    drop(session);
    let monotonic = Instant::now();
    counted::bench(&mut group, "enqueue, poll, complete by token", || {
        send(&registry, black_box(&body));
        let received =
            registry.receive(&entry, Duration::from_secs(60), now(), monotonic).expect("a message");
        done(registry.settle_received(&entry, received.token, Outcome::Completed, now(), monotonic))
            .expect("a locked message");
    });
    send(&registry, &body);
    counted::bench(&mut group, "lease and give back", || {
        let mut session = registry.attach(&entry);
        assert!(session.lease(now()).is_some());
    });
    group.finish();
}

criterion_group!(name = benches; config = counted::criterion(); targets = queue);
criterion_main!(benches);
