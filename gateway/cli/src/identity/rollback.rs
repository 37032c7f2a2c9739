//! `device-identity rollback`: what an import changed becomes what it was, unless somebody has changed it since.

use std::pin::pin;

use clap::Args;
use serde_json::Value;

use crate::exit::{Exit, Failure};
use crate::identity::is_confirmed;
use crate::job::{self, Followed, follow};
use crate::output::{TextArgs, scalar};
use crate::progress::{Progress, ProgressArgs, Unit};
use crate::rest::Rest;

/// Which import to take back.
#[derive(Args)]
pub(crate) struct RollbackArgs {
    /// The job of the last import, to be sure that it still is the last
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
        let job = rest.start(&["api", "v1", "jobs", &id, "rollback"], &[]).await?;
        let progress = Progress::begin(self.progress, "taking back", Unit::Lines);
        progress.expect(changed(&import));
        let Followed { job, interrupted } = follow(rest, job, &progress, stop).await?;
        drop(progress);
        job::print_refused(rest, &job, None).await?;
        self.output.print_told(&job, || job::summary(&job), || job::table(&job))?;
        job::ended(&job, interrupted)
    }
}

/// The newest import; of earlier ones the hub does not keep what was there before.
fn last_import(jobs: &Value) -> Result<Value, Failure> {
    let imports = jobs.as_array().into_iter().flatten();
    let imports =
        imports.filter(|job| job["type"] == "import" && job["rollbackOf"].is_null() && job["dryRun"] != true);
    // Times of one form and one zone sort as texts do.
    let last = imports.max_by_key(|job| scalar(job, "/startTimeUtc")).cloned();
    last.ok_or_else(|| Failure::new(Exit::NotFound, "there is no import to take back"))
}

fn changed(import: &Value) -> u64 {
    ["created", "changed", "deleted"].iter().map(|what| job::count(import, what)).sum()
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
  portcullis device-identity rollback
  portcullis device-identity rollback --job-id ID --yes      # only if that still is the last import

What the last import created is deleted, what it changed or deleted becomes what it was, keys
included; an import that was cancelled or failed half-way can be taken back too. What somebody has
changed since stays as it is and is told, and the exit code is 7. Before an import,
`export --ik --im` makes a copy for later.";

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
