//! Cloud-to-device messages from the sender's side: feedback, batches, a look into queues, purges, metrics; and that
//! whatever happens to a device meanwhile, its messages are its own and come in order.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use portcullis::mqtt::packet::{ConnectReturnCode, Packet};
use portcullis_registry::identity::Status;
use portcullis_registry::message::{Ack, NewC2d};
use portcullis_testing::{HubSettings, RestClient, TestClient, TestHub, TestIdentity, within};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";
const FEEDBACK: &str = "/messages/serviceBound/feedback";

/// A hub that hands out feedback as soon as there is some.
async fn hub_without_batches() -> TestHub {
    let environment = vec![("PORTCULLIS__LIMITS__FEEDBACK_BATCH_TIME_MAX".to_owned(), "0s".to_owned())];
    TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await
}

fn devicebound(identity: &TestIdentity) -> String {
    format!("{}/messages/devicebound/#", identity.topic())
}

fn message(id: &str, ack: Ack) -> NewC2d {
    NewC2d { message_id: Some(id.into()), body: id.to_owned().into(), ack, ..NewC2d::default() }
}

async fn connected(hub: &TestHub, identity: &TestIdentity) -> TestClient {
    let mut client = hub.connect(identity).await;
    client.subscribe(&[&devicebound(identity)]).await;
    client
}

/// The next batch of feedback over REST, not completed: its lock token and records.
async fn fetch(rest: &RestClient) -> Option<(String, Value)> {
    let response = rest.request("GET", &format!("{FEEDBACK}?{V}")).send().await.unwrap();
    if response.status() == 204 {
        return None;
    }
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/vnd.microsoft.iothub.feedback.json");
    assert_eq!(response.headers()["iothub-userid"], "localhost");
    let token = response.headers()["etag"].to_str().unwrap().trim_matches('"').to_owned();
    Some((token, response.json().await.unwrap()))
}

#[tokio::test]
async fn feedback_is_fetched_over_rest_in_iot_hubs_form() {
    let hub = hub_without_batches().await;
    let rest = hub.rest();
    let pump = hub.device("pump-7").await;
    hub.send_message(&pump, message("m1", Ack::Full)).await;
    assert!(fetch(&rest).await.is_none());
    let mut client = connected(&hub, &pump).await;
    client.take_message().await;
    client.settle().await;

    let (token, records) = fetch(&rest).await.unwrap();
    let (_, shown) = rest.call("GET", &format!("/devices/pump-7?{V}"), None).await;
    let time = records[0]["enqueuedTimeUtc"].clone();
    assert_eq!(time.as_str().unwrap().len(), "2024-05-01T08:15:30.1234567Z".len());
    let expected = json!([{
        "originalMessageId": "m1",
        "description": "Success",
        "statusCode": "Success",
        "deviceId": "pump-7",
        "deviceGenerationId": shown["generationId"],
        "enqueuedTimeUtc": time,
    }]);
    assert_eq!(records, expected);
    assert!(fetch(&rest).await.is_none());
    assert_eq!(rest.call("POST", &format!("{FEEDBACK}/{token}/abandon?{V}"), None).await.0, 204);
    assert_eq!(rest.call("DELETE", &format!("{FEEDBACK}/{token}?{V}"), None).await.0, 412);
    let (token, again) = fetch(&rest).await.unwrap();
    assert_eq!(again, expected);
    assert_eq!(rest.call("DELETE", &format!("{FEEDBACK}/{token}?{V}"), None).await.0, 204);
    assert_eq!(rest.call("DELETE", &format!("{FEEDBACK}/{token}?{V}"), None).await.0, 412);
    assert!(fetch(&rest).await.is_none());
    hub.stop().await;
}

#[tokio::test]
async fn feedback_reaches_a_subscriber_and_comes_again_until_it_is_acknowledged() {
    let hub = hub_without_batches().await;
    let pump = hub.device("pump-7").await;
    let mut service = hub.connect_service("service").await.unwrap();
    assert_eq!(service.subscribe(&["$admin/feedback", "$admin/feedback/#", "$admin/#"]).await, [1, 128, 128]);
    hub.send_message(&pump, message("m1", Ack::Negative)).await;
    hub.rest().call("DELETE", &format!("/devices/pump-7/commands?{V}"), None).await;
    let told = service.message().await;
    assert_eq!(told.topic.as_str(), "$admin/feedback");
    let records: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!(
        (&records[0]["originalMessageId"], &records[0]["statusCode"]),
        (&json!("m1"), &json!("Purged"))
    );
    drop(service);

    let hub = hub.restart().await;
    let mut service = hub.connect_service("service").await.unwrap();
    service.subscribe(&["$admin/feedback"]).await;
    assert_eq!(service.take_message().await.payload, told.payload);
    service.settle().await;
    assert!(fetch(&hub.rest()).await.is_none());
    hub.stop().await;
}

#[tokio::test]
async fn t615_devices_hear_no_feedback() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = hub.connect(&pump).await;
    assert_eq!(client.subscribe(&["$admin/feedback"]).await, [128]);
    for policy in ["registryRead", "registryReadWrite", "device"] {
        let mut rest = hub.rest();
        rest.token = Some(hub.policy_token(policy));
        assert_eq!(rest.call("GET", &format!("{FEEDBACK}?{V}"), None).await.0, 401, "{policy}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn an_expired_message_is_told_though_nobody_ever_connects() {
    let hub = hub_without_batches().await;
    let pump = hub.device("pump-7").await;
    // Before the service's token does.
    let soon = hub.hub.clock.wall().checked_add(std::time::Duration::from_secs(600)).unwrap();
    hub.send_message(&pump, NewC2d { expiry: Some(soon), ..message("m1", Ack::Full) }).await;
    let mut service = hub.connect_service("service").await.unwrap();
    service.subscribe(&["$admin/feedback"]).await;
    hub.hub.clock.shift(600);
    let records: Value = serde_json::from_slice(&service.take_message().await.payload).unwrap();
    assert_eq!(records[0]["statusCode"], "Expired");
    let (_, metrics) = hub.ops("/metrics").await;
    assert!(metrics.contains("portcullis_c2d_expired_total 1"), "{metrics}");
    hub.stop().await;
}

#[tokio::test]
async fn t508_a_message_that_no_topic_can_carry_ends_rejected_and_those_behind_it_arrive() {
    let hub = hub_without_batches().await;
    let pump = hub.device("pump-7").await;
    // As from a store of another version: REST takes none such.
    let properties = vec![("a".to_owned(), "😀".repeat(15_000))];
    hub.send_message(&pump, NewC2d { properties, ..message("large", Ack::Negative) }).await;
    hub.send_message(&pump, message("small", Ack::Negative)).await;
    let mut client = connected(&hub, &pump).await;
    assert_eq!(client.take_message().await.payload, "small");
    client.settle().await;
    portcullis_testing::until(|| hub.hub.registry.queue_counts().rejected == 1).await;
    let (_, records) = fetch(&hub.rest()).await.unwrap();
    assert_eq!(records.as_array().unwrap().len(), 1, "{records}");
    assert_eq!(
        (&records[0]["originalMessageId"], &records[0]["statusCode"]),
        (&json!("large"), &json!("Rejected"))
    );
    assert_eq!(hub.hub.registry.queue_counts().messages, 0);
    portcullis_testing::until(|| hub.hub.metrics.c2d_undeliverable.get() == 1).await;
    hub.stop().await;
}

#[tokio::test]
async fn deleting_a_device_discards_what_was_to_be_told_of_it() {
    let hub = hub_without_batches().await;
    let (pump, other) = (hub.device("pump-7").await, hub.device("Pump-7").await);
    for device in [&pump, &other] {
        hub.send_message(device, message("m", Ack::Full)).await;
        connected(&hub, device).await.take_message().await;
    }
    portcullis_testing::until(|| hub.hub.registry.queue_counts().completed == 2).await;
    hub.delete(&pump).await;
    let (_, records) = fetch(&hub.rest()).await.unwrap();
    assert_eq!(records.as_array().unwrap().len(), 1);
    assert_eq!(records[0]["deviceId"], "Pump-7");
    hub.stop().await;
}

#[tokio::test]
async fn many_messages_are_sent_with_one_result_each() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    hub.module("pump-7", "m").await;
    let rest = hub.rest();
    let batch = json!([
        {"deviceId": "pump-7", "body": "one", "messageId": "m1", "properties": {"Colour": "rosé"}, "ack": "full"},
        {"deviceId": "nobody", "body": "x"},
        {"deviceId": "pump-7", "body": "AAH/", "bodyEncoding": "base64"},
        {"deviceId": "pump-7", "moduleId": "m", "body": "for m"},
        {"deviceId": "a/b", "body": "x"},
        {"deviceId": "pump-7", "expiry": "2001-01-01T00:00:00Z"},
        {"deviceId": "pump-7", "body": "three"},
    ]);
    let (status, results) = rest.call("POST", "/api/v1/c2d-messages", Some(batch)).await;
    assert_eq!(status, 200);
    let codes: Vec<_> =
        results.as_array().unwrap().iter().map(|result| result["errorCode"].as_str()).collect();
    assert_eq!(
        codes,
        [
            None,
            Some("DeviceNotFound"),
            None,
            None,
            Some("ArgumentInvalid"),
            Some("InvalidMessageExpiryTime"),
            None
        ]
    );
    assert_eq!((&results[0]["accepted"], &results[0]["messageId"]), (&json!(true), &json!("m1")));
    assert_eq!((&results[3]["deviceId"], &results[3]["moduleId"]), (&json!("pump-7"), &json!("m")));

    let (_, queued) = rest.call("GET", "/api/v1/devices/pump-7/c2d-messages", None).await;
    let bodies: Vec<_> = queued.as_array().unwrap().iter().map(|queued| queued["body"].as_str()).collect();
    assert_eq!(bodies, [Some("one"), Some("AAH/"), Some("three")]);
    assert_eq!(
        (&queued[0]["state"], &queued[0]["properties"]),
        (&json!("Enqueued"), &json!({"Colour": "rosé"}))
    );
    assert_eq!(queued[1]["bodyEncoding"], "base64");
    let mut client = connected(&hub, &pump).await;
    client.message().await;
    let (_, queued) = rest.call("GET", "/api/v1/devices/pump-7/c2d-messages?top=1", None).await;
    assert_eq!((queued.as_array().unwrap().len(), &queued[0]["state"]), (1, &json!("Invisible")));
    let (_, of_module) = rest.call("GET", "/api/v1/devices/pump-7/modules/m/c2d-messages", None).await;
    assert_eq!(of_module[0]["body"], "for m");
    assert_eq!(rest.call("GET", "/api/v1/devices/nobody/c2d-messages", None).await.0, 404);
    let (_, purged) = rest.call("DELETE", &format!("/devices/pump-7/modules/m/commands?{V}"), None).await;
    assert_eq!(purged["totalMessagesPurged"], 1);

    let many = |count: usize| Value::from_iter(vec![json!({"deviceId": "nobody"}); count]);
    for (count, status) in [(0, 400), (100, 200), (101, 400)] {
        let answer = rest.call("POST", "/api/v1/c2d-messages", Some(many(count))).await;
        assert_eq!(answer.0, status, "{count}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t718_a_message_purged_while_it_is_on_its_way_never_comes_back() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let rest = hub.rest();
    let mut client = connected(&hub, &pump).await;
    for id in ["one", "two", "three"] {
        hub.send_message(&pump, message(id, Ack::None)).await;
    }
    let one = client.message().await;
    let two = client.message().await;
    client.acknowledge(&one).await;
    client.message().await;
    client.settle().await;
    let (_, purged) = rest.call("DELETE", &format!("/devices/pump-7/commands?{V}"), None).await;
    assert_eq!(purged["totalMessagesPurged"], 2);
    // The acknowledgement of a purged message completes no other.
    hub.send_message(&pump, message("new", Ack::None)).await;
    client.acknowledge(&two).await;
    assert_eq!(client.message().await.payload, "new");
    client.settle().await;
    drop(client);
    let mut client = connected_again(&hub, &pump).await;
    assert_eq!(client.take_message().await.payload, "new");
    client.settle().await;
    hub.stop().await;
}

async fn connected_again(hub: &TestHub, identity: &TestIdentity) -> TestClient {
    let client = hub.connect(identity).await;
    assert!(client.session_present);
    client
}

#[tokio::test]
async fn t612_disabled_and_enabled_over_and_over_a_device_keeps_its_queue_and_no_ghost_stays() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut old = connected(&hub, &pump).await;
    for id in ["one", "two"] {
        hub.send_message(&pump, message(id, Ack::None)).await;
    }
    old.message().await;
    old.message().await;
    for round in 0..1_000 {
        let status = if round % 2 == 0 { Status::Disabled } else { Status::Enabled };
        hub.change(&pump, |spec| spec.status = status).await;
    }
    while old.packet_or_end().await.is_some() {}
    within(async {
        while !hub.hub.sessions.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut client = connected_again(&hub, &pump).await;
    for id in ["one", "two"] {
        let again = client.take_message().await;
        assert_eq!((again.payload, again.dup), (id.into(), true));
    }
    hub.stop().await;
}

#[tokio::test]
async fn t606_after_a_revocation_nothing_waits_for_or_reaches_the_old_connection() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = connected(&hub, &pump).await;
    hub.disable(&pump).await;
    let refused = hub.hub.registry.send(&pump.id, message("x", Ack::None), hub.hub.clock.wall()).await;
    assert!(refused.is_err());
    assert_eq!(client.packet_or_end().await, None);
    // Enabled again, with a message waiting: the kept session alone lets nobody in.
    hub.change(&pump, |_| {}).await;
    hub.send(&pump, "for whoever proves it").await;
    let connect = portcullis::mqtt::packet::Connect { password: None, ..hub.connect_packet(&pump) };
    assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    assert_eq!(connected_again(&hub, &pump).await.take_message().await.payload, "for whoever proves it");
    hub.stop().await;
}

#[tokio::test]
async fn t609_of_many_connections_at_once_the_one_that_stays_gets_the_queue() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    connected(&hub, &pump).await.disconnect().await;
    for number in 0..20 {
        hub.send_message(&pump, message(&number.to_string(), Ack::None)).await;
    }
    let clients = futures_util::future::join_all((0..30).map(|_| hub.connect_in_a_race(&pump))).await;
    let mut whole = 0;
    for mut client in clients.into_iter().flatten() {
        let mut next = 0;
        while let Some(packet) = client.packet_or_end().await {
            let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
            // The session that stays hears everything from the start, in order.
            assert_eq!(publish.payload, next.to_string());
            client.send_or_lose(Packet::PubAck(publish.packet_id.unwrap())).await;
            next += 1;
            if next == 20 {
                whole += 1;
                break;
            }
        }
    }
    assert_eq!(whole, 1);
    hub.stop().await;
}

#[tokio::test]
async fn t227_what_a_slow_reader_does_not_take_stays_in_its_queue() {
    let environment = vec![("PORTCULLIS__LIMITS__WRITE_TIME_MAX".to_owned(), "1s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let pump = hub.device("pump-7").await;
    let mut slow = connected(&hub, &pump).await;
    let body = vec![b'x'; 60_000];
    for number in 0..50u8 {
        let body = [&[number], &body[..]].concat().into();
        hub.send_message(&pump, NewC2d { body, ..NewC2d::default() }).await;
    }
    // It takes what the network holds and one window at most, and is closed in time if that does not fit.
    let first = slow.message().await;
    assert_eq!(first.payload[0], 0);
    assert_eq!(hub.hub.registry.queue_counts().messages, 50);
    drop(slow);
    let mut client = connected_again(&hub, &pump).await;
    for number in 0..50u8 {
        assert_eq!(client.take_message().await.payload[0], number);
    }
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn queues_are_told_in_metrics_without_ids() {
    let hub = TestHub::start().await;
    let pump = hub.device("secret-pump").await;
    for id in ["one", "two", "three"] {
        hub.send_message(&pump, message(id, Ack::Full)).await;
    }
    let mut client = connected(&hub, &pump).await;
    client.take_message().await;
    client.message().await;
    client.message().await;
    client.settle().await;
    drop(client);
    let mut client = connected_again(&hub, &pump).await;
    client.message().await;
    client.message().await;
    let (_, metrics) = hub.ops("/metrics").await;
    for line in [
        "portcullis_c2d_queue_messages 2",
        "portcullis_c2d_feedback_records 1",
        "portcullis_c2d_delivered_total 5",
        "portcullis_c2d_redelivered_total 2",
        "portcullis_c2d_completed_total{result=\"complete\"} 1",
        "portcullis_c2d_completed_total{result=\"reject\"} 0",
        "portcullis_c2d_delivery_duration_seconds_count 3",
        "# TYPE portcullis_c2d_queue_oldest_age_seconds gauge",
    ] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("secret-pump"));
    hub.stop().await;
}

#[tokio::test]
async fn a_message_that_expires_on_the_way_to_a_slow_device_is_not_handed_out_again() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut client = connected(&hub, &pump).await;
    let expiry = hub.hub.clock.wall() + Duration::from_secs(60);
    hub.send_message(&pump, NewC2d { expiry: Some(expiry), ..message("short", Ack::None) }).await;
    client.message().await;
    drop(client);
    hub.hub.clock.shift(61);
    let mut client = connected_again(&hub, &pump).await;
    client.settle().await;
    portcullis_testing::until(|| hub.hub.registry.queue_counts().expired == 1).await;
    hub.stop().await;
}
