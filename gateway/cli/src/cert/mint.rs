//! `cert ca create` and `cert device issue`: write keys and certificates into new files. Only the owner may read a key.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use portcullis_certs::ca::{CaError, CertificateAuthority};
use portcullis_certs::fleet;
use portcullis_certs::key::{KeyError, PrivateKey};
use portcullis_certs::thumbprint::Thumbprints;
use rustls_pki_types::UnixTime;
use serde_json::json;

use super::{IdentityArgs, read};
use crate::exit::{Exit, Failure};
use crate::output;

#[derive(Args)]
pub(crate) struct CreateCaArgs {
    /// The common name of the CA; the files are NAME.pem and NAME-key.pem
    #[arg(long, value_name = "NAME", default_value = "device-ca", value_parser = parse_file_name)]
    name: String,
    /// How many days it is valid
    #[arg(long, visible_alias = "vd", value_name = "DAYS", default_value = "3650", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    valid_days: u32,
    #[command(flatten)]
    output: OutputDirArg,
    /// The certificate of the CA that signs the new one; its key is in FILE-key.pem beside it
    #[arg(long, value_name = "FILE")]
    signed_by: Option<PathBuf>,
    /// The file of that CA's key, if it is elsewhere
    #[arg(long, value_name = "FILE", requires = "signed_by")]
    signed_by_key: Option<PathBuf>,
}

#[derive(Args)]
pub(crate) struct IssueArgs {
    #[command(flatten)]
    identity: IdentityArgs,
    /// The certificate of the CA that signs it, PEM
    #[arg(long, value_name = "FILE", required_unless_present = "self_signed")]
    ca_cert: Option<PathBuf>,
    /// The file of the CA's key, if it is not FILE-key.pem beside the certificate
    #[arg(long, value_name = "FILE", requires = "ca_cert")]
    ca_key: Option<PathBuf>,
    /// Signed by no CA; register its thumbprint with the hub
    #[arg(long, conflicts_with_all = ["ca_cert", "ca_key"])]
    self_signed: bool,
    /// How many days it is valid
    #[arg(long, visible_alias = "vd", value_name = "DAYS", default_value = "365", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    valid_days: u32,
    /// The name of the files, NAME.pem and NAME-key.pem; without it, the device's id
    #[arg(long, value_name = "NAME", value_parser = parse_file_name)]
    name: Option<String>,
    #[command(flatten)]
    output: OutputDirArg,
}

#[derive(Args)]
struct OutputDirArg {
    /// The directory for the files
    #[arg(long, visible_alias = "od", value_name = "DIRECTORY", default_value = ".")]
    output_dir: PathBuf,
}

impl CreateCaArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let now = UnixTime::now();
        let lifetime = days(self.valid_days);
        let key = new_key()?;
        let made = match &self.signed_by {
            None => CertificateAuthority::root_for_devices(key, &self.name, lifetime, now),
            Some(certificate) => read_ca(certificate, self.signed_by_key.as_deref())?
                .intermediate_for_devices(key, &self.name, lifetime, now),
        };
        let ca = made.map_err(cannot_mint)?;
        let files = NewFiles::write(&self.output.output_dir, &self.name, ca.pem(), ca.key())?;
        eprintln!("Keep {} safe: anyone who has it can create devices.", files.key.display());
        match self.signed_by {
            None => eprintln!(
                "Next: portcullis cert ca enrol --name {} --verified {}",
                self.name,
                files.certificate.display()
            ),
            Some(_) => eprintln!("Devices must send {} along with their own.", files.certificate.display()),
        }
        files.answer(ca.certificate())
    }
}

impl IssueArgs {
    pub(super) fn run(self) -> Result<(), Failure> {
        let now = UnixTime::now();
        let id = self.identity.id();
        // IoT Hub: a module's certificate names `device/module`.
        let common_name = id.to_string();
        let key = new_key()?;
        let lifetime = days(self.valid_days);
        let (minted, chain) = match &self.ca_cert {
            Some(certificate) => {
                let ca = read_ca(certificate, self.ca_key.as_deref())?;
                let minted = ca.sign_device(&key, &common_name, lifetime, now).map_err(cannot_mint)?;
                let chain = format!("{}{}", minted.pem, ca.pem());
                (minted, chain)
            }
            None => {
                let minted = fleet::self_signed_device(&key, &common_name, lifetime, now);
                let minted = minted.map_err(cannot_mint)?;
                let chain = minted.pem.clone();
                (minted, chain)
            }
        };
        if common_name.len() > COMMON_NAME_MAX {
            eprintln!(
                "note: the name has more than {COMMON_NAME_MAX} characters; some TLS libraries reject it"
            );
        }
        let name = self.name.unwrap_or_else(|| common_name.replace('/', "-"));
        let files = NewFiles::write(&self.output.output_dir, &name, &chain, &key)?;
        if self.self_signed {
            let noun = if id.module.is_some() { "module-identity" } else { "device-identity" };
            let module = id.module.map(|module| format!(" -m {module}")).unwrap_or_default();
            let thumbprint = Thumbprints::of(&minted.certificate).sha256;
            eprintln!(
                "Next: portcullis {noun} create -d {}{module} --am x509_thumbprint --ptp {thumbprint}",
                id.device
            );
        }
        files.answer(&minted.certificate)
    }
}

/// A certificate and its key in new files.
#[derive(Debug)]
struct NewFiles {
    certificate: PathBuf,
    key: PathBuf,
}

impl NewFiles {
    /// Writes the key first, because a certificate without its key is of no use. A failure leaves neither file.
    fn write(directory: &Path, name: &str, chain: &str, key: &PrivateKey) -> Result<Self, Failure> {
        let files = Self {
            certificate: directory.join(format!("{name}.pem")),
            key: directory.join(format!("{name}-key.pem")),
        };
        if fs::exists(&files.certificate).unwrap_or(false) {
            return Err(already_there(&files.certificate));
        }
        create(&files.key, &key.to_pem(), 0o600)?;
        create(&files.certificate, chain, 0o644).map_err(|failure| match fs::remove_file(&files.key) {
            Ok(()) => failure,
            Err(_) => failure.with_hint(format!("delete {}: it has no certificate", files.key.display())),
        })?;
        Ok(files)
    }

    fn answer(&self, certificate: &rustls_pki_types::CertificateDer<'_>) -> Result<(), Failure> {
        let answer = json!({
            "certificate": self.certificate.display().to_string(),
            "key": self.key.display().to_string(),
            "thumbprint": Thumbprints::of(certificate).sha256.to_string(),
        });
        output::answer(&format!("{answer:#}\n"))
    }
}

/// Creates a new file with the permissions of `mode` before its first byte is written.
fn create(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let written =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => already_there(path),
        _ => Failure::error(format!("{}: {error}", path.display())),
    })
}

fn already_there(path: &Path) -> Failure {
    Failure::new(Exit::Conflict, format!("{} exists already and is not overwritten", path.display()))
        .with_hint("use --name or --output-dir to write to other files")
}

/// Reads a CA from its certificate and its key. The key is beside the certificate unless `key` says where.
pub(super) fn read_ca(certificate: &Path, key: Option<&Path>) -> Result<CertificateAuthority, Failure> {
    let beside = certificate
        .with_file_name(format!("{}-key.pem", certificate.file_stem().unwrap_or_default().to_string_lossy()));
    let key = key.unwrap_or(&beside);
    let (certificate_pem, key_pem) = (read(certificate)?, read(key)?);
    CertificateAuthority::parse(&certificate_pem, key_pem.as_bytes()).map_err(|error| {
        let text = crate::login::chain(&error);
        Failure::error(format!("{} and {}: {text}", certificate.display(), key.display()))
    })
}

fn new_key() -> Result<PrivateKey, Failure> {
    PrivateKey::generate().map_err(|error: KeyError| Failure::error(crate::login::chain(&error)))
}

fn cannot_mint(error: CaError) -> Failure {
    Failure::error(crate::login::chain(&error))
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

/// A file name without a directory, so that the file stays in its directory.
fn parse_file_name(text: &str) -> Result<String, String> {
    let bad = text.is_empty() || text.starts_with('.') || text.contains('/') || text.contains('\0');
    if bad || text.len() > FILE_NAME_MAX {
        Err("expected a file name".to_owned())
    } else {
        Ok(text.to_owned())
    }
}

/// RFC 5280, A.1. Some TLS libraries accept more.
const COMMON_NAME_MAX: usize = 64;
const FILE_NAME_MAX: usize = 200;
pub(super) const CA_EXAMPLES: &str = "\
Examples:
  portcullis cert ca create --name fleet                     # fleet.pem and fleet-key.pem
  portcullis cert ca create --name line-1 --signed-by fleet.pem --valid-days 730";
pub(super) const ISSUE_EXAMPLES: &str = "\
Examples:
  portcullis cert device issue -d pump-7 --ca-cert fleet.pem # pump-7.pem and pump-7-key.pem
  portcullis cert device issue -d pump-7 -m camera --ca-cert fleet.pem
  portcullis cert device issue -d pump-7 --self-signed --valid-days 90 --output-dir new";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_its_owners_and_nothing_is_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let key = new_key().unwrap();
        let files = NewFiles::write(directory.path(), "d1", "chain", &key).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&files.key), 0o600);
        let refused = NewFiles::write(directory.path(), "d1", "other", &new_key().unwrap()).unwrap_err();
        assert_eq!(refused.exit(), Exit::Conflict);
        fs::remove_file(&files.certificate).unwrap();
        assert!(NewFiles::write(directory.path(), "d1", "other", &new_key().unwrap()).is_err());
        assert_eq!(fs::read_to_string(&files.key).unwrap(), key.to_pem());
        assert!(!fs::exists(&files.certificate).unwrap());
    }

    #[test]
    fn a_name_stays_in_its_directory() {
        for good in ["pump-7", "a*b", "d%31"] {
            assert!(parse_file_name(good).is_ok(), "{good}");
        }
        for bad in ["", "..", ".hidden", "a/b", "../x"] {
            assert!(parse_file_name(bad).is_err(), "{bad}");
        }
    }
}
