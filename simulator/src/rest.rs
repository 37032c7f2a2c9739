//! The hub's REST API as far as a run uses it: creates, reads and deletes identities, and sends messages.
//!
//! The requests have the form of the SDKs'. Two paths are Portcullis's own: many messages in one request, and the
//! enrolment of a CA. If the hub lacks them, the run continues without them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use portcullis_registry::id::IdentityId;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::access::HubAccess;
use crate::c2d::{NUMBER_PROPERTY, RUN_PROPERTY};

/// A client of the hub's REST API.
#[derive(Clone, Debug)]
pub struct Rest {
    client: Client,
    access: HubAccess,
    base: Url,
    way: Arc<AtomicU8>,
}

/// Why a REST call failed.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("{0:?} is not part of a valid address")]
    BadHostName(String),
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error("this needs a policy; give its connection string with --login")]
    NoPolicy,
    #[error("the hub does not answer the request to {0}")]
    Unreachable(Url, #[source] reqwest::Error),
    #[error("the hub answered the request to {0} with {1}: {2}")]
    Refused(Url, StatusCode, String),
    #[error("the hub's answer to {0} cannot be read")]
    BadAnswer(Url, #[source] reqwest::Error),
}

/// Why a bulk request did not change one identity.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkError {
    pub device_id: String,
    pub module_id: Option<String>,
    /// A name, or at an IoT Hub a number.
    #[serde(default)]
    pub error_code: Value,
    pub error_status: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BulkAnswer {
    #[serde(default)]
    errors: Vec<BulkError>,
}

/// A cloud-to-device message to send.
#[derive(Clone, Debug)]
pub struct C2dOrder {
    pub number: u64,
    pub due: Instant,
    pub to: IdentityId,
    pub run: String,
    pub body: Vec<u8>,
}

/// Why a message was not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// The device's queue is full.
    Full,
    /// This hub does not accept messages over REST.
    NotOffered,
    Failed(String),
}

impl C2dOrder {
    /// Messages in one request.
    pub const AT_ONCE_MAX: usize = 100;
}

impl Rest {
    pub fn new(access: HubAccess) -> Result<Self, RestError> {
        let base = format!("https://{}:{}", access.hostname, access.https_port);
        let base = Url::parse(&base).map_err(|_| RestError::BadHostName(access.hostname.clone()))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured((*access.tls).clone())
            .no_proxy()
            .timeout(REQUEST_TIME_MAX);
        if let Some(address) = access.address {
            builder = builder.resolve(&access.hostname, SocketAddr::new(address, access.https_port));
        }
        let client = builder.build().map_err(RestError::Client)?;
        Ok(Self { client, access, base, way: Arc::new(AtomicU8::new(WAY_UNTRIED)) })
    }

    /// Changes up to 100 identities. Returns the errors of those that were not changed.
    pub async fn bulk(&self, items: &[Value]) -> Result<Vec<BulkError>, RestError> {
        let url = self.url(&["devices"]);
        let answer = self.ask(self.request(Method::POST, &url)?.json(items), &url).await?;
        // Python's SDK accepts both statuses: 400 lists the identities that were not changed.
        if answer.status() == StatusCode::BAD_REQUEST {
            let status = answer.status();
            let text = answer.text().await.unwrap_or_default();
            return match serde_json::from_str::<BulkAnswer>(&text) {
                Ok(answer) if !answer.errors.is_empty() => Ok(answer.errors),
                _ => Err(RestError::Refused(url, status, shown(&text))),
            };
        }
        Ok(self.read::<BulkAnswer>(url, answer).await?.errors)
    }

    /// The registry's entry of `id`.
    pub async fn identity(&self, id: &IdentityId) -> Result<Value, RestError> {
        let url = self.url(&path_of(id));
        let answer = self.ask(self.request(Method::GET, &url)?, &url).await?;
        self.read(url, answer).await
    }

    /// Enrols a CA as verified. Returns `false` if the hub does not offer this.
    pub async fn enrol_authority(&self, name: &str, certificate_pem: &str) -> Result<bool, RestError> {
        let url = self.url(&["api", "v1", "certificate-authorities", name]);
        let reason = "made by portcullis-simulator";
        let body = json!({ "certificate": certificate_pem, "verified": true, "reason": reason });
        let answer = self.ask(self.request(Method::PUT, &url)?.json(&body), &url).await?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Ok(false),
            status if status.is_success() => Ok(true),
            status => Err(RestError::Refused(url, status, shown(&answer.text().await.unwrap_or_default()))),
        }
    }

    /// Removes an enrolled CA.
    pub async fn remove_authority(&self, name: &str) -> Result<(), RestError> {
        let url = self.url(&["api", "v1", "certificate-authorities", name]);
        let answer = self.ask(self.request(Method::DELETE, &url)?.header("if-match", "*"), &url).await?;
        accepted(url, answer).await.map(drop)
    }

    /// Whether the hub accepts messages over REST, as far as is known.
    pub fn takes_c2d(&self) -> bool {
        self.way.load(Ordering::Relaxed) != WAY_NONE
    }

    /// Sends up to `AT_ONCE_MAX` messages. Returns one result each, in order.
    pub async fn send_c2d(&self, orders: &[C2dOrder]) -> Vec<Result<(), SendError>> {
        if matches!(self.way.load(Ordering::Relaxed), WAY_UNTRIED | WAY_BATCH) {
            match self.send_batch(orders).await {
                Err(SendError::NotOffered) => self.way.store(WAY_SINGLE, Ordering::Relaxed),
                Err(error) => return vec![Err(error); orders.len()],
                Ok(results) => {
                    self.way.store(WAY_BATCH, Ordering::Relaxed);
                    return results;
                }
            }
        }
        let mut results = Vec::with_capacity(orders.len());
        for order in orders {
            let result = match self.takes_c2d() {
                true => self.send_one(order).await,
                false => Err(SendError::NotOffered),
            };
            if result == Err(SendError::NotOffered) {
                self.way.store(WAY_NONE, Ordering::Relaxed);
            }
            results.push(result);
        }
        results
    }

    async fn send_batch(&self, orders: &[C2dOrder]) -> Result<Vec<Result<(), SendError>>, SendError> {
        let url = self.url(&["api", "v1", "c2d-messages"]);
        let item = |order: &C2dOrder| {
            json!({
                "deviceId": order.to.device.as_str(),
                "moduleId": order.to.module.as_ref().map(|module| module.as_str()),
                "body": String::from_utf8_lossy(&order.body),
                "properties": { RUN_PROPERTY: order.run, NUMBER_PROPERTY: order.number.to_string() },
            })
        };
        let body: Vec<Value> = orders.iter().map(item).collect();
        let request = self.request(Method::POST, &url).map_err(failed)?.json(&body);
        let answer = self.ask(request, &url).await.map_err(failed)?;
        match answer.status() {
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => return Err(SendError::NotOffered),
            status if !status.is_success() => {
                return Err(SendError::Failed(format!("status {}", status.as_u16())));
            }
            _ => {}
        }
        let results: Vec<Value> =
            answer.json().await.map_err(|_| SendError::Failed("the answer is not readable".into()))?;
        if results.len() != orders.len() {
            return Err(SendError::Failed("the answer is not readable".into()));
        }
        Ok(results.iter().map(verdict).collect())
    }

    async fn send_one(&self, order: &C2dOrder) -> Result<(), SendError> {
        let mut path = path_of(&order.to);
        path.extend(["messages", "deviceBound"]);
        let url = self.url(&path);
        let request = self
            .request(Method::POST, &url)
            .map_err(failed)?
            .header(format!("iothub-app-{RUN_PROPERTY}"), &order.run)
            .header(format!("iothub-app-{NUMBER_PROPERTY}"), order.number.to_string())
            .body(order.body.clone());
        let answer = self.ask(request, &url).await.map_err(failed)?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let text = answer.text().await.unwrap_or_default();
        match status {
            StatusCode::NOT_FOUND if !text.contains("DeviceNotFound") => Err(SendError::NotOffered),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED => Err(SendError::NotOffered),
            _ if text.contains(QUEUE_FULL) => Err(SendError::Full),
            _ => Err(SendError::Failed(format!("status {}", status.as_u16()))),
        }
    }

    fn request(&self, method: Method, url: &Url) -> Result<RequestBuilder, RestError> {
        let token = self.access.service_token(Timestamp::now()).ok_or(RestError::NoPolicy)?;
        Ok(self.client.request(method, url.clone()).header(AUTHORIZATION, token))
    }

    async fn ask(&self, request: RequestBuilder, url: &Url) -> Result<Response, RestError> {
        request.send().await.map_err(|error| RestError::Unreachable(url.clone(), error.without_url()))
    }

    async fn read<T: DeserializeOwned>(&self, url: Url, answer: Response) -> Result<T, RestError> {
        let answer = accepted(url.clone(), answer).await?;
        answer.json().await.map_err(|error| RestError::BadAnswer(url, error))
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        // An https address always has a path to extend.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        url.set_query(Some(API_VERSION));
        url
    }
}

impl RestError {
    /// A short text that is the same for the same fault of any device.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(_, status, _) => format!("status {}", status.as_u16()),
            Self::Unreachable(_, error) if error.is_timeout() => "no answer in time".into(),
            Self::Unreachable(..) => "hub not reachable".into(),
            Self::BadAnswer(..) => "answer not readable".into(),
            Self::BadHostName(_) | Self::Client(_) | Self::NoPolicy => self.to_string(),
        }
    }
}

impl BulkError {
    /// Whether the identity exists already.
    pub fn is_conflict(&self) -> bool {
        let says = |text: &str| text.contains("AlreadyExists");
        self.error_code.as_str().is_some_and(says) || self.error_status.as_deref().is_some_and(says)
    }

    /// Whether the identity does not exist.
    pub fn is_missing(&self) -> bool {
        let says = |text: &str| text.contains("NotFound");
        self.error_code.as_str().is_some_and(says) || self.error_status.as_deref().is_some_and(says)
    }
}

fn path_of(id: &IdentityId) -> Vec<&str> {
    match &id.module {
        None => vec!["devices", id.device.as_str()],
        Some(module) => vec!["devices", id.device.as_str(), "modules", module.as_str()],
    }
}

/// The result of one message of a batch.
fn verdict(result: &Value) -> Result<(), SendError> {
    if result["accepted"] == true {
        return Ok(());
    }
    let text = result.to_string();
    if text.contains(QUEUE_FULL) {
        return Err(SendError::Full);
    }
    let code = result["errorCode"].as_str().or(result["error"].as_str());
    Err(SendError::Failed(code.unwrap_or("refused in a batch").to_owned()))
}

fn failed(error: RestError) -> SendError {
    SendError::Failed(error.reason())
}

/// The answer if it is a success, otherwise an error with the hub's text.
async fn accepted(url: Url, answer: Response) -> Result<Response, RestError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    Err(RestError::Refused(url, status, shown(&text)))
}

fn shown(text: &str) -> String {
    text.chars().take(ANSWER_CHARS_SHOWN_MAX).collect()
}

/// How messages are sent: not known yet, many in a request, one in a request, not at all.
const WAY_UNTRIED: u8 = 0;
const WAY_BATCH: u8 = 1;
const WAY_SINGLE: u8 = 2;
const WAY_NONE: u8 = 3;

const API_VERSION: &str = "api-version=2021-04-12";
const QUEUE_FULL: &str = "DeviceMaximumQueueDepthExceeded";
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_CHARS_SHOWN_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_a_batch_are_told_apart() {
        assert_eq!(verdict(&json!({ "accepted": true })), Ok(()));
        let full = json!({ "accepted": false, "error": "ErrorCode:DeviceMaximumQueueDepthExceeded;full" });
        assert_eq!(verdict(&full), Err(SendError::Full));
        let other = json!({ "accepted": false, "errorCode": "DeviceNotFound" });
        assert_eq!(verdict(&other), Err(SendError::Failed("DeviceNotFound".into())));
    }

    #[test]
    fn a_conflict_is_known_by_name() {
        let error = |code: Value| BulkError {
            device_id: "d".into(),
            module_id: None,
            error_code: code,
            error_status: Some("ErrorCode:DeviceAlreadyExists;there".into()),
        };
        assert!(error("DeviceAlreadyExists".into()).is_conflict());
        assert!(error(409001.into()).is_conflict());
        assert!(!error(409001.into()).is_missing());
    }
}
