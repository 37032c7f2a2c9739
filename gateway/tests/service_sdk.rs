//! The official Azure IoT service SDKs for Python and Node, as they come from their package indexes, against a hub:
//! every call they have for identities, and their errors. `outside/service.py` and `outside/service.js`. The one for
//! Python fetches feedback too: `outside/feedback.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;

use portcullis_registry::message::{Ack, NewC2d};
use portcullis_testing::{HubSettings, TestHub, tools, within};
use tokio::process::Command;

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_service_sdk_manages_the_registry() {
    let python = tools::python_service_sdk();
    let hub = TestHub::start().await;
    // This SDK takes a port in the host's name, and signs it.
    let host = format!("localhost:{}", hub.https.port());
    let mut service = service(Command::new(python), "service.py", &hub, &host);
    service.env("REQUESTS_CA_BUNDLE", hub.data_dir().join("ca.pem"));
    check(within(service.output()).await.unwrap());
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_node_service_sdk_manages_the_registry() {
    let modules = tools::node_service_sdk();
    // This SDK knows port 443 only, so the test takes a loopback address of its own for it (443 needs root). The
    // address is the host name too, for nothing else resolves to it.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, 1));
    let hostname = address.to_string();
    let https = Some(SocketAddr::new(address, 443));
    let hub =
        TestHub::start_with(HubSettings { hostname: hostname.clone(), https, ..HubSettings::default() })
            .await;
    let mut service = service(Command::new("node"), "service.js", &hub, &hostname);
    service.env("NODE_PATH", modules).env("NODE_EXTRA_CA_CERTS", hub.data_dir().join("ca.pem"));
    check(within(service.output()).await.unwrap());
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_service_sdk_fetches_feedback() {
    let python = tools::python_service_sdk();
    let environment = vec![("PORTCULLIS__LIMITS__FEEDBACK_BATCH_TIME_MAX".to_owned(), "0s".to_owned())];
    let hub = TestHub::start_with(HubSettings { environment, ..HubSettings::default() }).await;
    let pump = hub.device("pump-7").await;
    let message = NewC2d { message_id: Some("m1".into()), ack: Ack::Full, ..NewC2d::default() };
    hub.send_message(&pump, message).await;
    let host = format!("localhost:{}", hub.https.port());
    let mut service = service(Command::new(python), "feedback.py", &hub, &host);
    service.env("REQUESTS_CA_BUNDLE", hub.data_dir().join("ca.pem"));
    let output = within(service.output()).await.unwrap();
    check_parts(output, &["nothing yet", "purged", "told", "told once"]);
    hub.stop().await;
}

/// A script of this directory, ready to be run as the owner of the hub.
fn service(mut interpreter: Command, script: &str, hub: &TestHub, host: &str) -> Command {
    let policies = hub.hub.policies();
    let key = policies.find("iothubowner").unwrap().keys.primary.to_base64();
    let owner = format!("HostName={host};SharedAccessKeyName=iothubowner;SharedAccessKey={}", key.as_str());
    interpreter
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/outside").join(script))
        .env("PORTCULLIS_TEST_CONNECTION_STRING", owner)
        .kill_on_drop(true);
    interpreter
}

/// Every part of what a service does with identities was gone through, to the end.
fn check(output: Output) {
    check_parts(output, &["devices", "modules", "bulk", "query", "the end", "strangers"]);
}

fn check_parts(output: Output, expected: &[&str]) {
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    let parts: Vec<_> = told.lines().collect();
    assert_eq!(parts, expected, "{errors}");
}
