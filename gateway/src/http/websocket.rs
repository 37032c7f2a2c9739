//! The switch from HTTP to a WebSocket that carries MQTT, where IoT Hub's SDKs look for it.
//!
//! It agrees on the protocol and nothing else: who the peer is, its CONNECT will tell, so no token is asked for here.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tungstenite::handshake::derive_accept_key;

use crate::iothub::problem::Problem;

/// IoT Hub: whatever query follows is ignored, as `?iothub-no-client-cert=true`.
pub(super) const PATH: &str = "/$iothub/websocket";

/// Answers 101 to a WebSocket handshake (RFC 6455, 4.2) that offers MQTT.
pub(super) async fn switch(
    method: Method,
    version: Version,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asks = method == Method::GET
        && version == Version::HTTP_11
        && words(&headers, header::CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
        && words(&headers, header::UPGRADE).any(|word| word.eq_ignore_ascii_case("websocket"));
    if !asks {
        return Err(Problem::argument_invalid("this path takes WebSocket handshakes only"));
    }
    if !words(&headers, header::SEC_WEBSOCKET_VERSION).eq(["13"]) {
        return Err(Problem::argument_invalid("Sec-WebSocket-Version must be 13"));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if !BASE64_STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == NONCE_BYTES) {
        return Err(Problem::argument_invalid("Sec-WebSocket-Key must be 16 bytes in base64"));
    }
    // The C SDK offers `MQTT` and expects its own spelling back.
    let offered = words(&headers, header::SEC_WEBSOCKET_PROTOCOL)
        .find(|protocol| protocol.eq_ignore_ascii_case("mqtt"))
        .and_then(|protocol| HeaderValue::from_str(protocol).ok())
        .ok_or_else(|| Problem::argument_invalid("the subprotocol served here is mqtt"))?;
    let accept = HeaderValue::from_str(&derive_accept_key(key)).expect("base64 is a header value");

    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    answer.insert(header::SEC_WEBSOCKET_PROTOCOL, offered);
    Ok(response)
}

/// The words of a header that is a list, over all its lines.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim)
}

/// How long the nonce of a handshake is.
const NONCE_BYTES: usize = 16;
