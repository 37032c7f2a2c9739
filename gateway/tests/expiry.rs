//! A connection ends with what it rests on: on both transports, for devices, modules and services, whatever it waits for
//! and whatever becomes of the clock (threats P7).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Packet, Password, QoS, Subscribe, Utf8Bytes};
use portcullis_registry::sas;
use portcullis_testing::{TestClient, TestHub, until};

/// The CONNECT of a service whose token ends `seconds` from now.
fn service(hub: &TestHub, seconds: i64) -> Connect {
    let (policies, host) = (hub.hub.policies(), hub.hub.hosts.primary());
    let policy = policies.find("service").unwrap();
    let end = hub.hub.clock.wall().as_second() + seconds;
    let token = sas::sign(host, &policy.keys.primary, end, Some("service"));
    Connect {
        client_id: "a service".into(),
        clean_session: true,
        keep_alive: 600,
        username: Some(format!("{host}/?api-version=2021-04-12&policy=service")),
        password: Some(Password::from_bytes(token.as_bytes())),
        will: None,
    }
}

/// A device, a module and a service over TLS, and others over WebSockets.
async fn everybody(hub: &TestHub) -> Vec<TestClient> {
    let (d1, d2) = (hub.device("d1").await, hub.device("d2").await);
    let (m1, m2) = (hub.module("d1", "m").await, hub.module("d2", "m").await);
    vec![
        hub.connect(&d1).await,
        hub.connect(&m1).await,
        hub.connect_with(service(hub, 3600)).await.unwrap(),
        hub.connect_websocket(hub.connect_packet(&d2)).await.unwrap(),
        hub.connect_websocket(hub.connect_packet(&m2)).await.unwrap(),
        hub.connect_websocket(service(hub, 3600)).await.unwrap(),
    ]
}

/// Waits until all are closed, less long than it takes until every session looks at the clock by itself.
async fn closed_soon(clients: &mut [TestClient]) {
    let closed = async {
        for client in clients {
            assert!(client.closed().await);
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("the set clock is noticed");
}

#[tokio::test]
async fn p7_a_clock_set_past_the_tokens_end_closes_every_connection_though_nobody_sends() {
    let hub = TestHub::start().await;
    let mut clients = everybody(&hub).await;
    hub.hub.clock.shift(-7200);
    for client in &mut clients {
        client.settle().await;
    }
    hub.hub.clock.shift(7200);
    closed_soon(&mut clients).await;
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::TokenExpired) == 6).await;
    let connect = service(&hub, -1);
    assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    hub.stop().await;
}

#[tokio::test]
async fn p7_the_grace_of_the_configuration_counts_for_connections_too() {
    let hub = TestHub::start_with_limits(&[("sas_expiry_leeway", "5m")]).await;
    let mut clients = everybody(&hub).await;
    hub.hub.clock.shift(3600 + 200);
    for client in &mut clients {
        client.settle().await;
    }
    hub.hub.clock.shift(3600 + 400);
    closed_soon(&mut clients).await;
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::TokenExpired) == 6).await;
    hub.stop().await;
}

#[tokio::test]
async fn t317_a_connection_that_does_not_read_ends_with_its_token_all_the_same() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut deaf = hub.connect_with(service(&hub, 3)).await.unwrap();
    let topic = bytes::Bytes::from_static(b"devices/+/messages/events/#");
    let filters = vec![(Utf8Bytes::parse(topic).unwrap(), QoS::AtMostOnce)];
    deaf.send(Packet::Subscribe(Subscribe { packet_id: 1, filters })).await;
    assert!(matches!(deaf.packet().await, Packet::SubAck { .. }));
    // More than the network between holds: the hub waits to write when the end comes.
    let mut sender = hub.connect(&device).await;
    let payload = vec![0; 256 * 1024];
    for _ in 0..64 {
        sender.publish_acknowledged("devices/d1/messages/events/", &payload).await;
    }
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::TokenExpired) == 1).await;
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::SlowReader), 0);
    sender.settle().await;
    hub.stop().await;
}
