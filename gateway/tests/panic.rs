//! A bug in one connection ends that connection, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use portcullis::http;
use portcullis::hub::admission::AdmissionControl;
use portcullis::hub::listener;
use portcullis::mqtt::admin::Commands;
use portcullis::mqtt::connection;
use portcullis_testing::{TestHub, until};
use tokio::sync::Notify;

/// The panic strikes while the connection holds all it can hold: a place at a door, a seat, a queue, a message in flight.
#[tokio::test]
async fn t915_a_panic_in_one_connection_ends_only_that_one() {
    let mut hub = TestHub::start().await;
    let (unlucky, bystander) = (hub.device("unlucky").await, hub.device("bystander").await);
    let mut other = hub.connect(&bystander).await;
    let bug = Arc::new(Notify::new());
    let struck = Arc::clone(&bug);
    // A door of its own, behind which a connection lives as everywhere, until the bug strikes.
    let listener = listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (usual, buggy) = (hub.mqtt, listener.local_addr().unwrap());
    let commands = Arc::new(Commands::new(http::router(Arc::clone(&hub.hub))));
    let serve = move |hub, accepted| {
        let (bug, commands) = (Arc::clone(&struck), Arc::clone(&commands));
        async move {
            tokio::select! {
                () = connection::serve(hub, commands, accepted) => {}
                () = bug.notified() => panic!("a bug, injected by a test"),
            }
        }
    };
    hub.hub.tasks.spawn(listener::run(
        Arc::clone(&hub.hub),
        listener,
        AdmissionControl::new(8, 8, None),
        serve,
    ));

    hub.mqtt = buggy;
    let mut client = hub.connect(&unlucky).await;
    client.subscribe(&["devices/unlucky/messages/devicebound/#"]).await;
    hub.send(&unlucky, "open valve").await;
    client.message().await;
    bug.notify_one();
    assert!(client.closed().await);

    hub.mqtt = usual;
    other.publish_acknowledged("devices/bystander/messages/events/", b"still here").await;
    until(|| hub.hub.sessions.len() == 1).await;
    // Nothing stays blocked: the seat is free, the kept session has the message, the identity can be changed and deleted.
    let mut client = hub.connect(&unlucky).await;
    let again = client.take_message().await;
    assert_eq!(&again.payload[..], b"open valve");
    client.disconnect().await;
    hub.delete(&unlucky).await;
    other.disconnect().await;
    hub.stop().await;
}
