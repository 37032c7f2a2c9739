//! `device-identity rollback`: undoes the changes of an import. It skips what somebody has changed since.

use std::pin::pin;

use clap::Args;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::identity::is_confirmed;
use crate::job::{self, Followed, follow};
use crate::output::{TextArgs, scalar};
use crate::progress::{Progress, ProgressArgs, Unit};
use crate::rest::Rest;

/// Which import to undo.
#[derive(Args)]
pub(crate) struct RollbackArgs {
    /// The job of the last import; the rollback fails if another import was later
    #[arg(long, visible_alias = "jid", value_name = "ID")]
    job_id: Option<String>,
    /// Do not ask first; without a terminal there is no question
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
            return Err(Failure::error("the import was not undone, because you did not confirm it"));
        }
        let stop = pin!(tokio::signal::ctrl_c());
        let job = rest.start(&["api", "v1", "jobs", &id, "rollback"], &[]).await?;
        let progress = Progress::begin(self.progress, "rolling back", Unit::Lines);
        progress.expect(changed(&import));
        let Followed { job, interrupted } = follow(rest, job, &progress, stop).await?;
        drop(progress);
        job::print_refused(rest, &job, None).await?;
        self.output.print_report(&job, || job::summary(&job), || job::table(&job))?;
        job::ended(&job, interrupted)
    }
}

/// The newest import. The hub keeps the earlier state for that one only.
fn last_import(jobs: &Value) -> Result<Value, Failure> {
    let imports = jobs.as_array().into_iter().flatten();
    let imports =
        imports.filter(|job| job["type"] == "import" && job["rollbackOf"].is_null() && job["dryRun"] != true);
    // Times of one format and one zone sort as text.
    let last = imports.max_by_key(|job| scalar(job, "/startTimeUtc")).cloned();
    last.ok_or_else(|| Failure::new(Exit::NotFound, "there is no import to undo"))
}

fn changed(import: &Value) -> u64 {
    ["created", "changed", "deleted"].iter().map(|what| job::count(import, what)).sum()
}

fn question(import: &Value) -> String {
    let count = |what| job::count(import, what);
    format!(
        "Undo the import of {}, which created {}, changed {} and deleted {}?",
        scalar(import, "/startTimeUtc"),
        count("created"),
        count("changed"),
        count("deleted")
    )
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis device-identity rollback
  portcullis device-identity rollback --job-id ID --yes      # only if that is still the last import

A rollback deletes what the last import created, and restores what the import changed or deleted,
with its keys. It also works for an import that was cancelled or failed half-way. It skips what
somebody has changed since, reports it, and ends with exit code 7. To keep a copy before an import,
use `export --ik --im`.";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_import_is_the_newest_that_was_meant() {
        let job = |id: &str, kind: &str, time: &str, dry: bool, created: u64| {
            json!({"jobId": id, "type": kind, "startTimeUtc": time, "dryRun": dry,
                "outcomes": {"created": created}})
        };
        let jobs = json!([
            job("a", "import", "2026-01-01T00:00:01Z", false, 1),
            job("b", "import", "2026-01-01T00:00:02Z", false, 2),
            job("c", "import", "2026-01-01T00:00:03Z", true, 1),
            job("d", "export", "2026-01-01T00:00:04Z", false, 0),
            {"jobId": "e", "type": "import", "startTimeUtc": "2026-01-01T00:00:05Z", "rollbackOf": "b"},
        ]);
        let last = last_import(&jobs).unwrap();
        assert_eq!((job::id(&last), changed(&last)), ("b".to_owned(), 2));
        assert_eq!(last_import(&json!([])).unwrap_err().exit(), Exit::NotFound);
    }
}
