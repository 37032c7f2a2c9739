//! Whether a device is there and when it was last heard of: told per event, never sampled.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{TestHub, TestIdentity};
use serde_json::Value;

const NEVER: &str = "0001-01-01T00:00:00";

async fn shown(hub: &TestHub, identity: &TestIdentity) -> Value {
    hub.rest().call("GET", &format!("/{}?api-version=2021-04-12", identity.topic()), None).await.1
}

fn time<'a>(shown: &'a Value, name: &str) -> &'a str {
    shown[name].as_str().unwrap()
}

#[tokio::test]
async fn times_follow_connections_packets_and_messages() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let fresh = shown(&hub, &device).await;
    assert_eq!(fresh["connectionState"], "Disconnected");
    assert_eq!(time(&fresh, "connectionStateUpdatedTime"), NEVER);
    assert_eq!(time(&fresh, "lastActivityTime"), NEVER);

    let mut client = hub.connect(&device).await;
    let connected = shown(&hub, &device).await;
    assert_eq!(connected["connectionState"], "Connected");
    assert!(time(&connected, "connectionStateUpdatedTime") > NEVER);

    hub.hub.clock.shift(60);
    client.publish_acknowledged("devices/d1/messages/events/", b"x").await;
    let sent = shown(&hub, &device).await;
    assert_eq!(sent["connectionStateUpdatedTime"], connected["connectionStateUpdatedTime"]);
    assert!(time(&sent, "lastActivityTime") > time(&connected, "lastActivityTime"));

    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    hub.hub.clock.shift(120);
    hub.send(&device, "x").await;
    client.message().await;
    let received = shown(&hub, &device).await;
    assert!(time(&received, "lastActivityTime") > time(&sent, "lastActivityTime"));

    hub.hub.clock.shift(180);
    client.disconnect().await;
    portcullis_testing::until(|| hub.hub.sessions.is_empty()).await;
    let gone = shown(&hub, &device).await;
    assert_eq!(gone["connectionState"], "Disconnected");
    assert!(time(&gone, "connectionStateUpdatedTime") > time(&received, "lastActivityTime"));
    hub.stop().await;
}

#[tokio::test]
async fn a_module_and_its_device_are_heard_of_apart() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    let _client = hub.connect(&module).await;
    assert_eq!(shown(&hub, &module).await["connectionState"], "Connected");
    let device = shown(&hub, &device).await;
    assert_eq!(
        (&device["connectionState"], time(&device, "lastActivityTime")),
        (&"Disconnected".into(), NEVER)
    );
    hub.stop().await;
}
