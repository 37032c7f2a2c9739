//! One connection for each identity: the newest wins, two copies of one device are slowed and told of, and a device
//! that comes back waits for nothing.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::hub::metrics::Scope;
use portcullis::mqtt::packet::Packet;
use portcullis_testing::{TestClient, TestHub, TestIdentity, until};

/// A client that has sent its CONNECT and waits for the answer, once the hub makes it wait.
async fn waiting(hub: &TestHub, identity: &TestIdentity, waits: u64) -> TestClient {
    let mut client = hub.client_from(([127, 0, 0, 1], 0).into()).await.unwrap();
    client.send(Packet::Connect(Box::new(hub.connect_packet(identity)))).await;
    until(|| hub.hub.metrics.throttles(Scope::Takeover) == waits).await;
    client
}

#[tokio::test]
async fn t610_of_two_copies_the_newest_wins_and_the_next_one_waits_for_its_turn() {
    let hub = TestHub::start_with_limits(&[("takeover_wait_time_max", "60s")]).await;
    let device = hub.device("copied").await;
    let bystander = hub.device("bystander").await;
    let mut beside = hub.connect(&bystander).await;
    let mut first = hub.connect(&device).await;
    // One takeover, as after a change of networks: at once.
    let mut second = hub.connect(&device).await;
    assert!(first.closed().await);
    // The next one so soon waits, and the second goes on; a still newer one waits in its place.
    let mut third = waiting(&hub, &device, 1).await;
    second.settle().await;
    let mut fourth = waiting(&hub, &device, 2).await;
    assert!(third.closed().await, "sent away without an answer");
    second.settle().await;
    beside.settle().await;
    assert_eq!((hub.hub.metrics.takeovers.get(), hub.hub.sessions.len()), (1, 2));
    // The seat is free: nobody waits any longer.
    second.disconnect().await;
    assert!(matches!(fourth.packet().await, Packet::ConnAck { .. }));
    fourth.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t610_two_copies_that_go_on_are_counted_and_told_of_once() {
    let hub = TestHub::start_with_limits(&[("takeover_wait_time_max", "0s")]).await;
    let device = hub.device("copied").await;
    let mut reader = hub.connect_service("iothubowner").await.unwrap();
    reader.subscribe(&["$admin/events/connectionFlapping/#"]).await;
    let mut clients = vec![hub.connect(&device).await];
    for _ in 0..6 {
        clients.push(hub.connect(&device).await);
    }
    let told = reader.take_message().await;
    assert_eq!(&*told.topic, "$admin/events/connectionFlapping/copied");
    assert!(String::from_utf8_lossy(&told.payload).contains("several clients use this identity"));
    // Once: what comes next is an answer.
    reader.settle().await;
    assert_eq!((hub.hub.metrics.takeovers.get(), hub.hub.metrics.flapping.get()), (6, 4));
    let (_, told) = hub.rest().call("GET", "/api/v1/devices/copied/connections", None).await;
    assert_eq!(told["flapping"]["takeovers"], 4, "{told}");
    assert_eq!(told["connections"][1]["reason"], "taken_over", "{told}");
    let (_, metrics) = hub.ops("/metrics").await;
    assert!(metrics.contains("portcullis_flapping_total 4"), "{metrics}");
    hub.stop().await;
}

#[tokio::test]
async fn t610_who_waits_takes_the_seat_when_its_turn_comes() {
    let hub = TestHub::start().await;
    let device = hub.device("copied").await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(hub.connect(&device).await);
    }
    let mut newest = clients.pop().unwrap();
    for mut older in clients {
        assert!(older.closed().await);
    }
    newest.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t609_of_a_hundred_at_once_one_stays_and_has_the_queue() {
    let hub = TestHub::start().await;
    let device = hub.device("wanted").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/wanted/messages/devicebound/#"]).await;
    drop(client);
    let racers = (0..100).map(|_| hub.connect_in_a_race(&device));
    let admitted = futures_util::future::join_all(racers).await;
    hub.send(&device, "to whoever stays").await;
    let mut heard = 0;
    for mut client in admitted.into_iter().flatten() {
        if let Some(Packet::Publish(publish)) = client.packet_or_end().await {
            client.acknowledge(&publish).await;
            client.settle().await;
            heard += 1;
        }
    }
    assert_eq!((heard, hub.hub.sessions.len()), (1, 1));
    hub.stop().await;
}

#[tokio::test]
async fn p6_who_waits_for_a_seat_and_is_disabled_gets_none() {
    let hub = TestHub::start_with_limits(&[("takeover_wait_time_max", "60s")]).await;
    let device = hub.device("copied").await;
    let mut first = hub.connect(&device).await;
    let mut second = hub.connect(&device).await;
    assert!(first.closed().await);
    let mut third = waiting(&hub, &device, 1).await;
    hub.disable(&device).await;
    assert!(second.closed().await);
    let answer = third.packet_or_end().await;
    assert!(!matches!(answer, Some(Packet::ConnAck { code, .. }) if code as u8 == 0), "{answer:?}");
    until(|| hub.hub.sessions.is_empty()).await;
    hub.stop().await;
}
