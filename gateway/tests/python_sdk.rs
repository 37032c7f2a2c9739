//! The official Azure IoT SDK for Python, as it comes from its package index, against a hub: `outside/device.py`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::Unit;
use portcullis::mqtt::bag::PropertyBag;
use portcullis::testing::{HubSettings, TestHub, TestIdentity, tools, within};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::message::{Ack, NewC2d};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

#[tokio::test]
async fn the_python_sdk_sends_telemetry_and_receives_a_message() {
    let Some(python) = tools::python_sdk() else { return };
    let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
    converse(&python, hub, Transport::Mqtt).await;
}

#[tokio::test]
async fn the_python_sdk_converses_over_websockets_too() {
    let Some(python) = tools::python_sdk() else { return };
    let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
    converse(&python, hub, Transport::WebSockets).await;
}

#[tokio::test]
async fn the_python_sdk_hears_of_a_wrong_key_as_a_credential_error() {
    let Some(python) = tools::python_sdk() else { return };
    for transport in [Transport::Mqtt, Transport::WebSockets] {
        let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
        let pump = hub.device("pump-7").await;
        let mut device = PythonDevice::start(&python, &hub, &pump, &SymmetricKey::generate(), transport);
        assert_eq!(device.next_line().await, json!({ "event": "refused" }));
        assert_eq!(device.exit_code().await, Some(2));
        hub.stop().await;
    }
}

/// The whole conversation of `outside/device.py`.
async fn converse(python: &Path, hub: TestHub, transport: Transport) {
    let pump = hub.device("pump-7").await;
    let mut events = hub.events().await;
    let mut device = PythonDevice::start(python, &hub, &pump, &pump.keys.secondary, transport);

    assert_eq!(device.next_line().await, json!({ "event": "connected" }));
    assert_eq!(device.next_line().await, json!({ "event": "subscribed" }));
    assert_eq!(device.next_line().await, json!({ "event": "sent" }));
    let telemetry = events.take_message().await;
    assert_eq!(telemetry.payload, "21.5 degrees");
    let (topic, bag) = telemetry.topic.as_str().rsplit_once('/').unwrap();
    assert_eq!(topic, "devices/pump-7/messages/events");
    let bag = PropertyBag::parse(bag).unwrap();
    assert_eq!(bag.find("$.mid"), Some("reading 1/é"));
    assert_eq!(bag.find("$.ct"), Some("text/plain"));
    assert_eq!(bag.find("$.ce"), Some("utf-8"));
    assert_eq!(bag.find("room"), Some("kitchen & hall=100%"));
    assert_eq!(bag.find("größe"), Some("a/b+c"));

    let properties = BTreeMap::from([("colour", "rosé & red"), ("path", "a/b=c+d%"), ("valve", "3")]);
    let expiry = hub.hub.clock.wall().round(Unit::Second).unwrap() + Duration::from_secs(600);
    let own = |(name, value): (&&str, &&str)| (name.to_string(), value.to_string());
    let message = NewC2d {
        message_id: Some("order 1/é".into()),
        correlation_id: Some("reading-1".into()),
        user_id: Some("ops & co".into()),
        content_type: Some("text/plain; charset=utf-8".into()),
        content_encoding: Some("utf-8".into()),
        ack: Ack::Full,
        expiry: Some(expiry),
        properties: properties.iter().map(own).collect(),
        body: "open välve".into(),
        ..NewC2d::default()
    };
    hub.send_message(&pump, message).await;
    let received = json!({
        "event": "received",
        "data": "open välve",
        "messageId": "order 1/é",
        "correlationId": "reading-1",
        "userId": "ops & co",
        "contentType": "text/plain; charset=utf-8",
        "contentEncoding": "utf-8",
        "ack": "full",
        "expiry": format!("{expiry:.7}"),
        "properties": properties,
    });
    assert_eq!(device.next_line().await, received);
    assert_eq!(device.exit_code().await, Some(0));
    hub.stop().await;
}

/// How the SDK reaches the hub.
#[derive(Clone, Copy)]
enum Transport {
    Mqtt,
    WebSockets,
}

/// `outside/device.py`, running.
struct PythonDevice {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl PythonDevice {
    fn start(
        python: &Path,
        hub: &TestHub,
        identity: &TestIdentity,
        key: &SymmetricKey,
        transport: Transport,
    ) -> Self {
        let host = hub.hub.hosts.primary();
        let key = key.to_base64();
        let websockets = match transport {
            Transport::Mqtt => "0",
            Transport::WebSockets => "1",
        };
        let mut process = Command::new(python)
            .env("PORTCULLIS_TEST_WEBSOCKETS", websockets)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside/device.py"))
            .env(
                "PORTCULLIS_TEST_CONNECTION_STRING",
                format!("HostName={host};DeviceId={};SharedAccessKey={}", identity.id, key.as_str()),
            )
            .env("PORTCULLIS_TEST_CA", hub.data_dir().join("ca.pem"))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// What the device tells next.
    async fn next_line(&mut self) -> Value {
        let line = within(self.lines.next_line()).await.unwrap().expect("the device has more to tell");
        serde_json::from_str(&line).unwrap()
    }

    async fn exit_code(mut self) -> Option<i32> {
        within(self.process.wait()).await.unwrap().code()
    }
}

/// The SDK knows ports 8883 and 443 only, so each test takes a loopback address of its own for them (443 needs root).
/// The address is the host name too, for nothing else resolves to it.
fn on_the_ports_of_the_sdk() -> HubSettings {
    static TESTS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, TESTS.fetch_add(1, Ordering::Relaxed)));
    HubSettings {
        hostname: address.to_string(),
        mqtt: Some(SocketAddr::new(address, 8883)),
        https: Some(SocketAddr::new(address, 443)),
        ..HubSettings::default()
    }
}
