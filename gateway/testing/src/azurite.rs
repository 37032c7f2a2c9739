//! Azurite, the emulator of Azure Blob storage, on a free port of this machine, and signatures for its containers.
//!
//! Its one account and that account's key are published by its makers and are the same everywhere.

use std::net::SocketAddr;
use std::ops::Deref;
use std::process::Stdio;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::TryStreamExt;
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::Sha256;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};

use super::{tools, within};
use portcullis::blob::container::ContainerError;
use portcullis::blob::{BlobContainer, BlobHosts};
use portcullis::config::Config;
use portcullis::config::blob_host::BlobHost;

/// A blob store with nothing in it; it ends when this is dropped.
pub struct Azurite {
    pub address: SocketAddr,
    _child: Child,
    /// Held so that what it says has somewhere to go.
    _said: Lines<BufReader<ChildStdout>>,
}

/// A container of it, for a test to look into and fill.
pub struct Blobs(BlobContainer);

impl Azurite {
    /// Starts one.
    ///
    /// # Panics
    /// When it cannot be had or does not start.
    pub async fn start() -> Self {
        let modules = tools::azurite();
        let mut child = Command::new("node")
            .arg(modules.join("azurite/dist/src/blob/main.js"))
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0"])
            .args(["--inMemoryPersistence", "--silent", "--disableTelemetry"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Azurite runs");
        let mut said = BufReader::new(child.stdout.take().expect("its output")).lines();
        let address = loop {
            let line = within(said.next_line()).await.expect("its output").expect("Azurite starts");
            if let Some((_, address)) = line.split_once("successfully listens on http://") {
                break address.parse().expect("its address");
            }
        };
        Self { address, _child: child, _said: said }
    }

    /// The host as `jobs.blob_hosts` has it.
    pub fn host(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a container; its URI with a signature that lets blobs be read, written and deleted.
    pub async fn container(&self, name: &str) -> String {
        let query = account_signature("rwdlc");
        let Self { address, .. } = self;
        let request = format!(
            "PUT /{ACCOUNT}/{name}?restype=container&{query} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let mut stream = within(TcpStream::connect(address)).await.expect("Azurite accepts");
        within(stream.write_all(request.as_bytes())).await.expect("Azurite reads");
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.expect("Azurite answers");
        assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
        self.container_uri(name, "rwd")
    }

    /// The container of a URI, for a test to look into and fill.
    pub fn blobs(&self, uri: &str) -> Blobs {
        let blob_hosts = vec![BlobHost::parse(&self.host()).expect("its host")];
        let hosts = BlobHosts::new(&Config { blob_hosts, ..Config::default() });
        Blobs(BlobContainer::parse(uri, &hosts).expect("its container"))
    }

    /// The URI of a container with a signature for these permissions, such as `r` or `rwd`.
    pub fn container_uri(&self, name: &str, permissions: &str) -> String {
        format!("{}/{ACCOUNT}/{name}?{}", self.host(), container_signature(name, permissions))
    }
}

impl Blobs {
    /// A whole blob; none when it is not there.
    pub async fn blob(&self, name: &str) -> Option<Vec<u8>> {
        let pieces: Vec<Bytes> = match within(self.0.read(name)).await {
            Ok(pieces) => within(pieces.try_collect()).await.expect("the whole blob"),
            Err(ContainerError::NotFound(_)) => return None,
            Err(error) => panic!("{name}: {error}"),
        };
        Some(pieces.concat())
    }

    /// Makes a whole blob.
    pub async fn put_blob(&self, name: &str, bytes: impl Into<Bytes>) {
        let mut writer = self.0.write(name).expect("a name");
        within(writer.write(bytes.into())).await.expect("the blob is taken");
        within(writer.finish()).await.expect("the blob is made");
    }
}

impl Deref for Blobs {
    type Target = BlobContainer;

    fn deref(&self) -> &BlobContainer {
        &self.0
    }
}

/// A signature for the whole account.
///
/// Source: Azure Storage, "Create an account SAS".
fn account_signature(permissions: &str) -> String {
    let text = format!("{ACCOUNT}\n{permissions}\nb\nsco\n\n{UNTIL}\n\n\n{VERSION}\n\n");
    query(&[("sv", VERSION), ("ss", "b"), ("srt", "sco"), ("sp", permissions), ("se", UNTIL)], &text)
}

/// A signature for one container.
///
/// Source: Azure Storage, "Create a service SAS".
fn container_signature(name: &str, permissions: &str) -> String {
    let text = format!("{permissions}\n\n{UNTIL}\n/blob/{ACCOUNT}/{name}\n\n\n\n{VERSION}\nc\n\n\n\n\n\n\n");
    query(&[("sv", VERSION), ("sr", "c"), ("sp", permissions), ("se", UNTIL)], &text)
}

/// A query of these parameters and the signature of `text`.
fn query(parameters: &[(&str, &str)], text: &str) -> String {
    let key = STANDARD.decode(ACCOUNT_KEY).expect("the published key");
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
    mac.update(text.as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let parts: Vec<_> = parameters
        .iter()
        .copied()
        .chain([("sig", signature.as_str())])
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)))
        .collect();
    parts.join("&")
}

/// Azurite's account.
///
/// Source: Azure Storage, "Use the Azurite emulator for local Azure Storage development".
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const VERSION: &str = "2021-12-02";
const UNTIL: &str = "2099-01-01T00:00:00Z";
