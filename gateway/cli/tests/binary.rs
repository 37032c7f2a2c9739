//! The built program, used as a person would: start, create, kill, start again, stop.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use tempfile::TempDir;

// A hub whose log nobody reads any more serves on (threats T914): these tests let go of its standard error at once.

/// A running `portcullis serve`; killed when dropped.
struct Served {
    child: Child,
    /// What it said before it was ready.
    welcome: Vec<String>,
}

impl Served {
    fn start(data_dir: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_portcullis"))
            .args([
                "--mqtt-listen",
                "127.0.0.1:0",
                "--https-listen",
                "127.0.0.1:0",
                "--ops-listen",
                "127.0.0.1:0",
                "--data-dir",
            ])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let ready = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok)
            .any(|line| line == "ready");
        assert!(ready, "the hub never said that it is ready");
        let welcome = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let welcome =
            welcome.take_while(|line| !line.contains("connection-string show --device-id")).collect();
        Self { child, welcome }
    }

    /// What its operations listener tells.
    fn metrics(&self) -> String {
        let line = self.welcome.iter().find(|line| line.contains("metrics and health")).unwrap();
        let mut stream = std::net::TcpStream::connect(line.split_whitespace().last().unwrap()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    /// Asks it to stop, as a service manager does; how it ended.
    fn terminate(mut self) -> Option<i32> {
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(asked.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a verb against the hub of a data directory.
fn run(data_dir: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .args(arguments)
        .arg("--data-dir")
        .arg(data_dir)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn p1_an_acknowledged_create_survives_kill_9_and_the_owners_key_a_restart() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let hub = Served::start(&data_dir);
    assert!(hub.welcome.len() < 15, "{:?}", hub.welcome);
    let created = printed(&run(&data_dir, &["device-identity", "create", "--device-id", "pump-7"]));
    let string = printed(&run(&data_dir, &["connection-string", "show", "--device-id", "pump-7"]));
    assert!(string.starts_with("HostName=localhost;DeviceId=pump-7;SharedAccessKey="), "{string}");
    let owner = printed(&run(&data_dir, &["connection-string", "show"]));
    // Dropped: killed with SIGKILL.
    drop(hub);

    let hub = Served::start(&data_dir);
    assert_eq!(printed(&run(&data_dir, &["device-identity", "show", "--device-id", "pump-7"])), created);
    assert_eq!(printed(&run(&data_dir, &["connection-string", "show"])), owner);
    assert_eq!(hub.terminate(), Some(0));
}

#[test]
fn verbs_end_with_the_exit_codes_scripts_rest_on() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    assert_eq!(run(&data_dir, &["device-identity", "show", "--device-id", "pump-7"]).status.code(), Some(1));
    let _hub = Served::start(&data_dir);
    let code = |arguments: &[&str]| run(&data_dir, arguments).status.code();
    assert_eq!(code(&["device-identity", "create", "--device-id", "pump-7"]), Some(0));
    assert_eq!(code(&["device-identity", "create", "--device-id", "pump-7"]), Some(4));
    assert_eq!(code(&["device-identity", "show", "--device-id", "PUMP-7"]), Some(3));
    assert_eq!(code(&["device-identity", "show", "--device-id", "a b"]), Some(2));
    assert_eq!(
        code(&["c2d-message", "send", "--device-id", "pump-7", "--data", "x", "--props", "a=b&c=%20"]),
        Some(0)
    );
    assert_eq!(code(&["c2d-message", "send", "--device-id", "nobody", "--data", "x"]), Some(3));
    assert_eq!(
        code(&["device-identity", "delete", "--device-id", "pump-7", "--etag", "AAAAAAAAAAk="]),
        Some(4)
    );
    assert_eq!(code(&["device-identity", "delete", "--device-id", "pump-7"]), Some(0));
    assert_eq!(code(&["device-identity", "delete", "--device-id", "pump-7"]), Some(3));
}

#[test]
fn t910_a_second_hub_on_the_same_data_is_refused_in_plain_words() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let _hub = Served::start(&data_dir);
    let second = run(
        &data_dir,
        &[
            "serve",
            "--mqtt-listen",
            "127.0.0.1:0",
            "--https-listen",
            "127.0.0.1:0",
            "--ops-listen",
            "127.0.0.1:0",
        ],
    );
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(words.contains("in use by another process"), "{words}");
}

#[test]
fn t912_a_mistake_in_the_settings_is_refused_before_anything_is_bound() {
    let directory = TempDir::new().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_portcullis"))
        .env("PORTCULLIS__LIMITS__QUEUE_MESAGES_MAX", "50")
        .arg("--data-dir")
        .arg(directory.path().join("data"))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(2));
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(words.contains("did you mean \"PORTCULLIS__LIMITS__QUEUE_MESSAGES_MAX\"?"), "{words}");
    assert!(!directory.path().join("data").exists());
}

#[test]
fn doctor_and_status_tell_no_hub_a_healthy_one_an_open_directory_and_a_stopped_hub() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let doctor = |code: i32| {
        let output = run(&data_dir, &["doctor"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(code), "{text}");
        assert!(!text.contains("SharedAccessKey"), "{text}");
        text
    };
    let status = |format: &str| run(&data_dir, &["status", "-o", format]);
    assert!(doctor(2).starts_with("fail  data directory: "));
    assert_eq!(status("json").status.code(), Some(1));

    let hub = Served::start(&data_dir);
    let healthy = doctor(0);
    assert!(healthy.lines().all(|line| line.starts_with("ok    ")), "{healthy}");
    for check in [
        "data directory",
        "keys",
        "store files",
        "own certificate",
        "MQTT port",
        "HTTPS port",
        "TLS",
        "ready",
        "clock",
        "registry",
    ] {
        assert!(healthy.contains(&format!("ok    {check}: ")), "{check} is not checked:\n{healthy}");
    }
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(printed(&status("tsv")), format!("localhost\ttrue\t{version}\t0\t0\t0\n"));

    fs::set_permissions(&data_dir, Permissions::from_mode(0o755)).unwrap();
    let open = doctor(1);
    assert!(open.contains("other users may open ") && open.contains("hint: chmod 700 it"), "{open}");
    fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();

    assert_eq!(hub.terminate(), Some(0));
    let stopped = doctor(2);
    assert!(stopped.contains("fail  HTTPS port: "), "{stopped}");
    assert_eq!(status("none").status.code(), Some(1));
}

#[test]
fn t115_sighup_has_the_server_certificate_read_anew() {
    let directory = TempDir::new().unwrap();
    let data_dir = directory.path().join("data");
    let hub = Served::start(&data_dir);
    let before = std::fs::read_to_string(data_dir.join("server.pem")).unwrap();
    // With its own CA at hand, a certificate that is gone is made anew.
    std::fs::remove_file(data_dir.join("server.pem")).unwrap();
    let told = Command::new("kill").args(["-HUP", &hub.child.id().to_string()]).status().unwrap();
    assert!(told.success());
    let reloads = "portcullis_cert_reloads_total{outcome=\"succeeded\"} 1";
    while !hub.metrics().contains(reloads) {
        std::thread::yield_now();
    }
    assert_ne!(std::fs::read_to_string(data_dir.join("server.pem")).unwrap(), before);
    printed(&run(&data_dir, &["device-identity", "list"]));
    assert_eq!(hub.terminate(), Some(0));
}
