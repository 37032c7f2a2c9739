//! Commands over MQTT: a publication is made a REST request, goes through the very routes REST goes through, and its
//! answer is made a publication again. So no operation, right or error exists twice.
//!
//! A leaf, as `http` is: it knows the routes it was given and decides nothing. Query parameters that REST has as headers
//! become headers (`If-Match`, `x-ms-…`, `iothub-…`, `Content-Type`, `Content-Encoding`), so that a topic can say all a
//! request can. Who asks was proven at CONNECT, and is held against the policies anew at each command.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Request, Response};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::json;
use tower_service::Service;

use crate::auth::VerifiedService;
use crate::iothub::api_version;
use crate::iothub::error_code::ErrorCode;
use crate::iothub::message_properties::header as names;
use crate::mqtt::session::core::Command;

/// The routes commands go through.
#[derive(Clone, Debug)]
pub struct Commands(Router);

/// What becomes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReply {
    pub status: u16,
    /// What of the answer's head goes into the topic.
    pub head: Vec<(&'static str, String)>,
    pub body: Bytes,
}

impl Commands {
    pub fn new(routes: Router) -> Self {
        Self(routes)
    }

    /// Does what `command` asks, on behalf of `caller`. Always answers; errors are REST's.
    pub async fn execute(&self, caller: VerifiedService, command: Command) -> CommandReply {
        let Some(request) = request(caller, command) else {
            return refusal(ErrorCode::ArgumentInvalid, "no request can be made of this topic");
        };
        let mut routes = self.0.clone();
        match routes.call(request).await {
            Ok(response) => answer(response).await,
            Err(never) => match never {},
        }
    }
}

/// The REST request a command stands for; nothing when no request can be made of it.
fn request(caller: VerifiedService, command: Command) -> Option<Request<Body>> {
    let mut query = String::new();
    let mut request = Request::builder().method(command.method.as_str());
    for parameter in command.query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name == "$rid" {
            continue;
        }
        match header_of(name) {
            Some(name) => {
                let value = percent_decode_str(value).collect::<Vec<u8>>();
                request = request.header(name, HeaderValue::from_bytes(&value).ok()?);
            }
            None => {
                query.push_str(parameter);
                query.push('&');
            }
        }
    }
    if api_version::in_query(&query).next().is_none() {
        query.push_str(&format!("{}={}", api_version::PARAMETER, api_version::DEFAULT));
    }
    let uri = format!("/{}?{}", command.path, query.trim_end_matches('&'));
    request.uri(uri).extension(caller).body(Body::from(command.body)).ok()
}

/// The header a query parameter stands for, if REST has it as one.
fn header_of(name: &str) -> Option<HeaderName> {
    let name = name.to_ascii_lowercase();
    let is_header = ["if-match", "content-type", "content-encoding"].contains(&name.as_str())
        || name.starts_with("x-ms-")
        || name.starts_with("iothub-");
    if is_header { HeaderName::from_bytes(name.as_bytes()).ok() } else { None }
}

async fn answer(response: Response<Body>) -> CommandReply {
    let (parts, body) = response.into_parts();
    let told = |name: &&'static str| {
        let value = parts.headers.get(*name)?.to_str().ok()?;
        Some((*name, value.trim_matches('"').to_owned()))
    };
    let head = HEAD.iter().filter_map(told).collect();
    let status = parts.status;
    match to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => CommandReply { status: status.as_u16(), head, body },
        Err(_) => refusal(ErrorCode::ServerError, "the answer is too long for a message"),
    }
}

/// An error in the shape REST has it, for where no request or no answer can be made.
fn refusal(code: ErrorCode, text: &str) -> CommandReply {
    let body = json!({ "Message": code.message(text), "ExceptionMessage": "" });
    CommandReply { status: code.status().as_u16(), head: Vec::new(), body: body.to_string().into() }
}

/// The headers of an answer that go into its topic, under their own names.
const HEAD: [&str; 5] = ["etag", "x-ms-continuation", "x-ms-item-type", names::ERROR_CODE, names::MESSAGE_ID];
/// More than a page of identities.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
