//! Bytes no client should send, before and after CONNECT (threats T2xx, T6xx): closed, and nobody else notices.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::{Bytes, BytesMut};
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::codec;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Packet, Publish, QoS, Utf8Bytes};
use portcullis_testing::{HubSettings, RawClient, TestHub, until, will};

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    codec::encode(packet, &mut bytes);
    bytes.to_vec()
}

fn publish(topic: &str, qos: QoS, packet_id: Option<u16>, payload: Vec<u8>) -> Packet {
    let topic = Utf8Bytes::parse(topic.to_owned().into_bytes()).unwrap();
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id,
        payload: Bytes::from(payload),
    })
}

/// A raw client that is connected as a device.
async fn connected(hub: &TestHub, connect: &Connect) -> RawClient {
    let mut client = hub.raw().await;
    client.send_packet(&Packet::Connect(Box::new(connect.clone()))).await;
    assert_eq!(client.read(4).await, [0x20, 2, 0, 0]);
    client
}

#[tokio::test]
async fn t201_t202_t205_t206_a_bad_first_packet_is_refused_or_closed() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let good = bytes_of(&Packet::Connect(Box::new(hub.connect_packet(&device))));
    let with = |place: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[place] = byte;
        bytes
    };
    let body = if good[1] & 0x80 == 0 { 2 } else { 3 };
    // Protocol name at body+2, level at body+6, flags at body+7.
    let cases: Vec<(&str, Vec<u8>, &[u8])> = vec![
        ("endless remaining length", vec![0x10, 0xff, 0xff, 0xff, 0xff, 0x01], &[]),
        ("huge remaining length", vec![0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4, b'M'], &[]),
        ("a PUBLISH first", vec![0x30, 0x05, 0, 1, b'a', b'b', b'c'], &[]),
        ("a PINGREQ first", vec![0xc0, 0], &[]),
        ("type 0", vec![0x00, 0], &[]),
        ("type 15", vec![0xf0, 0], &[]),
        ("flags on CONNECT", with(0, 0x11), &[]),
        ("reserved flag", with(body + 7, good[body + 7] | 1), &[]),
        ("will QoS without will", with(body + 7, good[body + 7] | 0x08), &[]),
        ("level 3", with(body + 6, 3), &[0x20, 2, 0, 1]),
        ("level 5", with(body + 6, 5), &[0x20, 3, 0, 0x84, 0]),
        ("level 131", with(body + 6, 131), &[0x20, 2, 0, 1]),
    ];
    for (what, bytes, answer) in cases {
        let mut client = hub.raw().await;
        client.send(&bytes).await;
        assert_eq!(client.until_closed().await, answer, "{what}");
    }
    // The protocol name of MQTT 3.1: refused with 1, or closed.
    let mut old = hub.raw().await;
    old.send(b"\x10\x0e\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00").await;
    let answer = old.until_closed().await;
    assert!(answer.is_empty() || answer == [0x20, 2, 0, 1], "{answer:?}");
    hub.connect(&device).await.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t207_an_empty_client_id_is_refused_with_2() {
    let hub = TestHub::start().await;
    for clean_session in [0u8, 2] {
        let mut client = hub.raw().await;
        client.send(&[0x10, 0x0c, 0, 4, b'M', b'Q', b'T', b'T', 4, clean_session, 0, 60, 0, 0]).await;
        assert_eq!(client.until_closed().await, [0x20, 2, 0, 2]);
    }
    hub.stop().await;
}

#[tokio::test]
async fn t203_t204_t208_t209_t210_t213_t217_bad_packets_close_the_session_and_spare_the_bystander() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let bystander = hub.device("bystander").await;
    let mut other = hub.connect(&bystander).await;
    let connect = hub.connect_packet(&device);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("second CONNECT", bytes_of(&Packet::Connect(Box::new(connect.clone())))),
        ("CONNACK", vec![0x20, 2, 0, 0]),
        ("SUBACK", vec![0x90, 3, 0, 1, 0]),
        ("UNSUBACK", vec![0xb0, 2, 0, 1]),
        ("PINGRESP", vec![0xd0, 0]),
        ("type 0", vec![0x00, 0]),
        ("type 15", vec![0xf0, 0]),
        ("SUBSCRIBE with flags 0", vec![0x80, 6, 0, 1, 0, 1, b'a', 0]),
        ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
        ("DUP with QoS 0", vec![0x38, 3, 0, 1, b'a']),
        ("topic that is no UTF-8", vec![0x30, 3, 0, 1, 0xff]),
        ("topic with NUL", vec![0x30, 3, 0, 1, 0]),
        ("empty topic", vec![0x30, 2, 0, 0]),
        ("topic with #", vec![0x30, 3, 0, 1, b'#']),
        ("packet id 0", [&[0x32, 30, 0, 26][..], b"devices/d1/messages/events", &[0, 0]].concat()),
        ("no filter", vec![0x82, 2, 0, 1]),
        ("PINGREQ with a body", vec![0xc0, 1, 0]),
        ("DISCONNECT with a body", vec![0xe0, 1, 0]),
        (
            "QoS 2",
            bytes_of(&publish("devices/d1/messages/events/", QoS::ExactlyOnce, Some(1), b"x".to_vec())),
        ),
        ("endless remaining length", vec![0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ("huge remaining length", vec![0x30, 0xff, 0xff, 0xff, 0x7f, 0, 1, b'a']),
        (
            "lone %",
            bytes_of(&publish("devices/d1/messages/events/a=%", QoS::AtLeastOnce, Some(1), b"x".to_vec())),
        ),
    ];
    for (what, bytes) in cases {
        let mut client = connected(&hub, &connect).await;
        client.send(&bytes).await;
        assert!(client.until_closed().await.is_empty(), "{what}");
        other.settle().await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn t215_the_largest_payload_works_and_one_byte_more_closes() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.publish_acknowledged("devices/d1/messages/events/", &vec![7; 256 * 1024]).await;
    assert_eq!(service.take_message().await.payload.len(), 256 * 1024);
    client.publish("devices/d1/messages/events/", &vec![7; 256 * 1024 + 1]).await;
    assert!(client.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn t218_what_follows_connect_at_once_counts_only_if_it_is_admitted() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let telemetry =
        bytes_of(&publish("devices/d1/messages/events/", QoS::AtLeastOnce, Some(9), b"early".to_vec()));
    let mut connect = hub.connect_packet(&device);
    let good = bytes_of(&Packet::Connect(Box::new(connect.clone())));
    connect.password = None;
    let bad = bytes_of(&Packet::Connect(Box::new(connect)));

    let mut refused = hub.raw().await;
    refused.send(&[bad, telemetry.clone()].concat()).await;
    assert_eq!(refused.until_closed().await, [0x20, 2, 0, 5]);

    let mut admitted = hub.raw().await;
    admitted.send(&[good, telemetry].concat()).await;
    assert_eq!(admitted.read(8).await, [0x20, 2, 0, 0, 0x40, 2, 0, 9]);
    assert_eq!(service.take_message().await.payload, Bytes::from("early"));
    service.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t226_segmentation_changes_nothing() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let stream: Vec<u8> = (1..=20u16)
        .flat_map(|id| {
            bytes_of(&publish(
                "devices/d1/messages/events/",
                QoS::AtLeastOnce,
                Some(id),
                id.to_string().into_bytes(),
            ))
        })
        .collect();
    let acks: Vec<u8> = (1..=20u8).flat_map(|id| [0x40, 2, 0, id]).collect();
    let connect = hub.connect_packet(&device);
    for size in [1, 7, stream.len()] {
        let mut client = connected(&hub, &connect).await;
        for segment in stream.chunks(size) {
            client.send(segment).await;
        }
        assert_eq!(client.read(acks.len()).await, acks, "{size}");
        for id in 1..=20 {
            assert_eq!(service.take_message().await.payload, Bytes::from(id.to_string()));
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t211_acknowledging_what_was_not_sent_completes_nothing() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    hub.send(&device, "x").await;
    let message = client.message().await;
    for id in [2, 17, 65_535] {
        client.send(Packet::PubAck(id)).await;
    }
    client.settle().await;
    assert_eq!(hub.hub.registry.entry(&device.id).unwrap().queued(), 1);
    client.acknowledge(&message).await;
    client.settle().await;
    assert_eq!(hub.hub.registry.entry(&device.id).unwrap().queued(), 0);
    hub.stop().await;
}

#[tokio::test]
async fn t216_seventeen_filters_close_the_connection() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    for _ in 0..20 {
        assert_eq!(client.subscribe(&["devices/d1/messages/devicebound/#"]).await, [1]);
    }
    let filters = ["devices/d1/messages/devicebound/#"; 17];
    let filters = filters
        .iter()
        .map(|text| (Utf8Bytes::parse(text.as_bytes().to_vec()).unwrap(), QoS::AtLeastOnce))
        .collect();
    client.send(Packet::Subscribe(portcullis::mqtt::packet::Subscribe { packet_id: 99, filters })).await;
    assert!(client.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn t601_publishing_to_anything_but_the_own_topic_closes_and_forwards_nothing() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let _other = hub.device("d10").await;
    for topic in [
        "devices/d10/messages/events/",
        "devices/D1/messages/events/",
        "devices/d1/modules/m/messages/events/",
        "devices/d1/messages/devicebound/",
        "devices/d1",
        "made/up",
        "$SYS/x",
        "$admin/GET/devices/?$rid=1",
        "/devices/d1/messages/events/",
        "devices/d1//messages/events/",
        "Devices/d1/messages/events/",
    ] {
        let mut client = hub.connect(&device).await;
        client.publish(topic, b"foreign").await;
        assert!(client.closed().await, "{topic}");
    }
    let mut client = hub.connect(&device).await;
    client.publish_acknowledged("devices/d1/messages/events/", b"own").await;
    assert_eq!(service.take_message().await.payload, Bytes::from("own"));
    hub.stop().await;
}

#[tokio::test]
async fn t602_foreign_filters_are_refused_one_by_one() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let other = hub.device("d10").await;
    let mut client = hub.connect(&device).await;
    let filters = [
        "devices/d10/messages/devicebound/#",
        "devices/+/#",
        "#",
        "+/#",
        "$SYS/#",
        "devices/+/messages/devicebound/#",
        "devices/d1/messages/devicebound/#",
        "devices/+/messages/events/#",
        "$admin/res/#",
        "devices/d1/#",
    ];
    let codes = client.subscribe(&filters).await;
    assert_eq!(codes, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0x80, 0x80, 0x80]);
    hub.send(&other, "not for d1").await;
    hub.send(&device, "for d1").await;
    assert_eq!(client.take_message().await.payload, Bytes::from("for d1"));
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t603_a_will_on_a_foreign_topic_is_refused_at_connect() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    for topic in ["devices/d10/messages/events/", "$admin/res/200/?$rid=1", "$iothub/twin/GET/?$rid=1", "x"] {
        let mut connect = hub.connect_packet(&device);
        connect.will = Some(will(topic, "x"));
        assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized), "{topic}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t227_a_subscriber_that_stops_reading_is_closed_and_slows_nobody() {
    let environment = vec![("PORTCULLIS__LIMITS__WRITE_TIME_MAX".to_owned(), "1s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let mut quick = hub.events().await;
    let stuck = hub.events().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    // More than the kernel's buffers of a loopback connection take.
    let payload = vec![7; 256 * 1024];
    for _ in 0..100 {
        client.publish_acknowledged("devices/d1/messages/events/", &payload).await;
        quick.take_message().await;
    }
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::SlowReader) == 1).await;
    quick.settle().await;
    drop(stuck);
    hub.stop().await;
}

#[tokio::test]
async fn t229_keep_alive_missed_closes_the_connection_and_sends_the_will() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let mut connect = hub.connect_packet(&device);
    connect.keep_alive = 1;
    connect.will = Some(will("devices/d1/messages/events/", "silent"));
    let mut client = hub.connect_with(connect).await.unwrap();
    assert!(client.closed().await);
    assert_eq!(service.take_message().await.payload, Bytes::from("silent"));
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::KeepAliveMissed), 1);
    hub.stop().await;
}
