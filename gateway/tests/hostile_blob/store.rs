//! A blob store that answers what a test makes it answer, byte for byte.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// What every answer of a blob store has.
pub(crate) const REQUEST_ID: &str = "x-ms-request-id: 1\r\n";

/// A store on a free port; it ends when this is dropped.
pub(crate) struct Store {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<(String, usize)>>>,
    flooded: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

/// The head of a request as it came.
pub(crate) struct Request(String);

/// What is sent back, byte for byte.
#[derive(Clone)]
pub(crate) struct Answer {
    text: String,
    after: After,
}

/// What follows the text of an answer.
#[derive(Clone)]
enum After {
    /// The next request.
    Next,
    Close,
    /// A byte, and again a byte.
    Drip,
    /// The same, again and again.
    Flood(&'static str),
}

impl Request {
    pub(crate) fn method(&self) -> &str {
        self.0.split(' ').next().unwrap()
    }

    pub(crate) fn target(&self) -> &str {
        self.0.split(' ').nth(1).unwrap()
    }
}

impl Answer {
    pub(crate) fn text(text: String) -> Self {
        Self { text, after: After::Next }
    }

    pub(crate) fn close_after(text: String) -> Self {
        Self { text, after: After::Close }
    }

    pub(crate) fn drip(text: String) -> Self {
        Self { text, after: After::Drip }
    }

    pub(crate) fn flood(text: String, more: &'static str) -> Self {
        Self { text, after: After::Flood(more) }
    }
}

impl Store {
    pub(crate) async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::serve(None, Arc::new(answer)).await
    }

    pub(crate) async fn start_tls(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        Self::serve(Some(TlsAcceptor::from(Arc::new(config))), Arc::new(answer)).await
    }

    async fn serve(
        tls: Option<TlsAcceptor>,
        answer: Arc<impl Fn(&Request) -> Answer + Send + Sync + 'static>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, flooded) = (Arc::default(), Arc::default());
        let shared = (Arc::clone(&seen), Arc::clone(&flooded));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut conversations = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, answer, (seen, flooded)) = (tls.clone(), Arc::clone(&answer), shared.clone());
                conversations.spawn(async move {
                    match tls {
                        None => converse(stream, &*answer, &seen, &flooded).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => converse(stream, &*answer, &seen, &flooded).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, seen, flooded, _serving: serving }
    }

    /// The heads of the requests that came.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().iter().map(|(head, _)| head.clone()).collect()
    }

    /// How many bytes of floods could be sent so far.
    pub(crate) fn flooded(&self) -> usize {
        self.flooded.load(Ordering::SeqCst)
    }

    /// The lengths of their bodies.
    pub(crate) fn body_lengths(&self) -> Vec<usize> {
        self.seen.lock().unwrap().iter().map(|(_, length)| *length).collect()
    }
}

/// Answers one connection's requests until it ends.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(impl Fn(&Request) -> Answer + ?Sized),
    seen: &Mutex<Vec<(String, usize)>>,
    flooded: &AtomicUsize,
) -> Option<()> {
    loop {
        let head = read_head(&mut stream).await?;
        let lower = head.to_ascii_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let length = length.parse().unwrap();
        let body = tokio::io::copy(&mut (&mut stream).take(length), &mut tokio::io::sink()).await.ok()?;
        seen.lock().unwrap().push((head.clone(), usize::try_from(body).unwrap()));
        let Answer { text, after } = answer(&Request(head));
        stream.write_all(text.as_bytes()).await.ok()?;
        stream.flush().await.ok()?;
        match after {
            After::Next => {}
            After::Close => return stream.shutdown().await.ok(),
            After::Drip => loop {
                stream.write_all(b"x").await.ok()?;
                stream.flush().await.ok()?;
                tokio::time::sleep(DRIP).await;
            },
            After::Flood(more) => loop {
                stream.write_all(more.as_bytes()).await.ok()?;
                flooded.fetch_add(more.len(), Ordering::SeqCst);
            },
        }
    }
}

async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// So that many bytes come in one idle time, and never enough of them.
const DRIP: std::time::Duration = std::time::Duration::from_millis(5);
