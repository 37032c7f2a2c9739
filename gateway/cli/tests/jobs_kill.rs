//! The built program, killed in the middle of an import: each line is done whole or not at all, and nothing stays
//! behind that runs for ever.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use portcullis::tls;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A running `portcullis serve`; killed when dropped.
struct Served {
    child: Child,
    https: String,
}

impl Served {
    fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args(["--mqtt-listen", "127.0.0.1:0", "--https-listen", "127.0.0.1:0"])
            .args(["--ops-listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .env("PORTCULLIS__POLICIES__IOTHUBOWNER__PRIMARY_KEY", KEY)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        assert!(lines.any(|line| line == "ready"), "the hub never said that it is ready");
        let welcome = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let https = welcome.into_iter().find(|line| line.contains("service (HTTPS)")).unwrap();
        let https = https.split_whitespace().last().unwrap().to_owned();
        Self { child, https }
    }

    /// The body of an answer.
    fn ask(&self, data_dir: &Path, method: &str, path: &str, body: &str) -> String {
        let config = Arc::new(tls::client_config(Some(&data_dir.join("ca.pem"))).unwrap());
        let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(&self.https).unwrap());
        let token = sas::sign(
            "localhost",
            &SymmetricKey::parse_base64(KEY).unwrap(),
            4_000_000_000,
            Some("iothubowner"),
        );
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: {token}\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        stream.flush().unwrap();
        let mut answer = Vec::new();
        // The hub closes without TLS's own goodbye at times; what came before it counts.
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    fn job(&self, data_dir: &Path, id: &str) -> Value {
        let path = format!("/jobs/{id}?api-version=2021-04-12");
        serde_json::from_str(&self.ask(data_dir, "GET", &path, "")).unwrap()
    }

    /// The job once `holds` does.
    fn job_when(&self, data_dir: &Path, id: &str, holds: impl Fn(&Value) -> bool) -> Value {
        loop {
            let job = self.job(data_dir, id);
            if holds(&job) {
                return job;
            }
        }
    }

    /// What the registry has, a line each without etags.
    fn everything(&self, data_dir: &Path) -> BTreeSet<String> {
        let job: Value =
            serde_json::from_str(&self.ask(data_dir, "POST", "/api/v1/exports?includeKeys=true", ""))
                .unwrap();
        let id = job["jobId"].as_str().unwrap();
        self.job_when(data_dir, id, |job| job["status"] == "completed");
        let exported = self.ask(data_dir, "GET", &format!("/api/v1/jobs/{id}/files/devices.txt"), "");
        let without_etag = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line.as_object_mut().unwrap().remove("eTag");
            line.to_string()
        };
        exported.lines().map(without_etag).collect()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Creates, then changes and deletes of what was there.
fn file(round: u32) -> String {
    let key = "AAAAAAAAAAAAAAAAAAAAAA==";
    let line = |number: u32| {
        let id = format!("d{number:05}");
        match (round, number % 5) {
            (0, _) | (_, 0..=2) => json!({ "id": id, "statusReason": format!("round {round}"),
                "authentication": { "symmetricKey": { "primaryKey": key, "secondaryKey": key } } }),
            (_, 3) => json!({ "id": id, "importMode": "delete" }),
            _ => json!({ "id": format!("d{number:05}-{round}"), "authentication": { "type": "none" } }),
        }
    };
    (0..LINES).map(|number| line(number).to_string() + "\n").collect()
}

#[test]
fn t810_a_kill_at_any_line_leaves_whole_lines_a_failed_job_and_a_way_back() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let mut hub = Served::start(&data_dir);
    let mut cut_off = 0;
    for round in 0..3 {
        let before = hub.everything(&data_dir);
        let job: Value =
            serde_json::from_str(&hub.ask(&data_dir, "POST", "/api/v1/imports", &file(round))).unwrap();
        let id = job["jobId"].as_str().unwrap().to_owned();
        // Killed somewhere after this, while lines are being done, or just after the last.
        let least = u64::from(round) * u64::from(LINES) / 3;
        hub.job_when(&data_dir, &id, |job| job["linesDone"].as_u64() >= Some(least));
        drop(hub);

        hub = Served::start(&data_dir);
        let job = hub.job(&data_dir, &id);
        assert!(job["status"] == "failed" || job["status"] == "completed", "{job}");
        cut_off += usize::from(job["status"] == "failed");
        // Each line all or nothing: what is there is what was, or what the line asked for.
        let after = hub.everything(&data_dir);
        let whole = |line: &String| {
            before.contains(line)
                || line.contains(&format!("round {round}"))
                || line.contains(&format!("-{round}\""))
        };
        assert!(after.iter().all(whole), "round {round}");

        // The way back leads to where it began, and forth again to the end.
        let over = |job: &Value| job["endTimeUtc"].is_string();
        let path = format!("/api/v1/jobs/{id}/rollback");
        let back: Value = serde_json::from_str(&hub.ask(&data_dir, "POST", &path, "")).unwrap();
        if let Some(back) = back["jobId"].as_str() {
            let back = hub.job_when(&data_dir, back, over);
            let undone = (&back["status"], &back["linesFailed"]);
            assert_eq!(undone, (&json!("completed"), &json!(0)), "round {round}: {back}");
        } else {
            // It came to nothing that could be taken back.
            assert!(back["Message"].as_str().unwrap().contains("JobRunPreconditionFailed"), "{back}");
        }
        assert_eq!(hub.everything(&data_dir), before, "round {round}");
        let again: Value =
            serde_json::from_str(&hub.ask(&data_dir, "POST", "/api/v1/imports", &file(round))).unwrap();
        let again = hub.job_when(&data_dir, again["jobId"].as_str().unwrap(), over);
        assert_eq!((&again["status"], &again["linesDone"]), (&json!("completed"), &json!(LINES)), "{again}");
    }
    assert!(cut_off > 0, "no kill came in time");
}

const LINES: u32 = 4000;
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
