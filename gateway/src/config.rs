//! Flags, environment and files become one checked `Config` before any port is bound.
//!
//! Flags win over the environment, the environment over files, a later file over an earlier one, and all over the
//! defaults, which stand in `Config::default` and `limits`. A mistake anywhere, even in a value that another one
//! overrides, refuses the whole: the hub starts as asked or not at all.
//!
//! To add a setting: a field of `Config`, its default, and its entry in `settings`; a limit is one line in `limits`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use portcullis_registry::credential::SymmetricKey;
use tracing_subscriber::filter::{LevelFilter, Targets};

use crate::auth::SasSwitches;
use crate::config::blob_host::BlobHost;

pub mod blob_host;
mod draft;
mod host_name;
mod limits;
pub mod local_access;
mod settings;
mod source;
#[cfg(test)]
mod tests;
mod text;

pub use host_name::{HostName, InvalidHostName};
pub use limits::Limits;
pub use source::SettingOrigin;

use draft::Draft;
use limits::LIMITS;
use settings::{SETTINGS, SettingText, quoted};
use source::Text;

/// Everything a hub is told from outside. No text is left to interpret.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub hostname: HostName,
    pub aliases: Vec<HostName>,
    pub data_dir: PathBuf,
    pub mqtt_listen: Listen,
    pub https_listen: Listen,
    pub ops_listen: Listen,
    /// The operator's own server certificate; none: the hub has one made by its own CA.
    pub certificate: Option<CertificateFiles>,
    /// Where the containers `file:NAME` of jobs are; none: in the data directory.
    pub jobs_folder: Option<PathBuf>,
    /// Who may prove itself by a SAS token.
    pub sas: SasSwitches,
    /// Blob stores that jobs may use beside Azure's own.
    pub blob_hosts: Vec<BlobHost>,
    pub log_filter: Targets,
    pub log_format: LogFormat,
    pub limits: Limits,
    /// Keys given for the built-in policies, by the policy's exact name.
    pub policy_keys: BTreeMap<&'static str, PolicyKeys>,
}

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub addrs: Vec<SocketAddr>,
    /// The port to take where the one of `addrs` may not be bound.
    pub fallback_port: Option<u16>,
    /// Nobody asked for these addresses: one of a family this machine has not is no error.
    pub defaulted: bool,
}

/// Files with a server's certificate chain and its key, PEM both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

/// Keys given for one policy; one not given stays as the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyKeys {
    pub primary: Option<SymmetricKey>,
    pub secondary: Option<SymmetricKey>,
}

/// The command line's part of the configuration, as given.
#[derive(Clone, Debug, Default)]
pub struct ServeFlags {
    /// Where the hub keeps its data.
    pub data_dir: Option<PathBuf>,
    /// The hub's name in connection strings and in its certificate.
    pub hostname: Option<String>,
    /// Where devices connect, MQTT over TLS; addresses with ports.
    pub mqtt_listen: Vec<String>,
    /// Where services and operators connect, HTTPS; addresses with ports.
    pub https_listen: Vec<String>,
    /// Where metrics and health are served, plain HTTP; addresses with ports.
    pub ops_listen: Vec<String>,
    /// Configuration files (TOML); later ones win.
    pub config: Vec<PathBuf>,
    /// How log lines look: auto, text or json.
    pub log_format: Option<String>,
}

/// Why a configuration is refused. No text of it shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be used: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} is no setting{}", origin.place(key), did_you_mean(suggestion.as_deref()))]
    Unknown { key: String, origin: SettingOrigin, suggestion: Option<String> },
    #[error("{}: {reason}", origin.place(key))]
    Invalid { key: String, origin: SettingOrigin, reason: String },
    #[error("{} is given twice", origin.place(key))]
    Twice { key: String, origin: SettingOrigin },
    #[error("limits.{0}")]
    Contradiction(&'static str),
    #[error("tls.certificate and tls.key belong together; only one of them is given")]
    HalfACertificate,
}

impl Default for Config {
    /// What holds when nothing is given.
    fn default() -> Self {
        Self {
            hostname: HostName::parse(HOSTNAME_DEFAULT).expect("the default is a host name"),
            aliases: Vec::new(),
            data_dir: PathBuf::from(DATA_DIR_DEFAULT),
            mqtt_listen: Listen::everywhere(MQTT_PORT_DEFAULT, None),
            https_listen: Listen::everywhere(HTTPS_PORT_DEFAULT, Some(HTTPS_PORT_FALLBACK)),
            ops_listen: Listen { addrs: vec![OPS_DEFAULT], fallback_port: None, defaulted: true },
            certificate: None,
            jobs_folder: None,
            sas: SasSwitches { devices: true, modules: true },
            blob_hosts: Vec::new(),
            // The telemetry bus logs its own links at `info`; nobody who runs a hub asked for that.
            log_filter: Targets::new()
                .with_default(LevelFilter::INFO)
                .with_target("rumqttd", LevelFilter::WARN),
            log_format: LogFormat::Auto,
            limits: Limits::default(),
            policy_keys: BTreeMap::new(),
        }
    }
}

impl Config {
    /// Reads every source and checks the whole. `environment` holds all variables; those not ours are passed over.
    pub fn load(
        flags: &ServeFlags,
        environment: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut draft = Draft::default();
        for path in &flags.config {
            draft.apply(source::from_file(path)?)?;
        }
        draft.apply(source::from_environment(environment))?;
        draft.apply(source::from_flags(flags))?;
        if let Some(data_dir) = &flags.data_dir {
            draft.config.data_dir.clone_from(data_dir);
        }
        draft.finish()
    }

    /// The names this hub answers to, its own first.
    pub fn host_names(&self) -> Vec<String> {
        std::iter::once(&self.hostname).chain(&self.aliases).map(HostName::to_string).collect()
    }

    /// Where the containers `file:NAME` of jobs are.
    pub fn jobs_folder(&self) -> PathBuf {
        self.jobs_folder.clone().unwrap_or_else(|| self.data_dir.join(CONTAINERS_DIRECTORY))
    }

    /// Every setting with its value, as a file that can be loaded again. Keys are never shown.
    pub fn to_toml(&self) -> String {
        let mut lines = Vec::new();
        let mut current = "";
        for setting in SETTINGS {
            let (section, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
            if section != current {
                lines.push(format!("\n[{section}]"));
                current = section;
            }
            lines.push(format!("# {}", setting.help));
            lines.push(match (setting.show)(self) {
                SettingText::Set(value) => format!("{name} = {value}"),
                SettingText::Unset(value) => format!("# {name} = {value}"),
            });
        }
        lines.push("\n[limits]".to_owned());
        for limit in LIMITS {
            lines.push(format!("#{}", limit.help));
            let value = (limit.show)(&self.limits);
            let is_count = value.bytes().all(|byte| byte.is_ascii_digit());
            lines.push(format!("{} = {}", limit.name, if is_count { value } else { quoted(value) }));
        }
        for (policy, keys) in &self.policy_keys {
            lines.push(format!("\n[policies.{policy}]"));
            for (name, key) in [("primary_key", &keys.primary), ("secondary_key", &keys.secondary)] {
                lines.extend(key.iter().map(|_| format!("# {name} = \"(given, not shown)\"")));
            }
        }
        lines.join("\n") + "\n"
    }
}

impl Listen {
    /// Every address of the machine, IPv4 first.
    fn everywhere(port: u16, fallback_port: Option<u16>) -> Self {
        let addresses = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        Self {
            addrs: addresses.map(|address| SocketAddr::new(address, port)).to_vec(),
            fallback_port,
            defaulted: true,
        }
    }

    /// The addresses somebody asked for: those and no others.
    fn parse(text: &Text) -> Result<Self, String> {
        let texts = text.many()?;
        if texts.is_empty() || texts.len() > LISTEN_ADDRESSES_MAX {
            return Err(format!("1 to {LISTEN_ADDRESSES_MAX} addresses belong here"));
        }
        let address = |text: &str| {
            text.parse().map_err(|_| {
                format!("{text:?} is not an IP address and port such as \"0.0.0.0:8883\" or \"[::]:8883\"")
            })
        };
        let addrs = texts.into_iter().map(address).collect::<Result<_, _>>()?;
        Ok(Self { addrs, fallback_port: None, defaulted: false })
    }

    fn show(&self) -> SettingText {
        let texts: Vec<_> = self.addrs.iter().map(|address| quoted(address.to_string())).collect();
        let list = format!("[{}]", texts.join(", "));
        if self.defaulted { SettingText::Unset(list) } else { SettingText::Set(list) }
    }
}

impl LogFormat {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{text:?} is not one of auto, text, json")),
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

/// The variables of this process. Bytes that are not UTF-8 become U+FFFD, which no setting takes for a good value.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |bytes: std::ffi::OsString| bytes.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

/// Where a hub keeps its data if nobody says.
pub const DATA_DIR_DEFAULT: &str = "portcullis-data";
/// Where in the data directory the containers of jobs are if nobody says.
const CONTAINERS_DIRECTORY: &str = "containers";
const HOSTNAME_DEFAULT: &str = "localhost";
/// The device SDKs take this port and no other.
const MQTT_PORT_DEFAULT: u16 = 8883;
/// The service SDKs take this port and no other.
const HTTPS_PORT_DEFAULT: u16 = 443;
const HTTPS_PORT_FALLBACK: u16 = 8443;
const OPS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const LISTEN_ADDRESSES_MAX: usize = 16;
