//! Import and export jobs of the official Azure IoT service SDKs for Python and Node, as they come from their package
//! indexes, with containers in Azurite. `outside/jobs.py` and `outside/jobs.js`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Output;

use portcullis_testing::azurite::Azurite;
use portcullis_testing::{HubSettings, TestHub, tools, within};
use serde_json::{Value, json};
use tokio::process::Command;

/// 32 bytes of 0, 1, 2 and 3.
const KEYS: [&str; 4] = [
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
    "AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=",
];
const PARTS: [&str; 5] = ["export", "export without keys", "import", "list", "strangers"];

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_python_service_sdk_runs_import_and_export_jobs() {
    let python = tools::python_service_sdk();
    let azurite = Azurite::start().await;
    let hub = hub(&azurite, HubSettings::default()).await;
    let before = fill(&hub).await;
    let (input, output) = (azurite.container("input").await, azurite.container("output").await);
    azurite.blobs(&input).put_blob("new.txt", with_errors()).await;

    // This SDK takes a port in the host's name, and signs it.
    let host = format!("localhost:{}", hub.https.port());
    let mut service = service(Command::new(python), "jobs.py", &hub, &host);
    service
        .env("REQUESTS_CA_BUNDLE", hub.data_dir().join("ca.pem"))
        .env("PORTCULLIS_TEST_INPUT", azurite.container_uri("input", "r"))
        .env("PORTCULLIS_TEST_OUTPUT", &output)
        .env("PORTCULLIS_TEST_NOWHERE", azurite.container_uri("nowhere", "rwd"));
    check(within(service.output()).await.unwrap());

    let output = azurite.blobs(&output);
    check_lines(&output.blob("devices.txt").await.unwrap(), &before, true);
    check_lines(&output.blob("bare.txt").await.unwrap(), &before, false);
    check_imported(&hub).await;
    check_errors(&output.blob("importErrors.log").await.unwrap());
    hub.stop().await;
}

#[tokio::test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
async fn the_node_service_sdk_runs_import_and_export_jobs() {
    let modules = tools::node_service_sdk();
    let azurite = Azurite::start().await;
    // This SDK knows port 443 only, so the test takes a loopback address of its own for it (443 needs root). The
    // address is the host name too, for nothing else resolves to it.
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let address = IpAddr::V4(Ipv4Addr::new(127, high.max(1), low, 2));
    let hostname = address.to_string();
    let https = Some(SocketAddr::new(address, 443));
    let settings = HubSettings { hostname: hostname.clone(), https, ..HubSettings::default() };
    let hub = hub(&azurite, settings).await;
    let before = fill(&hub).await;
    let names = ["input", "output", "bare"];
    let mut containers = Vec::new();
    for name in names {
        containers.push(azurite.container(name).await);
    }
    let [input, output, bare] = [0, 1, 2].map(|number| azurite.blobs(&containers[number]));
    input.put_blob("devices.txt", without_errors()).await;
    // What an import with errors left there before.
    output.put_blob("importErrors.log", "{}\n").await;

    let mut service = service(Command::new("node"), "jobs.js", &hub, &hostname);
    service
        .env("NODE_PATH", modules)
        .env("NODE_EXTRA_CA_CERTS", hub.data_dir().join("ca.pem"))
        .env("PORTCULLIS_TEST_INPUT", azurite.container_uri("input", "r"))
        .env("PORTCULLIS_TEST_OUTPUT", &containers[1])
        .env("PORTCULLIS_TEST_BARE", &containers[2])
        .env("PORTCULLIS_TEST_NOWHERE", azurite.container_uri("nowhere", "rwd"));
    check(within(service.output()).await.unwrap());

    check_lines(&output.blob("devices.txt").await.unwrap(), &before, true);
    check_lines(&bare.blob("devices.txt").await.unwrap(), &before, false);
    check_imported(&hub).await;
    assert_eq!(output.blob("importErrors.log").await, None);
    hub.stop().await;
}

/// A hub whose jobs may use this blob store.
async fn hub(azurite: &Azurite, settings: HubSettings) -> TestHub {
    let environment = vec![("PORTCULLIS__JOBS__BLOB_HOSTS".to_owned(), azurite.host())];
    TestHub::start_with(HubSettings { environment, ..settings }).await
}

/// Registers one identity of each kind; the etags of their lines, in the order of an export.
async fn fill(hub: &TestHub) -> Vec<String> {
    let rest = hub.rest();
    let mut etags = Vec::new();
    for (path, body) in [
        (
            "devices/authority",
            json!({ "deviceId": "authority", "authentication": { "type": "certificateAuthority" } }),
        ),
        (
            "devices/certified",
            json!({
                "deviceId": "certified",
                "authentication": {
                    "type": "selfSigned",
                    "x509Thumbprint": { "primaryThumbprint": "AB".repeat(20), "secondaryThumbprint": "CD".repeat(32) },
                },
            }),
        ),
        (
            "devices/pump-7",
            json!({
                "deviceId": "pump-7",
                "status": "disabled",
                "statusReason": "worn \"out\"",
                "capabilities": { "iotEdge": true },
                "authentication": { "type": "sas", "symmetricKey": { "primaryKey": KEYS[0], "secondaryKey": KEYS[1] } },
            }),
        ),
        (
            "devices/pump-7/modules/valve",
            json!({
                "deviceId": "pump-7",
                "moduleId": "valve",
                "authentication": { "type": "sas", "symmetricKey": { "primaryKey": KEYS[2], "secondaryKey": KEYS[3] } },
            }),
        ),
    ] {
        let (status, made) = rest.call("PUT", &format!("/{path}?api-version=2021-04-12"), Some(body)).await;
        assert_eq!(status, 200, "{made}");
        etags.push(made["etag"].as_str().unwrap().to_owned());
    }
    etags
}

/// The exported file is IoT Hub's format, line for line and byte for byte.
fn check_lines(exported: &[u8], etags: &[String], with_keys: bool) {
    let keys = |primary: &str, secondary: &str| match with_keys {
        true => format!(r#"{{"primaryKey":"{primary}","secondaryKey":"{secondary}"}}"#),
        false => NO_KEYS.to_owned(),
    };
    let thumbprints = format!(
        r#"{{"primaryThumbprint":"{}","secondaryThumbprint":"{}"}}"#,
        "AB".repeat(20),
        "CD".repeat(32)
    );
    let [authority, certified, pump, valve] = etags else { panic!("{etags:?}") };
    let expected = [
        format!(
            r#"{{"id":"authority","eTag":"{authority}","status":"enabled","authentication":{{"symmetricKey":{NO_KEYS},"x509Thumbprint":{NO_THUMBPRINTS},"type":"certificateAuthority"}},"capabilities":{{"iotEdge":false}},{TWIN}}}"#
        ),
        format!(
            r#"{{"id":"certified","eTag":"{certified}","status":"enabled","authentication":{{"symmetricKey":{NO_KEYS},"x509Thumbprint":{thumbprints},"type":"selfSigned"}},"capabilities":{{"iotEdge":false}},{TWIN}}}"#
        ),
        format!(
            r#"{{"id":"pump-7","eTag":"{pump}","status":"disabled","statusReason":"worn \"out\"","authentication":{{"symmetricKey":{},"x509Thumbprint":{NO_THUMBPRINTS},"type":"sas"}},"capabilities":{{"iotEdge":true}},{TWIN}}}"#,
            keys(KEYS[0], KEYS[1])
        ),
        format!(
            r#"{{"id":"pump-7","moduleId":"valve","eTag":"{valve}","status":"enabled","authentication":{{"symmetricKey":{},"x509Thumbprint":{NO_THUMBPRINTS},"type":"sas"}},{TWIN}}}"#,
            keys(KEYS[2], KEYS[3])
        ),
    ];
    let exported = std::str::from_utf8(exported).unwrap();
    assert!(exported.ends_with('\n') && !exported.contains('\r'));
    assert_eq!(exported.lines().collect::<Vec<_>>(), expected);
}

/// A file to import, with the line ends of either kind, every line of which is good.
fn without_errors() -> String {
    let authentication =
        json!({ "type": "sas", "symmetricKey": { "primaryKey": KEYS[1], "secondaryKey": KEYS[2] } });
    let lines = [
        json!({ "id": "new", "importMode": "create", "status": "enabled", "authentication": authentication }),
        json!({ "id": "new", "moduleId": "m1", "status": "enabled", "authentication": authentication }),
        json!({ "id": "pump-7", "importMode": "Update", "status": "enabled", "authentication": authentication }),
        json!({ "id": "authority", "importMode": "delete" }),
    ];
    let [first, rest @ ..] = lines.map(|line| line.to_string());
    format!("{first}\r\n{}", rest.join("\n"))
}

/// The same, and lines that can be no more than told of.
fn with_errors() -> String {
    let lines = [
        json!({ "id": "certified", "importMode": "create", "status": "enabled" }),
        json!({ "id": "nobody", "importMode": "delete" }),
        json!({ "id": "nobody", "moduleId": "m1", "status": "enabled" }),
    ];
    lines.map(|line| line.to_string() + "\r\n").concat() + &without_errors()
}

/// What either file makes of the registry.
async fn check_imported(hub: &TestHub) {
    let rest = hub.rest();
    let get = async |path: &str| rest.call("GET", &format!("/{path}?api-version=2021-04-12"), None).await;
    for path in ["devices/new", "devices/new/modules/m1", "devices/pump-7"] {
        let (status, found) = get(path).await;
        assert_eq!(status, 200, "{path}: {found}");
        let keys = &found["authentication"]["symmetricKey"];
        assert_eq!(
            (&keys["primaryKey"], &keys["secondaryKey"]),
            (&json!(KEYS[1]), &json!(KEYS[2])),
            "{path}"
        );
    }
    assert_eq!(get("devices/pump-7").await.1["status"], "enabled");
    assert_eq!(get("devices/authority").await.0, 404);
    assert_eq!(get("devices/certified").await.1["authentication"]["type"], "selfSigned");
}

/// One line for each refused one, in the order of the file.
fn check_errors(log: &[u8]) {
    let log = std::str::from_utf8(log).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| (line["deviceId"].as_str(), line["moduleId"].as_str(), line["errorCode"].as_u64()))
        .collect();
    let expected = [
        (Some("certified"), None, Some(409_001)),
        (Some("nobody"), None, Some(404_001)),
        (Some("nobody"), Some("m1"), Some(404_001)),
    ];
    assert_eq!(told, expected, "{log}");
    assert_eq!(lines[1]["errorStatus"], "nobody");
    assert!(
        lines.iter().all(|line| line["errorStatus"].as_str().is_some_and(|text| !text.is_empty())),
        "{log}"
    );
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

/// Every part of what a service does with jobs was gone through, to the end.
fn check(output: Output) {
    let (told, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{errors}");
    assert_eq!(told.lines().collect::<Vec<_>>(), PARTS, "{errors}");
}

const NO_KEYS: &str = r#"{"primaryKey":null,"secondaryKey":null}"#;
const NO_THUMBPRINTS: &str = r#"{"primaryThumbprint":null,"secondaryThumbprint":null}"#;
/// Of a twin nobody has written to.
const TWIN: &str = concat!(
    r#""twinETag":"AAAAAAAAAAE=","tags":{},"properties":{"#,
    r#""desired":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1},"#,
    r#""reported":{"$metadata":{"$lastUpdated":"0001-01-01T00:00:00"},"$version":1}}"#
);
