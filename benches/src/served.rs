//! A hub in its own process, and a REST client of it.
//!
//! The process is the calling program again: `program` at the top of `main` turns it into `portcullis serve`. So one
//! `cargo run` builds and tests the same code.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use portcullis::config::local_access::LocalAccess;
use portcullis::config::{self, Config, ServeFlags};
use portcullis::serve;
use portcullis_registry::backend::{Backend, StoreError};
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;
use reqwest::RequestBuilder;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use crate::early::EarlyBackend;
use crate::program::ended;

/// A running hub; killed when dropped.
#[derive(Debug)]
pub struct Served {
    child: Child,
    data_dir: PathBuf,
    /// The time from the start of the process until the hub said that it was ready.
    pub start_time: Duration,
}

/// Becomes the hub when `Served::start` started this process.
pub fn serve_if_asked() -> Option<ExitCode> {
    let data_dir = std::env::var_os(DATA_DIR)?;
    if std::env::var_os(EARLY_STORE).is_some() {
        return Some(ended(serve_on_early_store(data_dir.into())));
    }
    let listen = ["--mqtt-listen", "--https-listen", "--ops-listen"].map(|flag| [flag, "127.0.0.1:0"]);
    let mut arguments = vec!["portcullis".into(), "serve".into(), "--data-dir".into(), data_dir];
    arguments.extend(listen.concat().into_iter().map(Into::into));
    Some(portcullis_cli::run(arguments))
}

/// The hub without a command line around it, for its store is none that the command line knows.
fn serve_on_early_store(data_dir: PathBuf) -> anyhow::Result<()> {
    let listen = vec!["127.0.0.1:0".to_owned()];
    let flags = ServeFlags {
        data_dir: Some(data_dir),
        mqtt_listen: listen.clone(),
        https_listen: listen.clone(),
        ops_listen: listen,
        ..ServeFlags::default()
    };
    let config = Config::load(&flags, config::environment())?;
    let open = |directory: &Path| -> Result<Box<dyn Backend>, StoreError> {
        Ok(Box::new(EarlyBackend::open(directory)?))
    };
    tokio::runtime::Runtime::new()?.block_on(serve::run_on(config, open))
}

impl Served {
    /// Starts a hub and waits until it is ready.
    pub fn start(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start_after("", data_dir, &[])
    }

    /// Starts a hub with these settings, as environment variables.
    pub fn start_with(data_dir: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::start_after("", data_dir, settings)
    }

    /// Starts a hub whose files cannot grow beyond a number of KiB. A larger write fails, as on a failing disk.
    pub fn start_on_failing_disk(data_dir: &Path, file_kib_max: u32) -> anyhow::Result<Self> {
        // POSIX counts in half KiB. With the signal ignored, the write fails instead.
        Self::start_after(&format!("trap '' XFSZ; ulimit -f {};", 2 * file_kib_max), data_dir, &[])
    }

    /// Starts a hub whose store acknowledges before it commits.
    pub fn start_on_early_store(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(data_dir, &[(EARLY_STORE, "1")])
    }

    /// Starts a hub after the shell has done what `prepared` says.
    fn start_after(prepared: &str, data_dir: &Path, settings: &[(&str, &str)]) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = Command::new("sh")
            .args(["-c", &format!("{prepared} exec \"$0\"")])
            .arg(std::env::current_exe()?)
            .env(DATA_DIR, data_dir)
            .envs(settings.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("start the hub")?;
        let said = BufReader::new(child.stderr.take().context("the hub's standard error")?);
        let mut heard = Vec::new();
        let ready = said.lines().map_while(Result::ok).any(|line| {
            heard.push(line.clone());
            line == "ready"
        });
        let served = Self { child, data_dir: data_dir.to_owned(), start_time: began.elapsed() };
        ensure!(ready, "the hub never said that it is ready: {}", heard.join("\n"));
        Ok(served)
    }

    /// SIGKILL, which gives the hub no chance to finish anything.
    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM. Waits for the end of the hub and returns how long that took.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let asked = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(asked.success() && self.child.wait()?.success(), "the hub did not stop in order");
        Ok(began.elapsed())
    }

    /// Waits until the hub has ended by itself.
    pub fn give_up(mut self) -> anyhow::Result<()> {
        ensure!(!self.child.wait()?.success(), "the hub ended as if all were well");
        Ok(())
    }

    /// The hub's data directory.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The hub's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory of the process, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        resident_bytes(&self.child.id().to_string())
    }

    /// The highest memory since the last reset, in bytes.
    pub fn peak_bytes(&self) -> anyhow::Result<u64> {
        memory_bytes(&self.child.id().to_string(), "VmHWM:")
    }

    /// Resets the peak.
    pub fn forget_peak(&self) -> anyhow::Result<()> {
        // Linux, proc(5): what 5 resets is the peak of the resident set.
        std::fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").context("the peak of memory")
    }

    /// The processor time of the process so far.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Linux, proc(5): the name, in parentheses, is the second field; 14 and 15 are user's and system's ticks.
        let after_name = stat.rsplit(')').next().context("a stat line")?;
        let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.collect::<Result<Vec<_>, _>>()?.iter().sum();
        Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
    }

    /// The hub's addresses and its owner's connection string.
    pub fn access(&self) -> anyhow::Result<LocalAccess> {
        LocalAccess::read(&self.data_dir).context("the access file")
    }

    /// The CA that its clients must trust.
    pub fn roots(&self) -> anyhow::Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.data_dir.join("ca.pem"))?)?;
        Ok(roots)
    }

    /// A client that signs in as the hub's owner.
    pub fn rest(&self) -> anyhow::Result<Rest> {
        self.rest_trusting(self.roots()?)
    }

    /// The same for a hub with a certificate of another CA.
    pub fn rest_trusting(&self, roots: RootCertStore) -> anyhow::Result<Rest> {
        let access = self.access()?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let address = SocketAddr::new(access.connect_address.parse()?, access.https_port);
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            // A form redirects to the page with its result.
            .redirect(reqwest::redirect::Policy::none())
            .resolve(&access.hostname, address)
            .build()?;
        let key = access.owner.split("SharedAccessKey=").last().context("the owner's key")?;
        let key = SymmetricKey::parse_base64(key)?;
        let expiry = Timestamp::now().as_second() + TOKEN_SECONDS;
        Ok(Rest {
            http,
            base: format!("https://{}:{}", access.hostname, access.https_port),
            token: sas::sign(&access.hostname, &key, expiry, Some("iothubowner")),
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The memory of a process, in bytes; `self` is this process.
pub fn resident_bytes(process: &str) -> anyhow::Result<u64> {
    memory_bytes(process, "VmRSS:")
}

fn memory_bytes(process: &str, which: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(which)).context("no such figure")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}

/// A REST client.
#[derive(Clone, Debug)]
pub struct Rest {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Rest {
    /// A request to a path without its query.
    pub fn request(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}?api-version=2021-04-12", self.base);
        self.http.request(method, url).header("authorization", &self.token)
    }

    /// A request for a page, without a sign-in.
    pub fn browse(&self, method: reqwest::Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }
}

/// The value that Linux reports to user space on every machine.
const TICKS_PER_SECOND: u64 = 100;
const DATA_DIR: &str = "PORTCULLIS_BENCHES_SERVE";
/// Set when the hub is to run on the store of `early`.
const EARLY_STORE: &str = "PORTCULLIS_BENCHES_EARLY_STORE";
const TOKEN_SECONDS: i64 = 24 * 3600;
