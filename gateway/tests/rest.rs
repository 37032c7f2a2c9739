//! The REST face, as a service meets it: identities, messages, refusals, health.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{HubSettings, TestHub};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

#[tokio::test]
async fn a_device_is_created_read_listed_replaced_and_deleted() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let path = format!("/devices/pump-7?{V}");
    let (status, created) = rest.call("PUT", &path, Some(json!({"deviceId": "pump-7"}))).await;
    assert_eq!(status, 200, "{created}");
    assert_eq!(created["authentication"]["type"], "sas");
    assert_eq!(created["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 44);
    assert_eq!(created["status"], "enabled");
    assert_eq!(created["connectionState"], "Disconnected");
    assert_eq!(created["generationId"].as_str().unwrap().len(), 18);

    assert_eq!(rest.call("GET", &path, None).await, (200, created.clone()));
    let shown = rest.request("GET", &path).send().await.unwrap();
    assert_eq!(shown.headers()["content-type"], "application/json; charset=utf-8");
    assert_eq!(shown.headers()["x-ms-request-id"].len(), 32);
    assert_eq!(rest.call("GET", &format!("/devices/?top=3&{V}"), None).await, (200, json!([created])));
    assert_eq!(rest.call("GET", &format!("/devices?{V}"), None).await.0, 200);

    let etag = created["etag"].as_str().unwrap();
    let replace = rest.request("PUT", &path).header("if-match", format!("\"{etag}\""));
    let replaced = replace
        .json(&json!({"deviceId": "pump-7", "status": "disabled", "statusReason": "spring cleaning"}))
        .send()
        .await
        .unwrap();
    assert_eq!(replaced.status(), 200);
    let header = replaced.headers()["etag"].to_str().unwrap().to_owned();
    let replaced: Value = replaced.json().await.unwrap();
    assert_eq!(format!("\"{}\"", replaced["etag"].as_str().unwrap()), header);
    assert_eq!(
        (&replaced["status"], &replaced["statusReason"]),
        (&json!("disabled"), &json!("spring cleaning"))
    );
    assert_eq!(replaced["authentication"], created["authentication"]);

    let stale = rest
        .request("PUT", &path)
        .header("if-match", etag)
        .json(&json!({"deviceId": "pump-7"}))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (stale.status().as_u16(), stale.headers()["iothub-errorcode"].to_str().unwrap()),
        (412, "PreconditionFailed")
    );
    let deleted = rest.request("DELETE", &path).header("if-match", "\"*\"").send().await.unwrap();
    assert_eq!((deleted.status().as_u16(), deleted.bytes().await.unwrap().len()), (204, 0));
    assert_eq!(rest.call("GET", &path, None).await.0, 404);
    hub.stop().await;
}

#[tokio::test]
async fn errors_have_iot_hubs_form() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let missing = rest.request("GET", &format!("/devices/nobody?{V}")).send().await.unwrap();
    assert_eq!(missing.status(), 404);
    assert_eq!(missing.headers()["iothub-errorcode"], "DeviceNotFound");
    assert_eq!(missing.headers()["content-type"], "application/json; charset=utf-8");
    let body: Value = missing.json().await.unwrap();
    assert_eq!(body["Message"], "ErrorCode:DeviceNotFound;nobody");
    assert!(body["ExceptionMessage"].as_str().unwrap().starts_with("Tracking ID:"), "{body}");

    hub.device("d1").await;
    let (status, body) = rest.call("PUT", &format!("/devices/d1?{V}"), Some(json!({"deviceId": "d1"}))).await;
    assert_eq!(status, 409);
    assert_eq!(body["Message"], "ErrorCode:DeviceAlreadyExists;A device with ID 'd1' is already registered.");
    hub.stop().await;
}

#[tokio::test]
async fn t502_every_legal_character_of_an_id_works_through_the_path() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for id in
        ["a-b.c%d_e*f?g!h(i)j,k:l;m=n@o$p'q", "$iothub", "modules", "messages", "%31", "d:1", "_", "..."]
    {
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let (status, created) =
            rest.call("PUT", &format!("/devices/{encoded}?{V}"), Some(json!({"deviceId": id}))).await;
        assert_eq!((status, &created["deviceId"]), (200, &json!(id)), "{created}");
        assert_eq!(rest.call("GET", &format!("/devices/{encoded}?{V}"), None).await.0, 200, "{id}");
    }
    assert_eq!(rest.call("GET", &format!("/devices/1?{V}"), None).await.0, 404);
    for bad in ["a%20b", "a%2Bb", "a%23b", "%C3%A4", "a%00b", "%2E%2E", "a%5Cb", "%FF"] {
        let (status, body) = rest.call("GET", &format!("/devices/{bad}?{V}"), None).await;
        assert!(status == 400 || status == 404, "{bad}: {status} {body}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t702_t703_t709_requests_of_a_wrong_form_change_nothing() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for query in ["", "?api-version=", "?api-version=1", &format!("?{V}&{V}")] {
        assert_eq!(rest.call("GET", &format!("/devices{query}"), None).await.0, 400, "{query}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in [
        "",
        "{",
        "[]",
        "null",
        "{\"deviceId\":7}",
        "{\"deviceId\":\"other\"}",
        "\u{feff}{}",
        "{\"status\":1e999}",
        &deep,
    ] {
        let response =
            rest.request("PUT", &format!("/devices/d1?{V}")).body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), 400, "{body:.40}");
    }
    let response = rest.request("PATCH", &format!("/devices/d1?{V}")).send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert!(response.headers()["allow"].to_str().unwrap().contains("PUT"));
    assert_eq!(hub.hub.registry.counts().devices, 0);
    assert_eq!(rest.call("GET", "/nowhere", None).await.0, 404);
    hub.stop().await;
}

#[tokio::test]
async fn t717_a_message_is_taken_with_all_its_properties_and_counted() {
    let hub = TestHub::start().await;
    let device = hub.device("pump-7").await;
    let rest = hub.rest();
    let sent = rest
        .request("POST", &format!("/devices/pump-7/messages/deviceBound?{V}"))
        .header("iothub-messageid", "m1")
        .header("iothub-app-lower", "x")
        .header("iothub-properties", "Upper=a%20b&%C3%A4=%2B")
        .body("open valve")
        .send()
        .await
        .unwrap();
    assert_eq!((sent.status().as_u16(), sent.headers()["iothub-messageid"].to_str().unwrap()), (204, "m1"));
    let (_, shown) = rest.call("GET", &format!("/devices/pump-7?{V}"), None).await;
    assert_eq!(shown["cloudToDeviceMessageCount"], 1);
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/pump-7/messages/devicebound/#"]).await;
    let message = client.take_message().await;
    assert_eq!(&message.payload[..], b"open valve");
    for part in ["%24.mid=m1", "lower=x", "Upper=a%20b", "%C3%A4=%2B"] {
        assert!(message.topic.contains(part), "{part} in {}", message.topic.as_str());
    }
    let (_, shown) = rest.call("GET", &format!("/devices/pump-7?{V}"), None).await;
    assert_eq!(shown["connectionState"], "Connected");

    let send = |path: &str, header: (&'static str, &'static str), body: Vec<u8>| {
        rest.request("POST", &format!("{path}?{V}")).header(header.0, header.1).body(body).send()
    };
    let pump = "/devices/pump-7/messages/deviceBound";
    assert_eq!(send("/devices/nobody/messages/deviceBound", ("x", "y"), vec![]).await.unwrap().status(), 404);
    assert_eq!(send(pump, ("iothub-ack", "maybe"), vec![]).await.unwrap().status(), 400);
    assert_eq!(send(pump, ("iothub-expiry", "2001-01-01T00:00:00Z"), vec![]).await.unwrap().status(), 400);
    assert_eq!(send(pump, ("iothub-expiry", "soon"), vec![]).await.unwrap().status(), 400);
    assert_eq!(send(pump, ("x", "y"), vec![0; 65_537]).await.unwrap().status(), 413);
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t717_the_message_after_the_last_place_is_refused_with_its_code() {
    let environment = vec![("PORTCULLIS__LIMITS__QUEUE_MESSAGES_MAX".to_owned(), "2".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    hub.device("d1").await;
    let rest = hub.rest();
    let path = format!("/devices/d1/messages/devicebound?{V}");
    assert_eq!(rest.call("POST", &path, None).await.0, 204);
    assert_eq!(rest.call("POST", &path, None).await.0, 204);
    let full = rest.request("POST", &path).send().await.unwrap();
    assert_eq!(
        (full.status().as_u16(), full.headers()["iothub-errorcode"].to_str().unwrap()),
        (403, "DeviceMaximumQueueDepthExceeded")
    );
    hub.stop().await;
}

#[tokio::test]
async fn modules_live_under_their_device() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let path = format!("/devices/d1/modules/m?{V}");
    assert_eq!(rest.call("PUT", &path, Some(json!({"moduleId": "m", "deviceId": "d1"}))).await.0, 404);
    hub.device("d1").await;
    let (status, created) =
        rest.call("PUT", &path, Some(json!({"moduleId": "m", "deviceId": "d1", "managedBy": "me"}))).await;
    assert_eq!(status, 200, "{created}");
    assert_eq!((&created["managedBy"], created.get("status")), (&json!("me"), None));
    assert_eq!(rest.call("GET", &format!("/devices/d1/modules?{V}"), None).await, (200, json!([created])));
    assert_eq!(rest.call("PUT", &path, Some(json!({}))).await.0, 409);
    assert_eq!(rest.call("DELETE", &path, None).await.0, 204);
    assert_eq!(rest.call("GET", &path, None).await.1["Message"], "ErrorCode:ModuleNotFound;d1/m");
    hub.stop().await;
}

#[tokio::test]
async fn a_module_beyond_the_limit_is_refused_with_its_code() {
    let environment = vec![("PORTCULLIS__LIMITS__MODULES_PER_DEVICE_MAX".to_owned(), "2".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    hub.device("d1").await;
    let rest = hub.rest();
    let put = |module: &str| {
        rest.request("PUT", &format!("/devices/d1/modules/{module}?{V}")).json(&json!({})).send()
    };
    assert_eq!(put("a").await.unwrap().status(), 200);
    assert_eq!(put("b").await.unwrap().status(), 200);
    let third = put("c").await.unwrap();
    assert_eq!(
        (third.status().as_u16(), third.headers()["iothub-errorcode"].to_str().unwrap()),
        (413, "TooManyModulesOnDevice")
    );
    assert_eq!(rest.call("DELETE", &format!("/devices/d1/modules/a?{V}"), None).await.0, 204);
    assert_eq!(put("c").await.unwrap().status(), 200, "a deleted module leaves its place");
    hub.stop().await;
}

#[tokio::test]
async fn t719_health_tells_one_word_and_metrics_stay_off_the_public_port() {
    let hub = TestHub::start().await;
    let mut rest = hub.rest();
    rest.token = None;
    let ready = rest.request("GET", "/healthz/ready").send().await.unwrap();
    assert_eq!((ready.status().as_u16(), ready.text().await.unwrap()), (200, "ready\n".to_owned()));
    assert_eq!(rest.call("GET", "/metrics", None).await.0, 404);
    assert_eq!(hub.ops("/healthz/ready").await, (200, "ready\n".to_owned()));
    let device = hub.device("secret-device").await;
    hub.connect(&device).await.disconnect().await;
    let (_, metrics) = hub.ops("/metrics").await;
    assert!(metrics.contains("portcullis_connection_attempts_total{outcome=\"succeeded\"} 1"), "{metrics}");
    assert!(
        !metrics.contains("secret-device") && !metrics.contains(device.keys.primary.to_base64().as_str())
    );
    hub.stop().await;
}

#[tokio::test]
async fn the_last_refusal_is_told_to_operators() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let connect = portcullis::mqtt::packet::Connect { password: None, ..hub.connect_packet(&device) };
    assert!(hub.connect_with(connect).await.is_err());
    let (status, told) = hub.rest().call("GET", "/api/v1/devices/d1/connections", None).await;
    assert_eq!((status, &told["registered"], &told["connected"]), (200, &json!(true), &json!(false)));
    assert_eq!(told["lastRefusal"]["outcome"], "no_credential");
    assert_eq!(told["lastRefusal"]["peer"], "127.0.0.1");
    hub.stop().await;
}
