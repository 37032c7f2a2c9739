//! Connection strings: one line with all that a program needs to connect to a hub. Every SDK reads it.

use std::fmt;

use portcullis_registry::credential::{InvalidKey, SymmetricKey};
use portcullis_registry::id::{DeviceId, IdentityId, InvalidId, ModuleId};

/// One connection string.
///
/// Source: IoT Hub, "Understand different connection strings in Azure IoT Hub". Key names are case-sensitive, the
/// first `=` of a pair separates. Unknown keys are refused, as the Python SDK does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionString {
    /// As written: a name, or `name:port`.
    pub host: String,
    pub device: Option<DeviceId>,
    pub module: Option<ModuleId>,
    pub secret: Secret,
}

/// The credential in a connection string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Secret {
    /// A key: of the named shared access policy, else of the identity itself.
    Key { policy: Option<String>, key: SymmetricKey },
    /// A client certificate, kept elsewhere.
    X509,
}

/// Why a text is not a connection string. It never contains a value of the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConnectionString {
    #[error("part {0} is not Key=Value; remove a `;` at the end")]
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
    #[error("x509 must be true or absent, and excludes a key")]
    X509,
    #[error("ModuleId needs a DeviceId")]
    ModuleWithoutDevice,
    #[error("{0}: {1}")]
    Id(&'static str, InvalidId),
    #[error("SharedAccessKey: {0}")]
    Key(InvalidKey),
}

impl ConnectionString {
    /// What a service connects with that has a key of a shared access policy.
    pub fn of_policy(host: &str, policy: &str, key: &SymmetricKey) -> Self {
        let secret = Secret::Key { policy: Some(policy.to_owned()), key: key.clone() };
        Self { host: host.to_owned(), device: None, module: None, secret }
    }

    /// What a device or module connects with.
    pub fn of_identity(host: &str, id: &IdentityId, secret: Secret) -> Self {
        Self { host: host.to_owned(), device: Some(id.device.clone()), module: id.module.clone(), secret }
    }

    /// Reads a connection string.
    pub fn parse(text: &str) -> Result<Self, InvalidConnectionString> {
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

/// Writes the spellings and the order that the SDKs know, without `;` at the end.
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

/// `name`, or `name:port`.
pub fn split_port(host: &str) -> Option<(&str, Option<u16>)> {
    let (name, port) = match host.split_once(':') {
        None => (host, None),
        Some((name, port)) => (name, Some(port.parse().ok().filter(|port| *port != 0)?)),
    };
    let good =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    good.then_some((name, port))
}

/// An unknown key, shortened, because it could be a piece of a broken secret.
fn shown(key: &str) -> String {
    key.chars().take(24).collect()
}

/// In the order in which the parser takes them.
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

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
    fn no_key_is_in_debug_output() {
        let text = format!("HostName=h;SharedAccessKeyName=p;SharedAccessKey={KEY}");
        let parsed = ConnectionString::parse(&text).unwrap();
        assert!(!format!("{parsed:?}").contains(KEY));
    }
}
