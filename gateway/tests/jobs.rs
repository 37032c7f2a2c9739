//! Import and export jobs over REST: files in, files out, one result a line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use portcullis_testing::{HubSettings, RestClient, TestHub};
use serde_json::{Value, json};

/// Outcome and error of each line of an import.
async fn outcomes(rest: &RestClient, file: &str, options: &str) -> Vec<(u64, String)> {
    let job = rest.import(file, options).await;
    assert_eq!(job["status"], "completed", "{job}");
    let told = |result: Value| {
        let outcome = result["errorCode"].as_str().or(result["outcome"].as_str()).unwrap().to_owned();
        (result["line"].as_u64().unwrap(), outcome)
    };
    rest.results(&job).await.into_iter().map(told).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn what_was_exported_is_imported_as_it_was() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for (path, body) in [
        ("/devices/sas?", json!({ "status": "disabled", "statusReason": "broken \"pump\"" })),
        (
            "/devices/own?",
            json!({ "authentication": { "type": "selfSigned", "x509Thumbprint": { "primaryThumbprint": "AB".repeat(20) } } }),
        ),
        (
            "/devices/ca?",
            json!({ "authentication": { "type": "certificateAuthority" }, "capabilities": { "iotEdge": true } }),
        ),
        (
            "/devices/none?",
            json!({ "authentication": { "type": "none" }, "access": { "allow": ["telemetry", "methods:diag*"] } }),
        ),
        ("/devices/-.%25_*%3F!(),:;=@$'?", json!({ "queueMessagesMax": 7 })),
        ("/devices/ca/modules/$edgeAgent?", json!({ "managedBy": "me" })),
        ("/devices/ca/modules/b?", json!({ "access": { "allow": [] } })),
    ] {
        let answer = rest.call("PUT", &format!("{path}api-version=2021-04-12"), Some(body)).await;
        assert_eq!(answer.0, 200, "{path}: {}", answer.1);
    }
    let before = hub.everything().await;
    let exported = rest.export("includeKeys=true").await;
    assert_eq!(exported.lines().count(), 7);

    let other = TestHub::start().await;
    let job = other.rest().import(gzip(&exported), "").await;
    assert_eq!(
        (&job["status"], &job["linesDone"], &job["linesFailed"]),
        (&json!("completed"), &json!(7), &json!(0))
    );
    assert_eq!(job["outcomes"]["created"], 7);
    assert_eq!(other.everything().await, before);
    // Again, it changes nothing: no etag moves.
    let again = other.rest().export("includeKeys=true").await;
    assert_eq!(other.rest().import(exported, "").await["outcomes"]["unchanged"], 7);
    assert_eq!(other.rest().export("includeKeys=true").await, again);
    let devices = other.rest().export("includeModules=false").await;
    assert_eq!(devices.lines().count(), 5);
    assert!(!devices.contains("moduleId"), "{devices}");
    hub.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn t808_lines_that_cannot_be_read_err_alone() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let long = format!(r#"{{"id":"long","statusReason":"{}"}}"#, "x".repeat(64 * 1024));
    let mut file = b"\xef\xbb\xbf{\"id\":\"a\"}\r\n\r\n{\"id\":\n".to_vec();
    file.extend_from_slice(long.as_bytes());
    file.extend_from_slice(
        b"\n{\"id\":\"\xff\"}\nnull\n{\"id\":\"b\",\"tags\":{\"room\":7}}\n{\"id\":\"c+d\"}\n{\"id\":\"e\"}",
    );
    let job = rest.import(file, "").await;
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!((&job["linesDone"], &job["linesFailed"]), (&json!(8), &json!(5)));
    let results = rest.results(&job).await;
    let told: Vec<_> = results
        .iter()
        .map(|result| (result["line"].as_u64().unwrap(), result["outcome"].as_str().unwrap()))
        .collect();
    let expected = [
        (1, "created"),
        (3, "refused"),
        (4, "refused"),
        (5, "refused"),
        (6, "refused"),
        (7, "created"),
        (8, "refused"),
        (9, "created"),
    ];
    assert_eq!(told, expected);
    assert!(results[5]["warning"].as_str().unwrap().contains("no twins"), "{}", results[5]);
    assert_eq!(hub.hub.registry.counts().devices, 3);

    let refused = rest.job_file(&job, "importErrors.log").await;
    let refused: Vec<Value> = refused.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(refused.len(), 5);
    assert_eq!((&refused[0]["deviceId"], &refused[0]["errorCode"]), (&json!(""), &json!(400_012)));
    assert_eq!((&refused[4]["deviceId"], &refused[4]["errorCode"]), (&json!("c+d"), &json!(400_004)));
    assert!(
        refused[1]["errorStatus"].as_str().unwrap().starts_with("line 4: the line has more than"),
        "{}",
        refused[1]
    );
    hub.stop().await;
}

#[tokio::test]
async fn t809_lines_are_done_in_the_order_of_the_file_each_by_its_mode() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let etag = |id: &str| {
        let path = format!("/devices/{id}?api-version=2021-04-12");
        let rest = rest.clone();
        async move { rest.call("GET", &path, None).await.1["etag"].as_str().unwrap().to_owned() }
    };
    hub.device("stored").await;
    hub.device("named").await;
    let (stored, named) = (etag("stored").await, etag("named").await);
    let line = |id: &str, module: Value, mode: &str, etag: &str, reason: &str| {
        let line = json!({ "id": id, "moduleId": module, "importMode": mode, "eTag": etag, "statusReason": reason,
            "authentication": { "type": "none" } });
        format!("{line}\n")
    };
    let none = Value::Null;
    let file = [
        line("a", none.clone(), "create", "", "1"),
        line("a", none.clone(), "CREATE", "", "2"),
        line("a", none.clone(), "update", "", "3"),
        line("a", json!("m"), "create", "", ""),
        line("a", json!("m"), "create", "", ""),
        line("a", none.clone(), "delete", "", ""),
        line("a", json!("m"), "delete", "", ""),
        line("a", json!("m"), "create", "", ""),
        line("a", none.clone(), "delete", "", ""),
        line("a", none.clone(), "createOrUpdate", "", "4"),
        line("a", none.clone(), "createOrUpdate", "", "4"),
        line("stored", none.clone(), "updateIfMatchETag", &stored, "5"),
        line("stored", none.clone(), "updateIfMatchETag", &stored, "6"),
        line("stored", none.clone(), "createOrUpdateIfMatchETag", "\"*\"", "7"),
        line("named", none.clone(), "deleteIfMatchETag", "AAAA", ""),
        line("named", none.clone(), "deleteIfMatchETag", &format!("\"{named}\""), ""),
        line("named", none.clone(), "updateIfMatchETag", "*", ""),
        line("stored", none.clone(), "upsert", "", ""),
        line("stored", none.clone(), "updateTwin", "", ""),
    ]
    .concat();
    let expected = [
        "created",
        "DeviceAlreadyExists",
        "changed",
        "created",
        "ModuleAlreadyExistsOnDevice",
        "deleted",
        "ModuleNotFound",
        "DeviceNotFound",
        "DeviceNotFound",
        "created",
        "unchanged",
        "changed",
        "PreconditionFailed",
        "changed",
        "PreconditionFailed",
        "deleted",
        "DeviceNotFound",
        "ArgumentInvalid",
        "FeatureNotSupported",
    ];
    let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
    let before = hub.everything().await;
    assert_eq!(outcomes(&rest, &file, "dryRun=true").await, expected);
    assert_eq!(hub.everything().await, before);
    assert_eq!(outcomes(&rest, &file, "").await, expected);
    let left: Vec<Value> =
        hub.everything().await.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let left: Vec<_> = left.iter().map(|line| (&line["id"], &line["statusReason"])).collect();
    assert_eq!(left, [(&json!("a"), &json!("4")), (&json!("stored"), &json!("7"))]);
    hub.stop().await;
}

#[tokio::test]
async fn t809_the_order_holds_beyond_what_is_applied_together() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let line = |number: u32| {
        let (id, round) = (number % 1250, number / 1250);
        format!(
            "{{\"id\":\"d{id}\",\"statusReason\":\"{round}\",\"authentication\":{{\"type\":\"none\"}}}}\n"
        )
    };
    let job = rest.import((0..2500).map(line).collect::<String>(), "").await;
    assert_eq!(
        (&job["outcomes"]["created"], &job["outcomes"]["changed"]),
        (&json!(1250), &json!(1250)),
        "{job}"
    );
    let lines: Vec<_> =
        rest.results(&job).await.iter().map(|result| result["line"].as_u64().unwrap()).collect();
    assert!(lines.iter().copied().eq(1..=2500), "results are in the order of the file");
    assert!(hub.everything().await.iter().all(|line| line.contains(r#""statusReason":"1""#)));
    assert_eq!(rest.roll_back(&job).await["linesFailed"], 0);
    assert_eq!(hub.hub.registry.counts().devices, 0);

    let (_, metrics) = hub.ops("/metrics").await;
    for line in [
        r#"portcullis_jobs{type="import",state="completed"} 1"#,
        r#"portcullis_jobs{type="import",state="running"} 0"#,
        r#"portcullis_jobs{type="rollback",state="completed"} 1"#,
        r#"portcullis_job_items_total{type="import",result="created"} 1250"#,
        r#"portcullis_job_items_total{type="export",result="exported"} 1250"#,
    ] {
        assert!(metrics.lines().any(|own| own == line), "{line} is not in {metrics}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn a_dry_run_foretells_how_many_modules_a_device_takes() {
    let hub = TestHub::start_with_limits(&[("modules_per_device_max", "2")]).await;
    hub.device("old").await;
    hub.module("old", "m0").await;
    let rest = hub.rest();
    let mut file = String::new();
    for device in ["old", "new"] {
        file += &format!("{{\"id\":\"{device}\"}}\n");
        for module in ["m1", "m2", "m3"] {
            file += &format!("{{\"id\":\"{device}\",\"moduleId\":\"{module}\"}}\n");
        }
        file += &format!("{{\"id\":\"{device}\",\"moduleId\":\"m1\",\"importMode\":\"delete\"}}\n");
        file += &format!("{{\"id\":\"{device}\",\"moduleId\":\"m4\"}}\n");
    }
    let foretold = outcomes(&rest, &file, "dryRun=true").await;
    assert_eq!(foretold, outcomes(&rest, &file, "").await);
    let refused = foretold.iter().filter(|(_, outcome)| outcome == "TooManyModulesOnDevice").count();
    assert_eq!(refused, 3, "{foretold:?}");
    hub.stop().await;
}

#[tokio::test]
async fn a_packed_file_that_is_cut_damaged_or_a_bomb_fails_the_job() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let lines: String = (0..2000).map(|number| format!("{{\"id\":\"d{number}\"}}\n")).collect();
    let packed = gzip(&lines);
    let cut = rest.import(&packed[..packed.len() - 9], "dryRun=true").await;
    assert_eq!(cut["status"], "failed", "{cut}");
    assert!(cut["failureReason"].as_str().unwrap().contains("cannot be unpacked"), "{cut}");
    let bomb = rest.import(gzip(&"\n".repeat(40 << 20)), "").await;
    assert_eq!(bomb["status"], "failed", "{bomb}");
    assert!(bomb["failureReason"].as_str().unwrap().contains("200 times its size"), "{bomb}");
    let empty = rest.import("", "").await;
    assert_eq!((&empty["status"], &empty["linesDone"]), (&json!("completed"), &json!(0)));
    hub.stop().await;
}

#[tokio::test]
async fn t811_an_export_during_writes_has_each_identity_once() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let lines: String = (0..3000).map(|number| format!("{{\"id\":\"stays-{number:04}\"}}\n")).collect();
    assert_eq!(rest.import(lines, "").await["outcomes"]["created"], 3000);
    let writes = async {
        for number in 0..200 {
            let changing = hub.device(&format!("comes-{number:04}")).await;
            hub.disable(&changing).await;
            if number % 2 == 0 {
                hub.delete(&changing).await;
            }
        }
    };
    let exports = async {
        let mut exports = Vec::new();
        for _ in 0..5 {
            exports.push(rest.export("includeKeys=false").await);
        }
        exports
    };
    let ((), exports) = tokio::join!(writes, exports);
    for export in exports {
        let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
        assert!(ids.is_sorted_by(|one, other| one < other), "an identity is there twice");
        assert_eq!(ids.iter().filter(|id| id.starts_with("stays-")).count(), 3000);
        let keys = lines.iter().map(|line| &line["authentication"]["symmetricKey"]["primaryKey"]);
        assert!(keys.into_iter().all(Value::is_null));
    }
    hub.stop().await;
}

#[tokio::test]
async fn t814_uploads_are_bounded_in_size_and_standstill() {
    let settings = [("UPLOAD_BYTES_MAX", "4KiB"), ("UPLOAD_IDLE_TIME_MAX", "1s")];
    let environment = settings.map(|(name, value)| (format!("PORTCULLIS__LIMITS__{name}"), value.to_owned()));
    let hub =
        TestHub::start_with(HubSettings { environment: environment.to_vec(), ..HubSettings::default() })
            .await;
    let rest = hub.rest();
    let answer = rest.request("POST", "/api/v1/imports").body(vec![b'\n'; 5000]).send().await.unwrap();
    assert_eq!(answer.status(), 413);
    let mut stalled = hub.raw_https().await;
    let head = format!(
        "POST /api/v1/imports HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 100\r\n\r\n{{",
        rest.token.as_ref().unwrap()
    );
    stalled.send(head.as_bytes()).await;
    assert!(stalled.http_head().await.starts_with("HTTP/1.1 408 "));
    // Neither left anything.
    assert_eq!(rest.call("GET", "/jobs?api-version=2021-04-12", None).await.1, json!([]));
    assert_eq!(std::fs::read_dir(hub.data_dir().join("jobs")).unwrap().count(), 0);
    hub.stop().await;
}
