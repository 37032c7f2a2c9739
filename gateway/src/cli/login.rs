//! Who the command line is to the hub: connection strings, the flags that give one, and the login that comes of them.
//!
//! Without flags the login is the owner's, from the data directory of a hub on this machine.

use std::ffi::OsString;
use std::fmt;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use portcullis_registry::credential::{InvalidKey, SymmetricKey};
use portcullis_registry::id::{DeviceId, InvalidId, ModuleId};
use portcullis_registry::sas;

use crate::cli::exit::Failure;
use crate::cli::local::LocalAccess;
use crate::config::DATA_DIR_DEFAULT;

/// A connection string: what a program needs to know to speak to a hub.
///
/// Source: IoT Hub, "Understand different connection strings in Azure IoT Hub". Key names are case-sensitive, the
/// first `=` of a pair separates, unknown keys are refused as the Python SDK refuses them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ConnectionString {
    /// As written: a name, or `name:port`.
    pub(super) host: String,
    pub(super) device: Option<DeviceId>,
    pub(super) module: Option<ModuleId>,
    pub(super) secret: Secret,
}

/// What proves the bearer of a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Secret {
    /// A key: of the shared access policy named, else of the identity itself.
    Key { policy: Option<String>, key: SymmetricKey },
    /// A client certificate, kept elsewhere.
    X509,
}

/// Why a text is no connection string. It never holds a value of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidConnectionString {
    #[error("part {0} is not Key=Value (no `;` may stand at the end)")]
    NotAPair(usize),
    #[error("key {0:?} is unknown")]
    UnknownKey(String),
    #[error("{0} is not supported here")]
    Unsupported(&'static str),
    #[error("{0} is given twice")]
    Duplicate(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0} is empty")]
    Empty(&'static str),
    #[error("HostName is not a host name")]
    Host,
    #[error("x509 is true or absent, and there is no key beside it")]
    X509,
    #[error("ModuleId needs a DeviceId")]
    ModuleWithoutDevice,
    #[error("{0}: {1}")]
    Id(&'static str, InvalidId),
    #[error("SharedAccessKey: {0}")]
    Key(InvalidKey),
}

impl ConnectionString {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidConnectionString> {
        let mut values: [Option<&str>; KEYS.len()] = [None; KEYS.len()];
        for (place, pair) in text.trim().split(';').enumerate() {
            let (key, value) = pair.split_once('=').ok_or(InvalidConnectionString::NotAPair(place + 1))?;
            let found = KEYS.iter().position(|known| *known == key);
            let index = found.ok_or_else(|| InvalidConnectionString::UnknownKey(shown(key)))?;
            if value.is_empty() {
                return Err(InvalidConnectionString::Empty(KEYS[index]));
            }
            if values[index].replace(value).is_some() {
                return Err(InvalidConnectionString::Duplicate(KEYS[index]));
            }
        }
        let [host, device, module, policy, key, x509, signature, gateway] = values;
        if signature.is_some() {
            return Err(InvalidConnectionString::Unsupported("SharedAccessSignature"));
        }
        if gateway.is_some() {
            return Err(InvalidConnectionString::Unsupported("GatewayHostName"));
        }
        let host = host.ok_or(InvalidConnectionString::Missing("HostName"))?;
        split_port(host).ok_or(InvalidConnectionString::Host)?;
        let device = device.map(DeviceId::parse).transpose();
        let module = module.map(ModuleId::parse).transpose();
        let device = device.map_err(|error| InvalidConnectionString::Id("DeviceId", error))?;
        let module = module.map_err(|error| InvalidConnectionString::Id("ModuleId", error))?;
        if module.is_some() && device.is_none() {
            return Err(InvalidConnectionString::ModuleWithoutDevice);
        }
        let secret = match (x509, key) {
            (Some("true"), None) if policy.is_none() => Secret::X509,
            (Some(_), _) => return Err(InvalidConnectionString::X509),
            (None, None) => return Err(InvalidConnectionString::Missing("SharedAccessKey")),
            (None, Some(key)) => {
                let key = SymmetricKey::parse_base64(key).map_err(InvalidConnectionString::Key)?;
                Secret::Key { policy: policy.map(str::to_owned), key }
            }
        };
        Ok(Self { host: host.to_owned(), device, module, secret })
    }
}

/// Exactly the spellings and the order the SDKs know, and no `;` at the end.
impl fmt::Display for ConnectionString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostName={}", self.host)?;
        if let Some(device) = &self.device {
            write!(f, ";DeviceId={device}")?;
        }
        if let Some(module) = &self.module {
            write!(f, ";ModuleId={module}")?;
        }
        match &self.secret {
            Secret::Key { policy, key } => {
                if let Some(policy) = policy {
                    write!(f, ";SharedAccessKeyName={policy}")?;
                }
                write!(f, ";SharedAccessKey={}", key.to_base64().as_str())
            }
            Secret::X509 => f.write_str(";x509=true"),
        }
    }
}

/// The flags by which a client verb finds its hub and proves itself.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Access {
    /// Connection string of a shared access policy; `@FILE` reads it from a file, `-` from standard input.
    /// Without it, the hub on this machine whose data directory this is
    #[arg(short, long, env = "PORTCULLIS_CONNECTION_STRING", hide_env_values = true, value_name = "CONNSTR")]
    login: Option<String>,
    /// The CA certificates to trust, PEM. Without it, the data directory's ca.pem, or with --login the system's
    #[arg(long, env = "PORTCULLIS_CA", value_name = "FILE")]
    ca: Option<OsString>,
    /// The data directory of the hub on this machine
    #[arg(long, env = "PORTCULLIS__DATA_DIR", value_name = "DIRECTORY", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// Where the hub serves REST, if not at 443 and not told by HostName=name:port
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// Where the hub serves MQTT, if not at 8883
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
}

impl Access {
    /// Whether these flags mean the hub whose data directory is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.login.as_deref().is_none_or(str::is_empty)
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The login these flags come to.
    pub(super) fn login(&self) -> Result<Login, Failure> {
        let ca = self.ca.as_ref().filter(|path| !path.is_empty()).map(PathBuf::from);
        match self.login.as_deref().filter(|text| !text.is_empty()) {
            Some(given) => {
                let login = Login::parse(&read_secret(given)?, ca)?;
                Ok(Login {
                    https_port: self.https_port.unwrap_or(login.https_port),
                    mqtt_port: self.mqtt_port.unwrap_or(login.mqtt_port),
                    ..login
                })
            }
            None => self.local(ca),
        }
    }

    fn local(&self, ca: Option<PathBuf>) -> Result<Login, Failure> {
        let access = LocalAccess::read(&self.data_dir).map_err(|error| {
            Failure::error(format!("no hub is known here: {error}")).with_hint(
                "start it with `portcullis`, name its --data-dir, or give --login CONNSTR and --ca FILE",
            )
        })?;
        let parsed = ConnectionString::parse(&access.owner);
        let parsed = parsed.map_err(|error| {
            Failure::error(format!("the access file in {}: {error}", self.data_dir.display()))
        })?;
        let (policy, key) = policy_of(&parsed)?;
        Ok(Login {
            host: access.hostname,
            https_port: self.https_port.unwrap_or(access.https_port),
            mqtt_port: self.mqtt_port.unwrap_or(access.mqtt_port),
            connect_address: access.connect_address.parse().ok(),
            hub_version: access.version,
            policy,
            key,
            ca: Some(ca.unwrap_or_else(|| self.data_dir.join("ca.pem"))),
        })
    }
}

/// A hub, where it is, and the shared access policy to speak to it with.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The hub's name, without a port: what its certificate must hold.
    pub(super) host: String,
    pub(super) https_port: u16,
    pub(super) mqtt_port: u16,
    /// Where to connect, whatever the name resolves to.
    pub(super) connect_address: Option<IpAddr>,
    /// The version of the program that serves; known on its own machine only.
    pub(super) hub_version: Option<String>,
    pub(super) policy: String,
    pub(super) key: SymmetricKey,
    /// The CA certificates to trust; the system's when absent.
    pub(super) ca: Option<PathBuf>,
}

impl Login {
    /// The login a policy's connection string comes to, wherever that hub is.
    pub(super) fn parse(text: &str, ca: Option<PathBuf>) -> Result<Self, Failure> {
        let parsed =
            ConnectionString::parse(text).map_err(|error| Failure::usage(format!("--login: {error}")))?;
        let (policy, key) = policy_of(&parsed)?;
        let (host, port) = split_port(&parsed.host).ok_or_else(|| Failure::usage("--login: HostName"))?;
        Ok(Self {
            host: host.to_owned(),
            https_port: port.unwrap_or(HTTPS_PORT_DEFAULT),
            mqtt_port: MQTT_PORT_DEFAULT,
            connect_address: None,
            hub_version: None,
            policy,
            key,
            ca,
        })
    }

    /// A fresh token of the policy for the whole hub.
    pub(super) fn token(&self) -> String {
        sas::sign(&self.host, &self.key, Timestamp::now().as_second() + TOKEN_SECONDS, Some(&self.policy))
    }

    /// The TLS settings that trust this hub and nobody else.
    pub(super) fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        crate::tls::client_config(self.ca.as_deref()).map_err(|error| {
            let what = self
                .ca
                .as_deref()
                .map_or_else(|| "the system's CA certificates".into(), |path| path.display().to_string());
            Failure::error(format!("{what}: {}", chain(&error))).with_hint("--ca FILE names the hub's ca.pem")
        })
    }
}

/// A value that may be a secret and so need not stand on the command line: itself, `@FILE`, or `-` for standard input.
pub(super) fn read_secret(given: &str) -> Result<String, Failure> {
    let read = match (given, given.strip_prefix('@')) {
        ("-", _) => read_bounded(std::io::stdin()).map_err(|error| format!("standard input: {error}")),
        (_, Some(path)) => {
            let file = std::fs::File::open(Path::new(path));
            file.and_then(read_bounded).map_err(|error| format!("{path}: {error}"))
        }
        (text, None) => Ok(text.to_owned()),
    };
    let text = read.map_err(Failure::error)?.trim().to_owned();
    match text.is_empty() {
        // An empty value counts as absent, but what was pointed at was meant to be there.
        true if !given.is_empty() => Err(Failure::usage(format!("{given}: there is nothing in it"))),
        _ => Ok(text),
    }
}

/// An error with its causes, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn read_bounded(from: impl Read) -> std::io::Result<String> {
    let mut text = String::new();
    from.take(SECRET_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text)
}

fn policy_of(parsed: &ConnectionString) -> Result<(String, SymmetricKey), Failure> {
    match (&parsed.device, &parsed.secret) {
        (None, Secret::Key { policy: Some(policy), key }) => Ok((policy.clone(), key.clone())),
        (Some(_), _) => Err(Failure::usage(
            "--login: this is a device's connection string, a shared access policy's is needed",
        )
        .with_hint("`portcullis connection-string show` on the hub's machine prints the owner's")),
        (None, _) => Err(Failure::usage("--login: SharedAccessKeyName and SharedAccessKey are needed")),
    }
}

/// `name`, or `name:port`.
fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.split_once(':') {
        None => (host, None),
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
    };
    let good =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    good.then_some((name, port))
}

/// An unknown key as far as it may be shown: it could be a piece of a broken secret.
fn shown(key: &str) -> String {
    key.chars().take(24).collect()
}

/// In the order in which they are taken apart after parsing.
const KEYS: [&str; 8] = [
    "HostName",
    "DeviceId",
    "ModuleId",
    "SharedAccessKeyName",
    "SharedAccessKey",
    "x509",
    "SharedAccessSignature",
    "GatewayHostName",
];
const HTTPS_PORT_DEFAULT: u16 = 443;
const MQTT_PORT_DEFAULT: u16 = 8883;
/// How long a token made for one request or connection counts.
const TOKEN_SECONDS: i64 = 3600;
const SECRET_BYTES_MAX: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

    fn access(login: Option<String>, data_dir: &Path) -> Access {
        Access { login, ca: None, data_dir: data_dir.into(), https_port: None, mqtt_port: None }
    }

    #[test]
    fn connection_strings_come_back_as_they_were() {
        for text in [
            format!("HostName=hub.example.test;DeviceId=pump-7;SharedAccessKey={KEY}"),
            format!("HostName=hub.example.test;DeviceId=pump-7;ModuleId=mod1;SharedAccessKey={KEY}"),
            "HostName=hub.example.test;DeviceId=pump-7;x509=true".into(),
            format!(
                "HostName=hub.example.test;DeviceId=a=b;SharedAccessKeyName=device;SharedAccessKey={KEY}"
            ),
            format!("HostName=hub.example.test:8443;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"),
        ] {
            assert_eq!(ConnectionString::parse(&text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_connection_string_is_read_strictly() {
        let owner = format!("SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}");
        let parse = |text: String| ConnectionString::parse(&text).unwrap_err();
        use InvalidConnectionString as Bad;
        assert_eq!(parse(owner.clone()), Bad::Missing("HostName"));
        assert_eq!(parse(format!("HostName=h;{owner};")), Bad::NotAPair(4));
        assert_eq!(parse(format!("hostname=h;{owner}")), Bad::UnknownKey("hostname".into()));
        assert_eq!(parse(format!("HostName=h;HostName=h;{owner}")), Bad::Duplicate("HostName"));
        assert_eq!(parse(format!("HostName=h;DeviceId=;{owner}")), Bad::Empty("DeviceId"));
        assert_eq!(parse(format!("HostName=h/x;{owner}")), Bad::Host);
        assert_eq!(parse(format!("HostName=h:0;{owner}")), Bad::Host);
        assert_eq!(parse(format!("HostName=h;ModuleId=m;{owner}")), Bad::ModuleWithoutDevice);
        assert_eq!(parse("HostName=h;DeviceId=d".into()), Bad::Missing("SharedAccessKey"));
        assert_eq!(parse("HostName=h;DeviceId=d;x509=false".into()), Bad::X509);
        assert_eq!(parse(format!("HostName=h;DeviceId=d;x509=true;SharedAccessKey={KEY}")), Bad::X509);
        assert_eq!(parse("HostName=h;SharedAccessKey=AA".into()), Bad::Key(InvalidKey::Encoding));
        assert_eq!(parse(String::new()), Bad::NotAPair(1));
    }

    #[test]
    fn a_login_takes_the_port_from_the_host_name() {
        let text =
            format!("HostName=hub.example.test:9443;SharedAccessKeyName=service;SharedAccessKey={KEY}");
        let login = access(Some(text), Path::new("/nowhere")).login().unwrap();
        assert_eq!(
            (login.host.as_str(), login.https_port, login.mqtt_port),
            ("hub.example.test", 9443, 8883)
        );
        assert_eq!((login.policy.as_str(), login.ca), ("service", None));
    }

    #[test]
    fn a_device_cannot_log_in_as_an_operator() {
        let text = format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}");
        let failure = access(Some(text), Path::new("/nowhere")).login().unwrap_err();
        assert!(failure.to_string().contains("shared access policy"), "{failure}");
    }

    #[test]
    fn without_flags_the_login_is_the_local_hubs() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalAccess {
            hostname: "hub.example.test".into(),
            mqtt_port: 1883,
            https_port: 1443,
            connect_address: "127.0.0.5".into(),
            version: None,
            owner: format!("HostName=hub.example.test;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"),
        };
        local.write(dir.path()).unwrap();
        for login in [None, Some(String::new())] {
            let login = access(login, dir.path()).login().unwrap();
            assert_eq!((login.https_port, login.mqtt_port), (1443, 1883));
            assert_eq!(login.connect_address, Some("127.0.0.5".parse().unwrap()));
            assert_eq!(login.ca, Some(dir.path().join("ca.pem")));
        }
    }

    #[test]
    fn a_secret_may_be_in_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(read_secret(&format!("@{}", path.display())).unwrap(), "secret");
        assert_eq!(read_secret("plain").unwrap(), "plain");
        assert!(read_secret("@/nowhere/key").is_err());
        std::fs::write(&path, "\n").unwrap();
        assert!(read_secret(&format!("@{}", path.display())).is_err());
    }

    #[test]
    fn no_key_is_in_debug_output() {
        let text = format!("HostName=h;SharedAccessKeyName=p;SharedAccessKey={KEY}");
        let parsed = ConnectionString::parse(&text).unwrap();
        assert!(!format!("{parsed:?}").contains(KEY));
    }
}
