//! MQTT over WebSockets on the HTTPS port: the same conversation in frames, and frames nobody should send (threats T230).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use portcullis::mqtt::codec;
use portcullis::mqtt::packet::{ConnectReturnCode, Packet, Password, Publish, QoS, Utf8Bytes};
use portcullis_testing::{HubSettings, RawClient, TestHub, TestIdentity, until, websocket_request};

const PATH: &str = "/$iothub/websocket";
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const PING: u8 = 9;
const FINAL: u8 = 0x80;

#[tokio::test]
async fn a_device_converses_over_a_websocket() {
    let hub = TestHub::start().await;
    let mut events = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect_websocket(hub.connect_packet(&pump)).await.unwrap();
    assert_eq!(hub.hub.admission.anonymous(), 0, "a known peer no longer stands at the door");
    // Longer than one frame of either side carries.
    let long = "x".repeat(200 * 1024);
    client.publish_acknowledged("devices/pump-7/messages/events/", long.as_bytes()).await;
    assert_eq!(events.take_message().await.payload, long);

    assert_eq!(client.subscribe(&["devices/pump-7/messages/devicebound/#"]).await, [1]);
    let long = "y".repeat(60 * 1024);
    for body in ["open valve", &long] {
        hub.send(&pump, body).await;
        assert_eq!(client.take_message().await.payload, body);
    }
    client.disconnect().await;
    hub.stop().await;
}

#[tokio::test]
async fn a_wrong_key_is_refused_with_5_over_a_websocket_too() {
    let hub = TestHub::start().await;
    let (pump, valve) = (hub.device("pump-7").await, hub.device("valve-1").await);
    let mut connect = hub.connect_packet(&pump);
    connect.password = Some(Password::from_bytes(hub.token_for(&valve, 3600).as_bytes()));
    assert_eq!(hub.connect_websocket(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    hub.stop().await;
}

#[tokio::test]
async fn a_newer_connection_takes_over_across_both_ways_in() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut first = hub.connect_websocket(hub.connect_packet(&pump)).await.unwrap();
    let mut second = hub.connect(&pump).await;
    assert!(first.closed().await);
    let _third = hub.connect_websocket(hub.connect_packet(&pump)).await.unwrap();
    assert!(second.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_stops_ends_websockets_known_or_not() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut silent = hub.raw_websocket().await;
    let mut known = hub.connect_websocket(hub.connect_packet(&pump)).await.unwrap();
    let started = Instant::now();
    hub.stop().await;
    assert!(known.closed().await);
    silent.until_closed().await;
    assert!(started.elapsed() < Duration::from_secs(8), "the stop did not wait for them to be cut");
}

#[tokio::test]
async fn t230_a_packet_over_many_frames_works() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let connect = bytes_of(&Packet::Connect(Box::new(hub.connect_packet(&pump))));
    let mut client = hub.raw_websocket().await;
    // Each a message of its own, then fragments of one message with a ping between them.
    let (first, second) = connect.split_at(connect.len() / 2);
    for byte in first {
        client.send(&frame(FINAL | BINARY, &[*byte])).await;
    }
    let (third, fourth) = second.split_at(10);
    client.send(&frame(BINARY, third)).await;
    client.send(&frame(FINAL | PING, b"still there?")).await;
    client.send(&frame(FINAL, fourth)).await;
    let pong = [&[0x8a, 12][..], b"still there?"].concat();
    assert_eq!(client.read(pong.len()).await, pong);
    assert_eq!(client.read(6).await, [&[FINAL | BINARY, 4][..], &CONNACK].concat());
    hub.stop().await;
}

#[tokio::test]
async fn t230_a_frame_with_several_packets_works() {
    let hub = TestHub::start().await;
    let mut events = hub.events().await;
    let pump = hub.device("pump-7").await;
    let mut client = connected(&hub, &pump).await;
    let all: Vec<u8> = (1..=3).flat_map(|number| bytes_of(&telemetry(number))).collect();
    client.send(&frame(FINAL | BINARY, &all)).await;
    for number in 1..=3 {
        assert_eq!(events.take_message().await.payload, number.to_string());
    }
    hub.stop().await;
}

#[tokio::test]
async fn t230_frames_sent_with_the_handshake_are_not_lost() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let connect = bytes_of(&Packet::Connect(Box::new(hub.connect_packet(&pump))));
    let mut client = hub.raw_https().await;
    let hasty = [websocket_request(PATH, "mqtt").into_bytes(), frame(FINAL | BINARY, &connect)].concat();
    client.send(&hasty).await;
    assert!(client.http_head().await.starts_with("HTTP/1.1 101 "));
    assert_eq!(client.read(6).await[2..], CONNACK);
    hub.stop().await;
}

#[tokio::test]
async fn t230_frames_that_are_not_taken_close_the_connection() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let connect = bytes_of(&Packet::Connect(Box::new(hub.connect_packet(&pump))));
    let ping = bytes_of(&Packet::PingReq);
    let mut unmasked = vec![FINAL | BINARY, 2];
    unmasked.extend(&ping);
    let lying = [&[FINAL | BINARY, 0xff][..], &u64::MAX.to_be_bytes(), &[0; 4]].concat();
    let long = [&[FINAL | BINARY, 0xff][..], &(264 * 1024 + 1_u64).to_be_bytes(), &[0; 4]].concat();
    // The frame, and the code of the close it is answered with.
    let cases = [
        ("text", frame(FINAL | TEXT, b"on"), 1003_u16),
        ("text that is none", frame(FINAL | TEXT, &ping), 1007),
        ("unmasked", unmasked, 1002),
        ("a lying length", lying, 1009),
        ("a message above the limit", long, 1009),
        ("a continuation of nothing", frame(FINAL, &ping), 1002),
        ("a reserved bit", frame(FINAL | 0x40 | BINARY, &ping), 1002),
        ("a reserved opcode", frame(FINAL | 3, &ping), 1002),
        ("a fragmented ping", frame(PING, b""), 1002),
    ];
    for (what, bytes, code) in cases {
        let mut client = connected(&hub, &pump).await;
        client.send(&bytes).await;
        assert_eq!(client.until_closed().await, close(code), "{what}");
        let mut client = hub.raw_websocket().await;
        client.send(&bytes).await;
        assert_eq!(client.until_closed().await, close(code), "{what} before CONNECT");
    }
    // Fragments count together, and before CONNECT less is taken.
    let mut client = hub.raw_websocket().await;
    client.send(&frame(BINARY, &vec![0; 20 * 1024])).await;
    client.send(&frame(FINAL, &vec![0; 20 * 1024])).await;
    assert_eq!(client.until_closed().await, close(1009));
    // MQTT's own rules hold inside the frames.
    let mut client = hub.raw_websocket().await;
    client.send(&frame(FINAL | BINARY, &ping)).await;
    assert_eq!(client.until_closed().await, b"");
    let mut client = hub.raw_websocket().await;
    client.send(&frame(FINAL | BINARY, &connect)).await;
    assert_eq!(client.read(6).await[2..], CONNACK);
    hub.stop().await;
}

#[tokio::test]
async fn a_peer_that_says_goodbye_in_frames_hears_one() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = connected(&hub, &pump).await;
    client.send(&frame(FINAL | 8, &1000_u16.to_be_bytes())).await;
    assert_eq!(client.until_closed().await, close(1000));
    hub.stop().await;
}

#[tokio::test]
async fn t230_the_subprotocol_is_mqtt_in_any_case_and_echoed_as_offered() {
    let hub = TestHub::start().await;
    for (offered, chosen) in [("mqtt", "mqtt"), ("MQTT", "MQTT"), ("AMQPWSB10, Mqtt", "Mqtt")] {
        let path = format!("{PATH}?iothub-no-client-cert=true");
        let head = answer(&hub, &websocket_request(&path, offered)).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        let lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
        // The example of RFC 6455, 1.3.
        assert!(lines.contains(&"sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=".to_owned()), "{head}");
        assert!(head.contains(&format!(": {chosen}\r\n")), "{head}");
    }
    for offered in ["AMQPWSB10", "mqttv3.1", ""] {
        let head = answer(&hub, &websocket_request(PATH, offered)).await;
        assert!(head.starts_with("HTTP/1.1 400 "), "{offered}: {head}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_request_that_is_no_websocket_handshake_is_answered_400() {
    let hub = TestHub::start().await;
    let good = websocket_request(PATH, "mqtt");
    let without = |line: &str| good.replace(line, "");
    let cases = [
        without("Connection: Upgrade\r\n"),
        without("Upgrade: websocket\r\n"),
        without("Sec-WebSocket-Version: 13\r\n"),
        without("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"),
        good.replace("Version: 13", "Version: 8"),
        good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
        good.replace("HTTP/1.1", "HTTP/1.0"),
    ];
    for request in cases {
        let head = answer(&hub, &request).await;
        assert!(head.contains(" 400 "), "{request}{head}");
    }
    for method in ["POST ", "HEAD "] {
        let head = answer(&hub, &good.replace("GET ", method)).await;
        assert!(head.contains(" 405 "), "{head}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t101_t230_silence_on_a_websocket_is_closed_at_the_connect_mark() {
    let settings =
        [("PORTCULLIS__LIMITS__CONNECT_TIME_MAX", "1s"), ("PORTCULLIS__LIMITS__HANDSHAKE_TIME_MAX", "1s")];
    let hub = TestHub::start_with(HubSettings {
        environment: settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..HubSettings::default()
    })
    .await;
    let mut silent = hub.raw_websocket().await;
    let started = Instant::now();
    assert_eq!(hub.hub.admission.anonymous(), 1, "it stands at the door");
    assert_eq!(silent.until_closed().await, b"");
    assert!(started.elapsed() < Duration::from_secs(10));
    until(|| hub.hub.admission.anonymous() == 0).await;
    hub.stop().await;
}

/// A raw client whose CONNECT is accepted.
async fn connected(hub: &TestHub, identity: &TestIdentity) -> RawClient {
    let mut client = hub.raw_websocket().await;
    let connect = bytes_of(&Packet::Connect(Box::new(hub.connect_packet(identity))));
    client.send(&frame(FINAL | BINARY, &connect)).await;
    assert_eq!(client.read(2).await, [FINAL | BINARY, 4]);
    assert_eq!(client.read(2).await, CONNACK[..2]);
    assert_eq!(client.read(2).await[1], 0);
    client
}

/// The head of what a request on a connection of its own is answered with.
async fn answer(hub: &TestHub, request: &str) -> String {
    let mut client = hub.raw_https().await;
    client.send(request.as_bytes()).await;
    client.http_head().await
}

fn telemetry(number: u16) -> Packet {
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Utf8Bytes::parse(Bytes::from_static(b"devices/pump-7/messages/events/")).unwrap(),
        packet_id: Some(number),
        payload: number.to_string().into(),
    })
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    codec::encode(packet, &mut bytes);
    bytes.to_vec()
}

/// A masked frame, as a client sends it.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0xc3, 0x0f, 0x96];
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The hub's close frame with this code.
fn close(code: u16) -> Vec<u8> {
    [&[FINAL | 8, 2][..], &code.to_be_bytes()].concat()
}
