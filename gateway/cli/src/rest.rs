//! A client of the hub's REST interface: one request, one answer, and errors that tell the operator what to do.
//!
//! There is no proxy, no redirect and no retry. A verb sends its request once and reports the result. A failure tells
//! whether a retry may succeed.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use portcullis::iothub::api_version;
use portcullis::iothub::error_code::{self, ErrorCode};
use portcullis::iothub::message_properties::header as names;
use portcullis::tls::connect_error::ConnectError;
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, DATE, ETAG, HeaderMap, HeaderValue, IF_MATCH, RETRY_AFTER,
};
use reqwest::{Body, Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::login::{self, Login, chain};

/// A client of one hub.
pub(super) struct Rest {
    client: Client,
    login: Login,
}

/// Whether a hub serves, and its time in HTTP's format.
pub(super) struct Readiness {
    pub(super) ready: bool,
    pub(super) date: Option<String>,
}

/// A file that is being downloaded.
pub(super) struct Download<'a> {
    rest: &'a Rest,
    response: Response,
}

/// A successful answer.
struct Answer {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Rest {
    pub(super) fn new(login: Login) -> Result<Self, Failure> {
        let mut builder = Client::builder()
            .tls_backend_preconfigured(login.tls()?)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(REQUEST_TIME_MAX)
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        if let Some(address) = login.connect_address {
            builder = builder.resolve(&login.host, SocketAddr::new(address, login.https_port));
        }
        let client = builder.build().map_err(|error| Failure::error(chain(&error)))?;
        Ok(Self { client, login })
    }

    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// The object at a path given in segments.
    pub(super) async fn get(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        let answer = self.send(self.request(Method::GET, path).query(query)).await?;
        parse(&answer)
    }

    /// The hub's readiness, which needs no credential.
    pub(super) async fn readiness(&self) -> Result<Readiness, Failure> {
        let url = url(&self.login.host, self.login.https_port, &["healthz", "ready"]);
        let response = self.client.get(url).send().await.map_err(|error| self.unreachable(&error))?;
        let ready = match response.status() {
            StatusCode::SERVICE_UNAVAILABLE => false,
            status if status.is_success() => true,
            status => return Err(refused(status, None, b"")),
        };
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok(Readiness { ready, date })
    }

    /// At most `count` objects of the list at a path, and the continuation token of the next page.
    pub(super) async fn page(
        &self,
        path: &[&str],
        count: usize,
        continuation: Option<&HeaderValue>,
    ) -> Result<(Vec<Value>, Option<HeaderValue>), Failure> {
        let mut request = self.request(Method::GET, path).header(MAX_ITEM_COUNT, count);
        // A hub without pages, such as IoT Hub, still obeys the count.
        request = request.query(&[("top", count)]);
        if let Some(continuation) = continuation {
            request = request.header(CONTINUATION, continuation);
        }
        let mut answer = self.send(request).await?;
        let objects = serde_json::from_slice(&answer.body).map_err(not_json)?;
        Ok((objects, answer.headers.remove(CONTINUATION)))
    }

    /// At most `count` rows of a query's result, and the continuation token of the next page.
    pub(super) async fn query(
        &self,
        query: &str,
        count: usize,
        continuation: Option<&str>,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let mut request = self.request(Method::POST, &["devices", "query"]).json(&json!({ "query": query }));
        request = request.header(MAX_ITEM_COUNT, count);
        if let Some(continuation) = continuation {
            request = request.header(CONTINUATION, continuation);
        }
        let answer = self.send(request).await?;
        let rows = serde_json::from_slice(&answer.body).map_err(not_json)?;
        let next = answer.headers.get(CONTINUATION).and_then(|next| next.to_str().ok()).map(str::to_owned);
        Ok((rows, next.filter(|next| !next.is_empty())))
    }

    /// Creates an object. Without `If-Match`, an existing object is a conflict.
    pub(super) async fn create(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        let answer = self.send(self.request(Method::PUT, path).json(body)).await?;
        parse(&answer)
    }

    /// Replaces an object, if it still has the named version.
    pub(super) async fn replace(
        &self,
        path: &[&str],
        body: &Value,
        if_match: HeaderValue,
    ) -> Result<Value, Failure> {
        let request = self.request(Method::PUT, path).header(IF_MATCH, if_match).json(body);
        parse(&self.send(request).await?)
    }

    /// Deletes an object. If a version is named, deletes only that version.
    pub(super) async fn delete(&self, path: &[&str], if_match: Option<HeaderValue>) -> Result<(), Failure> {
        let mut request = self.request(Method::DELETE, path);
        if let Some(if_match) = if_match {
            request = request.header(IF_MATCH, if_match);
        }
        self.send(request).await.map(drop)
    }

    /// Deletes an object that has no version. Returns the hub's answer.
    pub(super) async fn delete_for_answer(&self, path: &[&str]) -> Result<Value, Failure> {
        parse(&self.send(self.request(Method::DELETE, path)).await?)
    }

    /// The next waiting batch at a path, with the token to complete it; none if no batch waits.
    pub(super) async fn receive(&self, path: &[&str]) -> Result<Option<(String, Value)>, Failure> {
        let answer = self.send(self.request(Method::GET, path)).await?;
        let Some(token) = answer.headers.get(ETAG).and_then(|token| token.to_str().ok()) else {
            return Ok(None);
        };
        Ok(Some((token.trim_matches('"').to_owned(), parse(&answer)?)))
    }

    /// Sends an action. Returns the object that results.
    pub(super) async fn act(&self, path: &[&str], body: &Value) -> Result<Value, Failure> {
        let answer = self.send(self.request(Method::POST, path).json(body)).await?;
        parse(&answer)
    }

    /// Starts a job. Returns the job.
    pub(super) async fn start(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Value, Failure> {
        parse(&self.send(self.request(Method::POST, path).query(query)).await?)
    }

    /// Sends a file of any length, without a short time limit. Returns the hub's answer.
    pub(super) async fn upload(
        &self,
        path: &[&str],
        query: &[(&str, &str)],
        file: Body,
    ) -> Result<Value, Failure> {
        let request = self.request(Method::POST, path).query(query).timeout(TRANSFER_TIME_MAX);
        parse(&self.send(request.header(CONTENT_TYPE, "application/octet-stream").body(file)).await?)
    }

    /// Starts the download of a file of any length.
    pub(super) async fn download(&self, path: &[&str]) -> Result<Download<'_>, Failure> {
        let request = self.request(Method::GET, path).timeout(TRANSFER_TIME_MAX);
        Ok(Download { rest: self, response: self.begin(request).await? })
    }

    /// Sends bytes with the given headers.
    pub(super) async fn post(&self, path: &[&str], headers: HeaderMap, body: Vec<u8>) -> Result<(), Failure> {
        let request = self.request(Method::POST, path).headers(headers);
        self.send(request.header(CONTENT_TYPE, "application/octet-stream").body(body)).await.map(drop)
    }

    fn request(&self, method: Method, path: &[&str]) -> RequestBuilder {
        let url = url(&self.login.host, self.login.https_port, path);
        let request =
            self.client.request(method, url).query(&[(api_version::PARAMETER, api_version::DEFAULT)]);
        match HeaderValue::from_str(&self.login.token()) {
            Ok(mut token) => {
                token.set_sensitive(true);
                request.header(AUTHORIZATION, token)
            }
            // A token is printable ASCII. Without one the hub answers 401.
            Err(_) => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Answer, Failure> {
        let mut response = self.begin(request).await?;
        let headers = std::mem::take(response.headers_mut());
        Ok(Answer { headers, body: self.body(response).await? })
    }

    /// A successful answer, of which only the head is read.
    async fn begin(&self, request: RequestBuilder) -> Result<Response, Failure> {
        let mut response = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = std::mem::take(response.headers_mut());
        let body = self.body(response).await?;
        let name = headers.get(names::ERROR_CODE).and_then(|name| name.to_str().ok());
        let failure = refused(status, name, &body);
        let passes = failure.exit() == Exit::Throttled || status.is_server_error();
        Err(if passes { failure.that_passes(retry_after(&headers, Timestamp::now())) } else { failure })
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Failure::error(format!(
                    "the hub's answer is longer than {ANSWER_BYTES_MAX} bytes; ask for fewer objects"
                )));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let where_to = format!("{}:{}", self.login.host, self.login.https_port);
        if error.is_timeout() {
            let seconds = REQUEST_TIME_MAX.as_secs();
            let message = format!("{where_to} did not answer within {seconds} s");
            let failure = Failure::new(Exit::Throttled, message).of_the_link().that_passes(None);
            return failure.with_hint(login::hint(&ConnectError::TimedOut));
        }
        let reason = ConnectError::of(error);
        let failure = Failure::error(format!("{where_to}: {reason}")).of_the_link();
        let failure = failure.with_hint(login::hint(&reason));
        if reason.is_about_certificate() { failure } else { failure.that_passes(None) }
    }
}

impl Download<'_> {
    /// The next piece, or none after the last one.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        self.response.chunk().await.map_err(|error| self.rest.unreachable(&error))
    }
}

/// Encodes every character with a meaning in a URL, because ids may hold `?`, `%`, `;` and more.
fn url(host: &str, port: u16, path: &[&str]) -> String {
    let mut url = format!("https://{host}:{port}");
    for segment in path {
        url.push('/');
        url.extend(utf8_percent_encode(segment, &UNRESERVED));
    }
    url
}

fn parse(answer: &Answer) -> Result<Value, Failure> {
    serde_json::from_slice(&answer.body).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> Failure {
    Failure::error(format!("the hub's answer is not JSON: {error}"))
}

/// The failure for an error answer. IoT Hub: `{"Message":"ErrorCode:Name;text"}`, with the name also in a header.
fn refused(status: StatusCode, header: Option<&str>, body: &[u8]) -> Failure {
    let message = serde_json::from_slice::<Value>(body).ok();
    let message =
        message.as_ref().and_then(|value| value.get("Message")).and_then(Value::as_str).unwrap_or_default();
    let (in_body, text) = error_code::parse_message(message);
    let name = in_body.or(header);
    let known = name.and_then(ErrorCode::parse);
    let number = known.map_or(u32::from(status.as_u16()) * 1000, ErrorCode::number);
    let message = match (name, text) {
        (Some(name), "") => name.to_owned(),
        (Some(name), text) => format!("{name}: {text}"),
        (None, "") => status.to_string(),
        (None, text) => text.to_owned(),
    };
    let failure = Failure::new(exit(status), message).with_code(number);
    let unauthorized = (status == StatusCode::UNAUTHORIZED).then_some(UNAUTHORIZED_HINT);
    match known.and_then(hint).or(unauthorized) {
        Some(hint) => failure.with_hint(hint),
        None => failure,
    }
}

/// How long the hub asks to wait: in seconds, or until a time. RFC 9110, 10.2.3.
fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

fn exit(status: StatusCode) -> Exit {
    match status {
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        StatusCode::UNAUTHORIZED => Exit::Unauthorized,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS | StatusCode::GATEWAY_TIMEOUT => {
            Exit::Throttled
        }
        _ => Exit::Error,
    }
}

fn hint(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::DeviceMaximumQueueDepthExceeded => {
            Some("the queue is full: wait until the device receives its messages, or until they expire")
        }
        ErrorCode::JobQuotaExceeded => {
            Some("`portcullis job list` prints the running job; `portcullis job cancel` ends it")
        }
        ErrorCode::JobNotFound => Some("`portcullis job list` prints the jobs that exist"),
        ErrorCode::DeviceNotFound => Some("`portcullis device-identity list` prints the devices that exist"),
        ErrorCode::ModuleNotFound => {
            Some("`portcullis module-identity list -d ID` prints the modules that exist")
        }
        ErrorCode::DeviceAlreadyExists | ErrorCode::ModuleAlreadyExistsOnDevice => {
            Some("`show` prints the existing one; `delete` removes it")
        }
        ErrorCode::PreconditionFailed => Some("somebody has changed it; `show` prints its present etag"),
        _ => None,
    }
}

const UNAUTHORIZED_HINT: &str = "check the policy's key and rights, the hub's name, and this machine's clock";
const MAX_ITEM_COUNT: &str = "x-ms-max-item-count";
const CONTINUATION: &str = "x-ms-continuation";
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
/// A file may be large and the network slow. The operator sees the progress.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(24 * 3600);
/// A list of 1,000 identities is about 1 MiB.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// RFC 3986's unreserved characters stay as they are.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0";

    #[test]
    fn t503_ids_are_encoded_once_in_paths() {
        let path = url("localhost", 8443, &["devices", "a%31;$?(='x", "modules", "$edgeAgent"]);
        assert_eq!(path, "https://localhost:8443/devices/a%2531%3B%24%3F%28%3D%27x/modules/%24edgeAgent");
    }

    #[test]
    fn an_error_answer_is_told_with_number_text_and_hint() {
        let body = br#"{"Message":"ErrorCode:DeviceNotFound;pump-7","ExceptionMessage":"Tracking ID:x"}"#;
        let failure = refused(StatusCode::NOT_FOUND, Some("DeviceNotFound"), body);
        assert_eq!(failure.exit(), Exit::NotFound);
        assert!(
            failure.to_string().starts_with("error[404001]: DeviceNotFound: pump-7  hint: "),
            "{failure}"
        );
    }

    #[test]
    fn an_error_answer_of_another_shape_still_says_something() {
        let text = |status, header, body: &[u8]| refused(status, header, body).to_string();
        assert_eq!(text(StatusCode::BAD_GATEWAY, None, b"<html>"), "error[502000]: 502 Bad Gateway");
        assert_eq!(text(StatusCode::BAD_REQUEST, Some("ArgumentNull"), b""), "error[400005]: ArgumentNull");
        assert_eq!(
            text(StatusCode::BAD_REQUEST, None, br#"{"Message":"no; not so"}"#),
            "error[400000]: no; not so"
        );
        assert_eq!(text(StatusCode::BAD_REQUEST, Some("Later"), b"{}"), "error[400000]: Later");
    }

    #[tokio::test]
    async fn a_hub_that_does_not_answer_is_told_with_where_it_is() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let login = format!("HostName=127.0.0.1:{port};SharedAccessKeyName=p;SharedAccessKey={KEY}");
        let client = Client::builder()
            .tls_backend_preconfigured(portcullis::tls::client_config_without_trust().unwrap())
            .no_proxy()
            .timeout(Duration::from_millis(50))
            .build()
            .unwrap();
        let rest = Rest { client, login: Login::parse(&login, None).unwrap() };
        let failure = rest.get(&["devices"], &[]).await.unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!(
                "error: 127.0.0.1:{port} did not answer within 30 s  hint: check that the hub runs and that this is its port"
            )
        );
        assert!(failure.passing().is_some() && failure.ends_all());
    }

    #[test]
    fn a_hub_says_how_long_to_wait_in_seconds_or_until_a_time() {
        let now: Timestamp = "2026-11-25T04:00:00Z".parse().unwrap();
        let after = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), now)
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 25 Nov 2026 04:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(after("Wed, 25 Nov 2026 03:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn the_exit_code_follows_the_status() {
        for (status, code) in
            [(404, 3), (409, 4), (412, 4), (401, 5), (429, 6), (504, 6), (400, 1), (403, 1), (500, 1)]
        {
            let failure = refused(StatusCode::from_u16(status).unwrap(), None, b"");
            assert_eq!(failure.exit().code(), code, "{status}");
        }
    }
}
