//! One container, and the requests to it.
//!
//! The first request creates the client, for this container only. It looks the host up once, and every connection goes
//! to an address that was checked then. The caller learns only which of a few kinds an answer is, and even that only
//! from a blob store. A closed port, a slow one and one with another service all look the same to the user who gave the
//! address.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::sync::OnceCell;

use super::address::ContainerAddress;
use super::hosts::BlobHosts;
use super::lookup::Checked;
use super::reader;
use super::writer::BlobWriter;
use crate::blob::container::{ContainerError, Pieces};
use crate::tls::connect_error::ConnectError;

/// A container of blobs that may be used. Its text never contains its signature.
#[derive(Clone)]
pub struct BlobContainer(Arc<Inner>);

struct Inner {
    address: ContainerAddress,
    hosts: BlobHosts,
    client: OnceCell<Client>,
}

/// One request to a container.
#[derive(Clone)]
pub(super) struct BlobRequest {
    /// The blob.
    pub(super) name: String,
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    /// The status of success.
    pub(super) yes: StatusCode,
}

impl BlobContainer {
    /// Parses the URI of a container with its shared access signature. Sends nothing yet.
    pub fn parse(uri: &str, hosts: &BlobHosts) -> Result<Self, ContainerError> {
        let address = ContainerAddress::parse(uri, &hosts.listed).map_err(refused)?;
        Ok(Self(Arc::new(Inner { address, hosts: hosts.clone(), client: OnceCell::new() })))
    }

    /// The bytes of a blob as they arrive. The stream succeeds only if every byte that the store announced has arrived.
    pub async fn read(&self, name: &str) -> Result<Pieces, ContainerError> {
        let ask = self.ask(Method::GET, name, "", StatusCode::OK)?;
        let response = self.send(ask).await?;
        reader::read(response, &self.0.hosts)
    }

    /// A writer of a blob. The blob is invisible until it is finished, and then replaces any blob of that name.
    pub fn write(&self, name: &str) -> Result<BlobWriter, ContainerError> {
        // A bad name is refused before the first byte is produced.
        self.url(name, "")?;
        Ok(BlobWriter::new(self.clone(), name))
    }

    /// Deletes a blob. It is no error if there is none.
    pub async fn delete(&self, name: &str) -> Result<(), ContainerError> {
        match self.send(self.ask(Method::DELETE, name, "", StatusCode::ACCEPTED)?).await {
            Ok(_) | Err(ContainerError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn hosts(&self) -> &BlobHosts {
        &self.0.hosts
    }

    fn url(&self, name: &str, operation: &str) -> Result<Url, ContainerError> {
        self.0.address.url(name, operation).map_err(refused)
    }

    pub(super) fn ask(
        &self,
        method: Method,
        name: &str,
        operation: &str,
        yes: StatusCode,
    ) -> Result<BlobRequest, ContainerError> {
        let url = self.url(name, operation)?;
        Ok(BlobRequest {
            name: name.to_owned(),
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            yes,
        })
    }

    /// Sends a request, and again after a pause if the store is busy. Every request here may be sent twice.
    pub(super) async fn send(&self, ask: BlobRequest) -> Result<Response, ContainerError> {
        let mut pauses = BUSY_PAUSES.iter();
        loop {
            let response = self.exchange(&ask).await?;
            if response.status() == ask.yes && is_blob_store(&response) {
                return Ok(response);
            }
            match pauses.next().filter(|_| is_busy(&response)) {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(self.refusal(&ask, &response)),
            }
        }
    }

    async fn exchange(&self, ask: &BlobRequest) -> Result<Response, ContainerError> {
        let idle = self.0.hosts.idle_time_max;
        let client = match tokio::time::timeout(idle, self.0.client.get_or_try_init(|| self.connect())).await
        {
            Ok(client) => client?,
            Err(_) => return Err(self.unreachable(ask, "the look-up of its host took too long")),
        };
        let request = client.request(ask.method.clone(), ask.url.clone()).headers(ask.headers.clone());
        let sent = request.body(ask.body.clone()).send();
        // A large body needs more time on a slow connection.
        let mebibytes = u32::try_from(ask.body.len() >> 20).unwrap_or(u32::MAX);
        match tokio::time::timeout(idle.saturating_mul(1 + mebibytes), sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(ask, &ConnectError::of(&error).to_string())),
            Err(_) => Err(self.unreachable(ask, "it took too long to answer")),
        }
    }

    /// A client that connects only to the current addresses of this container's host.
    async fn connect(&self) -> Result<Client, ContainerError> {
        let Inner { address, hosts, .. } = &*self.0;
        let checked = Checked::find(address.host().host(), &*hosts.lookup, address.is_listed()).await?;
        let tls = hosts.tls(address.host()).map_err(|error| {
            tracing::warn!(%error, "the hub has no CA certificates to verify blob hosts with");
            ContainerError::Unreachable
        })?;
        let client = Client::builder()
            .dns_resolver(checked.into_resolver())
            .tls_backend_preconfigured(tls)
            .https_only(address.host().tls())
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .http1_only()
            .connect_timeout(CONNECT_TIME_MAX.min(hosts.idle_time_max))
            .pool_max_idle_per_host(1)
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map_err(|error| {
            tracing::info!(cause = %ConnectError::of(&error), "the client for a blob host cannot be created");
            ContainerError::Unreachable
        })
    }

    /// The error for an answer that is not a success.
    fn refusal(&self, ask: &BlobRequest, response: &Response) -> ContainerError {
        let status = response.status().as_u16();
        if !is_blob_store(response) {
            return self.unreachable(ask, "the server at this address is not a blob store");
        }
        let code = response.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok()).unwrap_or_default();
        tracing::info!(container = %self, method = %ask.method, status, code = ?code, "a blob store refused a request");
        match (status, code) {
            (404, "BlobNotFound") => ContainerError::NotFound(ask.name.clone()),
            (404, "ContainerNotFound" | "ResourceNotFound") => refused(NO_CONTAINER),
            (401 | 403, _) => refused(NOT_AUTHORISED),
            (409 | 412, _) => refused(IN_THE_WAY),
            (413, _) => ContainerError::Limit(TOO_LARGE.to_owned()),
            _ => ContainerError::Unreachable,
        }
    }

    /// Logs the exact cause, which the user does not learn.
    fn unreachable(&self, ask: &BlobRequest, cause: &str) -> ContainerError {
        tracing::info!(container = %self, method = %ask.method, ?cause, "a blob container cannot be reached");
        ContainerError::Unreachable
    }
}

impl fmt::Display for BlobContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.address.fmt(f)
    }
}

impl fmt::Debug for BlobContainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobContainer({self})")
    }
}

impl BlobRequest {
    pub(super) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.insert(name, HeaderValue::from_static(value));
        self
    }

    /// The same request with a body of text.
    pub(super) fn with_body(mut self, body: Bytes) -> Self {
        // Stores need a length for an empty body too.
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Self { body, ..self }.with(CONTENT_TYPE, TEXT)
    }
}

pub(super) fn refused(reason: &str) -> ContainerError {
    ContainerError::Refused(reason.to_owned())
}

/// A blob store numbers each answer.
fn is_blob_store(response: &Response) -> bool {
    response.headers().contains_key(REQUEST_ID)
}

/// Source: Azure Storage, "Status and error codes".
fn is_busy(response: &Response) -> bool {
    let code = response.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok());
    let busy = matches!(code, Some("ServerBusy" | "OperationTimedOut" | "InternalError"));
    busy && is_blob_store(response) && response.status().is_server_error()
}

/// Azurite and Azure answer with text/plain if a request names no type.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const REQUEST_ID: &str = "x-ms-request-id";
const ERROR_CODE: &str = "x-ms-error-code";
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const BUSY_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(1_000), Duration::from_millis(4_000)];
const NO_CONTAINER: &str = "the container does not exist";
const NOT_AUTHORISED: &str = "the container's shared access signature is wrong, has expired or does not allow this; it must allow read, write and delete";
const IN_THE_WAY: &str = "the container blocks the request with a lease, a policy, or a blob of another type";
const TOO_LARGE: &str = "the blob is larger than the blob store allows";
