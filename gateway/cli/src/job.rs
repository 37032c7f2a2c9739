//! `job`: imports, exports and rollbacks of the whole registry, as the hub runs them.
//!
//! A job belongs to the hub. It runs on when no client follows it, and it survives a restart of the hub. The verb that
//! starts a job follows it to its end, and Ctrl-C cancels it.

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::exit::Failure;
use crate::login::Access;
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

mod follow;
mod results;

pub(super) use follow::{Followed, follow};
pub(super) use results::{count, ended, print_refused, summary, table};

/// Verbs on jobs.
#[derive(Subcommand)]
pub(super) enum JobVerb {
    /// Print the recent jobs, the newest first
    List {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print a job: its progress, its speed and its result
    Show {
        #[command(flatten)]
        job: JobArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Cancel a job; what it has done so far stays
    Cancel {
        #[command(flatten)]
        job: JobArg,
        #[command(flatten)]
        access: Access,
    },
}

/// Which job.
#[derive(Args)]
pub(super) struct JobArg {
    /// The job
    #[arg(long, visible_alias = "jid", value_name = "ID")]
    job_id: String,
}

impl JobVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            JobVerb::List { output, access } => {
                output.print(&Rest::new(access.login()?)?.get(&["jobs"], &[]).await?, COLUMNS)
            }
            JobVerb::Show { job, output, access } => {
                let found = Rest::new(access.login()?)?.get(&["jobs", &job.job_id], &[]).await?;
                output.print(&found, COLUMNS)
            }
            JobVerb::Cancel { job, access } => {
                Rest::new(access.login()?)?.delete(&["jobs", &job.job_id], None).await
            }
        }
    }
}

/// The id of a job from the hub's answer.
pub(super) fn id(job: &Value) -> String {
    scalar(job, "/jobId")
}

const COLUMNS: &[Column] = &[
    ("Job Id", |job| scalar(job, "/jobId")),
    // IoT Hub's SDKs know a rollback as an import.
    ("Type", |job| if job["rollbackOf"].is_string() { "rollback".into() } else { scalar(job, "/type") }),
    ("Status", |job| scalar(job, "/status")),
    ("Progress", |job| scalar(job, "/progress")),
    ("Lines", |job| scalar(job, "/linesDone")),
    ("Failed", |job| scalar(job, "/linesFailed")),
    ("Started", |job| scalar(job, "/startTimeUtc")),
    ("Ended", |job| scalar(job, "/endTimeUtc")),
];
pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis job list -o table
  portcullis job show --job-id ID --query failureReason -o tsv
  portcullis job cancel --job-id ID";
