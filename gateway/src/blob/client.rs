//! One container, and the requests it is asked by.
//!
//! The client is made at the first request, for this container alone: its host is looked up then and not again, and
//! whatever connection it opens goes to an address checked at that time. Of an answer nothing is passed on but which of
//! a few kinds it is, and only a blob store is believed even that: to whoever gave the address, a closed port, an open
//! one with something else behind it and a slow one are the same.

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

/// A container of blobs that may be used. What shows it never shows its signature.
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
    /// The status that says yes.
    pub(super) yes: StatusCode,
}

impl BlobContainer {
    /// Reads the URI of a container with its shared access signature. Nothing is sent yet.
    pub fn parse(uri: &str, hosts: &BlobHosts) -> Result<Self, ContainerError> {
        let address = ContainerAddress::parse(uri, &hosts.listed).map_err(refused)?;
        Ok(Self(Arc::new(Inner { address, hosts: hosts.clone(), client: OnceCell::new() })))
    }

    /// The bytes of a blob as they come. The stream ends well only when every byte the store announced was there.
    pub async fn read(&self, name: &str) -> Result<Pieces, ContainerError> {
        let ask = self.ask(Method::GET, name, "", StatusCode::OK)?;
        let response = self.send(ask).await?;
        reader::read(response, &self.0.hosts)
    }

    /// A blob to be written. Nothing of it is there before it is finished; then it replaces any of that name.
    pub fn write(&self, name: &str) -> Result<BlobWriter, ContainerError> {
        // A bad name is refused before the first byte is made.
        self.url(name, "")?;
        Ok(BlobWriter::new(self.clone(), name))
    }

    /// Deletes a blob; one that is not there is no error.
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

    /// Asks, and again after a pause when the store says it is busy. Every request here may be sent twice.
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
            Err(_) => return Err(self.unreachable(ask, "its look-up took too long")),
        };
        let request = client.request(ask.method.clone(), ask.url.clone()).headers(ask.headers.clone());
        let sent = request.body(ask.body.clone()).send();
        // A body takes its time on a slow line.
        let mebibytes = u32::try_from(ask.body.len() >> 20).unwrap_or(u32::MAX);
        match tokio::time::timeout(idle.saturating_mul(1 + mebibytes), sent).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(self.unreachable(ask, &ConnectError::of(&error).to_string())),
            Err(_) => Err(self.unreachable(ask, "it took too long to answer")),
        }
    }

    /// A client that dials the addresses of this container's host as they are now, and nothing else.
    async fn connect(&self) -> Result<Client, ContainerError> {
        let Inner { address, hosts, .. } = &*self.0;
        let checked = Checked::find(address.host().host(), &*hosts.lookup, address.is_listed()).await?;
        let tls = hosts.tls(address.host()).map_err(|error| {
            tracing::warn!(%error, "there are no CA certificates to judge blob hosts by");
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
            tracing::info!(cause = %ConnectError::of(&error), "no client for a blob host");
            ContainerError::Unreachable
        })
    }

    /// What an answer that is no yes means.
    fn refusal(&self, ask: &BlobRequest, response: &Response) -> ContainerError {
        let status = response.status().as_u16();
        if !is_blob_store(response) {
            return self.unreachable(ask, "what answers there is no blob store");
        }
        let code = response.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok()).unwrap_or_default();
        tracing::info!(container = %self, method = %ask.method, status, code = ?code, "a blob store refuses");
        match (status, code) {
            (404, "BlobNotFound") => ContainerError::NotFound(ask.name.clone()),
            (404, "ContainerNotFound" | "ResourceNotFound") => refused(NO_CONTAINER),
            (401 | 403, _) => refused(NOT_AUTHORISED),
            (409 | 412, _) => refused(IN_THE_WAY),
            (413, _) => ContainerError::Limit(TOO_LARGE.to_owned()),
            _ => ContainerError::Unreachable,
        }
    }

    /// The exact cause is for the log alone.
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

    /// The same with a body of text.
    pub(super) fn with_body(mut self, body: Bytes) -> Self {
        // Stores want to be told of an empty body too.
        self.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        Self { body, ..self }.with(CONTENT_TYPE, TEXT)
    }
}

pub(super) fn refused(reason: &str) -> ContainerError {
    ContainerError::Refused(reason.to_owned())
}

/// Blob stores number each answer.
fn is_blob_store(response: &Response) -> bool {
    response.headers().contains_key(REQUEST_ID)
}

/// Source: Azure Storage, "Status and error codes".
fn is_busy(response: &Response) -> bool {
    let code = response.headers().get(ERROR_CODE).and_then(|code| code.to_str().ok());
    let busy = matches!(code, Some("ServerBusy" | "OperationTimedOut" | "InternalError"));
    busy && is_blob_store(response) && response.status().is_server_error()
}

/// Azurite and Azure answer text/plain for what they are not told.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const REQUEST_ID: &str = "x-ms-request-id";
const ERROR_CODE: &str = "x-ms-error-code";
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
const BUSY_PAUSES: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(1_000), Duration::from_millis(4_000)];
const NO_CONTAINER: &str = "there is no such container";
const NOT_AUTHORISED: &str = "the container's shared access signature is wrong, has ended or does not allow this; it must allow read, write and delete";
const IN_THE_WAY: &str =
    "the container has something in the way: a lease, a policy, or a blob of another kind";
const TOO_LARGE: &str = "the blob is larger than its store takes";
