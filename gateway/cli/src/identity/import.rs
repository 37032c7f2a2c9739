//! `device-identity import`: sends a file of identities, in IoT Hub's export format, to the hub unchanged. The hub
//! interprets the lines in a job, and the command line follows the job to its end.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};

use clap::{ArgGroup, Args};
use serde_json::json;

use crate::exit::{Exit, Failure};
use crate::job::{self, Followed, follow};
use crate::login::read_secret;
use crate::output::TextArgs;
use crate::progress::{Progress, ProgressArgs, Unit};
use crate::rest::Rest;

mod upload;

use upload::{Input, Sent};

/// What to import.
#[derive(Args)]
#[command(group = ArgGroup::new("input").required(true).args(["input_file", "input_blob_container_uri"]))]
pub(crate) struct ImportArgs {
    /// The file, plain or compressed with gzip; - for standard input
    #[arg(long, visible_alias = "if", value_name = "FILE")]
    input_file: Option<PathBuf>,
    /// The URI with a SAS of a container, or file:NAME; the hub reads its blob devices.txt instead of a file.
    /// `@FILE` reads the URI from a file
    #[arg(long, visible_alias = "ibcu", value_name = "URI", requires = "output_blob_container_uri")]
    input_blob_container_uri: Option<String>,
    /// The container where the hub writes importErrors.log, which lists the refused lines; `@FILE` as above
    #[arg(long, visible_alias = "obcu", value_name = "URI", requires = "input_blob_container_uri")]
    output_blob_container_uri: Option<String>,
    /// Change nothing, and report what the import would create, change, delete and refuse
    #[arg(long, conflicts_with = "input_blob_container_uri")]
    dry_run: bool,
    /// Write the result of every line into this file, one JSON object a line; - for standard output
    #[arg(long, value_name = "FILE")]
    results_file: Option<PathBuf>,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    output: TextArgs,
}

impl ImportArgs {
    pub(super) async fn run(self, rest: &Rest) -> Result<(), Failure> {
        let mut results = self.results_file.as_deref().map(results_to).transpose()?;
        let mut stop = pin!(tokio::signal::ctrl_c());
        let Sent { job, interrupted, lines } = self.start(rest, stop.as_mut()).await?;
        let progress = Progress::begin(self.progress, self.doing(), Unit::Lines);
        if let Some(lines) = lines {
            progress.expect(lines);
        }
        let followed = match interrupted {
            true => follow(rest, job, &progress, pin!(std::future::ready(()))).await?,
            false => follow(rest, job, &progress, stop).await?,
        };
        drop(progress);
        let Followed { job, interrupted } = followed;
        job::print_refused(rest, &job, results.as_mut().map(|to| to as &mut dyn Write)).await?;
        match self.results_file.as_deref().is_some_and(is_standard) {
            true => eprint!("{}", job::summary(&job)),
            false => self.output.print_report(&job, || job::summary(&job), || job::table(&job))?,
        }
        job::ended(&job, interrupted).map_err(|failure| match failure.exit() {
            Exit::Interrupted | Exit::Error if !self.dry_run => {
                failure.with_hint("`portcullis device-identity rollback` undoes the changes of the import")
            }
            _ => failure,
        })
    }

    /// Starts the job.
    async fn start(&self, rest: &Rest, stop: Pin<&mut impl Future>) -> Result<Sent, Failure> {
        if let Some(file) = &self.input_file {
            let input = Input::open(file)?;
            let progress = Progress::begin(self.progress, "sending", Unit::Bytes);
            return input.send(rest, self.dry_run, &progress, stop).await;
        }
        let uri = |given: &Option<String>| read_secret(given.as_deref().unwrap_or_default());
        let wanted = json!({
            "type": "import",
            "inputBlobContainerUri": uri(&self.input_blob_container_uri)?,
            "outputBlobContainerUri": uri(&self.output_blob_container_uri)?,
        });
        let job = rest.act(&["jobs", "create"], &wanted).await?;
        Ok(Sent { job, interrupted: false, lines: None })
    }

    fn doing(&self) -> &'static str {
        if self.dry_run { "trying" } else { "importing" }
    }
}

fn is_standard(path: &Path) -> bool {
    path.as_os_str() == "-"
}

fn results_to(path: &Path) -> Result<Box<dyn Write>, Failure> {
    if is_standard(path) {
        return Ok(Box::new(io::stdout()));
    }
    let file = File::create(path).map_err(|error| Failure::error(format!("{}: {error}", path.display())))?;
    Ok(Box::new(file))
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis device-identity import --input-file devices.txt --dry-run
  portcullis device-identity import --input-file devices.txt.gz --results-file results.txt
  ssh old-hub portcullis device-identity export --ik --im |
    portcullis device-identity import --input-file -
  portcullis device-identity import --ibcu file:fleet --obcu file:fleet
  portcullis device-identity rollback                        # undo the last import

The file is an export of an IoT Hub or of this hub: one JSON object a line, each with an importMode or,
without one, created or updated. If some lines are refused, the import reports them, applies the
others, and ends with exit code 7. Ctrl-C cancels the import; the lines applied by then stay until
`rollback` undoes them.";
