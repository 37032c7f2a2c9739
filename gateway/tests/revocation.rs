//! What an operator takes away is gone at once: live connections, wills, and what would come later.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::Precondition;
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_testing::{RawClient, TestClient, TestHub, TestIdentity, until, will};
use serde_json::json;

fn events(identity: &TestIdentity) -> String {
    format!("{}/messages/events/", identity.topic())
}

/// A device with a will, connected.
async fn connected(hub: &TestHub, name: &str) -> (TestIdentity, TestClient) {
    let device = hub.device(name).await;
    let mut connect = hub.connect_packet(&device);
    connect.will = Some(will(&events(&device), "will"));
    let client = hub.connect_with(connect).await.unwrap();
    (device, client)
}

#[tokio::test]
async fn t603_t604_disable_delete_and_new_keys_close_the_connection_and_drop_the_will() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let (disabled, mut first) = connected(&hub, "disabled").await;
    let (deleted, mut second) = connected(&hub, "deleted").await;
    let (rekeyed, mut third) = connected(&hub, "rekeyed").await;
    let (switched, mut fourth) = connected(&hub, "switched").await;
    hub.disable(&disabled).await;
    hub.delete(&deleted).await;
    let new_keys = AuthenticationSpec::Sas {
        primary: Some(SymmetricKey::generate()),
        secondary: Some(SymmetricKey::generate()),
    };
    hub.change(&rekeyed, |spec| spec.authentication = new_keys).await;
    hub.change(&switched, |spec| spec.authentication = AuthenticationSpec::CertificateAuthority).await;
    for client in [&mut first, &mut second, &mut third, &mut fourth] {
        assert!(client.closed().await);
    }
    // The next event is a bystander's: no will came before it.
    let bystander = hub.device("bystander").await;
    hub.connect(&bystander).await.publish_acknowledged(&events(&bystander), b"alive").await;
    assert_eq!(service.take_message().await.payload, Bytes::from("alive"));
    for identity in [&disabled, &deleted, &rekeyed, &switched] {
        assert!(hub.connect_with(hub.connect_packet(identity)).await.is_err(), "{}", identity.id);
    }
    hub.stop().await;
}

#[tokio::test]
async fn t613_swapped_keys_leave_the_connection_alone() {
    let hub = TestHub::start().await;
    let (device, mut client) = connected(&hub, "swapped").await;
    let keys = device.keys.clone();
    let swapped = AuthenticationSpec::Sas { primary: Some(keys.secondary), secondary: Some(keys.primary) };
    hub.change(&device, |spec| spec.authentication = swapped).await;
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t614_a_disabled_device_takes_its_modules_down_and_a_deleted_module_only_itself() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let first = hub.module("d1", "m1").await;
    let second = hub.module("d1", "m2").await;
    let mut of_device = hub.connect(&device).await;
    let mut of_first = hub.connect(&first).await;
    let mut of_second = hub.connect(&second).await;
    hub.delete(&first).await;
    assert!(of_first.closed().await);
    of_device.settle().await;
    of_second.settle().await;
    hub.disable(&device).await;
    assert!(of_device.closed().await);
    assert!(of_second.closed().await);
    hub.stop().await;
}

#[tokio::test]
async fn t611_made_anew_an_id_has_an_empty_queue_and_no_session() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    hub.send(&device, "of the old generation").await;
    client.message().await;
    hub.delete(&device).await;
    assert!(client.closed().await);
    let again = hub.device("d1").await;
    let mut client = hub.connect(&again).await;
    assert!(!client.session_present);
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    client.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t605_disabled_and_enabled_again_the_device_must_prove_itself_and_keeps_its_queue() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    hub.disable(&device).await;
    assert!(client.closed().await);
    hub.change(&device, |_| {}).await;
    hub.send(&device, "kept").await;
    let mut stranger = device.clone();
    stranger.keys.primary = SymmetricKey::generate();
    assert!(hub.connect_with(hub.connect_packet(&stranger)).await.is_err());
    let mut client = hub.connect(&device).await;
    assert_eq!(client.take_message().await.payload, Bytes::from("kept"));
    hub.stop().await;
}

#[tokio::test]
async fn t317_a_connection_ends_with_its_token_and_its_messages_come_again() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let mut connect = hub.connect_packet(&device);
    connect.password =
        Some(portcullis::mqtt::packet::Password::from_bytes(hub.token_for(&device, 3).as_bytes()));
    let mut client = hub.connect_with(connect).await.unwrap();
    client.subscribe(&["devices/d1/messages/devicebound/#"]).await;
    hub.send(&device, "x").await;
    client.message().await;
    assert!(client.closed().await);
    assert!(hub.connect(&device).await.message().await.dup);
    hub.stop().await;
}

#[tokio::test]
async fn p6_a_change_while_a_connect_is_half_way_is_seen() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    for _ in 0..20 {
        // It is refused, closed unanswered when the change comes right before the answer, or closed after it.
        let (outcome, ()) = tokio::join!(hub.try_connect(&device), hub.disable(&device));
        if let Some(mut client) = outcome {
            assert!(client.closed().await, "a disabled device stays connected");
        }
        until(|| hub.hub.sessions.is_empty()).await;
        hub.change(&device, |_| {}).await;
    }
    let precondition = Precondition::AnyVersion;
    hub.hub.registry.delete(&device.id, precondition).await.unwrap();
    hub.stop().await;
}

/// A request whose caller is let in and whose body is yet to come.
async fn half_a_request(hub: &TestHub, method: &str, path: &str, token: &str, body: &str) -> RawClient {
    let mut client = hub.raw_https().await;
    let head = format!(
        "{method} {path}?api-version=2021-04-12 HTTP/1.1\r\nHost: localhost\r\nAuthorization: {token}\r\n\
         Expect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.send(head.as_bytes()).await;
    assert!(client.http_head().await.starts_with("HTTP/1.1 100 "));
    client
}

#[tokio::test]
async fn p6_a_request_whose_caller_is_revoked_before_its_body_is_there_does_nothing() {
    let hub = TestHub::start().await;
    let mut service = hub.events().await;
    let device = hub.device("d1").await;
    let token = hub.token_for(&device, 3600);
    let path = "/devices/d1/messages/events";
    let mut of_device = half_a_request(&hub, "POST", path, &token, "late").await;
    hub.disable(&device).await;
    of_device.send(b"late").await;
    assert!(of_device.http_head().await.starts_with("HTTP/1.1 401 "));

    let token = hub.policy_token("registryReadWrite");
    let mut of_policy = half_a_request(&hub, "PUT", "/devices/d2", &token, "{}").await;
    let regenerate = "/api/v1/policies/registryReadWrite/regenerate";
    assert_eq!(hub.rest().call("POST", regenerate, Some(json!({"key": "both"}))).await.0, 200);
    of_policy.send(b"{}").await;
    assert!(of_policy.http_head().await.starts_with("HTTP/1.1 401 "));
    assert_eq!(hub.hub.registry.counts().devices, 1);

    hub.change(&device, |_| {}).await;
    hub.connect(&device).await.publish_acknowledged(&events(&device), b"in time").await;
    assert_eq!(service.take_message().await.payload, Bytes::from("in time"));
    hub.stop().await;
}

#[tokio::test]
async fn t619_no_verdict_is_older_than_the_answer_to_the_write_that_changed_it() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    // Others' writes go on all the while.
    let writers = (0..8).map(|number| {
        let hub = &hub;
        async move {
            let other = hub.device(&format!("other-{number}")).await;
            for _ in 0..100 {
                hub.disable(&other).await;
                assert!(hub.try_connect(&other).await.is_none());
                hub.change(&other, |_| {}).await;
            }
        }
    });
    let switched = async {
        for _ in 0..50 {
            hub.disable(&device).await;
            assert!(hub.try_connect(&device).await.is_none(), "admitted after it was disabled");
            hub.change(&device, |_| {}).await;
            let mut client = hub.try_connect(&device).await.expect("refused after it was enabled");
            client.settle().await;
        }
    };
    tokio::join!(futures_util::future::join_all(writers), switched);
    hub.stop().await;
}
