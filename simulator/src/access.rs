//! The hub of a run, its policy and the CA to trust: from a connection string, or from the access file of a hub on this
//! machine. Without a policy there are no REST calls, so the devices must exist.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use portcullis_registry::credential::{InvalidKey, SymmetricKey};
use portcullis_registry::id::IdentityId;
use portcullis_registry::sas;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;

/// A hub, the policy to act under if there is one, and TLS settings that trust exactly one CA file.
#[derive(Clone, Debug)]
pub struct HubAccess {
    /// The name in tokens, user names and the hub's certificate.
    pub hostname: String,
    pub mqtt_port: u16,
    pub https_port: u16,
    pub tls: Arc<ClientConfig>,
    /// The hub's address, if the name need not be resolved.
    pub address: Option<IpAddr>,
    service: Option<Policy>,
}

/// A shared access policy.
#[derive(Clone, Debug)]
struct Policy {
    name: String,
    key: SymmetricKey,
}

/// The two ports of a hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    pub mqtt: u16,
    pub https: u16,
}

/// Why a hub cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    #[error("cannot read {}; is a hub running with this data directory? Otherwise give --login", .file.display())]
    NoLocalHub { file: PathBuf, source: io::Error },
    #[error("{} is not an access file of a hub; name another data directory, or give --login", .file.display())]
    BadLocalFile { file: PathBuf, source: serde_json::Error },
    #[error("--login needs --ca: the file with the hub's CA")]
    NoCa,
    #[error("cannot read the CA file {}", .file.display())]
    BadCa { file: PathBuf, source: rustls_pki_types::pem::Error },
    #[error("a certificate in {} cannot be used as a root", .file.display())]
    BadRoot { file: PathBuf, source: rustls::Error },
    #[error("{} holds no certificate", .0.display())]
    EmptyCa(PathBuf),
    #[error("the connection string has no {0}")]
    MissingField(&'static str),
    #[error(
        "this is the connection string of a device; give one of a policy, such as iothubowner, or a file with --devices-file"
    )]
    DeviceConnectionString,
    #[error("the connection string's SharedAccessKey cannot be used")]
    BadKey(#[source] InvalidKey),
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
}

/// The access file that a hub writes for programs on its machine.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LocalFile {
    mqtt_port: u16,
    https_port: u16,
    connect_address: Option<IpAddr>,
    /// Connection string of the owner policy.
    owner: String,
}

impl HubAccess {
    /// The hub of the data directory `data_dir` on this machine. Trusts the hub's own CA unless `ca` names another.
    pub fn local(data_dir: &Path, ca: Option<&Path>) -> Result<Self, AccessError> {
        let file = data_dir.join("local.json");
        let text = match fs::read(&file) {
            Ok(text) => text,
            Err(source) => return Err(AccessError::NoLocalHub { file, source }),
        };
        let local: LocalFile = match serde_json::from_slice(&text) {
            Ok(local) => local,
            Err(source) => return Err(AccessError::BadLocalFile { file, source }),
        };
        let own_ca = data_dir.join("ca.pem");
        let ports = Ports { mqtt: local.mqtt_port, https: local.https_port };
        let access = Self::remote(&local.owner, Some(ca.unwrap_or(&own_ca)), ports)?;
        Ok(Self { address: local.connect_address, ..access })
    }

    /// The hub that `connection_string` names. Trusts only the CA file `ca`.
    pub fn remote(connection_string: &str, ca: Option<&Path>, ports: Ports) -> Result<Self, AccessError> {
        let tls = trust_only(ca.ok_or(AccessError::NoCa)?)?;
        let field = |name| field(connection_string, name).ok_or(AccessError::MissingField(name));
        if field("DeviceId").is_ok() {
            return Err(AccessError::DeviceConnectionString);
        }
        let key = SymmetricKey::parse_base64(field("SharedAccessKey")?).map_err(AccessError::BadKey)?;
        let service = Policy { name: field("SharedAccessKeyName")?.to_owned(), key };
        Ok(Self { service: Some(service), ..Self::new(field("HostName")?, tls, ports) })
    }

    /// The hub called `hostname`, without a policy. Trusts only the CA file `ca`.
    pub fn of_devices(hostname: &str, ca: Option<&Path>, ports: Ports) -> Result<Self, AccessError> {
        Ok(Self::new(hostname, trust_only(ca.ok_or(AccessError::NoCa)?)?, ports))
    }

    fn new(hostname: &str, tls: ClientConfig, ports: Ports) -> Self {
        Self {
            hostname: hostname.to_owned(),
            mqtt_port: ports.mqtt,
            https_port: ports.https,
            tls: Arc::new(tls),
            address: None,
            service: None,
        }
    }

    /// Whether there is a policy to act under.
    pub fn has_service(&self) -> bool {
        self.service.is_some()
    }

    /// A token for the REST API, if there is a policy to act under.
    pub fn service_token(&self, now: Timestamp) -> Option<String> {
        let Policy { name, key } = self.service.as_ref()?;
        Some(sas::sign(&self.hostname, key, expiry(now), Some(name)))
    }

    /// A token for `id` to connect with until `expiry` (seconds since 1970), signed with `key`.
    pub fn identity_token(&self, id: &IdentityId, key: &SymmetricKey, expiry: i64) -> String {
        let resource = match &id.module {
            None => format!("{}/devices/{}", self.hostname, id.device),
            Some(module) => format!("{}/devices/{}/modules/{module}", self.hostname, id.device),
        };
        sas::sign(&resource, key, expiry, None)
    }
}

/// The value of `name` in a connection string. Only the first `=` separates, because keys end in `=`.
pub fn field<'a>(connection_string: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = connection_string.split(';').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| value).filter(|value| !value.is_empty())
}

/// When a token made at `now` expires, in seconds since 1970.
pub fn expiry(now: Timestamp) -> i64 {
    now.as_second() + TOKEN_LIFE_SECONDS
}

/// TLS settings with the certificates of `file` as the only roots.
fn trust_only(file: &Path) -> Result<ClientConfig, AccessError> {
    let bad = |source| AccessError::BadCa { file: file.to_owned(), source };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).map_err(bad)? {
        let added = roots.add(certificate.map_err(bad)?);
        added.map_err(|source| AccessError::BadRoot { file: file.to_owned(), source })?;
    }
    if roots.is_empty() {
        return Err(AccessError::EmptyCa(file.to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(AccessError::Tls)?.with_root_certificates(roots).with_no_client_auth())
}

/// Longer than most runs. Renewing a token needs a reconnect, which would count as a dropped connection.
const TOKEN_LIFE_SECONDS: i64 = 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports { mqtt: 8883, https: 443 };

    #[test]
    fn fields_are_split_at_the_first_equals_sign() {
        let text = "HostName=hub.example.test;SharedAccessKeyName=iothubowner;SharedAccessKey=AAEC/w==";
        assert_eq!(field(text, "HostName"), Some("hub.example.test"));
        assert_eq!(field(text, "SharedAccessKey"), Some("AAEC/w=="));
        assert_eq!(field(text, "hostname"), None);
        assert_eq!(field("HostName=", "HostName"), None);
    }

    #[test]
    fn a_directory_without_a_hub_says_what_to_do() {
        let error = HubAccess::local(Path::new("/no/such/directory"), None).unwrap_err();
        assert!(error.to_string().contains("--login"), "{error}");
    }

    #[test]
    fn a_missing_ca_file_is_named() {
        let error = HubAccess::remote("HostName=h", Some(Path::new("/no/such/ca.pem")), PORTS).unwrap_err();
        assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
    }
}
