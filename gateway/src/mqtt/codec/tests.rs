use proptest::prelude::*;

use super::*;

const CONNECT_BYTES_MAX: usize = 32 * 1024;
const PACKET_BYTES_MAX: usize = 264 * 1024;
const PAYLOAD_BYTES_MAX: usize = 256 * 1024;

fn first() -> PacketLimits {
    PacketLimits::before_connect(CONNECT_BYTES_MAX)
}

fn later() -> PacketLimits {
    PacketLimits::after_connect(PACKET_BYTES_MAX, PAYLOAD_BYTES_MAX)
}

/// What becomes of the first packet in these bytes, sent by a known client.
fn read(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode(&mut BytesMut::from(bytes), &later(), Side::Client)
}

/// The same, before CONNECT.
fn read_first(bytes: &[u8]) -> Result<Option<Packet>, DecodeError> {
    decode(&mut BytesMut::from(bytes), &first(), Side::Client)
}

fn bytes_of(packet: &Packet) -> Vec<u8> {
    let mut out = BytesMut::new();
    encode(packet, &mut out);
    out.to_vec()
}

/// Under which limits and from which side a packet can be read.
fn circumstances(packet: &Packet) -> (PacketLimits, Side) {
    match packet {
        Packet::Connect(_) => (first(), Side::Client),
        Packet::ConnAck { .. } | Packet::SubAck { .. } | Packet::UnsubAck(_) | Packet::PingResp => {
            (later(), Side::Server)
        }
        _ => (later(), Side::Client),
    }
}

fn text(text: &str) -> Utf8Bytes {
    Utf8Bytes::parse(text.to_owned()).unwrap()
}

fn publish(qos: QoS) -> Publish {
    let packet_id = (qos != QoS::AtMostOnce).then_some(7);
    let (topic, payload) = (text("devices/d1/messages/events/"), Bytes::from_static(b"{}"));
    Publish { dup: false, qos, retain: false, topic, packet_id, payload }
}

fn connect() -> Connect {
    Connect {
        client_id: "d1".into(),
        clean_session: false,
        keep_alive: 60,
        username: Some("h/d1/?api-version=1".into()),
        password: Some(Password::from_bytes(b"SharedAccessSignature sr=h")),
        will: Some(Will {
            topic: text("devices/d1/messages/events/"),
            payload: Bytes::from_static(b"gone"),
            qos: QoS::AtLeastOnce,
            retain: true,
        }),
    }
}

/// One of each kind, with all that it can have.
fn samples() -> Vec<Packet> {
    let filters = vec![(text("a/#"), QoS::AtLeastOnce), (text("b"), QoS::ExactlyOnce)];
    vec![
        Packet::Connect(Box::new(connect())),
        Packet::Connect(Box::new(Connect { username: None, password: None, will: None, ..connect() })),
        Packet::ConnAck { session_present: true, code: ConnectReturnCode::Accepted },
        Packet::ConnAck { session_present: false, code: ConnectReturnCode::NotAuthorized },
        Packet::Publish(publish(QoS::AtMostOnce)),
        Packet::Publish(Publish { dup: true, retain: true, ..publish(QoS::AtLeastOnce) }),
        Packet::Publish(publish(QoS::ExactlyOnce)),
        Packet::PubAck(1),
        Packet::PubRec(2),
        Packet::PubRel(3),
        Packet::PubComp(u16::MAX),
        Packet::Subscribe(Subscribe { packet_id: 1, filters }),
        Packet::SubAck { packet_id: 1, codes: vec![0, 1, 2, 0x80] },
        Packet::Unsubscribe(Unsubscribe { packet_id: 2, filters: vec![text("a/#"), text("b")] }),
        Packet::UnsubAck(2),
        Packet::PingReq,
        Packet::PingResp,
        Packet::Disconnect,
    ]
}

#[test]
fn every_packet_comes_back() {
    for packet in samples() {
        let (limits, from) = circumstances(&packet);
        let mut buf = BytesMut::from(&bytes_of(&packet)[..]);
        assert_eq!(decode(&mut buf, &limits, from), Ok(Some(packet)));
        assert!(buf.is_empty());
    }
}

#[test]
fn packets_look_on_the_wire_as_the_standard_has_them() {
    assert_eq!(bytes_of(&Packet::PubAck(0x1234)), [0x40, 2, 0x12, 0x34]);
    assert_eq!(bytes_of(&Packet::PubRel(1)), [0x62, 2, 0, 1]);
    assert_eq!(
        bytes_of(&Packet::ConnAck { session_present: true, code: ConnectReturnCode::Accepted }),
        [0x20, 2, 1, 0]
    );
    assert_eq!(bytes_of(&Packet::SubAck { packet_id: 1, codes: vec![1, 0x80] }), [0x90, 4, 0, 1, 1, 0x80]);
    let long =
        Publish { topic: text("a"), payload: Bytes::from(vec![b'x'; 200]), ..publish(QoS::AtLeastOnce) };
    assert_eq!(bytes_of(&Packet::Publish(long))[..8], [0x32, 0xCD, 0x01, 0, 1, b'a', 0, 7]);
    let bare = Connect { username: None, password: None, will: None, clean_session: true, ..connect() };
    let bytes = bytes_of(&Packet::Connect(Box::new(bare)));
    assert_eq!(bytes, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02d1");
}

#[test]
fn topic_and_payload_share_the_read_buffer() {
    let mut buf = BytesMut::from(&bytes_of(&Packet::Publish(publish(QoS::AtLeastOnce)))[..]);
    let range = buf.as_ptr_range();
    let Ok(Some(Packet::Publish(publish))) = decode(&mut buf, &later(), Side::Client) else {
        panic!("no publish")
    };
    assert!(range.contains(&publish.payload.as_ptr()));
    assert!(range.contains(&publish.topic.as_ptr()));
}

#[test]
fn t201_a_remaining_length_of_five_bytes_is_refused_at_the_fourth() {
    for limits in [first(), later()] {
        let first_byte = if limits == first() { 0x10 } else { 0x30 };
        for more in [&[][..], &[0x7F], &[0xFF, 0x01], &[0x80; 100]] {
            let bytes = [&[first_byte, 0xFF, 0xFF, 0xFF, 0xFF][..], more].concat();
            assert_eq!(
                decode(&mut BytesMut::from(&bytes[..]), &limits, Side::Client),
                Err(DecodeError::RemainingLength)
            );
        }
    }
}

#[test]
fn t201_an_unfinished_remaining_length_waits_for_more() {
    for bytes in [&[0x30][..], &[0x30, 0x80], &[0x30, 0x80, 0x80], &[0x30, 0xFF, 0xFF, 0xFF]] {
        assert_eq!(read(bytes), Ok(None));
    }
}

#[test]
fn t201_a_claimed_size_is_refused_without_room_being_made_for_it() {
    let mut buf = BytesMut::from(&b"\x30\xff\xff\xff\x7fabc"[..]);
    let capacity = buf.capacity();
    let refused = decode(&mut buf, &later(), Side::Client);
    assert!(matches!(refused, Err(DecodeError::TooLarge { packet: "PUBLISH", bytes: 268_435_460, .. })));
    assert_eq!(buf.capacity(), capacity);
    let mut buf = BytesMut::from(&b"\x10\xff\xff\xff\x7fabc"[..]);
    assert!(matches!(decode(&mut buf, &first(), Side::Client), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn t201_a_packet_that_is_allowed_but_not_there_yet_costs_nothing() {
    let mut buf = BytesMut::from(&[0x30, 0x80, 0x80, 0x10, 0, 1, b'a'][..]);
    let capacity = buf.capacity();
    assert_eq!(decode(&mut buf, &later(), Side::Client), Ok(None));
    assert_eq!((buf.len(), buf.capacity()), (7, capacity));
}

#[test]
fn t201_a_length_longer_than_it_needs_to_be_is_refused() {
    for bytes in [&[0xC0, 0x80, 0x00][..], &[0x40, 0x82, 0x00, 0, 1], &[0x30, 0x80, 0x80, 0x80, 0x00]] {
        assert_eq!(read(bytes), Err(DecodeError::RemainingLength));
    }
}

#[test]
fn t202_a_first_packet_of_another_type_is_refused_at_its_first_byte() {
    for kind in (0..=15u8).filter(|kind| *kind != 1) {
        for flags in 0..=15 {
            assert!(read_first(&[kind << 4 | flags]).is_err(), "type {kind} flags {flags}");
        }
    }
    assert_eq!(read_first(&[0x30]), Err(DecodeError::NotConnect("PUBLISH")));
    assert_eq!(read_first(&[0x10]), Ok(None));
}

#[test]
fn t202_a_connect_above_its_limit_is_refused_at_its_length() {
    // 32 KiB is three bytes of header and the rest.
    let at = (CONNECT_BYTES_MAX - 4) as u32;
    let length = |bytes: u32| {
        [0x10, (bytes & 0x7F) as u8 | 0x80, (bytes >> 7 & 0x7F) as u8 | 0x80, (bytes >> 14) as u8]
    };
    assert_eq!(read_first(&length(at)), Ok(None));
    assert!(matches!(read_first(&length(at + 1)), Err(DecodeError::TooLarge { packet: "CONNECT", .. })));
}

#[test]
fn t203_reserved_types_are_refused() {
    for byte in [0x00, 0x0F, 0xF0, 0xFF] {
        for side in [Side::Client, Side::Server] {
            let refused = decode(&mut BytesMut::from(&[byte, 0][..]), &later(), side);
            assert_eq!(refused, Err(DecodeError::ReservedType(byte >> 4)));
        }
    }
}

#[test]
fn t203_packets_of_the_other_side_are_refused_at_the_first_byte() {
    for byte in [0x20, 0x90, 0xB0, 0xD0] {
        assert!(matches!(read(&[byte]), Err(DecodeError::WrongSide(_))), "{byte:#x}");
        assert!(matches!(read_first(&[byte]), Err(DecodeError::WrongSide(_))), "{byte:#x}");
    }
    for byte in [0x10, 0x82, 0xA2, 0xC0, 0xE0] {
        let refused = decode(&mut BytesMut::from(&[byte][..]), &later(), Side::Server);
        assert!(matches!(refused, Err(DecodeError::WrongSide(_))), "{byte:#x}");
    }
}

// [MQTT-3.1.0-2]
#[test]
fn t203_a_second_connect_is_refused() {
    assert_eq!(read(&bytes_of(&samples()[0])), Err(DecodeError::SecondConnect));
}

// [MQTT-2.2.2-2]
#[test]
fn t204_wrong_flags_are_refused_for_every_type() {
    let demanded = [(1u8, 0u8), (4, 0), (5, 0), (6, 2), (7, 0), (8, 2), (10, 2), (12, 0), (14, 0)];
    for (kind, right) in demanded {
        let limits = if kind == 1 { first() } else { later() };
        for flags in 0..=15 {
            let outcome = decode(&mut BytesMut::from(&[kind << 4 | flags][..]), &limits, Side::Client);
            assert_eq!(outcome.is_ok(), flags == right, "type {kind} flags {flags}");
        }
    }
}

#[test]
fn t204_publish_flags_that_contradict_each_other_are_refused() {
    for flags in [0b0110, 0b0111, 0b1110, 0b1111] {
        assert_eq!(read(&[0x30 | flags]), Err(DecodeError::QoS));
    }
    for flags in [0b1000, 0b1001] {
        assert_eq!(read(&[0x30 | flags]), Err(DecodeError::DupWithoutId));
    }
    for flags in [0b0000, 0b0001, 0b0010, 0b0011, 0b0100, 0b0101, 0b1010, 0b1011, 0b1100, 0b1101] {
        assert_eq!(read(&[0x30 | flags]), Ok(None));
    }
}

/// A CONNECT with this protocol name, level and flags, and a payload for which flags 0 are right.
fn connect_with(name: &[u8], level: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend((name.len() as u16).to_be_bytes());
    body.extend(name);
    body.extend([level, flags, 0, 60]);
    body.extend(payload);
    let mut packet = vec![0x10, body.len() as u8];
    packet.extend(body);
    packet
}

#[test]
fn t205_unknown_protocol_levels_are_answered_with_1() {
    for level in [0, 3, 6, 131, 132, 255] {
        let error = read_first(&connect_with(b"MQTT", level, 2, b"\0\x02d1")).unwrap_err();
        assert_eq!(error, DecodeError::ProtocolLevel(level));
        assert_eq!(error.answer(), Some(&[0x20, 2, 0, 1][..]));
    }
    let error = read_first(&connect_with(b"MQIsdp", 3, 2, b"\0\x02d1")).unwrap_err();
    assert_eq!(error.answer(), Some(&[0x20, 2, 0, 1][..]));
}

#[test]
fn t205_level_5_is_answered_in_its_own_words() {
    let error = read_first(&connect_with(b"MQTT", 5, 2, b"\x05\x11\0\0\0\0\0\x02d1")).unwrap_err();
    assert_eq!(error, DecodeError::Version5);
    assert_eq!(error.answer(), Some(&[0x20, 3, 0, 0x84, 0][..]));
}

#[test]
fn t205_another_protocol_is_closed_without_an_answer() {
    for name in [&b"HTTP"[..], b"mqtt", b"MQT", b"MQTTT", b""] {
        let error = read_first(&connect_with(name, 4, 2, b"\0\x02d1")).unwrap_err();
        assert_eq!((error, error.answer()), (DecodeError::ProtocolName, None));
    }
}

#[test]
fn t206_connect_flags_that_contradict_each_other_are_refused() {
    let wrong = [
        0b0000_0001, // reserved
        0b0000_1000, // Will QoS without Will
        0b0001_0000,
        0b0010_0000, // Will RETAIN without Will
        0b0001_1100, // Will QoS 3
        0b0001_1000,
        0b0100_0000, // password without user name
        0b0100_0010,
    ];
    for flags in wrong {
        let refused = read_first(&connect_with(b"MQTT", 4, flags, b"\0\x02d1\0\x01t\0\x01p\0\x01u\0\x01p"));
        assert_eq!(refused, Err(DecodeError::ConnectFlags(flags)), "{flags:#010b}");
    }
}

#[test]
fn t206_every_allowed_flag_byte_is_read_with_its_fields() {
    for flags in 0..=u8::MAX {
        let Ok(parsed) = ConnectFlags::parse(flags) else { continue };
        let mut payload = b"\0\x02d1".to_vec();
        if parsed.will.is_some() {
            payload.extend(b"\0\x01t\0\x02pq");
        }
        if parsed.username {
            payload.extend(b"\0\x01u");
        }
        if parsed.password {
            payload.extend(b"\0\x01s");
        }
        let Ok(Some(Packet::Connect(connect))) = read_first(&connect_with(b"MQTT", 4, flags, &payload))
        else {
            panic!("{flags:#010b}");
        };
        assert_eq!(connect.clean_session, flags & 2 != 0);
        assert_eq!(connect.will.is_some(), flags & 4 != 0);
        assert_eq!(connect.username.is_some(), flags & 0x80 != 0);
        assert_eq!(connect.password.is_some(), flags & 0x40 != 0);
        payload.push(0);
        let surplus = read_first(&connect_with(b"MQTT", 4, flags, &payload));
        assert_eq!(surplus, Err(DecodeError::Surplus(1)));
    }
}

#[test]
fn t206_a_connect_whose_length_leaves_bytes_out_is_refused() {
    let whole = bytes_of(&samples()[0]);
    for length in 0..whole.len() - 2 {
        let mut cut = whole[..2 + length].to_vec();
        cut[1] = length as u8;
        assert!(read_first(&cut).is_err(), "cut to {length}");
    }
}

#[test]
fn t206_a_will_topic_that_is_no_topic_is_refused() {
    for topic in ["", "a/+", "#"] {
        let will = Will { topic: text(topic), ..connect().will.unwrap() };
        let packet = Packet::Connect(Box::new(Connect { will: Some(will), ..connect() }));
        assert!(read_first(&bytes_of(&packet)).is_err(), "{topic}");
    }
}

// [MQTT-3.1.3-8]
#[test]
fn t207_an_empty_client_id_is_answered_with_2() {
    for clean_session in [false, true] {
        let packet =
            Packet::Connect(Box::new(Connect { client_id: String::new(), clean_session, ..connect() }));
        let error = read_first(&bytes_of(&packet)).unwrap_err();
        assert_eq!(error, DecodeError::EmptyClientId);
        assert_eq!(error.answer(), Some(&[0x20, 2, 0, 2][..]));
    }
}

#[test]
fn t208_bad_text_is_refused_in_every_string_field() {
    let bad: [&[u8]; 8] = [
        b"a\0",
        b"\xc0\xaf",
        b"\xed\xa0\x80",
        b"\xff",
        b"\x01",
        b"\x7f",
        "\u{ffff}".as_bytes(),
        "\u{85}".as_bytes(),
    ];
    for bad in bad {
        let field = [&(bad.len() as u16).to_be_bytes()[..], bad].concat();
        let fields = |before: &[u8], after: &[u8]| [before, &field, after].concat();
        let connects = [
            connect_with(b"MQTT", 4, 2, &field),
            connect_with(b"MQTT", 4, 0b1000_0010, &fields(b"\0\x02d1", b"")),
            connect_with(b"MQTT", 4, 0b0000_0110, &fields(b"\0\x02d1", b"\0\0")),
            connect_with(bad, 4, 2, b"\0\x02d1"),
        ];
        for bytes in connects {
            assert!(matches!(read_first(&bytes), Err(DecodeError::Text(_))), "{bad:02x?} in {bytes:02x?}");
        }
        let framed = |first: u8, body: Vec<u8>| [&[first, body.len() as u8][..], &body].concat();
        let others = [
            framed(0x30, fields(b"", b"payload")),
            framed(0x32, fields(b"", b"\0\x01")),
            framed(0x82, fields(b"\0\x01", b"\x01")),
            framed(0xA2, fields(b"\0\x01", b"")),
        ];
        for bytes in others {
            assert!(matches!(read(&bytes), Err(DecodeError::Text(_))), "{bad:02x?} in {bytes:02x?}");
        }
    }
}

#[test]
fn t208_a_password_may_be_any_bytes() {
    let bytes = connect_with(b"MQTT", 4, 0b1100_0010, b"\0\x02d1\0\x01u\0\x02\xff\0");
    let Ok(Some(Packet::Connect(connect))) = read_first(&bytes) else { panic!("no CONNECT") };
    assert_eq!(connect.password.unwrap().as_str(), "\u{fffd}\0");
}

#[test]
fn t209_topics_that_nobody_can_publish_to_are_refused() {
    let framed =
        |topic: &str| [&[0x30, topic.len() as u8 + 2, 0, topic.len() as u8], topic.as_bytes()].concat();
    assert_eq!(read(&framed("")), Err(DecodeError::EmptyTopic));
    for topic in ["+", "#", "a/+/b", "a/#", "a+", "#a"] {
        assert_eq!(read(&framed(topic)), Err(DecodeError::TopicWildcard), "{topic}");
    }
}

#[test]
fn t209_the_longest_topic_and_many_levels_are_read_without_harm() {
    for topic in ["x".repeat(65_535), "/".repeat(20_000)] {
        let packet = Packet::Publish(Publish { topic: text(&topic), ..publish(QoS::AtLeastOnce) });
        assert_eq!(read(&bytes_of(&packet)), Ok(Some(packet)));
    }
}

// [MQTT-2.3.1-1]
#[test]
fn t210_packet_id_0_is_refused_wherever_one_is_needed() {
    let packets: [&[u8]; 8] = [
        &[0x32, 5, 0, 1, b'a', 0, 0],
        &[0x34, 5, 0, 1, b'a', 0, 0],
        &[0x40, 2, 0, 0],
        &[0x50, 2, 0, 0],
        &[0x62, 2, 0, 0],
        &[0x70, 2, 0, 0],
        &[0x82, 6, 0, 0, 0, 1, b'a', 0],
        &[0xA2, 5, 0, 0, 0, 1, b'a'],
    ];
    for bytes in packets {
        assert_eq!(read(bytes), Err(DecodeError::PacketIdZero), "{bytes:02x?}");
    }
}

/// The bytes of a PUBLISH up to and with its topic, for a payload of this size.
fn publish_head(payload: usize) -> Vec<u8> {
    let remaining = payload + 3;
    let mut head = vec![0x30];
    let mut rest = remaining;
    while rest > 0x7F {
        head.push((rest & 0x7F) as u8 | 0x80);
        rest >>= 7;
    }
    head.push(rest as u8);
    head.extend([0, 1, b'a']);
    head
}

#[test]
fn t215_a_payload_at_the_limit_is_read_and_one_byte_more_is_refused_before_it_comes() {
    let mut whole = publish_head(PAYLOAD_BYTES_MAX);
    assert_eq!(read(&whole), Ok(None));
    whole.resize(whole.len() + PAYLOAD_BYTES_MAX, b'x');
    let Ok(Some(Packet::Publish(publish))) = read(&whole) else { panic!("not read") };
    assert_eq!(publish.payload.len(), PAYLOAD_BYTES_MAX);
    let error = DecodeError::PayloadTooLarge { bytes: PAYLOAD_BYTES_MAX + 1, bytes_max: PAYLOAD_BYTES_MAX };
    assert_eq!(read(&publish_head(PAYLOAD_BYTES_MAX + 1)), Err(error));
}

#[test]
fn t215_a_packet_at_the_limit_is_read_and_one_byte_more_is_refused_at_its_length() {
    let topic = text(&"t".repeat(PACKET_BYTES_MAX - PAYLOAD_BYTES_MAX - 6));
    let payload = Bytes::from(vec![b'x'; PAYLOAD_BYTES_MAX]);
    let packet = Publish { topic, payload, ..publish(QoS::AtMostOnce) };
    let bytes = bytes_of(&Packet::Publish(packet.clone()));
    assert_eq!(bytes.len(), PACKET_BYTES_MAX);
    assert_eq!(read(&bytes), Ok(Some(Packet::Publish(packet.clone()))));
    let topic = text(&"t".repeat(packet.topic.len() + 1));
    let bytes = bytes_of(&Packet::Publish(Publish { topic, ..packet }));
    assert!(matches!(read(&bytes[..5]), Err(DecodeError::TooLarge { .. })));
}

#[test]
fn t215_a_topic_longer_than_its_packet_is_refused_at_once() {
    assert_eq!(read(&[0x30, 100, 0, 99]), Err(DecodeError::Missing));
    assert_eq!(read(&[0x32, 100, 0, 97]), Err(DecodeError::Missing));
    assert_eq!(read(&[0x32, 100, 0, 96]), Ok(None));
}

// [MQTT-3.8.3-3], [MQTT-3.10.3-2]
#[test]
fn t216_a_subscription_to_nothing_is_refused() {
    assert_eq!(read(&[0x82, 2, 0, 1]), Err(DecodeError::NoFilter));
    assert_eq!(read(&[0xA2, 2, 0, 1]), Err(DecodeError::NoFilter));
    assert_eq!(read(&[0x82, 5, 0, 1, 0, 0, 1]), Err(DecodeError::EmptyTopic));
    assert_eq!(read(&[0x82, 0]), Err(DecodeError::Missing));
}

#[test]
fn t216_a_filter_without_or_with_a_wrong_quality_is_refused() {
    assert_eq!(read(&[0x82, 5, 0, 1, 0, 1, b'a']), Err(DecodeError::Missing));
    for qos in [3, 4, 0x80, 0xFF] {
        assert_eq!(read(&[0x82, 6, 0, 1, 0, 1, b'a', qos]), Err(DecodeError::QoS));
    }
}

#[test]
fn t216_ten_thousand_filters_or_one_of_65_kb_are_refused_at_the_length() {
    for filters in
        [vec![(text("a"), QoS::AtLeastOnce); 10_000], vec![(text(&"x".repeat(65_535)), QoS::AtLeastOnce)]]
    {
        let bytes = bytes_of(&Packet::Subscribe(Subscribe { packet_id: 1, filters }));
        assert!(matches!(read(&bytes[..4]), Err(DecodeError::TooLarge { packet: "SUBSCRIBE", .. })));
    }
}

#[test]
fn t216_sixteen_filters_of_the_longest_kind_are_read() {
    let longest = format!("devices/{0}/modules/{0}/messages/devicebound/#", "x".repeat(128));
    let filters = vec![(text(&longest), QoS::AtLeastOnce); 16];
    let packet = Packet::Subscribe(Subscribe { packet_id: 1, filters });
    assert_eq!(read(&bytes_of(&packet)), Ok(Some(packet)));
}

#[test]
fn t217_packets_without_a_body_may_have_none() {
    for (byte, packet) in [(0xC0, "PINGREQ"), (0xE0, "DISCONNECT")] {
        assert_eq!(read(&[byte, 1, 0]), Err(DecodeError::WrongLength { packet, bytes: 1 }));
        assert_eq!(read(&[byte, 1]), Err(DecodeError::WrongLength { packet, bytes: 1 }));
    }
    for byte in [0x40, 0x50, 0x62, 0x70] {
        for length in [0, 1, 3, 127] {
            assert!(matches!(read(&[byte, length]), Err(DecodeError::WrongLength { .. })));
        }
    }
}

#[test]
fn what_a_server_may_not_answer_is_refused() {
    let read = |bytes: &[u8]| decode(&mut BytesMut::from(bytes), &later(), Side::Server);
    assert!(matches!(read(&[0x20, 2, 2, 0]), Err(DecodeError::Flags { .. })));
    assert_eq!(read(&[0x20, 2, 0, 6]), Err(DecodeError::Code(6)));
    assert_eq!(read(&[0x20, 2, 1, 5]), Err(DecodeError::Code(5)));
    assert_eq!(read(&[0x90, 3, 0, 1, 3]), Err(DecodeError::Code(3)));
    assert_eq!(read(&[0x90, 2, 0, 1]), Err(DecodeError::Missing));
    assert_eq!(read(&[0xB0, 2, 0, 0]), Err(DecodeError::PacketIdZero));
}

#[test]
fn t225_every_packet_cut_at_every_byte_waits_for_the_rest() {
    for packet in samples() {
        let (limits, from) = circumstances(&packet);
        let bytes = bytes_of(&packet);
        for cut in 0..bytes.len() {
            let mut buf = BytesMut::from(&bytes[..cut]);
            assert_eq!(decode(&mut buf, &limits, from), Ok(None), "{} at {cut}", packet.name());
            assert_eq!(buf, bytes[..cut]);
        }
    }
}

#[test]
fn t225_every_packet_with_every_bit_flipped_is_read_or_refused() {
    for packet in samples() {
        for limits in [first(), later()] {
            for from in [Side::Client, Side::Server] {
                let bytes = bytes_of(&packet);
                for bit in 0..bytes.len() * 8 {
                    let mut flipped = bytes.clone();
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    check_that_decoding_ends(&flipped, &limits, from);
                }
            }
        }
    }
}

/// Every step takes bytes, asks for more or is the last; what is read can be written and read again.
fn check_that_decoding_ends(bytes: &[u8], limits: &PacketLimits, from: Side) {
    let mut buf = BytesMut::from(bytes);
    loop {
        let before = buf.len();
        match decode(&mut buf, limits, from) {
            Ok(Some(packet)) => {
                assert!(buf.len() < before);
                let mut again = BytesMut::from(&bytes_of(&packet)[..]);
                // A password that was no UTF-8 is written as what it became.
                if !matches!(packet, Packet::Connect(_)) {
                    assert_eq!(decode(&mut again, limits, from), Ok(Some(packet)));
                }
            }
            Ok(None) => {
                assert_eq!(buf.len(), before);
                return;
            }
            Err(_) => return,
        }
    }
}

/// What a stream of packets is read as, when it comes in pieces of this size.
fn read_in_pieces(stream: &[u8], piece: usize) -> Vec<Packet> {
    let mut buf = BytesMut::new();
    let mut packets = Vec::new();
    for bytes in stream.chunks(piece) {
        buf.extend_from_slice(bytes);
        while let Some(packet) = decode(&mut buf, &later(), Side::Client).unwrap() {
            packets.push(packet);
        }
    }
    assert!(buf.is_empty());
    packets
}

#[test]
fn t226_the_same_stream_in_any_pieces_is_the_same_packets() {
    let packets: Vec<Packet> =
        samples().into_iter().filter(|packet| circumstances(packet) == (later(), Side::Client)).collect();
    let packets: Vec<Packet> = packets.iter().cycle().take(1000).cloned().collect();
    let stream = packets.iter().flat_map(bytes_of).collect::<Vec<u8>>();
    for piece in [1, 2, 3, 7, 1000, stream.len()] {
        assert_eq!(read_in_pieces(&stream, piece), packets, "pieces of {piece}");
    }
}

fn any_text(bytes_min: usize) -> impl Strategy<Value = Utf8Bytes> {
    let range = if bytes_min == 0 { "[ -~ä€😀]{0,300}" } else { "[ -~ä€😀]{1,300}" };
    range.prop_map(|string| text(&string))
}

fn any_topic() -> impl Strategy<Value = Utf8Bytes> {
    "[^+#\\p{C}]{1,200}"
        .prop_filter("noncharacter", |string| Utf8Bytes::parse(string.clone()).is_ok())
        .prop_map(|s| text(&s))
}

fn any_qos() -> impl Strategy<Value = QoS> {
    prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce), Just(QoS::ExactlyOnce)]
}

fn any_payload() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20_000).prop_map(Bytes::from)
}

fn any_will() -> impl Strategy<Value = Will> {
    let payload = prop::collection::vec(any::<u8>(), 0..500).prop_map(Bytes::from);
    (any_topic(), payload, any_qos(), any::<bool>()).prop_map(|(topic, payload, qos, retain)| Will {
        topic,
        payload,
        qos,
        retain,
    })
}

fn any_connect() -> impl Strategy<Value = Packet> {
    let login = prop::option::of((any_text(0), prop::option::of(any_text(0))));
    (any_text(1), any::<bool>(), any::<u16>(), login, prop::option::of(any_will())).prop_map(
        |(client_id, clean_session, keep_alive, login, will)| {
            let username = login.as_ref().map(|(name, _)| name.to_string());
            let password = login.and_then(|(_, word)| word).map(|word| Password::from_bytes(word.as_bytes()));
            let client_id = client_id.to_string();
            Packet::Connect(Box::new(Connect {
                client_id,
                clean_session,
                keep_alive,
                username,
                password,
                will,
            }))
        },
    )
}

fn any_publish() -> impl Strategy<Value = Packet> {
    (any::<bool>(), any_qos(), any::<bool>(), any_topic(), 1..=u16::MAX, any_payload()).prop_map(
        |(dup, qos, retain, topic, packet_id, payload)| {
            let has_id = qos != QoS::AtMostOnce;
            let packet_id = has_id.then_some(packet_id);
            Packet::Publish(Publish { dup: dup && has_id, qos, retain, topic, packet_id, payload })
        },
    )
}

fn any_packet() -> impl Strategy<Value = Packet> {
    let id = || 1..=u16::MAX;
    let codes = prop::collection::vec(prop_oneof![Just(0u8), Just(1), Just(2), Just(0x80)], 1..20);
    prop_oneof![
        3 => any_connect(),
        3 => any_publish(),
        1 => (any::<bool>(), 0..6u8).prop_map(|(present, code)| {
            let code = ConnectReturnCode::parse(code).unwrap();
            Packet::ConnAck { session_present: present && code == ConnectReturnCode::Accepted, code }
        }),
        1 => prop_oneof![
            id().prop_map(Packet::PubAck),
            id().prop_map(Packet::PubRec),
            id().prop_map(Packet::PubRel),
            id().prop_map(Packet::PubComp),
            id().prop_map(Packet::UnsubAck),
        ],
        2 => (id(), prop::collection::vec((any_text(1), any_qos()), 1..16))
            .prop_map(|(packet_id, filters)| Packet::Subscribe(Subscribe { packet_id, filters })),
        1 => (id(), prop::collection::vec(any_text(1), 1..16))
            .prop_map(|(packet_id, filters)| Packet::Unsubscribe(Unsubscribe { packet_id, filters })),
        1 => (id(), codes).prop_map(|(packet_id, codes)| Packet::SubAck { packet_id, codes }),
    ]
}

proptest! {
    #[test]
    fn any_packet_comes_back(packet in any_packet(), behind in prop::collection::vec(any::<u8>(), 0..8)) {
        let (limits, from) = circumstances(&packet);
        let mut buf = BytesMut::new();
        encode(&packet, &mut buf);
        prop_assume!(buf.len() <= 8 * 1024 || matches!(packet, Packet::Publish(_) | Packet::Connect(_)));
        buf.extend_from_slice(&behind);
        prop_assert_eq!(decode(&mut buf, &limits, from), Ok(Some(packet)));
        prop_assert_eq!(&buf[..], &behind[..]);
    }

    #[test]
    fn t225_no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..16u8) {
        check_that_decoding_ends(&bytes, &later(), Side::Client);
        let mut typed = vec![kind << 4 | if matches!(kind, 6 | 8 | 10) { 2 } else { 0 }, bytes.len() as u8 & 0x7F];
        typed.extend(&bytes);
        for limits in [first(), later()] {
            for from in [Side::Client, Side::Server] {
                check_that_decoding_ends(&typed, &limits, from);
            }
        }
    }

    #[test]
    fn t225_any_packet_with_any_bit_flipped_is_read_or_refused(packet in any_packet(), bit in any::<prop::sample::Index>()) {
        let (limits, from) = circumstances(&packet);
        let mut bytes = bytes_of(&packet);
        let bit = bit.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        check_that_decoding_ends(&bytes, &limits, from);
    }
}
