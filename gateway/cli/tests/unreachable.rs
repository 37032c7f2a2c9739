//! What an operator reads who names the wrong host, port or CA: one line that says what is wrong and what to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use portcullis_certs::testing::TestCa;
use portcullis_testing::shell::Ended;
use portcullis_testing::{TestHub, within};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls;

const PROGRAM: &str = env!("CARGO_BIN_EXE_portcullis");
const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

/// Asks a hub for its devices, and its telemetry where `mqtt_port` is given.
async fn ask(host: &str, mqtt_port: Option<u16>, ca: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, ca).unwrap();
    let mut command = Command::new(PROGRAM);
    match mqtt_port {
        None => command.args(["device-identity", "list"]),
        Some(port) => command.args(["monitor-events", "--mqtt-port", &port.to_string()]),
    };
    command
        .args(["--login", &format!("HostName={host};SharedAccessKeyName=service;SharedAccessKey={KEY}")])
        .arg("--ca")
        .arg(&file)
        .kill_on_drop(true);
    let ended = Ended::of(within(command.output()).await.unwrap());
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), ""), "{}", ended.err);
    assert_eq!(ended.err.matches('\n').count(), 1, "one line: {}", ended.err);
    for leaked in ["DnsName", "client error", "dns error", "Connect)", "Error {", "invalid peer"] {
        assert!(!ended.err.contains(leaked), "{leaked}: {}", ended.err);
    }
    ended.err
}

/// A server with a certificate of `ca` for `name`; its port.
async fn server(ca: &TestCa, name: &str, is_expired: bool) -> u16 {
    let cert = if is_expired { ca.expired_server(&[name]) } else { ca.server(&[name]) };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.certificate], cert.key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // The client ends the handshake.
            drop(acceptor.accept(stream).await);
        }
    });
    port
}

#[tokio::test]
async fn a_host_name_nobody_knows() {
    let told = ask("nobody.invalid:8443", None, TestCa::new().pem()).await;
    assert_eq!(
        told,
        "error: nobody.invalid:8443: the host name cannot be resolved  hint: check the host name in --login, and \
         this machine's DNS\n"
    );
}

#[tokio::test]
async fn a_port_nobody_listens_at() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let told = ask(&format!("127.0.0.1:{port}"), None, TestCa::new().pem()).await;
    assert_eq!(
        told,
        format!(
            "error: 127.0.0.1:{port}: nothing listens there; the connection is refused  hint: check that the hub runs \
             and that this is its port\n"
        )
    );
}

#[tokio::test]
async fn a_hub_of_another_ca() {
    let hub = TestHub::start().await;
    let port = hub.https.port();
    let told = ask(&format!("127.0.0.1:{port}"), None, TestCa::new().pem()).await;
    let expected =
        "its certificate is of a CA that is not trusted here  hint: --ca FILE names the hub's ca.pem\n";
    assert_eq!(told, format!("error: 127.0.0.1:{port}: {expected}"));
    let mqtt = hub.mqtt.port();
    let told = ask("127.0.0.1", Some(mqtt), TestCa::new().pem()).await;
    assert_eq!(told, format!("error: 127.0.0.1:{mqtt}: {expected}"));
    hub.stop().await;
}

#[tokio::test]
async fn a_hub_of_another_name() {
    let ca = TestCa::new();
    let port = server(&ca, "hub.example.com", false).await;
    let expected = "its certificate is for another name: it is for hub.example.com  hint: --login must have a name \
                    that is in the hub's certificate\n";
    let told = ask(&format!("127.0.0.1:{port}"), None, ca.pem()).await;
    assert_eq!(told, format!("error: 127.0.0.1:{port}: {expected}"));
    let told = ask("127.0.0.1", Some(port), ca.pem()).await;
    assert_eq!(told, format!("error: 127.0.0.1:{port}: {expected}"));
}

#[tokio::test]
async fn a_hub_whose_certificate_has_expired() {
    let ca = TestCa::new();
    let port = server(&ca, "127.0.0.1", true).await;
    let told = ask(&format!("127.0.0.1:{port}"), None, ca.pem()).await;
    assert!(
        told.starts_with(&format!("error: 127.0.0.1:{port}: its certificate has expired  hint: ")),
        "{told}"
    );
}

#[tokio::test]
async fn a_port_that_does_not_speak_tls() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        }
    });
    let told = ask(&format!("127.0.0.1:{port}"), None, TestCa::new().pem()).await;
    assert!(told.starts_with(&format!("error: 127.0.0.1:{port}: it does not speak TLS  hint: ")), "{told}");
}
