//! Flags, environment and files become one checked `Config` before any port is bound.
//!
//! Flags win over the environment, the environment over files, a later file over an earlier one, and all over the
//! defaults, which stand in `Config::default` and `limits`. A mistake anywhere, even in a value that another one
//! overrides, refuses the whole: the hub starts as asked or not at all.
//!
//! To add a setting: a field of `Config`, its default, and its line in `SETTINGS`; a limit is one line in `limits`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use portcullis_registry::credential::SymmetricKey;
use tracing_subscriber::filter::{LevelFilter, Targets};

mod host_name;
mod limits;
mod source;
#[cfg(test)]
mod tests;
mod text;

pub use host_name::{HostName, InvalidHostName};
pub use limits::Limits;
pub use source::Origin;

use limits::LIMITS;
use source::{Given, Text};

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
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ServeFlags {
    /// Where the hub keeps its data [default: portcullis-data]
    #[arg(long, value_name = "DIRECTORY")]
    pub data_dir: Option<PathBuf>,
    /// The hub's name in connection strings and in its certificate [default: localhost]
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// Where devices connect, MQTT over TLS [default: 0.0.0.0:8883,[::]:8883]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub mqtt_listen: Vec<String>,
    /// Where services and operators connect, HTTPS [default: port 443, or 8443 where 443 may not be bound]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub https_listen: Vec<String>,
    /// Where metrics and health are served, plain HTTP [default: 127.0.0.1:9464]
    #[arg(long, value_name = "ADDRESS:PORT", value_delimiter = ',')]
    pub ops_listen: Vec<String>,
    /// A configuration file (TOML); may be repeated, later ones win
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,
    /// How log lines look: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

/// Why a configuration is refused. No text of it shows a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the configuration file {path} cannot be used: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("{} is no setting{}", origin.place(key), did_you_mean(suggestion.as_deref()))]
    Unknown { key: String, origin: Origin, suggestion: Option<String> },
    #[error("{}: {reason}", origin.place(key))]
    Invalid { key: String, origin: Origin, reason: String },
    #[error("{} is given twice", origin.place(key))]
    Twice { key: String, origin: Origin },
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
            log_filter: Targets::new().with_default(LevelFilter::INFO),
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
                Shown::Set(value) => format!("{name} = {value}"),
                Shown::Unset(value) => format!("# {name} = {value}"),
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

    fn show(&self) -> Shown {
        let texts: Vec<_> = self.addrs.iter().map(|address| quoted(address.to_string())).collect();
        let list = format!("[{}]", texts.join(", "));
        if self.defaulted { Shown::Unset(list) } else { Shown::Set(list) }
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

/// A configuration in the making.
#[derive(Default)]
struct Draft {
    config: Config,
    chain: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Draft {
    /// Lays one source over what is there.
    fn apply(&mut self, layer: Vec<Given>) -> Result<(), ConfigError> {
        let mut seen = BTreeSet::new();
        for Given { key, text, origin } in layer {
            let key = match canonical(&key) {
                Some(key) => key,
                None if matches!(text, Text::EmptySection) && is_section(&key) => continue,
                None => return Err(unknown(key, origin)),
            };
            // A key and the file that holds it are the same setting.
            if !seen.insert(key.trim_end_matches(FILE_SUFFIX).to_owned()) {
                return Err(ConfigError::Twice { key, origin });
            }
            self.set(&key, &text).map_err(|reason| ConfigError::Invalid { key, origin, reason })?;
        }
        Ok(())
    }

    /// Sets one setting by its exact key.
    fn set(&mut self, key: &str, text: &Text) -> Result<(), String> {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) {
            return (setting.set)(self, text);
        }
        if let Some(limit) = LIMITS.iter().find(|limit| key.strip_prefix(LIMITS_PREFIX) == Some(limit.name)) {
            return (limit.set)(&mut self.config.limits, text.one()?);
        }
        self.set_policy_key(key, text.one()?)
    }

    fn set_policy_key(&mut self, key: &str, text: &str) -> Result<(), String> {
        let name_and_field = key.strip_prefix(POLICIES_PREFIX).and_then(|rest| rest.split_once('.'));
        let (name, field) = name_and_field.ok_or("it is no policy's key")?;
        let policy = POLICIES.into_iter().find(|policy| *policy == name).ok_or("there is no such policy")?;
        let text = match field.ends_with(FILE_SUFFIX) {
            true => source::read_bounded(Path::new(text), SECRET_FILE_BYTES_MAX)?,
            false => text.to_owned(),
        };
        let secret = SymmetricKey::parse_base64(text.trim()).map_err(|error| error.to_string())?;
        let keys = self.config.policy_keys.entry(policy).or_default();
        let half = if field.starts_with("primary") { &mut keys.primary } else { &mut keys.secondary };
        *half = Some(secret);
        Ok(())
    }

    fn finish(mut self) -> Result<Config, ConfigError> {
        self.config.certificate = match (self.chain, self.key) {
            (Some(chain), Some(key)) => Some(CertificateFiles { chain, key }),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(ConfigError::HalfACertificate),
        };
        match self.config.limits.contradiction() {
            Some(what) => Err(ConfigError::Contradiction(what)),
            None => Ok(self.config),
        }
    }
}

/// One setting: how it is called, read and shown.
struct Setting {
    key: &'static str,
    help: &'static str,
    set: fn(&mut Draft, &Text) -> Result<(), String>,
    show: fn(&Config) -> Shown,
}

/// A value as TOML: one that is set, or one that is a default nobody should write down or an example.
enum Shown {
    Set(String),
    Unset(String),
}

/// Every setting but the limits and the policies' keys. Those without a section come first.
const SETTINGS: &[Setting] = &[
    Setting {
        key: "hostname",
        help: "The hub's name in connection strings and in its certificate.",
        set: |draft, text| assign(&mut draft.config.hostname, parse_host_name(text.one()?)),
        show: |config| Shown::Set(quoted(config.hostname.to_string())),
    },
    Setting {
        key: "aliases",
        help: "Further names the hub answers to.",
        set: |draft, text| assign(&mut draft.config.aliases, parse_aliases(text)),
        show: |config| {
            let names: Vec<_> = config.aliases.iter().map(|name| quoted(name.to_string())).collect();
            Shown::Set(format!("[{}]", names.join(", ")))
        },
    },
    Setting {
        key: "data_dir",
        help: "Where the hub keeps its data.",
        set: |draft, text| assign(&mut draft.config.data_dir, parse_path(text)),
        show: |config| Shown::Set(quoted(config.data_dir.display().to_string())),
    },
    Setting {
        key: "mqtt.listen",
        help: "Where devices connect, MQTT over TLS.",
        set: |draft, text| assign(&mut draft.config.mqtt_listen, Listen::parse(text)),
        show: |config| config.mqtt_listen.show(),
    },
    Setting {
        key: "https.listen",
        help: "Where services and operators connect, HTTPS. Left out: port 443, or 8443 where 443 may not be bound.",
        set: |draft, text| assign(&mut draft.config.https_listen, Listen::parse(text)),
        show: |config| config.https_listen.show(),
    },
    Setting {
        key: "ops.listen",
        help: "Where metrics and health are served, plain HTTP.",
        set: |draft, text| assign(&mut draft.config.ops_listen, Listen::parse(text)),
        show: |config| config.ops_listen.show(),
    },
    Setting {
        key: "tls.certificate",
        help: "A server certificate of your own: the chain, PEM, the server's certificate first.",
        set: |draft, text| assign(&mut draft.chain, parse_path(text).map(Some)),
        show: |config| {
            show_path(config.certificate.as_ref().map(|files| files.chain.as_path()), "server.pem")
        },
    },
    Setting {
        key: "tls.key",
        help: "The key of that certificate, PEM.",
        set: |draft, text| assign(&mut draft.key, parse_path(text).map(Some)),
        show: |config| {
            show_path(config.certificate.as_ref().map(|files| files.key.as_path()), "server-key.pem")
        },
    },
    Setting {
        key: "log.filter",
        help: "What is logged: off, error, warn, info, debug or trace; by module as in \"info,portcullis::auth=debug\".",
        set: |draft, text| assign(&mut draft.config.log_filter, parse_filter(text.one()?)),
        show: |config| Shown::Set(quoted(config.log_filter.to_string())),
    },
    Setting {
        key: "log.format",
        help: "How log lines look: auto (text on a terminal, JSON elsewhere), text or json.",
        set: |draft, text| assign(&mut draft.config.log_format, LogFormat::parse(text.one()?)),
        show: |config| Shown::Set(quoted(config.log_format.as_str().to_owned())),
    },
];

fn assign<T>(place: &mut T, parsed: Result<T, String>) -> Result<(), String> {
    *place = parsed?;
    Ok(())
}

fn parse_host_name(text: &str) -> Result<HostName, String> {
    HostName::parse(text).map_err(|error| error.to_string())
}

fn parse_aliases(text: &Text) -> Result<Vec<HostName>, String> {
    let texts = text.many()?;
    if texts.len() > ALIASES_MAX {
        return Err(format!("more than {ALIASES_MAX} names"));
    }
    texts.into_iter().map(parse_host_name).collect()
}

fn parse_path(text: &Text) -> Result<PathBuf, String> {
    match text.one()? {
        "" => Err("a path belongs here".to_owned()),
        path => Ok(PathBuf::from(path)),
    }
}

fn parse_filter(text: &str) -> Result<Targets, String> {
    let parsed = text.parse().ok().filter(|_| !text.trim().is_empty());
    parsed.ok_or_else(|| {
        format!("{text:?} is not a filter such as \"info\" or \"info,portcullis::auth=debug\"")
    })
}

fn show_path(path: Option<&Path>, example: &str) -> Shown {
    match path {
        Some(path) => Shown::Set(quoted(path.display().to_string())),
        None => Shown::Unset(quoted(example.to_owned())),
    }
}

fn quoted(text: String) -> String {
    toml::Value::String(text).to_string()
}

/// The exact key for one as given. Only a policy's name may differ, in its letter case: variables are upper-case.
fn canonical(key: &str) -> Option<String> {
    known_keys().find(|known| match known.starts_with(POLICIES_PREFIX) {
        true => known.eq_ignore_ascii_case(key),
        false => known == key,
    })
}

fn is_section(key: &str) -> bool {
    known_keys().any(|known| known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

fn known_keys() -> impl Iterator<Item = String> {
    let settings = SETTINGS.iter().map(|setting| setting.key.to_owned());
    let limits = LIMITS.iter().map(|limit| format!("{LIMITS_PREFIX}{}", limit.name));
    let fields = ["primary_key", "primary_key_file", "secondary_key", "secondary_key_file"];
    let policies = POLICIES
        .iter()
        .flat_map(move |policy| fields.map(|field| format!("{POLICIES_PREFIX}{policy}.{field}")));
    settings.chain(limits).chain(policies)
}

fn unknown(key: String, origin: Origin) -> ConfigError {
    let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
    let likeness = |known: &str| {
        let whole = strsim::normalized_damerau_levenshtein(&known.to_lowercase(), &key);
        let end = strsim::normalized_damerau_levenshtein(&last(known), &last(&key));
        whole.max(end * LAST_PART_WEIGHT)
    };
    let liked =
        known_keys().map(|known| (likeness(&known), known)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    let best = liked.max_by(|(one, _), (other, _)| one.total_cmp(other));
    let suggestion = best.map(|(_, known)| origin.spell(&known));
    ConfigError::Unknown { key, origin, suggestion }
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|key| format!("; did you mean {key:?}?")).unwrap_or_default()
}

/// Where a hub keeps its data if nobody says.
pub const DATA_DIR_DEFAULT: &str = "portcullis-data";
const HOSTNAME_DEFAULT: &str = "localhost";
/// The device SDKs take this port and no other.
const MQTT_PORT_DEFAULT: u16 = 8883;
/// The service SDKs take this port and no other.
const HTTPS_PORT_DEFAULT: u16 = 443;
const HTTPS_PORT_FALLBACK: u16 = 8443;
const OPS_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
const LISTEN_ADDRESSES_MAX: usize = 16;
const ALIASES_MAX: usize = 64;
const SECRET_FILE_BYTES_MAX: u64 = 4_096;
const LIMITS_PREFIX: &str = "limits.";
const POLICIES_PREFIX: &str = "policies.";
const FILE_SUFFIX: &str = "_file";
/// The built-in shared access policies.
const POLICIES: [&str; 5] = ["iothubowner", "service", "device", "registryRead", "registryReadWrite"];
const LIKENESS_MIN: f64 = 0.7;
/// A likeness of the last part alone counts less than one of the whole.
const LAST_PART_WEIGHT: f64 = 0.95;
