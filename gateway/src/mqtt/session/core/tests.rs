use std::collections::BTreeSet;
use std::sync::Arc;

use portcullis_registry::id::{DeviceId, GenerationId, IdentityId, ModuleId};
use portcullis_registry::message::{Ack, C2dMessage};
use proptest::prelude::*;

use super::allowance::{AT_ONCE, ONE};
use super::in_flight::packet_id_of;
use portcullis_registry::policy::Rights;

use super::*;

mod access;
mod rate;

const C2D: &str = "devices/d1/messages/devicebound/#";
const EVENTS: &str = "devices/d1/messages/events/";

/// A session under test, with a clock that moves when told.
struct Bench {
    core: SessionCore,
    now: Moment,
}

fn limits() -> SessionLimits {
    SessionLimits {
        in_flight_max: 16,
        filters_per_connection_max: 16,
        keep_alive_max: Duration::from_secs(1177),
        message_rate: None,
    }
}

fn start() -> Moment {
    Moment { monotonic: Instant::now(), wall: "2024-05-01T08:00:00Z".parse().unwrap() }
}

fn device() -> Opening {
    let id = IdentityId::device(DeviceId::parse("d1").unwrap());
    Opening {
        role: Role::Device(id),
        access: Access::EVERYTHING,
        clean_session: false,
        keep_alive: 60,
        restored: None,
        expires: None,
        will: true,
    }
}

fn module() -> Opening {
    let id = IdentityId::module(DeviceId::parse("d1").unwrap(), ModuleId::parse("m1").unwrap());
    Opening { role: Role::Device(id), ..device() }
}

fn service() -> Opening {
    Opening { role: Role::Service(Rights::ALL), clean_session: true, will: false, ..device() }
}

fn text(text: &str) -> Utf8Bytes {
    Utf8Bytes::parse(text.to_owned()).unwrap()
}

fn subscribe(packet_id: u16, filters: &[(&str, QoS)]) -> Packet {
    Packet::Subscribe(Subscribe {
        packet_id,
        filters: filters.iter().map(|(filter, qos)| (text(filter), *qos)).collect(),
    })
}

fn unsubscribe(packet_id: u16, filters: &[&str]) -> Packet {
    Packet::Unsubscribe(Unsubscribe {
        packet_id,
        filters: filters.iter().map(|filter| text(filter)).collect(),
    })
}

fn publish(topic: &str, packet_id: Option<u16>) -> Packet {
    let qos = if packet_id.is_some() { QoS::AtLeastOnce } else { QoS::AtMostOnce };
    let payload = Bytes::from_static(b"21.5");
    Packet::Publish(Publish { dup: false, qos, retain: false, topic: text(topic), packet_id, payload })
}

fn ingest(packet_id: Option<u16>, bag: &str) -> Action {
    let payload = Bytes::from_static(b"21.5");
    Action::Device(DeviceTask::Ingest { packet_id, bag: bag.into(), payload, retain: false })
}

fn suback(packet_id: u16, codes: &[u8]) -> Action {
    Action::Send(Packet::SubAck { packet_id, codes: codes.to_vec() })
}

fn puback(packet_id: u16) -> Action {
    Action::Send(Packet::PubAck(packet_id))
}

fn complete(number: u64) -> Action {
    Action::Device(DeviceTask::Complete(number))
}

fn save(subscriptions: Option<Vec<u8>>) -> Action {
    Action::Device(DeviceTask::SaveSubscriptions(subscriptions))
}

fn unknown_ack() -> Action {
    Action::Report(Incident::UnknownAck)
}

fn closed(reason: CloseReason, send_will: bool) -> Action {
    Action::Close { reason, send_will }
}

fn lease(number: u64, delivery_count: u32) -> Lease {
    let message = C2dMessage {
        number,
        generation: GenerationId::new(1),
        enqueued: "2024-05-01T08:00:00Z".parse().unwrap(),
        expiry: "2024-05-01T09:00:00Z".parse().unwrap(),
        message_id: format!("m-{number}"),
        correlation_id: None,
        user_id: None,
        content_type: None,
        content_encoding: None,
        to: None,
        ack: Ack::None,
        properties: Vec::new(),
        body: Bytes::from(number.to_string()),
    };
    Lease { message: Arc::new(message), is_repeat: delivery_count > 1 }
}

impl Bench {
    fn new(opening: Opening) -> Self {
        let now = start();
        Self { core: SessionCore::new(opening, limits(), now), now }
    }

    /// A device that subscribed to its messages at this quality, its answers taken.
    fn subscribed(qos: QoS) -> Self {
        let mut bench = Self::new(device());
        bench.packet(subscribe(1, &[(C2D, qos)])).unwrap();
        bench.core.subscriptions_saved();
        bench.actions();
        bench
    }

    fn packet(&mut self, packet: Packet) -> Result<(), SessionError> {
        self.core.on_packet(packet, self.now)
    }

    /// Feeds a packet that is allowed and takes what it leads to.
    fn exchange(&mut self, packet: Packet) -> Vec<Action> {
        self.packet(packet).unwrap();
        self.actions()
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.core.next_action()).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.now.wall = self.now.wall.checked_add(time).unwrap();
    }

    /// Sends a message to the peer; what the peer sees of it.
    fn deliver(&mut self, number: u64, delivery_count: u32) -> Vec<Publish> {
        self.core.on_message(&lease(number, delivery_count));
        published(&self.actions())
    }
}

fn published(actions: &[Action]) -> Vec<Publish> {
    let publish = |action: &Action| match action {
        Action::Send(Packet::Publish(publish)) => Some(publish.clone()),
        _ => None,
    };
    actions.iter().filter_map(publish).collect()
}

#[test]
fn telemetry_is_acknowledged_once_the_bus_has_it() {
    let mut bench = Bench::new(device());
    let topic = format!("{EVENTS}a=b");
    assert_eq!(bench.exchange(publish(&topic, Some(7))), [ingest(Some(7), "a=b")]);
    bench.core.ingested(Some(7));
    assert_eq!(bench.actions(), [puback(7)]);
    assert_eq!(bench.exchange(publish(&topic, None)), [ingest(None, "a=b")]);
    bench.core.ingested(None);
    assert_eq!(bench.actions(), []);
}

// [MQTT-4.6.0-2]
#[test]
fn acknowledgements_go_out_in_the_order_of_the_publishes() {
    let mut bench = Bench::new(device());
    bench.exchange(publish(EVENTS, Some(1)));
    bench.exchange(publish("$iothub/methods/res/200/?$rid=1", Some(2)));
    bench.exchange(publish(EVENTS, Some(3)));
    bench.core.ingested(Some(3));
    assert_eq!(bench.actions(), []);
    bench.core.ingested(Some(1));
    assert_eq!(bench.actions(), [puback(1), puback(2), puback(3)]);
}

// [MQTT-3.1.0-2]
#[test]
fn t203_a_second_connect_and_a_servers_packets_are_refused() {
    let connect = crate::mqtt::packet::Connect {
        client_id: "d1".into(),
        clean_session: true,
        keep_alive: 0,
        username: None,
        password: None,
        will: None,
    };
    let packets = [
        Packet::Connect(Box::new(connect)),
        Packet::ConnAck { session_present: false, code: crate::mqtt::packet::ConnectReturnCode::Accepted },
        Packet::SubAck { packet_id: 1, codes: vec![0] },
        Packet::UnsubAck(1),
        Packet::PingResp,
    ];
    for packet in packets {
        let name = packet.name();
        assert_eq!(Bench::new(device()).packet(packet), Err(SessionError::UnexpectedPacket(name)));
    }
}

#[test]
fn t209_a_topic_of_any_length_or_depth_is_refused() {
    for topic in ["x".repeat(65_535), "/".repeat(20_000), format!("{EVENTS}{}", "/".repeat(20_000))] {
        let error = Bench::new(device()).packet(publish(&topic, Some(1))).unwrap_err();
        assert!(matches!(error, SessionError::Topic(_)));
        assert!(error.to_string().len() < 1000);
    }
}

#[test]
fn t210_an_id_still_in_flight_is_a_repeat_and_a_finished_one_is_new() {
    let mut bench = Bench::new(device());
    assert_eq!(bench.exchange(publish(EVENTS, Some(7))).len(), 1);
    for _ in 0..1000 {
        assert_eq!(bench.exchange(publish(EVENTS, Some(7))), []);
    }
    bench.core.ingested(Some(7));
    assert_eq!(bench.actions(), [puback(7)]);
    assert_eq!(bench.exchange(publish(EVENTS, Some(7))), [ingest(Some(7), "")]);
}

#[test]
fn t211_an_ack_of_nothing_completes_nothing_and_is_counted() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    bench.deliver(1, 1);
    bench.deliver(2, 1);
    assert_eq!(bench.exchange(Packet::PubAck(2)), [complete(2)]);
    for unknown in [2, 3, 65_535] {
        assert_eq!(bench.exchange(Packet::PubAck(unknown)), [unknown_ack()]);
    }
    assert_eq!(bench.exchange(Packet::PubAck(1)), [complete(1)]);
}

#[test]
fn t211_the_ack_of_a_message_sent_at_qos_0_completes_nothing() {
    let mut bench = Bench::subscribed(QoS::AtMostOnce);
    bench.deliver(1, 1);
    assert_eq!(bench.exchange(Packet::PubAck(1)), [unknown_ack()]);
}

#[test]
fn t212_acks_of_qos_2_out_of_the_blue_are_ignored_until_they_are_a_flood() {
    for packet in [Packet::PubRec(1), Packet::PubRel(1), Packet::PubComp(1)] {
        let mut bench = Bench::new(device());
        let outcomes: Vec<_> = (0..100_000).map(|_| bench.packet(packet.clone())).collect();
        assert_eq!(outcomes[0], Ok(()));
        assert_eq!(outcomes.last(), Some(&Err(SessionError::Flood)));
        assert_eq!(bench.actions(), vec![unknown_ack(); 100_000]);
    }
}

#[test]
fn t213_a_publish_at_qos_2_closes_and_reaches_nobody() {
    let mut bench = Bench::new(device());
    let Packet::Publish(publish) = publish(EVENTS, Some(1)) else { unreachable!() };
    let outcome = bench.packet(Packet::Publish(Publish { qos: QoS::ExactlyOnce, ..publish }));
    assert_eq!(outcome, Err(SessionError::QoS2));
    assert_eq!(bench.actions(), []);
}

#[test]
fn t213_a_subscription_at_qos_2_is_granted_1() {
    let mut bench = Bench::new(device());
    bench.exchange(subscribe(1, &[(C2D, QoS::ExactlyOnce)]));
    bench.core.subscriptions_saved();
    assert_eq!(bench.actions(), [suback(1, &[1])]);
    assert_eq!(bench.deliver(1, 1)[0].qos, QoS::AtLeastOnce);
}

#[test]
fn t214_retain_is_passed_on_and_nothing_is_ever_sent_with_it() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let Packet::Publish(publish) = publish(EVENTS, None) else { unreachable!() };
    let actions = bench.exchange(Packet::Publish(Publish { retain: true, ..publish }));
    assert!(matches!(actions[..], [Action::Device(DeviceTask::Ingest { retain: true, .. })]));
    assert!(!bench.deliver(1, 1)[0].retain);
}

#[test]
fn t216_seventeen_filters_close_and_sixteen_are_answered_one_by_one() {
    let mut bench = Bench::new(device());
    let error = SessionError::TooManyFilters { count: 17, count_max: 16 };
    assert_eq!(bench.packet(subscribe(1, &[(C2D, QoS::AtLeastOnce); 17])), Err(error.clone()));
    assert_eq!(bench.packet(unsubscribe(1, &[C2D; 17])), Err(error));
    let mut filters = [("devices/d2/messages/devicebound/#", QoS::AtLeastOnce); 16];
    filters[3] = (C2D, QoS::AtLeastOnce);
    bench.exchange(subscribe(2, &filters));
    bench.core.subscriptions_saved();
    let mut codes = [0x80; 16];
    codes[3] = 1;
    assert_eq!(bench.actions(), [suback(2, &codes)]);
}

#[test]
fn t216_the_same_subscription_over_and_over_is_one_and_then_a_flood() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let stored = bench.core.subscriptions.clone();
    let mut answered = 0;
    for _ in 0..20_000 {
        if bench.packet(subscribe(2, &[(C2D, QoS::AtLeastOnce)])).is_ok() {
            assert_eq!(bench.actions(), [suback(2, &[1])]);
            answered += 1;
        }
    }
    assert!((1000..3000).contains(&answered), "{answered}");
    assert_eq!(bench.core.subscriptions, stored);
    assert_eq!(bench.actions(), []);
}

#[test]
fn t216_a_service_has_as_many_filters_as_are_allowed_and_no_more() {
    let mut bench = Bench::new(service());
    for number in 0..20u8 {
        let filter = format!("devices/d{number}/messages/events/#");
        let code = if number < 16 { 1 } else { 0x80 };
        assert_eq!(bench.exchange(subscribe(1, &[(&filter, QoS::AtLeastOnce)])), [suback(1, &[code])]);
    }
    assert_eq!(bench.core.event_filters().len(), 16);
    bench.exchange(unsubscribe(2, &["devices/d0/messages/events/#"]));
    let filter = ("devices/d19/messages/events/#", QoS::AtLeastOnce);
    assert_eq!(bench.exchange(subscribe(3, &[filter])), [suback(3, &[1])]);
}

#[test]
fn t217_pings_are_answered_until_they_are_a_flood() {
    let mut bench = Bench::new(device());
    for _ in 0..1000 {
        assert_eq!(bench.exchange(Packet::PingReq), [Action::Send(Packet::PingResp)]);
    }
    assert!((0..100_000).any(|_| bench.packet(Packet::PingReq) == Err(SessionError::Flood)));
}

#[test]
fn t217_what_comes_after_disconnect_is_ignored_and_there_is_no_will() {
    let mut bench = Bench::new(device());
    bench.packet(publish(EVENTS, Some(1))).unwrap();
    bench.packet(Packet::Disconnect).unwrap();
    bench.packet(publish(EVENTS, Some(2))).unwrap();
    bench.packet(publish("foreign", Some(3))).unwrap();
    bench.packet(Packet::PingReq).unwrap();
    bench.core.on_message(&lease(1, 1));
    bench.core.close(CloseReason::ConnectionLost);
    assert_eq!(bench.actions(), [ingest(Some(1), ""), closed(CloseReason::ClientDisconnected, false)]);
    bench.core.ingested(Some(1));
    assert_eq!(bench.actions(), []);
}

#[test]
fn t228_a_subscriber_that_never_acks_gets_16_and_then_none() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let mut sent = 0;
    while bench.core.wants_message() {
        sent += 1;
        assert_eq!(bench.deliver(sent, 1).len(), 1);
    }
    assert_eq!(sent, 16);
    bench.exchange(Packet::PubAck(9));
    assert!(bench.core.wants_message());
}

#[test]
fn t228_what_was_not_acked_comes_again_with_dup_and_its_id() {
    let first = Bench::subscribed(QoS::AtLeastOnce).deliver(70_000, 1).remove(0);
    let again = Bench::subscribed(QoS::AtLeastOnce).deliver(70_000, 2).remove(0);
    assert_eq!((first.dup, again.dup), (false, true));
    assert_eq!(first.packet_id, again.packet_id);
    assert_eq!(first.packet_id, Some(4465));
}

// [MQTT-3.3.1-2]
#[test]
fn a_message_at_qos_0_is_complete_once_sent_and_never_dup() {
    let mut bench = Bench::subscribed(QoS::AtMostOnce);
    bench.core.on_message(&lease(5, 3));
    let actions = bench.actions();
    let [Action::Send(Packet::Publish(publish)), Action::Device(DeviceTask::CompleteOnceSent(5))] =
        &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!((publish.dup, publish.qos, publish.packet_id), (false, QoS::AtMostOnce, None));
    assert!(bench.core.wants_message());
}

#[test]
fn a_message_at_qos_0_that_may_not_have_been_sent_is_not_complete() {
    for reason in [CloseReason::Disabled, CloseReason::SlowReader, CloseReason::TakenOver] {
        let mut bench = Bench::subscribed(QoS::AtMostOnce);
        bench.core.on_message(&lease(5, 1));
        bench.core.close(reason.clone());
        let completes = bench
            .actions()
            .into_iter()
            .filter(|action| matches!(action, Action::Device(_) | Action::Service(_)));
        assert_eq!(completes.count(), 0, "{reason:?}");
    }
}

#[test]
fn feedback_goes_to_whoever_subscribed_and_is_completed_by_its_ack() {
    let token = |number: u32| {
        portcullis_registry::lock::LockToken::parse(&format!("{number:08x}-0000-0000-0000-000000000000"))
            .unwrap()
    };
    let mut bench = Bench::new(service());
    assert!(!bench.core.wants_feedback());
    bench.core.on_feedback(token(0), Bytes::new());
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.exchange(subscribe(1, &[("$admin/feedback", QoS::ExactlyOnce)])), [suback(1, &[1])]);
    // Sixteen batches and no more, however wide the window for telemetry.
    for number in 1..=16 {
        assert!(bench.core.wants_feedback());
        bench.core.on_feedback(token(number), Bytes::from("[]"));
        let [publish] = &published(&bench.actions())[..] else { panic!() };
        assert_eq!((&*publish.topic, publish.packet_id), ("$admin/feedback", Some(number as u16)));
    }
    assert!(!bench.core.wants_feedback() && bench.core.wants_event());
    assert_eq!(bench.exchange(Packet::PubAck(3)), [Action::Service(ServiceTask::CompleteFeedback(token(3)))]);
    assert_eq!(bench.exchange(Packet::PubAck(3)), [unknown_ack()]);
    assert!(bench.core.wants_feedback());

    let mut device = Bench::new(device());
    assert_eq!(device.exchange(subscribe(1, &[("$admin/feedback", QoS::AtLeastOnce)])), [suback(1, &[0x80])]);
    device.core.on_feedback(token(1), Bytes::new());
    assert_eq!(device.actions(), []);
}

#[test]
fn packet_ids_go_round_and_never_meet() {
    assert_eq!(packet_id_of(1), 1);
    assert_eq!(packet_id_of(65_535), 65_535);
    assert_eq!(packet_id_of(65_536), 1);
    assert_eq!(packet_id_of(131_070), 65_535);
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let ids = [1, 2, 65_536, 65_537].map(|number| bench.deliver(number, 1)[0].packet_id.unwrap());
    assert_eq!(ids, [1, 2, 3, 4]);
    assert_eq!(bench.exchange(Packet::PubAck(3)), [complete(65_536)]);
    assert_eq!(bench.exchange(Packet::PubAck(1)), [complete(1)]);
}

#[test]
fn t508_a_message_whose_properties_fit_no_topic_is_rejected_and_not_sent() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let mut message = (*lease(1, 1).message).clone();
    message.properties = vec![("a".into(), "😀".repeat(15_000))];
    bench.core.on_message(&Lease { message: Arc::new(message), is_repeat: false });
    assert_eq!(bench.actions(), [Action::Device(DeviceTask::Reject(1))]);
    assert_eq!(bench.deliver(2, 1).len(), 1);
}

// [MQTT-3.1.2-24]
#[test]
fn t229_silence_of_one_and_a_half_keep_alives_ends_the_session_with_its_will() {
    let mut bench = Bench::new(device());
    bench.pass(Duration::from_secs(89));
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), []);
    bench.pass(Duration::from_secs(1));
    assert!(bench.core.deadline() <= bench.now.monotonic);
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), [closed(CloseReason::KeepAliveMissed, true)]);
}

#[test]
fn t229_any_packet_counts_against_silence() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    let packets =
        [Packet::PingReq, publish(EVENTS, None), Packet::PubAck(9), subscribe(1, &[("x", QoS::AtMostOnce)])];
    for packet in packets {
        bench.pass(Duration::from_secs(80));
        bench.exchange(packet);
        assert_eq!(bench.core.deadline(), bench.now.monotonic + Duration::from_secs(90));
    }
    bench.pass(Duration::from_secs(80));
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), []);
}

#[test]
fn t229_no_keep_alive_and_a_huge_one_are_the_maximum() {
    for (asked, seconds) in
        [(0, 1765.5), (u16::MAX, 1765.5), (1178, 1765.5), (1177, 1765.5), (1, 1.5), (60, 90.0)]
    {
        let bench = Bench::new(Opening { keep_alive: asked, ..device() });
        assert_eq!(bench.core.deadline() - bench.now.monotonic, Duration::from_secs_f64(seconds), "{asked}");
    }
}

#[test]
fn a_token_that_ends_ends_the_session_with_its_will() {
    let now = start();
    let end = now.wall.checked_add(Duration::from_secs(30)).unwrap();
    let mut bench = Bench {
        core: SessionCore::new(
            Opening { expires: Some((end, CloseReason::TokenExpired)), ..device() },
            limits(),
            now,
        ),
        now,
    };
    assert_eq!(bench.core.deadline(), now.monotonic + Duration::from_secs(30));
    bench.pass(Duration::from_secs(29));
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), []);
    assert_eq!(bench.core.deadline(), bench.now.monotonic + Duration::from_secs(1));
    bench.pass(Duration::from_secs(1));
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), [closed(CloseReason::TokenExpired, true)]);
}

#[test]
fn what_comes_after_the_tokens_end_does_not_count() {
    let now = start();
    let mut bench = Bench {
        core: SessionCore::new(
            Opening { expires: Some((now.wall, CloseReason::TokenExpired)), ..device() },
            limits(),
            now,
        ),
        now,
    };
    assert_eq!(bench.exchange(publish(EVENTS, Some(1))), [closed(CloseReason::TokenExpired, true)]);
}

#[test]
fn t316_a_token_that_ends_far_away_is_looked_at_every_minute() {
    let now = start();
    for end in [Timestamp::MAX, now.wall.checked_add(Duration::from_secs(3600)).unwrap()] {
        let opening =
            Opening { expires: Some((end, CloseReason::TokenExpired)), keep_alive: 1000, ..device() };
        let mut bench = Bench { core: SessionCore::new(opening, limits(), now), now };
        assert_eq!(bench.core.deadline(), now.monotonic + Duration::from_secs(60));
        bench.pass(Duration::from_secs(60));
        bench.core.on_timeout(bench.now);
        assert_eq!(bench.core.deadline(), now.monotonic + Duration::from_secs(120));
        // The wall clock is set to a time after the end.
        bench.now.wall = end;
        bench.core.on_timeout(bench.now);
        assert_eq!(bench.actions(), [closed(CloseReason::TokenExpired, true)]);
    }
}

// [MQTT-3.1.2-8], [MQTT-3.14.4-3]
#[test]
fn t603_the_will_is_due_by_the_reason_of_the_end() {
    let reasons = [
        (CloseReason::ClientDisconnected, false),
        (CloseReason::ConnectionLost, true),
        (CloseReason::KeepAliveMissed, true),
        (CloseReason::TokenExpired, true),
        (CloseReason::ProtocolViolation("x".into()), true),
        (CloseReason::AccessDenied(Access::parse([""; 0]).unwrap().check(Right::C2d).unwrap_err()), true),
        (CloseReason::SlowReader, true),
        (CloseReason::TakenOver, true),
        (CloseReason::Disabled, false),
        (CloseReason::Deleted, false),
        (CloseReason::CredentialChanged, false),
        (CloseReason::AccessNarrowed, false),
        (CloseReason::StoreUnavailable, true),
        (CloseReason::Internal, true),
        (CloseReason::Shutdown, true),
    ];
    let mut outcomes = BTreeSet::new();
    for (reason, is_due) in reasons {
        assert!(outcomes.insert(reason.outcome()));
        for will in [true, false] {
            let mut bench = Bench::new(Opening { will, ..device() });
            bench.core.close(reason.clone());
            assert_eq!(bench.actions(), [closed(reason.clone(), is_due && will)]);
        }
    }
}

#[test]
fn the_first_reason_to_close_stands() {
    let mut bench = Bench::new(device());
    bench.core.close(CloseReason::Disabled);
    bench.core.close(CloseReason::ConnectionLost);
    bench.core.on_timeout(bench.now);
    assert_eq!(bench.actions(), [closed(CloseReason::Disabled, false)]);
    bench.core.close(CloseReason::Shutdown);
    assert_eq!(bench.actions(), []);
}

#[test]
fn t607_a_publish_not_taken_when_the_right_ends_is_wholly_refused() {
    for reason in [
        CloseReason::Disabled,
        CloseReason::Deleted,
        CloseReason::CredentialChanged,
        CloseReason::AccessNarrowed,
    ] {
        let mut bench = Bench::subscribed(QoS::AtLeastOnce);
        bench.deliver(1, 1);
        bench.packet(publish(EVENTS, Some(1))).unwrap();
        bench.packet(Packet::PubAck(1)).unwrap();
        bench.packet(subscribe(5, &[("$iothub/methods/POST/#", QoS::AtMostOnce)])).unwrap();
        bench.core.close(reason.clone());
        assert_eq!(bench.actions(), [complete(1), closed(reason, false)]);
        bench.core.ingested(Some(1));
        bench.core.subscriptions_saved();
        assert_eq!(bench.actions(), []);
    }
}

#[test]
fn t601_a_publish_to_a_foreign_topic_is_an_error_and_nothing_is_forwarded() {
    let foreign =
        ["devices/d2/messages/events/", "devices/d1/modules/m1/messages/events/", "made/up", "$admin/x"];
    for topic in foreign {
        for packet_id in [None, Some(1)] {
            let mut bench = Bench::new(device());
            assert!(
                matches!(bench.packet(publish(topic, packet_id)), Err(SessionError::Topic(_))),
                "{topic}"
            );
            assert_eq!(bench.actions(), []);
        }
    }
}

#[test]
fn t602_foreign_filters_are_refused_one_by_one_and_bring_no_message() {
    let foreign = [
        "devices/d2/messages/devicebound/#",
        "devices/+/#",
        "#",
        "+/#",
        "$SYS/#",
        "devices/+/messages/events/#",
    ];
    let mut bench = Bench::new(device());
    let filters = foreign.map(|filter| (filter, QoS::AtLeastOnce));
    assert_eq!(bench.exchange(subscribe(9, &filters)), [suback(9, &[0x80; 6])]);
    assert!(!bench.core.wants_message());
    assert_eq!(bench.deliver(1, 1), []);
    assert!(bench.core.event_filters().is_empty());
}

#[test]
fn t615_a_service_publishes_commands_and_nothing_else() {
    for topic in ["devices/d1/messages/events/", "$admin/GET/devices/", "$iothub/twin/GET/?$rid=1"] {
        let mut bench = Bench::new(service());
        assert!(matches!(bench.packet(publish(topic, Some(1))), Err(SessionError::Topic(_))));
        assert_eq!(bench.actions(), []);
    }
}

#[test]
fn a_command_is_acknowledged_once_done_and_answered_if_the_answer_is_wanted() {
    let mut bench = Bench::new(service());
    let command = Command {
        method: "GET".into(),
        path: "devices".into(),
        query: "$rid=1".into(),
        body: Bytes::from_static(b"x"),
    };
    let asked = |packet_id| {
        Action::Service(ServiceTask::Command { packet_id, rid: "1".into(), command: command.clone() })
    };
    let ask = |bench: &mut Bench, packet_id: u16| {
        let packet = Packet::Publish(Publish {
            payload: Bytes::from_static(b"x"),
            ..match publish("$admin/GET/devices/?$rid=1", Some(packet_id)) {
                Packet::Publish(publish) => publish,
                other => panic!("{other:?}"),
            }
        });
        bench.packet(packet).unwrap();
        assert_eq!(bench.actions(), [asked(Some(packet_id))]);
        bench.core.commanded(Some(packet_id), "$admin/res/200/?$rid=1".into(), Bytes::from_static(b"[]"));
        bench.actions()
    };
    assert_eq!(ask(&mut bench, 7), [Action::Send(Packet::PubAck(7))]);
    bench.exchange(subscribe(1, &[("$admin/res/200/?$rid=2", QoS::AtMostOnce)]));
    assert_eq!(ask(&mut bench, 8), [Action::Send(Packet::PubAck(8))]);
    for (packet_id, filter) in [(9, "$admin/res/200/?$rid=1"), (10, "$admin/res/#")] {
        bench.exchange(subscribe(1, &[(filter, QoS::AtMostOnce)]));
        let answered = ask(&mut bench, packet_id);
        assert_eq!(answered[0], Action::Send(Packet::PubAck(packet_id)));
        assert!(matches!(&answered[1..], [Action::Send(Packet::Publish(answer))] if answer.payload == "[]"));
    }
}

#[test]
fn t618_twin_requests_are_answered_that_there_is_none() {
    let mut bench = Bench::new(device());
    bench.exchange(subscribe(1, &[("$iothub/twin/res/#", QoS::AtMostOnce)]));
    bench.core.subscriptions_saved();
    bench.actions();
    for topic in ["$iothub/twin/GET/?$rid=a-1", "$iothub/twin/PATCH/properties/reported/?$rid=a-1"] {
        let actions = bench.exchange(publish(topic, Some(3)));
        assert_eq!(actions[0], puback(3));
        let answer = &published(&actions)[0];
        assert_eq!(answer.topic.as_str(), "$iothub/twin/res/404/?$rid=a-1");
        assert!(answer.payload.starts_with(br#"{"errorCode":404013,"message":""#));
        assert_eq!((answer.qos, answer.packet_id), (QoS::AtMostOnce, None));
    }
}

#[test]
fn t618_without_a_subscription_to_answers_there_is_none() {
    let mut bench = Bench::new(device());
    assert_eq!(bench.exchange(publish("$iothub/twin/GET/?$rid=1", None)), []);
    assert_eq!(bench.exchange(publish("$iothub/twin/GET/?$rid=1", Some(1))), [puback(1)]);
    assert_eq!(bench.exchange(publish("$iothub/methods/res/200/?$rid=1", Some(2))), [puback(2)]);
    assert_eq!(bench.exchange(publish("$iothub/methods/res/200/?$rid=1", None)), []);
}

#[test]
fn a_subscription_is_stored_before_it_is_acknowledged() {
    let mut bench = Bench::new(device());
    let actions = bench.exchange(subscribe(1, &[(C2D, QoS::AtLeastOnce)]));
    let [Action::Device(DeviceTask::SaveSubscriptions(Some(stored)))] = &actions[..] else {
        panic!("{actions:?}")
    };
    bench.core.subscriptions_saved();
    assert_eq!(bench.actions(), [suback(1, &[1])]);
    let restored =
        SessionCore::new(Opening { restored: Some(stored.clone()), ..device() }, limits(), bench.now);
    assert!(restored.session_present() && restored.wants_message());
}

#[test]
fn a_subscription_that_changes_nothing_is_acknowledged_at_once() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    assert_eq!(bench.exchange(subscribe(2, &[(C2D, QoS::AtLeastOnce)])), [suback(2, &[1])]);
    assert_eq!(bench.exchange(subscribe(3, &[("foreign", QoS::AtLeastOnce)])), [suback(3, &[0x80])]);
    assert_eq!(bench.exchange(unsubscribe(4, &["foreign"])), [Action::Send(Packet::UnsubAck(4))]);
}

#[test]
fn acknowledgements_wait_for_the_store_in_their_order() {
    let mut bench = Bench::new(device());
    bench.exchange(subscribe(1, &[(C2D, QoS::AtLeastOnce)]));
    let again = bench.exchange(subscribe(2, &[(C2D, QoS::AtLeastOnce)]));
    assert!(matches!(again[..], [Action::Device(DeviceTask::SaveSubscriptions(Some(_)))]));
    assert_eq!(bench.exchange(unsubscribe(3, &[C2D])), [save(None)]);
    let mut acks = Vec::new();
    for _ in 0..4 {
        bench.core.subscriptions_saved();
        acks.extend(bench.actions());
    }
    assert_eq!(acks, [suback(1, &[1]), suback(2, &[1]), Action::Send(Packet::UnsubAck(3))]);
}

#[test]
fn the_last_unsubscribe_leaves_nothing_to_keep() {
    let mut bench = Bench::subscribed(QoS::AtLeastOnce);
    assert!(bench.core.wants_message());
    assert_eq!(bench.exchange(unsubscribe(2, &[C2D])), [save(None)]);
    assert!(!bench.core.wants_message());
    bench.core.subscriptions_saved();
    assert_eq!(bench.actions(), [Action::Send(Packet::UnsubAck(2))]);
}

#[test]
fn clean_sessions_and_services_store_nothing() {
    let clean = Opening { clean_session: true, ..device() };
    let mut bench = Bench::new(clean);
    assert_eq!(bench.exchange(subscribe(1, &[(C2D, QoS::AtLeastOnce)])), [suback(1, &[1])]);
    assert_eq!(bench.exchange(unsubscribe(2, &[C2D])), [Action::Send(Packet::UnsubAck(2))]);
    let mut bench = Bench::new(Opening { clean_session: false, ..service() });
    let filter = ("devices/+/messages/events/#", QoS::AtLeastOnce);
    assert_eq!(bench.exchange(subscribe(1, &[filter])), [suback(1, &[1])]);
}

// [MQTT-3.1.2-4], [MQTT-3.1.2-6], [MQTT-3.2.2-2]
#[test]
fn a_session_goes_on_only_where_one_was_kept_and_is_wanted() {
    let stored = Subscriptions::decode(&[1, 1, 1]).unwrap().encode();
    let present = |clean_session, restored: Option<Vec<u8>>| {
        let bench = Bench::new(Opening { clean_session, restored, ..device() });
        assert_eq!(bench.core.session_present(), bench.core.wants_message());
        bench.core.session_present()
    };
    assert!(present(false, stored.clone()));
    assert!(!present(true, stored));
    assert!(!present(false, None));
    assert!(!present(false, Some(b"rubbish".to_vec())));
}

#[test]
fn a_module_gets_its_messages_through_either_filter() {
    for filter in ["devices/d1/modules/m1/#", "devices/d1/modules/m1/messages/devicebound/#"] {
        let mut bench = Bench::new(module());
        assert!(!bench.core.wants_message());
        bench.exchange(subscribe(1, &[(filter, QoS::AtLeastOnce)]));
        let sent = bench.deliver(1, 1);
        assert!(sent[0].topic.starts_with("devices/d1/modules/m1/messages/devicebound/"));
    }
    let mut bench = Bench::new(module());
    bench.exchange(subscribe(1, &[("devices/d1/modules/m1/inputs/#", QoS::AtLeastOnce)]));
    assert!(!bench.core.wants_message());
}

// [MQTT-3.3.5-1]
#[test]
fn overlapping_filters_deliver_once_at_the_higher_quality() {
    let mut bench = Bench::new(module());
    let filters = [
        ("devices/d1/modules/m1/#", QoS::AtMostOnce),
        ("devices/d1/modules/m1/messages/devicebound/#", QoS::AtLeastOnce),
    ];
    bench.exchange(subscribe(1, &filters));
    let sent = bench.deliver(1, 1);
    assert_eq!((sent.len(), sent[0].qos), (1, QoS::AtLeastOnce));
}

#[test]
fn events_go_out_at_the_quality_granted_for_their_sender() {
    let mut bench = Bench::new(service());
    assert!(!bench.core.wants_event());
    let filters = [
        ("devices/+/messages/events/#", QoS::AtMostOnce),
        ("devices/d1/messages/events/#", QoS::AtLeastOnce),
    ];
    bench.exchange(subscribe(1, &filters));
    assert!(bench.core.wants_event() && !bench.core.wants_message());
    let mut event = |device: &str, module: Option<&str>| {
        bench.core.on_event(topic::events_topic(device, module, "a=b"), Bytes::from_static(b"x"));
        published(&bench.actions())
            .into_iter()
            .map(|publish| (publish.qos, publish.packet_id))
            .collect::<Vec<_>>()
    };
    assert_eq!(event("d1", None), [(QoS::AtLeastOnce, Some(1))]);
    assert_eq!(event("d2", None), [(QoS::AtMostOnce, None)]);
    assert_eq!(event("d1", None), [(QoS::AtLeastOnce, Some(2))]);
    assert_eq!(event("d1", Some("m1")), []);
}

#[test]
fn t228_events_stop_when_the_window_is_full_and_their_ids_never_meet() {
    let mut bench = Bench::new(service());
    bench.exchange(subscribe(1, &[("devices/+/messages/events/#", QoS::AtLeastOnce)]));
    let send = |bench: &mut Bench| {
        bench.core.on_event(topic::events_topic("d1", None, ""), Bytes::new());
        published(&bench.actions())[0].packet_id.unwrap()
    };
    assert_eq!(send(&mut bench), 1);
    // All others come and go while the first one stays.
    for _ in 0..70_000 {
        let packet_id = send(&mut bench);
        assert_ne!(packet_id, 1);
        assert_eq!(bench.exchange(Packet::PubAck(packet_id)), []);
    }
    while bench.core.wants_event() {
        send(&mut bench);
    }
    assert_eq!(bench.core.in_flight.len(), EVENTS_IN_FLIGHT_MAX);
    bench.exchange(Packet::PubAck(1));
    assert!(bench.core.wants_event());
}

#[test]
fn t217_a_flood_runs_dry_and_a_slow_peer_never_does() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    assert!((0..AT_ONCE).all(|_| allowance.spend(start)));
    assert!(!allowance.spend(start));
    assert!(!allowance.spend(start + ONE / 2));
    assert!(allowance.spend(start + ONE));
    assert!(!allowance.spend(start + ONE));
    let mut now = start + ONE;
    for _ in 0..10 * AT_ONCE {
        now += ONE;
        assert!(allowance.spend(now));
    }
}

#[test]
fn time_that_passes_never_earns_more_than_one_go() {
    let start = Instant::now();
    let mut allowance = Allowance::new(start);
    let later = start + Duration::from_secs(1_000_000);
    assert_eq!((0..2 * AT_ONCE).filter(|_| allowance.spend(later)).count(), AT_ONCE as usize);
}

/// The other side of at-least-once: a queue and a device that fail in every allowed way.
#[derive(Debug, Default)]
struct Model {
    /// Message numbers that wait or are leased, with how often each was delivered.
    waiting: std::collections::BTreeMap<u64, u32>,
    leased: BTreeSet<u64>,
    /// By packet id, what the device received on this connection and has not acknowledged.
    received: Vec<(u16, u64)>,
    seen: BTreeSet<u64>,
    completed: BTreeSet<u64>,
    acknowledged: BTreeSet<u64>,
    next: u64,
}

#[derive(Clone, Debug)]
enum Step {
    Send,
    Deliver,
    Acknowledge(prop::sample::Index),
    AcknowledgeNothing(u16),
    Reconnect,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Send),
        6 => Just(Step::Deliver),
        4 => any::<prop::sample::Index>().prop_map(Step::Acknowledge),
        1 => (1..=u16::MAX).prop_map(Step::AcknowledgeNothing),
        1 => Just(Step::Reconnect),
    ]
}

impl Model {
    fn step(&mut self, bench: &mut Bench, step: Step) {
        match step {
            Step::Send => {
                // Numbers skip, as they do when messages expire.
                self.next += 1 + self.next % 3 * 21_845;
                self.waiting.insert(self.next, 0);
            }
            Step::Deliver => self.deliver(bench),
            Step::Acknowledge(index) if !self.received.is_empty() => {
                let (packet_id, number) = self.received.remove(index.index(self.received.len()));
                self.acknowledged.insert(number);
                bench.packet(Packet::PubAck(packet_id)).unwrap();
            }
            Step::Acknowledge(_) => {}
            Step::AcknowledgeNothing(packet_id) => {
                if self.received.iter().all(|(known, _)| *known != packet_id) {
                    bench.packet(Packet::PubAck(packet_id)).unwrap();
                    assert_eq!(bench.actions(), [unknown_ack()]);
                }
            }
            Step::Reconnect => {
                bench.core.close(CloseReason::ConnectionLost);
                self.perform(bench);
                self.leased.clear();
                self.received.clear();
                *bench = Bench::new(Opening { restored: Some(vec![1, 1, 1]), ..device() });
            }
        }
        self.perform(bench);
    }

    fn deliver(&mut self, bench: &mut Bench) {
        if !bench.core.wants_message() {
            assert_eq!(self.leased.len(), 16);
            return;
        }
        let Some((number, count)) =
            self.waiting.iter_mut().find(|(number, _)| !self.leased.contains(*number))
        else {
            return;
        };
        *count += 1;
        self.leased.insert(*number);
        bench.core.on_message(&lease(*number, *count));
    }

    fn perform(&mut self, bench: &mut Bench) {
        for action in bench.actions() {
            match action {
                Action::Send(Packet::Publish(publish)) => {
                    let number: u64 = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                    let packet_id = publish.packet_id.unwrap();
                    assert!(self.received.iter().all(|(known, _)| *known != packet_id), "id in use");
                    assert_eq!(publish.dup, !self.seen.insert(number), "DUP exactly on repeats");
                    assert!(
                        publish.dup || self.seen.last() == Some(&number),
                        "first deliveries are in order"
                    );
                    self.received.push((packet_id, number));
                }
                Action::Device(DeviceTask::Complete(number)) => {
                    assert!(self.acknowledged.contains(&number), "completed what nobody acknowledged");
                    assert!(self.completed.insert(number), "completed twice");
                    assert!(self.leased.remove(&number));
                    self.waiting.remove(&number);
                }
                Action::Close { .. } => {}
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.completed, self.acknowledged);
        assert!(self.received.len() <= 16);
    }
}

proptest! {
    #[test]
    fn every_message_is_delivered_at_least_once_and_completed_by_its_ack_only(
        steps in prop::collection::vec(any_step(), 0..200)
    ) {
        let mut bench = Bench::new(Opening { restored: Some(vec![1, 1, 1]), ..device() });
        let mut model = Model::default();
        for step in steps {
            model.step(&mut bench, step);
        }
        while !model.waiting.is_empty() {
            model.deliver(&mut bench);
            model.perform(&mut bench);
            while let Some((packet_id, number)) = model.received.pop() {
                model.acknowledged.insert(number);
                bench.packet(Packet::PubAck(packet_id)).unwrap();
                model.perform(&mut bench);
            }
        }
        prop_assert_eq!(model.completed, model.seen);
    }

    #[test]
    fn no_peer_makes_the_core_ask_for_what_only_the_other_kind_can_have(
        choices in prop::collection::vec((0..11usize, 1..5u16), 0..100)
    ) {
        let filters = [C2D, "$iothub/twin/res/#", "devices/+/messages/events/#", "$admin/feedback", "$admin/res/#"];
        let topics = [EVENTS, "$iothub/twin/GET/?$rid=1", "$admin/GET/devices/d1/?$rid=1"];
        let token = LockToken::parse("00000001-0000-0000-0000-000000000000").unwrap();
        for opening in [device(), service()] {
            let is_device = matches!(opening.role, Role::Device(_));
            let mut bench = Bench::new(opening);
            for (kind, packet_id) in &choices {
                let packet = match kind {
                    0..5 => subscribe(*packet_id, &[(filters[*kind], QoS::AtLeastOnce)]),
                    5..8 => publish(topics[*kind - 5], Some(*packet_id)),
                    8 => Packet::PubAck(*packet_id),
                    9 => unsubscribe(*packet_id, &filters),
                    _ => Packet::PingReq,
                };
                // A topic that is not this peer's ends a session; here it goes on.
                let _ = bench.packet(packet);
                bench.core.on_message(&lease(u64::from(*packet_id), 1));
                bench.core.on_event(topic::events_topic("d1", None, ""), Bytes::new());
                bench.core.on_feedback(token, Bytes::new());
                for action in bench.actions() {
                    prop_assert!(!matches!((is_device, &action), (true, Action::Service(_)) | (false, Action::Device(_))));
                }
            }
        }
    }

    #[test]
    fn no_sequence_of_packets_leaves_the_core_with_more_than_it_may_hold(
        choices in prop::collection::vec((0..8u8, 1..5u16), 0..300)
    ) {
        let mut bench = Bench::new(device());
        for (kind, packet_id) in choices {
            let packet = match kind {
                0 => publish(EVENTS, Some(packet_id)),
                1 => publish(EVENTS, None),
                2 => Packet::PubAck(packet_id),
                3 => subscribe(packet_id, &[(C2D, QoS::AtLeastOnce)]),
                4 => unsubscribe(packet_id, &[C2D]),
                5 => Packet::PingReq,
                6 => publish("$iothub/twin/GET/?$rid=1", Some(packet_id)),
                _ => Packet::PubRel(packet_id),
            };
            bench.packet(packet).unwrap();
            for action in bench.actions() {
                match action {
                    Action::Device(DeviceTask::Ingest { packet_id, .. }) => bench.core.ingested(packet_id),
                    Action::Device(DeviceTask::SaveSubscriptions(_)) => bench.core.subscriptions_saved(),
                    _ => {}
                }
            }
            bench.actions();
            prop_assert!(bench.core.unanswered.is_empty());
            prop_assert!(bench.core.unsaved.is_empty());
            prop_assert!(bench.core.actions.is_empty());
        }
    }
}
