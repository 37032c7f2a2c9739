//! `device-identity rollback`: what an import changed becomes what it was, unless somebody has changed it since.

use std::pin::pin;

use clap::Args;
use serde_json::{Value, json};

use crate::cli::exit::{Exit, Failure};
use crate::cli::identity::is_confirmed;
use crate::cli::job::{self, Followed, follow};
use crate::cli::output::{TextArgs, scalar};
use crate::cli::progress::{Progress, ProgressArgs, Unit};
use crate::cli::rest::Rest;

/// Which import to take back.
#[derive(Args)]
pub(in crate::cli) struct RollbackArgs {
    /// The import's job; the last import if not given
    #[arg(long, visible_alias = "jid", value_name = "ID")]
    job_id: Option<String>,
    /// Do not ask first; nothing is asked where no terminal is
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    progress: ProgressArgs,
    #[command(flatten)]
    output: TextArgs,
}

impl RollbackArgs {
    pub(super) async fn run(self, rest: &Rest) -> Result<(), Failure> {
        let import = match &self.job_id {
            Some(id) => rest.get(&["jobs", id], &[]).await?,
            None => last_import(&rest.get(&["jobs"], &[]).await?)?,
        };
        let id = job::id(&import);
        if !self.yes && !is_confirmed(&question(&import)) {
            return Err(Failure::error("nothing was taken back"));
        }
        let stop = pin!(tokio::signal::ctrl_c());
        let job = rest.start(&["api", "v1", "jobs", &id, "rollback"], &[], &json!({})).await?;
        let progress = Progress::begin(self.progress, "taking back", Unit::Lines);
        let Followed { job, interrupted } = follow(rest, job, &progress, stop).await?;
        drop(progress);
        job::tell_refused(rest, &job, None).await?;
        self.output.print_told(&job, || job::summary(&job), || job::table(&job))?;
        job::ended(&job, interrupted)
    }
}

/// The newest import that changed anything.
fn last_import(jobs: &Value) -> Result<Value, Failure> {
    let jobs = || jobs.as_array().into_iter().flatten();
    let imports = jobs().filter(|job| {
        let changed = ["created", "changed", "deleted"].iter().map(|what| job::count(job, what)).sum::<u64>();
        let is_import = job["type"] == "import" && job["rollbackOf"].is_null();
        is_import && job["dryRun"] != true && changed > 0
    });
    // Times of one form and one zone sort as texts do.
    let last = imports.max_by_key(|job| scalar(job, "/startTimeUtc"));
    let last = last.ok_or_else(|| Failure::new(Exit::NotFound, "there is no import to take back"))?;
    let id = job::id(last);
    if jobs().any(|job| job["rollbackOf"] == id.as_str() && job["status"] == "completed") {
        let message = format!("the last import, {id}, was taken back already");
        return Err(Failure::new(Exit::Conflict, message).with_hint("--job-id ID takes back an earlier one"));
    }
    Ok(last.clone())
}

fn question(import: &Value) -> String {
    let count = |what| job::count(import, what);
    format!(
        "Take back the import of {}, which created {}, changed {} and deleted {}?",
        scalar(import, "/startTimeUtc"),
        count("created"),
        count("changed"),
        count("deleted")
    )
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis device-identity rollback                        # the last import
  portcullis device-identity rollback --job-id ID --yes      # an earlier one; `portcullis job list` shows them

What the import created is deleted, what it changed or deleted becomes what it was, keys included. What somebody has
changed since stays as it is and is told, and the exit code is 7.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_import_is_the_newest_that_changed_anything() {
        let job = |id: &str, kind: &str, time: &str, dry: bool, created: u64| {
            json!({"jobId": id, "type": kind, "startTimeUtc": time, "dryRun": dry,
                "outcomes": {"created": created}})
        };
        let mut jobs = json!([
            job("a", "import", "2026-01-01T00:00:01Z", false, 1),
            job("b", "import", "2026-01-01T00:00:02Z", false, 1),
            job("c", "import", "2026-01-01T00:00:03Z", true, 1),
            job("d", "import", "2026-01-01T00:00:04Z", false, 0),
            job("e", "export", "2026-01-01T00:00:05Z", false, 0),
            {"jobId": "f", "type": "import", "startTimeUtc": "2026-01-01T00:00:06Z", "rollbackOf": "b",
                "status": "failed", "outcomes": {"created": 1}},
        ]);
        assert_eq!(job::id(&last_import(&jobs).unwrap()), "b");
        jobs[5]["status"] = "completed".into();
        assert_eq!(last_import(&jobs).unwrap_err().exit(), Exit::Conflict);
        assert_eq!(last_import(&json!([])).unwrap_err().exit(), Exit::NotFound);
    }
}
