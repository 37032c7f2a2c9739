//! The official Azure IoT SDK for Python, as it comes from its package index, against a hub: `outside/device.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::Unit;
use portcullis::iothub::property_bag::PropertyBag;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_registry::message::{Ack, NewC2d};
use portcullis_testing::openssl::OpenSsl;
use portcullis_testing::x509::thumbprints;
use portcullis_testing::{HubSettings, TestHub, TestIdentity, tools, within};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_sdk_sends_telemetry_and_receives_a_message() {
    let python = tools::python_sdk();
    let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
    converse(&python, hub, Transport::Mqtt).await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_sdk_converses_over_websockets_too() {
    let python = tools::python_sdk();
    let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
    converse(&python, hub, Transport::WebSockets).await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_sdk_hears_of_a_wrong_key_as_a_credential_error() {
    let python = tools::python_sdk();
    for transport in [Transport::Mqtt, Transport::WebSockets] {
        let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
        let pump = hub.device("pump-7").await;
        let mut device = PythonDevice::start(&python, &hub, &pump, &SymmetricKey::generate(), transport);
        assert_eq!(device.next_line().await, json!({ "event": "refused" }));
        assert_eq!(device.exit_code().await, Some(2));
        hub.stop().await;
    }
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_sdk_proves_itself_with_a_certificate_by_thumbprint_and_by_ca() {
    let python = tools::python_sdk();
    let openssl = OpenSsl::new();
    openssl.self_signed("own", "/CN=anything", "-newkey rsa:2048");
    openssl.self_signed("fleet", "/CN=fleet", "-newkey rsa:2048");
    let client = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    openssl.signed("pump-7", "/CN=pump-7", "fleet", client, "");
    for (certificate, transport) in
        [("own", Transport::Mqtt), ("pump-7", Transport::Mqtt), ("own", Transport::WebSockets)]
    {
        let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
        let authentication = match certificate {
            "own" => thumbprints(Some(openssl.shown("own", &[]).certificate()), None),
            _ => AuthenticationSpec::CertificateAuthority,
        };
        enrol(&hub, &openssl).await;
        hub.register("pump-7", authentication).await;
        let mut events = hub.events().await;
        let mut device =
            PythonDevice::with_certificate(&python, &hub, &openssl, certificate, "pump-7", transport);
        for event in ["connected", "subscribed", "sent"] {
            assert_eq!(device.next_line().await, json!({ "event": event }));
        }
        assert_eq!(events.take_message().await.payload, "21.5 degrees");
        let id = portcullis_testing::x509::identity("pump-7");
        let message = NewC2d { body: "open".into(), ..NewC2d::default() };
        hub.hub.registry.send(&id, message, hub.hub.clock.wall()).await.unwrap();
        assert_eq!(device.next_line().await["data"], "open");
        assert_eq!(device.exit_code().await, Some(0));
        hub.stop().await;
    }
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_sdks_modules_prove_themselves_with_certificates_too() {
    let python = tools::python_sdk();
    let openssl = OpenSsl::new();
    openssl.self_signed("own", "/CN=anything", "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
    openssl.self_signed("fleet", "/CN=fleet", "-newkey rsa:2048");
    let client = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    openssl.signed("camera", "/CN=pump-7\\/camera", "fleet", client, "");
    let hub = TestHub::start_with(on_the_ports_of_the_sdk()).await;
    enrol(&hub, &openssl).await;
    hub.register("pump-7", AuthenticationSpec::CertificateAuthority).await;
    hub.register("pump-7/camera", AuthenticationSpec::CertificateAuthority).await;
    hub.register("pump-7/lamp", thumbprints(Some(openssl.shown("own", &[]).certificate()), None)).await;
    let mut events = hub.events().await;
    for (id, certificate) in [("pump-7/camera", "camera"), ("pump-7/lamp", "own")] {
        let mut module =
            PythonDevice::with_certificate(&python, &hub, &openssl, certificate, id, Transport::Mqtt);
        for event in ["connected", "sent"] {
            assert_eq!(module.next_line().await, json!({ "event": event }));
        }
        assert_eq!(events.take_message().await.payload, "21.5 degrees");
        assert_eq!(module.exit_code().await, Some(0));
    }
    // Another's certificate.
    let mut module =
        PythonDevice::with_certificate(&python, &hub, &openssl, "own", "pump-7/camera", Transport::Mqtt);
    assert_eq!(module.next_line().await, json!({ "event": "refused" }));
    assert_eq!(module.exit_code().await, Some(2));
    assert!(hub.last_refusal("pump-7/camera").contains("signed by itself"));
    hub.stop().await;
}

/// Has the hub trust the CA in `fleet.pem`.
async fn enrol(hub: &TestHub, openssl: &OpenSsl) {
    let fleet = json!({ "certificate": openssl.read("fleet.pem"), "verified": true, "reason": "a test" });
    let enrolled = hub.rest().call("PUT", "/api/v1/certificate-authorities/fleet", Some(fleet)).await;
    assert_eq!(enrolled.0, 200, "{}", enrolled.1);
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
        let mut command = Self::command(python, hub, transport);
        command.env(
            "PORTCULLIS_TEST_CONNECTION_STRING",
            format!("HostName={host};DeviceId={};SharedAccessKey={}", identity.id, key.as_str()),
        );
        Self::run(command)
    }

    /// One that shows the certificate in `{certificate}.pem`; a module when the id has a slash.
    fn with_certificate(
        python: &Path,
        hub: &TestHub,
        openssl: &OpenSsl,
        certificate: &str,
        id: &str,
        transport: Transport,
    ) -> Self {
        let mut command = Self::command(python, hub, transport);
        let (device, module) =
            id.split_once('/').map_or((id, None), |(device, module)| (device, Some(module)));
        command
            .env("PORTCULLIS_TEST_CERTIFICATE", openssl.path(&format!("{certificate}.pem")))
            .env("PORTCULLIS_TEST_KEY", openssl.path(&format!("{certificate}-key.pem")))
            .env("PORTCULLIS_TEST_HOST", hub.hub.hosts.primary())
            .env("PORTCULLIS_TEST_DEVICE", device);
        if let Some(module) = module {
            command.env("PORTCULLIS_TEST_MODULE", module);
        }
        Self::run(command)
    }

    fn command(python: &Path, hub: &TestHub, transport: Transport) -> Command {
        let websockets = match transport {
            Transport::Mqtt => "0",
            Transport::WebSockets => "1",
        };
        let mut command = Command::new(python);
        command
            .env("PORTCULLIS_TEST_WEBSOCKETS", websockets)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside/device.py"))
            .env("PORTCULLIS_TEST_CA", hub.data_dir().join("ca.pem"));
        command
    }

    fn run(mut command: Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
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
