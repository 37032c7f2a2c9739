//! Queries over REST: what tools ask, pages that miss nothing, and what is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{HubSettings, RestClient, TestHub};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

/// An answer: its rows, what they are, and the token for more.
#[derive(Debug)]
struct QueryPage {
    status: u16,
    rows: Value,
    kind: Option<String>,
    next: Option<String>,
}

impl QueryPage {
    /// One property of each row.
    fn column(&self, name: &str) -> Vec<String> {
        assert_eq!(self.status, 200, "{}", self.rows);
        let rows = self.rows.as_array().unwrap().iter();
        rows.map(|row| row[name].as_str().unwrap_or_else(|| panic!("{row}")).to_owned()).collect()
    }
}

async fn ask_for(rest: &RestClient, query: &str, count: &str, token: Option<&str>) -> QueryPage {
    let request = rest.request("POST", &format!("/devices/query?{V}")).header("x-ms-max-item-count", count);
    let request = match token {
        Some(token) => request.header("x-ms-continuation", token),
        None => request,
    };
    let response = request.json(&json!({ "query": query })).send().await.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (kind, next) = (header("x-ms-item-type"), header("x-ms-continuation"));
    QueryPage { status: response.status().as_u16(), rows: response.json().await.unwrap(), kind, next }
}

async fn ask(rest: &RestClient, query: &str) -> QueryPage {
    ask_for(rest, query, "1000", None).await
}

/// The device ids of all pages, and how many each page had.
async fn all_pages(rest: &RestClient, query: &str, count: &str) -> (Vec<String>, Vec<usize>) {
    let (mut ids, mut sizes, mut token) = (Vec::new(), Vec::new(), None);
    loop {
        let answer = ask_for(rest, query, count, token.as_deref()).await;
        let page = answer.column("deviceId");
        sizes.push(page.len());
        ids.extend(page);
        let Some(next) = answer.next else { return (ids, sizes) };
        token = Some(next);
    }
}

async fn bulk(rest: &RestClient, items: Value) {
    let (status, answer) = rest.call("POST", &format!("/devices?{V}"), Some(items)).await;
    assert_eq!(status, 200, "{answer}");
}

#[tokio::test]
async fn a_query_shows_what_the_registry_knows() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items = json!([
        {"id": "a", "status": "disabled", "statusReason": "in repair"},
        {"id": "b", "capabilities": {"iotEdge": true}},
        {"id": "c", "authentication": {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB".repeat(20)}}},
        {"id": "b", "moduleId": "m1", "managedBy": "me"},
        {"id": "b", "moduleId": "m2"},
    ]);
    bulk(&rest, items).await;
    let whole = ask(&rest, "select * from devices where deviceId = 'c'").await;
    assert_eq!((whole.kind.as_deref(), whole.next.as_deref()), (Some("twin"), None));
    let (_, identity) = rest.call("GET", &format!("/devices/c?{V}"), None).await;
    let twin = &whole.rows[0];
    assert_eq!(twin["deviceEtag"], identity["etag"]);
    assert_eq!(twin["generationId"], identity["generationId"]);
    assert_eq!(twin["x509Thumbprint"], identity["authentication"]["x509Thumbprint"]);
    assert_eq!((&twin["authenticationType"], &twin["status"]), (&json!("selfSigned"), &json!("enabled")));
    assert_eq!((&twin["tags"], &twin["capabilities"]), (&json!({}), &json!({"iotEdge": false})));
    assert_eq!(twin["properties"]["reported"]["$version"], 1);

    for (condition, wanted) in [
        ("status = 'disabled' AND statusReason = 'in repair'", vec!["a"]),
        ("capabilities.iotEdge = true", vec!["b"]),
        ("STARTSWITH(devices.deviceId, 'b')", vec!["b"]),
        ("startswith(deviceId, 'x')", vec![]),
        ("deviceId IN ['c', 'a', 'x', '', 'no id']", vec!["a", "c"]),
        ("NOT deviceId IN ['c']", vec!["a", "b"]),
        ("deviceId = 'a' OR deviceId = 'b'", vec!["a", "b"]),
        ("deviceId = 'a' AND status = 'enabled'", vec![]),
        ("connectionState = 'Connected'", vec![]),
        ("tags.site = 'A'", vec![]),
    ] {
        let answer = ask(&rest, &format!("SELECT * FROM devices WHERE {condition}")).await;
        assert_eq!(answer.column("deviceId"), wanted, "{condition}");
    }
    let modules = ask(&rest, "select * from devices.modules where devices.deviceId = 'b'").await;
    assert_eq!(modules.column("moduleId"), ["m1", "m2"]);
    let named = ask(&rest, "SELECT deviceId AS Id, tags.x, version FROM devices WHERE deviceId = 'a'").await;
    assert_eq!((named.kind.as_deref(), &named.rows), (Some("raw"), &json!([{"Id": "a", "version": 1}])));
    let counted = ask(&rest, "SELECT status, COUNT() AS n FROM devices GROUP BY status").await;
    assert_eq!(counted.rows, json!([{"status": "disabled", "n": 1}, {"status": "enabled", "n": 2}]));
    assert_eq!(counted.kind.as_deref(), Some("raw"));
    let modules = ask(&rest, "SELECT COUNT() AS n FROM devices.modules WHERE moduleId != 'm1'").await;
    assert_eq!(modules.rows, json!([{"n": 1}]));

    let device = hub.device("live").await;
    let client = hub.connect(&device).await;
    hub.send(&device, "wait for it").await;
    let live = ask(&rest, "SELECT deviceId FROM devices WHERE connectionState = 'Connected'").await;
    assert_eq!(live.column("deviceId"), ["live"]);
    let waiting = ask(&rest, "SELECT deviceId FROM devices WHERE cloudToDeviceMessageCount > 0").await;
    assert_eq!(waiting.column("deviceId"), ["live"]);
    let active = ask(&rest, "SELECT deviceId FROM devices WHERE lastActivityTime > '2020-01-01'").await;
    assert_eq!(active.column("deviceId"), ["live"]);
    client.disconnect().await;
    hub.stop().await;
}

#[tokio::test]
async fn pages_miss_nothing_and_the_last_is_known_to_be_the_last() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items = |range: std::ops::Range<usize>| -> Value {
        range.map(|n| json!({"id": format!("d{n:03}"), "status": if n % 2 == 0 { "disabled" } else { "enabled" }})).collect()
    };
    bulk(&rest, items(0..100)).await;
    bulk(&rest, items(100..110)).await;
    let modules: Value =
        (0..30).map(|n| json!({"id": format!("d{:03}", n / 3), "moduleId": format!("m{}", n % 3)})).collect();
    bulk(&rest, modules).await;
    let ids = |step: usize| (0..110).step_by(step).map(|n| format!("d{n:03}")).collect::<Vec<_>>();

    assert_eq!(all_pages(&rest, "SELECT * FROM devices", "55").await, (ids(1), vec![55, 55]));
    let disabled = "SELECT deviceId FROM devices WHERE status = 'disabled'";
    assert_eq!(all_pages(&rest, disabled, "20").await, (ids(2), vec![20, 20, 15]));
    let (top, sizes) = all_pages(&rest, "SELECT TOP 50 deviceId FROM devices", "20").await;
    assert_eq!((top, sizes), (ids(1)[..50].to_vec(), vec![20, 20, 10]));
    assert_eq!(all_pages(&rest, "SELECT TOP 0 * FROM devices", "20").await, (vec![], vec![0]));
    let (prefixed, sizes) =
        all_pages(&rest, "SELECT * FROM devices WHERE startswith(deviceId, 'd10')", "4").await;
    assert_eq!((prefixed, sizes), (ids(1)[100..].to_vec(), vec![4, 4, 2]));
    let (listed, _) =
        all_pages(&rest, "SELECT * FROM devices WHERE deviceId IN ['d003','d001','d002']", "2").await;
    assert_eq!(listed, ["d001", "d002", "d003"]);
    // A page ends in the middle of a device's modules, and the next one begins there.
    let (of, sizes) = all_pages(&rest, "SELECT * FROM devices.modules", "7").await;
    assert_eq!((of.len(), sizes), (30, vec![7, 7, 7, 7, 2]));
    let answer = ask_for(&rest, "SELECT * FROM devices.modules", "7", None).await;
    let more = ask_for(&rest, "SELECT * FROM devices.modules", "7", answer.next.as_deref()).await;
    assert_eq!((more.column("deviceId")[0].as_str(), more.column("moduleId")[0].as_str()), ("d002", "m1"));
    hub.stop().await;
}

#[tokio::test]
async fn a_search_that_takes_long_goes_on_by_token() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items: Value = (0..100).map(|n| json!({"id": format!("d{n:02}")})).collect();
    bulk(&rest, items).await;
    // Some 10,000 comparisons a device.
    let numbers = vec!["9"; 10_000].join(",");
    let weighty =
        format!("SELECT deviceId FROM devices WHERE version NIN [{numbers}] AND endswith(deviceId, '99')");
    let (found, sizes) = all_pages(&rest, &weighty, "1000").await;
    assert_eq!(found, ["d99"]);
    assert!(sizes.len() > 1, "it was found at once");
    // No device has a module, and the walk past all of them ends.
    let modules = format!("SELECT * FROM devices.modules WHERE version NIN [{numbers}]");
    assert_eq!(all_pages(&rest, &modules, "1000").await.0, [] as [String; 0]);
    hub.stop().await;
}

#[tokio::test]
async fn t711_what_is_no_query_is_refused_and_nothing_is_told() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("d1").await;
    for count in ["0", "-1", "1001", "", "many"] {
        assert_eq!(ask_for(&rest, "SELECT * FROM devices", count, None).await.status, 400, "{count}");
    }
    for token in ["", "?", "ZDE=", "Li4=", "fA", "MXxkMA==", "'; DROP TABLE identity; --"] {
        assert_eq!(ask_for(&rest, "SELECT * FROM devices", "10", Some(token)).await.status, 400, "{token}");
    }
    for query in [
        "",
        "SELECT",
        "SELECT * FROM identity",
        "SELECT * FROM devices WHERE deviceId = 'a' UNION SELECT * FROM policies",
        "SELECT * FROM devices; DELETE FROM devices",
        "SELECT * FROM devices WHERE deviceId = '' OR ''='",
        "PRAGMA table_info(identity)",
        &"(".repeat(30_000),
        &"x".repeat(40_000),
    ] {
        let answer = ask(&rest, query).await;
        assert_eq!(answer.status, 400, "{query:.60}");
        let message = answer.rows["Message"].as_str().unwrap();
        assert!(message.starts_with("ErrorCode:ArgumentInvalid;"), "{message}");
        assert!(message.len() < 300, "{message}");
    }
    let condition = "SELECT * FROM devices WHERE authentication.symmetricKey.primaryKey != ''";
    assert_eq!(ask(&rest, condition).await.rows, json!([]));
    for body in ["", "[]", "{}", r#"{"query":7}"#, r#"{"query":"SELECT * FROM devices","query":"x"}"#] {
        let request = rest.request("POST", &format!("/devices/query?{V}")).body(body);
        assert_eq!(request.send().await.unwrap().status(), 400, "{body}");
    }
    // A forged token that names a possible id shows what any page shows.
    let forged = ask_for(&rest, "SELECT * FROM devices", "10", Some("fGQw")).await;
    assert_eq!(forged.column("deviceId"), ["d1"]);
    hub.stop().await;
}

#[tokio::test]
async fn t711_keys_are_in_no_answer() {
    let hub = TestHub::start_with(HubSettings::default()).await;
    let rest = hub.rest();
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    for query in ["SELECT * FROM devices", "SELECT * FROM devices.modules"] {
        let text = ask(&rest, query).await.rows.to_string();
        for identity in [&device, &module] {
            for key in [&identity.keys.primary, &identity.keys.secondary] {
                assert!(!text.contains(key.to_base64().as_str()), "{text}");
            }
        }
    }
    hub.stop().await;
}
