//! A warning fails the test that provokes it, on whatever thread it is logged, and no other test.

use std::fs;
use std::os::unix::fs::symlink;
use std::panic::AssertUnwindSafe;
use std::thread;

use futures_util::FutureExt;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::IdentitySpec;
use portcullis_registry::thread::start;
use portcullis_testing::TestHub;
use rusqlite::Connection;
use serde_json::json;
use tokio::runtime::Runtime;

/// Why the hub's stop failed the test; none when it did not.
async fn surprise(hub: TestHub) -> Option<String> {
    let stopped = AssertUnwindSafe(hub.stop()).catch_unwind().await;
    stopped.err().map(|panic| *panic.downcast::<String>().expect("a text"))
}

/// A fault fails the test unless each of its lines is announced.
async fn check(lines: &[&str], fault: impl AsyncFn(TestHub) -> TestHub) {
    let hub = fault(TestHub::start().await).await;
    let surprise = surprise(hub).await.expect("the line is heard");
    lines.iter().for_each(|line| assert!(surprise.contains(line), "{line}: {surprise}"));
    let hub = TestHub::start().await;
    lines.iter().for_each(|line| hub.announce(line));
    fault(hub).await.stop().await;
}

#[tokio::test]
async fn a_line_of_the_stores_thread_is_heard() {
    check(&["the store failed", "the store did not close in order"], async |hub| {
        let database = Connection::open(hub.data_dir().join("store/hub.db")).unwrap();
        database.execute_batch("DROP TABLE identity").unwrap();
        let spec = IdentitySpec::sas_device(IdentityId::device(DeviceId::parse("pump-7").unwrap()));
        hub.hub.registry.create(spec, hub.hub.clock.wall()).await.unwrap_err();
        hub
    })
    .await;
}

#[tokio::test]
async fn a_line_of_the_audit_writer_is_heard() {
    let lines = ["lines of the audit record cannot be written", "the audit record cannot be synced"];
    check(&lines, async |hub| {
        let record = hub.data_dir().join("audit/audit.ndjson");
        fs::remove_file(&record).unwrap();
        symlink("/dev/full", &record).unwrap();
        let hub = hub.restart().await;
        let (path, device) = ("/devices/pump-7?api-version=2021-04-12", json!({ "deviceId": "pump-7" }));
        assert_eq!(hub.rest().call("PUT", path, Some(device)).await.0, 200);
        hub
    })
    .await;
}

/// The store is opened on a thread of `spawn_blocking`.
#[tokio::test]
async fn a_line_of_a_blocking_task_is_heard() {
    check(&["store.id is damaged"], async |hub| {
        let mark = hub.data_dir().join("store/store.id");
        fs::remove_file(&mark).unwrap();
        fs::write(&mark, "no mark").unwrap();
        hub.restart().await
    })
    .await;
}

#[tokio::test]
async fn a_line_of_a_thread_that_a_hub_starts_is_heard_and_of_the_threads_that_this_one_starts() {
    check(&["outer=1", "inner=2"], async |hub| {
        let outer = start("outer", || {
            tracing::warn!(target: "portcullis::test", outer = 1);
            start("inner", || tracing::error!(target: "portcullis::test", inner = 2))
                .unwrap()
                .join()
                .unwrap();
        });
        outer.unwrap().join().unwrap();
        hub
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_a_worker_is_heard() {
    check(&["a worker warns"], async |hub| {
        tokio::spawn(async { tracing::warn!(target: "portcullis::test", "a worker warns") }).await.unwrap();
        hub
    })
    .await;
}

#[tokio::test]
async fn a_line_of_another_test_is_not_this_ones() {
    let hub = TestHub::start().await;
    let other = thread::spawn(|| {
        Runtime::new().unwrap().block_on(async {
            let hub = TestHub::start().await;
            tracing::warn!(target: "portcullis::test", "the other warns");
            surprise(hub).await
        })
    });
    assert!(other.join().unwrap().unwrap().contains("the other warns"));
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_is_not_stopped_fails_the_test() {
    let hub = TestHub::start().await;
    let dropped = std::panic::catch_unwind(AssertUnwindSafe(|| drop(hub)));
    let said = *dropped.unwrap_err().downcast::<&str>().unwrap();
    assert!(said.contains("dropped and not stopped"), "{said}");
}
