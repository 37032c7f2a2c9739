//! The registry at large, as a service meets it over REST: bulk changes, pages, statistics, purges.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{HubSettings, RestClient, TestHub};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

/// Posts items; status, header `iothub-errorcode`, and body of the answer.
async fn bulk(rest: &RestClient, items: Value) -> (u16, Option<String>, Value) {
    let response = rest.request("POST", &format!("/devices?{V}")).json(&items).send().await.unwrap();
    let code = response.headers().get("iothub-errorcode").map(|code| code.to_str().unwrap().to_owned());
    (response.status().as_u16(), code, response.json().await.unwrap_or_default())
}

/// Posts items that are all good.
async fn bulk_done(rest: &RestClient, items: Value) -> Value {
    let (status, code, answer) = bulk(rest, items).await;
    assert_eq!((status, code, &answer["isSuccessful"]), (200, None, &json!(true)), "{answer}");
    assert_eq!(answer["errors"], json!([]));
    answer
}

/// Posts items of which some are bad; id, module and code of each of those.
async fn bulk_errors(rest: &RestClient, items: Value) -> Vec<(String, Option<String>, String)> {
    let (status, code, answer) = bulk(rest, items).await;
    assert_eq!((status, code.as_deref()), (400, Some("BulkRegistryOperationFailure")), "{answer}");
    assert_eq!(answer["isSuccessful"], false);
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let errors = answer["errors"].as_array().unwrap().iter();
    errors
        .map(|error| {
            assert!(error["errorStatus"].is_string() && error["operation"].is_null(), "{error}");
            (text(&error["deviceId"]).unwrap(), text(&error["moduleId"]), text(&error["errorCode"]).unwrap())
        })
        .collect()
}

/// The code of the one item that was refused.
async fn bulk_refused(rest: &RestClient, item: Value) -> String {
    let mut errors = bulk_errors(rest, json!([item])).await;
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors.remove(0).2
}

async fn show(rest: &RestClient, id: &str) -> Value {
    rest.call("GET", &format!("/devices/{id}?{V}"), None).await.1
}

async fn exists(rest: &RestClient, id: &str) -> bool {
    rest.call("GET", &format!("/devices/{id}?{V}"), None).await.0 == 200
}

fn error(device: &str, module: Option<&str>, code: &str) -> (String, Option<String>, String) {
    (device.to_owned(), module.map(str::to_owned), code.to_owned())
}

#[tokio::test]
async fn every_mode_does_what_its_name_says() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let item = |id: &str, mode: &str| json!({"id": id, "importMode": mode});
    let with_etag = |id: &str, mode: &str, etag: &str| json!({"id": id, "importMode": mode, "eTag": etag});
    bulk_done(&rest, json!([{"id": "d1"}, item("d2", "create"), item("d3", "createOrUpdateIfMatchETag")]))
        .await;
    let made = show(&rest, "d1").await;
    let etag = made["etag"].as_str().unwrap();
    assert_eq!(made["authentication"]["type"], "sas");
    assert_eq!(made["authentication"]["symmetricKey"]["primaryKey"].as_str().unwrap().len(), 44);

    for (item, code) in [
        (item("d1", "create"), "DeviceAlreadyExists"),
        (item("nobody", "update"), "DeviceNotFound"),
        (item("nobody", "delete"), "DeviceNotFound"),
        (with_etag("nobody", "updateIfMatchETag", etag), "DeviceNotFound"),
        (with_etag("nobody", "deleteIfMatchETag", etag), "DeviceNotFound"),
        (with_etag("d2", "updateIfMatchETag", etag), "PreconditionFailed"),
        (with_etag("d2", "deleteIfMatchETag", etag), "PreconditionFailed"),
        (with_etag("d2", "createOrUpdateIfMatchETag", etag), "PreconditionFailed"),
        (item("d2", "createOrUpdateIfMatchETag"), "DeviceAlreadyExists"),
        (item("d2", "updateIfMatchETag"), "ArgumentNull"),
        (item("d2", "deleteIfMatchETag"), "ArgumentNull"),
        (with_etag("d2", "updateIfMatchETag", "a, b"), "ArgumentInvalid"),
        (item("d1", "updateTwin"), "FeatureNotSupported"),
        (item("d1", "updateTwinIfMatchETag"), "FeatureNotSupported"),
        (item("d1", "replace"), "ArgumentInvalid"),
        (item("d 1", "create"), "ArgumentInvalid"),
        (json!({"importMode": "create"}), "ArgumentNull"),
        (json!({"id": 7}), "DeserializationError"),
        (json!({"id": "d1", "status": 7}), "DeserializationError"),
        (json!({"id": "d1", "status": "asleep"}), "ArgumentInvalid"),
        (json!({"id": "d1", "importMode": "update", "eTag": etag, "etag": "*"}), "ArgumentInvalid"),
    ] {
        let etags_count = item.get("etag").is_some();
        if etags_count {
            let mut item = item;
            item["importMode"] = json!("updateIfMatchETag");
            assert_eq!(bulk_refused(&rest, item).await, code);
        } else {
            assert_eq!(bulk_refused(&rest, item.clone()).await, code, "{item}");
        }
    }
    assert_eq!(show(&rest, "d1").await, made, "nothing of this changed anything");

    bulk_done(
        &rest,
        json!([
            {"id": "d1", "importMode": "updateIfMatchETag", "eTag": format!("\"{etag}\""), "status": "disabled"},
            {"id": "d2", "importMode": "CREATEORUPDATE", "eTag": "ignored", "status": "Disabled"},
            {"id": "d3", "importMode": "Update", "capabilities": {"iotEdge": true}},
        ]),
    )
    .await;
    let updated = show(&rest, "d1").await;
    assert_eq!((&updated["status"], updated["etag"] != made["etag"]), (&json!("disabled"), true));
    assert_eq!(updated["authentication"], made["authentication"], "the keys are kept");
    assert_eq!(show(&rest, "d2").await["status"], "disabled");
    assert_eq!(show(&rest, "d3").await["capabilities"]["iotEdge"], true);

    let etag = updated["etag"].as_str().unwrap();
    bulk_done(
        &rest,
        json!([
            {"id": "d1", "importMode": "createOrUpdateIfMatchETag", "ETAG": etag},
            {"id": "d2", "importMode": "UpdateIfMatchETag", "eTag": "*"},
            {"id": "d3", "importMode": "deleteIfMatchEtag", "etag": "*"},
        ]),
    )
    .await;
    assert_eq!(show(&rest, "d1").await["status"], "enabled");
    assert!(!exists(&rest, "d3").await);
    bulk_done(&rest, json!([item("d1", "Delete"), item("d2", "delete")])).await;
    assert_eq!(hub.hub.registry.counts().devices, 0);
    hub.stop().await;
}

#[tokio::test]
async fn t706_a_bulk_request_of_a_wrong_size_or_form_does_nothing() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items = |count: usize| -> Value { (0..count).map(|n| json!({"id": format!("d{n}")})).collect() };
    for (body, code) in [
        (items(0), "ArgumentInvalid"),
        (items(101), "ArgumentInvalid"),
        (json!({"id": "d1"}), "DeserializationError"),
        (json!([{"id": "d1"}, 7]), "DeserializationError"),
        (json!(null), "DeserializationError"),
    ] {
        let (status, told, answer) = bulk(&rest, body).await;
        assert_eq!((status, told.as_deref()), (400, Some(code)), "{answer}");
    }
    let mut reader = hub.rest();
    reader.token = Some(hub.policy_token("registryRead"));
    assert_eq!(bulk(&reader, items(1)).await.0, 401);
    assert_eq!(hub.hub.registry.counts().devices, 0);
    let path = format!("/devices/?{V}");
    assert_eq!(rest.call("POST", &path, Some(items(100))).await.0, 200, "a trailing slash is as good");
    assert_eq!(hub.hub.registry.counts().devices, 100);
    hub.stop().await;
}

#[tokio::test]
async fn t706_bad_items_have_a_result_each_and_the_good_ones_are_kept() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("old").await;
    let mut items: Vec<Value> =
        (0..90).map(|n| json!({"id": format!("d{n}"), "importMode": "create"})).collect();
    items.extend([
        json!({"id": "twice", "importMode": "create"}),
        json!({"id": "old", "importMode": "create"}),
        json!({"id": "twice", "importMode": "delete"}),
        json!({"id": "bad", "authentication": {"type": "password"}}),
        json!({"id": "gone", "moduleId": "m"}),
    ]);
    let mut errors = bulk_errors(&rest, Value::Array(items)).await;
    errors.sort();
    assert_eq!(
        errors,
        [
            error("bad", None, "ArgumentInvalid"),
            error("gone", Some("m"), "DeviceNotFound"),
            error("old", None, "DeviceAlreadyExists"),
            error("twice", None, "DeviceDefinedMultipleTimes"),
            error("twice", None, "DeviceDefinedMultipleTimes"),
        ]
    );
    let hub = hub.restart().await;
    assert_eq!(hub.hub.registry.counts().devices, 91);
    assert!(!exists(&hub.rest(), "twice").await && exists(&hub.rest(), "d89").await);
    hub.stop().await;
}

#[tokio::test]
async fn a_device_and_its_modules_come_and_go_together() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    bulk_done(&rest, json!([{"id": "d1", "moduleId": "m", "managedBy": "me"}, {"id": "d1"}])).await;
    let (_, module) = rest.call("GET", &format!("/devices/d1/modules/m?{V}"), None).await;
    assert_eq!((&module["moduleId"], &module["managedBy"]), (&json!("m"), &json!("me")));
    let created = json!([{"id": "d1", "moduleId": "m", "importMode": "create"}]);
    assert_eq!(bulk_errors(&rest, created).await, [error("d1", Some("m"), "ModuleAlreadyExistsOnDevice")]);
    let deleted = json!([
        {"id": "d1", "importMode": "delete"},
        {"id": "d1", "moduleId": "m", "importMode": "delete"},
    ]);
    bulk_done(&rest, deleted).await;
    assert_eq!((hub.hub.registry.counts().devices, hub.hub.registry.counts().modules), (0, 0));
    hub.stop().await;
}

#[tokio::test]
async fn a_twin_that_is_not_kept_is_a_warning() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items = json!([
        {"id": "d1", "importMode": "create", "tags": {"floor": 3}},
        {"id": "d2", "properties": {"desired": {"speed": 1}}},
        {"id": "d3", "tags": {}, "properties": {"desired": {}}},
        {"id": "d4", "tags": null},
    ]);
    let answer = bulk_done(&rest, items).await;
    let warnings = answer["warnings"].as_array().unwrap();
    let told: Vec<_> = warnings.iter().map(|told| (&told["deviceId"], &told["warningCode"])).collect();
    let code = json!("DeviceRegisteredWithoutTwin");
    assert_eq!(told, [(&json!("d1"), &code), (&json!("d2"), &code)]);
    let answer = bulk_done(&rest, json!([{"id": "d1", "importMode": "delete", "tags": {"floor": 3}}])).await;
    assert_eq!(answer["warnings"], json!([]));
    hub.stop().await;
}

#[tokio::test]
async fn t705_of_racing_writers_on_one_etag_one_wins() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let path = format!("/devices/d1?{V}");
    let status = |etag: Option<String>| {
        let request = rest.request("PUT", &path).json(&json!({"deviceId": "d1"}));
        let request = match etag {
            Some(etag) => request.header("if-match", etag),
            None => request,
        };
        async move { request.send().await.unwrap().status().as_u16() }
    };
    let created = futures_util::future::join_all((0..100).map(|_| status(None))).await;
    let count = |statuses: &[u16], wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(&created, 200), count(&created, 409)), (1, 99));
    let etag = show(&rest, "d1").await["etag"].as_str().unwrap().to_owned();
    let quoted = format!("\"{etag}\"");
    let replaced = futures_util::future::join_all((0..100).map(|_| status(Some(quoted.clone())))).await;
    assert_eq!((count(&replaced, 200), count(&replaced, 412)), (1, 99));
    hub.stop().await;
}

#[tokio::test]
async fn t705_an_if_match_is_read_in_every_spelling_and_a_list_is_refused() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("d1").await;
    for (spelling, wanted) in [
        ("*", 200),
        ("\"*\"", 200),
        ("{}", 200),
        ("\"{}\"", 200),
        ("W/\"{}\"", 200),
        ("\"{}\", \"x\"", 400),
        ("stale", 412),
        ("", 400),
    ] {
        let etag = show(&rest, "d1").await["etag"].as_str().unwrap().to_owned();
        let request = rest.request("PUT", &format!("/devices/d1?{V}"));
        let request = request.header("if-match", spelling.replace("{}", &etag)).json(&json!({}));
        assert_eq!(request.send().await.unwrap().status(), wanted, "{spelling}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn statistics_follow_every_change() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    hub.device("d2").await;
    let devices = async |rest: &RestClient| {
        let (status, told) = rest.call("GET", &format!("/statistics/devices?{V}"), None).await;
        assert_eq!(status, 200);
        let count = |name: &str| told[name].as_u64().unwrap();
        (count("totalDeviceCount"), count("enabledDeviceCount"), count("disabledDeviceCount"))
    };
    let connected = async |rest: &RestClient| {
        rest.call("GET", &format!("/statistics/service?{V}"), None).await.1["connectedDeviceCount"].clone()
    };
    assert_eq!(devices(&rest).await, (2, 2, 0));
    hub.disable(&device).await;
    hub.disable(&device).await;
    assert_eq!(devices(&rest).await, (2, 1, 1));
    let hub = hub.restart().await;
    let rest = hub.rest();
    assert_eq!(devices(&rest).await, (2, 1, 1));
    bulk_done(&rest, json!([{"id": "d1", "status": "enabled"}, {"id": "d2", "status": "disabled"}])).await;
    assert_eq!(devices(&rest).await, (2, 1, 1));

    assert_eq!(connected(&rest).await, 0);
    let client = hub.connect(&device).await;
    let of_module = hub.connect(&module).await;
    assert_eq!(connected(&rest).await, 1, "a module is no device");
    let newer = hub.connect(&device).await;
    assert_eq!(connected(&rest).await, 1, "a takeover is no second device");
    drop(client);
    newer.disconnect().await;
    of_module.disconnect().await;
    while connected(&rest).await != 0 {
        tokio::task::yield_now().await;
    }
    bulk_done(&rest, json!([{"id": "d1", "importMode": "delete"}, {"id": "d2", "importMode": "delete"}]))
        .await;
    assert_eq!(devices(&rest).await, (0, 0, 0));

    let mut reader = hub.rest();
    for (policy, of_devices, of_service) in [("service", 401, 200), ("registryRead", 200, 401)] {
        reader.token = Some(hub.policy_token(policy));
        assert_eq!(reader.call("GET", &format!("/statistics/devices?{V}"), None).await.0, of_devices);
        assert_eq!(reader.call("GET", &format!("/statistics/service?{V}"), None).await.0, of_service);
    }
    hub.stop().await;
}

#[tokio::test]
async fn t718_a_purge_tells_how_many_and_none_comes_back() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let device = hub.device("d1").await;
    for body in ["one", "two", "three"] {
        hub.send(&device, body).await;
    }
    let path = format!("/devices/d1/commands?{V}");
    let told = |count: u64| (200, json!({"totalMessagesPurged": count, "deviceId": "d1", "moduleId": null}));
    assert_eq!(rest.call("DELETE", &path, None).await, told(3));
    assert_eq!(rest.call("DELETE", &path, None).await, told(0));
    assert_eq!(rest.call("DELETE", &format!("/devices/nobody/commands?{V}"), None).await.0, 404);
    let mut reader = hub.rest();
    reader.token = Some(hub.policy_token("registryReadWrite"));
    assert_eq!(reader.call("DELETE", &path, None).await.0, 401);
    let hub = hub.restart().await;
    hub.send(&device, "four").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    assert_eq!(client.take_message().await.payload, "four");
    client.settle().await;
    hub.stop().await;
}

/// A page of the device list: the ids on it, and the token for the next one.
async fn page(rest: &RestClient, count: &str, token: Option<&str>) -> (u16, Vec<String>, Option<String>) {
    let request = rest.request("GET", &format!("/devices?{V}")).header("x-ms-max-item-count", count);
    let request = match token {
        Some(token) => request.header("x-ms-continuation", token),
        None => request,
    };
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let next = response.headers().get("x-ms-continuation").map(|token| token.to_str().unwrap().to_owned());
    let devices: Value = response.json().await.unwrap();
    let ids = devices.as_array().into_iter().flatten();
    (status, ids.map(|device| device["deviceId"].as_str().unwrap().to_owned()).collect(), next)
}

#[tokio::test]
async fn a_list_by_pages_has_every_device_once_and_in_order() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let items = |range: std::ops::Range<usize>| range.map(|n| json!({"id": format!("d{n:03}")})).collect();
    bulk_done(&rest, items(0..100)).await;
    bulk_done(&rest, items(100..107)).await;
    hub.module("d003", "m").await;
    bulk_done(&rest, json!([{"id": "d050", "importMode": "delete"}])).await;
    let mut all: Vec<String> = (0..107).filter(|n| *n != 50).map(|n| format!("d{n:03}")).collect();
    let hub = hub.restart().await;
    let rest = hub.rest();

    let (mut listed, mut sizes, mut token) = (Vec::new(), Vec::new(), None);
    loop {
        let (status, ids, next) = page(&rest, "53", token.as_deref()).await;
        assert_eq!(status, 200);
        sizes.push(ids.len());
        listed.extend(ids);
        let Some(next) = next else { break };
        if token.is_none() {
            // What the token names may go meanwhile.
            bulk_done(&rest, json!([{"id": listed.last().unwrap(), "importMode": "delete"}])).await;
        }
        token = Some(next);
    }
    assert_eq!((&listed, sizes), (&all, vec![53, 53]), "the last page is full, and known to be the last");
    all.remove(52);
    assert_eq!(page(&rest, "1000", None).await, (200, all, None));

    let plain = rest.request("GET", &format!("/devices?top=3&{V}")).header("x-ms-continuation", "?");
    let plain = plain.send().await.unwrap();
    assert_eq!((plain.status().as_u16(), plain.headers().get("x-ms-continuation")), (200, None));
    assert_eq!(plain.json::<Value>().await.unwrap().as_array().unwrap().len(), 3);
    hub.stop().await;
}

#[tokio::test]
async fn t711_page_sizes_and_tokens_of_a_wrong_form_are_refused() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("d1").await;
    for count in ["0", "-1", "1001", "", "many", "99999999999999999999"] {
        assert_eq!(page(&rest, count, None).await.0, 400, "{count}");
    }
    for token in ["", "?", "ZDE", "d1", "Li4=", "gICA", "ZCAx", "'; DROP TABLE identity; --"] {
        assert_eq!(page(&rest, "10", Some(token)).await.0, 400, "{token}");
    }
    // A forged token that names a possible id shows what any page shows.
    assert_eq!(page(&rest, "10", Some("ZDA=")).await, (200, vec!["d1".to_owned()], None));
    let mut service = hub.rest();
    service.token = Some(hub.policy_token("service"));
    assert_eq!(page(&service, "10", Some("ZDA=")).await.0, 401);
    hub.stop().await;
}

#[tokio::test]
async fn an_encoded_separator_is_a_separator() {
    let hub = TestHub::start_with(HubSettings::default()).await;
    let rest = hub.rest();
    hub.device("d1").await;
    hub.device("d%2Fx").await;
    for (path, status) in [
        ("/devices%2Fd1", 200),
        ("/devices%2fd1%2Fmodules", 200),
        ("/devices%2Fd%252Fx", 200),
        ("/devices/..%2F..%2Fetc%2Fpasswd", 404),
        ("/devices%2F%2Fd1", 404),
    ] {
        assert_eq!(rest.call("GET", &format!("{path}?{V}"), None).await.0, status, "{path}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t709_a_method_override_reaches_nothing_but_patch() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    hub.device("d1").await;
    let call = |method: &str, path: &str, header: &'static str| {
        let request = rest.request(method, &format!("{path}?{V}")).header("x-http-method-override", header);
        let request = request.json(&json!([{"id": "d2"}]));
        async move { request.send().await.unwrap() }
    };
    let patched = call("POST", "/devices/d1", "PATCH").await;
    assert_eq!(patched.status(), 405);
    assert!(patched.headers()["allow"].to_str().unwrap().contains("PUT"));
    assert_eq!(call("POST", "/devices", "PATCH").await.status(), 405);
    assert_eq!(call("POST", "/devices/d1", "DELETE").await.status(), 405);
    assert_eq!(call("POST", "/devices", "DELETE").await.status(), 200, "any other override is not heard");
    assert_eq!(call("GET", "/devices/d1", "DELETE").await.status(), 200);
    assert!(exists(&rest, "d1").await && exists(&rest, "d2").await);
    hub.stop().await;
}

/// What a PUT that was done says it wrote must be its own, whoever else puts or deletes the same id at the same time.
async fn put_often(rest: &RestClient, path: &str, who: usize) -> usize {
    let mut done = 0;
    for turn in 0..PUTS {
        let key = portcullis_registry::credential::SymmetricKey::generate().to_base64().as_str().to_owned();
        let keys = json!({"primaryKey": key, "secondaryKey": key});
        let body = json!({"authentication": {"type": "sas", "symmetricKey": keys}});
        let mut request = rest.request("PUT", &format!("{path}?{V}")).json(&body);
        if turn % 2 == 1 {
            request = request.header("If-Match", "*");
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let etag = response.headers().get("etag").map(|etag| etag.to_str().unwrap().to_owned());
        let answer: Value = response.json().await.unwrap();
        match (status, turn % 2) {
            (200, _) => done += 1,
            (409, 0) => continue,
            // Only a PUT that replaces may find nothing.
            (404, 1) => continue,
            other => panic!("{who}: {other:?} {answer}"),
        }
        assert_eq!(answer["authentication"]["symmetricKey"], keys, "{who}: somebody else's: {answer}");
        assert_eq!(etag, Some(format!("\"{}\"", answer["etag"].as_str().unwrap())), "{answer}");
    }
    done
}

async fn delete_often(rest: &RestClient, path: &str) {
    for _ in 0..PUTS * 2 {
        let (status, answer) = rest.call("DELETE", &format!("{path}?{V}"), None).await;
        assert!([204, 404].contains(&status), "{status} {answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_put_answers_what_it_wrote_whoever_comes_after_it() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    rest.call("PUT", &format!("/devices/host?{V}"), Some(json!({}))).await;
    for path in ["/devices/d1", "/devices/host/modules/m"] {
        let (one, two, three, _, _) = tokio::join!(
            put_often(&rest, path, 1),
            put_often(&rest, path, 2),
            put_often(&rest, path, 3),
            delete_often(&rest, path),
            delete_often(&rest, path),
        );
        assert!(one + two + three > 0, "{path}: nothing was ever written");
    }
    hub.stop().await;
}

const PUTS: usize = 60;
