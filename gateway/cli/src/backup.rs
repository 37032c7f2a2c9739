//! `portcullis backup`: writes the hub of a data directory into one file, and restores it from that file.
//!
//! A backup reads the data directory, whether the hub runs or not. Any user who may read the directory can take one.
//! Nothing goes through REST.

use std::io::{IsTerminal, stderr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use jiff::Timestamp;
use portcullis_registry::backup::{self, BackupError, Manifest, ProgressObserver};

use crate::exit::{Exit, Failure};
use crate::output;
use portcullis::config::DATA_DIR_DEFAULT;

#[derive(Subcommand)]
pub(super) enum BackupVerb {
    /// Write everything that a restored hub needs into one new file, while the hub runs or not
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// Check every byte and every record of a backup
    Verify(VerifyArgs),
    /// Create a data directory from a backup
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore(RestoreArgs),
}

#[derive(Args)]
pub(super) struct CreateArgs {
    /// The new file; it holds keys, and only you may read it
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// The hub's data directory
    #[arg(long, env = "PORTCULLIS__DATA_DIR", value_name = "DIRECTORY", default_value = DATA_DIR_DEFAULT)]
    data_dir: PathBuf,
}

#[derive(Args)]
pub(super) struct VerifyArgs {
    file: PathBuf,
}

#[derive(Args)]
pub(super) struct RestoreArgs {
    file: PathBuf,
    /// The data directory of the restored hub; it must be empty or not exist yet
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
}

impl BackupVerb {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self {
            BackupVerb::Create(CreateArgs { output, data_dir }) => {
                let bar = Bar::new("copying the store");
                let made = backup::create(&data_dir, KEPT, &output, Timestamp::now(), bar.progress());
                bar.clear();
                print_line(&format!("{} holds {}", output.display(), contents(&made?)))
            }
            BackupVerb::Verify(VerifyArgs { file }) => {
                let verified = backup::verify(&file)?;
                print_line(&format!("{} is complete: {}", file.display(), contents(&verified)))
            }
            BackupVerb::Restore(RestoreArgs { file, data_dir }) => {
                let bar = Bar::new("restoring");
                let restored = backup::restore(&file, &data_dir, &bar.progress());
                bar.clear();
                print_line(&format!("{} holds {}", data_dir.display(), contents(&restored?)))
            }
        }
    }
}

/// The contents of a backup as text.
fn contents(manifest: &Manifest) -> String {
    let count = |number: u64, one: &str| format!("{number} {one}{}", if number == 1 { "" } else { "s" });
    let mut text = format!(
        "{}, {}, {} waiting; as of {}",
        count(manifest.devices, "device"),
        count(manifest.modules, "module"),
        count(manifest.messages, "message"),
        manifest.created
    );
    let files: Vec<_> = manifest.parts.iter().skip(1).map(|part| part.name.as_str()).collect();
    if !files.is_empty() {
        text += &format!("; with {}", files.join(", "));
    }
    text
}

fn print_line(line: &str) -> Result<(), Failure> {
    output::answer(&format!("{line}\n"))
}

/// A progress bar on a terminal; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(doing: &'static str) -> Self {
        if !stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let style = ProgressStyle::with_template("{msg} {bytes} of {total_bytes} {bar:30} {eta}");
        let bar = ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar.with_message(doing))
    }

    fn progress(&self) -> ProgressObserver {
        let bar = self.0.clone();
        Arc::new(move |done, expected| {
            bar.set_length(expected.max(done));
            bar.set_position(done);
        })
    }

    fn clear(self) {
        self.0.finish_and_clear();
    }
}

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let exit = match &error {
            BackupError::Exists(_) | BackupError::NotEmpty(_) | BackupError::Leftover(_) => Exit::Conflict,
            BackupError::NotABackup(_)
            | BackupError::NewerFormat(_)
            | BackupError::Damaged { .. }
            | BackupError::Io(..)
            | BackupError::Store(_) => Exit::Error,
        };
        Failure::new(exit, format!("{:#}", anyhow::Error::new(error)))
    }
}

/// The files that a restored hub needs beside the store, so that devices still trust it.
const KEPT: &[&str] = &["ca.pem", "ca-key.pem", "server.pem", "server-key.pem"];
const CREATE_EXAMPLES: &str = "\
Examples:
  portcullis backup create --output hub-$(date +%F).backup
  portcullis backup create --output /mnt/backups/hub.backup --data-dir /var/lib/portcullis

The backup holds the registry with all keys, waiting messages, sessions and policies, and the hub's CA and server key.
It does not hold the configuration, or a certificate that the configuration names.";
const RESTORE_EXAMPLES: &str = "\
Examples:
  portcullis backup restore hub.backup --data-dir /var/lib/portcullis
  portcullis --data-dir /var/lib/portcullis";

#[cfg(test)]
mod tests {
    use portcullis_registry::backup::Part;

    use super::*;

    #[test]
    fn contents_are_told_in_words() {
        let part = |name: &str| Part { name: name.into(), bytes: 1 };
        let manifest = Manifest {
            created: "2026-05-01T08:00:00Z".into(),
            devices: 1,
            modules: 0,
            messages: 12,
            parts: vec![part("store/hub.db"), part("ca.pem")],
        };
        assert_eq!(
            contents(&manifest),
            "1 device, 0 modules, 12 messages waiting; as of 2026-05-01T08:00:00Z; with ca.pem"
        );
    }
}
