//! The built command line against a hub: every verb on identities from end to end, with the exit codes scripts rest on.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::{Authentication, AuthenticationSpec};
use portcullis_testing::shell::{Ended, Shell};
use portcullis_testing::{HubSettings, TestHub, TestIdentity, within};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

fn shell(hub: &TestHub, policy: &str) -> Shell {
    Shell::new(PROGRAM, hub, policy)
}

/// The writing end of a named pipe, once somebody reads from it.
async fn opened_by_the_reader(path: &Path) -> File {
    let path = path.to_owned();
    let (opened, wait) = tokio::sync::oneshot::channel();
    // A thread of its own: should nobody ever read, nothing waits for it.
    std::thread::spawn(move || opened.send(OpenOptions::new().write(true).open(path)));
    wait.await.unwrap().unwrap()
}

/// The keys an identity has now.
fn keys(hub: &TestHub, id: &IdentityId) -> (String, String) {
    let entry = hub.hub.registry.entry(id).unwrap();
    let Authentication::Sas(keys) = &entry.identity().authentication else { panic!("{id} has no keys") };
    (keys.primary.to_base64().as_str().to_owned(), keys.secondary.to_base64().as_str().to_owned())
}

async fn with_certificate(hub: &TestHub, name: &str) -> TestIdentity {
    let device = hub.device(name).await;
    hub.change(&device, |spec| spec.authentication = AuthenticationSpec::CertificateAuthority).await;
    device
}

#[tokio::test]
async fn a_device_is_created_shown_changed_listed_and_deleted() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let device = |verb: &'static str, more: &[&'static str]| {
        let mut line = vec!["device-identity", verb, "-d", "pump-7"];
        line.extend(more);
        line
    };
    let made = owner.json(&device("create", &["--status", "enabled"])).await;
    assert_eq!(owner.json(&device("show", &[])).await, made);
    owner.refused(4, &device("create", &[])).await;

    let line = device("update", &["--sta", "Disabled", "--star", "stolen", "--ee"]);
    let changed = owner.json(&line).await;
    assert_eq!((&changed["status"], &changed["statusReason"]), (&json!("disabled"), &json!("stolen")));
    assert_eq!(changed["capabilities"]["iotEdge"], true);
    assert_eq!(changed["authentication"], made["authentication"], "keys stay unless asked");
    let cleared = owner.json(&device("update", &["--set", "statusReason=null", "status=enabled"])).await;
    assert_eq!((&cleared["status"], &cleared["statusReason"]), (&json!("enabled"), &json!(null)));
    assert_eq!(cleared["capabilities"]["iotEdge"], true);

    let stale = made["etag"].as_str().unwrap();
    let line = ["device-identity", "update", "-d", "pump-7", "--sta", "disabled", "--etag", stale];
    let words = owner.refused(4, &line).await;
    assert!(words.starts_with("error[412001]: "), "{words}");
    let line = ["device-identity", "update", "-d", "pump-7", "--ptp", &"ab".repeat(32), "--etag", "*"];
    let pinned = owner.json(&line).await;
    assert_eq!(pinned["authentication"]["type"], "selfSigned");
    assert_eq!(pinned["authentication"]["x509Thumbprint"]["primaryThumbprint"], "AB".repeat(32));
    assert_eq!(pinned["authentication"]["symmetricKey"]["primaryKey"], json!(null));
    let back = owner.json(&device("update", &["--am", "shared_private_key"])).await;
    assert_eq!(back["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 44);

    owner.refused(2, &device("update", &[])).await;
    owner.refused(2, &device("update", &["--set", "tags.site=north"])).await;
    owner.refused(3, &["device-identity", "update", "-d", "nobody", "--sta", "disabled"]).await;
    owner.refused(3, &["device-identity", "renew-key", "-d", "nobody", "--kt", "both"]).await;
    owner.refused(4, &device("delete", &["-e", "AAAAAAAAAAk="])).await;
    assert_eq!(owner.print(&device("delete", &["--yes"])).await, "");
    let words = owner.refused(3, &device("show", &[])).await;
    assert!(words.contains("error[404001]: ") && words.contains("hint: "), "{words}");
    hub.stop().await;
}

#[tokio::test]
async fn t705_an_update_loses_against_one_that_came_between() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let device = hub.device("d1").await;
    let etag = owner.print(&["device-identity", "show", "-d", "d1", "--query", "etag", "-o", "tsv"]).await;
    hub.disable(&device).await;
    for line in [
        &["device-identity", "update", "-d", "d1", "--ee", "-e", etag.trim()][..],
        &["device-identity", "renew-key", "-d", "d1", "--kt", "both", "-e", etag.trim()],
    ] {
        owner.refused(4, line).await;
    }
    // Without an etag: the verb has read the device and now waits for its key, and somebody else is quicker.
    let pipe = hub.data_dir().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let from_pipe = format!("@{}", pipe.display());
    let before = keys(&hub, &device.id);
    let own_key = SymmetricKey::generate().to_base64();
    for (etag, code, key) in [(&[][..], 4, before.0.as_str()), (&["-e", "*"][..], 0, &own_key)] {
        let line = [&["device-identity", "update", "-d", "d1", "--pk", &from_pipe][..], etag].concat();
        let slow = owner.command(&line).output();
        let quick = async {
            let mut pipe = opened_by_the_reader(&pipe).await;
            hub.disable(&device).await;
            pipe.write_all(own_key.as_bytes()).unwrap();
        };
        let (ended, ()) = within(futures_util::future::join(slow, quick)).await;
        let ended = Ended::of(ended.unwrap());
        assert_eq!(ended.code, Some(code), "{}", ended.err);
        assert_eq!(keys(&hub, &device.id).0, key);
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_module_is_created_shown_changed_listed_and_deleted() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    hub.device("pump-7").await;
    let module = |verb: &'static str, more: &[&'static str]| {
        let mut line = vec!["module-identity", verb, "-d", "pump-7", "-m", "camera"];
        line.extend(more);
        line
    };
    let made = owner.json(&module("create", &[])).await;
    assert_eq!(owner.json(&module("show", &[])).await, made);
    owner.refused(4, &module("create", &[])).await;
    let listed = owner.json(&["module-identity", "list", "-d", "pump-7"]).await;
    assert_eq!(listed, json!([made]));
    let changed = owner.json(&module("update", &["--set", "managedBy=operations"])).await;
    assert_eq!(changed["managedBy"], "operations");
    let renewed = owner.json(&module("renew-key", &["--kt", "swap"])).await;
    let keys = |identity: &Value| identity["authentication"]["symmetricKey"].clone();
    assert_eq!(keys(&renewed)["primaryKey"], keys(&made)["secondaryKey"]);
    assert_eq!(keys(&renewed)["secondaryKey"], keys(&made)["primaryKey"]);
    let certified = owner.json(&module("update", &["--am", "x509_ca"])).await;
    assert_eq!(certified["authentication"]["type"], "certificateAuthority");
    let words = owner.refused(1, &module("renew-key", &["--kt", "both"])).await;
    assert!(words.contains("pump-7/camera has no keys to renew"), "{words}");
    owner.refused(4, &module("update", &["--am", "x509_ca", "-e", "AAAAAAAAAAk="])).await;
    owner.print(&module("delete", &["--yes"])).await;
    let words = owner.refused(3, &module("update", &["--am", "x509_ca"])).await;
    assert!(words.starts_with("error[404010]: "), "{words}");
    hub.stop().await;
}

#[tokio::test]
async fn t603_t613_a_renewed_key_ends_the_connection_that_rests_on_it_and_no_other() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m1").await;
    // Both sign in with their primary keys.
    let mut of_device = hub.connect(&device).await;
    let mut of_module = hub.connect(&module).await;
    owner.print(&["device-identity", "renew-key", "-d", "d1", "--kt", "secondary"]).await;
    of_device.settle().await;
    // The key in use becomes the secondary one.
    owner.print(&["device-identity", "renew-key", "-d", "d1", "--kt", "swap"]).await;
    owner.print(&["device-identity", "renew-key", "-d", "d1", "--kt", "primary"]).await;
    of_device.settle().await;
    owner.print(&["device-identity", "renew-key", "-d", "d1", "--kt", "secondary"]).await;
    assert!(of_device.closed().await);
    assert!(hub.connect_with(hub.connect_packet(&device)).await.is_err(), "the old key is refused");
    of_module.settle().await;
    owner.print(&["module-identity", "renew-key", "-d", "d1", "-m", "m1", "--kt", "primary"]).await;
    assert!(of_module.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn of_several_the_keys_are_renewed_where_they_can_be_and_the_exit_code_tells() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let ids = ["a", "b", "c"].map(|name| IdentityId::device(DeviceId::parse(name).unwrap()));
    for name in ["a", "b", "c"] {
        hub.device(name).await;
    }
    let module = hub.module("c", "m").await;
    with_certificate(&hub, "x").await;
    let all = |hub: &TestHub| ids.iter().map(|id| keys(hub, id)).collect::<Vec<_>>();
    let before = all(&hub);

    let ended =
        owner.run(&["device-identity", "renew-key", "-d", "a", "nobody", "x", "b", "--kt", "primary"]).await;
    assert_eq!(ended.code, Some(7), "{}", ended.err);
    assert!(ended.err.contains("error[404001]: DeviceNotFound: nobody"), "{}", ended.err);
    assert!(ended.err.contains("x has no keys to renew"), "{}", ended.err);
    assert!(ended.err.contains("error: 2 renewed, 2 failed"), "{}", ended.err);
    let renewed: Value = serde_json::from_str(&ended.out).unwrap();
    let names: Vec<_> = renewed.as_array().unwrap().iter().map(|device| &device["deviceId"]).collect();
    assert_eq!(names, ["a", "b"]);
    let after = all(&hub);
    assert!(after[0].0 != before[0].0 && after[0].1 == before[0].1);
    assert!(after[1].0 != before[1].0 && after[1].1 == before[1].1);
    assert_eq!(after[2], before[2]);

    let ended = owner.run(&["device-identity", "renew-key", "-d", "nobody", "nothing", "--kt", "both"]).await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(3), "[]\n"), "{}", ended.err);

    let before = (all(&hub), keys(&hub, &module.id));
    let line = ["device-identity", "renew-key", "-d", "*", "--kt", "swap", "--im", "-o", "table"];
    let table = owner.print(&line).await;
    assert_eq!(table.lines().count(), 2 + 4, "three devices and a module: {table}");
    let swapped = |(primary, secondary): &(String, String)| (secondary.clone(), primary.clone());
    assert_eq!(all(&hub), before.0.iter().map(swapped).collect::<Vec<_>>());
    assert_eq!(keys(&hub, &module.id), swapped(&before.1));
    hub.stop().await;
}

#[tokio::test]
async fn a_list_of_2500_devices_comes_whole_in_every_format_and_tables_hold_no_key() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let rest = hub.rest();
    assert_eq!(owner.print(&["device-identity", "list"]).await, "[]\n");
    for part in 0..25 {
        let items: Value = (0..100).map(|n| json!({"id": format!("d{:04}", part * 100 + n)})).collect();
        let (status, _) = rest.call("POST", "/devices?api-version=2021-04-12", Some(items)).await;
        assert_eq!(status, 200);
    }
    let listed = owner.json(&["device-identity", "list"]).await;
    let listed = listed.as_array().unwrap();
    let ids: Vec<_> = listed.iter().map(|device| device["deviceId"].as_str().unwrap()).collect();
    assert_eq!(ids, (0..2500).map(|n| format!("d{n:04}")).collect::<Vec<_>>());
    let all_keys: HashSet<_> = listed
        .iter()
        .flat_map(|device| {
            ["primaryKey", "secondaryKey"].map(|key| &device["authentication"]["symmetricKey"][key])
        })
        .map(|key| key.as_str().unwrap())
        .collect();
    assert_eq!(all_keys.len(), 5000);

    let table = owner.print(&["device-identity", "list", "-o", "table"]).await;
    let head = table.lines().next().unwrap().split("  ").map(str::trim).filter(|title| !title.is_empty());
    let titles =
        ["Device Id", "Status", "Connection State", "Authentication", "Edge Enabled", "Last Activity Time"];
    assert_eq!(head.collect::<Vec<_>>(), titles);
    assert_eq!(table.lines().count(), 2502);
    let tsv = owner.print(&["device-identity", "list", "-o", "tsv"]).await;
    assert_eq!(tsv.lines().count(), 2500);
    for text in [&table, &tsv] {
        assert!(text.split_whitespace().all(|word| !all_keys.contains(word)), "a key is in the table");
    }
    let yaml = owner.print(&["device-identity", "list", "-o", "yaml", "--top", "1001"]).await;
    assert_eq!(yaml.lines().filter(|line| line.starts_with("- ")).count(), 1001);
    let topped = owner.json(&["device-identity", "list", "--top", "1500"]).await;
    assert_eq!(topped.as_array().unwrap()[..], listed[..1500]);
    let last = owner.json(&["device-identity", "list", "--query", "[-1].{id: deviceId}"]).await;
    assert_eq!(last, json!({"id": "d2499"}));
    let count = owner.print(&["device-identity", "list", "--query", "length(@)", "-o", "tsv"]).await;
    assert_eq!(count, "2500\n");
    let plain = owner.print(&["device-identity", "list", "--top", "1", "-o", "jsonc"]).await;
    assert!(!plain.contains('\u{1b}'), "colours are for terminals: {plain}");
    assert_eq!(owner.print(&["device-identity", "list", "-o", "none"]).await, "");

    // Whoever reads only the beginning has not made a mistake.
    let mut child = owner.command(&["device-identity", "list"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
    hub.stop().await;
}

#[tokio::test]
async fn secrets_come_from_files_and_standard_input_and_go_nowhere_they_should_not() {
    let hub = TestHub::start().await;
    let owner = shell(&hub, "iothubowner");
    let (primary, secondary) =
        ("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=");
    let file = hub.data_dir().join("primary.key");
    std::fs::write(&file, format!("{primary}\n")).unwrap();
    let from_file = format!("@{}", file.display());
    let line = ["device-identity", "create", "-d", "d1", "--pk", &from_file, "--sk", "-", "-o", "table"];
    let mut child = owner
        .command(&line)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(secondary.as_bytes()).await.unwrap();
    let ended = Ended::of(within(child.wait_with_output()).await.unwrap());
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(!ended.out.contains(primary) && !ended.out.contains(secondary), "{}", ended.out);
    let id = IdentityId::device(DeviceId::parse("d1").unwrap());
    assert_eq!(keys(&hub, &id), (primary.into(), secondary.into()));
    let words = owner.refused(2, &["device-identity", "update", "-d", "d1", "--pk", "-"]).await;
    assert!(words.contains("it is empty"), "{words}");
    assert_eq!(keys(&hub, &id), (primary.into(), secondary.into()));
    let string =
        owner.print(&["device-identity", "connection-string", "show", "-d", "d1", "--kt", "secondary"]).await;
    assert_eq!(string, format!("HostName=localhost;DeviceId=d1;SharedAccessKey={secondary}\n"));
    let picked = ["connection-string", "show", "-d", "d1", "--query", "connectionString", "-o", "tsv"];
    assert_eq!(
        owner.print(&picked).await,
        format!("HostName=localhost;DeviceId=d1;SharedAccessKey={primary}\n")
    );
    hub.stop().await;
}

#[tokio::test]
async fn who_may_not_is_told_so_with_exit_code_5() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let stranger =
        Shell::with_key(PROGRAM, &hub, "iothubowner", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=");
    let reader = shell(&hub, "registryRead");
    let renew = ["device-identity", "renew-key", "-d", "d1", "d2", "--kt", "both"];
    for (shell, line) in [
        (&stranger, &["device-identity", "list"][..]),
        (&stranger, &renew),
        (&reader, &["device-identity", "update", "-d", "d1", "--sta", "disabled"]),
        (&reader, &renew),
        (&reader, &["policy", "show", "--name", "service"]),
    ] {
        let words = shell.refused(5, line).await;
        assert!(words.starts_with("error[401002]: ") && words.contains("hint: "), "{words}");
        assert!(!words.contains("SharedAccessKey"), "{words}");
        assert_eq!(words.lines().count(), 1, "the first refusal ends the whole verb: {words}");
    }
    assert_eq!(reader.json(&["device-identity", "list", "--query", "[].deviceId"]).await, json!(["d1"]));
    hub.stop().await;
}

#[tokio::test]
async fn messages_are_sent_seen_and_taken_back_and_what_became_of_them_is_told() {
    let environment = vec![("PORTCULLIS__LIMITS__FEEDBACK_BATCH_TIME_MAX".to_owned(), "0s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    hub.device("pump-7").await;
    hub.module("pump-7", "camera").await;
    let shell = Shell::new(PROGRAM, &hub, "service");
    let send = ["c2d-message", "send", "-d", "pump-7", "--data", "open", "--ack", "full", "--mid", "m1"];
    assert_eq!(shell.print(&send).await, "");
    shell.print(&[&send[..], &["-m", "camera"]].concat()).await;
    let seen = shell.json(&["c2d-message", "peek", "-d", "pump-7"]).await;
    assert_eq!((&seen[0]["body"], seen.as_array().unwrap().len()), (&json!("open"), 1));
    let table = shell.print(&["c2d-message", "peek", "-d", "pump-7", "-m", "camera", "-o", "table"]).await;
    assert!(table.contains("Enqueued") && table.contains("m1"), "{table}");
    let purged = shell.json(&["c2d-message", "purge", "-d", "pump-7"]).await;
    assert_eq!(purged["totalMessagesPurged"], 1);
    let told = shell.print(&["monitor-feedback", "-d", "pump-7", "-o", "json", "--count", "1"]).await;
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&told["originalMessageId"], &told["statusCode"]), (&json!("m1"), &json!("Purged")));
    let left = shell.print(&["c2d-message", "purge", "-d", "pump-7", "-m", "camera", "-o", "tsv"]).await;
    assert_eq!(left, "pump-7\tcamera\t1\n");
    shell.refused(3, &["c2d-message", "peek", "-d", "nobody"]).await;
    shell.refused(3, &["c2d-message", "purge", "-d", "nobody"]).await;
    hub.stop().await;
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
