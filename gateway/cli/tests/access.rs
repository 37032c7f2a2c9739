//! Access lists: what a device or module may do by its list, over MQTT and HTTPS, and what happens when it changes.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::packet::{ConnectReturnCode, Packet, QoS, Subscribe, Utf8Bytes};
use portcullis_registry::access::Access;
use portcullis_testing::shell::Shell;
use portcullis_testing::{RestClient, TestClient, TestHub, TestIdentity, tools, will, within};
use serde_json::{Value, json};
use tokio::process::Command;

const V: &str = "api-version=2021-04-12";
const METHODS: &str = "$iothub/methods/POST/#";
const METHOD_RESPONSE: &str = "$iothub/methods/res/200/?$rid=1";
const TWIN_GET: &str = "$iothub/twin/GET/?$rid=1";
const REFUSED: u8 = 0x80;

async fn allow(hub: &TestHub, identity: &TestIdentity, words: &[&str]) {
    let access = Access::parse(words).unwrap();
    hub.change(identity, |spec| spec.access = Some(access)).await;
}

async fn allow_everything(hub: &TestHub, identity: &TestIdentity) {
    hub.change(identity, |spec| spec.access = Some(Access::EVERYTHING)).await;
}

/// The words the registry has for an identity, if it has any.
fn stored(hub: &TestHub, identity: &TestIdentity) -> Option<Vec<String>> {
    hub.hub.registry.entry(&identity.id).unwrap().identity().access.to_entries()
}

fn events(identity: &TestIdentity) -> String {
    format!("{}/messages/events/", identity.topic())
}

fn c2d(identity: &TestIdentity) -> String {
    format!("{}/messages/devicebound/#", identity.topic())
}

/// A service that hears of connections that end and credentials that are refused.
async fn operator(hub: &TestHub) -> TestClient {
    let mut client = hub.connect_service("iothubowner").await.unwrap();
    let filters = ["$admin/events/disconnected/#", "$admin/events/credentialRefused/#"];
    assert_eq!(client.subscribe(&filters).await, [1, 1]);
    client
}

/// The reason in the next event, as a word and at length.
async fn told(operator: &mut TestClient) -> (String, String) {
    let event: Value = serde_json::from_slice(&operator.take_message().await.payload).unwrap();
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("text"))
}

/// Publishes what is not allowed: the connection ends with nothing acknowledged.
async fn denied(mut client: TestClient, topic: &str) {
    client.publish(topic, b"{}").await;
    assert!(client.closed().await, "{topic}");
}

#[tokio::test]
async fn a_module_for_diagnostics_and_one_for_operation_have_different_rights() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let mut operator = operator(&hub).await;
    let device = hub.device("pump-7").await;
    let diagnostics = hub.module("pump-7", "diagnostics").await;
    let operation = hub.module("pump-7", "operation").await;
    allow(&hub, &diagnostics, &["methods:diag*", "telemetry"]).await;
    allow(&hub, &operation, &["c2d", "twin"]).await;

    let filters = |own: &TestIdentity| [c2d(own), METHODS.to_owned(), "$iothub/twin/res/#".to_owned()];
    let subscribe = async |client: &mut TestClient, own: &TestIdentity| {
        client.subscribe(&filters(own).each_ref().map(String::as_str)).await
    };
    let mut client = hub.connect(&diagnostics).await;
    assert_eq!(subscribe(&mut client, &diagnostics).await, [REFUSED, 1, REFUSED]);
    client.publish_acknowledged(&events(&diagnostics), b"all is well").await;
    client.publish_acknowledged(METHOD_RESPONSE, b"").await;
    denied(client, TWIN_GET).await;
    let allowed = "the access list allows telemetry, methods:diag*, not twin";
    assert_eq!(told(&mut operator).await, ("access_denied".into(), allowed.into()));

    let mut client = hub.connect(&operation).await;
    assert_eq!(subscribe(&mut client, &operation).await, [1, REFUSED, 1]);
    client.publish_acknowledged(TWIN_GET, b"").await;
    assert!(
        std::str::from_utf8(client.message().await.topic.as_bytes())
            .unwrap()
            .starts_with("$iothub/twin/res/404/")
    );
    denied(client, &events(&operation)).await;
    denied(hub.connect(&operation).await, METHOD_RESPONSE).await;

    // Their device has a list of its own, and so has none.
    let mut client = hub.connect(&device).await;
    assert_eq!(subscribe(&mut client, &device).await, [1, 1, 1]);
    client.publish_acknowledged(&events(&device), b"the device itself").await;

    assert_eq!(service.take_message().await.payload, "all is well");
    assert_eq!(service.take_message().await.payload, "the device itself");
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::AccessDenied), 3);
    hub.stop().await;
}

#[tokio::test]
async fn who_may_not_receive_messages_is_sent_none_and_the_sender_hears_so() {
    let hub = TestHub::start().await;
    let mute = hub.device("mute").await;
    let other = hub.device("other").await;
    allow(&hub, &mute, &["telemetry"]).await;
    let rest = hub.rest();
    let send = async |to: &TestIdentity| {
        let (status, answer) =
            rest.call("POST", &format!("/{}/messages/deviceBound?{V}", to.topic()), None).await;
        (status, answer["Message"].as_str().unwrap_or_default().to_owned())
    };
    let (status, message) = send(&mute).await;
    assert_eq!(status, 403);
    assert!(message.starts_with("ErrorCode:GenericForbidden;mute may not receive"), "{message}");
    assert_eq!(send(&other).await.0, 204);
    let many = json!([{"deviceId": "mute", "body": "x"}, {"deviceId": "other", "body": "y"}]);
    let (_, results) = rest.call("POST", "/api/v1/c2d-messages", Some(many)).await;
    assert!(results.to_string().contains("GenericForbidden"), "{results}");
    let queued = |identity: &TestIdentity| hub.hub.registry.entry(&identity.id).unwrap().queued();
    assert_eq!((queued(&mute), queued(&other)), (0, 2));
    hub.stop().await;
}

#[tokio::test]
async fn t603_t604_narrowing_closes_the_connection_and_drops_the_will_and_widening_does_neither() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let mut operator = operator(&hub).await;
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m1").await;
    let mut connect = hub.connect_packet(&device);
    connect.will = Some(will(&events(&device), "will"));
    let mut of_device = hub.connect_with(connect).await.unwrap();
    let mut of_module = hub.connect(&module).await;
    // Telemetry stays allowed: the will is dropped for the revocation, not for want of the right.
    allow(&hub, &device, &["telemetry", "c2d"]).await;
    assert!(of_device.closed().await);
    assert_eq!(told(&mut operator).await.0, "access_narrowed");
    of_module.publish_acknowledged(&events(&module), b"a module is not its device").await;
    let mut of_device = hub.connect(&device).await;
    of_device.publish_acknowledged(&events(&device), b"back").await;
    assert_eq!(service.take_message().await.payload, "a module is not its device");
    assert_eq!(service.take_message().await.payload, "back");

    for words in [&["c2d", "telemetry"][..], &["telemetry", "c2d", "twin"], &["telemetry", "c2d"]] {
        allow(&hub, &device, words).await;
        of_device.settle().await;
    }
    allow_everything(&hub, &device).await;
    of_device.settle().await;
    allow(&hub, &device, &["c2d", "twin", "methods:*"]).await;
    assert!(of_device.closed().await);
    assert_eq!(hub.hub.metrics.disconnects(ConnectionOutcome::AccessNarrowed), 2);
    hub.stop().await;
}

#[tokio::test]
async fn t606_a_kept_subscription_delivers_nothing_while_it_is_not_allowed() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    assert_eq!(client.subscribe(&[&c2d(&device)]).await, [1]);
    hub.send(&device, "first").await;
    assert_eq!(client.message().await.payload, "first");
    hub.send(&device, "second").await;
    allow(&hub, &device, &["telemetry"]).await;
    while client.packet_or_end().await.is_some() {}

    let hub = hub.restart().await;
    let mut client = hub.connect(&device).await;
    assert!(client.session_present);
    client.settle().await;
    // The right is there again, and the connection is still of the time without it.
    allow_everything(&hub, &device).await;
    client.settle().await;
    client.disconnect().await;

    let mut client = hub.connect(&device).await;
    assert_eq!(client.take_message().await.payload, "first");
    assert_eq!(client.take_message().await.payload, "second");
    hub.stop().await;
}

#[tokio::test]
async fn p6_a_narrowing_while_a_connect_is_half_way_is_seen() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let filters = vec![(Utf8Bytes::parse(c2d(&device)).unwrap(), QoS::AtLeastOnce)];
    for _ in 0..20 {
        // It is told to come again, closed unanswered when the change comes right before the answer, or closed after it.
        let (outcome, ()) = tokio::join!(hub.answer_to(&device), allow(&hub, &device, &["telemetry"]));
        match outcome {
            None => {}
            Some(Err(code)) => assert_eq!(code, ConnectReturnCode::ServerUnavailable),
            Some(Ok(mut client)) => {
                client
                    .send_or_lose(Packet::Subscribe(Subscribe { packet_id: 1, filters: filters.clone() }))
                    .await;
                match client.packet_or_end().await {
                    None => {}
                    Some(Packet::SubAck { codes, .. }) => assert_eq!(codes, [REFUSED]),
                    Some(other) => panic!("{other:?}"),
                }
            }
        }
        allow_everything(&hub, &device).await;
    }
    hub.stop().await;
}

#[tokio::test]
async fn t603_a_will_is_refused_to_who_may_send_no_telemetry() {
    let hub = TestHub::start().await;
    let mut operator = operator(&hub).await;
    let device = hub.device("d1").await;
    allow(&hub, &device, &["c2d"]).await;
    let mut connect = hub.connect_packet(&device);
    connect.will = Some(will(&events(&device), "x"));
    assert_eq!(hub.connect_with(connect).await.err(), Some(ConnectReturnCode::NotAuthorized));
    let (reason, text) = told(&mut operator).await;
    assert_eq!((&*reason, &*text), ("will_refused", "will: the access list allows c2d, not telemetry"));
    hub.connect(&device).await.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn over_https_the_list_counts_from_the_next_request_on() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let mut rest = hub.rest();
    rest.token = Some(hub.token_for(&device, 3600));
    let queue = "/devices/d1/messages/deviceBound";
    let poll = async || {
        let response = rest.request("GET", &format!("{queue}?{V}")).send().await.unwrap();
        let lock =
            response.headers().get("etag").map(|etag| etag.to_str().unwrap().trim_matches('"').to_owned());
        (response.status().as_u16(), lock)
    };
    let post = async |kind: &str, body: &'static str| {
        let request = rest.request("POST", &format!("/devices/d1/messages/events?{V}"));
        let response = request.header("content-type", kind).body(body).send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    hub.send(&device, "waiting").await;
    let (status, lock) = poll().await;
    let settle = |end: &str| format!("{queue}/{}{end}", lock.clone().unwrap());
    assert_eq!(status, 200);

    allow(&hub, &device, &["twin"]).await;
    assert_eq!(poll().await.0, 403);
    for (method, end) in
        [("DELETE", format!("?{V}")), ("DELETE", format!("?reject&{V}")), ("POST", format!("/abandon?{V}"))]
    {
        assert_eq!(rest.call(method, &settle(&end), None).await.0, 403, "{method} {end}");
    }
    let batch = r#"[{"body":"bm90IHRha2Vu"},{"body":"bm90IHRha2Vu"}]"#;
    for (kind, body) in [("text/plain", "not taken"), ("application/vnd.microsoft.iothub.json", batch)] {
        let (status, answer) = post(kind, body).await;
        assert_eq!(status, 403);
        assert!(
            answer.contains("ErrorCode:GenericForbidden;the access list allows twin, not telemetry"),
            "{answer}"
        );
    }

    allow(&hub, &device, &["telemetry", "c2d"]).await;
    assert_eq!(rest.call("DELETE", &settle(&format!("?{V}")), None).await.0, 204);
    assert_eq!(post("text/plain", "taken").await.0, 204);
    assert_eq!(service.take_message().await.payload, "taken");
    hub.stop().await;
}

/// Replaces an identity over REST, whatever is stored.
async fn update(rest: &RestClient, path: &str, body: Value) -> (u16, Value) {
    let request = rest.request("PUT", &format!("{path}?{V}")).header("if-match", "*").json(&body);
    let response = within(request.send()).await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn a_list_goes_through_rest_as_it_is_and_only_null_takes_it_away() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let list = json!({ "allow": ["telemetry", "methods:diag*"] });
    for path in ["/devices/d1", "/devices/d1/modules/m1"] {
        let create = format!("{path}?{V}");
        let (status, made) = rest.call("PUT", &create, Some(json!({ "access": list }))).await;
        assert_eq!((status, &made["access"]), (200, &list));
        assert_eq!(rest.call("GET", &create, None).await.1["access"], list);
        // As an SDK does that knows nothing of access.
        let (_, updated) = update(&rest, path, json!({ "status": "enabled" })).await;
        assert_eq!(updated["access"], list);
        let (_, updated) = update(&rest, path, json!({ "access": { "allow": [] } })).await;
        assert_eq!(updated["access"], json!({ "allow": [] }));
        let (status, refused) =
            update(&rest, path, json!({ "access": { "allow": ["c2d", "rule the world"] } })).await;
        assert_eq!(status, 400);
        let words = refused["Message"].as_str().unwrap();
        assert!(
            words.starts_with(r#"ErrorCode:ArgumentInvalid;access: "rule the world" is none of"#),
            "{words}"
        );
        let (status, updated) = update(&rest, path, json!({ "access": null })).await;
        assert_eq!((status, updated.get("access")), (200, None));
        let (_, updated) = update(&rest, path, json!({})).await;
        assert_eq!(updated.get("access"), None);
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_list_goes_through_bulk_changes_and_queries() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let item = |id: &str, mode: &str, access: Value| json!({"id": id, "importMode": mode, "access": access});
    let bulk = async |items: Value| rest.call("POST", &format!("/devices?{V}"), Some(items)).await;
    let c2d = json!({ "allow": ["c2d"] });
    let made = json!([
        item("d1", "create", c2d.clone()),
        item("d2", "createOrUpdate", c2d.clone()),
        {"id": "d1", "moduleId": "m1", "importMode": "create", "access": {"allow": ["twin"]}},
        {"id": "d3"},
    ]);
    assert_eq!(bulk(made).await.0, 200);
    let query = async |text: &str| {
        let answer = rest.call("POST", &format!("/devices/query?{V}"), Some(json!({ "query": text }))).await;
        answer.1
    };
    let listed = "SELECT deviceId, access FROM devices WHERE IS_DEFINED(access)";
    assert_eq!(
        query(listed).await,
        json!([{"deviceId": "d1", "access": c2d}, {"deviceId": "d2", "access": c2d}])
    );
    let modules = query("SELECT moduleId, access.allow FROM devices.modules").await;
    assert_eq!(modules, json!([{"moduleId": "m1", "allow": ["twin"]}]));

    let (status, answer) = bulk(json!([
        {"id": "d1", "importMode": "update"},
        item("d2", "update", Value::Null),
        item("d3", "update", json!({ "allow": ["C2D"] })),
    ]))
    .await;
    assert_eq!((status, &answer["errors"][0]["deviceId"]), (400, &json!("d3")));
    assert_eq!(answer["errors"][0]["errorCode"], "ArgumentInvalid");
    assert_eq!(query(listed).await, json!([{"deviceId": "d1", "access": c2d}]));
    hub.stop().await;
}

#[tokio::test]
async fn the_command_line_sets_shows_and_takes_away_a_list() {
    let hub = TestHub::start().await;
    let owner = Shell::new(env!("CARGO_BIN_EXE_portcullis"), &hub, "iothubowner");
    for which in [&["device-identity", "-d", "d1"][..], &["module-identity", "-d", "d1", "-m", "m1"]] {
        let line =
            |verb: &'static str, more: &[&'static str]| [&[which[0], verb][..], &which[1..], more].concat();
        let made = owner.json(&line("create", &["--access", "telemetry,methods:diag*"])).await;
        assert_eq!(made["access"], json!({ "allow": ["telemetry", "methods:diag*"] }));
        assert_eq!(owner.json(&line("show", &[])).await, made);
        let renewed = owner.json(&line("renew-key", &["--kt", "swap"])).await;
        assert_eq!(renewed["access"], made["access"]);
        let words = owner.refused(1, &line("update", &["--access", "everything"])).await;
        assert!(words.contains(r#"access: "everything" is none of telemetry"#), "{words}");
        // A variable that nobody set changes nothing.
        owner.refused(2, &line("update", &["--access", ""])).await;
        assert_eq!(
            owner.json(&line("update", &["--access", "none"])).await["access"],
            json!({ "allow": [] })
        );
        assert_eq!(owner.json(&line("update", &["--access", "all"])).await.get("access"), None);
        let set = owner.json(&line("update", &["--set", r#"access={"allow":["twin"]}"#])).await;
        assert_eq!(set["access"], json!({ "allow": ["twin"] }));
    }
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn what_the_python_service_sdk_writes_back_keeps_the_list() {
    let python = tools::python_service_sdk();
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m1").await;
    for identity in [&device, &module] {
        allow(&hub, identity, &["telemetry"]).await;
    }
    let policies = hub.hub.policies();
    let key = policies.find("iothubowner").unwrap().keys.primary.to_base64();
    // This SDK takes a port in the host's name, and signs it.
    let host = format!("localhost:{}", hub.https.port());
    let owner = format!("HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey={}", key.as_str());
    let mut service = Command::new(python);
    service
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside/access.py"))
        .env("PORTCULLIS_TEST_CONNECTION_STRING", owner)
        .env("REQUESTS_CA_BUNDLE", hub.data_dir().join("ca.pem"))
        .kill_on_drop(true);
    let output = within(service.output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for (identity, reason) in [(&device, Some("by bulk")), (&module, None)] {
        assert_eq!(stored(&hub, identity), Some(vec!["telemetry".to_owned()]));
        assert_eq!(hub.hub.registry.entry(&identity.id).unwrap().identity().status_reason.as_deref(), reason);
    }
    hub.stop().await;
}
