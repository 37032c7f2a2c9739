//! mosquitto's command line clients against a hub, as the manual shows them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use portcullis_registry::identity::{Authentication, AuthenticationSpec};
use portcullis_testing::openssl::OpenSsl;
use portcullis_testing::shell::Shell;
use portcullis_testing::x509::{identity, thumbprints};
use portcullis_testing::{TestHub, TestIdentity, tools, until, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn mosquitto_pub_sends_telemetry() {
    let mosquitto = tools::mosquitto();
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let mut events = hub.events().await;
    let mut publish = mosquitto.publisher();
    login(&mut publish, &hub, &pump, &hub.token_for(&pump, 3600));
    publish.args(["-t", "devices/pump-7/messages/events/colour=red", "-m", "21.5 degrees"]);

    let output = run(publish).await;
    assert!(output.status.success(), "{output:?}");
    let telemetry = events.take_message().await;
    assert_eq!(telemetry.payload, "21.5 degrees");
    assert!(telemetry.topic.as_str().ends_with("colour=red"), "{}", telemetry.topic.as_str());
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn mosquitto_sub_receives_what_was_sent_before_it_came() {
    let mosquitto = tools::mosquitto();
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    hub.send(&pump, "open valve").await;
    let mut subscribe = mosquitto.subscriber();
    login(&mut subscribe, &hub, &pump, &hub.token_for(&pump, 3600));
    subscribe.args(["-t", "devices/pump-7/messages/devicebound/#", "-c", "-C", "2", "-F", "%q %r %p"]);
    hub.send(&pump, "shut valve").await;

    let output = run(subscribe).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "1 0 open valve\n1 0 shut valve\n");
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn mosquitto_pub_hears_that_a_token_is_not_accepted() {
    let mosquitto = tools::mosquitto();
    let hub = TestHub::start().await;
    let pump = hub.device("pump-7").await;
    let other = hub.device("pump-8").await;
    let mut publish = mosquitto.publisher();
    login(&mut publish, &hub, &pump, &hub.token_for(&other, 3600));
    publish.args(["-t", "devices/pump-7/messages/events/", "-m", "21.5 degrees"]);

    let output = run(publish).await;
    assert!(!output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("Connection Refused: not authorised"), "{said}");
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn mosquitto_pub_proves_itself_with_certificates_made_by_openssl() {
    let mosquitto = tools::mosquitto();
    let openssl = OpenSsl::new();
    openssl.self_signed("own", "/CN=own", "-newkey rsa:2048");
    openssl.self_signed("fleet", "/CN=fleet", "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1");
    let client = "basicConstraints=CA:FALSE\nextendedKeyUsage=clientAuth\n";
    openssl.signed("pump-7", "/CN=pump-7", "fleet", client, "");
    // A slash parts the names of a subject, unless it is escaped.
    openssl.signed("camera", "/CN=pump-7\\/camera", "fleet", client, "");
    let hub = TestHub::start().await;
    hub.register("own", thumbprints(Some(openssl.shown("own", &[]).certificate()), None)).await;
    let fleet =
        serde_json::json!({ "certificate": openssl.read("fleet.pem"), "verified": true, "reason": "a test" });
    assert_eq!(hub.rest().call("PUT", "/api/v1/certificate-authorities/fleet", Some(fleet)).await.0, 200);
    let by_ca = || AuthenticationSpec::CertificateAuthority;
    hub.register("pump-7", by_ca()).await;
    hub.register("pump-7/camera", by_ca()).await;
    hub.register("own/camera", thumbprints(Some(openssl.shown("own", &[]).certificate()), None)).await;
    let mut events = hub.events().await;
    for (id, certificate) in
        [("own", "own"), ("own/camera", "own"), ("pump-7", "pump-7"), ("pump-7/camera", "camera")]
    {
        for version in ["tlsv1.2", "tlsv1.3"] {
            let mut publish = mosquitto.publisher();
            address(&mut publish, &hub, id, version);
            publish.arg("--cert").arg(openssl.path(&format!("{certificate}.pem")));
            publish.arg("--key").arg(openssl.path(&format!("{certificate}-key.pem")));
            let topic = format!("devices/{}/messages/events/", id.replace('/', "/modules/"));
            publish.args(["-t", &topic, "-m", id]);
            let output = run(publish).await;
            assert!(output.status.success(), "{id} {version}: {output:?}");
            assert_eq!(events.take_message().await.payload, id);
        }
    }
    let mut publish = mosquitto.publisher();
    address(&mut publish, &hub, "pump-7", "tlsv1.2");
    publish.arg("--cert").arg(openssl.path("own.pem")).arg("--key").arg(openssl.path("own-key.pem"));
    publish.args(["-t", "devices/pump-7/messages/events/", "-m", "x"]);
    let output = run(publish).await;
    assert!(String::from_utf8_lossy(&output.stderr).contains("not authorised"), "{output:?}");
    assert!(hub.last_refusal("pump-7").contains("signed by itself"), "{}", hub.last_refusal("pump-7"));
    hub.stop().await;
}

/// The commands the manual shows for operating over MQTT, for this hub.
fn commands_of_the_manual(hub: &TestHub) -> Vec<String> {
    let manual = include_str!("../../README.md");
    let section = manual.split("\n## Operating over MQTT").nth(1).unwrap();
    let commands = section.split("```sh\n").nth(1).unwrap().split("```").next().unwrap().lines();
    let ca = hub.data_dir().join("ca.pem").display().to_string();
    let here = |line: &str| {
        line.replace("-p 8883", &format!("-p {}", hub.mqtt.port())).replace("portcullis-data/ca.pem", &ca)
    };
    commands.map(here).collect()
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn mosquittos_clients_alone_create_list_and_disable_a_device_and_see_its_connection_fall() {
    let mosquitto = tools::mosquitto();
    let hub = TestHub::start().await;
    let login = Shell::new(env!("CARGO_BIN_EXE_portcullis"), &hub, "iothubowner").command(&[]);
    let mut shell = mosquitto.shell(Path::new(env!("CARGO_BIN_EXE_portcullis")));
    let known = login.as_std().get_envs().filter_map(|(name, value)| Some((name, value?)));
    shell.envs(known).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = tokio::process::Command::from(shell).spawn().unwrap();
    let (mut input, output) = (shell.stdin.take().unwrap(), shell.stdout.take().unwrap());
    let mut lines = BufReader::new(output).lines();
    let mut told = async |start: &str| {
        let line = within(lines.next_line()).await.unwrap().expect("a line");
        assert!(line.starts_with(start), "{line}");
        line
    };
    // However this ends, the shell's input does too, and it takes along what it left running.
    within(input.write_all(b"trap 'kill $!' EXIT\n")).await.unwrap();
    let mut commands = commands_of_the_manual(&hub).into_iter();
    let mut enter = async |count: usize| {
        for line in commands.by_ref().take(count) {
            within(input.write_all(format!("{line}\n").as_bytes())).await.unwrap();
        }
    };

    // The token, the address, and the reader of events.
    enter(3).await;
    until(|| hub.hub.events.listeners() == 1).await;
    enter(2).await;
    told("$admin/events/identityCreated/pump-7 {").await;
    let listed = told("[{").await;
    assert!(listed.contains(r#""deviceId":"pump-7""#), "{listed}");

    let registered = hub.hub.registry.entry(&identity("pump-7")).unwrap().identity();
    let Authentication::Sas(keys) = registered.authentication.clone() else { panic!("{registered:?}") };
    let pump = TestIdentity { id: identity("pump-7"), keys };
    let mut subscribe = mosquitto.subscriber();
    self::login(&mut subscribe, &hub, &pump, &hub.token_for(&pump, 3600));
    subscribe.args(["-t", "devices/pump-7/messages/devicebound/#"]);
    let device = tokio::spawn(run(subscribe));
    told("$admin/events/connected/pump-7 {").await;
    enter(1).await;
    told("$admin/events/identityUpdated/pump-7 {").await;
    let fallen = told("$admin/events/disconnected/pump-7 {").await;
    assert!(fallen.contains(r#""reason":"disabled""#), "{fallen}");
    let ended = device.await.unwrap();
    assert!(!ended.status.success(), "{ended:?}");
    assert_eq!(commands.next(), None);
    drop(input);
    within(shell.wait()).await.unwrap();
    hub.stop().await;
}

/// The arguments by which a device comes in.
fn login(command: &mut Command, hub: &TestHub, identity: &TestIdentity, token: &str) {
    address(command, hub, &identity.id.to_string(), "tlsv1.2");
    command.args(["-P", token]);
}

/// The arguments by which a device finds the hub and says who it is.
fn address(command: &mut Command, hub: &TestHub, id: &str, version: &str) {
    let host = hub.hub.hosts.primary();
    command.args(["-h", host, "-p", &hub.mqtt.port().to_string(), "-V", "mqttv311", "-q", "1"]);
    command.arg("--cafile").arg(hub.data_dir().join("ca.pem")).args(["--tls-version", version]);
    command.args(["-i", id, "-u", &format!("{host}/{id}/?api-version=2021-04-12")]);
}

async fn run(command: Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    within(command.kill_on_drop(true).output()).await.unwrap()
}
