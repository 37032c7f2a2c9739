//! `portcullis serve`: brings a hub up from its data directory, serves until told to stop, and goes down in order.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use portcullis_registry::authority::Authorities;
use portcullis_registry::backend::sqlite::SqliteBackend;
use portcullis_registry::backend::{Backend, StoreError};
use portcullis_registry::backup;
use portcullis_registry::feedback::FeedbackLimits;
use portcullis_registry::store::{Registry, RegistryLimits};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::auth::{HostNames, Trust};
use crate::config::local_access::LocalAccess;
use crate::config::{Config, Listen};
use crate::http;
use crate::hub::admission::AdmissionControl;
use crate::hub::listener::{self, Accepted};
use crate::hub::{Hub, certificate_reload};
use crate::mqtt::admin::Commands;
use crate::mqtt::connection;
use crate::operations::authorities;
use crate::operations::policies;
use crate::operations::sweeper;
use crate::portal;
use crate::tls::ServerTls;

/// A hub with its listeners bound and not yet accepting.
#[derive(Debug)]
pub struct BoundHub {
    pub hub: Arc<Hub>,
    mqtt: Vec<TcpListener>,
    https: Vec<TcpListener>,
    ops: Vec<TcpListener>,
    /// Whether the default HTTPS port could not be had and the fallback was taken.
    https_fell_back: bool,
}

/// How the store in a directory is opened.
pub type OpenStore = fn(&Path) -> Result<Box<dyn Backend>, StoreError>;

/// Serves until SIGTERM or Ctrl-C. Prints what a first user needs to know.
pub async fn run(config: Config) -> anyhow::Result<()> {
    run_on(config, open_sqlite).await
}

/// Serves from a store that `open_store` opens; otherwise as `run`. For programs that try a hub on a faulty store.
pub async fn run_on(config: Config, open_store: OpenStore) -> anyhow::Result<()> {
    let bound = bind_on(config, open_store).await?;
    let hub = Arc::clone(&bound.hub);
    let local = bound.local_access();
    local.write(&hub.config.data_dir).context("the access file for this machine cannot be written")?;
    // Nobody may be there to read it; the hub serves all the same (threats T914).
    let _ = bound.print_welcome();
    let mut terminate = signal(SignalKind::terminate()).context("no signal handler")?;
    // Heard from now on: without a handler it would end the process.
    let hangup = signal(SignalKind::hangup()).context("no signal handler")?;
    bound.accept();
    hub.tasks.spawn(certificate_reload::follow(Arc::clone(&hub), hangup));
    notify_supervisor(sd_notify::NotifyState::Ready);
    print_status("ready");
    let failed = tokio::select! {
        outcome = tokio::signal::ctrl_c() => {
            outcome.context("no signal handler")?;
            None
        }
        _ = terminate.recv() => None,
        // Nothing can be acknowledged any more; a new process has to look at the disk afresh.
        () = hub.registry.store_lost() => Some(anyhow::anyhow!("the store failed; see the log")),
    };
    notify_supervisor(sd_notify::NotifyState::Stopping);
    print_status(&format!("stopping: telling {} connected devices", hub.sessions.len()));
    hub.stop().await;
    print_status("stopped");
    failed.map_or(Ok(()), Err)
}

/// Loads everything and binds every address; nothing is accepted yet.
pub async fn bind(config: Config) -> anyhow::Result<BoundHub> {
    bind_on(config, open_sqlite).await
}

async fn bind_on(config: Config, open_store: OpenStore) -> anyhow::Result<BoundHub> {
    let mqtt = bind_all(&config.mqtt_listen, "MQTT")?.0;
    let (https, https_fell_back) = bind_all(&config.https_listen, "HTTPS")?;
    let ops = bind_all(&config.ops_listen, "operations")?.0;
    let tls = ServerTls::open_or_create(&config).context("the server certificate")?;
    let registry = open_registry(&config, open_store).await?;
    let policies = policies::open(&registry, &config).await.context("the shared access policies")?;
    let hosts = HostNames::new(config.host_names(), ports(mqtt.iter().chain(&https)));
    let trust = open_trust(&registry)?;
    let hub = Hub::new(config, hosts, tls, registry, policies, trust)
        .context("the telemetry bus and the audit record")?;
    certificate_reload::report_expiry(&hub);
    Ok(BoundHub { hub, mqtt, https, ops, https_fell_back })
}

impl BoundHub {
    /// Starts accepting on every listener.
    pub fn accept(self) {
        let Self { hub, mqtt, https, ops, .. } = self;
        hub.tasks.spawn(sweeper::run(Arc::clone(&hub)));
        let router = http::router(Arc::clone(&hub));
        let commands = Arc::new(Commands::new(router.clone()));
        for listener in mqtt {
            let admission = Arc::clone(&hub.admission);
            let commands = Arc::clone(&commands);
            let serve = move |hub, accepted| connection::serve(hub, Arc::clone(&commands), accepted);
            hub.tasks.spawn(listener::run(Arc::clone(&hub), listener, admission, serve));
        }
        let router = portal::in_front_of(&hub, router);
        for listener in https {
            let (router, commands) = (router.clone(), Arc::clone(&commands));
            let serve =
                move |hub, accepted| serve_https(hub, router.clone(), Arc::clone(&commands), accepted);
            hub.tasks.spawn(listener::run(Arc::clone(&hub), listener, Arc::clone(&hub.admission), serve));
        }
        let router = http::ops_router(Arc::clone(&hub));
        for listener in ops {
            let router = router.clone();
            let serve = move |hub, accepted| http::serve_ops(hub, router.clone(), accepted);
            // Admission control of its own: a crowd of devices must not keep the operator from looking (threats T1003).
            let admission = AdmissionControl::new(OPS_CONNECTIONS_MAX, OPS_CONNECTIONS_MAX, None);
            hub.tasks.spawn(listener::run(Arc::clone(&hub), listener, admission, serve));
        }
    }

    /// The first MQTT address.
    pub fn mqtt_address(&self) -> Option<SocketAddr> {
        self.mqtt.first().and_then(|listener| listener.local_addr().ok())
    }

    /// The first HTTPS address.
    pub fn https_address(&self) -> Option<SocketAddr> {
        self.https.first().and_then(|listener| listener.local_addr().ok())
    }

    /// The first operations address.
    pub fn ops_address(&self) -> Option<SocketAddr> {
        self.ops.first().and_then(|listener| listener.local_addr().ok())
    }

    /// How programs on this machine reach the hub as its owner.
    pub fn local_access(&self) -> LocalAccess {
        let hub = &self.hub;
        LocalAccess {
            hostname: hub.hosts.primary().to_owned(),
            mqtt_port: self.mqtt_address().map_or(0, |address| address.port()),
            https_port: self.https_address().map_or(0, |address| address.port()),
            connect_address: self
                .https_address()
                .map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| reachable(address.ip()))
                .to_string(),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            owner: policies::owner_connection_string(hub),
        }
    }

    fn print_welcome(&self) -> io::Result<()> {
        let hub = &self.hub;
        let mut out = io::stdout().lock();
        let data_dir = hub.config.data_dir.display();
        let show = |listeners: &[TcpListener]| {
            let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok());
            addresses.map(|address| address.to_string()).collect::<Vec<_>>().join(", ")
        };
        let here =
            match hub.config.data_dir.as_path() == std::path::Path::new(crate::config::DATA_DIR_DEFAULT) {
                true => String::new(),
                false => format!(" --data-dir {data_dir}"),
            };
        // As it was called, so that the commands below work as they stand.
        let program = std::env::args().next().unwrap_or_else(|| "portcullis".into());
        writeln!(out, "Portcullis {} for {}", env!("CARGO_PKG_VERSION"), hub.hosts.primary())?;
        writeln!(out, "  devices (MQTT over TLS)  {}", show(&self.mqtt))?;
        writeln!(out, "  service (HTTPS)          {}", show(&self.https))?;
        if self.https_fell_back {
            writeln!(
                out,
                "    port 443 could not be bound; the service SDKs expect it (see --https-listen)"
            )?;
        }
        if let Some(address) = self.https_address() {
            let port = if address.port() == 443 { String::new() } else { format!(":{}", address.port()) };
            writeln!(out, "  portal                   https://{}{port}/portal", hub.hosts.primary())?;
        }
        writeln!(out, "  metrics and health       {}", show(&self.ops))?;
        writeln!(out, "  data                     {data_dir}  ({} devices)", hub.registry.counts().devices)?;
        match &hub.config.certificate {
            None => {
                writeln!(out, "  clients must trust       {}", hub.config.data_dir.join("ca.pem").display())?
            }
            Some(given) => writeln!(out, "  server certificate       {}", given.chain.display())?,
        }
        writeln!(out, "Owner connection string:")?;
        writeln!(out, "  {program} connection-string show{here}")?;
        writeln!(out, "Create a first device, then see its connection string:")?;
        writeln!(out, "  {program} device-identity create --device-id my-device{here}")?;
        writeln!(out, "  {program} connection-string show --device-id my-device{here}")?;
        out.flush()
    }
}

/// Tells systemd how far the hub is, where it is systemd that started it.
fn notify_supervisor(state: sd_notify::NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(false, &[state]) {
        tracing::warn!(%error, "systemd cannot be told that the hub is ready or stopping");
    }
}

/// Tells whoever watches on standard error, if anybody does.
fn print_status(text: &str) {
    // Nobody may be there to read it.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Serves one connection of the HTTPS listener. Once it has switched to a WebSocket it is a device's.
async fn serve_https(hub: Arc<Hub>, router: Router, commands: Arc<Commands>, accepted: Accepted) {
    // Boxed, so that a device that stays for months does not carry along the room its request took.
    let switched = Box::pin(http::serve(&hub, router, accepted)).await;
    if let Some(http::Switched { stream, early, peer, permit }) = switched {
        connection::serve_websocket(hub, commands, Box::new(stream), early, peer, permit).await;
    }
}

fn open_sqlite(directory: &Path) -> Result<Box<dyn Backend>, StoreError> {
    Ok(Box::new(SqliteBackend::open(directory)?))
}

async fn open_registry(config: &Config, open_store: OpenStore) -> anyhow::Result<Arc<Registry>> {
    let directory = config.data_dir.join(backup::STORE);
    let limits = &config.limits;
    let limits = RegistryLimits {
        modules_per_device_max: limits.modules_per_device_max,
        queue_messages_max: limits.queue_messages_max,
        c2d_bytes_max: limits.c2d_bytes_max,
        c2d_ttl_default: limits.c2d_ttl_default,
        c2d_ttl_max: limits.c2d_ttl_max,
        queued_bytes_max: limits.queued_bytes_max,
        delivery_count_max: u32::try_from(limits.c2d_delivery_count_max).unwrap_or(u32::MAX),
        feedback: FeedbackLimits {
            records_max: limits.feedback_records_max,
            ttl: limits.feedback_ttl_max,
            batch_time_max: limits.feedback_batch_time_max,
            deliveries_max: u32::try_from(limits.feedback_delivery_count_max).unwrap_or(u32::MAX),
        },
    };
    let opened = tokio::task::spawn_blocking(move || Registry::open(open_store(&directory)?, limits));
    opened.await.context("the store's thread")?.context("the store")
}

/// The enrolled CAs. Ones that cannot be read are no reason to serve without them.
fn open_trust(registry: &Registry) -> anyhow::Result<Trust> {
    let authorities = match registry.meta(authorities::STORED) {
        Some(bytes) => Authorities::decode(&bytes)?,
        None => Authorities::default(),
    };
    Trust::new(authorities).context("a stored CA certificate")
}

/// Binds every address of a listener, or where the default port may not be had its fallback port.
fn bind_all(listen: &Listen, name: &str) -> anyhow::Result<(Vec<TcpListener>, bool)> {
    match bind_addresses(&listen.addrs, listen.defaulted) {
        Ok(listeners) => Ok((listeners, false)),
        Err((_, error)) if listen.fallback_port.is_some() && is_refused(&error) => {
            let port = listen.fallback_port.unwrap_or_default();
            let addresses: Vec<_> =
                listen.addrs.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
            let bound = bind_addresses(&addresses, listen.defaulted);
            bound
                .map(|listeners| (listeners, true))
                .map_err(|(address, error)| cannot_bind(name, address, error))
        }
        Err((address, error)) => Err(cannot_bind(name, address, error)),
    }
}

fn bind_addresses(
    addresses: &[SocketAddr],
    defaulted: bool,
) -> Result<Vec<TcpListener>, (SocketAddr, io::Error)> {
    let mut listeners = Vec::new();
    for address in addresses {
        match listener::bind(*address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 is no mistake when nobody asked for IPv6.
            Err(error) if defaulted && address.is_ipv6() && !listeners.is_empty() => {
                tracing::debug!(%address, %error, "IPv6 is not available");
            }
            Err(error) => return Err((*address, error)),
        }
    }
    Ok(listeners)
}

fn is_refused(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::AddrInUse)
}

fn cannot_bind(name: &str, address: SocketAddr, error: io::Error) -> anyhow::Error {
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => "; another program listens there",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege (CAP_NET_BIND_SERVICE)",
        _ => "",
    };
    anyhow::Error::new(error).context(format!("the {name} listener cannot be bound to {address}{hint}"))
}

/// An address that reaches a listener from this machine.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(four) if four.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(six) if six.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        address => address,
    }
}

fn ports<'a>(listeners: impl Iterator<Item = &'a TcpListener>) -> Vec<u16> {
    listeners.filter_map(|listener| listener.local_addr().ok()).map(|address| address.port()).collect()
}

/// Connections to the operations listener at once.
const OPS_CONNECTIONS_MAX: usize = 64;
