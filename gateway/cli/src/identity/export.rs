//! `device-identity export`: writes the registry into a file that `import` takes, of this hub or of an IoT Hub.
//!
//! The hub writes the file in a job. The command line fetches it once it is complete.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};

use clap::Args;
use portcullis_registry::durable_file::DurableFile;
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::job::{self, Followed, follow};
use crate::login::read_secret;
use crate::output::scalar;
use crate::progress::{Progress, ProgressArgs, Unit};
use crate::rest::Rest;

/// What to export, and to which file.
#[derive(Args)]
pub(crate) struct ExportArgs {
    /// The new file, which only you may read; - for standard output
    #[arg(long, visible_alias = "of", value_name = "FILE", default_value = "-")]
    output_file: PathBuf,
    /// The URI with a SAS of a container, or file:NAME; the hub writes the blob devices.txt there, with modules.
    /// `@FILE` reads the URI from a file
    #[arg(long, visible_alias = "bcu", value_name = "URI", conflicts_with_all = ["output_file", "include_modules"])]
    blob_container_uri: Option<String>,
    /// Include the keys; without them, an import of the file makes new keys for new devices
    #[arg(long, visible_alias = "ik", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    include_keys: Option<bool>,
    /// Include the modules, each after its device
    #[arg(long, visible_alias = "im", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    include_modules: Option<bool>,
    #[command(flatten)]
    progress: ProgressArgs,
}

impl ExportArgs {
    pub(super) async fn run(self, rest: &Rest) -> Result<(), Failure> {
        let with_keys = self.include_keys.unwrap_or(false);
        let mut stop = pin!(tokio::signal::ctrl_c());
        let (job, target) = match &self.blob_container_uri {
            Some(uri) => {
                let wanted = json!({
                    "type": "export",
                    "outputBlobContainerUri": read_secret(uri)?,
                    "excludeKeysInExport": !with_keys,
                });
                (rest.act(&["jobs", "create"], &wanted).await?, None)
            }
            None => {
                let target = Target::create(&self.output_file)?;
                let word = |flag: bool| if flag { "true" } else { "false" };
                let with_modules = word(self.include_modules.unwrap_or(false));
                let query = [("includeKeys", word(with_keys)), ("includeModules", with_modules)];
                (rest.start(&["api", "v1", "exports"], &query).await?, Some(target))
            }
        };
        let progress = Progress::begin(self.progress, "exporting", Unit::Lines);
        let Followed { job, interrupted } = follow(rest, job, &progress, stop.as_mut()).await?;
        drop(progress);
        job::ended(&job, interrupted)?;
        if interrupted {
            return Err(Failure::new(Exit::Interrupted, "interrupted"));
        }
        if let Some(mut target) = target {
            let progress = Progress::begin(self.progress, "fetching", Unit::Bytes);
            match fetch(rest, &job::id(&job), &mut target, &progress, stop).await? {
                Fetched::NobodyReads => return Ok(()),
                Fetched::Whole => target.finish()?,
            }
        }
        eprintln!("{} lines{}", scalar(&job, "/linesDone"), if with_keys { "" } else { ", without keys" });
        Ok(())
    }
}

enum Fetched {
    Whole,
    /// The reader of standard output has closed it.
    NobodyReads,
}

async fn fetch(
    rest: &Rest,
    job: &str,
    target: &mut Target,
    progress: &Progress,
    stop: Pin<&mut impl Future>,
) -> Result<Fetched, Failure> {
    let fetching = async {
        let mut file = rest.download(&["api", "v1", "jobs", job, "files", "devices.txt"]).await?;
        let mut bytes = 0;
        while let Some(piece) = file.next().await? {
            match target.write_all(&piece) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Fetched::NobodyReads),
                Err(error) => return Err(Failure::error(format!("{}: {error}", target.name()))),
            }
            bytes += piece.len() as u64;
            progress.at(bytes, "");
        }
        Ok(Fetched::Whole)
    };
    tokio::select! {
        fetched = fetching => fetched,
        _ = stop => Err(Failure::new(Exit::Interrupted, "interrupted")),
    }
}

/// The destination of the file. The file has another name until it is complete.
enum Target {
    StandardOutput,
    File { path: PathBuf, file: DurableFile },
}

impl Target {
    fn create(path: &Path) -> Result<Self, Failure> {
        if path.as_os_str() == "-" {
            return Ok(Self::StandardOutput);
        }
        let failure = |error: io::Error| Failure::error(format!("{}: {error}", path.display()));
        if path.exists() {
            return Err(Failure::new(Exit::Conflict, format!("{} exists already", path.display()))
                .with_hint("name another --output-file, or move this file"));
        }
        let file = DurableFile::create(path, &path.with_added_extension("part"), 0o600).map_err(failure)?;
        Ok(Self::File { path: path.to_owned(), file })
    }

    fn write_all(&mut self, piece: &[u8]) -> io::Result<()> {
        match self {
            Self::StandardOutput => io::stdout().write_all(piece),
            Self::File { file, .. } => file.write_all(piece),
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let name = self.name();
        let ended = match self {
            Self::StandardOutput => io::stdout().flush(),
            Self::File { file, .. } => file.publish(),
        };
        ended.map_err(|error| Failure::error(format!("{name}: {error}")))
    }

    fn name(&self) -> String {
        match self {
            Self::StandardOutput => "standard output".to_owned(),
            Self::File { path, .. } => path.display().to_string(),
        }
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis device-identity export > devices.txt
  portcullis device-identity export --ik --im --output-file devices.txt      # all there is
  portcullis device-identity export --ik --im | gzip > devices.txt.gz
  portcullis device-identity export --bcu file:fleet --ik

One JSON object a line, as IoT Hub exports it. With keys and modules, a hub that imports the file
admits every device as this hub does.";
