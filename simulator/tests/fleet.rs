//! A small fleet against a real hub: everything a run promises, seen in its report and in the hub's registry.

use std::time::Duration;

use portcullis::testing::TestHub;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_simulator::access::HubAccess;
use portcullis_simulator::fleet::Fleet;
use portcullis_simulator::report::Report;
use portcullis_simulator::scenario::Scenario;
use tokio_util::sync::CancellationToken;

fn scenario() -> Scenario {
    Scenario {
        devices: 20,
        prefix: "sim".into(),
        rate_per_second: 10.0,
        duration: Some(Duration::from_secs(1)),
        payload_bytes: 64,
        c2d_rate_per_second: 0.0,
        keep: false,
    }
}

fn access(hub: &TestHub) -> HubAccess {
    let policies = hub.hub.policies();
    let owner = policies.find("iothubowner").unwrap();
    let login = format!(
        "HostName={};SharedAccessKeyName=iothubowner;SharedAccessKey={}",
        hub.hub.hosts.primary(),
        owner.keys.primary.to_base64().as_str()
    );
    HubAccess::remote(&login, Some(&hub.data_dir().join("ca.pem")), hub.mqtt.port(), hub.https.port())
        .unwrap()
}

async fn run(hub: &TestHub, scenario: Scenario) -> Report {
    let fleet = Fleet::new(access(hub), scenario.check().unwrap()).unwrap();
    fleet.run(CancellationToken::new()).await.unwrap()
}

fn is_registered(hub: &TestHub, device: &str) -> bool {
    hub.hub.registry.entry(&IdentityId::device(DeviceId::parse(device).unwrap())).is_some()
}

#[tokio::test]
async fn every_message_is_acknowledged_and_the_devices_are_gone_afterwards() {
    let hub = TestHub::start().await;
    let report = run(&hub, scenario()).await;
    assert!(report.all_connected(), "{report}");
    assert_eq!(report.dropped_connections, 0, "{report}");
    assert!(report.telemetry.sent > 0, "{report}");
    assert_eq!(report.telemetry.acknowledged, report.telemetry.sent, "{report}");
    assert_eq!(report.publish_ms.count, report.telemetry.acknowledged, "{report}");
    assert_eq!(report.connect_ms.count, 20, "{report}");
    assert!(report.reasons.is_empty(), "{report}");
    assert!(!is_registered(&hub, "sim-00001"));
    hub.stop().await;
}

#[tokio::test]
async fn messages_to_the_fleet_arrive_and_are_acknowledged() {
    let hub = TestHub::start().await;
    let report = run(&hub, Scenario { rate_per_second: 0.0, c2d_rate_per_second: 50.0, ..scenario() }).await;
    assert_eq!(report.telemetry.sent, 0, "{report}");
    assert!(report.c2d.sent > 0, "{report}");
    assert_eq!(report.c2d.received, report.c2d.sent, "{report}");
    assert_eq!(report.c2d.repeated, 0, "{report}");
    assert!(report.reasons.is_empty(), "{report}");
    hub.stop().await;
}

#[tokio::test]
async fn devices_that_were_there_are_reused_and_left() {
    let hub = TestHub::start().await;
    hub.device("sim-00001").await;
    let short = Scenario { devices: 2, duration: Some(Duration::from_millis(1)), ..scenario() };
    assert!(run(&hub, short.clone()).await.all_connected());
    assert!(is_registered(&hub, "sim-00001") && !is_registered(&hub, "sim-00002"));
    assert!(run(&hub, Scenario { keep: true, ..short }).await.all_connected());
    assert!(is_registered(&hub, "sim-00002"));
    hub.stop().await;
}

#[tokio::test]
async fn a_stopped_run_has_its_report_and_cleans_up() {
    let hub = TestHub::start().await;
    let stop = CancellationToken::new();
    let fleet = Fleet::new(access(&hub), Scenario { duration: None, ..scenario() }).unwrap();
    let mut events = hub.events().await;
    let running = tokio::spawn(fleet.run(stop.clone()));
    events.take_message().await;
    stop.cancel();
    let report = running.await.unwrap().unwrap();
    assert!(report.telemetry.sent > 0, "{report}");
    assert_eq!(report.telemetry.acknowledged, report.telemetry.sent, "{report}");
    assert!(!is_registered(&hub, "sim-00001"));
    hub.stop().await;
}

#[tokio::test]
async fn a_refused_login_makes_no_device() {
    let hub = TestHub::start().await;
    let login = "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let ca = hub.data_dir().join("ca.pem");
    let access = HubAccess::remote(login, Some(&ca), hub.mqtt.port(), hub.https.port()).unwrap();
    let error = Fleet::new(access, scenario()).unwrap().run(CancellationToken::new()).await.unwrap_err();
    assert_eq!(error.reason(), "status 401");
    assert!(!is_registered(&hub, "sim-00001"));
    hub.stop().await;
}
