//! The hub's own CA and server certificate in the data directory.
//!
//! There are four files: `ca-key.pem` and `ca.pem` (which clients must trust), `server-key.pem` and `server.pem`. Each
//! is written completely or not at all, and a key before its certificate. A key is never replaced, so the next start
//! completes a start that was interrupted. The hub does not repair what only a person can have mixed up. An operator
//! may put a server certificate of another CA here, and the hub serves it unchanged.

use std::time::Duration;

use portcullis_certs::ca::{CaError, CertificateAuthority};
use portcullis_certs::key::{KeyError, PrivateKey};
use portcullis_certs::server_cert::{ServerCert, ServerCertError};
use rustls::pki_types::{ServerName, UnixTime};

use super::data_dir::{DataDir, DataDirError, Mode};

/// Why the data directory's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OwnCaError {
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    #[error("the hub cannot make a key")]
    Key(#[source] KeyError),
    #[error(
        "{CA} and {CA_KEY} in the data directory cannot be used; to start with a new CA, move both and {SERVER} away"
    )]
    Ca(#[source] CaError),
    #[error("{SERVER_KEY} in the data directory cannot be used")]
    ServerKey(#[source] KeyError),
    #[error(
        "{SERVER} and {SERVER_KEY} in the data directory cannot be used; move both away, and the hub makes new ones"
    )]
    Server(#[source] ServerCertError),
    #[error(
        "the hub cannot make a server certificate: the data directory holds {CA} but not {CA_KEY}; restore {CA_KEY}"
    )]
    CaKeyMissing,
    #[error(
        "the data directory holds {SERVER} but not {SERVER_KEY}; restore {SERVER_KEY}, or move {SERVER} away"
    )]
    ServerKeyMissing,
    #[error(
        "the server certificate in {SERVER} has expired, and the hub's own CA did not sign it; replace it"
    )]
    Expired,
}

/// The server's certificate, made or renewed if necessary. `names` are those that clients dial. A new certificate holds
/// `extra_names` too.
pub(super) fn open_or_create(
    directory: &DataDir,
    names: &[ServerName<'_>],
    extra_names: &[ServerName<'_>],
    now: UnixTime,
) -> Result<ServerCert, OwnCaError> {
    let authority = authority(directory, now)?;
    let mut all_names = names.to_vec();
    all_names.extend(extra_names.iter().filter(|name| !names.contains(name)).cloned());
    let (chain, key) = match (directory.read(SERVER)?, directory.read(SERVER_KEY)?) {
        (Some(chain), Some(key)) => (chain, key),
        (Some(_), None) => return Err(OwnCaError::ServerKeyMissing),
        (None, key) => {
            let key = match key {
                Some(pem) => PrivateKey::parse_pem(pem.as_bytes()).map_err(OwnCaError::ServerKey)?,
                None => new_key(directory, SERVER_KEY)?,
            };
            let authority = authority.as_ref().ok_or(OwnCaError::CaKeyMissing)?;
            return sign(directory, authority, &key, &all_names, now);
        }
    };
    let current = ServerCert::parse(chain.as_bytes(), key.as_bytes()).map_err(OwnCaError::Server)?;
    let Some(reason) = outdated(&current, names, now) else { return Ok(current) };
    if let Some(authority) = authority.filter(|authority| authority.has_signed(current.leaf())) {
        tracing::info!(reason, "the hub makes a new server certificate");
        let key = PrivateKey::parse_pem(key.as_bytes()).map_err(OwnCaError::ServerKey)?;
        return sign(directory, &authority, &key, &all_names, now);
    }
    if now >= current.valid_until() {
        return Err(OwnCaError::Expired);
    }
    tracing::warn!(reason, "replace the server certificate in the data directory");
    Ok(current)
}

/// The hub's own CA. None if its key is elsewhere, or if another CA signed the server's certificate.
fn authority(directory: &DataDir, now: UnixTime) -> Result<Option<CertificateAuthority>, OwnCaError> {
    let key = match (directory.read(CA)?, directory.read(CA_KEY)?) {
        (Some(certificate), Some(key)) => {
            return CertificateAuthority::parse(&certificate, key.as_bytes())
                .map(Some)
                .map_err(OwnCaError::Ca);
        }
        (Some(_), None) => return Ok(None),
        (None, Some(key)) => {
            PrivateKey::parse_pem(key.as_bytes()).map_err(CaError::Key).map_err(OwnCaError::Ca)?
        }
        (None, None) if directory.read(SERVER)?.is_some() => return Ok(None),
        (None, None) => new_key(directory, CA_KEY)?,
    };
    let authority = CertificateAuthority::self_signed(key, now).map_err(OwnCaError::Ca)?;
    directory.write(CA, authority.pem(), Mode::Public)?;
    Ok(Some(authority))
}

fn new_key(directory: &DataDir, name: &'static str) -> Result<PrivateKey, OwnCaError> {
    let key = PrivateKey::generate().map_err(OwnCaError::Key)?;
    directory.write(name, &key.to_pem(), Mode::Secret)?;
    Ok(key)
}

fn sign(
    directory: &DataDir,
    authority: &CertificateAuthority,
    key: &PrivateKey,
    names: &[ServerName<'_>],
    now: UnixTime,
) -> Result<ServerCert, OwnCaError> {
    let minted = authority.sign_server(key, names, now).map_err(OwnCaError::Ca)?;
    directory.write(SERVER, &minted.pem, Mode::Public)?;
    ServerCert::parse(minted.pem.as_bytes(), key.to_pem().as_bytes()).map_err(OwnCaError::Server)
}

/// Why a certificate should be replaced; none if it is good.
fn outdated(current: &ServerCert, names: &[ServerName<'_>], now: UnixTime) -> Option<&'static str> {
    let left = current.valid_until().as_secs().saturating_sub(now.as_secs());
    if left == 0 {
        return Some("it has expired");
    }
    if left < RENEW_BEFORE.as_secs() {
        return Some("it expires soon");
    }
    if now < current.valid_from() {
        return Some("it is not valid yet");
    }
    let all_covered = names.iter().all(|name| current.covers(name));
    (!all_covered).then_some("it does not hold every name of the hub")
}

/// The file that clients must trust.
pub(super) const CA: &str = "ca.pem";
const CA_KEY: &str = "ca-key.pem";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server-key.pem";
/// The files of the server's certificate and key.
pub(super) const FILES: [&str; 2] = [SERVER, SERVER_KEY];
/// A start this close to a certificate's expiry renews it.
const RENEW_BEFORE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use portcullis_certs::testing::TestCa;
    use tempfile::TempDir;

    use super::*;

    const ALL_FILES: [&str; 4] = [CA_KEY, CA, SERVER_KEY, SERVER];
    const DAY: u64 = 24 * 60 * 60;

    struct Hub {
        directory: TempDir,
        name: &'static str,
    }

    impl Hub {
        fn new() -> Self {
            Self { directory: TempDir::new().unwrap(), name: "hub.test" }
        }

        fn path(&self, file: &str) -> PathBuf {
            self.directory.path().join("data").join(file)
        }

        fn start(&self) -> Result<ServerCert, OwnCaError> {
            self.start_in_days(0)
        }

        fn start_in_days(&self, days: u64) -> Result<ServerCert, OwnCaError> {
            let directory = DataDir::open(&self.path(""))?;
            let now = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000 + days * DAY));
            open_or_create(&directory, &[name(self.name)], &[name("127.0.0.1")], now)
        }

        fn file(&self, file: &str) -> Option<String> {
            fs::read_to_string(self.path(file)).ok()
        }

        fn remove(&self, file: &str) {
            fs::remove_file(self.path(file)).unwrap();
        }

        fn files(&self) -> [Option<String>; 4] {
            ALL_FILES.map(|file| self.file(file))
        }
    }

    fn name(text: &'static str) -> ServerName<'static> {
        ServerName::try_from(text).unwrap()
    }

    #[test]
    fn t913_the_first_start_makes_secrets_of_its_own() {
        let (one, other) = (Hub::new(), Hub::new());
        let cert = one.start().unwrap();
        other.start().unwrap();
        assert!(cert.covers(&name("hub.test")) && cert.covers(&name("127.0.0.1")));
        for file in ALL_FILES {
            assert_ne!(one.file(file).unwrap(), other.file(file).unwrap(), "{file}");
            let mode = fs::metadata(one.path(file)).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, if file.contains("key") { 0o600 } else { 0o644 }, "{file}");
        }
        assert_eq!(fs::metadata(one.path("")).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_second_start_changes_nothing() {
        let hub = Hub::new();
        hub.start().unwrap();
        let before = hub.files();
        hub.start_in_days(100).unwrap();
        assert_eq!(hub.files(), before);
    }

    #[test]
    fn t902_a_first_start_cut_short_anywhere_is_finished_by_the_next() {
        for written in 0..ALL_FILES.len() {
            let hub = Hub::new();
            hub.start().unwrap();
            let before = hub.files();
            ALL_FILES[written..].iter().for_each(|file| hub.remove(file));
            fs::write(hub.path(&format!("{}.new", ALL_FILES[written])), "half").unwrap();
            hub.start().unwrap();
            let after = hub.files();
            assert_eq!(after[..written], before[..written]);
            assert!(after.iter().all(Option::is_some));
            assert!(!fs::exists(hub.path(&format!("{}.new", ALL_FILES[written]))).unwrap());
        }
    }

    #[test]
    fn another_host_name_gets_a_new_certificate_of_the_same_ca_and_key() {
        let mut hub = Hub::new();
        hub.start().unwrap();
        let before = hub.files();
        hub.name = "other.test";
        assert!(hub.start().unwrap().covers(&name("other.test")));
        let after = hub.files();
        assert_eq!(after[..3], before[..3]);
        assert_ne!(after[3], before[3]);
    }

    #[test]
    fn t115_a_certificate_near_or_past_its_end_is_made_anew() {
        for days in [825 - 89, 825, 1_000] {
            let hub = Hub::new();
            let first = hub.start().unwrap().valid_until();
            assert!(hub.start_in_days(days).unwrap().valid_until() > first, "{days}");
        }
    }

    #[test]
    fn an_expired_ca_signs_no_more() {
        let hub = Hub::new();
        hub.start().unwrap();
        assert!(matches!(hub.start_in_days(3_700), Err(OwnCaError::Ca(CaError::Expired))));
    }

    #[test]
    fn a_clock_put_right_makes_the_certificate_valid_at_once() {
        let hub = Hub::new();
        hub.start_in_days(300).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(2_000_000_000));
        assert!(hub.start().unwrap().valid_from() < now);
    }

    #[test]
    fn t912_pairs_that_do_not_fit_are_refused_and_left_alone() {
        for (certificate, key) in [(CA, CA_KEY), (SERVER, SERVER_KEY)] {
            let (hub, other) = (Hub::new(), Hub::new());
            hub.start().unwrap();
            other.start().unwrap();
            fs::copy(other.path(key), hub.path(key)).unwrap();
            let before = hub.files();
            let refused = hub.start().unwrap_err();
            assert!(refused.to_string().contains(certificate), "{refused}");
            assert_eq!(hub.files(), before);
        }
    }

    #[test]
    fn t906_a_damaged_or_missing_file_is_refused_and_never_made_up() {
        for file in ALL_FILES {
            let hub = Hub::new();
            hub.start().unwrap();
            fs::write(hub.path(file), "").unwrap();
            assert!(hub.start().is_err(), "{file}");
            assert_eq!(hub.file(file).unwrap(), "");
        }
        let hub = Hub::new();
        hub.start().unwrap();
        hub.remove(SERVER_KEY);
        assert!(matches!(hub.start(), Err(OwnCaError::ServerKeyMissing)));
        hub.remove(SERVER);
        hub.remove(CA_KEY);
        assert!(matches!(hub.start(), Err(OwnCaError::CaKeyMissing)));
    }

    #[test]
    fn a_ca_key_kept_elsewhere_is_not_missed_until_it_is_needed() {
        let hub = Hub::new();
        hub.start().unwrap();
        hub.remove(CA_KEY);
        assert!(hub.start().is_ok());
        assert!(hub.start_in_days(800).is_ok(), "soon, not yet");
        assert!(matches!(hub.start_in_days(825), Err(OwnCaError::Expired)));
    }

    #[test]
    fn a_certificate_of_another_ca_is_served_as_it_is() {
        let hub = Hub::new();
        let theirs = TestCa::new().server(&["hub.test"]);
        let directory = DataDir::open(&hub.path("")).unwrap();
        directory.write(SERVER_KEY, &theirs.key_pem, Mode::Secret).unwrap();
        directory.write(SERVER, &theirs.certificate_pem, Mode::Public).unwrap();
        drop(directory);
        let now = UnixTime::now();
        let served =
            open_or_create(&DataDir::open(&hub.path("")).unwrap(), &[name("else.test")], &[], now).unwrap();
        assert_eq!(served.leaf(), &theirs.certificate);
        assert_eq!(hub.files().map(|file| file.is_some()), [false, false, true, true]);
    }
}
