//! `cert`: certificates for devices, from the first CA to the reason why the hub refuses one.
//!
//! New keys and certificates stay in files on this machine. The hub never sees a private key. No verb overwrites a
//! file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use portcullis_certs::pem;
use portcullis_certs::thumbprint::Thumbprints;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use rustls_pki_types::CertificateDer;

use crate::exit::{Exit, Failure};
use crate::output;

mod enrol;
mod inspect;
mod mint;
mod rotate;

use enrol::{EnrolArgs, ListArgs, RemoveArgs, VerifyArgs};
use inspect::InspectArgs;
use mint::{CreateCaArgs, IssueArgs};
use rotate::RotateArgs;

/// Verbs on certificates.
#[derive(Subcommand)]
pub(super) enum CertVerb {
    /// CAs that sign devices' certificates
    #[command(subcommand)]
    Ca(CaVerb),
    /// Devices' own certificates
    #[command(subcommand)]
    Device(DeviceCertVerb),
    /// Print the thumbprint of a certificate
    #[command(after_help = THUMBPRINT_EXAMPLES)]
    Thumbprint(ThumbprintArgs),
    /// Print what a certificate holds, and whether the hub would admit a device with it
    #[command(after_help = inspect::EXAMPLES)]
    Inspect(InspectArgs),
}

/// Verbs on CAs.
#[derive(Subcommand)]
pub(super) enum CaVerb {
    /// Create a root CA, or a CA below another one
    #[command(after_help = mint::CA_EXAMPLES)]
    Create(CreateCaArgs),
    /// Enrol a CA with the hub, which trusts its devices once the CA is verified
    #[command(after_help = enrol::EXAMPLES)]
    Enrol(EnrolArgs),
    /// Print the enrolled CAs
    List(ListArgs),
    /// Prove to the hub that you hold the CA's key
    #[command(after_help = enrol::VERIFY_EXAMPLES)]
    Verify(VerifyArgs),
    /// Remove a CA from the hub, which closes the connections of its devices
    Remove(RemoveArgs),
}

/// Verbs on devices' certificates.
#[derive(Subcommand)]
pub(super) enum DeviceCertVerb {
    /// Create a key and a certificate for a device or module
    #[command(after_help = mint::ISSUE_EXAMPLES)]
    Issue(IssueArgs),
    /// Register a new certificate beside the old one, and later remove the old one
    #[command(after_help = rotate::EXAMPLES)]
    Rotate(RotateArgs),
}

#[derive(Args)]
pub(super) struct ThumbprintArgs {
    /// A certificate, PEM
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Print SHA-1 instead of SHA-256, for hubs and tools that need it
    #[arg(long)]
    sha1: bool,
}

/// Which device or module.
#[derive(Args)]
pub(super) struct IdentityArgs {
    /// The device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: DeviceId,
    /// The module of the device
    #[arg(short, long, value_name = "ID", value_parser = ModuleId::parse)]
    module_id: Option<ModuleId>,
}

impl IdentityArgs {
    fn id(&self) -> IdentityId {
        IdentityId { device: self.device_id.clone(), module: self.module_id.clone() }
    }
}

impl CertVerb {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let done = |outcome: Result<(), Failure>| outcome.map(|()| Exit::Done);
        match self {
            CertVerb::Ca(CaVerb::Create(arguments)) => done(arguments.run()),
            CertVerb::Ca(CaVerb::Enrol(arguments)) => done(arguments.run().await),
            CertVerb::Ca(CaVerb::List(arguments)) => done(arguments.run().await),
            CertVerb::Ca(CaVerb::Verify(arguments)) => done(arguments.run().await),
            CertVerb::Ca(CaVerb::Remove(arguments)) => done(arguments.run().await),
            CertVerb::Device(DeviceCertVerb::Issue(arguments)) => done(arguments.run()),
            CertVerb::Device(DeviceCertVerb::Rotate(arguments)) => done(arguments.run().await),
            CertVerb::Thumbprint(arguments) => done(arguments.run()),
            CertVerb::Inspect(arguments) => arguments.run().await,
        }
    }
}

impl ThumbprintArgs {
    fn run(self) -> Result<(), Failure> {
        let (_, certificates) = read_chain(&self.file)?;
        let thumbprints = Thumbprints::of(&certificates[0]);
        match self.sha1 {
            true => output::answer(&format!("{}\n", thumbprints.sha1)),
            false => output::answer(&format!("{}\n", thumbprints.sha256)),
        }
    }
}

/// Reads a file and the certificates in it, at least one. Skips keys.
fn read_chain(path: &Path) -> Result<(String, Vec<CertificateDer<'static>>), Failure> {
    let text = read(path)?;
    // A device's file often holds its key too. Only the certificates go to the hub.
    let certificates = pem::read_certificates_beside_keys(text.as_bytes())
        .map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    let text = certificates.iter().map(pem::write_certificate).collect();
    Ok((text, certificates))
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > FILE_BYTES_MAX => {
            Err(Failure::error(format!("{}: the file is longer than {FILE_BYTES_MAX} bytes", path.display())))
        }
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::error(format!("{}: {error}", path.display()))),
    }
}

const FILE_BYTES_MAX: u64 = 1024 * 1024;
const THUMBPRINT_EXAMPLES: &str = "\
Examples:
  portcullis cert thumbprint pump-7.pem
  portcullis device-identity create -d pump-7 --am x509_thumbprint --ptp \"$(portcullis cert thumbprint pump-7.pem)\"";
