//! The ways a client comes to the hub: by the MQTT port or over a WebSocket, with a certificate or without, through a
//! wide network or one that holds next to nothing.

use std::sync::Arc;

use tokio::net::TcpSocket;
use tokio_rustls::TlsConnector;

use super::x509::Shown;
use super::{RawClient, TestClient, TestHub, WebSocket, websocket_request, within};

/// How a client comes.
#[derive(Clone, Debug, Default)]
pub struct Transport {
    pub websocket: bool,
    pub shown: Option<Shown>,
    /// Whether the network holds so little that a client that does not read soon stops the hub's writes.
    pub narrow: bool,
}

impl TestHub {
    /// A client that has come this way and said nothing yet.
    pub async fn client(&self, transport: &Transport) -> TestClient {
        let socket = TcpSocket::new_v4().expect("a socket");
        if transport.narrow {
            socket.set_recv_buffer_size(NARROW_BYTES).expect("a TCP option");
        }
        let port = if transport.websocket { self.https } else { self.mqtt };
        let tcp = within(socket.connect(port)).await.expect("the port accepts");
        tcp.set_nodelay(true).expect("a TCP option");
        let config = match &transport.shown {
            Some(shown) => self.client_that_shows(shown, rustls::ALL_VERSIONS),
            None => Arc::clone(&self.client_tls),
        };
        let stream = within(TlsConnector::from(config).connect(self.server_name(), tcp)).await;
        let stream = stream.expect("the TLS handshake");
        if !transport.websocket {
            return TestClient::over(stream);
        }
        let mut client = RawClient { stream };
        client.send(websocket_request("/$iothub/websocket", "mqtt").as_bytes()).await;
        let head = client.http_head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        TestClient::over(WebSocket::client(client.stream, 1 << 20))
    }
}

impl TestClient {
    /// Sends bytes that need be no packet, to a hub that may have gone.
    pub async fn say(&mut self, bytes: &[u8]) {
        self.wire.send_raw(bytes);
        let _ = within(self.wire.flush()).await;
    }

    /// Everything the hub still says, until it closes the connection.
    pub async fn until_closed(&mut self) -> Vec<portcullis::mqtt::packet::Packet> {
        let mut heard = Vec::new();
        while let Some(packet) = self.packet_or_end().await {
            heard.push(packet);
        }
        heard
    }
}

/// What the kernel makes the least of.
const NARROW_BYTES: u32 = 2048;
