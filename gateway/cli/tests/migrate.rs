//! `migrate from-iothub`: a fleet read out of one hub by the built command line, through a front that throttles, cuts
//! and forgets as an IoT Hub far away may, and brought into another hub.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use portcullis::tls;
use portcullis_registry::access::Access;
use portcullis_registry::credential::{Thumbprint, ThumbprintPair};
use portcullis_registry::identity::{AuthenticationSpec, Status};
use portcullis_registry::queue_max::QueueMax;
use portcullis_testing::shell::{Ended, Shell};
use portcullis_testing::{TestHub, TestIdentity, within};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

/// What a front does with a request.
enum Deed {
    Pass,
    /// Answers by itself: a status, and how long to wait if it says so.
    Answer(u16, Option<&'static str>),
    /// Never answers.
    Hold,
}

/// A request as a front sees it.
#[derive(Clone, Debug)]
struct Asked {
    /// From 1.
    number: usize,
    path: String,
    continuation: Option<String>,
}

/// An HTTPS server that passes on what it is asked to a hub, and does not always.
struct Front {
    port: u16,
    inside: Arc<Inside>,
}

struct Inside {
    hub: String,
    client: reqwest::Client,
    seen: Mutex<Vec<Asked>>,
    held: Notify,
    deed: Box<dyn Fn(&Asked) -> Deed + Send + Sync>,
}

impl Front {
    async fn before(hub: &TestHub, deed: impl Fn(&Asked) -> Deed + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trust = tls::client_config(Some(&hub.data_dir().join("ca.pem"))).unwrap();
        let client = reqwest::Client::builder().tls_backend_preconfigured(trust).no_proxy();
        let inside = Arc::new(Inside {
            hub: format!("https://localhost:{}", hub.https.port()),
            client: client.resolve("localhost", hub.https).build().unwrap(),
            seen: Mutex::default(),
            held: Notify::new(),
            deed: Box::new(deed),
        });
        let acceptor = acceptor(hub.data_dir());
        let router = Router::new().fallback(pass_on).with_state(Arc::clone(&inside));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, service) = (acceptor.clone(), TowerToHyperService::new(router.clone()));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { port, inside }
    }

    fn seen(&self) -> Vec<Asked> {
        self.inside.seen.lock().unwrap().clone()
    }
}

/// Serves with the hub's own certificate.
fn acceptor(data_dir: &Path) -> TlsAcceptor {
    let chain = CertificateDer::pem_file_iter(data_dir.join("server.pem")).unwrap();
    let chain = chain.map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_file(data_dir.join("server-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn pass_on(State(inside): State<Arc<Inside>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let asked = {
        let mut seen = inside.seen.lock().unwrap();
        let continuation =
            head.headers.get("x-ms-continuation").map(|text| text.to_str().unwrap().to_owned());
        let asked = Asked { number: seen.len() + 1, path: head.uri.path().to_owned(), continuation };
        seen.push(asked.clone());
        asked
    };
    match (inside.deed)(&asked) {
        Deed::Answer(status, wait) => {
            let headers: HeaderMap =
                wait.iter().map(|wait| ("retry-after".parse().unwrap(), wait.parse().unwrap())).collect();
            return (StatusCode::from_u16(status).unwrap(), headers).into_response();
        }
        Deed::Hold => {
            inside.held.notify_one();
            return std::future::pending().await;
        }
        Deed::Pass => {}
    }
    let mut headers = head.headers;
    headers.remove("host");
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let url = format!("{}{}", inside.hub, head.uri);
    let answer = inside.client.request(head.method, url).headers(headers).body(body).send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove("transfer-encoding");
    (status, headers, answer.bytes().await.unwrap()).into_response()
}

/// Where a fleet is read from, and the file it goes to.
struct Source {
    login: String,
    ca: PathBuf,
    directory: TempDir,
}

impl Source {
    fn new(hub: &TestHub, port: u16, policy: &str) -> Self {
        let key = hub.hub.policies().find(policy).unwrap().keys.primary.to_base64().as_str().to_owned();
        let login = format!("HostName=localhost:{port};SharedAccessKeyName={policy};SharedAccessKey={key}");
        Self { login, ca: hub.data_dir().join("ca.pem"), directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("devices.txt")
    }

    fn command(&self, more: &[&str]) -> Command {
        let login = self.directory.path().join("login.txt");
        std::fs::write(&login, &self.login).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .args(["migrate", "from-iothub", "--page-size", "2", "--login", &format!("@{}", login.display())])
            .arg("--ca")
            .arg(&self.ca)
            .arg("--output-file")
            .arg(self.file())
            .args(more)
            // The hub of this environment is another one and must not be asked.
            .env("PORTCULLIS_CONNECTION_STRING", "HostName=nowhere")
            .env("PORTCULLIS_CA", "/nowhere")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, more: &[&str]) -> Ended {
        Ended::of(within(self.command(more).output()).await.unwrap())
    }

    fn text(&self) -> String {
        std::fs::read_to_string(self.file()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn thumbprint() -> String {
    "AB".repeat(32)
}

/// Five devices of every kind and three modules.
async fn fleet(hub: &TestHub) -> (TestIdentity, TestIdentity) {
    let pump = hub.device("pump-1").await;
    let off = hub.device("pump-2").await;
    let pinned = hub.device("pump-3").await;
    let by_ca = hub.device("pump-4").await;
    let edge = hub.device("pump-5").await;
    hub.change(&off, |spec| {
        spec.status = Status::Disabled;
        spec.status_reason = Some("sold: ünder $%?".into());
    })
    .await;
    hub.change(&pinned, |spec| {
        let primary = Some(Thumbprint::parse(&thumbprint()).unwrap());
        spec.authentication = AuthenticationSpec::SelfSigned(ThumbprintPair { primary, secondary: None });
        spec.access = Some(Access::parse(["telemetry"]).unwrap());
        spec.queue_max = Some(QueueMax::new(7));
    })
    .await;
    hub.change(&by_ca, |spec| spec.authentication = AuthenticationSpec::CertificateAuthority).await;
    hub.change(&edge, |spec| spec.iot_edge = true).await;
    let module = hub.module("pump-1", "camera").await;
    hub.module("pump-1", "$edge;Agent").await;
    let managed = hub.module("pump-5", "m").await;
    hub.change(&managed, |spec| spec.managed_by = Some("operations".into())).await;
    (pump, module)
}

#[tokio::test]
async fn a_fleet_comes_over_and_its_devices_connect_with_the_keys_they_have() {
    let there = TestHub::start().await;
    let (pump, camera) = fleet(&there).await;
    let source = Source::new(&there, there.https.port(), "iothubowner");
    let ended = source.run(&[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert_eq!(ended.out, format!("{} holds 5 devices and 3 modules\n", source.file().display()));
    assert!(ended.err.contains("1 devices are IoT Edge devices"), "{}", ended.err);
    let lines = source.lines();
    let ids: Vec<_> = lines.iter().map(|line| (line["id"].clone(), line["moduleId"].clone())).collect();
    let device = |id: &str| (json!(id), Value::Null);
    assert_eq!(ids[..5], ["pump-1", "pump-2", "pump-3", "pump-4", "pump-5"].map(device));
    assert_eq!(ids[5..].len(), 3);
    let key = pump.keys.primary.to_base64();
    assert_eq!(lines[0]["authentication"]["symmetricKey"]["primaryKey"], key.as_str());
    assert_eq!((&lines[0]["tags"], &lines[0]["twinETag"]), (&json!({}), &json!("AAAAAAAAAAE=")));
    assert_eq!(lines[0]["properties"]["desired"]["$version"], 1);
    assert_eq!(lines[2]["authentication"]["x509Thumbprint"]["primaryThumbprint"], thumbprint());

    // The same names and keys, in another place.
    let here = TestHub::start().await;
    let owner = Shell::new(PROGRAM, &here, "iothubowner");
    let file = source.file().display().to_string();
    let ended = owner.run(&["device-identity", "import", "--input-file", &file]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    for identity in [&pump, &camera] {
        here.connect(identity).await;
    }
    let told = |hub: &TestHub| {
        let shell = Shell::new(PROGRAM, hub, "iothubowner");
        async move {
            let query = "[].{id: deviceId, status: status, why: statusReason, auth: authentication, \
                edge: capabilities, access: access, queue: queueMessagesMax}";
            let devices = shell.json(&["device-identity", "list", "--query", query]).await;
            let mut modules = Vec::new();
            for device in ["pump-1", "pump-5"] {
                let query = "[].{id: moduleId, by: managedBy, auth: authentication}";
                modules.push(shell.json(&["module-identity", "list", "-d", device, "--query", query]).await);
            }
            (devices, modules)
        }
    };
    assert_eq!(told(&here).await, told(&there).await);
    here.stop().await;
    there.stop().await;
}

#[tokio::test]
async fn killed_at_any_request_it_goes_on_and_neither_loses_nor_repeats_a_line() {
    let hub = TestHub::start().await;
    fleet(&hub).await;
    let whole = Front::before(&hub, |_| Deed::Pass).await;
    let source = Source::new(&hub, whole.port, "iothubowner");
    assert_eq!(source.run(&[]).await.code, Some(0));
    let (text, requests) = (source.text(), whole.seen().len());
    assert!(requests >= 10, "{requests}");
    for killed_at in 1..=requests {
        let front = Front::before(&hub, move |asked| match asked.number == killed_at {
            true => Deed::Hold,
            false => Deed::Pass,
        })
        .await;
        let source = Source::new(&hub, front.port, "iothubowner");
        let mut running = source.command(&[]).stderr(Stdio::null()).spawn().unwrap();
        within(front.inside.held.notified()).await;
        within(running.kill()).await.unwrap();
        assert!(!source.file().exists(), "a file that is not whole has its name");
        let ended = source.run(&[]).await;
        assert_eq!(ended.code, Some(0), "killed at {killed_at}: {}", ended.err);
        assert_eq!(source.text(), text, "killed at {killed_at}");
        let left: Vec<_> = std::fs::read_dir(source.directory.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "the file and the login: {left:?}");
    }
    hub.stop().await;
}

#[tokio::test]
async fn interrupted_it_says_how_to_go_on_and_a_place_the_hub_forgot_is_found_again() {
    let hub = TestHub::start().await;
    fleet(&hub).await;
    // The first run asks for counts, three pages and three keys; the second for counts, and then goes on.
    let front = Front::before(&hub, |asked| match asked.number {
        7 => Deed::Hold,
        9 => Deed::Answer(400, None),
        _ => Deed::Pass,
    })
    .await;
    let source = Source::new(&hub, front.port, "iothubowner");
    let running = source.command(&[]).stderr(Stdio::piped()).spawn().unwrap();
    within(front.inside.held.notified()).await;
    let process = running.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &process]).status().await.unwrap().success());
    let ended = Ended::of(within(running.wait_with_output()).await.unwrap());
    assert_eq!(ended.code, Some(130), "{}", ended.err);
    assert!(
        ended.err.contains("interrupted  hint: 4 lines are saved; run the same command"),
        "{}",
        ended.err
    );
    let first: Vec<_> = front.seen();
    assert_eq!((first.len(), first[6].path.as_str()), (7, "/devices/pump-5"), "{first:?}");

    let ended = source.run(&[]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(ended.err.contains("continuing after the 4 lines"), "{}", ended.err);
    let again = &front.seen()[7..];
    assert!(again[1].continuation.is_some() && again[2].continuation.is_none(), "{again:?}");
    assert!(!again.iter().any(|asked| asked.path == "/devices/pump-1"), "{again:?}");
    let fresh = Source::new(&hub, hub.https.port(), "iothubowner");
    assert_eq!(fresh.run(&[]).await.code, Some(0));
    assert_eq!(source.text(), fresh.text());
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_throttles_breaks_and_cuts_is_asked_again() {
    let hub = TestHub::start().await;
    fleet(&hub).await;
    let front = Front::before(&hub, |asked| match asked.number % 4 {
        1 => Deed::Answer(429, Some("0")),
        2 if asked.number < 8 => Deed::Answer(503, None),
        3 => Deed::Answer(500, Some("0")),
        _ => Deed::Pass,
    })
    .await;
    let source = Source::new(&hub, front.port, "iothubowner");
    let ended = source.run(&["--no-progress"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    let fresh = Source::new(&hub, hub.https.port(), "iothubowner");
    assert_eq!(fresh.run(&[]).await.code, Some(0));
    assert_eq!(source.text(), fresh.text());
    // What is there is never overwritten.
    assert_eq!(source.run(&[]).await.code, Some(4));
    hub.stop().await;
}

#[tokio::test]
async fn what_the_policy_may_not_read_is_told_and_the_rest_is_there() {
    let hub = TestHub::start().await;
    fleet(&hub).await;
    let source = Source::new(&hub, hub.https.port(), "service");
    let ended = source.run(&[]).await;
    assert_eq!(ended.code, Some(7), "{}", ended.err);
    assert!(ended.err.contains("lacks RegistryRead and may not read keys"), "{}", ended.err);
    assert!(ended.err.contains("6 identities sign in with keys that are not in the file"), "{}", ended.err);
    let lines = source.lines();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0]["authentication"]["symmetricKey"]["primaryKey"], json!(null));
    assert_eq!(lines[1]["statusReason"], "sold: ünder $%?");
    assert_eq!(lines[2]["authentication"]["x509Thumbprint"]["primaryThumbprint"], thumbprint());
    assert_eq!(lines[3]["authentication"]["type"], "certificateAuthority");

    let asked_for = Source::new(&hub, hub.https.port(), "iothubowner");
    assert_eq!(asked_for.run(&["--exclude-keys"]).await.code, Some(0));
    assert_eq!(asked_for.text(), source.text());

    let reader = Source::new(&hub, hub.https.port(), "registryRead");
    let ended = reader.run(&[]).await;
    assert_eq!(ended.code, Some(5), "{}", ended.err);
    assert!(ended.err.contains("the policy needs ServiceConnect"), "{}", ended.err);
    assert!(!ended.err.contains("SharedAccessKey="), "{}", ended.err);
    let left: Vec<_> = std::fs::read_dir(reader.directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "only the login: {left:?}");
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_that_is_not_there_or_not_trusted_is_told_at_once() {
    let hub = TestHub::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let ended = Source::new(&hub, port, "iothubowner").run(&[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    let other = TestHub::start().await;
    let mut stranger = Source::new(&hub, hub.https.port(), "iothubowner");
    stranger.ca = other.data_dir().join("ca.pem");
    let ended = stranger.run(&[]).await;
    assert_eq!(ended.code, Some(1), "{}", ended.err);
    assert!(ended.err.contains("certificate"), "{}", ended.err);
    other.stop().await;
    hub.stop().await;
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
