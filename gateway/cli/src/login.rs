//! The flags that name a hub and a credential, and the login that they become.
//!
//! Without flags it is the owner's login, from the data directory of a hub on this machine.

use std::ffi::OsString;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::Timestamp;
use portcullis_registry::credential::SymmetricKey;
use portcullis_registry::sas;

use crate::exit::Failure;
use portcullis::config::DATA_DIR_DEFAULT;
use portcullis::config::local_access::LocalAccess;
use portcullis::iothub::connection_string::{ConnectionString, Secret, split_port};
use portcullis::tls::connect_error::ConnectError;

/// The flags with which a client verb finds its hub and signs in.
#[derive(Args)]
#[command(next_help_heading = "Connection")]
pub(super) struct Access {
    /// Connection string of a shared access policy; `@FILE` reads it from a file, `-` from standard input.
    /// Without it, the owner's login from the data directory on this machine
    #[arg(short, long, env = "PORTCULLIS_CONNECTION_STRING", hide_env_values = true, value_name = "CONNSTR")]
    login: Option<String>,
    /// The CA certificates to trust, PEM. Without it, the data directory's ca.pem, or with --login the system's
    #[arg(long, env = "PORTCULLIS_CA", value_name = "FILE")]
    ca: Option<OsString>,
    /// The data directory of the hub on this machine
    #[arg(long, env = "PORTCULLIS__DATA_DIR", value_name = "DIRECTORY", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
    /// The port of REST, if it is not 443 and HostName=name:port does not name it
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// The port of MQTT, if it is not 8883
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
}

impl Access {
    /// Whether these flags name the hub whose data directory is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.login.as_deref().is_none_or(str::is_empty)
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The login that these flags name.
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
            Failure::error(format!("no hub was found on this machine: {error}")).with_hint(
                "start it with `portcullis`, name its --data-dir, or give --login CONNSTR and --ca FILE",
            )
        })?;
        let parsed = ConnectionString::parse(&access.owner);
        let parsed = parsed.map_err(|error| {
            Failure::error(format!("the access file in {} cannot be used: {error}", self.data_dir.display()))
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

/// A hub, its addresses, and the shared access policy to sign in with.
#[derive(Clone, Debug)]
pub(super) struct Login {
    /// The hub's name without a port. Its certificate must hold this name.
    pub(super) host: String,
    pub(super) https_port: u16,
    pub(super) mqtt_port: u16,
    /// The address to connect to, whatever the name resolves to.
    pub(super) connect_address: Option<IpAddr>,
    /// The version of the running hub. Known only on the hub's own machine.
    pub(super) hub_version: Option<String>,
    pub(super) policy: String,
    pub(super) key: SymmetricKey,
    /// The CA certificates to trust. None means the system's.
    pub(super) ca: Option<PathBuf>,
}

impl Login {
    /// The login of a policy's connection string, for any hub.
    pub(super) fn parse(text: &str, ca: Option<PathBuf>) -> Result<Self, Failure> {
        let parsed =
            ConnectionString::parse(text).map_err(|error| Failure::usage(format!("--login: {error}")))?;
        let (policy, key) = policy_of(&parsed)?;
        let (host, port) = split_port(&parsed.host)
            .ok_or_else(|| Failure::usage("--login: HostName is not a host name with or without a port"))?;
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

    /// The TLS settings that trust this hub and no other.
    pub(super) fn tls(&self) -> Result<rustls::ClientConfig, Failure> {
        portcullis::tls::client_config(self.ca.as_deref()).map_err(|error| {
            let what = self
                .ca
                .as_deref()
                .map_or_else(|| "the system's CA certificates".into(), |path| path.display().to_string());
            Failure::error(format!("{what}: {}", chain(&error)))
                .with_hint("name the hub's ca.pem with --ca FILE")
        })
    }
}

/// A value that may be a secret: the value itself, `@FILE`, or `-` for standard input.
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
        // An empty value counts as absent. A file that was named must not be empty.
        true if !given.is_empty() => Err(Failure::usage(format!("{given}: it is empty"))),
        _ => Ok(text),
    }
}

/// What to do when a hub cannot be reached, or is not the one it should be.
pub(super) fn hint(reason: &ConnectError) -> &'static str {
    match reason {
        ConnectError::NoSuchName => "check the host name in --login, and this machine's DNS",
        ConnectError::UntrustedCertificate => "--ca FILE names the hub's ca.pem",
        ConnectError::OtherName(_) => "--login must have a name that is in the hub's certificate",
        ConnectError::Expired | ConnectError::NotYetValid => {
            "check this machine's clock; on the hub's machine, `portcullis doctor` says more"
        }
        ConnectError::BadCertificate => "on the hub's machine, `portcullis doctor` says more",
        ConnectError::NotTls | ConnectError::Handshake => "check that this is a port of the hub",
        _ => "check that the hub runs and that this is its port",
    }
}

/// An error with its causes, without repetition.
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
            "--login: this is the connection string of a device; name one of a shared access policy",
        )
        .with_hint("run `portcullis connection-string show` on the hub's machine to print the owner's")),
        (None, _) => Err(Failure::usage("--login: SharedAccessKeyName or SharedAccessKey is missing")),
    }
}

const HTTPS_PORT_DEFAULT: u16 = 443;
const MQTT_PORT_DEFAULT: u16 = 8883;
/// How long a token for one request or connection is valid.
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
}
