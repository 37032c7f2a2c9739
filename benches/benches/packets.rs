//! Packets and their contents. Parsing a packet reads its header once and each text in it once. A PUBLISH shares the
//! buffer it arrived in. The floor of both directions is to copy the bytes.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::iothub::property_bag::PropertyBag;
use portcullis::iothub::topic::{self, Role};
use portcullis::mqtt::codec::{self, PacketLimits, Side};
use portcullis::mqtt::connect::parse_claim;
use portcullis::mqtt::packet::{Connect, Packet, Password, Publish, QoS, Utf8Bytes};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::sas;

#[path = "support/counted.rs"]
mod counted;

const HOST: &str = "hub.example.test";
const BAG: &str = "%24.ct=application%2Fjson&%24.ce=utf-8&level=warning";
const USER_NAME: &str = "hub.example.test/pump-7/?api-version=2021-04-12&DeviceClientType=azure-iot-device%2F2.14.0%20%28python%29";

fn publish() -> Packet {
    let topic = format!("devices/pump-7/messages/events/{BAG}");
    Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: Utf8Bytes::parse(topic).expect("a topic"),
        packet_id: Some(7),
        payload: Bytes::from(vec![b'x'; 100]),
    })
}

fn connect() -> Packet {
    let token = sas::sign(&format!("{HOST}/devices/pump-7"), &SymmetricKey::generate(), 1_800_003_600, None);
    Packet::Connect(Box::new(Connect {
        client_id: "pump-7".into(),
        clean_session: false,
        keep_alive: 60,
        username: Some(USER_NAME.into()),
        password: Some(Password::from_bytes(token.as_bytes())),
        will: None,
    }))
}

fn encoded(packet: &Packet) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(packet, &mut bytes);
    bytes
}

fn packets(c: &mut Criterion<counted::CpuTime>) {
    let first = PacketLimits::before_connect(8 * 1024);
    let later = PacketLimits::after_connect(1 << 18, 1 << 18);
    let read = |bytes: &[u8], limits: &PacketLimits| {
        // Into a buffer of the connection, as from a network.
        let mut input = BytesMut::new();
        input.extend_from_slice(black_box(bytes));
        codec::decode(&mut input, limits, Side::Client).expect("a good packet").expect("all of it")
    };
    let mut group = c.benchmark_group("packets");
    let bytes = encoded(&publish());
    counted::bench(&mut group, "copy the bytes of a PUBLISH", || BytesMut::from(black_box(&bytes[..])));
    counted::bench(&mut group, "PUBLISH in", || read(&bytes, &later));
    let packet = publish();
    counted::bench(&mut group, "PUBLISH out", || encoded(black_box(&packet)));
    let bytes = encoded(&Packet::PubAck(7));
    counted::bench(&mut group, "PUBACK in", || read(&bytes, &later));
    counted::bench(&mut group, "PUBACK out", || encoded(&Packet::PubAck(black_box(7))));
    let bytes = encoded(&connect());
    counted::bench(&mut group, "copy the bytes of a CONNECT", || BytesMut::from(black_box(&bytes[..])));
    counted::bench(&mut group, "CONNECT in", || read(&bytes, &first));
    group.finish();
}

fn texts(c: &mut Criterion<counted::CpuTime>) {
    let role = Role::Device(IdentityId::device(DeviceId::parse("pump-7").expect("an id")));
    let telemetry = format!("devices/pump-7/messages/events/{BAG}");
    let filter = "devices/pump-7/messages/devicebound/#";
    let mut group = c.benchmark_group("texts");
    counted::bench(&mut group, "claim of a CONNECT", || {
        parse_claim(black_box("pump-7"), black_box(USER_NAME)).expect("a good claim")
    });
    counted::bench(&mut group, "topic of telemetry", || {
        assert!(topic::parse_publish(&role, black_box(&telemetry)).is_ok());
    });
    counted::bench(&mut group, "filter", || topic::parse_filter(&role, black_box(filter)).expect("a filter"));
    counted::bench(&mut group, "properties in, 3 of them", || {
        PropertyBag::parse(black_box(BAG)).expect("a bag")
    });
    let bag = PropertyBag::parse(BAG).expect("a bag");
    counted::bench(&mut group, "properties out, 3 of them", || black_box(&bag).encode());
    group.finish();
}

criterion_group!(name = benches; config = counted::criterion(); targets = packets, texts);
criterion_main!(benches);
