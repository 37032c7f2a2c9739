//! A file of device connection strings, one on each line: a fleet that is registered already, at any hub.
//!
//! Lines have the SDKs' form: `HostName=…;DeviceId=…;SharedAccessKey=…`, with `ModuleId=…` for a module. A device with
//! a certificate has `x509=true`, and for this program `CertificateFile=…;KeyFile=…`, PEM files beside the list.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portcullis_certs::pem::{self, PemError};
use portcullis_registry::credential::{InvalidKey, SymmetricKey};
use portcullis_registry::id::{DeviceId, IdentityId, InvalidId, ModuleId};
use rustls::sign::CertifiedKey;

use crate::access::field;
use crate::identity::{Credential, Identity};

/// A fleet from a file, and the hub it belongs to.
#[derive(Debug)]
pub struct GivenFleet {
    pub hostname: String,
    pub identities: Vec<Identity>,
}

/// Why a file is not a fleet.
#[derive(Debug, thiserror::Error)]
pub enum FleetFileError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} contains no device", .0.display())]
    Empty(PathBuf),
    #[error("{}, line {line}", .file.display())]
    Line {
        file: PathBuf,
        line: usize,
        #[source]
        reason: LineError,
    },
}

/// Why a line is not a device.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{0}")]
    Id(#[from] InvalidId),
    #[error("the SharedAccessKey is not a key")]
    Key(#[from] InvalidKey),
    #[error("this device is at {0}, but the devices before it are at another hub")]
    OtherHub(String),
    #[error("cannot read {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    #[error("{0}")]
    Pem(#[from] PemError),
    #[error("the certificate and its key cannot be used: {0}")]
    Certificate(#[from] rustls::Error),
}

impl GivenFleet {
    /// Reads `file`. Skips empty lines and lines that begin with `#`.
    pub fn read(file: &Path) -> Result<Self, FleetFileError> {
        let text = fs::read_to_string(file).map_err(|error| FleetFileError::Read(file.to_owned(), error))?;
        let beside = file.parent().unwrap_or(Path::new(""));
        let lines = (1..).zip(text.lines().map(str::trim));
        let mut fleet: Option<Self> = None;
        for (line, text) in lines.filter(|(_, text)| !text.is_empty() && !text.starts_with('#')) {
            let told = |reason| FleetFileError::Line { file: file.to_owned(), line, reason };
            let hostname = field(text, "HostName").ok_or(told(LineError::Missing("HostName")))?;
            let identity = parse(text, beside).map_err(told)?;
            let fleet =
                fleet.get_or_insert_with(|| Self { hostname: hostname.to_owned(), identities: Vec::new() });
            if fleet.hostname != hostname {
                return Err(told(LineError::OtherHub(hostname.to_owned())));
            }
            fleet.identities.push(identity);
        }
        fleet.ok_or_else(|| FleetFileError::Empty(file.to_owned()))
    }
}

fn parse(text: &str, beside: &Path) -> Result<Identity, LineError> {
    let needed = |name| field(text, name).ok_or(LineError::Missing(name));
    let device = DeviceId::parse(needed("DeviceId")?)?;
    let id = match field(text, "ModuleId") {
        None => IdentityId::device(device),
        Some(module) => IdentityId::module(device, ModuleId::parse(module)?),
    };
    let credential = if field(text, "x509").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        let read = |name| {
            let path = beside.join(needed(name)?);
            fs::read(&path).map_err(|error| LineError::File(path, error))
        };
        let chain = pem::read_certificates(&read("CertificateFile")?)?;
        let key = pem::read_key(&read("KeyFile")?)?;
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        Credential::Certificate(Arc::new(CertifiedKey::from_der(chain, key, &provider)?))
    } else {
        Credential::Key(SymmetricKey::parse_base64(needed("SharedAccessKey")?)?)
    };
    Ok(Identity { id, credential, is_made: false })
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use portcullis_certs::fleet::self_signed_device;
    use portcullis_certs::key::PrivateKey;
    use rustls_pki_types::UnixTime;

    use super::*;

    fn read(text: &str) -> Result<GivenFleet, FleetFileError> {
        let directory = tempfile::tempdir().unwrap();
        let key = PrivateKey::generate().unwrap();
        let lifetime = std::time::Duration::from_secs(3600);
        let minted = self_signed_device(&key, "d3", lifetime, UnixTime::now()).unwrap();
        fs::write(directory.path().join("d3.pem"), minted.pem).unwrap();
        fs::write(directory.path().join("d3-key.pem"), key.to_pem()).unwrap();
        let file = directory.path().join("devices.txt");
        fs::write(&file, text).unwrap();
        GivenFleet::read(&file)
    }

    #[test]
    fn devices_modules_and_certificates_are_read() {
        let fleet = read(
            "# ours\nHostName=h;DeviceId=d1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==\n\n\
             HostName=h;DeviceId=d1;ModuleId=m;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==\n\
             HostName=h;DeviceId=d3;x509=true;CertificateFile=d3.pem;KeyFile=d3-key.pem\n",
        )
        .unwrap();
        assert_eq!(fleet.hostname, "h");
        let ids: Vec<_> = fleet.identities.iter().map(|identity| identity.id.to_string()).collect();
        assert_eq!(ids, ["d1", "d1/m", "d3"]);
        assert!(matches!(fleet.identities[2].credential, Credential::Certificate(_)));
    }

    #[test]
    fn an_error_names_its_line() {
        let good = "HostName=h;DeviceId=d1;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==\n";
        for (bad, reason) in [
            ("DeviceId=d;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==", "HostName is missing"),
            ("HostName=h;DeviceId=d", "SharedAccessKey is missing"),
            ("HostName=h;DeviceId=a/b;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==", "may not be in an id"),
            ("HostName=h;DeviceId=d;SharedAccessKey=%%%", "not a key"),
            ("HostName=g;DeviceId=d;SharedAccessKey=AAECAwQFBgcICQoLDA0ODw==", "another hub"),
            ("HostName=h;DeviceId=d;x509=true;CertificateFile=none.pem;KeyFile=d3-key.pem", "none.pem"),
        ] {
            let error = read(&format!("{good}{bad}")).unwrap_err();
            assert!(error.to_string().ends_with("line 2"), "{error}");
            assert!(error.source().unwrap().to_string().contains(reason), "{bad}: {error:?}");
        }
        assert!(matches!(read("# nobody\n"), Err(FleetFileError::Empty(_))));
    }
}
