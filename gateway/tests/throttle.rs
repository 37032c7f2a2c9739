//! What comes too often: bad logins, by address and by identity, over MQTT and REST; messages; connections in all. Who
//! does nothing wrong is never in the way of any of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, SocketAddr};

use portcullis::hub::metrics::Scope;
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Packet, Password};
use portcullis_registry::credential::SymmetricKey;
use portcullis_testing::{RawClient, TestHub, TestIdentity, until};
use serde_json::json;

const PER_ADDRESS: &str = "failed_logins_per_address_per_second_max";
const PER_IDENTITY: &str = "failed_logins_per_identity_per_second_max";

/// The CONNECT of somebody who does not have the device's key.
fn bad(hub: &TestHub, device: &TestIdentity) -> Packet {
    let mut thief = device.clone();
    thief.keys.primary = SymmetricKey::generate();
    Packet::Connect(Box::new(hub.connect_packet(&thief)))
}

/// Sends a CONNECT from an address of its own; the answer, if there is one.
async fn answer(hub: &TestHub, from: u8, connect: Packet) -> Option<ConnectReturnCode> {
    let address = SocketAddr::from((Ipv4Addr::new(127, 0, 1, from), 0));
    let mut client = hub.client_from(address).await?;
    client.send_or_lose(connect).await;
    match client.packet_or_end().await? {
        Packet::ConnAck { code, .. } => Some(code),
        other => panic!("the answer to CONNECT was {other:?}"),
    }
}

#[tokio::test]
async fn t321_a_storm_of_bad_tokens_for_one_id_is_limited_and_the_true_device_gets_in() {
    // By identity alone: each of the many addresses keeps below its own limit.
    let hub = TestHub::start_with_limits(&[(PER_ADDRESS, "1000"), (PER_IDENTITY, "1")]).await;
    let device = hub.device("victim").await;
    let bystander = hub.device("bystander").await;
    let mut connected = hub.connect(&device).await;
    let storm = (0..100).map(|from| answer(&hub, from, bad(&hub, &device)));
    let answers = futures_util::future::join_all(storm).await;
    let answered = answers.iter().flatten().count();
    assert!(answered < 100 && answers.iter().flatten().all(|code| *code == ConnectReturnCode::NotAuthorized));
    assert_eq!(hub.hub.metrics.throttles(Scope::Identity), 100 - answered as u64);
    assert_eq!(hub.hub.metrics.throttles(Scope::Address), 0);
    // All are counted, those that were answered are recorded.
    let (_, told) = hub.rest().call("GET", "/api/v1/devices/victim/connections", None).await;
    assert_eq!(told["refusalCount"], 100, "{told}");
    assert!(told["refusals"].as_array().unwrap().len() <= answered.min(8), "{told}");
    // In the middle of it the true device is where it was, and may come anew.
    let more = futures_util::future::join_all((0..50).map(|from| answer(&hub, from, bad(&hub, &device))));
    let (_, again) = tokio::join!(more, async {
        connected.settle().await;
        hub.connect(&bystander).await.settle().await;
        hub.connect(&device).await
    });
    let mut again = again;
    again.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t1007_an_address_whose_logins_fail_is_turned_away_before_tls_and_comes_back() {
    let hub = TestHub::start_with_limits(&[(PER_ADDRESS, "1"), (PER_IDENTITY, "0")]).await;
    let device = hub.device("d1").await;
    let mut connected = hub.connect(&device).await;
    // A bucket of one: until it is full again, the address gets no handshake on either port.
    while answer(&hub, 7, bad(&hub, &device)).await.is_some() {}
    until(|| hub.hub.metrics.throttles(Scope::Address) > 0).await;
    // Others do, and who is here stays.
    hub.connect(&device).await.disconnect().await;
    assert!(connected.closed().await, "taken over by the one before");
    let good = Packet::Connect(Box::new(hub.connect_packet(&device)));
    let mut tries = 0;
    while answer(&hub, 7, good.clone()).await != Some(ConnectReturnCode::Accepted) {
        tries += 1;
        assert!(tries < 100_000, "it never comes back");
    }
    let (_, metrics) = hub.ops("/metrics").await;
    assert!(metrics.contains("portcullis_throttled_total{scope=\"address\"}"), "{metrics}");
    hub.stop().await;
}

/// Lists devices on a connection that is there already: the head of the answer.
async fn list(client: &mut RawClient, token: &str) -> String {
    let request = "GET /devices?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\n";
    client.send(format!("{request}Authorization: {token}\r\n\r\n").as_bytes()).await;
    let head = client.http_head().await;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
    client.read(length.parse().unwrap()).await;
    head
}

#[tokio::test]
async fn t1007_failed_calls_are_answered_429_and_good_ones_go_on() {
    let hub = TestHub::start_with_limits(&[(PER_ADDRESS, "1")]).await;
    let good = hub.policy_token("iothubowner");
    // The connection is there before the calls begin to fail.
    let mut client = hub.raw_https().await;
    assert!(list(&mut client, &good).await.starts_with("HTTP/1.1 200 "));
    assert!(list(&mut client, "nothing").await.starts_with("HTTP/1.1 401 "));
    let mut head = String::new();
    while !head.starts_with("HTTP/1.1 429 ") {
        head = list(&mut client, "nothing").await;
        assert!(head.starts_with("HTTP/1.1 4"), "{head}");
    }
    assert!(head.contains("retry-after: 1\r\n"), "{head}");
    assert!(head.contains("iothub-errorcode: ThrottlingException\r\n"), "{head}");
    assert!(list(&mut client, &good).await.starts_with("HTTP/1.1 200 "));
    assert!(hub.hub.metrics.throttles(Scope::Address) > 0);
    hub.stop().await;
}

#[tokio::test]
async fn t1004_a_device_at_full_speed_is_read_more_slowly_and_nothing_is_lost() {
    let hub = TestHub::start_with_limits(&[("messages_per_identity_per_second_max", "50")]).await;
    let (fast, slow) = (hub.device("fast").await, hub.device("slow").await);
    let mut service = hub.events().await;
    let (mut first, mut second) = (hub.connect(&fast).await, hub.connect(&slow).await);
    for n in 0..80 {
        first.publish("devices/fast/messages/events/", n.to_string().as_bytes()).await;
    }
    // Held to its share while the bystander is not.
    until(|| hub.hub.metrics.throttles(Scope::Messages) > 0).await;
    second.publish_acknowledged("devices/slow/messages/events/", b"beside").await;
    second.settle().await;
    for n in 1..=80 {
        assert_eq!(first.packet().await, Packet::PubAck(n));
    }
    let mut heard = Vec::new();
    while heard.len() < 81 {
        heard.push(service.take_message().await.payload);
    }
    assert_eq!(heard.iter().filter(|payload| **payload != "beside").count(), 80);
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::BadProtocol), 0);
    first.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t1004_a_device_that_posts_too_fast_is_told_to_wait() {
    let hub = TestHub::start_with_limits(&[("messages_per_identity_per_second_max", "1")]).await;
    let device = hub.device("d1").await;
    let mut rest = hub.rest();
    rest.token = Some(hub.token_for(&device, 3600));
    let path = "/devices/d1/messages/events?api-version=2021-04-12";
    let mut statuses = Vec::new();
    while !statuses.contains(&429) {
        statuses.push(rest.call("POST", path, Some(json!({"t": 1}))).await.0);
    }
    assert_eq!(statuses[0], 204);
    assert!(hub.hub.metrics.throttles(Scope::Messages) >= 1);
    hub.stop().await;
}

#[tokio::test]
async fn t1011_p10_beyond_the_connections_the_hub_takes_the_answer_is_3_and_a_device_may_still_come_back() {
    let hub = TestHub::start_with_limits(&[("connections_max", "2")]).await;
    let (first, second, third) = (hub.device("d1").await, hub.device("d2").await, hub.device("d3").await);
    let (mut one, two) = (hub.connect(&first).await, hub.connect(&second).await);
    let refused = hub.connect_with(hub.connect_packet(&third)).await;
    assert_eq!(refused.err(), Some(ConnectReturnCode::ServerUnavailable));
    assert_eq!(hub.hub.metrics.throttles(Scope::Connections), 1);
    assert_eq!(hub.hub.refusals.last(&third.id).unwrap().outcome, ConnectionOutcome::ConnectionLimit);
    // In the place of its own older connection.
    let again = hub.connect(&first).await;
    assert!(one.closed().await);
    two.disconnect().await;
    until(|| hub.hub.metrics.connections.get() == 1).await;
    hub.connect(&third).await.disconnect().await;
    again.disconnect().await;
    hub.stop().await;
}

#[tokio::test]
async fn t320_whether_an_id_exists_makes_no_difference_to_who_fails_too_often() {
    let hub = TestHub::start_with_limits(&[(PER_ADDRESS, "0"), (PER_IDENTITY, "1")]).await;
    let known = hub.device("known").await;
    let mut unknown = known.clone();
    unknown.id = portcullis_registry::id::IdentityId::device(
        portcullis_registry::id::DeviceId::parse("unknown").unwrap(),
    );
    for identity in [&known, &unknown] {
        let first = answer(&hub, 1, bad(&hub, identity)).await;
        assert_eq!(first, Some(ConnectReturnCode::NotAuthorized));
        while answer(&hub, 1, bad(&hub, identity)).await.is_some() {}
    }
    let no_password = Connect { password: None, ..hub.connect_packet(&known) };
    let good =
        Connect { password: Some(Password::from_bytes(hub.token_for(&known, 60).as_bytes())), ..no_password };
    assert!(hub.connect_with(good).await.is_ok());
    hub.stop().await;
}
