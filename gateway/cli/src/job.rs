//! `job`: what goes through the whole registry, an import, an export or the taking back of one, seen from outside.
//!
//! A job is the hub's: it goes on when nobody looks, and outlives the hub's restart. Whoever starts one here follows it to
//! its end and can cancel it with Ctrl-C.

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
    /// Print the jobs of the last while, the newest first
    List {
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Print a job: how far it is, how fast, how it ended
    Show {
        #[command(flatten)]
        job: JobArg,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// End a job; what it did so far stays done
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

/// The id of a job the hub tells of.
pub(super) fn id(job: &Value) -> String {
    scalar(job, "/jobId")
}

const COLUMNS: &[Column] = &[
    ("Job Id", |job| scalar(job, "/jobId")),
    // To IoT Hub's SDKs the taking back of an import is one.
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
