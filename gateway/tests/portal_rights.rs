//! What a policy may not do, the portal does not do for it, however it is asked; and where secrets never are.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use axum::http::Method;
use portcullis::portal::{PageNeeds, routes};
use portcullis_testing::TestHub;
use serde_json::Value;

/// A path one can ask for.
fn concrete(path: &str) -> String {
    let path = path.replace("{device}", "d1").replace("{module}", "m").replace("{file}", "portal.css");
    path.replace("{*elsewhere}", "elsewhere").replace("{name}", "nobody").replace("{job}", "none")
}

/// The whole state a portal can change, in words.
fn state(hub: &TestHub) -> String {
    let devices = hub.hub.registry.page(None, 100).devices;
    let modules =
        devices.iter().flat_map(|device| hub.hub.registry.modules(&device.identity().id.device).unwrap());
    let all = devices.iter().cloned().chain(modules);
    let all = all.map(|entry| format!("{:?} {}", entry.identity(), entry.queued()));
    all.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn t313_t716_every_policy_meets_every_route_and_refused_changes_are_recorded() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    hub.module("d1", "m").await;
    hub.send(&device, "x").await;
    let before = state(&hub);
    for policy in ["registryRead", "registryReadWrite", "service", "device", "iothubowner"] {
        let rights = hub.hub.policies().find(policy).unwrap().rights;
        let mut browser = hub.signed_in(policy).await;
        for route in routes() {
            let PageNeeds::Rights(wanted) = route.needs else { continue };
            let path = concrete(route.path);
            let is_granted = rights.contains(wanted);
            if is_granted && route.method == Method::POST {
                continue;
            }
            let page = match route.method {
                Method::GET => browser.open(&path).await,
                _ if route.takes_a_file => browser.send_file(&path, "{}").await,
                _ => browser.post(&path, &[("id", "d1"), ("confirmed", "yes"), ("etag", "x")]).await,
            };
            let what = format!("{policy} {} {path}", route.method);
            if is_granted {
                assert!(page.status != 403 && page.status < 500, "{what}: {}", page.status);
                continue;
            }
            assert_eq!(page.status, 403, "{what}");
            assert!(page.says("lacks the right") && page.says(policy), "{what}: {}", page.text);
            if route.method != Method::POST {
                continue;
            }
            // Whoever asks for a change or a secret without the right to is in the record.
            let operation = route.operation.unwrap_or_else(|| panic!("{what} is recorded as nothing"));
            let (_, lines) = hub.rest().call("GET", "/api/v1/audit?count=1", None).await;
            let line = &lines[0];
            assert_eq!(line["op"], serde_json::to_value(operation).unwrap(), "{what}: {line}");
            assert_eq!(
                (&line["source"], &line["actor"]),
                (&Value::from("portal"), &Value::from(policy)),
                "{what}"
            );
            assert!(line["result"].as_str().unwrap().contains("lacks the right"), "{what}: {line}");
        }
    }
    assert_eq!(state(&hub), before);
    hub.stop().await;
}

#[tokio::test]
async fn t716_who_may_only_read_sees_no_secret_and_no_button_that_does_nothing() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut browser = hub.signed_in("registryRead").await;
    for path in ["/portal/devices", "/portal/devices/d1", "/portal/created/d1", "/portal/devices/d1/modules"]
    {
        let page = browser.open(path).await;
        assert_eq!(page.status, 200, "{path}");
        for key in [&device.keys.primary, &device.keys.secondary] {
            assert!(!page.says(&key.to_base64()), "{path}");
        }
        for offer in ["Regenerate", ">Delete<", ">Reveal", "Add device", ">Save<", "Add module"] {
            assert!(!page.says(offer), "{path} offers {offer}");
        }
        let forms = page.text.matches("method=\"post\"").count();
        assert!(
            forms == 1 && page.says("/portal/sign-out"),
            "{path} has another form than the one to sign out by"
        );
    }
    hub.stop().await;
}

#[tokio::test]
async fn t716_who_may_only_read_gets_no_keys_by_way_of_an_export() {
    let hub = TestHub::start().await;
    let key = hub.device("d1").await.keys.primary.to_base64();
    let revealed = async || {
        let (_, lines) = hub.rest().call("GET", "/api/v1/audit?count=1000", None).await;
        let lines = lines.as_array().unwrap().clone();
        let mut lines: Vec<_> = lines.into_iter().filter(|line| line["op"] == "revealCredential").collect();
        lines.pop().map(|line| (line["actor"].clone(), line["source"].clone(), line["result"].clone()))
    };
    let mut reader = hub.signed_in("registryRead").await;
    assert!(!reader.open("/portal/jobs").await.says("With keys"));
    let refused = reader.post("/portal/jobs/export", &[("keys", "yes")]).await;
    assert!(refused.status == 403 && refused.says("lacks the right"), "{}", refused.text);
    let (actor, source, result) = revealed().await.unwrap();
    assert_eq!((actor, source), ("registryRead".into(), "portal".into()));
    assert!(result.as_str().unwrap().contains("lacks the right"), "{result}");
    let (_, jobs) = hub.rest().call("GET", "/jobs?api-version=2021-04-12", None).await;
    assert_eq!(jobs, serde_json::json!([]));

    // A program of that policy may read keys, as with IoT Hub; a person is not shown them for that.
    let mut rest = hub.rest();
    rest.token = Some(hub.policy_token("registryRead"));
    for (keys, status) in [("true", 403), ("false", 200)] {
        let (_, job) = rest.call("POST", &format!("/api/v1/exports?includeKeys={keys}"), None).await;
        let job = rest.job_over(&job).await;
        let file = format!("/portal/jobs/{}/files/devices.txt", job["jobId"].as_str().unwrap());
        let page = reader.fetch(&file).await;
        assert_eq!(page.status, status, "{}", page.text);
        assert!(!page.text.contains(key.as_str()));
    }

    let mut owner = hub.signed_in("iothubowner").await;
    let started = owner.post("/portal/jobs/export", &[("keys", "yes")]).await;
    assert_eq!(started.status, 303, "{}", started.text);
    let job = started.header("location").rsplit('/').next().unwrap().to_owned();
    hub.rest().job_over(&serde_json::json!({ "jobId": job })).await;
    let file = owner.fetch(&format!("/portal/jobs/{job}/files/devices.txt")).await;
    assert!(file.text.contains(key.as_str()), "{}", file.text);
    assert_eq!(revealed().await.unwrap(), ("iothubowner".into(), "portal".into(), "done".into()));
    hub.stop().await;
}

#[tokio::test]
async fn t719_what_operators_scrape_is_not_on_the_portals_listener_and_holds_no_secret() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut browser = hub.signed_in("iothubowner").await;
    browser.post("/portal/devices/d1/reveal", &[]).await;
    assert_eq!(browser.open("/metrics").await.status, 404);
    let (_, metrics) = hub.ops("/metrics").await;
    let cookie = browser.cookie.clone().unwrap();
    let session = cookie.split_once('=').unwrap().1;
    let key = device.keys.primary.to_base64();
    for secret in [session, browser.csrf.as_str(), key.as_str()] {
        assert!(!metrics.contains(secret));
    }
    assert_eq!(hub.ops("/portal").await.0, 404);
    hub.stop().await;
}

#[tokio::test]
async fn t616_no_command_over_mqtt_reaches_the_portal() {
    let hub = TestHub::start().await;
    let mut service = hub.connect_service("iothubowner").await.unwrap();
    assert_eq!(service.subscribe(&["$admin/res/#"]).await, [1]);
    for path in ["portal", "portal/devices", "portal/ca.pem"] {
        service.publish_acknowledged(&format!("$admin/GET/{path}?$rid=1"), b"").await;
        let answer = service.take_message().await;
        assert!(answer.topic.as_str().starts_with("$admin/res/404/"), "{}", answer.topic.as_str());
    }
    hub.stop().await;
}
