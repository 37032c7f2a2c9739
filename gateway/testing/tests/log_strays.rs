//! A warning that belongs to no test fails each test that has a hub at that moment: this file has one test only.

use std::panic::AssertUnwindSafe;
use std::sync::mpsc::channel;
use std::thread;

use futures_util::FutureExt;
use portcullis_testing::TestHub;
use tokio::runtime::Runtime;

async fn fails(hub: TestHub) -> bool {
    AssertUnwindSafe(hub.stop()).catch_unwind().await.is_err()
}

fn warn_on_a_thread_of_nobody() {
    thread::spawn(|| tracing::warn!(target: "portcullis::test", "nobody's line"))
        .join()
        .expect("the thread ends");
}

#[tokio::test]
async fn a_line_of_no_test_counts_against_each_that_has_a_hub_unless_announced() {
    let hub = TestHub::start().await;
    let (started, is_started) = channel();
    let (warned, is_warned) = channel();
    let other = thread::spawn(move || {
        Runtime::new().unwrap().block_on(async {
            let hub = TestHub::start().await;
            started.send(()).unwrap();
            is_warned.recv().unwrap();
            fails(hub).await
        })
    });
    is_started.recv().unwrap();
    warn_on_a_thread_of_nobody();
    warned.send(()).unwrap();
    assert!(other.join().expect("the thread ends"));
    assert!(fails(hub).await);

    // It counts against no hub that starts later.
    TestHub::start().await.stop().await;

    let hub = TestHub::start().await;
    hub.announce("nobody's line");
    warn_on_a_thread_of_nobody();
    hub.stop().await;
}
