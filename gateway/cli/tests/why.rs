//! Why a device does not get in, and how its connections went: over REST and on the command line.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis::mqtt::packet::{Connect, Password};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::sas::sign;
use portcullis_testing::shell::Shell;
use portcullis_testing::{TestHub, TestIdentity, until};
use serde_json::{Value, json};

async fn why(hub: &TestHub, id: &str) -> Value {
    let (status, told) = hub.rest().call("GET", &format!("/api/v1/devices/{id}/connections"), None).await;
    assert_eq!(status, 200);
    told
}

async fn refused(hub: &TestHub, identity: &TestIdentity, password: &str) {
    let password = Some(Password::from_bytes(password.as_bytes()));
    let connect = Connect { password, ..hub.connect_packet(identity) };
    assert!(hub.connect_with(connect).await.is_err());
}

fn unknown(name: &str, like: &TestIdentity) -> TestIdentity {
    TestIdentity { id: IdentityId::device(DeviceId::parse(name).unwrap()), ..like.clone() }
}

#[tokio::test]
async fn refusals_are_told_newest_first_with_what_was_seen_expected_and_measured() {
    let hub = TestHub::start().await;
    let device = hub.device("pump").await;
    let host = "localhost";
    let hour = hub.hub.clock.wall().as_second() + 3600;
    refused(&hub, &device, &hub.token_for(&device, -90)).await;
    let other_key = SymmetricKey::generate();
    refused(&hub, &device, &sign(&device.resource(host), &other_key, hour, None)).await;
    refused(&hub, &device, &sign("other.example.com/devices/pump", &device.keys.primary, hour, None)).await;
    let told = why(&hub, "pump").await;
    let refusals = told["refusals"].as_array().unwrap();
    let outcomes: Vec<_> = refusals.iter().map(|refusal| refusal["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["hub_unknown", "sas_bad_signature", "sas_expired"]);
    assert_eq!((&refusals[0]["seen"], &refusals[0]["expected"]), (&json!("other.example.com"), &json!(host)));
    // The token was signed at some moment of this test, and held against the clock a little later.
    let left = |refusal: &Value| refusal["tokenSecondsLeft"].as_i64().unwrap();
    assert!((3500..=3600).contains(&left(&refusals[1])), "{told}");
    assert!((-190..=-90).contains(&left(&refusals[2])), "{told}");
    assert_eq!((&refusals[2]["peer"], &refusals[2]["face"]), (&json!("127.0.0.1"), &json!("mqtt")));
    assert_eq!((&told["registered"], &told["connected"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&told["lastRefusal"]["outcome"], &told["lastRefusal"]["count"]),
        (&json!("hub_unknown"), &json!(3))
    );
    // Nothing of a key or a signature.
    let text = told.to_string();
    for secret in [&device.keys.primary, &device.keys.secondary, &other_key] {
        assert!(!text.contains(secret.to_base64().as_str()));
    }
    assert!(!text.contains("sig="), "{text}");
    hub.stop().await;
}

#[tokio::test]
async fn an_id_nobody_registered_is_answered_too_and_posts_count_as_well() {
    let hub = TestHub::start().await;
    let device = hub.device("Pump").await;
    let stranger = unknown("pump", &device);
    refused(&hub, &stranger, &hub.token_for(&stranger, 60)).await;
    let mut rest = hub.rest();
    rest.token = Some(hub.token_for(&stranger, 60));
    let path = "/devices/pump/messages/events?api-version=2021-04-12";
    assert_eq!(rest.call("POST", path, Some(json!({}))).await.0, 401);
    let told = why(&hub, "pump").await;
    assert_eq!(told["registered"], false);
    let faces: Vec<_> = told["refusals"].as_array().unwrap().iter().map(|refusal| &refusal["face"]).collect();
    assert_eq!(faces, ["rest", "mqtt"]);
    assert_eq!(told["refusals"][0]["outcome"], "unknown_device");
    assert_eq!(why(&hub, "never-heard-of").await["refusals"], json!([]));
    hub.stop().await;
}

#[tokio::test]
async fn connections_are_told_with_their_beginning_end_and_reason_and_forgotten_with_the_identity() {
    let hub = TestHub::start().await;
    let device = hub.device("pump").await;
    hub.module("pump", "camera").await;
    let client = hub.connect(&device).await;
    let told = why(&hub, "pump").await;
    let open = &told["connections"][0];
    assert_eq!((&told["connected"], &open["disconnected"]), (&json!(true), &json!(null)));
    assert_eq!(open["method"], "SAS token");
    assert!(open["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{told}");
    assert!((3500..=3600).contains(&open["credentialSecondsLeft"].as_i64().unwrap()), "{told}");
    client.disconnect().await;
    until(|| hub.hub.sessions.is_empty()).await;
    let told = why(&hub, "pump").await;
    assert_eq!(told["connections"][0]["reason"], "client_disconnected");
    // A large fleet that comes and goes pushes out no refusal, and no connection of another.
    refused(&hub, &device, "no token").await;
    let other = hub.device("other").await;
    for _ in 0..20 {
        hub.connect(&other).await.disconnect().await;
    }
    let told = why(&hub, "pump").await;
    assert_eq!(
        (&told["connections"][0]["reason"], &told["refusalCount"]),
        (&json!("client_disconnected"), &json!(1))
    );
    assert_eq!(why(&hub, "pump/modules/camera").await["connections"], json!([]));
    hub.delete(&device).await;
    assert_eq!(why(&hub, "pump").await["connections"], json!([]));
    hub.stop().await;
}

#[tokio::test]
async fn the_command_line_says_it_in_words_with_what_to_do() {
    let hub = TestHub::start().await;
    let owner = Shell::new(env!("CARGO_BIN_EXE_portcullis"), &hub, "iothubowner");
    let device = hub.device("pump").await;
    let words = owner.print(&["why", "pump"]).await;
    assert!(
        words.contains("pump is registered and not connected") && words.contains("remembers no connection"),
        "{words}"
    );
    hub.connect(&device).await.disconnect().await;
    refused(&hub, &device, &hub.token_for(&device, -90)).await;
    refused(&hub, &device, &hub.token_for(&hub.device("other").await, 60)).await;
    let words = owner.print(&["why", "pump"]).await;
    let place = |text: &str| words.find(text).unwrap_or_else(|| panic!("no {text:?} in {words}"));
    assert!(place("localhost/devices/other") < place("expired 9"), "{words}");
    assert!(place("expired 9") < place("said goodbye"), "{words}");
    assert!(words.contains("hint: ") && words.contains("clock"), "{words}");
    let all = owner.json(&["why", "-d", "pump", "-o", "json"]).await;
    assert_eq!(all["refusals"][1]["outcome"], "sas_expired");
    let names = owner.print(&["why", "pump", "-o", "tsv", "--query", "refusals[].outcome"]).await;
    assert_eq!(names, "sas_wrong_audience\nsas_expired\n");
    let words = owner.print(&["why", "nobody", "--module-id", "m"]).await;
    assert!(words.contains("nobody/m is not registered"), "{words}");
    owner.refused(2, &["why"]).await;
    hub.stop().await;
}
