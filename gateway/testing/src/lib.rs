//! A whole hub in the test process, over real TLS, and clients to talk to it: friendly ones and rude ones.
//!
//! Nothing here sleeps: every wait is for an event, under a limit that only a broken hub reaches. Each hub has its own
//! directory and its own ports.
//!
//! For who writes a test:
//! - End every hub with [`TestHub::stop`] (or `restart`). It fails the test when any thread logged a warning or an error
//!   that was not announced: call [`TestHub::announce`] with a part of each line the test provokes. A hub that is
//!   dropped instead fails the test too. [`log_check`] says how a line finds its test.
//! - A thread that the hub starts is started with `portcullis_registry::thread::start`, or its lines count against every
//!   test that runs at that moment.
//! - A test that needs a program from outside ([`tools`], [`azurite`], [`chromium`]) carries the attribute
//!   `#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]`. `gateway/tests/tidy.rs` looks for it. A package that
//!   has such tests names `offline.rs`, beside this crate's manifest, as its build script.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use portcullis_registry::credential::KeyPair;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::{Authentication, Identity, IdentitySpec, Status};
use portcullis_registry::message::NewC2d;
use portcullis_registry::sas;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use portcullis::config::{Config, ServeFlags};
use portcullis::hub::Hub;
use portcullis::iothub::user_name;
use portcullis::mqtt::codec::{self, PacketLimits, Side};
use portcullis::mqtt::packet::{
    Connect, ConnectReturnCode, Packet, Password, Publish, QoS, Subscribe, Unsubscribe, Utf8Bytes, Will,
};
use portcullis::mqtt::websocket::WebSocket;
use portcullis::mqtt::wire::{Wire, WireError};
use portcullis::serve;
use portcullis::tls;

pub mod azurite;
pub mod browser;
pub mod chromium;
pub mod hostile;
mod jobs;
pub mod log_check;
pub mod openssl;
pub mod shell;
pub mod tools;
pub mod transport;
pub mod x509;

use log_check::LogCheck;

/// A hub of its own for one test.
pub struct TestHub {
    pub hub: Arc<Hub>,
    pub mqtt: SocketAddr,
    pub https: SocketAddr,
    pub ops: SocketAddr,
    directory: TempDir,
    flags: ServeFlags,
    settings: Vec<(String, String)>,
    client_tls: Arc<ClientConfig>,
    log: LogCheck,
}

/// How a test's hub differs from the default one.
#[derive(Clone, Debug, Default)]
pub struct HubSettings {
    /// The host name; `localhost` if empty.
    pub hostname: String,
    /// Where MQTT is served; a free port on 127.0.0.1 if none is given.
    pub mqtt: Option<SocketAddr>,
    /// Where HTTPS is served; a free port on 127.0.0.1 if none is given.
    pub https: Option<SocketAddr>,
    /// Settings as environment variables would give them.
    pub environment: Vec<(String, String)>,
}

impl TestHub {
    /// A hub with the default configuration.
    pub async fn start() -> Self {
        Self::start_with(HubSettings::default()).await
    }

    /// A hub that differs from the default one in these limits.
    pub async fn start_with_limits(limits: &[(&str, &str)]) -> Self {
        let setting = |(name, value): &(&str, &str)| {
            (format!("PORTCULLIS__LIMITS__{}", name.to_uppercase()), (*value).to_owned())
        };
        let environment = limits.iter().map(setting).collect();
        Self::start_with(HubSettings { environment, ..HubSettings::default() }).await
    }

    /// A hub that differs from the default one.
    pub async fn start_with(settings: HubSettings) -> Self {
        let (directory, flags) = Self::place(&settings);
        Self::open(directory, flags, settings.environment).await
    }

    fn place(settings: &HubSettings) -> (TempDir, ServeFlags) {
        let directory = TempDir::new().expect("a temporary directory");
        let free = || "127.0.0.1:0".to_owned();
        let flags = ServeFlags {
            data_dir: Some(directory.path().join("data")),
            hostname: Some(settings.hostname.clone()).filter(|name| !name.is_empty()),
            mqtt_listen: vec![settings.mqtt.map_or_else(free, |address| address.to_string())],
            https_listen: vec![settings.https.map_or_else(free, |address| address.to_string())],
            ops_listen: vec![free()],
            ..ServeFlags::default()
        };
        (directory, flags)
    }

    async fn open(directory: TempDir, flags: ServeFlags, settings: Vec<(String, String)>) -> Self {
        let log = LogCheck::start();
        let is_set = |name: &&str| settings.iter().any(|(own, _)| own == name);
        let unlimited = UNLIMITED.into_iter().filter(|name| !is_set(name));
        let unlimited = unlimited.map(|name| (name.to_owned(), "0".to_owned()));
        let environment = settings.iter().cloned().chain(unlimited);
        let config = Config::load(&flags, environment).expect("the test's configuration");
        let ca = config.data_dir.join("ca.pem");
        let bound = serve::bind(config).await.expect("the hub starts");
        let client_tls = Arc::new(tls::client_config(Some(&ca)).expect("the hub's CA"));
        let address = |address: Option<SocketAddr>| address.expect("a bound listener");
        let (mqtt, https, ops) =
            (address(bound.mqtt_address()), address(bound.https_address()), address(bound.ops_address()));
        let hub = Arc::clone(&bound.hub);
        bound.accept();
        Self { hub, mqtt, https, ops, directory, flags, settings, client_tls, log }
    }

    /// Stops the hub; fails the test on any warning or error in its log that was not announced.
    pub async fn stop(self) {
        self.close().await;
    }

    /// Stops the hub and starts another one on the same data.
    pub async fn restart(self) -> Self {
        let (directory, flags, settings) = self.close().await;
        Self::open(directory, flags, settings).await
    }

    async fn close(self) -> (TempDir, ServeFlags, Vec<(String, String)>) {
        let Self { hub, directory, flags, settings, log, .. } = self;
        within(hub.stop()).await;
        drop(hub);
        log.check();
        (directory, flags, settings)
    }

    /// From now on this text may stand in a warning or error of this test.
    pub fn announce(&self, text: &str) {
        self.log.announce(text);
    }

    /// The PEM text of the CA clients must trust.
    pub fn ca_pem(&self) -> String {
        std::fs::read_to_string(self.hub.config.data_dir.join("ca.pem")).expect("the CA's file")
    }

    pub fn data_dir(&self) -> &std::path::Path {
        &self.hub.config.data_dir
    }

    /// Creates a device with generated keys.
    pub async fn device(&self, name: &str) -> TestIdentity {
        self.create(IdentityId::device(DeviceId::parse(name).expect("a device id"))).await
    }

    /// Creates a module with generated keys; its device must exist.
    pub async fn module(&self, device: &str, module: &str) -> TestIdentity {
        let device = DeviceId::parse(device).expect("a device id");
        self.create(IdentityId::module(device, ModuleId::parse(module).expect("a module id"))).await
    }

    async fn create(&self, id: IdentityId) -> TestIdentity {
        let created = self.hub.registry.create(IdentitySpec::sas_device(id), self.hub.clock.wall()).await;
        TestIdentity::new(&created.expect("the identity is new"))
    }

    /// Replaces a device by what `change` makes of it.
    pub async fn change(&self, identity: &TestIdentity, change: impl FnOnce(&mut IdentitySpec)) {
        let mut spec = IdentitySpec::sas_device(identity.id.clone());
        change(&mut spec);
        let replaced = self.hub.registry.replace(spec, Precondition::AnyVersion, self.hub.clock.wall()).await;
        replaced.expect("the identity is there");
    }

    pub async fn disable(&self, identity: &TestIdentity) {
        self.change(identity, |spec| spec.status = Status::Disabled).await;
    }

    pub async fn delete(&self, identity: &TestIdentity) {
        self.hub.registry.delete(&identity.id, Precondition::Absent).await.expect("the identity is there");
    }

    /// Sends a cloud-to-device message with nothing but a body.
    pub async fn send(&self, to: &TestIdentity, body: &str) {
        self.send_message(to, NewC2d { body: Bytes::copy_from_slice(body.as_bytes()), ..NewC2d::default() })
            .await;
    }

    pub async fn send_message(&self, to: &TestIdentity, message: NewC2d) {
        self.hub
            .registry
            .send(&to.id, message, self.hub.clock.wall())
            .await
            .expect("the message is accepted");
    }

    /// A SAS token of a policy, for the whole hub, good for an hour.
    pub fn policy_token(&self, policy: &str) -> String {
        let policies = self.hub.policies();
        let policy = policies.find(policy).expect("a built-in policy");
        let expiry = self.hub.clock.wall().as_second() + 3600;
        sas::sign(self.hub.hosts.primary(), &policy.keys.primary, expiry, Some(&policy.name))
    }

    /// A SAS token of an identity's primary key that ends `seconds` from now.
    pub fn token_for(&self, identity: &TestIdentity, seconds: i64) -> String {
        let expiry = self.hub.clock.wall().as_second() + seconds;
        sas::sign(&identity.resource(self.hub.hosts.primary()), &identity.keys.primary, expiry, None)
    }

    /// The CONNECT an SDK sends for this identity.
    pub fn connect_packet(&self, identity: &TestIdentity) -> Connect {
        Connect {
            client_id: identity.id.to_string(),
            clean_session: false,
            keep_alive: 60,
            username: Some(user_name::of_device(self.hub.hosts.primary(), &identity.id)),
            password: Some(Password::from_bytes(self.token_for(identity, 3600).as_bytes())),
            will: None,
        }
    }

    /// Connects an identity as the SDKs do, with a persistent session.
    pub async fn connect(&self, identity: &TestIdentity) -> TestClient {
        self.connect_with(self.connect_packet(identity)).await.expect("the device is admitted")
    }

    /// A client from an address of this machine, which has said nothing yet; nothing when the hub turns it away.
    pub async fn client_from(&self, address: SocketAddr) -> Option<TestClient> {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(address).expect("an address of this machine");
        let tcp = within(socket.connect(self.mqtt)).await.ok()?;
        tcp.set_nodelay(true).ok()?;
        let name = ServerName::try_from(self.hub.hosts.primary().to_owned()).expect("a host name");
        let connector = TlsConnector::from(Arc::clone(&self.client_tls));
        within(connector.connect(name, tcp)).await.ok().map(TestClient::over)
    }

    /// Connects with any CONNECT; a refusal is its code.
    pub async fn connect_with(&self, connect: Connect) -> Result<TestClient, ConnectReturnCode> {
        TestClient::over(self.tls_stream().await).connect(connect).await
    }

    /// Connects over a WebSocket with any CONNECT; a refusal is its code.
    pub async fn connect_websocket(&self, connect: Connect) -> Result<TestClient, ConnectReturnCode> {
        self.websocket().await.connect(connect).await
    }

    /// A client on a WebSocket that has said nothing yet.
    pub async fn websocket(&self) -> TestClient {
        let RawClient { stream } = self.raw_websocket().await;
        TestClient::over(WebSocket::client(stream, 1 << 20))
    }

    /// A connection that has switched to the WebSocket protocol and sent no frame yet.
    pub async fn raw_websocket(&self) -> RawClient {
        let mut client = self.raw_https().await;
        client.send(websocket_request("/$iothub/websocket", "mqtt").as_bytes()).await;
        let head = client.http_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        client
    }

    /// A TLS connection to the HTTPS port that has said nothing yet.
    pub async fn raw_https(&self) -> RawClient {
        let tcp = within(TcpStream::connect(self.https)).await.expect("the HTTPS port accepts");
        let name = ServerName::try_from(self.hub.hosts.primary().to_owned()).expect("a host name");
        let connector = TlsConnector::from(Arc::clone(&self.client_tls));
        RawClient { stream: within(connector.connect(name, tcp)).await.expect("the TLS handshake") }
    }

    /// Connects an identity; nothing when the hub closes without an answer, as it does to a connection that a newer
    /// one overtakes.
    pub async fn connect_in_a_race(&self, identity: &TestIdentity) -> Option<TestClient> {
        self.answer_to(identity).await.map(|answer| answer.expect("the device is admitted"))
    }

    /// Connects an identity that may be disabled or overtaken meanwhile: nothing when it is not admitted.
    pub async fn try_connect(&self, identity: &TestIdentity) -> Option<TestClient> {
        self.answer_to(identity).await.and_then(Result::ok)
    }

    /// Sends an identity's CONNECT; what it is answered, or nothing when the hub closes without an answer.
    pub async fn answer_to(&self, identity: &TestIdentity) -> Option<Result<TestClient, ConnectReturnCode>> {
        let mut client = TestClient::over(self.tls_stream().await);
        client.send_or_lose(Packet::Connect(Box::new(self.connect_packet(identity)))).await;
        match client.packet_or_end().await? {
            Packet::ConnAck { session_present, code: ConnectReturnCode::Accepted } => {
                Some(Ok(TestClient { session_present, ..client }))
            }
            Packet::ConnAck { code, .. } => Some(Err(code)),
            other => panic!("the answer to CONNECT was {other:?}"),
        }
    }

    /// A service connection that reads the telemetry of every device and module.
    pub async fn events(&self) -> TestClient {
        let mut client = self.connect_service("service").await.expect("the service is admitted");
        let codes =
            client.subscribe(&["devices/+/messages/events/#", "devices/+/modules/+/messages/events/#"]).await;
        assert_eq!(codes, [1, 1]);
        client
    }

    /// A service connection with a policy.
    pub async fn connect_service(&self, policy: &str) -> Result<TestClient, ConnectReturnCode> {
        self.connect_with(Connect {
            client_id: "a service".into(),
            clean_session: true,
            keep_alive: 60,
            username: Some(user_name::of_service(self.hub.hosts.primary(), policy)),
            password: Some(Password::from_bytes(self.policy_token(policy).as_bytes())),
            will: None,
        })
        .await
    }

    /// A TLS connection to the MQTT port that has said nothing yet.
    pub async fn raw(&self) -> RawClient {
        RawClient { stream: self.tls_stream().await }
    }

    /// A TCP connection to the MQTT port that has said nothing yet.
    pub async fn tcp(&self) -> TcpStream {
        let stream = within(TcpStream::connect(self.mqtt)).await.expect("the MQTT port accepts");
        // Small packets one behind the other would each wait for the other side's delayed acknowledgement.
        stream.set_nodelay(true).expect("a TCP option");
        stream
    }

    /// An HTTPS client that trusts this hub.
    pub fn rest(&self) -> RestClient {
        RestClient {
            http: reqwest::Client::builder()
                .tls_backend_preconfigured(ClientConfig::clone(&self.client_tls))
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .resolve(self.hub.hosts.primary(), self.https)
                .build()
                .expect("an HTTP client"),
            base: format!("https://{}:{}", self.hub.hosts.primary(), self.https.port()),
            token: Some(self.policy_token("iothubowner")),
        }
    }

    /// What the operations listener answers to a GET: status and text.
    pub async fn ops(&self, path: &str) -> (u16, String) {
        let response = within(self.rest().http.get(format!("http://{}{path}", self.ops)).send())
            .await
            .expect("an answer");
        (response.status().as_u16(), within(response.text()).await.expect("a text"))
    }

    async fn tls_stream(&self) -> TlsStream<TcpStream> {
        self.tls_to(self.hub.hosts.primary()).await.expect("the TLS handshake")
    }

    /// A TLS connection that expects the hub to be `name`, a host name or an address.
    pub async fn tls_to(&self, name: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(name.to_owned()).expect("a host name or an address");
        let connector = TlsConnector::from(Arc::clone(&self.client_tls));
        within(connector.connect(name, self.tcp().await)).await
    }
}

/// Every test's clients come from one address and some are refused often: only tests of these limits have them.
const UNLIMITED: [&str; 2] = [
    "PORTCULLIS__LIMITS__FAILED_LOGINS_PER_ADDRESS_PER_SECOND_MAX",
    "PORTCULLIS__LIMITS__FAILED_LOGINS_PER_IDENTITY_PER_SECOND_MAX",
];

/// A device or module a test has created.
#[derive(Clone, Debug)]
pub struct TestIdentity {
    pub id: IdentityId,
    pub keys: KeyPair,
}

impl TestIdentity {
    fn new(identity: &Identity) -> Self {
        let Authentication::Sas(keys) = &identity.authentication else {
            panic!("tests create SAS identities")
        };
        Self { id: identity.id.clone(), keys: keys.clone() }
    }

    /// What its tokens are for.
    pub fn resource(&self, host: &str) -> String {
        match &self.id.module {
            None => format!("{host}/devices/{}", self.id.device),
            Some(module) => format!("{host}/devices/{}/modules/{module}", self.id.device),
        }
    }

    /// Its own topic prefix, without a final slash.
    pub fn topic(&self) -> String {
        match &self.id.module {
            None => format!("devices/{}", self.id.device),
            Some(module) => format!("devices/{}/modules/{module}", self.id.device),
        }
    }
}

/// What a client speaks MQTT on.
trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Carrier for S {}

/// A well-behaved MQTT client.
pub struct TestClient {
    wire: Wire<Box<dyn Carrier>>,
    pub session_present: bool,
    next_packet_id: u16,
}

impl TestClient {
    fn over(stream: impl Carrier + 'static) -> Self {
        let wire = Wire::new(
            Box::new(stream) as Box<dyn Carrier>,
            PacketLimits::after_connect(1 << 20, 1 << 20),
            Side::Server,
        );
        Self { wire, session_present: false, next_packet_id: 0 }
    }

    /// Sends CONNECT and hears the answer.
    pub async fn connect(mut self, connect: Connect) -> Result<Self, ConnectReturnCode> {
        self.send(Packet::Connect(Box::new(connect))).await;
        match self.packet().await {
            Packet::ConnAck { session_present, code: ConnectReturnCode::Accepted } => {
                Ok(TestClient { session_present, ..self })
            }
            Packet::ConnAck { code, .. } => {
                assert!(self.closed().await, "a refused connection is closed");
                Err(code)
            }
            other => panic!("the answer to CONNECT was {other:?}"),
        }
    }

    /// Sends one packet.
    pub async fn send(&mut self, packet: Packet) {
        self.wire.send(&packet);
        within(self.wire.flush()).await.expect("the hub reads");
    }

    /// The next packet from the hub.
    pub async fn packet(&mut self) -> Packet {
        within(self.wire.read()).await.expect("a packet")
    }

    /// Subscribes at QoS 1; the codes of the SUBACK.
    pub async fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        let packet_id = self.packet_id();
        let filters = filters.iter().map(|filter| (text(filter), QoS::AtLeastOnce)).collect();
        self.send(Packet::Subscribe(Subscribe { packet_id, filters })).await;
        match self.packet().await {
            Packet::SubAck { packet_id: of, codes } if of == packet_id => codes,
            other => panic!("the answer to SUBSCRIBE was {other:?}"),
        }
    }

    /// Ends subscriptions.
    pub async fn unsubscribe(&mut self, filters: &[&str]) {
        let packet_id = self.packet_id();
        let filters = filters.iter().map(|filter| text(filter)).collect();
        self.send(Packet::Unsubscribe(Unsubscribe { packet_id, filters })).await;
        assert_eq!(self.packet().await, Packet::UnsubAck(packet_id));
    }

    /// Publishes at QoS 1 without waiting for the answer; its packet id.
    pub async fn publish(&mut self, topic: &str, payload: &[u8]) -> u16 {
        let packet_id = self.packet_id();
        self.send(Packet::Publish(Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: false,
            topic: text(topic),
            packet_id: Some(packet_id),
            payload: Bytes::copy_from_slice(payload),
        }))
        .await;
        packet_id
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub async fn publish_acknowledged(&mut self, topic: &str, payload: &[u8]) {
        let packet_id = self.publish(topic, payload).await;
        assert_eq!(self.packet().await, Packet::PubAck(packet_id));
    }

    /// The next message, not acknowledged.
    pub async fn message(&mut self) -> Publish {
        match self.packet().await {
            Packet::Publish(publish) => publish,
            other => panic!("instead of a message came {other:?}"),
        }
    }

    /// Acknowledges a message.
    pub async fn acknowledge(&mut self, publish: &Publish) {
        self.send(Packet::PubAck(publish.packet_id.expect("a QoS 1 message"))).await;
    }

    /// The next message, acknowledged.
    pub async fn take_message(&mut self) -> Publish {
        let publish = self.message().await;
        self.acknowledge(&publish).await;
        publish
    }

    /// Waits until everything sent so far has been dealt with.
    pub async fn settle(&mut self) {
        self.send(Packet::PingReq).await;
        assert_eq!(self.packet().await, Packet::PingResp);
    }

    /// Whether the hub ends the connection without another packet.
    pub async fn closed(&mut self) -> bool {
        matches!(within(self.wire.read()).await, Err(WireError::Closed | WireError::Io(_)))
    }

    /// Says goodbye and waits until the hub has gone too.
    pub async fn disconnect(mut self) {
        self.send(Packet::Disconnect).await;
        assert!(self.closed().await, "the hub closes after DISCONNECT");
    }
}

/// A client that says what no client should.
pub struct RawClient {
    stream: TlsStream<TcpStream>,
}

impl RawClient {
    /// Sends bytes; the hub may have gone already, which is no mistake here.
    pub async fn send(&mut self, bytes: &[u8]) {
        let _ = within(async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        })
        .await;
    }

    /// Sends bytes on the TCP connection below TLS.
    pub async fn send_beneath_tls(&mut self, bytes: &[u8]) {
        let _ = within(self.stream.get_mut().0.write_all(bytes)).await;
    }

    /// The head of the HTTP answer that comes next; what follows it is left.
    pub async fn http_head(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read(1).await);
        }
        String::from_utf8(head).expect("an HTTP head is text")
    }

    /// Sends a packet.
    pub async fn send_packet(&mut self, packet: &Packet) {
        let mut bytes = BytesMut::new();
        codec::encode(packet, &mut bytes);
        self.send(&bytes).await;
    }

    /// Everything the hub says until it closes the connection.
    pub async fn until_closed(&mut self) -> Vec<u8> {
        let mut heard = Vec::new();
        let mut part = [0; 4096];
        loop {
            match within(self.stream.read(&mut part)).await {
                Ok(0) | Err(_) => return heard,
                Ok(count) => heard.extend_from_slice(&part[..count]),
            }
        }
    }

    /// Exactly this many bytes of what the hub says.
    pub async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut heard = vec![0; count];
        within(self.stream.read_exact(&mut heard)).await.expect("the hub answers");
        heard
    }
}

/// An HTTPS client with a token.
#[derive(Clone, Debug)]
pub struct RestClient {
    http: reqwest::Client,
    base: String,
    pub token: Option<String>,
}

impl RestClient {
    /// A request to a path that ends in its query, with the token unless it was taken away.
    pub fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let request = self.http.request(method, format!("{}{path}", self.base));
        match &self.token {
            Some(token) => request.header("authorization", token),
            None => request,
        }
    }

    /// Sends a request with a JSON body, if any; status and body of the answer.
    pub async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<serde_json::Value>,
    ) -> (u16, serde_json::Value) {
        let request = self.request(method, path);
        let request = match body {
            Some(body) => request.json(&body),
            None => request,
        };
        let response = within(request.send()).await.expect("an answer");
        let status = response.status().as_u16();
        let bytes = within(response.bytes()).await.expect("a body");
        (status, serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null))
    }
}

/// Waits for `future`, but not for ever: a hub that never answers fails the test.
pub async fn within<F: Future>(future: F) -> F::Output {
    let patience = Duration::from_secs(60);
    tokio::time::timeout(patience, future)
        .await
        .unwrap_or_else(|_| panic!("nothing happened for {patience:?}"))
}

/// Waits until `holds` does, for what has no event of its own.
pub async fn until(holds: impl Fn() -> bool) {
    within(async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// The handshake of a WebSocket that offers these subprotocols.
pub fn websocket_request(path: &str, subprotocols: &str) -> String {
    let offer = match subprotocols {
        "" => String::new(),
        offered => format!("Sec-WebSocket-Protocol: {offered}\r\n"),
    };
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{offer}\r\n"
    )
}

/// A will on a topic.
pub fn will(topic: &str, payload: &str) -> Will {
    Will {
        topic: text(topic),
        payload: Bytes::copy_from_slice(payload.as_bytes()),
        qos: QoS::AtLeastOnce,
        retain: false,
    }
}

fn text(text: &str) -> Utf8Bytes {
    Utf8Bytes::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a text of MQTT")
}

impl TestClient {
    fn packet_id(&mut self) -> u16 {
        self.next_packet_id = self.next_packet_id.checked_add(1).unwrap_or(1);
        self.next_packet_id
    }
}

impl TestClient {
    /// Sends a packet to a hub that may have gone.
    pub async fn send_or_lose(&mut self, packet: Packet) {
        self.wire.send(&packet);
        let _ = within(self.wire.flush()).await;
    }

    /// The next packet, or nothing when the hub has gone.
    pub async fn packet_or_end(&mut self) -> Option<Packet> {
        within(self.wire.read()).await.ok()
    }
}
