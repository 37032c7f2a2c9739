//! Small fleets against a real hub: everything a run promises, seen in its report and in the hub's registry.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::time::Duration;

use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_simulator::access::{HubAccess, Ports};
use portcullis_simulator::connection_strings::GivenFleet;
use portcullis_simulator::fleet::{Fleet, RunError};
use portcullis_simulator::report::Report;
use portcullis_simulator::scenario::{FleetSpec, Phase, Scenario};
use portcullis_testing::TestHub;
use tokio_util::sync::CancellationToken;

/// Twenty devices that connect and then do what `steady` says.
fn scenario(steady: Phase) -> Scenario {
    let fleet = FleetSpec { devices: 20, ..FleetSpec::default() };
    let connect = Phase { duration: Some(Duration::from_millis(1)), settle: true, ..Phase::default() };
    Scenario { fleet, phases: vec![connect, steady], ..Scenario::default() }
}

fn talking() -> Phase {
    Phase { duration: Some(Duration::from_secs(1)), telemetry_per_second: 10.0, ..Phase::default() }
}

fn ports(hub: &TestHub) -> Ports {
    Ports { mqtt: hub.mqtt.port(), https: hub.https.port() }
}

fn access(hub: &TestHub) -> HubAccess {
    let policies = hub.hub.policies();
    let owner = policies.find("iothubowner").unwrap();
    let login = format!(
        "HostName={};SharedAccessKeyName=iothubowner;SharedAccessKey={}",
        hub.hub.hosts.primary(),
        owner.keys.primary.to_base64().as_str()
    );
    HubAccess::remote(&login, Some(&hub.data_dir().join("ca.pem")), ports(hub)).unwrap()
}

async fn run(hub: &TestHub, scenario: Scenario) -> Report {
    let fleet = Fleet::new(access(hub), scenario.check().unwrap());
    fleet.run(CancellationToken::new()).await.unwrap()
}

fn is_registered(hub: &TestHub, device: &str) -> bool {
    hub.hub.registry.entry(&IdentityId::device(DeviceId::parse(device).unwrap())).is_some()
}

#[tokio::test]
async fn every_message_is_acknowledged_and_the_devices_are_gone_afterwards() {
    let hub = TestHub::start().await;
    let report = run(&hub, scenario(talking())).await;
    assert!(report.is_as_expected(), "{report}");
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
    let quiet = Phase { telemetry_per_second: 0.0, c2d_per_second: 50.0, ..talking() };
    let report = run(&hub, scenario(quiet)).await;
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
    let mut short = scenario(Phase { duration: Some(Duration::from_millis(1)), ..Phase::default() });
    short.fleet.devices = 2;
    assert!(run(&hub, short.clone()).await.is_as_expected());
    assert!(is_registered(&hub, "sim-00001") && !is_registered(&hub, "sim-00002"));
    short.fleet.keep = true;
    assert!(run(&hub, short).await.is_as_expected());
    assert!(is_registered(&hub, "sim-00002"));
    hub.stop().await;
}

#[tokio::test]
async fn a_stopped_run_has_its_report_and_cleans_up() {
    let hub = TestHub::start().await;
    let stop = CancellationToken::new();
    let fleet = Fleet::new(access(&hub), scenario(Phase { duration: None, ..talking() }));
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
    let access = HubAccess::remote(login, Some(&ca), ports(&hub)).unwrap();
    let error = Fleet::new(access, scenario(talking())).run(CancellationToken::new()).await.unwrap_err();
    assert!(matches!(&error, RunError::Provision(error) if error.reason() == "status 401"), "{error:?}");
    assert!(!is_registered(&hub, "sim-00001"));
    hub.stop().await;
}

/// Everything at once, small: modules, all credentials, a herd, flapping, slow readers and hostile company.
#[tokio::test]
async fn a_mixed_fleet_loses_nothing_and_its_hostile_company_gets_nowhere() {
    let hub = TestHub::start().await;
    let scenario = Scenario::parse(
        "name = 'small'\n\
         [fleet]\ndevices = 12\nmodules_per_device = 1\nretry_min = '100ms'\n\
         credentials = { sas = 2, thumbprint = 1, authority = 1 }\nresumption = true\n\
         [[phase]]\nname = 'connect'\nduration = '300ms'\nconnect_over = '300ms'\nsettle = true\n\
         [[phase]]\nname = 'everything'\nduration = '2s'\ntelemetry_per_second = 5\nc2d_per_second = 40\n\
         flapping = { share = 0.2, period = '700ms' }\nslow_readers = 0.1\n\
         hostile = { bad_tokens = 5, wrong_keys = 5, junk = 5, half_handshakes = 5 }\n\
         [[phase]]\nname = 'herd'\nduration = '1s'\nherd = 0.5\ntelemetry_per_second = 5\nc2d_per_second = 20\n\
         [expect]\nlost = 0\nunexpected_errors = 0\nnever_connected = 0\nadmitted = 0\ndropped = 0",
    );
    let report = run(&hub, scenario.unwrap()).await;
    assert!(report.is_as_expected(), "{report}");
    assert!(report.cut_connections > 12, "{report}");
    assert!(report.connects > report.identities, "{report}");
    assert!(report.c2d.received > 0 && report.telemetry.acknowledged > 0, "{report}");
    for kind in ["bad tokens", "wrong keys", "junk"] {
        let outcome = report.hostile.iter().find(|hostile| hostile.kind == kind);
        assert!(
            outcome.is_some_and(|hostile| ["refused", "closed"].contains(&hostile.outcome)),
            "{kind}: {report}"
        );
    }
    assert!(report.notes.is_empty(), "{report}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["course"]["phases"][1]["name"], "everything");
    let page = report.to_html();
    assert!(
        page.contains("everything") && page.matches("<svg").count() == page.matches("</svg>").count(),
        "{page}"
    );
    assert!(!is_registered(&hub, "sim-00001"));
    hub.stop().await;
}

/// What a real IoT Hub offers is a device's connection string and MQTT; nothing more is asked for.
#[tokio::test]
async fn a_file_of_connection_strings_needs_no_rights_and_makes_nothing() {
    let hub = TestHub::start().await;
    let mut lines = String::new();
    for name in ["pump-1", "pump-2", "pump-3"] {
        let key = hub.device(name).await.keys.primary.to_base64();
        lines += &format!(
            "HostName={};DeviceId={name};SharedAccessKey={}\n",
            hub.hub.hosts.primary(),
            key.as_str()
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("devices.txt");
    fs::write(&file, lines).unwrap();
    let given = GivenFleet::read(&file).unwrap();
    let ca = hub.data_dir().join("ca.pem");
    let access = HubAccess::of_devices(&given.hostname, Some(&ca), ports(&hub)).unwrap();
    let phase = Phase { c2d_per_second: 5.0, ..talking() };
    let fleet = Fleet::of(access, scenario(phase), given.identities).unwrap();
    let report = fleet.run(CancellationToken::new()).await.unwrap();
    assert!(report.is_as_expected(), "{report}");
    assert!(report.telemetry.sent > 0 && report.telemetry.acknowledged == report.telemetry.sent, "{report}");
    assert!(report.reasons.is_empty(), "{report}");
    assert!(report.notes[0].contains("no policy"), "{report}");
    assert!(is_registered(&hub, "pump-1") && !is_registered(&hub, "sim-00001"));
    hub.stop().await;
}
