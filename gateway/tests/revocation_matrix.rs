//! Every way a device's or module's right is taken away, against every state its connection can be in: it is closed, no
//! will is sent, nothing it says later counts, it does not come back in, and its queue is there for whoever may
//! (threats P6, T603, T604, T606, T607).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashSet;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use portcullis::mqtt::codec;
use portcullis::mqtt::packet::{Connect, ConnectReturnCode, Packet, Password, Publish};
use portcullis_certs::testing::TestCa;
use portcullis_registry::credential::{KeyPair, SymmetricKey};
use portcullis_registry::identity::AuthenticationSpec;
use portcullis_registry::message::NewC2d;
use portcullis_registry::sas;
use portcullis_testing::transport::Transport;
use portcullis_testing::x509::{Shown, identity, thumbprints};
use portcullis_testing::{TestClient, TestHub, TestIdentity, until, will};
use serde_json::{Value, json};

/// What the operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Revocation {
    Disabled,
    Deleted,
    ParentDisabled,
    ParentDeleted,
    KeyRegenerated,
    TypeSwitched,
    ThumbprintReplaced,
    AuthorityRemoved,
    PolicyKeyRegenerated,
    PolicyDeleted,
    /// It may still receive, and not send any more, neither telemetry nor a will.
    AccessNarrowed,
}

/// What the connection is at when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// TLS is up, nothing was said.
    BeforeConnect,
    /// Half of CONNECT was sent.
    HalfConnect,
    Idle,
    /// A PUBLISH was sent and its PUBACK not waited for.
    Publishing,
    /// A message came and was not acknowledged.
    Receiving,
    /// Messages come and nobody reads.
    NotReading,
}

const STATES: [At; 6] =
    [At::BeforeConnect, At::HalfConnect, At::Idle, At::Publishing, At::Receiving, At::NotReading];
/// More than a window.
const MESSAGES_UNREAD: usize = 20;

/// One connection and who it is.
struct Peer {
    id: String,
    at: At,
    transport: Transport,
    password: Option<Password>,
    client: TestClient,
}

impl Revocation {
    /// Whether it takes away a device's right, or a module's.
    fn concerns(self, is_module: bool) -> bool {
        match self {
            // A module has no status of its own.
            Revocation::Disabled => !is_module,
            Revocation::ParentDisabled | Revocation::ParentDeleted => is_module,
            _ => true,
        }
    }

    /// Whether one act concerns everybody.
    fn is_of_the_hub(self) -> bool {
        use Revocation::*;
        matches!(self, AuthorityRemoved | PolicyKeyRegenerated | PolicyDeleted)
    }

    fn keeps_the_queue(self) -> bool {
        !matches!(self, Revocation::Deleted | Revocation::ParentDeleted)
    }
}

/// What identities may rest on, besides their own keys.
struct Ground {
    hub: TestHub,
    ca: TestCa,
    policy_key: SymmetricKey,
}

impl Ground {
    async fn new() -> Self {
        let hub = TestHub::start().await;
        let ca = TestCa::root("fleet");
        hub.enrol("fleet", &ca).await;
        let rights = json!({ "rights": ["DeviceConnect"] });
        let (status, policy) = hub.rest().call("PUT", "/api/v1/policies/fleet", Some(rights)).await;
        assert_eq!(status, 200, "{policy}");
        let policy_key = SymmetricKey::parse_base64(policy["primaryKey"].as_str().unwrap()).unwrap();
        Self { hub, ca, policy_key }
    }

    /// A new identity that proves itself by what is to be revoked: its password or its certificate.
    async fn register(&self, revocation: Revocation, id: &str) -> (Option<Password>, Option<Shown>) {
        let hub = &self.hub;
        let own = match id.split_once('/') {
            None => hub.device(id).await,
            Some((device, module)) => {
                hub.device(device).await;
                hub.module(device, module).await
            }
        };
        let password = |token: String| Some(Password::from_bytes(token.as_bytes()));
        match revocation {
            Revocation::Disabled
            | Revocation::Deleted
            | Revocation::ParentDisabled
            | Revocation::ParentDeleted
            | Revocation::KeyRegenerated
            | Revocation::TypeSwitched
            | Revocation::AccessNarrowed => (password(hub.token_for(&own, 3600)), None),
            Revocation::PolicyKeyRegenerated | Revocation::PolicyDeleted => {
                let expiry = hub.hub.clock.wall().as_second() + 3600;
                (password(sas::sign("localhost", &self.policy_key, expiry, Some("fleet"))), None)
            }
            Revocation::ThumbprintReplaced => {
                let shown = Shown::alone(&TestCa::self_signed_device(id));
                hub.register(id, thumbprints(Some(shown.certificate()), None)).await;
                (None, Some(shown))
            }
            Revocation::AuthorityRemoved => {
                hub.register(id, AuthenticationSpec::CertificateAuthority).await;
                (None, Some(Shown::alone(&self.ca.device(id))))
            }
        }
    }

    /// A connection in the state, of an identity of its own.
    async fn connect(&self, revocation: Revocation, id: &str, at: At, websocket: bool) -> Peer {
        let (password, shown) = self.register(revocation, id).await;
        let transport = Transport { websocket, shown, narrow: at == At::NotReading };
        let client = self.hub.client(&transport).await;
        let mut peer = Peer { id: id.to_owned(), at, transport, password, client };
        let connect = peer.connect_packet(&self.hub);
        match at {
            At::BeforeConnect => return peer,
            At::HalfConnect => {
                let bytes = bytes_of(connect);
                peer.client.say(&bytes[..bytes.len() / 2]).await;
                return peer;
            }
            At::Idle | At::Publishing | At::Receiving | At::NotReading => {}
        }
        peer.client = peer.client.connect(connect).await.unwrap();
        let waiting = match at {
            At::Receiving => 1,
            At::NotReading => MESSAGES_UNREAD,
            At::BeforeConnect | At::HalfConnect | At::Idle | At::Publishing => return peer,
        };
        peer.client.subscribe(&[&format!("{}/messages/devicebound/#", peer.topic())]).await;
        for number in 0..waiting {
            let body = Bytes::from(vec![u8::try_from(number).unwrap(); 60_000]);
            let message = NewC2d { body, ..NewC2d::default() };
            let now = self.hub.hub.clock.wall();
            self.hub.hub.registry.send(&identity(id), message, now).await.unwrap();
        }
        if at == At::Receiving {
            peer.client.message().await;
        } else {
            let entry = self.hub.hub.registry.entry(&identity(id)).unwrap();
            until(|| entry.peek(1)[0].is_held).await;
        }
        peer
    }

    /// Takes the right away, as an operator does over REST.
    async fn revoke(&self, revocation: Revocation, id: &str) {
        let (device, module) =
            id.split_once('/').map_or((id, None), |(device, module)| (device, Some(module)));
        let device = format!("/devices/{device}");
        let own = module.map_or_else(|| device.clone(), |module| format!("{device}/modules/{module}"));
        let key = || SymmetricKey::generate().to_base64().as_str().to_owned();
        let keys = || json!({ "symmetricKey": { "primaryKey": key(), "secondaryKey": key() } });
        let other = Shown::alone(&TestCa::self_signed_device("other"));
        let other = portcullis_certs::thumbprint::Sha256Thumbprint::of(other.certificate()).to_string();
        let (method, path, body) = match revocation {
            Revocation::Disabled => ("PUT", own, json!({ "status": "disabled" })),
            Revocation::Deleted => ("DELETE", own, Value::Null),
            Revocation::ParentDisabled => ("PUT", device, json!({ "status": "disabled" })),
            Revocation::ParentDeleted => ("DELETE", device, Value::Null),
            Revocation::KeyRegenerated => ("PUT", own, json!({ "authentication": keys() })),
            Revocation::TypeSwitched => {
                ("PUT", own, json!({ "authentication": { "type": "certificateAuthority" } }))
            }
            Revocation::ThumbprintReplaced => {
                let thumbprint = json!({ "primaryThumbprint": other });
                let authentication = json!({ "type": "selfSigned", "x509Thumbprint": thumbprint });
                ("PUT", own, json!({ "authentication": authentication }))
            }
            Revocation::AuthorityRemoved => {
                ("DELETE", "/api/v1/certificate-authorities/fleet".into(), Value::Null)
            }
            Revocation::PolicyKeyRegenerated => {
                ("POST", "/api/v1/policies/fleet/regenerate".into(), json!({ "key": "primary" }))
            }
            Revocation::PolicyDeleted => ("DELETE", "/api/v1/policies/fleet".into(), Value::Null),
            Revocation::AccessNarrowed => ("PUT", own, json!({ "access": { "allow": ["c2d"] } })),
        };
        let request = self.hub.rest().request(method, &format!("{path}?api-version=2021-04-12"));
        let request = request.header("if-match", "*").json(&body);
        let answer = request.send().await.unwrap();
        assert!(answer.status().is_success(), "{revocation:?} {id}: {}", answer.text().await.unwrap());
    }

    /// Gives the identity keys of its own, and whatever it rests on its right back.
    async fn readmit(&self, id: &str) -> TestClient {
        let keys = KeyPair::generate();
        let KeyPair { primary, secondary } = keys.clone();
        if let Some((device, _)) = id.split_once('/') {
            self.hub.register(device, AuthenticationSpec::Sas { primary: None, secondary: None }).await;
        }
        let own = AuthenticationSpec::Sas { primary: Some(primary), secondary: Some(secondary) };
        self.hub.register(id, own).await;
        self.hub.connect(&TestIdentity { id: identity(id), keys }).await
    }
}

impl Peer {
    fn topic(&self) -> String {
        format!("devices/{}", self.id.replace('/', "/modules/"))
    }

    fn events(&self) -> String {
        format!("{}/messages/events/", self.topic())
    }

    fn connect_packet(&self, hub: &TestHub) -> Connect {
        let will = Some(will(&self.events(), "will"));
        Connect { password: self.password.clone(), will, ..hub.connect_packet_of(&self.id) }
    }

    /// What is still on its way when the right is taken.
    async fn begin(&mut self) {
        if self.at == At::Publishing {
            self.client.publish(&self.events(), self.id.as_bytes()).await;
        }
    }

    /// Goes on as if nothing had happened; whether what it had begun to publish was acknowledged.
    async fn go_on(&mut self, hub: &TestHub) -> bool {
        let connect = self.connect_packet(hub);
        let bytes = bytes_of(connect);
        match self.at {
            At::BeforeConnect => self.client.say(&bytes).await,
            At::HalfConnect => self.client.say(&bytes[bytes.len() / 2..]).await,
            At::Idle | At::Publishing | At::Receiving | At::NotReading => {
                // Its first message has the packet id 1.
                self.client.send_or_lose(Packet::PubAck(1)).await;
                self.client.send_or_lose(late(&self.events())).await;
                // Gone, whether its peer reads or not.
                until(|| hub.hub.sessions.session(&identity(&self.id)).is_none()).await;
            }
        }
        let heard = self.client.until_closed().await;
        let refused = Packet::ConnAck { session_present: false, code: ConnectReturnCode::NotAuthorized };
        match self.at {
            At::BeforeConnect | At::HalfConnect => assert_eq!(heard, [refused], "{}", self.id),
            At::Idle | At::Receiving => assert_eq!(heard, [], "{}", self.id),
            At::Publishing => assert!(heard.is_empty() || heard == [Packet::PubAck(1)], "{heard:?}"),
            At::NotReading => assert!(heard.len() < MESSAGES_UNREAD, "all of it was sent: {}", self.id),
        }
        self.at == At::Publishing && !heard.is_empty()
    }
}

fn bytes_of(connect: Connect) -> BytesMut {
    let mut bytes = BytesMut::new();
    codec::encode(&Packet::Connect(Box::new(connect)), &mut bytes);
    bytes
}

/// A message that must not count.
fn late(topic: &str) -> Packet {
    let will = will(topic, "late");
    let (topic, payload, qos) = (will.topic, will.payload, will.qos);
    Packet::Publish(Publish { dup: false, qos, retain: false, topic, packet_id: Some(7), payload })
}

async fn in_every_state(revocation: Revocation) {
    let ground = Ground::new().await;
    let mut service = ground.hub.events().await;
    let bystander = ground.hub.device("bystander").await;
    let mut peers = Vec::new();
    for (transport, websocket) in [("port", false), ("websocket", true)] {
        for at in STATES {
            for (id, is_module) in
                [(format!("{transport}-{at:?}"), false), (format!("of-{transport}-{at:?}/m"), true)]
            {
                if revocation.concerns(is_module) {
                    peers.push(ground.connect(revocation, &id, at, websocket).await);
                }
            }
        }
    }
    let mut acknowledged = HashSet::new();
    if revocation.is_of_the_hub() {
        for peer in &mut peers {
            peer.begin().await;
        }
        ground.revoke(revocation, "").await;
    }
    for peer in &mut peers {
        if !revocation.is_of_the_hub() {
            peer.begin().await;
            ground.revoke(revocation, &peer.id).await;
        }
        if peer.go_on(&ground.hub).await {
            acknowledged.insert(peer.id.clone());
        }
        let again = ground.hub.client(&peer.transport).await.connect(peer.connect_packet(&ground.hub)).await;
        assert_eq!(again.err(), Some(ConnectReturnCode::NotAuthorized), "{}", peer.id);
    }
    for peer in &peers {
        check_queue(&ground, revocation, peer).await;
    }

    // What counted is what was begun before, whole; an acknowledged one certainly did.
    let last = format!("devices/{}/messages/events/", bystander.id);
    ground.hub.connect(&bystander).await.publish_acknowledged(&last, b"last").await;
    let mut counted = HashSet::new();
    loop {
        let event = service.take_message().await;
        if event.payload == "last" {
            break;
        }
        let id = String::from_utf8(event.payload.to_vec()).unwrap();
        assert!(id.contains("Publishing") && counted.insert(id), "{event:?}");
    }
    assert!(acknowledged.is_subset(&counted), "{acknowledged:?} are not all in {counted:?}");
    let hub = Arc::clone(&ground.hub.hub);
    ground.hub.stop().await;
    let told = format!("portcullis_messages_received_total {}\n", counted.len() + 1);
    assert!(hub.metrics.to_text().contains(&told), "a will or a late message was taken at the end");
}

/// What was not acknowledged in time waits for whoever may have it, if the identity is still the same.
async fn check_queue(ground: &Ground, revocation: Revocation, peer: &Peer) {
    let waiting = match peer.at {
        At::Receiving => 1,
        At::NotReading => MESSAGES_UNREAD,
        At::BeforeConnect | At::HalfConnect | At::Idle | At::Publishing => return,
    };
    let mut client = ground.readmit(&peer.id).await;
    assert_eq!(client.session_present, revocation.keeps_the_queue(), "{}", peer.id);
    if revocation.keeps_the_queue() {
        for number in 0..waiting {
            let again = client.take_message().await;
            assert_eq!(usize::from(again.payload[0]), number, "{}", peer.id);
            assert!(again.dup || number > 0, "{} hears of a repeat", peer.id);
        }
    }
    client.settle().await;
    client.disconnect().await;
}

#[tokio::test]
async fn t604_a_device_is_disabled() {
    in_every_state(Revocation::Disabled).await;
}

#[tokio::test]
async fn t604_an_identity_is_deleted() {
    in_every_state(Revocation::Deleted).await;
}

#[tokio::test]
async fn t604_t614_a_modules_device_is_disabled() {
    in_every_state(Revocation::ParentDisabled).await;
}

#[tokio::test]
async fn t604_t614_a_modules_device_is_deleted() {
    in_every_state(Revocation::ParentDeleted).await;
}

#[tokio::test]
async fn t604_the_key_in_use_is_regenerated() {
    in_every_state(Revocation::KeyRegenerated).await;
}

#[tokio::test]
async fn t604_an_identity_is_given_another_type() {
    in_every_state(Revocation::TypeSwitched).await;
}

#[tokio::test]
async fn t604_t414_the_thumbprint_is_replaced() {
    in_every_state(Revocation::ThumbprintReplaced).await;
}

#[tokio::test]
async fn t604_t408_the_ca_is_removed() {
    in_every_state(Revocation::AuthorityRemoved).await;
}

#[tokio::test]
async fn t604_the_key_of_the_policy_is_regenerated() {
    in_every_state(Revocation::PolicyKeyRegenerated).await;
}

#[tokio::test]
async fn t604_the_policy_is_deleted() {
    in_every_state(Revocation::PolicyDeleted).await;
}

#[tokio::test]
async fn t604_access_is_narrowed() {
    in_every_state(Revocation::AccessNarrowed).await;
}
