//! The audit record: every change has its line, whoever asked, however it went; no secret is in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::hub::audit::trail::{self, Broken, Verified};
use portcullis_certs::testing::TestCa;
use portcullis_testing::{RestClient, TestHub};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

async fn lines(hub: &TestHub, query: &str) -> Vec<Value> {
    let (status, body) = hub.rest().call("GET", &format!("/api/v1/audit?{query}"), None).await;
    assert_eq!(status, 200, "{body}");
    body.as_array().unwrap().clone()
}

fn member<'a>(line: &'a Value, name: &str) -> &'a str {
    line[name].as_str().unwrap_or_default()
}

#[tokio::test]
async fn every_change_has_a_line_with_both_etags_and_who_asked() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let (_, created) = rest.call("PUT", &format!("/devices/d1?{V}"), Some(json!({"deviceId": "d1"}))).await;
    let update = rest.request("PUT", &format!("/devices/d1?{V}")).header("If-Match", "*");
    let updated: Value =
        update.json(&json!({"status": "disabled"})).send().await.unwrap().json().await.unwrap();
    rest.call("DELETE", &format!("/devices/d1/commands?{V}"), None).await;
    rest.call("DELETE", &format!("/devices/d1?{V}"), None).await;
    let told = lines(&hub, "").await;
    let operations: Vec<_> = told.iter().map(|line| member(line, "op")).collect();
    assert_eq!(operations, ["createIdentity", "updateIdentity", "purgeQueue", "deleteIdentity"]);
    let etags: Vec<_> = told.iter().map(|line| (&line["etagBefore"], &line["etagAfter"])).collect();
    let none = &Value::Null;
    let (first, second) = (&created["etag"], &updated["etag"]);
    assert_eq!(etags, [(none, first), (first, second), (none, none), (second, none)]);
    for line in &told {
        let told =
            (member(line, "target"), member(line, "actor"), member(line, "source"), member(line, "ip"));
        assert_eq!(told, ("d1", "iothubowner", "rest", "127.0.0.1"));
        assert_eq!(member(line, "result"), "done");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t716_what_was_refused_has_a_line_too_and_no_key_is_in_any() {
    let hub = TestHub::start().await;
    let mut reader = hub.rest();
    reader.token = Some(hub.policy_token("registryRead"));
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    let keys = json!({"authentication": {"symmetricKey": {"primaryKey": key, "secondaryKey": key}}});
    reader.call("PUT", &format!("/devices/d1?{V}"), Some(keys.clone())).await;
    hub.rest().call("PUT", &format!("/devices/d1?{V}"), Some(keys.clone())).await;
    hub.rest().call("PUT", &format!("/devices/d1?{V}"), Some(keys)).await;
    let told = lines(&hub, "").await;
    let results: Vec<_> = told.iter().map(|line| (member(line, "actor"), member(line, "result"))).collect();
    assert_eq!(
        results,
        [
            ("registryRead", "policy \"registryRead\" lacks the right RegistryWrite"),
            ("iothubowner", "done"),
            ("iothubowner", "d1 is already registered"),
        ]
    );
    let directory = hub.data_dir().join("audit");
    for file in std::fs::read_dir(directory).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        assert!(!text.contains(key) && !text.contains("sig="), "{text}");
    }
    assert_eq!(reader.call("GET", "/api/v1/audit", None).await.0, 401);
    hub.stop().await;
}

#[tokio::test]
async fn a_restart_goes_on_with_the_chain_and_a_changed_line_shows() {
    let hub = TestHub::start().await;
    let directory = hub.data_dir().join("audit");
    hub.rest().call("PUT", &format!("/devices/d1?{V}"), Some(json!({}))).await;
    let hub = hub.restart().await;
    for id in ["d2", "d3"] {
        hub.rest().call("PUT", &format!("/devices/{id}?{V}"), Some(json!({}))).await;
    }
    let numbers: Vec<_> = lines(&hub, "").await.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(lines(&hub, "count=1").await.len(), 1);
    assert_eq!(lines(&hub, "after=1&count=1000").await.len(), 2);
    assert_eq!(lines(&hub, "target=d3").await.len(), 1);
    assert_eq!(trail::verify(&directory).unwrap(), Verified { lines: 3, cut: 0 });
    let file = directory.join("audit.ndjson");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"d2\"", "\"dX\"", 1)).unwrap();
    assert!(matches!(trail::verify(&directory), Err(Broken::Chain(3))));
    hub.stop().await;
}

#[tokio::test]
async fn t904_a_line_that_a_crash_cut_is_closed_off_and_the_record_goes_on() {
    let hub = TestHub::start().await;
    let file = hub.data_dir().join("audit/audit.ndjson");
    hub.rest().call("PUT", &format!("/devices/d1?{V}"), Some(json!({}))).await;
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{text}{{\"number\":2,\"ti")).unwrap();
    let hub = hub.restart().await;
    hub.rest().call("PUT", &format!("/devices/d2?{V}"), Some(json!({}))).await;
    let told = lines(&hub, "").await;
    assert_eq!(told.len(), 2);
    let directory = hub.data_dir().join("audit");
    assert_eq!(trail::verify(&directory).unwrap(), Verified { lines: 2, cut: 1 });
    assert_eq!((told[1]["number"].as_u64(), member(&told[1], "target")), (Some(2), "d2"));
    hub.stop().await;
}

#[tokio::test]
async fn a_query_of_a_wrong_form_is_refused() {
    let hub = TestHub::start().await;
    for query in ["count=0", "count=1001", "count=x", "after=-1"] {
        assert_eq!(hub.rest().call("GET", &format!("/api/v1/audit?{query}"), None).await.0, 400, "{query}");
    }
    hub.stop().await;
}

/// A PUT that replaces.
async fn replace(rest: &RestClient, path: &str, body: Value) -> Value {
    let put = rest.request("PUT", &format!("{path}?{V}")).header("If-Match", "*").json(&body);
    let answer = put.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.json().await.unwrap()
}

/// Lines of this operation, after everything that was asked for before is in the record.
async fn lines_of(hub: &TestHub, operation: &str) -> Vec<Value> {
    // What is noted without a wait is written before what comes after it.
    hub.rest().call("DELETE", &format!("/devices/nobody/commands?{V}"), None).await;
    let lines = lines(hub, "count=1000").await;
    lines.into_iter().filter(|line| line["op"] == operation).collect()
}

fn targets(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| member(line, "target")).collect()
}

/// The whole record, as it is on disk.
fn record(hub: &TestHub) -> String {
    std::fs::read_to_string(hub.data_dir().join("audit/audit.ndjson")).unwrap()
}

/// Every line is in the chain.
fn verify(hub: &TestHub) {
    let verified = trail::verify(&hub.data_dir().join("audit")).unwrap();
    assert_eq!(verified, Verified { lines: record(hub).lines().count() as u64, cut: 0 });
}

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const OTHER_KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

#[tokio::test]
async fn p12_a_change_says_what_changed_and_of_a_key_only_that_it_did() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let keys = |primary: &str| json!({"symmetricKey": {"primaryKey": primary, "secondaryKey": KEY}});
    let body = json!({"authentication": keys(KEY), "queueMessagesMax": 7});
    rest.call("PUT", &format!("/devices/d1?{V}"), Some(body)).await;
    let body = json!({
        "status": "disabled",
        "statusReason": "lost",
        "authentication": keys(OTHER_KEY),
        "access": {"allow": ["c2d"]},
        "queueMessagesMax": null,
    });
    replace(&rest, "/devices/d1", body).await;
    let thumbprint = "AB".repeat(20);
    let own = json!({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": thumbprint}});
    replace(
        &rest,
        "/devices/d1",
        json!({"status": "disabled", "statusReason": "lost", "authentication": own}),
    )
    .await;
    let told = lines(&hub, "target=d1").await;
    let changes: Vec<_> = told.iter().map(|line| line["changes"].clone()).collect();
    let expected = [
        json!({
            "authentication": {"before": null, "after": "sas"},
            "queueMessagesMax": {"before": null, "after": 7},
        }),
        json!({
            "status": {"before": "enabled", "after": "disabled"},
            "statusReason": {"before": null, "after": "lost"},
            "primaryKey": "changed",
            "access": {"before": "everything", "after": "c2d"},
            "queueMessagesMax": {"before": 7, "after": null},
        }),
        json!({
            "authentication": {"before": "sas", "after": "selfSigned"},
            "primaryThumbprint": {"before": null, "after": thumbprint},
        }),
    ];
    assert_eq!(changes, expected);
    let record = record(&hub);
    assert!(!record.contains(KEY) && !record.contains(OTHER_KEY), "{record}");
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn changes_in_bulk_and_by_a_command_have_the_lines_of_a_single_one() {
    let hub = TestHub::start().await;
    hub.device("old").await;
    hub.device("gone").await;
    let bulk = json!([
        {"id": "new"},
        {"id": "old", "status": "disabled"},
        {"id": "gone", "importMode": "delete"},
        {"id": "nobody", "importMode": "update"},
    ]);
    hub.rest().call("POST", &format!("/devices?{V}"), Some(bulk)).await;
    let told: Vec<_> = lines(&hub, "").await.into_iter().filter(|line| line["job"] == Value::Null).collect();
    let brief = |line: &Value| {
        let (operation, target) = (member(line, "op").to_owned(), member(line, "target").to_owned());
        (operation, target, line["changes"].clone(), member(line, "result") == "done")
    };
    let line = |operation: &str, target: &str, changes: Value, is_done: bool| {
        (operation.to_owned(), target.to_owned(), changes, is_done)
    };
    let expected = [
        line("createIdentity", "new", json!({"authentication": {"before": null, "after": "sas"}}), true),
        line("updateIdentity", "old", json!({"status": {"before": "enabled", "after": "disabled"}}), true),
        line("deleteIdentity", "gone", Value::Null, true),
        line("updateIdentity", "nobody", Value::Null, false),
    ];
    let briefs: Vec<_> = told.iter().map(brief).collect();
    assert_eq!(briefs[briefs.len() - 4..], expected);

    let mut owner = hub.connect_service("iothubowner").await.unwrap();
    owner
        .publish_acknowledged("$admin/PUT/devices/new/?$rid=1&If-Match=*", br#"{"statusReason":"why"}"#)
        .await;
    owner.settle().await;
    let told = lines(&hub, "target=new").await;
    let last = told.last().unwrap();
    assert_eq!(last["changes"], json!({"statusReason": {"before": null, "after": "why"}}));
    assert_eq!(member(last, "source"), "mqtt");
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn an_import_and_its_rollback_have_a_line_for_each_identity_they_change() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for id in ["kept", "changed", "deleted"] {
        rest.call("PUT", &format!("/devices/{id}?{V}"), Some(json!({}))).await;
    }
    let file = [
        json!({"id": "new"}),
        json!({"id": "new", "moduleId": "m"}),
        json!({"id": "kept"}),
        json!({"id": "changed", "status": "disabled", "authentication": {"symmetricKey":
            {"primaryKey": KEY, "secondaryKey": OTHER_KEY}}}),
        json!({"id": "deleted", "importMode": "delete"}),
        json!({"id": "nobody", "importMode": "update"}),
    ];
    let file: String = file.iter().map(|line| format!("{line}\n")).collect();
    let dry = rest.import(file.clone(), "dryRun=true").await;
    let job = rest.import(file, "").await;
    assert_eq!((&job["outcomes"]["unchanged"], &job["outcomes"]["refused"]), (&json!(1), &json!(1)), "{job}");
    let taken_back = rest.roll_back(&job).await;
    let of_job = async |job: &Value| {
        let lines = lines(&hub, "count=1000").await;
        let mut told: Vec<_> = lines
            .iter()
            .filter(|line| line["job"] == job["jobId"])
            .map(|line| {
                (member(line, "op").to_owned(), member(line, "target").to_owned(), line["changes"].clone())
            })
            .collect();
        told.sort_by(|one, other| one.1.cmp(&other.1));
        told
    };
    let line = |operation: &str, target: &str, changes| (operation.to_owned(), target.to_owned(), changes);
    let new = json!({"authentication": {"before": null, "after": "sas"}});
    let status = |before: &str, after: &str| json!({"status": {"before": before, "after": after}, "primaryKey": "changed", "secondaryKey": "changed"});
    assert_eq!(of_job(&dry).await, []);
    let expected = [
        line("updateIdentity", "changed", status("enabled", "disabled")),
        line("deleteIdentity", "deleted", Value::Null),
        line("createIdentity", "new", new.clone()),
        line("createIdentity", "new/m", new.clone()),
    ];
    assert_eq!(of_job(&job).await, expected);
    let expected = [
        line("updateIdentity", "changed", status("disabled", "enabled")),
        line("createIdentity", "deleted", new),
        line("deleteIdentity", "new", Value::Null),
        line("deleteIdentity", "new/m", Value::Null),
    ];
    assert_eq!(of_job(&taken_back).await, expected);

    let details =
        |lines: Vec<Value>| lines.into_iter().map(|line| line["details"].clone()).collect::<Vec<_>>();
    let import = |dry: bool| json!({"kind": "import", "dryRun": dry});
    let rollback = json!({"kind": "rollback", "rollbackOf": job["jobId"]});
    let begun = details(lines_of(&hub, "startJob").await);
    assert_eq!(begun, [import(true), import(false), rollback.clone()]);
    let counted = |mut details: Value, created: u64, unchanged: u64, refused: u64| {
        let deleted = if details["kind"] == "rollback" { 2 } else { 1 };
        let counts = json!({"created": created, "changed": 1, "unchanged": unchanged, "deleted": deleted, "refused": refused});
        details.as_object_mut().unwrap().extend(counts.as_object().unwrap().clone());
        details
    };
    let ended = details(lines_of(&hub, "endJob").await);
    let expected =
        [counted(import(true), 2, 1, 1), counted(import(false), 2, 1, 1), counted(rollback, 1, 0, 0)];
    assert_eq!(ended, expected);
    let record = record(&hub);
    assert!(!record.contains(KEY) && !record.contains(OTHER_KEY), "{record}");
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn every_answer_with_keys_of_identities_has_one_line_over_rest_and_mqtt() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for path in ["d1", "d2", "d1/modules/m1", "d1/modules/m2"] {
        rest.call("PUT", &format!("/devices/{path}?{V}"), Some(json!({}))).await;
    }
    let ca = json!({"authentication": {"type": "certificateAuthority"}});
    rest.call("PUT", &format!("/devices/keyless?{V}"), Some(ca)).await;
    let mut reader = hub.rest();
    reader.token = Some(hub.policy_token("registryRead"));
    for path in
        ["/devices/d1", "/devices/d1/modules/m1", "/devices/d1/modules", "/devices", "/devices/keyless"]
    {
        let (status, body) = reader.call("GET", &format!("{path}?{V}"), None).await;
        assert_eq!((status, body.to_string().contains("primaryKey\":\"")), (200, path != "/devices/keyless"));
    }
    let page = reader.request("GET", &format!("/devices?{V}")).header("x-ms-max-item-count", "1");
    assert_eq!(page.send().await.unwrap().status(), 200);
    // Without keys in their answers.
    assert_eq!(reader.call("GET", &format!("/devices/nobody?{V}"), None).await.0, 404);
    let query = json!({"query": "SELECT * FROM devices"});
    assert_eq!(rest.call("POST", &format!("/devices/query?{V}"), Some(query)).await.0, 200);
    let mut owner = hub.connect_service("iothubowner").await.unwrap();
    owner.publish_acknowledged("$admin/GET/devices/d2/?$rid=1", b"").await;
    owner.settle().await;

    let told = lines_of(&hub, "revealCredential").await;
    let brief = |line: &Value| {
        let actor = (member(line, "actor").to_owned(), member(line, "source").to_owned());
        (actor, member(line, "target").to_owned(), line["details"]["identities"].as_u64())
    };
    let line =
        |target: &str, count| (("registryRead".to_owned(), "rest".to_owned()), target.to_owned(), count);
    let expected = [
        line("d1", None),
        line("d1/m1", None),
        line("d1", Some(2)),
        // One of the three has no keys.
        line("list of devices", Some(2)),
        line("d1", None),
        (("iothubowner".to_owned(), "mqtt".to_owned()), "d2".to_owned(), None),
    ];
    assert_eq!(told.iter().map(brief).collect::<Vec<_>>(), expected);
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn every_answer_with_keys_of_policies_has_a_line_and_a_change_says_which_key() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ops = "/api/v1/policies/ops";
    assert_eq!(rest.call("PUT", ops, Some(json!({"rights": ["ServiceConnect"]}))).await.0, 200);
    assert_eq!(rest.call("GET", ops, None).await.0, 200);
    let (_, all) = rest.call("GET", "/api/v1/policies", None).await;
    let regenerate = format!("{ops}/regenerate");
    assert_eq!(rest.call("POST", &regenerate, Some(json!({"key": "secondary"}))).await.0, 200);
    assert_eq!(rest.call("DELETE", ops, None).await.0, 204);
    let told = lines(&hub, "").await;
    let told: Vec<_> = told
        .iter()
        .map(|line| (member(line, "op"), member(line, "target"), &line["changes"], &line["details"]))
        .collect();
    let none = &Value::Null;
    let rights = &json!({"rights": {"before": null, "after": ["ServiceConnect"]}});
    let secondary = &json!({"secondaryKey": "changed"});
    let count = &json!({"policies": all.as_array().unwrap().len()});
    let expected = [
        ("createPolicy", "ops", rights, none),
        ("revealCredential", "policy ops", none, none),
        ("revealCredential", "list of policies", none, count),
        ("regeneratePolicy", "ops", secondary, none),
        ("deletePolicy", "ops", none, none),
    ];
    assert_eq!(told, expected);
    for policy in all.as_array().unwrap() {
        assert!(!record(&hub).contains(policy["primaryKey"].as_str().unwrap()));
    }
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn an_export_says_whether_keys_went_along_and_fetching_them_is_recorded() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let rest = hub.rest();
    assert!(rest.export("includeKeys=false").await.contains("\"d1\""));
    assert_eq!(lines_of(&hub, "revealCredential").await, [] as [Value; 0]);
    rest.export("includeKeys=true").await;
    let begun = lines_of(&hub, "startJob").await;
    let details: Vec<_> = begun.iter().map(|line| line["details"].clone()).collect();
    assert_eq!(details, [json!({"kind": "export", "keys": false}), json!({"kind": "export", "keys": true})]);
    let ended = lines_of(&hub, "endJob").await;
    assert_eq!(ended[1]["details"], json!({"kind": "export", "keys": true, "exported": 1}));
    let job = format!("job {}", member(&begun[1], "target"));
    assert_eq!(targets(&lines_of(&hub, "revealCredential").await), [job]);
    verify(&hub);
    hub.stop().await;
}

#[tokio::test]
async fn a_change_of_a_ca_says_which_certificate_and_how_it_is_verified() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ca = TestCa::root("fleet root");
    let path = "/api/v1/certificate-authorities/fleet";
    let put = rest.request("PUT", path).body(ca.pem().to_owned()).send().await.unwrap();
    let enrolled: Value = put.json().await.unwrap();
    let (_, code) = rest.call("POST", &format!("{path}/verification-code"), None).await;
    let code = code["verificationCode"].as_str().unwrap();
    let proof = json!({"certificate": ca.device(code).certificate_pem});
    assert_eq!(rest.call("POST", &format!("{path}/verify"), Some(proof)).await.0, 200);
    assert_eq!(rest.call("DELETE", path, None).await.0, 204);
    assert_eq!(rest.call("DELETE", path, None).await.0, 404);
    let told = lines(&hub, "").await;
    let changes: Vec<_> = told.iter().map(|line| line["changes"].clone()).collect();
    let expected = [
        json!({
            "thumbprint": {"before": null, "after": enrolled["thumbprint"]},
            "verification": {"before": null, "after": "pending"},
        }),
        json!({"verificationCode": "changed"}),
        json!({"verification": {"before": "pending", "after": "proven"}}),
        Value::Null,
        Value::Null,
    ];
    assert_eq!(changes, expected);
    assert_eq!(told[0]["etagAfter"], enrolled["etag"]);
    assert_eq!((&told[3]["etagAfter"], &told[3]["etagBefore"]), (&Value::Null, &told[2]["etagAfter"]));
    assert!(!record(&hub).contains(code));
    verify(&hub);
    hub.stop().await;
}
