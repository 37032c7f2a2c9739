//! mosquitto's command line clients against a hub, as the README shows them.

use std::process::{Command, Output};

use portcullis::testing::{TestHub, TestIdentity, tools, within};

#[tokio::test]
async fn mosquitto_pub_sends_telemetry() {
    let Some(mosquitto) = tools::mosquitto() else { return };
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
async fn mosquitto_sub_receives_what_was_sent_before_it_came() {
    let Some(mosquitto) = tools::mosquitto() else { return };
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
async fn mosquitto_pub_hears_that_a_token_is_not_accepted() {
    let Some(mosquitto) = tools::mosquitto() else { return };
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

/// The arguments by which a device comes in.
fn login(command: &mut Command, hub: &TestHub, identity: &TestIdentity, token: &str) {
    let host = hub.hub.hosts.primary();
    command.args(["-h", host, "-p", &hub.mqtt.port().to_string(), "-V", "mqttv311", "-q", "1"]);
    command.arg("--cafile").arg(hub.data_dir().join("ca.pem")).args(["--tls-version", "tlsv1.2"]);
    command.args([
        "-i",
        &identity.id.to_string(),
        "-u",
        &format!("{host}/{}/?api-version=2021-04-12", identity.id),
    ]);
    command.args(["-P", token]);
}

async fn run(command: Command) -> Output {
    let mut command = tokio::process::Command::from(command);
    within(command.kill_on_drop(true).output()).await.unwrap()
}
