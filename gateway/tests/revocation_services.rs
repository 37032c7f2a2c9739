//! A policy's key regenerated or the policy deleted, against every state of the connections of services that rest on it
//! (threats P6, T604, T607).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::BytesMut;
use portcullis::hub::outcome::ConnectionOutcome;
use portcullis::mqtt::codec;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Packet, Password};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use portcullis_testing::transport::Transport;
use portcullis_testing::{TestClient, TestHub, until};
use serde_json::json;

const FLEET: &str = "/api/v1/policies/fleet";

/// What the connection is at when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    BeforeConnect,
    HalfConnect,
    Idle,
    /// A command was published and its PUBACK not waited for.
    Commanding,
    /// An event came and was not acknowledged.
    Receiving,
    /// Events come and nobody reads.
    NotReading,
}

const STATES: [At; 6] =
    [At::BeforeConnect, At::HalfConnect, At::Idle, At::Commanding, At::Receiving, At::NotReading];

fn bytes_of(connect: &Connect) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(&Packet::Connect(Box::new(connect.clone())), &mut bytes);
    bytes
}

/// The command that makes a device of this name.
fn creation(name: &str) -> String {
    format!("$admin/PUT/devices/{name}/?$rid=1")
}

async fn opened(hub: &TestHub, at: At, transport: &Transport, connect: &Connect) -> TestClient {
    let mut client = hub.client(transport).await;
    let bytes = bytes_of(connect);
    match at {
        At::BeforeConnect => return client,
        At::HalfConnect => {
            client.say(&bytes[..bytes.len() / 2]).await;
            return client;
        }
        At::Idle | At::Commanding | At::Receiving | At::NotReading => {}
    }
    let mut client = client.connect(connect.clone()).await.unwrap();
    if matches!(at, At::Receiving | At::NotReading) {
        assert_eq!(client.subscribe(&["devices/+/messages/events/#"]).await, [1]);
    }
    client
}

/// Connects services in every state by a policy, makes the change, and sees that none of them has a say any more.
async fn in_every_state(method: &str, path: &str) {
    let hub = TestHub::start().await;
    let rights = json!({ "rights": ["RegistryRead", "RegistryWrite", "ServiceConnect"] });
    let (_, policy) = hub.rest().call("PUT", FLEET, Some(rights)).await;
    let key = SymmetricKey::parse_base64(policy["primaryKey"].as_str().unwrap()).unwrap();
    let expiry = hub.hub.clock.wall().as_second() + 3600;
    let connect = Connect {
        client_id: "a service".into(),
        clean_session: true,
        keep_alive: 60,
        username: Some("localhost/?api-version=2021-04-12&policy=fleet".into()),
        password: Some(Password::from_bytes(sas::sign("localhost", &key, expiry, Some("fleet")).as_bytes())),
        will: None,
    };
    let mut services = Vec::new();
    for websocket in [false, true] {
        for at in STATES {
            let transport = Transport { websocket, narrow: at == At::NotReading, ..Transport::default() };
            let client = opened(&hub, at, &transport, &connect).await;
            services.push((at, transport, client));
        }
    }
    let device = hub.device("d1").await;
    let mut sender = hub.connect(&device).await;
    for _ in 0..20 {
        sender.publish_acknowledged("devices/d1/messages/events/", &[0; 60_000]).await;
    }
    for (at, transport, client) in &mut services {
        match at {
            At::Receiving => _ = client.message().await,
            At::Commanding => {
                _ = client.publish(&creation(&format!("in-time-{}", transport.websocket)), b"{}").await
            }
            At::BeforeConnect | At::HalfConnect | At::Idle | At::NotReading => {}
        }
    }
    let admitted = services.len() - 4;
    let body = Some(json!({ "key": "primary" })).filter(|_| method == "POST");
    let (status, answer) = hub.rest().call(method, path, body).await;
    assert!(status < 300, "{answer}");

    for (at, _, client) in &mut services {
        let bytes = bytes_of(&connect);
        match at {
            At::BeforeConnect => client.say(&bytes).await,
            At::HalfConnect => client.say(&bytes[bytes.len() / 2..]).await,
            At::Idle | At::Commanding | At::Receiving | At::NotReading => {
                let late = portcullis_testing::will(&creation("late"), "{}");
                client.say(&publish_bytes(&late)).await;
            }
        }
    }
    // They are gone, whether they read or not.
    until(|| hub.hub.metrics.disconnects(ConnectionOutcome::CredentialChanged) == admitted as u64).await;
    let refused = Packet::ConnAck { session_present: false, code: ConnectReturnCode::NotAuthorized };
    for (at, transport, client) in &mut services {
        let heard = client.until_closed().await;
        match at {
            At::BeforeConnect | At::HalfConnect => {
                assert_eq!(heard, std::slice::from_ref(&refused), "{at:?}")
            }
            At::Idle => assert_eq!(heard, [], "{at:?}"),
            // Done before, or not at all.
            At::Commanding => assert!(heard.is_empty() || heard == [Packet::PubAck(1)], "{heard:?}"),
            At::Receiving | At::NotReading => assert!(heard.len() <= 20, "{at:?}"),
        }
        let again = hub.client(transport).await.connect(connect.clone()).await;
        assert_eq!(again.err(), Some(ConnectReturnCode::NotAuthorized), "{at:?}");
    }
    let registered = hub.hub.registry.devices(10);
    assert!(registered.iter().all(|entry| entry.identity().id.device.as_str() != "late"), "{registered:?}");
    hub.stop().await;
}

fn publish_bytes(will: &portcullis::mqtt::packet::Will) -> BytesMut {
    let mut bytes = BytesMut::new();
    let publish = portcullis::mqtt::packet::Publish {
        dup: false,
        qos: will.qos,
        retain: false,
        topic: will.topic.clone(),
        packet_id: Some(9),
        payload: will.payload.clone(),
    };
    codec::encode(&Packet::Publish(publish), &mut bytes);
    bytes
}

#[tokio::test]
async fn t604_services_leave_when_the_key_of_their_policy_is_regenerated() {
    in_every_state("POST", &format!("{FLEET}/regenerate")).await;
}

#[tokio::test]
async fn t604_services_leave_when_their_policy_is_deleted() {
    in_every_state("DELETE", FLEET).await;
}
