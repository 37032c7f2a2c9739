//! Jobs whose containers mean harm, asked for over REST.

use std::fs;
use std::path::Path;

use portcullis_testing::{HubSettings, TestHub};
use serde_json::{Value, json};

use super::store::{Answer, REQUEST_ID, Store};
use super::{Guarded, SAS, SECRET};

/// A hub whose jobs may use these hosts, and which is quickly impatient with them.
async fn hub(listed: &[String]) -> TestHub {
    let environment = vec![
        ("PORTCULLIS__JOBS__BLOB_HOSTS".to_owned(), listed.join(",")),
        ("PORTCULLIS__LIMITS__BLOB_IDLE_TIME_MAX".to_owned(), "1s".to_owned()),
    ];
    TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await
}

/// Asks for an export to a host; status and message.
async fn export(hub: &TestHub, host: &str) -> (u16, Value) {
    let uri = format!("{host}/devstoreaccount1/reg?{SAS}");
    let wanted = json!({ "type": "export", "outputBlobContainerUri": uri, "excludeKeysInExport": true });
    hub.rest().call("POST", "/jobs/create?api-version=2021-04-12", Some(wanted)).await
}

/// A store that takes what it is sent, but for requests with this in their target.
async fn store(but_for: &'static str) -> Store {
    Store::start(move |request| match (request.method(), request.target().contains(but_for)) {
        ("PUT", true) => Answer::close_after(String::new()),
        ("PUT", false) => {
            Answer::text(format!("HTTP/1.1 201 Created\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"))
        }
        _ => Answer::text(format!("HTTP/1.1 202 Accepted\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n")),
    })
    .await
}

#[tokio::test]
async fn t801_a_job_at_an_inner_address_is_400_and_sends_not_one_packet() {
    let guarded = Guarded::somewhere();
    let port = guarded.address().port();
    let hub = hub(&[]).await;
    let mut said = Vec::new();
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::1]", "[::ffff:127.0.0.1]"] {
        for scheme in ["http", "https"] {
            let (status, answer) = export(&hub, &format!("{scheme}://{host}:{port}")).await;
            assert_eq!(status, 400, "{host}: {answer}");
            said.push(answer["Message"].to_string());
        }
    }
    assert!(said.iter().all(|text| text.contains("BlobContainerValidationError")), "{said:?}");
    guarded.check_nobody_came();
    hub.stop().await;
}

#[tokio::test]
async fn t806_whatever_is_at_a_listed_host_a_job_is_answered_the_same() {
    let secret = "HTTP/1.1 200 OK\r\nX-Inner: secret\r\nContent-Length: 6\r\n\r\nsecret";
    let open = Store::start(move |_| Answer::text(secret.to_owned())).await;
    let ssh = Store::start(|_| Answer::close_after("SSH-2.0-OpenSSH_9.9\r\n".to_owned())).await;
    let slow = Store::start(|_| Answer::drip("HTTP/1.1 201 Created\r\n".to_owned())).await;
    let closed = Guarded::somewhere().address();
    let hosts = [open.address, ssh.address, slow.address, closed].map(|address| format!("http://{address}"));
    let hub = hub(&hosts).await;
    let mut said = Vec::new();
    for host in &hosts {
        let (status, answer) = export(&hub, host).await;
        assert_eq!(status, 400, "{host}: {answer}");
        said.push(answer["Message"].clone());
    }
    assert!(said.iter().all(|text| *text == said[0]), "{said:?}");
    let text = said[0].to_string();
    assert!(text.contains("BlobContainerValidationError") && !text.contains("secret"), "{text}");
    hub.stop().await;
}

#[tokio::test]
async fn t805_a_store_that_fails_half_way_fails_the_job_and_no_other() {
    let failing = store("/devices.txt").await;
    let good = store("nothing").await;
    let hosts = [&failing, &good].map(|store| format!("http://{}", store.address));
    let hub = hub(&hosts).await;
    hub.device("pump-7").await;
    let rest = hub.rest();
    let (status, job) = export(&hub, &hosts[0]).await;
    assert_eq!(status, 200, "{job}");
    let job = rest.job_over(&job).await;
    assert_eq!(job["status"], "failed", "{job}");
    let reason = job["failureReason"].as_str().unwrap();
    assert!(reason.contains("the container cannot be reached"), "{reason}");
    let (_, job) = export(&hub, &hosts[1]).await;
    assert_eq!(rest.job_over(&job).await["status"], "completed");
    hub.stop().await;
}

#[tokio::test]
async fn t807_a_job_leaves_the_signature_nowhere() {
    let (failing, good) = (store("/devices.txt").await, store("nothing").await);
    let closed = Guarded::somewhere().address();
    let hosts = [failing.address, good.address, closed].map(|address| format!("http://{address}"));
    let hub = hub(&hosts).await;
    let rest = hub.rest();
    let mut shown = String::new();
    for host in hosts.iter().map(String::as_str).chain(["https://evil.test"]) {
        let (status, answer) = export(&hub, host).await;
        shown.push_str(&answer.to_string());
        if status == 200 {
            shown.push_str(&rest.job_over(&answer).await.to_string());
        }
    }
    shown.push_str(&rest.call("GET", "/jobs?api-version=2021-04-12", None).await.1.to_string());
    shown.push_str(&hub.ops("/metrics").await.1);
    assert!(good.requests().iter().all(|request| request.contains(SECRET)), "the store gets it");
    assert!(shown.contains("/devstoreaccount1/reg") && shown.contains("portcullis_"), "{shown}");
    assert!(!shown.contains(SECRET) && !shown.contains("sig="), "{shown}");

    let hub = hub.restart().await;
    let mut files = Vec::new();
    collect(hub.data_dir(), &mut files);
    let holds = |text: &str| {
        let mut holding = files
            .iter()
            .filter(|(_, bytes)| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        holding.next().map(|(name, _)| name.as_str())
    };
    assert!(holds("/devstoreaccount1/reg").is_some(), "the jobs are kept");
    assert_eq!(holds(SECRET), None);
    hub.stop().await;
}

/// Every file under a directory, with what is in it.
fn collect(directory: &Path, files: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => collect(&path, files),
            false => files.push((path.display().to_string(), fs::read(&path).unwrap())),
        }
    }
}
