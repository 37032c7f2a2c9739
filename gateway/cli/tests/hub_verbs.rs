//! The built command line on a hub as a whole: its policies, its status, what is wrong with it, and its own manual.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use portcullis_registry::credential::SymmetricKey;
use portcullis_testing::TestHub;
use portcullis_testing::shell::{Ended, Shell};
use serde_json::{Value, json};

fn shell(hub: &TestHub, policy: &str) -> Shell {
    Shell::new(PROGRAM, hub, policy)
}

/// A key of 32 equal bytes.
fn key(byte: u8) -> String {
    SymmetricKey::from_bytes(vec![byte; 32]).unwrap().to_base64().as_str().to_owned()
}

#[tokio::test]
async fn the_audit_tail_shows_what_changed_and_who_saw_keys() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    owner.json(&["device-identity", "create", "-d", "d1"]).await;
    let string = owner.print(&["connection-string", "show", "-d", "d1"]).await;
    let reason = "lost\u{1b}[31m";
    owner
        .json(&["device-identity", "update", "-d", "d1", "--status", "disabled", "--status-reason", reason])
        .await;
    owner.json(&["device-identity", "renew-key", "-d", "d1", "--key-type", "primary"]).await;
    let told = owner.json(&["audit", "tail", "-d", "d1", "-o", "json"]).await;
    let of = |operation: &str| {
        let told = told.as_array().unwrap().iter().filter(|line| line["op"] == operation);
        told.map(|line| line["changes"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(of("createIdentity"), [json!({"authentication": {"before": null, "after": "sas"}})]);
    let expected = [
        json!({
            "status": {"before": "enabled", "after": "disabled"},
            "statusReason": {"before": null, "after": reason},
        }),
        json!({"primaryKey": "changed"}),
    ];
    assert_eq!(of("updateIdentity"), expected);
    assert!(!of("revealCredential").is_empty());
    let table = owner.print(&["audit", "tail", "-d", "d1", "-n", "100", "-o", "table"]).await;
    for told in ["What", "status: enabled -> disabled", "statusReason: none -> lost", "primaryKey: changed"] {
        assert!(table.contains(told), "{told}: {table}");
    }
    let key = string.trim().rsplit_once("SharedAccessKey=").unwrap().1;
    assert!(!table.contains('\u{1b}') && !table.contains(key), "{table}");
    hub.stop().await;
}

#[tokio::test]
async fn a_policy_is_created_used_renewed_and_deleted() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let secret = hub.data_dir().join("secondary.key");
    std::fs::write(&secret, key(7)).unwrap();
    let from_file = format!("@{}", secret.display());
    let line = ["policy", "create", "--name", "dashboard", "--rights", "RegistryRead", "serviceconnect"];
    let made = owner.json(&[&line[..], &["--sk", &from_file]].concat()).await;
    assert_eq!(made["rights"], json!(["RegistryRead", "ServiceConnect"]));
    assert_eq!(made["secondaryKey"], key(7));
    owner.refused(4, &line).await;
    assert_eq!(owner.json(&["policy", "show", "--policy-name", "dashboard"]).await, made);

    // What is printed for it signs in, with its rights and no others.
    let string = owner.print(&["connection-string", "show", "--policy-name", "dashboard"]).await;
    let primary = made["primaryKey"].as_str().unwrap();
    assert!(
        string.contains(&format!(";SharedAccessKeyName=dashboard;SharedAccessKey={primary}\n")),
        "{string}"
    );
    let dashboard = Shell::with_key(PROGRAM, &hub, "dashboard", primary);
    assert_eq!(dashboard.print(&["device-identity", "list"]).await, "[]\n");
    dashboard.refused(5, &["device-identity", "create", "-d", "d1"]).await;
    dashboard.refused(5, &["policy", "list"]).await;

    let listed = owner.json(&["policy", "list"]).await;
    let names = listed.as_array().unwrap().iter().map(|policy| policy["name"].as_str().unwrap());
    assert_eq!(names.filter(|name| *name == "dashboard").count(), 1);
    let built_in: Vec<_> =
        listed.as_array().unwrap().iter().map(|policy| policy["builtIn"] == true).collect();
    assert_eq!(built_in, [true, true, true, true, true, false]);
    let table = owner.print(&["policy", "list", "-o", "table"]).await;
    assert_eq!(table.lines().count(), 2 + 6, "{table}");
    for policy in listed.as_array().unwrap() {
        for name in ["primaryKey", "secondaryKey"] {
            assert!(!table.contains(policy[name].as_str().unwrap()), "{table}");
        }
    }

    let swapped = owner.json(&["policy", "regenerate", "-n", "dashboard", "--kt", "swap"]).await;
    assert_eq!((&swapped["primaryKey"], &swapped["secondaryKey"]), (&json!(key(7)), &json!(primary)));
    dashboard.print(&["device-identity", "list"]).await;
    owner.print(&["policy", "renew-key", "-n", "dashboard", "--kt", "secondary", "-o", "none"]).await;
    dashboard.refused(5, &["device-identity", "list"]).await;
    let dashboard = Shell::with_key(PROGRAM, &hub, "dashboard", &key(7));
    dashboard.print(&["device-identity", "list"]).await;
    owner.print(&["policy", "delete", "-n", "dashboard", "--yes"]).await;
    dashboard.refused(5, &["device-identity", "list"]).await;

    owner.refused(3, &["policy", "delete", "-n", "dashboard"]).await;
    owner.refused(3, &["policy", "show", "-n", "dashboard"]).await;
    owner.refused(3, &["policy", "regenerate", "-n", "dashboard", "--kt", "both"]).await;
    owner.refused(3, &["connection-string", "show", "--policy-name", "dashboard"]).await;
    owner.refused(1, &["policy", "delete", "-n", "service"]).await;
    hub.stop().await;
}

#[tokio::test]
async fn p12_a_policy_is_shown_with_its_keys_in_json_and_without_them_in_tables() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let keys = hub.hub.policies().find("service").unwrap().keys.clone();
    let (primary, secondary) = (keys.primary.to_base64(), keys.secondary.to_base64());
    let shown = owner.json(&["policy", "show", "--name", "service"]).await;
    assert_eq!(shown["rights"], json!(["ServiceConnect"]));
    assert_eq!((&shown["primaryKey"], &shown["secondaryKey"]), (&json!(*primary), &json!(*secondary)));
    for more in [&["-o", "table"][..], &["-o", "tsv"], &["-o", "table", "--query", "@"]] {
        let text = owner.print(&[&["policy", "show", "--name", "service"][..], more].concat()).await;
        assert!(text.contains("service"), "{text}");
        assert!(!text.contains(&*primary) && !text.contains(&*secondary), "{text}");
    }
    let text = owner.print(&["policy", "show", "-n", "service", "-o", "table", "--show-keys"]).await;
    assert!(text.contains(&*primary) && text.contains(&*secondary), "{text}");
    let picked = ["policy", "show", "-n", "service", "--query", "secondaryKey", "-o", "tsv"];
    assert_eq!(owner.print(&picked).await.trim(), *secondary);
    let words = owner.refused(3, &["policy", "show", "-n", "nothing"]).await;
    assert!(words.contains("hint: `portcullis policy list`"), "{words}");
    hub.stop().await;
}

#[tokio::test]
async fn status_tells_what_the_policy_may_know() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    hub.disable(&hub.device("d2").await).await;
    let _client = hub.connect(&device).await;
    let status = shell(&hub, "iothubowner").json(&["status"]).await;
    let counts = json!({"host": "localhost", "ready": true, "version": null, "devices": 2, "enabledDevices": 1, "connectedDevices": 1});
    assert_eq!(status, counts);
    let reader = shell(&hub, "registryRead").json(&["status"]).await;
    assert_eq!((&reader["devices"], &reader["connectedDevices"]), (&json!(2), &json!(null)));
    let mut owner = shell(&hub, "iothubowner");
    let kept = tempfile::tempdir().unwrap();
    owner.ca = kept.path().join("ca.pem");
    std::fs::write(&owner.ca, hub.ca_pem()).unwrap();
    hub.stop().await;
    let words = owner.refused(1, &["status"]).await;
    assert!(words.contains("check that the hub runs"), "{words}");
}

#[tokio::test]
async fn doctor_tells_what_is_wrong_on_the_way_to_a_hub_elsewhere() {
    let hub = TestHub::start().await;
    let mqtt = hub.mqtt.port().to_string();
    let line = ["doctor", "-o", "json", "--mqtt-port", &mqtt];
    let verdicts = |ended: &Ended| -> Vec<(String, String)> {
        let findings: Value = serde_json::from_str(&ended.out).unwrap();
        let text = |finding: &Value, name: &str| finding[name].as_str().unwrap().to_owned();
        findings
            .as_array()
            .unwrap()
            .iter()
            .map(|found| (text(found, "check"), text(found, "verdict")))
            .collect()
    };
    let told = |verdicts: &[(&str, &str)]| -> Vec<(String, String)> {
        verdicts.iter().map(|(check, verdict)| ((*check).to_owned(), (*verdict).to_owned())).collect()
    };
    let owner = shell(&hub, "iothubowner");
    let healthy = owner.run(&line).await;
    let ports = [("MQTT port", "ok"), ("HTTPS port", "ok")];
    let answers = [("TLS", "ok"), ("ready", "ok"), ("clock", "ok")];
    assert_eq!(healthy.code, Some(0), "{}", healthy.out);
    assert_eq!(verdicts(&healthy), told(&[&ports[..], &answers, &[("registry", "ok")]].concat()));

    let stranger = Shell::with_key(PROGRAM, &hub, "iothubowner", &SymmetricKey::generate().to_base64());
    let refused = stranger.run(&line).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert_eq!(verdicts(&refused), told(&[&ports[..], &answers, &[("registry", "fail")]].concat()));

    let other = TestHub::start().await;
    let mut astray = shell(&hub, "iothubowner");
    astray.ca = other.data_dir().join("ca.pem");
    let refused = astray.run(&line).await;
    assert_eq!(refused.code, Some(1), "{}", refused.out);
    assert_eq!(verdicts(&refused), told(&[&ports[..], &[("TLS", "fail")]].concat()));
    other.stop().await;
    hub.stop().await;
}

#[test]
fn shells_and_manuals_are_told_every_verb() {
    let directory = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(PROGRAM).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    for name in ["bash", "zsh", "fish", "powershell"] {
        let (code, script) = run(&["completions", name]);
        assert_eq!(code, Some(0));
        for word in ["module-identity", "renew-key", "regenerate", "key-type"] {
            assert!(script.contains(word), "{name} knows no {word}");
        }
    }
    let (code, page) = run(&["man"]);
    assert!(code == Some(0) && page.contains(".TH portcullis 1"), "{page}");
    assert_eq!(
        run(&["man", "--directory", &directory.path().display().to_string()]),
        (Some(0), String::new())
    );
    let page = directory.path().join("portcullis-device-identity-renew-key.1");
    assert!(std::fs::read_to_string(page).unwrap().contains("without downtime"));
    assert_eq!(run(&["man", "--directory", "/nowhere/at/all"]).0, Some(1));
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
