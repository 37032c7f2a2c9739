//! HTTPS requests no SDK makes: odd ids, odd paths, JSON that is none, bodies without end, heads that smuggle.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{HubSettings, RawClient, TestHub};
use serde_json::{Value, json};

const V: &str = "api-version=2021-04-12";

/// A request as bytes, with the owner's token.
fn request(hub: &TestHub, method: &str, target: &str, headers: &str) -> String {
    let token = hub.policy_token("iothubowner");
    format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n{headers}\r\n")
}

/// The status of what the hub answers; nothing when it closes without a word.
async fn status(client: &mut RawClient) -> Option<u16> {
    let answer = client.until_closed().await;
    let line = String::from_utf8_lossy(answer.split(|byte| *byte == b'\n').next()?).into_owned();
    line.split(' ').nth(1)?.parse().ok()
}

/// The status of the answer to a GET of exactly this target.
async fn get(hub: &TestHub, target: &str) -> Option<u16> {
    let mut client = hub.raw_https().await;
    client.send(request(hub, "GET", target, "Connection: close\r\n").as_bytes()).await;
    status(&mut client).await
}

#[tokio::test]
async fn t502_each_character_of_an_id_works_raw_and_encoded() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for character in "-.%_*?!(),:;=@$'".chars() {
        let id = format!("a{character}b");
        let encoded: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for path in [format!("/devices/{encoded}"), format!("/devices/d1/modules/{encoded}")] {
            if path.contains("modules") && rest.call("GET", &format!("/devices/d1?{V}"), None).await.0 == 404
            {
                hub.device("d1").await;
            }
            let (status, made) = rest.call("PUT", &format!("{path}?{V}"), Some(json!({}))).await;
            let name = if path.contains("modules") { "moduleId" } else { "deviceId" };
            assert_eq!((status, &made[name]), (200, &json!(id)), "{made}");
            // The C and Java SDKs write ids as they are; `?` and a lone `%` cannot be written so.
            if !matches!(character, '?' | '%') {
                let raw = path.replace(&encoded, &id);
                assert_eq!(get(&hub, &format!("{raw}?{V}")).await, Some(200), "{raw}");
            }
        }
        let query = json!({ "query": format!("SELECT * FROM devices WHERE deviceId = \"{id}\"") });
        let (_, found) = rest.call("POST", &format!("/devices/query?{V}"), Some(query)).await;
        assert_eq!(found[0]["deviceId"], json!(id));
    }
    hub.stop().await;
}

#[tokio::test]
async fn t503_ids_are_decoded_once_and_never_folded() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ids = ["d1", "D1", "d%31", "d%2531", "d%2F1"];
    let path = |id: &str| format!("/devices/{}?{V}", id.replace('%', "%25"));
    let mut keys = Vec::new();
    for id in ids {
        let (status, made) = rest.call("PUT", &path(id), Some(json!({ "deviceId": id }))).await;
        assert_eq!((status, &made["deviceId"]), (200, &json!(id)));
        keys.push(made["authentication"]["symmetricKey"]["primaryKey"].to_string());
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), ids.len());
    for id in ids {
        assert_eq!(rest.call("DELETE", &path(id), None).await.0, 204);
        assert_eq!(rest.call("DELETE", &path(id), None).await.0, 404);
    }
    hub.stop().await;
}

#[tokio::test]
async fn t504_ids_that_look_like_routes_are_plain_data() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let ids =
        ["modules", "messages", "jobs", "bulk", "query", "commands", "devices", "statistics", "deviceBound"];
    let ids = ids.into_iter().chain(["$iothub", "$share", "$admin", "api", "healthz", "keys", "..."]);
    for id in ids {
        let paths = [format!("/devices/{id}"), format!("/devices/{id}/modules/{id}")];
        for path in &paths {
            let (status, made) = rest.call("PUT", &format!("{path}?{V}"), Some(json!({}))).await;
            assert_eq!((status, &made["deviceId"]), (200, &json!(id)), "{path}");
            for shown in [format!("{path}?{V}"), format!("{path}/?{V}")] {
                assert_eq!(rest.call("GET", &shown, None).await, (200, made.clone()), "{shown}");
            }
        }
        for path in paths.iter().rev() {
            assert_eq!(rest.call("DELETE", &format!("{path}?{V}"), None).await.0, 204, "{path}");
            assert_eq!(rest.call("GET", &format!("{path}?{V}"), None).await.0, 404, "{path}");
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t703_what_is_no_json_is_refused_everywhere() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let rest = hub.rest();
    let utf16: Vec<u8> = "{\"deviceId\":\"d2\"}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let deep =
        |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000)).into_bytes();
    let bodies = [
        Vec::new(),
        b"{".to_vec(),
        b"{\"deviceId\":\"d2\"".to_vec(),
        b"{\"deviceId\":\"d2\"} {}".to_vec(),
        b"nil".to_vec(),
        b"null".to_vec(),
        b"\xef\xbb\xbf{\"deviceId\":\"d2\"}".to_vec(),
        b"{\"deviceId\":\"\\ud800\"}".to_vec(),
        b"{\"deviceId\":\"\xff\"}".to_vec(),
        b"{\"deviceId\":\"d2\",\"deviceId\":\"d2\"}".to_vec(),
        b"{\"authentication\":{\"type\":\"sas\",\"type\":\"none\"}}".to_vec(),
        b"{\"status\":1e999,\"query\":1e999,\"rights\":1e999,\"key\":1e999}".to_vec(),
        b"{\"status\":{},\"query\":{},\"rights\":{},\"key\":{}}".to_vec(),
        b"[{\"id\":\"d2\",\"importMode\":\"create\",\"importMode\":\"delete\"}]".to_vec(),
        b"[{\"id\":\"d2\",\"authentication\":{\"type\":\"sas\",\"type\":\"none\"}}]".to_vec(),
        b"[1e999]".to_vec(),
        utf16,
        deep("[", "]"),
        deep("{\"a\":", "}"),
        deep("[{\"id\":", "}]"),
    ];
    for (method, path) in [
        ("PUT", "/devices/d2"),
        ("PUT", "/devices/d1/modules/m"),
        ("POST", "/devices"),
        ("POST", "/devices/query"),
        ("PUT", "/api/v1/policies/own"),
        ("POST", "/api/v1/policies/service/regenerate"),
    ] {
        for body in &bodies {
            let answer =
                rest.request(method, &format!("{path}?{V}")).body(body.clone()).send().await.unwrap();
            let status = answer.status();
            let text = answer.text().await.unwrap();
            assert_eq!(status, 400, "{method} {path} {:.60}: {text}", String::from_utf8_lossy(body));
            assert!(text.len() < 1_000, "{text}");
        }
    }
    assert_eq!((hub.hub.registry.counts().devices, hub.hub.registry.counts().modules), (1, 0));
    hub.stop().await;
}

#[tokio::test]
async fn t704_bodies_too_long_too_slow_or_packed_are_refused() {
    let environment = vec![("PORTCULLIS__LIMITS__REQUEST_TIME_MAX".to_owned(), "1s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let rest = hub.rest();
    let put = || rest.request("PUT", &format!("/devices/d1?{V}"));
    assert_eq!(put().body(vec![b' '; (1 << 20) + 1]).send().await.unwrap().status(), 413);
    for (name, value) in [
        ("content-encoding", "gzip"),
        ("content-encoding", "br, gzip"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-type", "application/json;charset=\"iso-8859-1\""),
    ] {
        let answer = put().header(name, value).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 415, "{name}: {value}");
    }

    let target = format!("/devices/d1?{V}");
    let mut endless = hub.raw_https().await;
    endless.send(request(&hub, "PUT", &target, "Transfer-Encoding: chunked\r\n").as_bytes()).await;
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..17 {
        endless.send(chunk.as_bytes()).await;
    }
    assert!(endless.http_head().await.starts_with("HTTP/1.1 413 "));

    // A body that stays out is waited for only so long.
    for headers in ["Content-Length: 50\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut slow = hub.raw_https().await;
        slow.send(request(&hub, "PUT", &target, headers).as_bytes()).await;
        slow.send(b"2").await;
        assert!(slow.http_head().await.starts_with("HTTP/1.1 408 "));
    }
    let mut nothing = hub.raw_https().await;
    nothing.send(b"GET /devices").await;
    assert_eq!(status(&mut nothing).await, None, "half a head is closed in the end");
    assert_eq!(hub.hub.registry.counts().devices, 0);
    let json =
        put().header("content-type", "application/json; charset=UTF-8").body("{}").send().await.unwrap();
    assert_eq!(json.status(), 200);
    hub.stop().await;
}

#[tokio::test]
async fn a_change_is_recorded_even_when_its_client_goes_away() {
    let hub = TestHub::start().await;
    for number in 0..60 {
        let mut client = hub.raw_https().await;
        let put = request(&hub, "PUT", &format!("/devices/d{number}?{V}"), "Content-Length: 2\r\n");
        client.send(format!("{put}{{}}").as_bytes()).await;
        // Gone at every step of the way: before the request is read, while it is stored, after it is answered.
        for _ in 0..number {
            tokio::task::yield_now().await;
        }
    }
    let hub = hub.restart().await;
    let (_, told) = hub.rest().call("GET", "/api/v1/audit", None).await;
    let created = told.as_array().unwrap().iter().filter(|line| line["op"] == "createIdentity").count();
    assert_eq!(hub.hub.registry.counts().devices, created);
    assert_ne!(created, 0, "no request was read");
    hub.stop().await;
}

#[tokio::test]
async fn t708_no_path_leads_out_of_the_registry() {
    let hub = TestHub::start().await;
    for path in [
        "/devices/..%2f..%2fetc%2fpasswd",
        "/devices/../../etc/passwd",
        "/devices/%2e%2e/%2e%2e/etc/passwd",
        "/devices/%252e%252e%252fetc",
        "//devices/d1",
        "/devices//d1",
        "/devices/d1//modules",
        "/devices/./d1",
        "/devices/d1/..",
        "/devices/d1%00",
        "/devices/d1%00.json",
        "/devices/d1;jsessionid=1",
        "/devices/..;/..;/etc/passwd",
        "/devices/d1\\..\\..",
        "/devices/%5c%5chost%5cshare",
        "/devices/%ff%fe",
        "/devices/%",
        "/devices/%zz",
        "/devices/d1%0d%0aX-Injected:%201",
        "/api/v1/../../etc/passwd",
        "/api/v1/policies/..%2f..%2fetc",
        "/healthz/../../etc/passwd",
        "/static/../../etc/passwd",
        "/.git/config",
        "/portcullis-data/ca.pem",
        "/local.json",
    ] {
        let status = get(&hub, &format!("{path}?{V}")).await;
        assert!(matches!(status, Some(400 | 404)), "{path}: {status:?}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t710_heads_that_could_be_read_in_two_ways_are_refused() {
    let hub = TestHub::start().await;
    let device = hub.device("d0").await;
    let target = format!("/devices/d0?{V}");
    let mut good = hub.raw_https().await;
    let headers = "If-Match: *\r\nContent-Length: 2\r\nConnection: close\r\n";
    good.send(format!("{}{{}}", request(&hub, "PUT", &target, headers)).as_bytes()).await;
    assert_eq!(status(&mut good).await, Some(200), "the same without tricks works");
    let many: String = (0..1_000).map(|number| format!("X-{number}: 1\r\n")).collect();
    for headers in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: 2, 3\r\n",
        "Content-Length: -2\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 0x2\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "X-Folded: a\r\n b\r\n",
        "X-Nul: a\0b\r\n",
        "X Blank: a\r\n",
        "X-Colon : a\r\n",
        ": a\r\n",
        "X-Bare\rCR: a\r\n",
        &format!("X-Long: {}\r\n", "x".repeat(64 << 10)),
        &many,
    ] {
        let mut client = hub.raw_https().await;
        client.send(request(&hub, "PUT", &target, &format!("If-Match: *\r\n{headers}")).as_bytes()).await;
        client.send(b"{}").await;
        let status = status(&mut client).await;
        assert!(matches!(status, None | Some(400 | 431)), "{headers:.60}: {status:?}");
    }
    // Of two lengths the chunks count; what follows them is no second request, for the connection ends (RFC 9112, 6.3).
    for headers in [
        "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
    ] {
        let mut client = hub.raw_https().await;
        let smuggled = request(&hub, "DELETE", &target, "");
        let put = request(&hub, "PUT", &target, &format!("If-Match: *\r\n{headers}"));
        client.send(format!("{put}2\r\n{{}}\r\n0\r\n\r\n{smuggled}").as_bytes()).await;
        let answers = String::from_utf8(client.until_closed().await).unwrap();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(hub.hub.registry.entry(&device.id).is_some());
    }
    for line in [
        format!("GET /devices?{V}&x={} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(64 << 10)),
        "GET /devices HTTP/3.0\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET  /devices HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GE\0T /devices HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
    ] {
        let mut client = hub.raw_https().await;
        client.send(line.as_bytes()).await;
        let status = status(&mut client).await;
        assert!(matches!(status, None | Some(400 | 414 | 431 | 505)), "{line:.40}: {status:?}");
    }
    assert_eq!(hub.hub.registry.counts().devices, 1);
    hub.stop().await;
}

#[tokio::test]
async fn t712_errors_tell_nothing_of_the_host_and_escape_what_they_repeat() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let device = hub.device("d1").await;
    let key = device.keys.primary.to_base64();
    let data_dir = hub.data_dir().display().to_string();
    for (method, path, body) in [
        ("GET", "/devices/a%0Ab", Value::Null),
        ("GET", "/devices/a%1B%5B31mred", Value::Null),
        ("GET", "/devices/a%0D%0ASet-Cookie:%20x", Value::Null),
        ("PUT", "/devices/d2", json!({"deviceId": "d\u{1b}[31m\n"})),
        ("PUT", "/devices/d2", json!({"status": "\u{1b}[31m\n"})),
        ("PUT", "/devices/d2", json!({"authentication": {"type": "\u{1b}]0;x\u{7}\n"}})),
        ("PUT", "/devices/d2", json!({"authentication": {"symmetricKey": {"primaryKey": key.as_str()}}})),
        ("POST", "/devices", json!([{"id": "\u{1b}[31m\n"}])),
        ("POST", "/devices", json!([{"id": "d1", "importMode": "\u{1b}[31m\n"}])),
        ("POST", "/devices/query", json!({"query": "SELECT \u{1b}[31m\n"})),
        ("PUT", "/api/v1/policies/own", json!({"rights": ["\u{1b}[31m\n"]})),
        ("GET", "/nowhere", Value::Null),
    ] {
        let answer = rest.request(method, &format!("{path}?{V}")).json(&body).send().await.unwrap();
        assert!(answer.status().is_client_error(), "{method} {path}");
        assert!(answer.headers().get("set-cookie").is_none());
        let text = answer.text().await.unwrap();
        assert!(!text.contains(['\u{1b}', '\n', '\r', '\u{7}']), "{text:?}");
        for secret in [key.as_str(), data_dir.as_str(), ".rs:", env!("CARGO_MANIFEST_DIR"), "panicked"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    hub.stop().await;
}
