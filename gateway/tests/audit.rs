//! The audit record: every change has its line, whoever asked, however it went; no secret is in it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::hub::audit::trail::{self, Broken, Verified};
use portcullis_testing::TestHub;
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
