//! Jobs beside each other and beside everything else: one at a time, seen by those who may, closing whom they revoke.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use futures_util::future::join_all;
use portcullis_testing::{RestClient, TestHub, within};
use serde_json::{Value, json};

/// A caller of a policy.
fn of(hub: &TestHub, policy: &str) -> RestClient {
    let mut rest = hub.rest();
    rest.token = Some(hub.policy_token(policy));
    rest
}

async fn jobs(rest: &RestClient) -> Vec<Value> {
    let (status, jobs) = rest.call("GET", "/jobs?api-version=2021-04-12", None).await;
    assert_eq!(status, 200, "{jobs}");
    jobs.as_array().unwrap().clone()
}

#[tokio::test]
async fn t812_a_second_job_is_refused_until_the_first_is_over() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    // An upload that has not ended yet.
    let mut uploading = hub.raw_https().await;
    let head = format!(
        "POST /api/v1/imports HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        rest.token.as_ref().unwrap()
    );
    uploading.send(head.as_bytes()).await;
    uploading.send(b"b\r\n{\"id\":\"a\"}\n\r\n").await;
    let job = within(async {
        loop {
            if let [job] = jobs(&rest).await.as_slice() {
                return job.clone();
            }
        }
    })
    .await;
    assert_eq!(job["status"], "enqueued");
    let container = json!({ "type": "export", "outputBlobContainerUri": "file:fleet" });
    for (path, body) in [
        ("/jobs/create?api-version=2021-04-12", Some(container)),
        ("/api/v1/exports?", None),
        ("/api/v1/imports?", None),
    ] {
        let (status, answer) = rest.call("POST", path, body).await;
        assert_eq!(status, 403, "{path}: {answer}");
        assert!(answer["Message"].as_str().unwrap().starts_with("ErrorCode:JobQuotaExceeded;"), "{answer}");
    }
    uploading.send(b"0\r\n\r\n").await;
    assert!(uploading.http_head().await.starts_with("HTTP/1.1 202 "));
    let job = rest.job_over(&job).await;
    assert_eq!((&job["status"], &job["linesDone"]), (&json!("completed"), &json!(1)));
    rest.export("").await;

    // One that is cancelled leaves room too; one that is over stays as it is.
    let mut uploading = hub.raw_https().await;
    uploading.send(head.as_bytes()).await;
    let cancelled = within(async {
        loop {
            let active = jobs(&rest).await.into_iter().find(|job| job["status"] == "enqueued");
            if let Some(job) = active {
                return job;
            }
        }
    })
    .await;
    let path = |job: &Value| format!("/jobs/{}?api-version=2021-04-12", job["jobId"].as_str().unwrap());
    assert_eq!(rest.call("DELETE", &path(&cancelled), None).await.0, 204);
    assert!(uploading.http_head().await.starts_with("HTTP/1.1 400 "));
    assert_eq!(rest.call("DELETE", &path(&job), None).await.0, 204);
    assert_eq!(rest.call("GET", &path(&job), None).await.1["status"], "completed");
    rest.export("").await;

    let (_, audit) = rest.call("GET", "/api/v1/audit", None).await;
    let told: Vec<_> = audit
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["op"].as_str().unwrap(), line["result"] != "done"))
        .collect();
    let refused = ("startJob", true);
    let ran = [("startJob", false), ("endJob", false)];
    let imported = [("startJob", false), ("createIdentity", false), ("endJob", false)];
    let expected = [&[refused; 3][..], &imported, &ran, &[("cancelJob", false), refused], &ran].concat();
    assert_eq!(told, expected);
    hub.stop().await;
}

#[tokio::test]
async fn t812_a_job_is_seen_by_nobody_with_fewer_rights() {
    let hub = TestHub::start().await;
    let (owner, writer, reader) = (hub.rest(), of(&hub, "registryReadWrite"), of(&hub, "registryRead"));
    let by_owner = owner.import("{\"id\":\"a\"}", "").await;
    let by_writer = writer.import("{\"id\":\"b\"}", "").await;
    let (status, by_reader) = reader.call("POST", "/api/v1/exports?includeKeys=true", None).await;
    assert_eq!(status, 202);
    reader.job_over(&by_reader).await;
    let ids = |jobs: &[Value]| jobs.iter().map(|job| job["jobId"].clone()).collect::<Vec<_>>();
    let id = |job: &Value| job["jobId"].clone();
    assert_eq!(ids(&jobs(&owner).await), [id(&by_reader), id(&by_writer), id(&by_owner)]);
    assert_eq!(ids(&jobs(&writer).await), [id(&by_reader), id(&by_writer)]);
    assert_eq!(ids(&jobs(&reader).await), [id(&by_reader)]);
    for (rest, job, sees) in [
        (&owner, &by_writer, true),
        (&writer, &by_owner, false),
        (&reader, &by_owner, false),
        (&reader, &by_writer, false),
        (&writer, &by_reader, true),
    ] {
        let job = job["jobId"].as_str().unwrap();
        for (method, path) in [
            ("GET", format!("/jobs/{job}?api-version=2021-04-12")),
            ("DELETE", format!("/jobs/{job}?api-version=2021-04-12")),
            ("GET", format!("/api/v1/jobs/{job}/files/importErrors.log")),
        ] {
            let (status, answer) = rest.call(method, &path, None).await;
            assert_eq!(
                status != 404 || answer["Message"] == "ErrorCode:GenericNotFound;the job has no such file",
                sees,
                "{method} {path}: {status} {answer}"
            );
        }
    }
    // No name leads to another file of the job, or out of it.
    let job = by_owner["jobId"].as_str().unwrap();
    for name in
        ["job.json", "undo", "input", "..", "%2e%2e", "..%2f..%2faudit%2faudit.ndjson", "results.txt%00"]
    {
        let (status, _) = owner.call("GET", &format!("/api/v1/jobs/{job}/files/{name}"), None).await;
        assert_eq!(status, 404, "{name}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn t813_whom_an_import_disables_is_gone_and_bystanders_stay() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let mut victims = Vec::new();
    let mut lines = String::new();
    for number in 0..40 {
        let device = hub.device(&format!("victim-{number}")).await;
        lines += &match number % 3 {
            0 => format!("{{\"id\":\"{}\",\"status\":\"disabled\"}}\n", device.id),
            1 => format!("{{\"id\":\"{}\",\"importMode\":\"delete\"}}\n", device.id),
            _ => format!(
                "{{\"id\":\"{}\",\"authentication\":{{\"type\":\"certificateAuthority\"}}}}\n",
                device.id
            ),
        };
        victims.push(hub.connect(&device).await);
    }
    let bystander = hub.device("bystander").await;
    let mut untouched = hub.connect(&bystander).await;
    lines += "{\"id\":\"bystander\",\"statusReason\":\"looked at\"}\n";
    let job = rest.import(lines, "").await;
    assert_eq!(job["linesFailed"], 0, "{job}");
    let closed = join_all(victims.iter_mut().map(|client| client.closed())).await;
    assert!(closed.iter().all(|closed| *closed));
    untouched.publish_acknowledged("devices/bystander/messages/events/", b"alive").await;
    hub.stop().await;
}

#[tokio::test]
async fn a_policy_that_is_changed_ends_the_job_it_asked_for() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let made = rest
        .call("PUT", "/api/v1/policies/mover", Some(json!({ "rights": ["RegistryRead", "RegistryWrite"] })))
        .await;
    assert_eq!(made.0, 200);
    let mover = of(&hub, "mover");
    let mut uploading = hub.raw_https().await;
    let head = format!(
        "POST /api/v1/imports HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\nContent-Length: 11\r\n\r\n{{\"id\":",
        mover.token.as_ref().unwrap()
    );
    uploading.send(head.as_bytes()).await;
    within(async { while jobs(&mover).await.is_empty() {} }).await;
    assert_eq!(rest.call("DELETE", "/api/v1/policies/mover", None).await.0, 204);
    uploading.send(b"\"a\"}\n").await;
    assert!(uploading.http_head().await.starts_with("HTTP/1.1 202 "));
    let job = rest.job_over(&jobs(&rest).await[0]).await;
    assert_eq!(job["status"], "failed", "{job}");
    assert_eq!(job["failureReason"], "the policy that asked for it was changed or deleted");
    assert_eq!(hub.hub.registry.counts().devices, 0);
    hub.stop().await;
}
