//! Turns flags, environment and files into one checked `Config` before the hub binds any port.
//!
//! Flags override the environment, the environment overrides files, a later file overrides an earlier one, and all
//! override the defaults in `Config::default` and `limits`. A mistake anywhere, even in an overridden value, fails the
//! whole configuration: the hub starts exactly as asked, or does not start.
//!
//! To add a setting: a field of `Config`, its default, and its entry in `settings`. A limit is one line in `limits`.

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

/// The complete configuration of a hub. No text is left to interpret.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub hostname: HostName,
    pub aliases: Vec<HostName>,
    pub data_dir: PathBuf,
    pub mqtt_listen: Listen,
    pub https_listen: Listen,
    pub ops_listen: Listen,
    /// The operator's own server certificate; without one the hub's own CA makes it.
    pub certificate: Option<CertificateFiles>,
    /// The folder of the containers `file:NAME` of jobs; without it, a folder in the data directory.
    pub jobs_folder: Option<PathBuf>,
    /// Which kinds of identities may sign in with a SAS token.
    pub sas: SasSwitches,
    /// Blob stores that jobs may use besides Azure's own.
    pub blob_hosts: Vec<BlobHost>,
    pub log_filter: Targets,
    pub log_format: LogFormat,
    pub limits: Limits,
    /// The configured keys of built-in policies, by the policy's exact name.
    pub policy_keys: BTreeMap<&'static str, PolicyKeys>,
}

/// The addresses of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub addrs: Vec<SocketAddr>,
    /// The port to use if the hub may not bind the one of `addrs`.
    pub fallback_port: Option<u16>,
    /// The addresses are the default ones. It is no error if this machine lacks one of their families.
    pub defaulted: bool,
}

/// The files of a server's certificate chain and its key, both PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    pub chain: PathBuf,
    pub key: PathBuf,
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    Text,
    Json,
}

/// The configured keys of one policy. A key that is absent stays as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyKeys {
    pub primary: Option<SymmetricKey>,
    pub secondary: Option<SymmetricKey>,
}

/// The settings that the command line gives.
#[derive(Clone, Debug, Default)]
pub struct ServeFlags {
    /// The directory where the hub keeps its data.
    pub data_dir: Option<PathBuf>,
    /// The hub's name in connection strings and in its certificate.
    pub hostname: Option<String>,
    /// The addresses where devices connect, MQTT over TLS; with ports.
    pub mqtt_listen: Vec<String>,
    /// The addresses where services and operators connect, HTTPS; with ports.
    pub https_listen: Vec<String>,
    /// The addresses that serve metrics and health, plain HTTP; with ports.
    pub ops_listen: Vec<String>,
    /// Configuration files (TOML); a later file overrides an earlier one.
    pub config: Vec<PathBuf>,
    /// The format of log lines: auto, text or json.
    pub log_format: Option<String>,
}

/// Why a configuration is refused. Its text never contains a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be used: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} is not a setting{}", origin.place(key), did_you_mean(suggestion.as_deref()))]
    Unknown { key: String, origin: SettingOrigin, suggestion: Option<String> },
    #[error("{}: {reason}", origin.place(key))]
    Invalid { key: String, origin: SettingOrigin, reason: String },
    #[error("{} is given twice", origin.place(key))]
    Twice { key: String, origin: SettingOrigin },
    #[error("limits.{0}")]
    Contradiction(&'static str),
    #[error(
        "tls.certificate and tls.key belong together, but only one of them is given; set both or neither"
    )]
    HalfACertificate,
}

impl Default for Config {
    /// The configuration without any settings.
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
            // The telemetry bus logs its own connections at `info`, which the operator of a hub does not need.
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
    /// Reads and checks every source. `environment` holds all variables; those of other programs are ignored.
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

    /// The folder of the containers `file:NAME` of jobs.
    pub fn jobs_folder(&self) -> PathBuf {
        self.jobs_folder.clone().unwrap_or_else(|| self.data_dir.join(CONTAINERS_DIRECTORY))
    }

    /// Every setting with its value, as a file that can be loaded again. Keys are never included.
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

    /// The addresses that the operator names, and no others.
    fn parse(text: &Text) -> Result<Self, String> {
        let texts = text.many()?;
        if texts.is_empty() || texts.len() > LISTEN_ADDRESSES_MAX {
            return Err(format!("give 1 to {LISTEN_ADDRESSES_MAX} addresses"));
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

/// The variables of this process. Bytes that are not UTF-8 become U+FFFD, which no setting accepts.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |bytes: std::ffi::OsString| bytes.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

/// The default data directory.
pub const DATA_DIR_DEFAULT: &str = "portcullis-data";
/// The default folder of job containers in the data directory.
const CONTAINERS_DIRECTORY: &str = "containers";
const HOSTNAME_DEFAULT: &str = "localhost";
/// The only port that device SDKs use.
const MQTT_PORT_DEFAULT: u16 = 8883;
/// The only port that service SDKs use.
const HTTPS_PORT_DEFAULT: u16 = 443;
const HTTPS_PORT_FALLBACK: u16 = 8443;
const OPS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const LISTEN_ADDRESSES_MAX: usize = 16;
