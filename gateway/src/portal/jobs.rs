//! `/portal/jobs`: imports and exports of whole fleets. The portal's script uploads a file, because a form cannot hold
//! one of any size. The page of a job shows its progress.

use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use futures_util::{StreamExt, TryStreamExt};
use maud::{Markup, html};
use portcullis_registry::policy::Rights;

use super::answer::{Html, PageResult, see_other};
use super::buttons::Button;
use super::fields::{FormFields, Query};
use super::form::checkbox;
use super::layout::{self, Section};
use super::paths;
use super::text::{grouped, time};
use super::visit::Visit;
use crate::hub::job_store::record::{JobKind, JobRecord, JobState};
use crate::iothub::problem::Problem;
use crate::operations::jobs::{self, DEVICES, REFUSED, RESULTS};

/// `GET /portal/jobs`.
pub(super) async fn list(visit: Visit) -> PageResult {
    let jobs = jobs::list(visit.hub(), visit.service())?;
    let content = html! {
        h1 { "Import and export" }
        div.cards {
            @if visit.may(jobs::RIGHTS) { (import_form()) }
            (export_form(&visit))
        }
        h2 { "Jobs" }
        @if jobs.is_empty() {
            div.card.empty { strong { "No jobs yet" } "Imports and exports appear here for 30 days." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Jobs" { (table(&jobs)) }
        }
    };
    Ok(Html(layout::page(&visit, Section::Jobs, "Jobs", content)).into_response())
}

/// `POST /portal/jobs/import`: the body is the file. The `Location` header names the job's page.
pub(super) async fn import(visit: Visit, Query(query): Query, request: Request) -> PageResult {
    let body = request.into_body().into_data_stream().map_err(|error| error.to_string()).boxed();
    let is_dry_run = query.is_ticked("dry-run");
    let job = jobs::import(visit.hub(), visit.service(), is_dry_run, body).await?;
    let path = HeaderValue::from_str(&paths::job(&job.id));
    let path = path.map_err(|error| Problem::internal(error.to_string()))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, path)]).into_response())
}

/// `POST /portal/jobs/export`.
pub(super) async fn export(visit: Visit, fields: FormFields) -> PageResult {
    let (with_keys, with_modules) = (fields.is_ticked("keys"), fields.is_ticked("modules"));
    if with_keys {
        jobs::reveal(visit.hub(), visit.service(), "export").await?;
    }
    let job = jobs::export(visit.hub(), visit.service(), with_keys, with_modules).await?;
    Ok(see_other(&paths::job(&job.id)))
}

/// `GET /portal/jobs/{job}`.
pub(super) async fn show(visit: Visit, Path(job): Path<String>) -> PageResult {
    let job = jobs::show(visit.hub(), visit.service(), &job)?;
    let title = name(&job);
    let content = html! {
        p.crumbs { a href=(paths::JOBS) { "Import and export" } }
        h1 { (title) }
        (progress(&visit, &job))
    };
    Ok(Html(layout::page(&visit, Section::Jobs, title, content)).into_response())
}

/// `GET /portal/jobs/{job}/progress`: the part of the page that refreshes while the job is active.
pub(super) async fn renew(visit: Visit, Path(job): Path<String>) -> PageResult {
    let job = jobs::show(visit.hub(), visit.service(), &job)?;
    Ok(Html(progress(&visit, &job)).into_response())
}

/// `POST /portal/jobs/{job}/cancel`.
pub(super) async fn cancel(visit: Visit, Path(job): Path<String>) -> PageResult {
    jobs::cancel(visit.hub(), visit.service(), &job).await?;
    Ok(see_other(&paths::job(&job)))
}

/// `POST /portal/jobs/{job}/rollback`.
pub(super) async fn roll_back(visit: Visit, Path(job): Path<String>) -> PageResult {
    let job = jobs::roll_back(visit.hub(), visit.service(), &job).await?;
    Ok(see_other(&paths::job(&job.id)))
}

/// `GET /portal/jobs/{job}/files/{name}`: a file that the job has made.
pub(super) async fn file(visit: Visit, Path((job, name)): Path<(String, String)>) -> PageResult {
    let record = jobs::show(visit.hub(), visit.service(), &job)?;
    if record.kind == JobKind::Export && name == DEVICES && !record.exclude_keys {
        jobs::reveal(visit.hub(), visit.service(), &job).await?;
    }
    let pieces = jobs::file(visit.hub(), visit.service(), &job, &name).await?;
    // One of the fixed file names.
    let disposition = HeaderValue::from_str(&format!("attachment; filename=\"{name}\""));
    let disposition = disposition.map_err(|error| Problem::internal(error.to_string()))?;
    let kind = HeaderValue::from_static("application/x-ndjson");
    let head = [(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, disposition)];
    Ok((head, Body::from_stream(pieces)).into_response())
}

fn import_form() -> Markup {
    html! {
        section.card aria-labelledby="import" {
            h2 id="import" { "Import" }
            p.quiet { "A file with one device or module on each line, from an export of this hub or of an Azure IoT hub, plain or gzip." }
            form data-upload=(paths::JOBS_IMPORT) {
                div.field {
                    label for="file" { "File" }
                    input id="file" type="file" accept=".txt,.ndjson,.jsonl,.gz" required;
                }
                (checkbox("dry-run", "Dry run: change nothing, and show what the import would do", true))
                div.toolbar {
                    button.primary type="submit" { "Upload" }
                    progress max="100" value="0" aria-label="Upload" data-upload-progress hidden {}
                }
                p.error data-upload-error role="alert" hidden {}
                noscript { p.hint { "This form needs a script. Without scripts, use portcullis device-identity import." } }
            }
        }
    }
}

fn export_form(visit: &Visit) -> Markup {
    html! {
        section.card aria-labelledby="export" {
            h2 id="export" { "Export" }
            p.quiet { "Every device of the hub, one on each line, for a backup or for another hub." }
            form method="post" action=(paths::JOBS_EXPORT) {
                (visit.token_field())
                (checkbox("modules", "With modules", true))
                @if visit.may(Rights::REGISTRY_WRITE) {
                    (checkbox("keys", "With keys: anyone who has the file can connect as every device in it", false))
                }
                div.toolbar { button.primary type="submit" { "Export" } }
            }
        }
    }
}

fn table(jobs: &[JobRecord]) -> Markup {
    html! {
        table.stack {
            thead { tr { th { "Job" } th { "Status" } th { "Started" } th.number { "Lines" } th.number { "Refused" } th { "Policy" } } }
            tbody {
                @for job in jobs {
                    tr {
                        td { a href=(paths::job(&job.id)) { (name(job)) } }
                        td data-label="Status" { (state(job)) }
                        td.time data-label="Started" { (time(job.created)) }
                        td.number data-label="Lines" { (number(job.progress.lines)) }
                        td.number data-label="Refused" { (number(job.progress.counts.refused)) }
                        td data-label="Policy" { (job.policy) }
                    }
                }
            }
        }
    }
}

fn progress(visit: &Visit, job: &JobRecord) -> Markup {
    let path = paths::job(&job.id);
    let renewal = (!job.state.is_over()).then(|| format!("{path}/progress"));
    html! {
        div id="job" hx-get=[renewal.as_deref()] hx-trigger=[renewal.as_ref().map(|_| "every 2s")] hx-swap="outerHTML" {
            div.card {
                (facts(visit, job))
                @if !job.state.is_over() {
                    progress max="100" value=(job.percent()) aria-label="Done" {}
                    div.toolbar.below {
                        (Button { label: "Cancel", action: &format!("{path}/cancel"), fields: &[] }.show(visit))
                    }
                }
                @if let Some(failure) = &job.failure { p.notice.failed role="alert" { (failure) } }
                @if let Some(note) = &job.note { p.notice { (note) } }
            }
            @if job.state.is_over() {
                (files(job, &path))
                @if job.kind == JobKind::Import && !job.dry_run && visit.may(jobs::RIGHTS) {
                    h2 { "Roll back" }
                    (Button { label: "Roll back this import", action: &format!("{path}/rollback"), fields: &[] }.ask_first(
                        visit,
                        "The hub deletes what the import created and restores what it changed or deleted, with its \
                         keys. Only the last import can be rolled back."
                    ))
                }
            }
        }
    }
}

fn facts(visit: &Visit, job: &JobRecord) -> Markup {
    let now = visit.hub().clock.wall();
    let counts = job.progress.counts;
    let outcomes = [
        ("Created", counts.created),
        ("Changed", counts.changed),
        ("Unchanged", counts.unchanged),
        ("Deleted", counts.deleted),
        ("Refused", counts.refused),
    ];
    html! {
        dl.facts {
            dt { "Status" } dd { (state(job)) }
            dt { "Started by" } dd { (job.policy) ", " (time(job.created)) }
            @if let Some(ended) = job.ended { dt { "Ended" } dd { (time(ended)) } }
            dt { "Lines" }
            dd { (number(job.progress.lines)) ", " (number(job.lines_per_second(now))) " a second"
                @if let Some(left) = job.time_left(now) { ", some " (left.as_secs()) " s left" } }
            @if job.kind != JobKind::Export {
                @for (name, count) in outcomes {
                    dt { (name) @if job.dry_run && count > 0 { " (would be)" } } dd { (number(count)) }
                }
            }
            @if let Some(of) = &job.rollback_of { dt { "Rolls back" } dd { a href=(paths::job(of)) { "an import" } } }
        }
    }
}

fn files(job: &JobRecord, path: &str) -> Markup {
    let names: &[(&str, &str)] = match job.kind {
        JobKind::Export if job.output.is_none() => &[(DEVICES, "The devices")],
        JobKind::Export => &[],
        JobKind::Import | JobKind::Rollback => {
            &[(RESULTS, "The result of each line"), (REFUSED, "The refused lines, with reasons")]
        }
    };
    html! {
        @if job.state == JobState::Completed && !names.is_empty() {
            h2 { "Files" }
            ul.plain {
                @for (file, what) in names {
                    li { a href=(format!("{path}/files/{file}")) download=(file) { (file) } " " span.quiet { (what) } }
                }
            }
        }
    }
}

fn name(job: &JobRecord) -> &'static str {
    match job.kind {
        JobKind::Import if job.dry_run => "Import (dry run)",
        JobKind::Import => "Import",
        JobKind::Export => "Export",
        JobKind::Rollback => "Rollback of an import",
    }
}

fn state(job: &JobRecord) -> Markup {
    match job.state {
        JobState::Enqueued => html! { span.chip { "Waiting" } },
        JobState::Running => html! { span.chip.warn { "Running, " (job.percent()) " %" } },
        JobState::Completed => html! { span.chip.good { "Completed" } },
        JobState::Failed => html! { span.chip.bad { "Failed" } },
        JobState::Cancelled => html! { span.chip.bad { "Cancelled" } },
    }
}

fn number(count: u64) -> String {
    grouped(usize::try_from(count).unwrap_or(usize::MAX))
}
