//! What devices and modules do over HTTPS: poll their queue, settle what they were handed, post telemetry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::iothub::property_bag::PropertyBag;
use portcullis_registry::message::{Ack, NewC2d};
use portcullis_testing::{RestClient, TestHub, TestIdentity};
use reqwest::Response;
use serde_json::json;

const V: &str = "api-version=2021-04-12";

/// An HTTPS client with the identity's own token.
fn client(hub: &TestHub, identity: &TestIdentity) -> RestClient {
    let mut rest = hub.rest();
    rest.token = Some(hub.token_for(identity, 3600));
    rest
}

fn queue(identity: &TestIdentity) -> String {
    format!("/{}/messages/deviceBound", identity.topic())
}

async fn poll(rest: &RestClient, identity: &TestIdentity) -> Response {
    rest.request("GET", &format!("{}?{V}", queue(identity))).send().await.unwrap()
}

/// The lock token of a message, as a path has it.
fn token(response: &Response) -> String {
    assert_eq!(response.status(), 200);
    header(response, "etag").trim_matches('"').to_owned()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    std::str::from_utf8(response.headers()[name].as_bytes()).unwrap()
}

#[tokio::test]
async fn a_polled_message_comes_with_every_property_and_leaves_when_completed() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let rest = client(&hub, &pump);
    assert_eq!(poll(&rest, &pump).await.status(), 204);
    let message = NewC2d {
        message_id: Some("m 1/é".into()),
        correlation_id: Some("c-1".into()),
        user_id: Some("ops".into()),
        content_type: Some("text/plain".into()),
        content_encoding: Some("utf-8".into()),
        ack: Ack::Full,
        properties: vec![
            ("colour".into(), "rosé".into()),
            ("Upper".into(), "x".into()),
            ("no header".into(), "a\nb".into()),
        ],
        body: "open valve".into(),
        ..NewC2d::default()
    };
    hub.send_message(&pump, message).await;
    let received = poll(&rest, &pump).await;
    for (name, value) in [
        ("iothub-messageid", "m 1/é"),
        ("iothub-correlationid", "c-1"),
        ("iothub-userid", "ops"),
        ("iothub-contenttype", "text/plain"),
        ("iothub-contentencoding", "utf-8"),
        ("iothub-ack", "full"),
        ("iothub-to", "/devices/pump-7/messages/devicebound"),
        ("iothub-sequencenumber", "1"),
        ("iothub-deliverycount", "0"),
        ("iothub-app-colour", "rosé"),
        ("iothub-app-upper", "x"),
        ("iothub-properties", "colour=ros%C3%A9&Upper=x&no%20header=a%0Ab"),
    ] {
        assert_eq!(header(&received, name), value, "{name}");
    }
    assert_eq!(header(&received, "iothub-enqueuedtime").len(), "2024-05-01T08:15:30.0000000Z".len());
    let lock = token(&received);
    assert_eq!(received.text().await.unwrap(), "open valve");
    assert_eq!(poll(&rest, &pump).await.status(), 204);
    let complete = format!("{}/{lock}?{V}", queue(&pump));
    assert_eq!(rest.call("DELETE", &complete, None).await.0, 204);
    let (status, lost) = rest.call("DELETE", &complete, None).await;
    assert_eq!(status, 412);
    assert!(lost["Message"].as_str().unwrap().starts_with("ErrorCode:DeviceMessageLockLost;"), "{lost}");
    assert_eq!(hub.hub.registry.queue_counts().completed, 1);
    hub.stop().await;
}

#[tokio::test]
async fn an_abandoned_message_comes_again_counted_and_a_rejected_one_does_not() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let rest = client(&hub, &pump);
    hub.send(&pump, "one").await;
    hub.send(&pump, "two").await;
    let one = token(&poll(&rest, &pump).await);
    let path = |tail: &str| format!("{}/{tail}", queue(&pump));
    assert_eq!(rest.call("POST", &path(&format!("{one}/abandon?{V}")), None).await.0, 204);
    let again = poll(&rest, &pump).await;
    assert_eq!(header(&again, "iothub-deliverycount"), "1");
    let lock = token(&again);
    assert_eq!(again.text().await.unwrap(), "one");
    assert_ne!(lock, one);
    assert_eq!(rest.call("DELETE", &path(&format!("{lock}?{V}&reject")), None).await.0, 204);
    let two = token(&poll(&rest, &pump).await);
    assert_eq!(rest.call("DELETE", &path(&format!("{two}?reject=&{V}")), None).await.0, 204);
    let counts = hub.hub.registry.queue_counts();
    assert_eq!((counts.messages, counts.rejected, counts.completed), (0, 2, 0));
    for nonsense in ["x", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(rest.call("DELETE", &path(&format!("{nonsense}?{V}")), None).await.0, 412);
        assert_eq!(rest.call("POST", &path(&format!("{nonsense}/abandon?{V}")), None).await.0, 412);
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_device_chooses_its_lock_time_within_bounds() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let rest = client(&hub, &pump);
    hub.send(&pump, "x").await;
    for (seconds, status) in [("4", 400), ("301", 400), ("x", 400), ("-1", 400), ("5", 200)] {
        let path = format!("{}?{V}", queue(&pump));
        let request = rest.request("GET", &path).header("IotHub-MessageLockTimeout", seconds);
        assert_eq!(request.send().await.unwrap().status(), status, "{seconds}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_module_polls_and_posts_on_its_own() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    let mut events = hub.events().await;
    let rest = client(&hub, &module);
    hub.send(&module, "for the module").await;
    let received = poll(&rest, &module).await;
    assert_eq!(header(&received, "iothub-to"), "/devices/d1/modules/m/messages/devicebound");
    let lock = token(&received);
    assert_eq!(rest.call("DELETE", &format!("{}/{lock}?{V}", queue(&module)), None).await.0, 204);
    let posted = rest.request("POST", &format!("/devices/d1/modules/m/messages/events?{V}")).body("up");
    assert_eq!(posted.send().await.unwrap().status(), 204);
    let event = events.take_message().await;
    assert!(event.topic.starts_with("devices/d1/modules/m/messages/events/"));
    assert_eq!(event.payload, "up");
    hub.stop().await;
}

#[tokio::test]
async fn t311_t312_t313_nobody_but_the_device_itself_gets_at_its_queue() {
    let hub = TestHub::start().await;
    let pump = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    let others = [hub.device("d10").await, hub.device("D1").await, module];
    hub.send(&pump, "for d1").await;
    let attempts = [
        ("GET", format!("{}?{V}", queue(&pump))),
        ("DELETE", format!("{}/00000000-0000-0000-0000-000000000000?{V}", queue(&pump))),
        ("POST", format!("{}/00000000-0000-0000-0000-000000000000/abandon?{V}", queue(&pump))),
        ("POST", format!("/devices/d1/messages/events?{V}")),
    ];
    let mut rest = hub.rest();
    let mut tokens: Vec<Option<String>> =
        others.iter().map(|other| Some(hub.token_for(other, 3600))).collect();
    tokens.extend([None, Some(String::new()), Some(hub.token_for(&pump, -1))]);
    tokens.extend(["service", "registryRead", "registryReadWrite"].map(|name| Some(hub.policy_token(name))));
    for token in tokens {
        rest.token = token;
        for (method, path) in &attempts {
            assert_eq!(rest.call(method, path, None).await.0, 401, "{method} {path}");
        }
    }
    // The device's own token sends nothing down, and tells nothing of the registry.
    let own = client(&hub, &pump);
    for (method, path) in [
        ("POST", format!("{}?{V}", queue(&pump))),
        ("DELETE", format!("/devices/d1/commands?{V}")),
        ("GET", "/api/v1/devices/d1/c2d-messages".to_owned()),
        ("POST", "/api/v1/c2d-messages".to_owned()),
        ("GET", format!("/messages/serviceBound/feedback?{V}")),
    ] {
        assert_eq!(own.call(method, &path, None).await.0, 401, "{method} {path}");
    }
    // A policy that may connect as any device may poll as any.
    rest.token = Some(hub.policy_token("device"));
    assert_eq!(poll(&rest, &pump).await.text().await.unwrap(), "for d1");
    hub.stop().await;
}

#[tokio::test]
async fn t604_a_disabled_device_polls_nothing_and_keeps_its_queue() {
    let hub = TestHub::start().await;
    let pump = hub.device("d1").await;
    hub.send(&pump, "kept").await;
    hub.disable(&pump).await;
    let rest = client(&hub, &pump);
    assert_eq!(poll(&rest, &pump).await.status(), 401);
    hub.change(&pump, |_| {}).await;
    assert_eq!(poll(&rest, &pump).await.text().await.unwrap(), "kept");
    hub.stop().await;
}

#[tokio::test]
async fn telemetry_is_posted_with_its_properties_and_the_hubs_stamp() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut events = hub.events().await;
    let rest = client(&hub, &pump);
    let posted = rest
        .request("POST", &format!("/devices/pump-7/messages/events?{V}"))
        .header("iothub-app-room", "küche & hall")
        .header("iothub-messageid", "m1")
        .header("iothub-contenttype", "text/plain")
        // Only the hub says who sent it.
        .header("iothub-app-iothub-connection-device-id", "other")
        .body("21.5");
    assert_eq!(posted.send().await.unwrap().status(), 204);
    let event = events.take_message().await;
    let bag = PropertyBag::parse(event.topic.rsplit_once('/').unwrap().1).unwrap();
    assert_eq!((bag.find("room"), bag.find("$.mid")), (Some("küche & hall"), Some("m1")));
    assert_eq!(bag.find("$.ct"), Some("text/plain"));
    assert!(event.topic.contains("iothub-connection-device-id=pump-7"));
    assert!(!event.topic.contains("other"));
    assert_eq!(event.payload, "21.5");
    hub.stop().await;
}

#[tokio::test]
async fn a_batch_of_telemetry_is_taken_in_order_or_not_at_all() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut events = hub.events().await;
    let rest = client(&hub, &pump);
    let post = |batch: serde_json::Value| {
        rest.request("POST", &format!("/devices/pump-7/messages/events?{V}"))
            .header("content-type", "application/vnd.microsoft.iothub.json")
            .body(batch.to_string())
            .send()
    };
    for (bad, status) in [
        (json!([{"body": "b25l"}, {"body": "not base64!"}]), 400),
        (json!([{"body": "b25l"}, {"properties": {}}]), 400),
        (json!({"body": "b25l"}), 400),
        (json!([{"body": "b25l"}, {"body": "x".repeat(300_000), "base64Encoded": false}]), 413),
    ] {
        assert_eq!(post(bad).await.unwrap().status(), status);
    }
    let batch = json!([
        {"body": "b25l"},
        {"body": "two", "base64Encoded": false, "properties": {"iothub-app-x": "1", "iothub-messageid": "m2"}},
        {"body": "dGhyZWU=", "base64Encoded": true, "properties": {}},
    ]);
    assert_eq!(post(batch).await.unwrap().status(), 204);
    for body in ["one", "two", "three"] {
        let event = events.take_message().await;
        assert_eq!(event.payload, body);
        assert_eq!(event.topic.contains("%24.mid=m2&") && event.topic.contains("x=1"), body == "two");
    }
    hub.stop().await;
}

#[tokio::test]
async fn what_is_polled_is_not_on_the_connection_too() {
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let rest = client(&hub, &pump);
    hub.send(&pump, "polled").await;
    let lock = token(&poll(&rest, &pump).await);
    let mut connection = hub.connect(&pump).await;
    connection.subscribe(&["devices/pump-7/messages/devicebound/#"]).await;
    hub.send(&pump, "pushed").await;
    assert_eq!(connection.take_message().await.payload, "pushed");
    // Given back, it comes on the connection, as the repeat it is.
    assert_eq!(rest.call("POST", &format!("{}/{lock}/abandon?{V}", queue(&pump)), None).await.0, 204);
    let again = connection.take_message().await;
    assert_eq!((again.payload, again.dup), ("polled".into(), true));
    hub.stop().await;
}
