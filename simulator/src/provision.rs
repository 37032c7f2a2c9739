//! The REST calls of a run: make a device, delete it, send it a message. The hub's REST dialect, as a service speaks it.

use std::time::Duration;

use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::id::DeviceId;
use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use serde_json::json;

use crate::access::HubAccess;

/// A client of the hub's REST API.
#[derive(Clone, Debug)]
pub struct Provisioner {
    client: Client,
    access: HubAccess,
    devices: Url,
}

/// A device that may connect.
#[derive(Clone, Debug)]
pub struct Provisioned {
    pub id: DeviceId,
    pub key: SymmetricKey,
    /// Whether this run made it; otherwise it was there before.
    pub made: bool,
}

/// Why a REST call came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    #[error("{0:?} makes no address")]
    BadHostName(String),
    #[error("the HTTPS client cannot be set up")]
    Client(#[source] reqwest::Error),
    #[error("the hub does not answer {0}")]
    Unreachable(Url, #[source] reqwest::Error),
    #[error("the hub answers {0} with {1}: {2}")]
    Refused(Url, StatusCode, String),
    #[error("the hub's answer about {0} cannot be read")]
    BadAnswer(DeviceId, #[source] reqwest::Error),
    #[error("device {0} is there already and does not use a symmetric key; choose another --prefix")]
    NoKey(DeviceId),
}

#[derive(Deserialize)]
struct DeviceAnswer {
    authentication: AuthenticationAnswer,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthenticationAnswer {
    symmetric_key: Option<KeysAnswer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KeysAnswer {
    primary_key: Option<String>,
}

impl Provisioner {
    pub fn new(access: HubAccess) -> Result<Self, RestError> {
        let devices = format!("https://{}:{}/devices", access.hostname, access.https_port);
        let devices = Url::parse(&devices).map_err(|_| RestError::BadHostName(access.hostname.clone()))?;
        let client = Client::builder()
            .tls_backend_preconfigured((*access.tls).clone())
            .no_proxy()
            .timeout(REQUEST_TIME_MAX)
            .build()
            .map_err(RestError::Client)?;
        Ok(Self { client, access, devices })
    }

    /// Makes device `id`, or takes it as it is when it is there already.
    pub async fn provision(&self, id: DeviceId) -> Result<Provisioned, RestError> {
        let url = self.url(&id, &[]);
        let body =
            json!({ "deviceId": id.as_str(), "status": "enabled", "authentication": { "type": "sas" } });
        let answer = self.ask(self.request(Method::PUT, &url).json(&body), &url).await?;
        let (answer, made) = match answer.status() {
            StatusCode::CONFLICT => (self.ask(self.request(Method::GET, &url), &url).await?, false),
            _ => (answer, true),
        };
        let device: DeviceAnswer = match accepted(url, answer).await?.json().await {
            Ok(device) => device,
            Err(error) => return Err(RestError::BadAnswer(id, error)),
        };
        let key = device.authentication.symmetric_key.and_then(|keys| keys.primary_key);
        match key.and_then(|key| SymmetricKey::parse_base64(&key).ok()) {
            Some(key) => Ok(Provisioned { id, key, made }),
            None => Err(RestError::NoKey(id)),
        }
    }

    /// Deletes device `id`, whatever became of it meanwhile.
    pub async fn delete(&self, id: DeviceId) -> Result<(), RestError> {
        let url = self.url(&id, &[]);
        let answer = self.ask(self.request(Method::DELETE, &url).header("if-match", "*"), &url).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(());
        }
        accepted(url, answer).await.map(drop)
    }

    /// Sends device `id` a message with application `properties`.
    pub async fn send(
        &self,
        id: &DeviceId,
        properties: [(&str, String); 2],
        body: Vec<u8>,
    ) -> Result<(), RestError> {
        let url = self.url(id, &["messages", "deviceBound"]);
        let mut request = self.request(Method::POST, &url).body(body);
        for (name, value) in properties {
            request = request.header(format!("iothub-app-{name}"), value);
        }
        let answer = self.ask(request, &url).await?;
        accepted(url, answer).await.map(drop)
    }

    fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client
            .request(method, url.clone())
            .header(AUTHORIZATION, self.access.service_token(Timestamp::now()))
    }

    async fn ask(&self, request: RequestBuilder, url: &Url) -> Result<Response, RestError> {
        request.send().await.map_err(|error| RestError::Unreachable(url.clone(), error.without_url()))
    }

    fn url(&self, id: &DeviceId, below: &[&str]) -> Url {
        let mut url = self.devices.clone();
        // An https address always has a path to extend.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(id.as_str()).extend(below);
        }
        url.set_query(Some(API_VERSION));
        url
    }
}

impl RestError {
    /// A short text that is the same for the same fault, whichever device it concerns.
    pub fn reason(&self) -> String {
        match self {
            Self::Refused(_, status, _) => format!("status {}", status.as_u16()),
            Self::Unreachable(_, error) if error.is_timeout() => "no answer in time".into(),
            Self::Unreachable(..) => "hub not reachable".into(),
            Self::BadAnswer(..) => "answer not readable".into(),
            Self::BadHostName(_) | Self::Client(_) | Self::NoKey(_) => self.to_string(),
        }
    }
}

/// The answer if it tells success, otherwise an error with what the hub said.
async fn accepted(url: Url, answer: Response) -> Result<Response, RestError> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let text = answer.text().await.unwrap_or_default();
    Err(RestError::Refused(url, status, text.chars().take(ANSWER_CHARS_SHOWN_MAX).collect()))
}

const API_VERSION: &str = "api-version=2021-04-12";
const REQUEST_TIME_MAX: Duration = Duration::from_secs(30);
const ANSWER_CHARS_SHOWN_MAX: usize = 300;
