//! Follows a job to its end and shows its progress. Ctrl-C cancels the job.

use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use super::id;
use crate::exit::Failure;
use crate::output::scalar;
use crate::progress::Progress;
use crate::rest::Rest;

/// How following a job ended.
pub(crate) struct Followed {
    /// The last state of the job that the hub reported.
    pub(crate) job: Value,
    /// Ctrl-C cancelled the job, if it was still running.
    pub(crate) interrupted: bool,
}

/// Shows the progress of a job until it ends. If `stop` completes first, cancels the job.
pub(crate) async fn follow(
    rest: &Rest,
    job: Value,
    progress: &Progress,
    stop: Pin<&mut impl Future>,
) -> Result<Followed, Failure> {
    let id = id(&job);
    let failure = |failure: Failure| {
        let hint =
            format!("the hub continues the job; `portcullis job show --job-id {id}` prints how it ends");
        failure.with_hint(hint)
    };
    tokio::select! {
        job = until_over(rest, &id, job, progress) => {
            return Ok(Followed { job: job.map_err(failure)?, interrupted: false });
        }
        _ = stop => {}
    }
    progress.print_status("cancelling the job");
    rest.delete(&["jobs", &id], None).await.map_err(failure)?;
    let job = rest.get(&["jobs", &id], &[]).await.map_err(failure)?;
    let job = until_over(rest, &id, job, progress).await.map_err(failure)?;
    Ok(Followed { job, interrupted: true })
}

async fn until_over(rest: &Rest, id: &str, mut job: Value, progress: &Progress) -> Result<Value, Failure> {
    let mut pause = PAUSE_MIN;
    let mut failed = 0;
    while !is_over(&job) {
        show(&job, progress);
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
        match rest.get(&["jobs", id], &[]).await {
            Ok(failure) => {
                job = failure;
                failed = 0;
            }
            // The hub may be restarting, and the job resumes with it.
            Err(failure) if failure.passing().is_some() && failed < FAILURES_MAX => failed += 1,
            Err(failure) => return Err(failure),
        }
    }
    Ok(job)
}

fn show(job: &Value, progress: &Progress) {
    let number = |name: &str| job[name].as_u64();
    let mut notes = Vec::new();
    // The hub knows which share of the work is done, even when the number of lines is unknown.
    if !progress.is_bounded() {
        notes.extend(number("progress").map(|percent| format!("{percent}%")));
        notes.extend(number("etaSeconds").map(|seconds| format!("{seconds} s left")));
    }
    notes
        .extend(number("linesFailed").filter(|failed| *failed > 0).map(|failed| format!("{failed} refused")));
    progress.at(number("linesDone").unwrap_or_default(), &notes.join(", "));
}

fn is_over(job: &Value) -> bool {
    matches!(scalar(job, "/status").as_str(), "completed" | "failed" | "cancelled")
}

const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// About a minute, with the time that the requests take.
const FAILURES_MAX: u32 = 30;
