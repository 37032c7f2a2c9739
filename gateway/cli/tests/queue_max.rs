//! The bound of one identity's queue, through every face that sets it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::shell::Shell;
use portcullis_testing::{TestHub, within};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

#[tokio::test]
async fn t717_a_queue_is_full_at_the_bound_of_its_device() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let body = json!({ "queueMessagesMax": 2 });
    let (status, made) = rest.call("PUT", &format!("/devices/d1?{V}"), Some(body)).await;
    assert_eq!((status, &made["queueMessagesMax"]), (200, &json!(2)));
    let path = format!("/devices/d1/messages/deviceBound?{V}");
    for expected in [204, 204, 403] {
        let sent = within(rest.request("POST", &path).body("m").send()).await.unwrap();
        assert_eq!(sent.status(), expected, "{}", sent.text().await.unwrap());
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_bound_goes_through_rest_bulk_changes_and_queries() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let item = |id: &str, mode: &str, bound: Value| json!({ "id": id, "importMode": mode, "queueMessagesMax": bound });
    let bulk = async |items: Value| rest.call("POST", &format!("/devices?{V}"), Some(items)).await;
    let made = json!([
        item("d1", "create", json!(200)),
        item("d2", "createOrUpdate", json!(10_000)),
        item("d3", "create", Value::Null),
        { "id": "d1", "moduleId": "m1", "importMode": "create", "queueMessagesMax": 5 },
    ]);
    assert_eq!(bulk(made).await.0, 200);
    let query = async |text: &str| {
        let answer = rest.call("POST", &format!("/devices/query?{V}"), Some(json!({ "query": text }))).await;
        answer.1
    };
    assert_eq!(
        query("SELECT deviceId, queueMessagesMax FROM devices WHERE queueMessagesMax > 100").await,
        json!([{ "deviceId": "d1", "queueMessagesMax": 200 }, { "deviceId": "d2", "queueMessagesMax": 10_000 }])
    );
    assert_eq!(
        query("SELECT moduleId FROM devices.modules WHERE queueMessagesMax = 5").await,
        json!([{ "moduleId": "m1" }])
    );

    // As an SDK does that knows nothing of it; and taken away.
    assert_eq!(bulk(json!([{ "id": "d1", "importMode": "update" }])).await.0, 200);
    assert_eq!(bulk(json!([item("d2", "update", Value::Null)])).await.0, 200);
    let bound = async |id: &str| {
        let (_, device) = rest.call("GET", &format!("/devices/{id}?{V}"), None).await;
        device.get("queueMessagesMax").cloned()
    };
    assert_eq!((bound("d1").await, bound("d2").await, bound("d3").await), (Some(json!(200)), None, None));

    for (wrong, name) in [
        (json!(0), "ArgumentInvalid"),
        (json!(10_001), "ArgumentInvalid"),
        (json!(-1), "DeserializationError"),
        (json!("50"), "DeserializationError"),
        (json!(1.5), "DeserializationError"),
    ] {
        let (status, answer) = bulk(json!([item("d1", "update", wrong.clone())])).await;
        assert_eq!((status, &answer["errors"][0]["errorCode"]), (400, &json!(name)), "{wrong}");
    }
    assert_eq!(bound("d1").await, Some(json!(200)));
    hub.stop().await;
}

#[tokio::test]
async fn the_command_line_sets_and_takes_away_a_bound() {
    let hub = TestHub::start().await;
    let owner = Shell::new(env!("CARGO_BIN_EXE_portcullis"), &hub, "iothubowner");
    for which in [&["device-identity", "-d", "d1"][..], &["module-identity", "-d", "d1", "-m", "m1"]] {
        let line =
            |verb: &'static str, more: &[&'static str]| [&[which[0], verb][..], &which[1..], more].concat();
        let made = owner.json(&line("create", &["--queue-messages-max", "200"])).await;
        assert_eq!(made["queueMessagesMax"], 200);
        owner.refused(2, &line("update", &["--queue-messages-max", ""])).await;
        owner.refused(2, &line("update", &["--queue-messages-max", "0"])).await;
        let changed = owner.json(&line("update", &["--queue-messages-max", "7"])).await;
        assert_eq!(changed["queueMessagesMax"], 7);
        let changed = owner.json(&line("update", &["--queue-messages-max", "default"])).await;
        assert_eq!(changed.get("queueMessagesMax"), None);
    }
    hub.stop().await;
}
