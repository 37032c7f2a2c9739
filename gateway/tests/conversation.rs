//! The main job: a device proves who it is, sends telemetry, and receives cloud-to-device messages.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use portcullis::mqtt::packet::{Packet, Publish, QoS};
use portcullis_registry::message::{Ack, NewC2d};
use portcullis_testing::{TestHub, TestIdentity, will};

fn devicebound(identity: &TestIdentity) -> String {
    format!("{}/messages/devicebound/#", identity.topic())
}

fn events(identity: &TestIdentity) -> String {
    format!("{}/messages/events/", identity.topic())
}

/// The properties in a topic, percent-decoded.
fn properties(publish: &Publish) -> Vec<(String, String)> {
    let bag = publish.topic.rsplit('/').next().unwrap();
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let pair = |pair: &str| pair.split_once('=').map(|(name, value)| (decode(name), decode(value)));
    bag.split('&').filter_map(pair).collect()
}

fn property<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
    properties.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

#[tokio::test]
async fn telemetry_carries_the_senders_verified_identity() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    client.publish_acknowledged(&format!("{}%24.mid=m%201&colour=r%C3%B6d", events(&pump)), b"21.5").await;

    let event = service.take_message().await;
    assert!(event.topic.starts_with("devices/pump-7/messages/events/"), "{}", event.topic.as_str());
    assert_eq!(event.payload, Bytes::from_static(b"21.5"));
    let properties = properties(&event);
    assert_eq!(property(&properties, "iothub-connection-device-id"), Some("pump-7"));
    assert_eq!(property(&properties, "$.mid"), Some("m 1"));
    assert_eq!(property(&properties, "colour"), Some("röd"));
    assert!(property(&properties, "iothub-enqueuedtime").is_some());
    let generation = hub.hub.registry.entry(&pump.id).unwrap().identity().generation.to_string();
    assert_eq!(property(&properties, "iothub-connection-auth-generation-id"), Some(generation.as_str()));
    hub.stop().await;
}

#[tokio::test]
async fn t617_a_claimed_sender_is_ignored() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    let claims = "iothub-connection-device-id=boss&%24.cdid=boss&iothub-enqueuedtime=1999&iothub-connection-auth-method=none";
    client.publish_acknowledged(&format!("{}{claims}", events(&pump)), b"{\"deviceId\":\"boss\"}").await;
    let properties = properties(&service.take_message().await);
    let of_device: Vec<_> =
        properties.iter().filter(|(name, _)| name == "iothub-connection-device-id").collect();
    assert_eq!(of_device, [&("iothub-connection-device-id".to_owned(), "pump-7".to_owned())]);
    assert_eq!(property(&properties, "$.cdid"), None);
    assert_ne!(property(&properties, "iothub-enqueuedtime"), Some("1999"));
    hub.stop().await;
}

#[tokio::test]
async fn modules_send_and_receive_on_their_own() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let _pump = hub.device("pump-7").await;
    let module = hub.module("pump-7", "valve").await;
    let mut client = hub.connect(&module).await;
    assert_eq!(client.subscribe(&[&devicebound(&module)]).await, [1]);
    client.publish_acknowledged(&events(&module), b"shut").await;
    let event = service.take_message().await;
    assert!(
        event.topic.starts_with("devices/pump-7/modules/valve/messages/events/"),
        "{}",
        event.topic.as_str()
    );
    assert_eq!(property(&properties(&event), "iothub-connection-module-id"), Some("valve"));

    hub.send(&module, "open").await;
    let message = client.take_message().await;
    assert!(
        message.topic.starts_with("devices/pump-7/modules/valve/messages/devicebound/"),
        "{}",
        message.topic.as_str()
    );
    hub.stop().await;
}

#[tokio::test]
async fn t508_a_message_arrives_with_every_property_as_it_was_sent() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    client.subscribe(&[&devicebound(&pump)]).await;
    let odd = ("a&=/#+% \nä".to_owned(), "🚰 & = / # + % \n".to_owned());
    let message = NewC2d {
        message_id: Some("m/1".into()),
        correlation_id: Some("c&1".into()),
        content_type: Some("text/plain; charset=utf-8".into()),
        ack: Ack::Full,
        properties: vec![odd.clone(), ("empty".into(), String::new())],
        body: Bytes::from_static(b"open valve"),
        ..NewC2d::default()
    };
    hub.send_message(&pump, message).await;
    let publish = client.take_message().await;
    assert_eq!(publish.topic.split('/').count(), 5, "{}", publish.topic.as_str());
    let properties = properties(&publish);
    assert_eq!(property(&properties, "$.mid"), Some("m/1"));
    assert_eq!(property(&properties, "$.cid"), Some("c&1"));
    assert_eq!(property(&properties, "$.ct"), Some("text/plain; charset=utf-8"));
    assert_eq!(property(&properties, "$.to"), Some("/devices/pump-7/messages/devicebound"));
    assert_eq!(property(&properties, "iothub-ack"), Some("full"));
    assert!(properties.contains(&odd) && properties.contains(&("empty".into(), String::new())));
    hub.stop().await;
}

#[tokio::test]
async fn a_message_sent_while_offline_arrives_on_connecting() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    for body in ["one", "two", "three"] {
        hub.send(&pump, body).await;
    }
    let mut client = hub.connect(&pump).await;
    client.subscribe(&[&devicebound(&pump)]).await;
    for body in ["one", "two", "three"] {
        let publish = client.take_message().await;
        assert_eq!((publish.payload, publish.dup), (Bytes::from(body), false));
    }
    client.settle().await;
    assert_eq!(hub.hub.registry.entry(&pump.id).unwrap().queued(), 0);
    hub.stop().await;
}

#[tokio::test]
async fn t228_what_was_not_acknowledged_comes_again_with_dup_and_its_packet_id() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    client.subscribe(&[&devicebound(&pump)]).await;
    for number in 0..20 {
        hub.send(&pump, &number.to_string()).await;
    }
    let mut first = Vec::new();
    for _ in 0..16 {
        first.push(client.message().await);
    }
    // Sixteen are in flight, then none: the next packet is the answer to the ping.
    client.settle().await;
    client.acknowledge(&first[0]).await;
    assert_eq!(client.message().await.payload, Bytes::from("16"));
    drop(client);

    let mut client = hub.connect(&pump).await;
    assert!(client.session_present);
    for old in &first[1..] {
        let again = client.take_message().await;
        assert_eq!(again, Publish { dup: true, ..old.clone() });
    }
    for (number, dup) in [(16, true), (17, false), (18, false), (19, false)] {
        let publish = client.take_message().await;
        assert_eq!((publish.payload, publish.dup), (Bytes::from(number.to_string()), dup));
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_kept_session_survives_a_dropped_connection_and_a_restart_of_the_hub() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    assert!(!client.session_present);
    client.subscribe(&[&devicebound(&pump)]).await;
    drop(client);
    hub.send(&pump, "before the restart").await;
    let hub = hub.restart().await;
    hub.send(&pump, "after the restart").await;
    // The device does not subscribe again.
    let mut client = hub.connect(&pump).await;
    assert!(client.session_present);
    assert_eq!(client.take_message().await.payload, Bytes::from("before the restart"));
    assert_eq!(client.take_message().await.payload, Bytes::from("after the restart"));
    hub.stop().await;
}

#[tokio::test]
async fn a_clean_session_keeps_nothing_and_ends_the_kept_one() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    client.subscribe(&[&devicebound(&pump)]).await;
    let mut clean = hub.connect_packet(&pump);
    clean.clean_session = true;
    let mut client = hub.connect_with(clean).await.unwrap();
    assert!(!client.session_present);
    hub.send(&pump, "kept for later").await;
    // Not subscribed, so nothing comes; the queue is the device's and keeps it.
    client.settle().await;
    client.subscribe(&[&devicebound(&pump)]).await;
    assert_eq!(client.message().await.payload, Bytes::from("kept for later"));
    client.disconnect().await;
    let client = hub.connect(&pump).await;
    assert!(!client.session_present);
    hub.stop().await;
}

#[tokio::test]
async fn after_unsubscribing_nothing_comes() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    client.subscribe(&[&devicebound(&pump)]).await;
    client.unsubscribe(&[&devicebound(&pump)]).await;
    hub.send(&pump, "x").await;
    client.settle().await;
    client.subscribe(&[&devicebound(&pump)]).await;
    assert_eq!(client.take_message().await.payload, Bytes::from("x"));
    hub.stop().await;
}

#[tokio::test]
async fn t229_a_will_is_sent_when_the_device_vanishes_and_not_when_it_says_goodbye() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut connect = hub.connect_packet(&pump);
    connect.will = Some(will(&events(&pump), "lost"));
    hub.connect_with(connect.clone()).await.unwrap().disconnect().await;
    drop(hub.connect_with(connect).await.unwrap());
    let event = service.take_message().await;
    assert_eq!(event.payload, Bytes::from("lost"));
    assert_eq!(property(&properties(&event), "iothub-MessageType"), Some("Will"));
    hub.stop().await;
}

#[tokio::test]
async fn t214_retain_becomes_a_property() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    let topic = portcullis::mqtt::packet::Utf8Bytes::parse(events(&pump).into_bytes()).unwrap();
    let publish = Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: true,
        topic,
        packet_id: None,
        payload: Bytes::from("x"),
    };
    client.send(Packet::Publish(publish)).await;
    let event = service.take_message().await;
    assert_eq!(property(&properties(&event), "mqtt-retain"), Some("true"));
    assert!(!event.retain);
    let mut late = hub.events().await;
    late.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t609_of_a_hundred_connects_at_once_one_stays() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let clients = futures_util::future::join_all((0..100).map(|_| hub.connect_in_a_race(&pump))).await;
    assert_eq!(hub.hub.sessions.len(), 1);
    let mut alive = 0;
    for mut client in clients.into_iter().flatten() {
        client.send_or_lose(Packet::PingReq).await;
        alive += usize::from(client.packet_or_end().await == Some(Packet::PingResp));
    }
    assert_eq!(alive, 1);
    hub.stop().await;
}

#[tokio::test]
async fn takeover_hands_unacknowledged_messages_to_the_newcomer() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut old = hub.connect(&pump).await;
    old.subscribe(&[&devicebound(&pump)]).await;
    hub.send(&pump, "x").await;
    let first = old.message().await;
    let mut new = hub.connect(&pump).await;
    assert!(old.closed().await);
    assert_eq!(new.take_message().await, Publish { dup: true, ..first });
    hub.stop().await;
}

#[tokio::test]
async fn t618_twin_and_method_requests_are_answered_not_supported() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    assert_eq!(client.subscribe(&["$iothub/twin/res/#", "$iothub/methods/POST/#"]).await, [1, 1]);
    let asked = client.publish("$iothub/twin/GET/?$rid=7", b"").await;
    let answers = [client.packet().await, client.packet().await];
    assert!(answers.contains(&Packet::PubAck(asked)));
    let is_answer = |packet: &Packet| matches!(packet, Packet::Publish(p) if p.topic.starts_with("$iothub/twin/res/404/?$rid=7"));
    assert!(answers.iter().any(is_answer), "{answers:?}");
    hub.stop().await;
}
