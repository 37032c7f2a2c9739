//! A session without its socket. Telemetry is one packet in, one topic parsed and one PUBACK out. A cloud-to-device
//! message is one topic written, one PUBLISH out and one PUBACK in.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use criterion::{Criterion, criterion_group, criterion_main};
use jiff::Timestamp;
use portcullis::hub::clock::Moment;
use portcullis::iothub::topic::{self, Role};
use portcullis::mqtt::packet::{Packet, Publish, QoS, Subscribe, Utf8Bytes};
use portcullis::mqtt::session::core::{Action, DeviceTask, Opening, SessionCore, SessionLimits};
use portcullis_registry::access::Access;
use portcullis_registry::id::{DeviceId, GenerationId, IdentityId};
use portcullis_registry::message::{Ack, C2dMessage};
use portcullis_registry::policy::Rights;
use portcullis_registry::queue::Lease;

#[path = "support/counted.rs"]
mod counted;

fn text(text: &str) -> Utf8Bytes {
    Utf8Bytes::parse(text.to_owned()).expect("a text of MQTT")
}

fn id() -> IdentityId {
    IdentityId::device(DeviceId::parse("pump-7").expect("an id"))
}

fn now() -> Moment {
    Moment { monotonic: Instant::now(), wall: Timestamp::from_second(1_800_000_000).expect("a time") }
}

/// A session with a subscription, whose SUBACK has been taken.
fn subscribed(role: Role, filter: &str, now: Moment) -> SessionCore {
    let opening = Opening {
        role,
        access: Access::EVERYTHING,
        clean_session: true,
        keep_alive: 60,
        restored: None,
        expires: None,
        will: false,
    };
    let limits = SessionLimits {
        in_flight_max: 16,
        filters_per_connection_max: 16,
        keep_alive_max: Duration::from_secs(1177),
        message_rate: None,
    };
    let mut core = SessionCore::new(opening, limits, now);
    let filters = vec![(text(filter), QoS::AtLeastOnce)];
    core.on_packet(Packet::Subscribe(Subscribe { packet_id: 1, filters }), now).expect("a good packet");
    assert!(matches!(core.next_action(), Some(Action::Send(Packet::SubAck { .. }))));
    core
}

fn lease() -> Lease {
    let message = C2dMessage {
        number: 7,
        generation: GenerationId::new(1),
        enqueued: now().wall,
        expiry: now().wall + Duration::from_secs(3600),
        message_id: "7c2e6a9e-2f0c-4d53-9f46-0a7e6cf1b7aa".into(),
        correlation_id: None,
        user_id: None,
        content_type: None,
        content_encoding: None,
        to: None,
        ack: Ack::None,
        properties: vec![("valve".into(), "3".into())],
        body: Bytes::from(vec![b'x'; 100]),
    };
    Lease { message: Arc::new(message), is_repeat: false }
}

fn session(c: &mut Criterion<counted::CpuTime>) {
    let now = now();
    let mut group = c.benchmark_group("session");

    let mut device = subscribed(Role::Device(id()), "devices/pump-7/messages/devicebound/#", now);
    let telemetry = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: text("devices/pump-7/messages/events/%24.ct=application%2Fjson&level=warning"),
        packet_id: Some(7),
        payload: Bytes::from(vec![b'x'; 100]),
    });
    counted::bench(&mut group, "telemetry up", || {
        device.on_packet(black_box(&telemetry).clone(), now).expect("a good packet");
        let Some(Action::Device(DeviceTask::Ingest { packet_id, .. })) = device.next_action() else {
            panic!("not taken")
        };
        device.ingested(packet_id);
        device.next_action().expect("a PUBACK")
    });

    let message = lease();
    counted::bench(&mut group, "topic of a message", || topic::c2d_topic(&id(), black_box(&message.message)));
    counted::bench(&mut group, "message down and its PUBACK", || {
        device.on_message(black_box(&message));
        let sent = device.next_action();
        device.on_packet(Packet::PubAck(7), now).expect("a good packet");
        assert_eq!(device.next_action(), Some(Action::Device(DeviceTask::Complete(7))));
        sent
    });

    let mut service = subscribed(Role::Service(Rights::ALL), "devices/+/messages/events/#", now);
    let payload = Bytes::from(vec![b'x'; 100]);
    let mut packet_id = 0;
    counted::bench(&mut group, "telemetry to a service and its PUBACK", || {
        let topic = black_box("devices/pump-7/messages/events/level=warning").to_owned();
        service.on_event(topic, payload.clone());
        let sent = service.next_action();
        packet_id = if packet_id == u16::MAX { 1 } else { packet_id + 1 };
        service.on_packet(Packet::PubAck(packet_id), now).expect("a good packet");
        sent
    });
    group.finish();
}

criterion_group!(name = benches; config = counted::criterion(); targets = session);
criterion_main!(benches);
