//! Operating a hub over MQTT: commands with private answers, and events (threats T615, T616).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use portcullis::hub::audit::trail::AuditFilter;
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{ConnectReturnCode, Publish};
use portcullis_registry::message::NewC2d;
use portcullis_testing::{TestClient, TestHub, until, will};
use serde_json::{Value, json};

/// An operator's connection that hears its answers.
async fn operator(hub: &TestHub, policy: &str) -> TestClient {
    let mut client = hub.connect_service(policy).await.unwrap();
    assert_eq!(client.subscribe(&["$admin/res/#"]).await, [1]);
    client
}

fn topic(publish: &Publish) -> String {
    std::str::from_utf8(publish.topic.as_bytes()).unwrap().to_owned()
}

/// Publishes a command; topic and body of its answer.
async fn command(client: &mut TestClient, topic_text: &str, body: &str) -> (String, Value) {
    client.publish_acknowledged(topic_text, body.as_bytes()).await;
    let answer = client.take_message().await;
    let body = serde_json::from_slice(&answer.payload).unwrap_or(Value::Null);
    (topic(&answer), body)
}

/// The next event: its topic's end, and its body.
async fn event(client: &mut TestClient) -> (String, Value) {
    let publish = client.take_message().await;
    let topic = topic(&publish);
    let name = topic.strip_prefix("$admin/events/").unwrap_or_else(|| panic!("{topic}"));
    (name.to_owned(), serde_json::from_slice(&publish.payload).unwrap())
}

#[tokio::test]
async fn a_device_is_created_changed_listed_and_deleted_by_commands() {
    let hub = TestHub::start().await;
    let mut owner = operator(&hub, "iothubowner").await;
    let (topic, created) =
        command(&mut owner, "$admin/PUT/devices/pump-7/?$rid=42", r#"{"deviceId":"pump-7"}"#).await;
    let etag = created["etag"].as_str().unwrap();
    assert_eq!(topic, format!("$admin/res/200/?$rid=42&etag={}", etag.replace('=', "%3D")));
    assert_eq!(created["authentication"]["type"], "sas");

    let (topic, updated) = command(
        &mut owner,
        "$admin/PUT/devices/pump-7?$rid=a/b&If-Match=%22*%22",
        r#"{"status":"disabled"}"#,
    )
    .await;
    assert!(topic.starts_with("$admin/res/200/?$rid=a/b&etag="), "{topic}");
    assert_eq!(
        (&updated["status"], &updated["authentication"]),
        (&json!("disabled"), &created["authentication"])
    );

    let stale = format!("$admin/PUT/devices/pump-7/?$rid=1&If-Match={}", etag.replace('=', "%3D"));
    let (topic, refused) = command(&mut owner, &stale, "{}").await;
    assert_eq!(topic, "$admin/res/412/?$rid=1&iothub-errorcode=PreconditionFailed");
    assert!(refused["Message"].as_str().unwrap().starts_with("ErrorCode:PreconditionFailed;"));

    let (topic, listed) = command(&mut owner, "$admin/GET/devices/?top=10&$rid=2", "").await;
    assert_eq!((topic.as_str(), &listed[0]["deviceId"]), ("$admin/res/200/?$rid=2", &json!("pump-7")));
    let (topic, _) = command(&mut owner, "$admin/DELETE/devices/pump-7/?$rid=3", "").await;
    assert_eq!(topic, "$admin/res/204/?$rid=3");
    let (topic, _) = command(&mut owner, "$admin/GET/devices/pump-7/?$rid=4", "").await;
    assert_eq!(topic, "$admin/res/404/?$rid=4&iothub-errorcode=DeviceNotFound");
    assert_eq!(hub.hub.registry.counts().devices, 0);
    hub.stop().await;
}

#[tokio::test]
async fn a_message_is_sent_with_its_properties_by_a_command() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    let mut service = operator(&hub, "service").await;
    let send = "$admin/POST/devices/d1/messages/deviceBound/?$rid=1&iothub-messageid=m1&iothub-app-valve=3";
    assert!(command(&mut service, send, "open").await.0.starts_with("$admin/res/204/?$rid=1"));
    let message = client.take_message().await;
    let topic = topic(&message);
    assert!(topic.contains("%24.mid=m1") && topic.contains("valve=3"), "{topic}");
    assert_eq!(message.payload, Bytes::from("open"));
    hub.stop().await;
}

#[tokio::test]
async fn t616_an_answer_reaches_the_asking_connection_only_and_rights_are_rests() {
    let hub = TestHub::start().await;
    let mut bystander = operator(&hub, "iothubowner").await;
    for (policy, status) in [("service", 401), ("registryRead", 401), ("registryReadWrite", 200)] {
        let mut client = operator(&hub, policy).await;
        let (topic, _) = command(&mut client, &format!("$admin/PUT/devices/{policy}/?$rid=x"), "{}").await;
        assert!(topic.starts_with(&format!("$admin/res/{status}/?$rid=x")), "{policy}: {topic}");
    }
    assert_eq!(hub.hub.registry.counts().devices, 1);
    // Whoever did not subscribe gets no answer, but its command is done when it is acknowledged.
    let mut silent = hub.connect_service("iothubowner").await.unwrap();
    silent.publish_acknowledged("$admin/PUT/devices/d2/?$rid=x", b"{}").await;
    silent.settle().await;
    assert_eq!(hub.hub.registry.counts().devices, 2);
    bystander.settle().await;
    assert_eq!(hub.connect_service("device").await.err(), Some(ConnectReturnCode::NotAuthorized));
    let told = portcullis::hub::audit::trail::read(
        &hub.data_dir().join("audit"),
        &AuditFilter { count: 10, target: Some("d2".into()), ..AuditFilter::default() },
    );
    assert_eq!(told.unwrap()[0]["source"], "mqtt");
    hub.stop().await;
}

#[tokio::test]
async fn t616_what_is_no_command_closes_the_connection() {
    let hub = TestHub::start().await;
    for topic in [
        "$admin/GET/devices/",
        "$admin/GET/devices/?rid=1",
        "$admin/TRACE/devices/?$rid=1",
        "$admin/res/200/?$rid=1",
        "$admin/events/connected/d1",
        "$admin/feedback",
        "devices/d1/messages/events/",
        "anything",
    ] {
        let mut client = operator(&hub, "iothubowner").await;
        client.publish(topic, b"{}").await;
        assert!(client.closed().await, "{topic}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_path_that_is_no_path_is_answered() {
    let hub = TestHub::start().await;
    let mut owner = operator(&hub, "iothubowner").await;
    for (topic_text, status) in [
        ("$admin/GET/nothing/?$rid=1", 404),
        ("$admin/PATCH/devices/?$rid=1", 405),
        ("$admin/GET/devices with blanks/?$rid=1", 400),
        ("$admin/PUT/devices/d1/?$rid=1&If-Match=%00", 400),
        ("$admin/GET/devices/?api-version=x&$rid=1", 400),
    ] {
        let (topic, _) = command(&mut owner, topic_text, "").await;
        assert!(topic.starts_with(&format!("$admin/res/{status}/")), "{topic_text}: {topic}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t615_devices_are_refused_on_every_admin_topic_in_every_form() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    for identity in [&device, &module] {
        let mut client = hub.connect(identity).await;
        let filters =
            ["$admin/res/#", "$admin/events/#", "$admin/#", "$admin/feedback", "$admin/events/+/d1/#"];
        assert_eq!(client.subscribe(&filters).await, [0x80; 5]);
        client.publish("$admin/DELETE/devices/d1/?$rid=1", b"").await;
        assert!(client.closed().await);
        let mut connect = hub.connect_packet(identity);
        connect.will = Some(will("$admin/DELETE/devices/d1/?$rid=1", ""));
        assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    }
    // A service that takes a device's client id does not take its place.
    let mut client = hub.connect(&device).await;
    let mut connect = hub.connect_packet(&device);
    connect.username = Some("localhost/?api-version=2021-04-12&policy=iothubowner".into());
    connect.password =
        Some(portcullis::mqtt::packet::Password::from_bytes(hub.policy_token("iothubowner").as_bytes()));
    let mut service = hub.connect_with(connect).await.unwrap();
    service.settle().await;
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn events_tell_what_happens_numbered_and_in_order() {
    let hub = TestHub::start().await;
    let mut reader = hub.connect_service("registryRead").await.unwrap();
    assert_eq!(reader.subscribe(&["$admin/events/#", "devices/+/messages/events/#"]).await, [1, 0x80]);
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.settle().await;
    hub.disable(&device).await;
    assert!(client.closed().await);
    assert!(hub.connect_with(hub.connect_packet(&device)).await.is_err());
    hub.delete(&device).await;
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(event(&mut reader).await);
    }
    // The connection ends on its own task; all else is in the order in which it was asked for.
    let names: Vec<_> = told.iter().map(|(name, _)| name.as_str()).collect();
    let place = |name: &str| names.iter().position(|own| *own == name).unwrap_or_else(|| panic!("{names:?}"));
    let order = ["identityCreated/d1", "connected/d1", "identityUpdated/d1", "disconnected/d1"].map(place);
    assert!(order.is_sorted(), "{names:?}");
    assert!(place("credentialRefused/d1") < place("identityDeleted/d1"));
    let body = |name: &str| &told[place(name)].1;
    assert_eq!(body("disconnected/d1")["reason"], "disabled");
    assert_eq!(body("credentialRefused/d1")["reason"], "disabled");
    assert_eq!(body("credentialRefused/d1")["peer"], "127.0.0.1");
    assert_eq!(body("connected/d1")["deviceId"], "d1");
    let numbers: Vec<_> = told.iter().map(|(_, body)| body["sequence"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    hub.stop().await;
}

#[tokio::test]
async fn events_of_one_device_or_name_are_told_alone() {
    let hub = TestHub::start().await;
    let mut reader = hub.connect_service("iothubowner").await.unwrap();
    reader.subscribe(&["$admin/events/+/d1/#", "$admin/events/c2dExpired/#"]).await;
    let other = hub.device("d10").await;
    hub.device("d1").await;
    hub.module("d1", "m").await;
    let soon = hub.hub.clock.wall() + std::time::Duration::from_secs(30);
    let message = NewC2d { message_id: Some("m1".into()), expiry: Some(soon), ..NewC2d::default() };
    hub.send_message(&other, message).await;
    hub.hub.clock.shift(60);
    assert_eq!(event(&mut reader).await.0, "identityCreated/d1");
    assert_eq!(event(&mut reader).await.0, "identityCreated/d1/m");
    let (name, body) = event(&mut reader).await;
    assert_eq!((name.as_str(), &body["messageId"]), ("c2dExpired/d10", &json!("m1")));
    hub.stop().await;
}

#[tokio::test]
async fn p6_a_service_whose_policy_loses_its_key_is_cut_off() {
    let hub = TestHub::start().await;
    let mut owner = operator(&hub, "iothubowner").await;
    let mut service = operator(&hub, "service").await;
    let regenerate = "$admin/POST/api/v1/policies/service/regenerate/?$rid=1";
    let (topic, _) = command(&mut owner, regenerate, r#"{"key":"both"}"#).await;
    assert_eq!(topic, "$admin/res/200/?$rid=1");
    assert!(service.closed().await);
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::CredentialChanged) == 1).await;
    hub.stop().await;
}
