//! Shared access policies over REST: made, changed and deleted, and what becomes of those who rest on them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::Future;

use portcullis::config::local_access::LocalAccess;
use portcullis::mqtt::packet::{Connect, Password};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use portcullis_testing::{HubSettings, RestClient, TestClient, TestHub, TestIdentity};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/policies";

async fn create(rest: &RestClient, name: &str, rights: &[&str]) -> Value {
    let (status, made) = rest.call("PUT", &format!("{PATH}/{name}"), Some(json!({ "rights": rights }))).await;
    assert_eq!(status, 200, "{made}");
    made
}

async fn regenerate(rest: &RestClient, name: &str, key: &str) -> (u16, Value) {
    rest.call("POST", &format!("{PATH}/{name}/regenerate"), Some(json!({ "key": key }))).await
}

/// A token of a policy by one of the keys an answer showed.
fn token(hub: &TestHub, policy: &Value, key: &str) -> String {
    let key = SymmetricKey::parse_base64(policy[key].as_str().unwrap()).unwrap();
    let expiry = hub.hub.clock.wall().as_second() + 3600;
    sas::sign(hub.hub.hosts.primary(), &key, expiry, policy["name"].as_str())
}

async fn opens(hub: &TestHub, token: &str) -> bool {
    let mut rest = hub.rest();
    rest.token = Some(token.to_owned());
    rest.call("GET", "/devices?api-version=2021-04-12", None).await.0 == 200
}

#[tokio::test]
async fn a_policy_of_ones_own_is_made_listed_changed_and_deleted_for_good() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let made = create(&rest, "portal.1", &["registryRead", "ServiceConnect"]).await;
    assert_eq!(
        (&made["name"], &made["rights"]),
        (&json!("portal.1"), &json!(["RegistryRead", "ServiceConnect"]))
    );
    assert_eq!(made["primaryKey"].as_str().unwrap().len(), 44);
    assert_ne!(made["primaryKey"], made["secondaryKey"]);
    let body = Some(json!({"rights": ["RegistryRead"]}));
    for taken in ["portal.1", "PORTAL.1", "service"] {
        assert_eq!(rest.call("PUT", &format!("{PATH}/{taken}"), body.clone()).await.0, 409, "{taken}");
    }
    let first = token(&hub, &made, "primaryKey");
    assert!(opens(&hub, &first).await);

    let hub = hub.restart().await;
    let rest = hub.rest();
    assert_eq!(rest.call("GET", &format!("{PATH}/portal.1"), None).await, (200, made.clone()));
    let (_, all) = rest.call("GET", PATH, None).await;
    let names: Vec<_> =
        all.as_array().unwrap().iter().map(|policy| policy["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["iothubowner", "service", "device", "registryRead", "registryReadWrite", "portal.1"]);
    assert_eq!(all[5], made);
    assert!(opens(&hub, &first).await);

    let (_, swapped) = regenerate(&rest, "portal.1", "swap").await;
    assert_eq!(swapped["primaryKey"], made["secondaryKey"]);
    assert_eq!(swapped["secondaryKey"], made["primaryKey"]);
    let (_, renewed) = regenerate(&rest, "portal.1", "secondary").await;
    assert_eq!(renewed["primaryKey"], swapped["primaryKey"]);
    assert!(!opens(&hub, &first).await && opens(&hub, &token(&hub, &made, "secondaryKey")).await);
    let (_, renewed) = regenerate(&rest, "portal.1", "both").await;
    assert!(!opens(&hub, &token(&hub, &made, "secondaryKey")).await);
    assert!(opens(&hub, &token(&hub, &renewed, "primaryKey")).await);

    assert_eq!(rest.call("DELETE", &format!("{PATH}/portal.1"), None).await, (204, Value::Null));
    assert!(!opens(&hub, &token(&hub, &renewed, "primaryKey")).await);
    assert_eq!(rest.call("DELETE", &format!("{PATH}/portal.1"), None).await.0, 404);
    assert_eq!(regenerate(&rest, "portal.1", "both").await.0, 404);
    let hub = hub.restart().await;
    assert_eq!(hub.rest().call("GET", &format!("{PATH}/portal.1"), None).await.0, 404);
    hub.stop().await;
}

#[tokio::test]
async fn what_is_no_policy_is_refused_and_built_in_ones_stay() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    for (name, body) in [
        ("own", json!({"rights": []})),
        ("own", json!({"rights": ["Everything"]})),
        ("own", json!({})),
        ("own", json!({"rights": "RegistryRead"})),
        ("own", json!({"rights": ["RegistryRead"], "primaryKey": "short"})),
        ("a%20b", json!({"rights": ["RegistryRead"]})),
        ("%2E%2E", json!({"rights": ["RegistryRead"]})),
        ("a%26skn%3Db", json!({"rights": ["RegistryRead"]})),
    ] {
        let (status, told) = rest.call("PUT", &format!("{PATH}/{name}"), Some(body)).await;
        assert!(status == 400 || name == "%2E%2E", "{name}: {told}");
    }
    for name in ["iothubowner", "service", "device", "registryRead", "registryReadWrite"] {
        let (status, told) = rest.call("DELETE", &format!("{PATH}/{name}"), None).await;
        assert_eq!((status, told["Message"].as_str().unwrap().contains("built in")), (403, true), "{told}");
    }
    for body in [json!({}), json!({"key": "all"}), json!({"key": 1})] {
        assert_eq!(rest.call("POST", &format!("{PATH}/service/regenerate"), Some(body)).await.0, 400);
    }
    let key = SymmetricKey::generate();
    let body =
        json!({"rights": ["DeviceConnect"], "primaryKey": key.to_base64().as_str(), "secondaryKey": ""});
    let (_, given) = rest.call("PUT", &format!("{PATH}/given"), Some(body)).await;
    assert_eq!(given["primaryKey"], key.to_base64().as_str());
    assert_eq!(given["secondaryKey"].as_str().unwrap().len(), 44);
    hub.stop().await;
}

#[tokio::test]
async fn a_key_the_configuration_sets_is_changed_there_alone() {
    let key = SymmetricKey::generate();
    let set = ("PORTCULLIS__POLICIES__SERVICE__PRIMARY_KEY".to_owned(), key.to_base64().as_str().to_owned());
    let hub = TestHub::start_with(HubSettings { environment: vec![set], ..HubSettings::default() }).await;
    let rest = hub.rest();
    for which in ["primary", "both", "swap"] {
        let (status, told) = regenerate(&rest, "service", which).await;
        assert_eq!(
            (status, told["Message"].as_str().unwrap().contains("configuration")),
            (403, true),
            "{told}"
        );
    }
    let (status, renewed) = regenerate(&rest, "service", "secondary").await;
    assert_eq!((status, &renewed["primaryKey"]), (200, &json!(key.to_base64().as_str())));
    create(&rest, "own", &["RegistryRead"]).await;
    // What the configuration sets is not stored.
    let stored = hub.hub.registry.meta("policies").unwrap();
    assert!(!stored.windows(key.as_bytes().len()).any(|part| part == key.as_bytes()));
    hub.stop().await;
}

#[tokio::test]
async fn the_owner_of_this_machine_keeps_access() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let access = LocalAccess {
        version: None,
        hostname: "localhost".into(),
        mqtt_port: 1,
        https_port: 2,
        connect_address: "127.0.0.1".into(),
        owner: "old".into(),
    };
    access.write(hub.data_dir()).unwrap();
    let (status, renewed) = regenerate(&rest, "iothubowner", "both").await;
    assert_eq!(status, 200, "{renewed}");
    let now = LocalAccess::read(hub.data_dir()).unwrap();
    assert!(now.owner.ends_with(renewed["primaryKey"].as_str().unwrap()), "the access file has the new key");
    assert_eq!(now.https_port, 2);
    assert_eq!(rest.call("GET", PATH, None).await.0, 401, "the old key is no key any more");
    assert_eq!(hub.rest().call("GET", PATH, None).await.0, 200);
    hub.stop().await;
}

/// A device that connects by a token of a policy.
async fn connect_device(hub: &TestHub, device: &TestIdentity, token: &str) -> TestClient {
    let password = Some(Password::from_bytes(token.as_bytes()));
    hub.connect_with(Connect { password, ..hub.connect_packet(device) }).await.expect("the policy admits it")
}

/// A service that connects by a token of a policy.
async fn connect_service(hub: &TestHub, policy: &str, token: &str) -> TestClient {
    let client = hub.connect_with(Connect {
        client_id: "a service".into(),
        clean_session: true,
        keep_alive: 60,
        username: Some(format!("localhost/?api-version=2021-04-12&policy={policy}")),
        password: Some(Password::from_bytes(token.as_bytes())),
        will: None,
    });
    client.await.expect("the policy admits it")
}

/// Connects two devices and two services by either key of a new policy, makes `change`, and tells which are left.
async fn left_after<F: Future<Output = ()>>(change: impl FnOnce(RestClient) -> F) -> [bool; 4] {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let policy = create(&rest, "fleet", &["DeviceConnect", "ServiceConnect"]).await;
    let (first, second) = (token(&hub, &policy, "primaryKey"), token(&hub, &policy, "secondaryKey"));
    let (d1, d2, bystander) = (hub.device("d1").await, hub.device("d2").await, hub.device("own-key").await);
    let clients = [
        connect_device(&hub, &d1, &first).await,
        connect_device(&hub, &d2, &second).await,
        connect_service(&hub, "fleet", &first).await,
        connect_service(&hub, "fleet", &second).await,
    ];
    let mut bystanders = [hub.connect(&bystander).await, hub.connect_service("service").await.unwrap()];
    change(rest).await;
    let mut left = [false; 4];
    for (left, mut client) in left.iter_mut().zip(clients) {
        client.send_or_lose(portcullis::mqtt::packet::Packet::PingReq).await;
        *left = client.packet_or_end().await.is_some();
    }
    for client in &mut bystanders {
        client.settle().await;
    }
    hub.stop().await;
    left
}

#[tokio::test]
async fn t604_who_rests_on_a_policy_goes_with_it() {
    let renew = |which: &'static str| {
        left_after(move |rest| async move {
            assert_eq!(regenerate(&rest, "fleet", which).await.0, 200);
        })
    };
    assert_eq!(renew("primary").await, [false, true, false, true]);
    assert_eq!(renew("both").await, [false; 4]);
    let deleted = left_after(|rest| async move {
        assert_eq!(rest.call("DELETE", &format!("{PATH}/fleet"), None).await.0, 204);
    });
    assert_eq!(deleted.await, [false; 4]);
}

#[tokio::test]
async fn who_takes_its_own_key_away_by_a_command_is_in_the_record() {
    let hub = TestHub::start().await;
    let rest = hub.rest();
    let rights = ["RegistryRead", "RegistryWrite", "ServiceConnect", "DeviceConnect"];
    let policy = create(&rest, "fleet", &rights).await;
    let mut client = connect_service(&hub, "fleet", &token(&hub, &policy, "primaryKey")).await;
    client.subscribe(&["$admin/res/#"]).await;
    client.publish("$admin/POST/api/v1/policies/fleet/regenerate/?$rid=1", br#"{"key":"both"}"#).await;
    while client.packet_or_end().await.is_some() {}
    let hub = hub.restart().await;
    let (_, now) = hub.rest().call("GET", &format!("{PATH}/fleet"), None).await;
    assert_ne!(now["primaryKey"], policy["primaryKey"]);
    let (_, told) = hub.rest().call("GET", "/api/v1/audit", None).await;
    let operations: Vec<_> =
        told.as_array().unwrap().iter().map(|line| line["op"].as_str().unwrap()).collect();
    assert_eq!(operations, ["createPolicy", "regeneratePolicy", "revealCredential"]);
    hub.stop().await;
}

#[tokio::test]
async fn t613_swapped_policy_keys_leave_everybody_connected() {
    let swapped = left_after(|rest| async move {
        assert_eq!(regenerate(&rest, "fleet", "swap").await.0, 200);
        create(&rest, "another", &["RegistryRead"]).await;
    });
    assert_eq!(swapped.await, [true; 4]);
}
