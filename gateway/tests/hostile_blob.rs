//! Blob stores that mean harm, or whose address does: the server that stands at the other end of an import or export is
//! whatever a user named.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt};
use portcullis::blob::container::ContainerError;
use portcullis::blob::{BlobContainer, BlobHosts, Lookup};
use portcullis::config::Config;
use portcullis::config::blob_host::BlobHost;
use portcullis::tls;
use portcullis_certs::testing::TestCa;
use portcullis_testing::log_check::FullLog;
use portcullis_testing::within;
use rustls::pki_types::PrivateKeyDer;
use tokio::process::Command;

use store::{Answer, REQUEST_ID, Store};

#[path = "hostile_blob/jobs.rs"]
mod jobs;
#[path = "hostile_blob/store.rs"]
mod store;

const SAS: &str = "sv=2024-11-04&sr=c&sp=rwd&se=2099-01-01T00%3A00%3A00Z&sig=c2VjcmV0LXNlY3JldA%3D%3D";
const SECRET: &str = "c2VjcmV0LXNlY3JldA";
const PATIENCE: Duration = Duration::from_secs(30);
/// For what never comes.
const LITTLE_PATIENCE: Duration = Duration::from_millis(100);

/// A policy that lists these hosts.
fn hosts(listed: &[&str]) -> BlobHosts {
    BlobHosts::new(&config(listed))
}

fn config(listed: &[&str]) -> Config {
    let blob_hosts = listed.iter().map(|text| BlobHost::parse(text).unwrap()).collect();
    Config { blob_hosts, ..Config::default() }
}

/// The container of a store, at a host that is listed.
fn container_at(address: SocketAddr) -> BlobContainer {
    let host = format!("http://{address}");
    BlobContainer::parse(&format!("{host}/devstoreaccount1/reg?{SAS}"), &hosts(&[&host])).unwrap()
}

/// The same, asked with little patience.
fn hasty_container_at(address: SocketAddr) -> BlobContainer {
    let host = format!("http://{address}");
    let mut config = config(&[&host]);
    config.limits.blob_idle_time_max = LITTLE_PATIENCE;
    BlobContainer::parse(&format!("{host}/devstoreaccount1/reg?{SAS}"), &BlobHosts::new(&config)).unwrap()
}

/// Reads a blob to its end.
async fn read(container: &BlobContainer) -> Result<usize, ContainerError> {
    let pieces = within(container.read("devices.txt")).await?;
    within(pieces.try_fold(0, |read, piece: Bytes| async move {
        assert!(piece.len() <= 1 << 20, "a piece of {} bytes", piece.len());
        Ok(read + piece.len())
    }))
    .await
}

async fn write(container: &BlobContainer, bytes: usize) -> Result<(), ContainerError> {
    let mut writer = container.write("devices.txt")?;
    within(writer.write(Bytes::from(vec![b'x'; bytes]))).await?;
    within(writer.finish()).await
}

/// Everything a container can be asked, and that each time it answers the one thing it says of what is no blob store.
async fn check_unreachable(container: &BlobContainer, what: &str) {
    let outcomes = [
        read(container).await.map(drop),
        write(container, 10).await,
        write(container, 5 << 20).await,
        within(container.delete("devices.txt")).await,
    ];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error, ContainerError::Unreachable), "{what}: {error:?}");
        assert_eq!(error.to_string(), ContainerError::Unreachable.to_string());
    }
}

/// Answers of a name server, one set after the other; the last one for ever.
struct Answers {
    sets: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Answers {
    fn new(sets: &[&[&str]]) -> Arc<Self> {
        let sets = sets.iter().map(|set| set.iter().map(|text| text.parse().unwrap()).collect()).collect();
        Arc::new(Self { sets, asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Lookup for Answers {
    fn lookup(&self, _: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let set = self.sets.get(asked).or(self.sets.last()).unwrap().clone();
        Box::pin(std::future::ready(Ok(set)))
    }
}

/// A port nobody may come to.
struct Guarded(std::net::TcpListener);

impl Guarded {
    fn at(address: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn somewhere() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap())
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    #[track_caller]
    fn check_nobody_came(&self) {
        let came = self.0.accept().map(drop).map_err(|error| error.kind());
        assert_eq!(came, Err(ErrorKind::WouldBlock), "somebody came to {}", self.address());
    }
}

/// An address of this machine that no other test has, for a port that must be 443.
fn own_address() -> Ipv4Addr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high.max(1), low, 8)
}

#[tokio::test]
async fn t801_an_inner_address_gets_not_one_packet() {
    let guarded = Guarded::somewhere();
    let port = guarded.address().port();
    let nobody = hosts(&[]);
    let others = hosts(&["http://127.0.0.1:1", "store.test:443"]);
    for host in [
        "127.0.0.1",
        "localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::]",
        "store.test",
    ] {
        for uri in [
            format!("http://{host}:{port}/devstoreaccount1/reg?{SAS}"),
            format!("https://{host}:{port}/reg?{SAS}"),
        ] {
            for hosts in [&nobody, &others] {
                let refused = BlobContainer::parse(&uri, hosts);
                assert!(matches!(refused, Err(ContainerError::Refused(_))), "{uri}");
            }
        }
    }
    guarded.check_nobody_came();
}

#[tokio::test]
async fn t802_a_name_of_azure_that_leads_inside_gets_not_one_packet() {
    let inner = own_address();
    let guarded = Guarded::at(SocketAddr::new(inner.into(), 443));
    let inner = inner.to_string();
    for set in [
        [inner.as_str()].as_slice(),
        &["20.60.0.1", &inner],
        &[&inner, "20.60.0.1"],
        &["20.60.0.1", "169.254.169.254"],
        &["20.60.0.1", "::ffff:127.0.0.1"],
    ] {
        let answers = Answers::new(&[set]);
        let hosts = hosts(&[]).with_lookup(answers.clone());
        let uri = format!("https://acct.blob.core.windows.net/reg?{SAS}");
        let container = BlobContainer::parse(&uri, &hosts).unwrap();
        for outcome in [
            read(&container).await.map(drop),
            write(&container, 10).await,
            within(container.delete("devices.txt")).await,
        ] {
            assert!(matches!(outcome, Err(ContainerError::Refused(_))), "{set:?}: {outcome:?}");
        }
    }
    guarded.check_nobody_came();
}

#[tokio::test]
async fn t802_a_second_look_up_is_not_made() {
    // The answers close each connection, so every request has to dial again.
    let store = Store::start(|request| match request.method() {
        "GET" => Answer::close_after(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok")),
        "PUT" => {
            Answer::close_after(format!("HTTP/1.1 201 Created\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"))
        }
        _ => Answer::close_after(format!("HTTP/1.1 202 Accepted\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n")),
    })
    .await;
    let port = store.address.port();
    let other = own_address();
    let guarded = Guarded::at(SocketAddr::new(other.into(), port));
    let answers = Answers::new(&[&["127.0.0.1"], &[&other.to_string()]]);
    let listed = format!("http://store.test:{port}");
    let hosts = hosts(&[&listed]).with_lookup(answers.clone());
    let container = BlobContainer::parse(&format!("{listed}/reg?{SAS}"), &hosts).unwrap();
    for _ in 0..3 {
        assert_eq!(read(&container).await.unwrap(), 2);
        write(&container, 10).await.unwrap();
        within(container.delete("devices.txt")).await.unwrap();
    }
    assert_eq!((answers.asked(), store.requests().len()), (1, 9));
    for request in store.requests() {
        let host = format!("host: store.test:{port}\r\n");
        assert!(request.to_ascii_lowercase().contains(&host), "{request}");
    }
    guarded.check_nobody_came();
}

#[tokio::test]
async fn t803_no_redirect_is_followed() {
    let guarded = Guarded::somewhere();
    for status in [300, 301, 302, 303, 307, 308] {
        let target = format!("http://{}/reg/devices.txt", guarded.address());
        let store = Store::start(move |_| {
            Answer::text(format!(
                "HTTP/1.1 {status} Elsewhere\r\n{REQUEST_ID}Location: {target}\r\nContent-Length: 0\r\n\r\n"
            ))
        })
        .await;
        check_unreachable(&container_at(store.address), &status.to_string()).await;
    }
    guarded.check_nobody_came();
}

#[tokio::test]
async fn t803_a_redirect_to_the_same_store_is_not_followed_either() {
    let store = Store::start(|request| match request.target().starts_with("/elsewhere") {
        true => Answer::text(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok")),
        false => Answer::text(format!(
            "HTTP/1.1 302 Found\r\n{REQUEST_ID}Location: /elsewhere\r\nContent-Length: 0\r\n\r\n"
        )),
    })
    .await;
    let container = container_at(store.address);
    assert!(matches!(read(&container).await, Err(ContainerError::Unreachable)));
    assert_eq!(store.requests().len(), 1);
}

/// The child of the test below: it has proxy variables, and reads a blob all the same.
#[tokio::test]
async fn t803_proxy_variables_are_ignored() {
    const STORE: &str = "PORTCULLIS_TEST_BLOB_STORE";
    if let Ok(address) = std::env::var(STORE) {
        assert_eq!(read(&container_at(address.parse().unwrap())).await.unwrap(), 2);
        return;
    }
    let store =
        Store::start(|_| Answer::text(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok")))
            .await;
    let proxy = Guarded::somewhere();
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "t803_proxy_variables_are_ignored"]).env(STORE, store.address.to_string());
    for variable in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        child.env(variable, format!("http://{}", proxy.address()));
    }
    let output = within(child.env_remove("no_proxy").env_remove("NO_PROXY").output()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(store.requests().len(), 1);
    proxy.check_nobody_came();
}

#[tokio::test]
async fn t803_a_bad_certificate_is_not_taken() {
    let (ca, other_ca) = (TestCa::new(), TestCa::new());
    let directory = tempfile::tempdir().unwrap();
    let trusted = directory.path().join("ca.pem");
    std::fs::write(&trusted, ca.pem()).unwrap();
    let good = ca.server(&["store.test"]);
    let bad = [
        ("of another CA", other_ca.server(&["store.test"])),
        ("for another name", ca.server(&["evil.test", "127.0.0.1"])),
        ("expired", ca.expired_server(&["store.test"])),
        ("self-signed", TestCa::self_signed_device("store.test")),
    ];
    let answer = |_: &store::Request| {
        Answer::text(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok"))
    };
    let container = |address: SocketAddr, patience: Duration| {
        let listed = format!("store.test:{}", address.port());
        let mut config = config(&[&listed]);
        config.limits.blob_idle_time_max = patience;
        let hosts = BlobHosts::new(&config)
            .with_lookup(Answers::new(&[&["127.0.0.1"]]))
            .with_tls(tls::client_config(Some(&trusted)).unwrap());
        BlobContainer::parse(&format!("https://{listed}/reg?{SAS}"), &hosts).unwrap()
    };
    let key = |key: &PrivateKeyDer<'static>| key.clone_key();

    let store = Store::start_tls(good.certificate.clone(), key(&good.key), answer).await;
    assert_eq!(read(&container(store.address, PATIENCE)).await.unwrap(), 2);
    for (what, cert) in bad {
        let store = Store::start_tls(cert.certificate.clone(), key(&cert.key), answer).await;
        check_unreachable(&container(store.address, PATIENCE), what).await;
        assert!(store.requests().is_empty(), "{what}");
    }
    // A store that speaks no TLS where it should.
    let store = Store::start(answer).await;
    check_unreachable(&container(store.address, LITTLE_PATIENCE), "plain").await;
    assert!(!store.requests().iter().any(|request| request.contains(SECRET)));
}

/// The head of an answer with a blob, and these headers.
fn found(headers: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}{headers}\r\n")
}

#[tokio::test]
async fn t805_a_blob_that_does_not_come_whole_is_an_error() {
    let answers: Vec<(&str, Answer)> = vec![
        ("no length", Answer::close_after(found("") + "half a line")),
        ("no length, HTTP/1.0", Answer::close_after(found("").replace("1.1", "1.0") + "half a line")),
        ("chunked, cut", Answer::close_after(found("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n")),
        ("chunked", Answer::text(found("Transfer-Encoding: chunked\r\n") + "3\r\nabc\r\n0\r\n\r\n")),
        ("short", Answer::close_after(found("Content-Length: 100\r\n") + "half a line")),
        ("two lengths", Answer::text(found("Content-Length: 5\r\nContent-Length: 3\r\n") + "abcde")),
        ("a negative length", Answer::text(found("Content-Length: -5\r\n") + "abcde")),
        ("a huge length", Answer::text(found("Content-Length: 99999999999999999999\r\n") + "abcde")),
        ("a head without end", Answer::flood("HTTP/1.1 200 OK\r\n".to_owned(), "X-Long: yes\r\n")),
        ("part", Answer::text(found("Content-Length: 2\r\n").replace("200 OK", "206 Partial") + "ok")),
    ];
    for (what, answer) in answers {
        let store = Store::start(move |_| answer.clone()).await;
        let outcome = read(&container_at(store.address)).await;
        assert!(matches!(outcome, Err(ContainerError::Unreachable)), "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn t805_a_blob_that_comes_too_slowly_is_an_error() {
    let answers: Vec<(&str, Answer)> = vec![
        ("nothing more", Answer::text(found("Content-Length: 100\r\n") + "half a line")),
        ("byte after byte", Answer::drip(found("Content-Length: 100\r\n"))),
        ("a head, byte after byte", Answer::drip("HTTP/1.1 200 OK\r\nX-Slow: ".to_owned())),
        ("continue without end", Answer::flood(String::new(), "HTTP/1.1 100 Continue\r\n\r\n")),
    ];
    for (what, answer) in answers {
        let store = Store::start(move |_| answer.clone()).await;
        let outcome = read(&hasty_container_at(store.address)).await;
        assert!(matches!(outcome, Err(ContainerError::Unreachable)), "{what}: {outcome:?}");
    }
}

#[tokio::test]
async fn t805_a_blob_larger_than_the_limit_is_not_begun() {
    const GIB_10: u64 = 10 << 30;
    let store = Store::start(|_| {
        Answer::text(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: {GIB_10}\r\n\r\nthe first line"))
    })
    .await;
    let outcome = read(&container_at(store.address)).await;
    assert!(matches!(outcome, Err(ContainerError::Limit(_))), "{outcome:?}");
}

#[tokio::test]
async fn t805_no_more_is_held_of_a_blob_than_is_asked_for() {
    const GIB: usize = 1 << 30;
    let flood: &'static str = "x".repeat(64 << 10).leak();
    let store =
        Store::start(move |_| Answer::flood(found(&format!("Content-Length: {GIB}\r\n")), flood)).await;
    let container = container_at(store.address);
    let mut pieces = within(container.read("devices.txt")).await.unwrap();
    assert!(within(pieces.next()).await.unwrap().is_ok());
    // The store is given every chance to send more.
    for _ in 0..10_000 {
        tokio::task::yield_now().await;
    }
    let flooded = store.flooded();
    assert!((1..16 << 20).contains(&flooded), "{flooded} bytes were taken");
}

#[tokio::test]
async fn t805_a_blob_in_a_content_encoding_is_not_read() {
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, identity"] {
        let store = Store::start(move |_| {
            Answer::text(format!(
                "HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Encoding: {encoding}\r\nContent-Length: 2\r\n\r\nok"
            ))
        })
        .await;
        let outcome = read(&container_at(store.address)).await;
        assert!(matches!(outcome, Err(ContainerError::Refused(_))), "{encoding}: {outcome:?}");
        assert!(!store.requests()[0].to_ascii_lowercase().contains("accept-encoding"));
    }
}

#[tokio::test]
async fn t805_what_is_written_goes_in_small_blocks_and_only_so_far() {
    let store = Store::start(|_| {
        Answer::text(format!("HTTP/1.1 201 Created\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"))
    })
    .await;
    let host = format!("http://{}", store.address);
    let mut config = config(&[&host]);
    config.limits.blob_bytes_max = 20 << 20;
    let container = BlobContainer::parse(&format!("{host}/reg?{SAS}"), &BlobHosts::new(&config)).unwrap();
    let mut writer = container.write("devices.txt").unwrap();
    within(writer.write(Bytes::from(vec![0; 18 << 20]))).await.unwrap();
    let outcome = within(writer.write(Bytes::from(vec![0; 3 << 20]))).await;
    assert!(matches!(outcome, Err(ContainerError::Limit(_))), "{outcome:?}");
    assert!(within(writer.finish()).await.is_err());
    assert_eq!(store.body_lengths(), [4 << 20; 4]);
    assert!(store.requests().iter().all(|request| request.contains("comp=block&")), "no list of them is put");
}

#[tokio::test]
async fn a_store_that_is_busy_is_asked_again() {
    let asked = AtomicUsize::new(0);
    let store = Store::start(move |_| {
        let busy = asked.fetch_add(1, Ordering::SeqCst) == 0;
        Answer::text(match busy {
            true => format!(
                "HTTP/1.1 503 Busy\r\n{REQUEST_ID}x-ms-error-code: ServerBusy\r\nContent-Length: 0\r\n\r\n"
            ),
            false => format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok"),
        })
    })
    .await;
    assert_eq!(read(&container_at(store.address)).await.unwrap(), 2);
    assert_eq!(store.requests().len(), 2);
}

#[tokio::test]
async fn t806_whatever_is_inside_looks_the_same() {
    let closed = Guarded::somewhere().address();
    check_unreachable(&container_at(closed), "closed").await;
    let silent = Guarded::somewhere();
    check_unreachable(&hasty_container_at(silent.address()), "silent").await;
    let answers = [
        "SSH-2.0-OpenSSH_9.9\r\n",
        "220 inner.test ESMTP\r\n",
        "-ERR unknown command\r\n",
        "HTTP/1.1 200 OK\r\nX-Inner: secret\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"inner\"\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 404 Not Found\r\nx-ms-error-code: BlobNotFound\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 6\r\n\r\nsecret",
        "HTTP/2 200\r\n\r\n",
        "\0\0\0\0",
        "",
    ];
    for answer in answers {
        let store = Store::start(move |_| Answer::close_after(answer.to_owned())).await;
        check_unreachable(&container_at(store.address), answer).await;
    }
    let slow = Store::start(|_| Answer::drip("HTTP/1.1 200 OK\r\n".to_owned())).await;
    check_unreachable(&hasty_container_at(slow.address), "slow").await;
}

#[tokio::test]
async fn t807_the_signature_is_in_no_log_and_no_error() {
    let log = FullLog::start();
    let good = Store::start(|request| {
        Answer::text(match request.method() {
            "GET" => format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 2\r\n\r\nok"),
            "PUT" => format!("HTTP/1.1 201 Created\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"),
            _ => format!("HTTP/1.1 202 Accepted\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"),
        })
    })
    .await;
    let container = container_at(good.address);
    read(&container).await.unwrap();
    write(&container, 5 << 20).await.unwrap();
    within(container.delete("devices.txt")).await.unwrap();
    assert!(good.requests().iter().all(|request| request.contains(SECRET)), "the store gets it");

    // One that gives back what it was sent, wherever it can.
    let echo = Store::start(|request| {
        let target = request.target().to_owned();
        Answer::close_after(format!(
            "HTTP/1.1 403 {target}\r\nx-ms-request-id: {target}\r\nx-ms-error-code: no\r\nLocation: {target}\r\nContent-Length: {}\r\n\r\n{target}",
            target.len()
        ))
    })
    .await;
    let silent = Guarded::somewhere();
    let closed = Guarded::somewhere().address();
    let short = Store::start(|_| {
        Answer::close_after(format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 9\r\n\r\nok"))
    })
    .await;
    for address in [echo.address, silent.address(), closed, short.address] {
        let container = hasty_container_at(address);
        let shown = format!("{container} {container:?}");
        assert!(shown.contains("/devstoreaccount1/reg") && !shown.contains("sig="), "{shown}");
        let mut writer = container.write("devices.txt").unwrap();
        within(writer.write(Bytes::from_static(b"a device's key"))).await.unwrap();
        let shown = format!("{writer:?}");
        assert!(!shown.contains("sig=") && !shown.contains("key"), "{shown}");
        for outcome in [read(&container).await.map(drop), write(&container, 5 << 20).await] {
            let error = outcome.unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains(SECRET) && !shown.contains("sig="), "{shown}");
        }
    }
    let told = log.text();
    assert!(told.contains("a blob container cannot be reached"), "the log was listened to");
    let line = told.lines().find(|line| line.contains(SECRET) || line.contains("sig="));
    assert_eq!(line, None);
}

#[tokio::test]
async fn a_request_is_what_a_blob_store_expects() {
    let store = Store::start(|request| {
        Answer::text(match request.method() {
            "GET" => format!("HTTP/1.1 200 OK\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"),
            "PUT" => format!("HTTP/1.1 201 Created\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"),
            _ => format!("HTTP/1.1 202 Accepted\r\n{REQUEST_ID}Content-Length: 0\r\n\r\n"),
        })
    })
    .await;
    let container = container_at(store.address);
    assert_eq!(read(&container).await.unwrap(), 0);
    write(&container, 10).await.unwrap();
    within(container.delete("devices.txt")).await.unwrap();
    write(&container, 5 << 20).await.unwrap();

    let requests = store.requests();
    let base = "/devstoreaccount1/reg/devices.txt";
    assert!(requests[0].starts_with(&format!("GET {base}?{SAS} HTTP/1.1\r\n")), "{}", requests[0]);
    assert!(requests[1].starts_with(&format!("PUT {base}?{SAS} HTTP/1.1\r\n")), "{}", requests[1]);
    assert!(requests[1].contains("x-ms-blob-type: BlockBlob\r\n"), "{}", requests[1]);
    assert!(requests[2].starts_with(&format!("DELETE {base}?{SAS} HTTP/1.1\r\n")), "{}", requests[2]);
    for block in &requests[3..5] {
        assert!(block.starts_with(&format!("PUT {base}?comp=block&blockid=")), "{block}");
        assert!(block.lines().next().unwrap().ends_with(&format!("&{SAS} HTTP/1.1")), "{block}");
    }
    assert!(requests[5].starts_with(&format!("PUT {base}?comp=blocklist&{SAS} HTTP/1.1\r\n")));
    assert_eq!(store.body_lengths()[1..5], [10, 0, 4 << 20, 1 << 20]);
    for request in &requests {
        for foreign in ["cookie", "referer", "authorization", "x-ms-version"] {
            assert!(!request.to_ascii_lowercase().contains(foreign), "{request}");
        }
    }
}
