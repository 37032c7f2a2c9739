//! Every route of the HTTPS listener, tried by everybody it is not for, and by those it is for.
//!
//! The table below says who may call what; it must name the routes the hub serves, all of them and no others.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::http::{Needs, routes};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::policy::Rights;
use portcullis_registry::sas;
use portcullis_testing::{RestClient, TestHub};
use reqwest::StatusCode;
use serde_json::{Value, json};

const READ: Needs = Needs::Rights(Rights::REGISTRY_READ);
const WRITE: Needs = Needs::Rights(Rights::REGISTRY_WRITE);
const BOTH: Needs = Needs::Rights(Rights::REGISTRY_READ_WRITE);
const SERVICE: Needs = Needs::Rights(Rights::SERVICE_CONNECT);
const OWNER: Needs = Needs::Rights(Rights::ALL);
const DEVICE: Needs = Needs::Identity;
const ANYBODY: Needs = Needs::Nothing;

/// Who may call what.
const TABLE: &[(&str, &str, Needs)] = &[
    ("GET", "/devices", READ),
    ("POST", "/devices", WRITE),
    ("POST", "/devices/query", SERVICE),
    ("GET", "/devices/{device}", READ),
    ("PUT", "/devices/{device}", WRITE),
    ("DELETE", "/devices/{device}", WRITE),
    ("GET", "/devices/{device}/modules", READ),
    ("GET", "/devices/{device}/modules/{module}", READ),
    ("PUT", "/devices/{device}/modules/{module}", WRITE),
    ("DELETE", "/devices/{device}/modules/{module}", WRITE),
    ("DELETE", "/devices/{device}/commands", SERVICE),
    ("DELETE", "/devices/{device}/modules/{module}/commands", SERVICE),
    ("POST", "/devices/{device}/messages/{bound}", SERVICE),
    ("POST", "/devices/{device}/modules/{module}/messages/{bound}", SERVICE),
    ("POST", "/devices/{device}/messages/events", DEVICE),
    ("GET", "/devices/{device}/messages/{bound}", DEVICE),
    ("DELETE", "/devices/{device}/messages/{bound}/{token}", DEVICE),
    ("POST", "/devices/{device}/messages/{bound}/{token}/abandon", DEVICE),
    ("POST", "/devices/{device}/modules/{module}/messages/events", DEVICE),
    ("GET", "/devices/{device}/modules/{module}/messages/{bound}", DEVICE),
    ("DELETE", "/devices/{device}/modules/{module}/messages/{bound}/{token}", DEVICE),
    ("POST", "/devices/{device}/modules/{module}/messages/{bound}/{token}/abandon", DEVICE),
    ("GET", "/messages/serviceBound/feedback", SERVICE),
    ("DELETE", "/messages/serviceBound/feedback/{token}", SERVICE),
    ("POST", "/messages/serviceBound/feedback/{token}/abandon", SERVICE),
    ("GET", "/statistics/devices", READ),
    ("GET", "/statistics/service", SERVICE),
    ("POST", "/jobs/create", BOTH),
    ("GET", "/jobs", READ),
    ("GET", "/jobs/{job}", READ),
    ("DELETE", "/jobs/{job}", READ),
    ("POST", "/api/v1/imports", BOTH),
    ("POST", "/api/v1/exports", READ),
    ("POST", "/api/v1/jobs/{job}/rollback", BOTH),
    ("GET", "/api/v1/jobs/{job}/files/{file}", READ),
    ("POST", "/api/v1/c2d-messages", SERVICE),
    ("GET", "/api/v1/devices/{device}/c2d-messages", SERVICE),
    ("GET", "/api/v1/devices/{device}/modules/{module}/c2d-messages", SERVICE),
    ("GET", "/api/v1/audit", OWNER),
    ("GET", "/api/v1/policies", OWNER),
    ("GET", "/api/v1/policies/{name}", OWNER),
    ("PUT", "/api/v1/policies/{name}", OWNER),
    ("DELETE", "/api/v1/policies/{name}", OWNER),
    ("POST", "/api/v1/policies/{name}/regenerate", OWNER),
    ("GET", "/api/v1/certificate-authorities", READ),
    ("GET", "/api/v1/certificate-authorities/{name}", READ),
    ("PUT", "/api/v1/certificate-authorities/{name}", WRITE),
    ("DELETE", "/api/v1/certificate-authorities/{name}", WRITE),
    ("POST", "/api/v1/certificate-authorities/{name}/verification-code", WRITE),
    ("POST", "/api/v1/certificate-authorities/{name}/verify", WRITE),
    ("POST", "/api/v1/devices/{device}/certificate-verdict", READ),
    ("POST", "/api/v1/devices/{device}/modules/{module}/certificate-verdict", READ),
    ("GET", "/api/v1/devices/{device}/connections", READ),
    ("GET", "/api/v1/devices/{device}/modules/{module}/connections", READ),
    ("GET", "/api/v1/openapi.json", ANYBODY),
    ("GET", "/$iothub/websocket", ANYBODY),
    ("GET", "/healthz", ANYBODY),
    ("GET", "/healthz/ready", ANYBODY),
    ("GET", "/healthz/started", ANYBODY),
    ("GET", "/healthz/live", ANYBODY),
    ("GET", "/readyz", ANYBODY),
    ("GET", "/livez", ANYBODY),
];

#[test]
fn t313_every_route_is_in_the_table() {
    let mut served: Vec<_> = routes().iter().map(|route| (route.method.to_string(), route.path)).collect();
    let mut listed: Vec<_> = TABLE.iter().map(|(method, path, _)| ((*method).to_owned(), *path)).collect();
    served.sort();
    listed.sort();
    assert_eq!(served, listed);
    for route in routes() {
        let row = TABLE.iter().find(|row| row.0 == route.method.as_str() && row.1 == route.path);
        assert_eq!(row.unwrap().2, route.needs, "{} {}", route.method, route.path);
    }
}

/// A path one can ask for, with what every route takes in its query and body.
fn concrete(path: &str, device: &str) -> String {
    let path = path.replace("{device}", device).replace("{module}", "m").replace("{name}", "nobody");
    let path = path.replace("{job}", "nobody").replace("{file}", "results.txt");
    let path =
        path.replace("{bound}", "deviceBound").replace("{token}", "00000000-0000-0000-0000-000000000000");
    format!("{path}?api-version=2021-04-12")
}

/// A body each route that takes one can read.
fn body(method: &str, path: &str) -> Value {
    match (method, path) {
        ("POST", "/devices") => json!([{"id": "d2"}]),
        ("POST", "/api/v1/c2d-messages") => json!([{"deviceId": "nobody"}]),
        _ => json!({
            "query": "SELECT * FROM devices",
            "rights": ["RegistryRead"],
            "key": "swap",
            "certificate": "none",
        }),
    }
}

async fn call(rest: &RestClient, method: &str, path: &str, device: &str) -> (u16, Value) {
    rest.call(method, &concrete(path, device), Some(body(method, path))).await
}

#[tokio::test]
async fn t313_t701_strangers_are_refused_everywhere() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let module = hub.module("d1", "m").await;
    let other = hub.device("d10").await;
    let policies = hub.hub.policies();
    let owner = policies.find("iothubowner").unwrap().keys.primary.clone();
    let now = hub.hub.clock.wall().as_second();
    let by_owner = |resource: &str, expiry: i64| sas::sign(resource, &owner, expiry, Some("iothubowner"));
    let good = by_owner("localhost", now + 3600);
    let strangers = [
        ("no credentials", None),
        ("an empty header", Some(String::new())),
        ("another scheme", Some("Basic b3duZXI6b3duZXI=".to_owned())),
        ("a bearer token", Some("Bearer eyJhbGciOiJub25lIn0.e30.".to_owned())),
        ("a very long header", Some(format!("SharedAccessSignature {}", "x".repeat(9000)))),
        (
            "a wrong key",
            Some(sas::sign("localhost", &SymmetricKey::generate(), now + 3600, Some("iothubowner"))),
        ),
        ("an expired token", Some(by_owner("localhost", now - 1))),
        ("a token of another hub", Some(by_owner("other.example.test", now + 3600))),
        ("a token of a part of the hub", Some(by_owner("localhost/devices/d1", now + 3600))),
        ("an unknown policy", Some(sas::sign("localhost", &owner, now + 3600, Some("owner")))),
        ("no policy", Some(sas::sign("localhost", &owner, now + 3600, None))),
        ("a changed token", Some(good.replace("sig=", "sig=A"))),
        ("a device's token", Some(hub.token_for(&device, 3600))),
        ("another device's token", Some(hub.token_for(&other, 3600))),
        ("a module's token", Some(hub.token_for(&module, 3600))),
        (
            "a device's key for the whole hub",
            Some(sas::sign("localhost", &device.keys.primary, now + 3600, None)),
        ),
    ];
    for (who, token) in strangers {
        let mut rest = hub.rest();
        rest.token = token;
        for (method, path, needs) in TABLE {
            let (status, answer) = call(&rest, method, path, "d1").await;
            let is_welcome = match needs {
                Needs::Nothing => true,
                Needs::Rights(_) => false,
                Needs::Identity => match who {
                    "a device's token" => !path.contains("{module}"),
                    "a module's token" => path.contains("{module}"),
                    // A policy that acts for devices may do so for one of them.
                    "a token of a part of the hub" => true,
                    _ => false,
                },
            };
            if is_welcome {
                assert_ne!(status, 401, "{method} {path} with {who}: {answer}");
                continue;
            }
            assert_eq!(status, 401, "{method} {path} with {who}: {answer}");
            assert_eq!(answer["Message"], "ErrorCode:IotHubUnauthorizedAccess;Unauthorized", "{who}");
        }
    }
    // Two headers are no proof, even when both are good.
    let twice =
        hub.rest().request("GET", &concrete("/devices", "d1")).header("authorization", &good).send().await;
    assert_eq!(twice.unwrap().status(), StatusCode::UNAUTHORIZED);
    assert_eq!((hub.hub.registry.counts().devices, hub.hub.registry.counts().modules), (2, 1));
    assert_eq!(hub.hub.policies(), policies);
    hub.stop().await;
}

/// A policy of every set of rights there is.
async fn policies(hub: &TestHub) -> Vec<(String, Rights)> {
    let all =
        [Rights::REGISTRY_READ, Rights::REGISTRY_WRITE, Rights::SERVICE_CONNECT, Rights::DEVICE_CONNECT];
    let mut policies = Vec::new();
    for number in 1_usize..16 {
        let rights = (0..4).filter(|place| number & (1 << place) != 0).map(|place| all[place]);
        let rights = rights.reduce(|all, one| all | one).unwrap();
        let name = format!("p{number}");
        let path = format!("/api/v1/policies/{name}");
        let made = hub.rest().call("PUT", &path, Some(json!({ "rights": rights.names() }))).await;
        assert_eq!(made.0, 200, "{}", made.1);
        policies.push((name, rights));
    }
    policies
}

#[tokio::test]
async fn t313_rights_open_what_they_grant_and_no_more() {
    let hub = TestHub::start().await;
    hub.device("stays").await;
    hub.module("stays", "m").await;
    for (policy, rights) in policies(&hub).await {
        let mut caller = hub.rest();
        caller.token = Some(hub.policy_token(&policy));
        for (method, path, needs) in TABLE {
            let (needed, device) = match needs {
                Needs::Nothing => continue,
                Needs::Rights(needed) => (*needed, "d1"),
                Needs::Identity => (Rights::DEVICE_CONNECT, "stays"),
            };
            let (status, answer) = call(&caller, method, path, device).await;
            assert_eq!(status != 401, rights.contains(needed), "{method} {path} with {rights}: {answer}");
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t616_commands_open_what_rights_grant_and_no_more() {
    let hub = TestHub::start().await;
    hub.device("stays").await;
    hub.module("stays", "m").await;
    for (policy, rights) in policies(&hub).await {
        let operates = rights != Rights::DEVICE_CONNECT;
        let client = hub.connect_service(&policy).await;
        assert_eq!(client.is_ok(), operates, "{rights}");
        let Ok(mut client) = client else { continue };
        client.subscribe(&["$admin/res/#"]).await;
        for (method, path, needs) in TABLE {
            let opens = match needs {
                Needs::Nothing => continue,
                Needs::Rights(needed) => rights.contains(*needed),
                // A command is an operator's; it acts for no device.
                Needs::Identity => false,
            };
            let command = format!("$admin/{method}{}&$rid=1", concrete(path, "stays"));
            client.publish_acknowledged(&command, body(method, path).to_string().as_bytes()).await;
            let answer = client.take_message().await;
            let topic = answer.topic.as_str();
            assert!(topic.starts_with("$admin/res/"), "{topic}");
            assert_eq!(!topic.starts_with("$admin/res/401/"), opens, "{command} with {rights}: {topic}");
            if opens && *method == "DELETE" {
                // What was deleted is there again for whoever comes next.
                let _ = call(&hub.rest(), "PUT", "/devices/{device}", "stays").await;
                let _ = call(&hub.rest(), "PUT", "/devices/{device}/modules/{module}", "stays").await;
            }
        }
    }
    hub.stop().await;
}

#[tokio::test]
async fn t709_no_path_takes_a_method_that_is_not_in_the_table() {
    let hub = TestHub::start().await;
    hub.device("d1").await;
    let rest = hub.rest();
    let mut paths: Vec<_> = TABLE.iter().map(|(_, path, _)| *path).collect();
    // With other methods this is the path of a device.
    paths.retain(|path| *path != "/devices/query");
    paths.sort();
    paths.dedup();
    for path in paths {
        let mut taken: Vec<_> = TABLE.iter().filter(|row| row.1 == path).map(|row| row.0).collect();
        taken.sort();
        for method in ["HEAD", "OPTIONS", "TRACE", "PATCH", "GET", "PUT", "POST", "DELETE", "PROPFIND"] {
            if taken.contains(&method) {
                continue;
            }
            let answer = rest.request(method, &concrete(path, "d1")).send().await.unwrap();
            assert_eq!(answer.status(), 405, "{method} {path}");
            let mut allowed: Vec<_> = answer.headers()["allow"].to_str().unwrap().split(", ").collect();
            allowed.sort();
            assert_eq!(allowed, taken, "{method} {path}");
        }
    }
    assert_eq!(hub.hub.registry.counts().devices, 1);
    hub.stop().await;
}

#[tokio::test]
async fn the_description_is_of_the_routes_that_are_served() {
    let hub = TestHub::start().await;
    let mut rest = hub.rest();
    rest.token = None;
    let (status, description) = rest.call("GET", "/api/v1/openapi.json", None).await;
    assert_eq!(status, 200);
    assert!(description["openapi"].as_str().unwrap().starts_with("3."), "{description}");
    let mut described = Vec::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.push((method.to_uppercase(), path.clone()));
            let row = TABLE.iter().find(|row| row.0.eq_ignore_ascii_case(method) && row.1 == path);
            let rights = match row.unwrap_or_else(|| panic!("{method} {path} is not served")).2 {
                Needs::Nothing => Value::Null,
                Needs::Rights(rights) => json!([{ "sas": rights.names() }]),
                Needs::Identity => json!([{ "sas": ["DeviceConnect"] }]),
            };
            assert_eq!(operation.get("security").unwrap_or(&Value::Null), &rights, "{method} {path}");
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path = parameters.filter(|parameter| parameter["in"] == "path").count();
            assert_eq!(in_path, path.matches('{').count(), "{method} {path}");
        }
    }
    let mut served: Vec<_> = TABLE.iter().map(|row| (row.0.to_owned(), row.1.to_owned())).collect();
    described.sort();
    served.sort();
    assert_eq!(described, served);

    let put = &description["paths"]["/devices/{device}"]["put"];
    let options: Vec<_> =
        put["parameters"].as_array().unwrap().iter().map(|option| option["name"].clone()).collect();
    assert_eq!(options, ["device", "api-version", "If-Match"]);
    let schemas = description["components"]["schemas"].as_object().unwrap();
    let text = description.to_string();
    let references: Vec<_> = text.split("\"#/components/schemas/").skip(1).collect();
    assert!(references.len() > 10, "the check itself no longer sees references");
    for reference in references {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name} is not described");
    }
    assert!(schemas["DeviceOut"]["properties"]["cloudToDeviceMessageCount"].is_object(), "{schemas:?}");
    assert!(schemas["AuthenticationIn"]["properties"]["x509Thumbprint"].is_object(), "{schemas:?}");
    hub.stop().await;
}
