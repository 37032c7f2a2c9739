//! The access file, with which programs on the hub's own machine sign in as its owner without configuration.
//!
//! `serve` writes it into the data directory at each start; the client verbs read it. It holds the owner's key, so
//! only the user who runs the hub may read it.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use portcullis_registry::durable_file;
use serde::{Deserialize, Serialize};

/// Where a running hub listens, and its owner's connection string.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LocalAccess {
    /// The name in the hub's certificate.
    pub hostname: String,
    pub mqtt_port: u16,
    pub https_port: u16,
    /// The address that reaches both ports from this machine, whatever the name resolves to.
    pub connect_address: String,
    /// The version of the running hub.
    #[serde(default)]
    pub version: Option<String>,
    /// The connection string of the policy with every right.
    pub owner: String,
}

/// Why the access file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LocalAccessError {
    #[error("{path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{path}: {source}", path = path.display())]
    Malformed { path: PathBuf, source: serde_json::Error },
}

impl LocalAccess {
    /// Reads the access file in a data directory.
    pub fn read(data_dir: &Path) -> Result<Self, LocalAccessError> {
        let path = data_dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(source) => return Err(LocalAccessError::Io { path, source }),
        };
        serde_json::from_slice(&text).map_err(|source| LocalAccessError::Malformed { path, source })
    }

    /// Replaces the file atomically, so that a reader sees the old or the new file. The file always has mode 0600.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec(self)?;
        text.push(b'\n');
        durable_file::replace(&data_dir.join(FILE), &text, 0o600)
    }
}

impl fmt::Debug for LocalAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalAccess").field("hostname", &self.hostname).finish_non_exhaustive()
    }
}

const FILE: &str = "local.json";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn access() -> LocalAccess {
        LocalAccess {
            hostname: "localhost".into(),
            mqtt_port: 8883,
            https_port: 8443,
            connect_address: "127.0.0.1".into(),
            version: Some("1.2.3".into()),
            owner: "HostName=localhost;SharedAccessKeyName=iothubowner;SharedAccessKey=c2VjcmV0".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_and_only_the_owner_may() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join(FILE).with_added_extension(durable_file::UNFINISHED);
        fs::write(&left, "left by a crash").unwrap();
        access().write(dir.path()).unwrap();
        access().write(dir.path()).unwrap();
        assert_eq!(LocalAccess::read(dir.path()).unwrap(), access());
        let mode = fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!left.exists());
    }

    #[test]
    fn the_file_is_the_documented_one() {
        let json = serde_json::to_value(access()).unwrap();
        let names: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        for name in ["hostname", "mqttPort", "httpsPort", "connectAddress", "version", "owner"] {
            assert!(names.iter().any(|own| own == name), "{name}");
        }
    }

    #[test]
    fn the_key_is_not_in_debug_output() {
        assert!(!format!("{:?}", access()).contains("c2VjcmV0"));
    }

    #[test]
    fn a_missing_file_names_its_path() {
        let error = LocalAccess::read(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/local.json: "), "{error}");
    }
}
