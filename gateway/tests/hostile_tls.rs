//! Peers that never become devices: silent, slow, plain-text, old or broken TLS (threats T1xx).

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use portcullis_testing::{HubSettings, TestHub, until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn settings(pairs: &[(&str, &str)]) -> HubSettings {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HubSettings { environment, ..HubSettings::default() }
}

/// Everything a peer hears until the hub closes the connection.
async fn until_closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    let _ = within(stream.read_to_end(&mut heard)).await;
    heard
}

/// Waits until nobody stands at the door any more.
async fn until_empty(hub: &TestHub) {
    until(|| hub.hub.admission.anonymous() == 0).await;
}

#[tokio::test]
async fn t101_silence_is_closed_at_the_mark() {
    let short =
        [("PORTCULLIS__LIMITS__HANDSHAKE_TIME_MAX", "1s"), ("PORTCULLIS__LIMITS__CONNECT_TIME_MAX", "2s")];
    let hub = TestHub::start_with(settings(&short)).await;
    // Nothing at all.
    let mut silent = hub.tcp().await;
    // A ClientHello that never ends.
    let mut slow = hub.tcp().await;
    slow.write_all(&[0x16, 0x03, 0x01, 0x02]).await.unwrap();
    // TLS, and then nothing.
    let mut secured = hub.raw().await;
    // TLS, and a CONNECT that never ends.
    let mut half = hub.raw().await;
    half.send(&[0x10, 0x20, 0x00, 0x04, b'M']).await;
    assert!(until_closed(&mut silent).await.is_empty());
    until_closed(&mut slow).await;
    assert!(secured.until_closed().await.is_empty());
    assert!(half.until_closed().await.is_empty());
    until_empty(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn t102_above_the_cap_connections_are_closed_on_accept_and_known_devices_stay() {
    let hub = TestHub::start_with(settings(&[("PORTCULLIS__LIMITS__ANONYMOUS_PER_ADDRESS_MAX", "8")])).await;
    let device = hub.device("d1").await;
    let mut client = hub.connect(&device).await;
    let mut crowd = Vec::new();
    for _ in 0..8 {
        crowd.push(hub.tcp().await);
    }
    until(|| hub.hub.admission.anonymous() == 8).await;
    let mut surplus = hub.tcp().await;
    assert!(until_closed(&mut surplus).await.is_empty());
    client.settle().await;
    assert_eq!(hub.hub.metrics.turned_away.get(), 1);
    drop(crowd);
    until_empty(&hub).await;
    client.disconnect().await;
    hub.connect(&device).await.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t103_what_is_not_tls_is_closed_and_nothing_is_echoed() {
    let hub = TestHub::start().await;
    let openings: [&[u8]; 5] = [
        b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04evil",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        &[0xff; 300],
    ];
    for opening in openings {
        let mut stream = hub.tcp().await;
        stream.write_all(opening).await.unwrap();
        let heard = until_closed(&mut stream).await;
        // A TLS alert at most (record type 21).
        assert!(heard.is_empty() || heard[0] == 21, "{heard:?}");
        assert!(!heard.windows(4).any(|part| opening.windows(4).any(|sent| sent == part)), "{heard:?}");
    }
    until_empty(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn t112_a_connection_cut_anywhere_in_the_handshake_leaves_nothing_behind() {
    let hub = TestHub::start().await;
    // A real ClientHello, cut at every 16th byte.
    let hello = client_hello();
    for end in (0..hello.len()).step_by(16) {
        let mut stream = hub.tcp().await;
        let _ = stream.write_all(&hello[..end]).await;
    }
    until_empty(&hub).await;
    assert_eq!(hub.hub.sessions.len(), 0);
    let device = hub.device("d1").await;
    hub.connect(&device).await.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t109_a_client_hello_in_single_bytes_works() {
    let hub = TestHub::start().await;
    let hello = client_hello();
    let mut stream = hub.tcp().await;
    stream.set_nodelay(true).unwrap();
    for byte in hello {
        stream.write_all(&[byte]).await.unwrap();
    }
    let mut answer = [0; 6];
    within(stream.read_exact(&mut answer)).await.unwrap();
    // A handshake record with a ServerHello in it.
    assert_eq!((answer[0], answer[5]), (22, 2));
    hub.stop().await;
}

#[tokio::test]
async fn t110_an_oversized_record_is_refused() {
    let hub = TestHub::start().await;
    let mut stream = hub.tcp().await;
    let mut record = vec![0x16, 0x03, 0x01, 0xff, 0xff];
    record.resize(70_000, 0x41);
    let _ = stream.write_all(&record).await;
    let heard = until_closed(&mut stream).await;
    assert!(heard.len() <= 7, "{heard:?}");
    until_empty(&hub).await;
    hub.stop().await;
}

#[tokio::test]
async fn t106_a_missing_or_unknown_server_name_gets_the_default_certificate() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    // The test client checks the certificate; by address it sends no server name.
    hub.connect(&device).await.settle().await;
    let by_address = hub.tls_to("127.0.0.1").await;
    assert!(by_address.is_ok());
    hub.stop().await;
}

#[tokio::test]
async fn t116_bytes_beneath_tls_end_the_connection() {
    let hub = TestHub::start().await;
    let device = hub.device("d1").await;
    let records: [&[u8]; 3] = [
        // Application data with a tag that does not fit.
        &[
            0x17, 3, 3, 0, 24, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
            23, 24,
        ],
        // A handshake message in the clear.
        &[0x16, 3, 3, 0, 4, 1, 0, 0, 0],
        // No record at all.
        &[0xff; 16],
    ];
    for record in records {
        let mut client = hub.raw().await;
        client.send_beneath_tls(record).await;
        assert!(client.until_closed().await.is_empty());
    }
    until_empty(&hub).await;
    hub.connect(&device).await.settle().await;
    hub.stop().await;
}

#[tokio::test]
async fn t112_connections_that_break_during_a_session_leave_nothing_behind() {
    let hub = TestHub::start().await;
    for number in 0..20 {
        let device = hub.device(&format!("d{number}")).await;
        let mut client = hub.connect(&device).await;
        client.publish(&format!("devices/d{number}/messages/events/"), b"x").await;
        drop(client);
    }
    until(|| hub.hub.sessions.is_empty() && hub.hub.metrics.connections.get() == 0).await;
    hub.stop().await;
}

/// A ClientHello of rustls for `localhost`.
fn client_hello() -> Vec<u8> {
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let mut connection =
        rustls::ClientConnection::new(config.into(), "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    connection.write_tls(&mut hello).unwrap();
    hello
}
