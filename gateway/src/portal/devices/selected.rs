//! Enables, disables or deletes the selected devices of the list: first a page names them all, then, after
//! confirmation, `bulk` changes them.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::{Identity, IdentitySpec, Status};

use crate::iothub::change::IdentityChange;
use crate::iothub::problem::Problem;
use crate::operations::bulk::{Bulk, CHANGES_MAX};
use crate::operations::identities::{self, DeletionExtent, IdentityError};
use crate::portal::answer::{Html, PageResult, see_other};
use crate::portal::fields::FormFields;
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// The action on each device.
#[derive(Clone, Copy)]
enum BulkAction {
    Enable,
    Disable,
    Delete,
}

/// `POST /portal/selected/enable`.
pub(in crate::portal) async fn enable(visit: Visit, fields: FormFields) -> PageResult {
    BulkAction::Enable.ask_or_do(&visit, &fields).await
}

/// `POST /portal/selected/disable`.
pub(in crate::portal) async fn disable(visit: Visit, fields: FormFields) -> PageResult {
    BulkAction::Disable.ask_or_do(&visit, &fields).await
}

/// `POST /portal/selected/delete`.
pub(in crate::portal) async fn delete(visit: Visit, fields: FormFields) -> PageResult {
    BulkAction::Delete.ask_or_do(&visit, &fields).await
}

impl BulkAction {
    async fn ask_or_do(self, visit: &Visit, fields: &FormFields) -> PageResult {
        let back = fields.text("back").and_then(paths::local).unwrap_or(paths::DEVICES);
        let ids: Result<Vec<DeviceId>, _> = fields.all("id").map(DeviceId::parse).collect();
        let mut ids = ids?;
        ids.sort();
        ids.dedup();
        if ids.is_empty() {
            visit.flash_failure("Select devices first, in the first column of the list.");
            return Ok(see_other(back));
        }
        if ids.len() > CHANGES_MAX {
            let text = format!("You can change at most {CHANGES_MAX} devices at once.");
            return Err(Problem::argument_invalid(text).into());
        }
        match fields.is_ticked("confirmed") {
            true => self.run(visit, ids, back).await,
            false => Ok(self.question(visit, &ids, back)),
        }
    }

    fn question(self, visit: &Visit, ids: &[DeviceId], back: &str) -> Response {
        let title = format!("{} {}?", self.name(), text::count(ids.len(), "device"));
        let content = html! {
            h1 { (title) }
            div.card {
                p { (self.consequence()) }
                ul.ids { @for id in ids { li { (id) (self.lost(visit, id)) } } }
                form method="post" action=(self.path()) {
                    (visit.token_field())
                    input type="hidden" name="back" value=(back);
                    input type="hidden" name="confirmed" value="yes";
                    @for id in ids { input type="hidden" name="id" value=(id); }
                    div.toolbar {
                        button.danger[matches!(self, BulkAction::Delete)].primary[!matches!(self, BulkAction::Delete)] type="submit" { (self.name()) }
                        a.button href=(back) { "Cancel" }
                    }
                }
            }
        };
        Html(layout::page(visit, Section::Devices, &title, content)).into_response()
    }

    /// What is deleted together with a device.
    fn lost(self, visit: &Visit, device: &DeviceId) -> Markup {
        let extent = match self {
            BulkAction::Delete => identities::deletion_extent(visit.hub(), visit.service(), device),
            BulkAction::Enable | BulkAction::Disable => Ok(DeletionExtent::default()),
        };
        let DeletionExtent { modules, messages } = extent.unwrap_or_default();
        html! {
            @if modules > 0 { span.quiet { " with " (text::count(modules, "module")) } }
            @if messages > 0 { span.quiet { " and " (text::count(messages, "waiting message")) } }
        }
    }

    async fn run(self, visit: &Visit, ids: Vec<DeviceId>, back: &str) -> PageResult {
        let bulk = Bulk::permit(visit.hub(), visit.service()).await?;
        let mut failures = Vec::new();
        let (mut asked, mut changes) = (Vec::new(), Vec::new());
        for device in ids {
            match self.change(visit, &device) {
                Ok(change) => {
                    asked.push(device);
                    changes.push(change);
                }
                Err(error) => failures.push((device, Problem::from(error))),
            }
        }
        let mut done = 0;
        for (device, result) in asked.into_iter().zip(bulk.apply(changes).await) {
            match result {
                Ok(()) => done += 1,
                Err(error) => failures.push((device, Problem::from(error))),
            }
        }
        if failures.is_empty() {
            visit.flash(format!("{} {}.", text::count(done, "device"), self.done()));
            return Ok(see_other(back));
        }
        Ok(self.report(visit, done, &failures, back))
    }

    /// The change of one device. It fails if somebody else changes the device first.
    fn change(self, visit: &Visit, device: &DeviceId) -> Result<IdentityChange, IdentityError> {
        let id = IdentityId::device(device.clone());
        let status = match self {
            BulkAction::Delete => return Ok(IdentityChange::Delete(id, Precondition::AnyVersion)),
            BulkAction::Enable => Status::Enabled,
            BulkAction::Disable => Status::Disabled,
        };
        let entry = identities::retrieve_for_change(visit.hub(), visit.service(), &id)?;
        let identity: &Identity = &entry.identity();
        let spec = IdentitySpec { status, ..IdentitySpec::keeping(identity) };
        Ok(IdentityChange::Update(spec, Precondition::Version(identity.etag())))
    }

    fn report(self, visit: &Visit, done: usize, failures: &[(DeviceId, Problem)], back: &str) -> Response {
        let content = html! {
            h1 { "Some devices were not changed" }
            @if done > 0 { p.notice.done role="status" { (text::count(done, "device")) " " (self.done()) "." } }
            p.notice.failed role="alert" { (text::count(failures.len(), "device")) " not " (self.done()) ":" }
            div.card {
                dl.facts {
                    @for (device, problem) in failures { dt.mono { (device) } dd { (problem.text()) } }
                }
            }
            p { a.button href=(back) { "Back to the list" } }
        };
        let page = layout::page(visit, Section::Devices, "Some devices were not changed", content);
        let status = failures.first().map_or(StatusCode::OK, |(_, problem)| problem.status());
        (status, Html(page)).into_response()
    }

    fn name(self) -> &'static str {
        match self {
            BulkAction::Enable => "Enable",
            BulkAction::Disable => "Disable",
            BulkAction::Delete => "Delete",
        }
    }

    fn done(self) -> &'static str {
        match self {
            BulkAction::Enable => "enabled",
            BulkAction::Disable => "disabled",
            BulkAction::Delete => "deleted",
        }
    }

    fn path(self) -> &'static str {
        match self {
            BulkAction::Enable => paths::SELECTED_ENABLE,
            BulkAction::Disable => paths::SELECTED_DISABLE,
            BulkAction::Delete => paths::SELECTED_DELETE,
        }
    }

    fn consequence(self) -> &'static str {
        match self {
            BulkAction::Enable => "They may connect again.",
            BulkAction::Disable => {
                "The hub disconnects them at once and refuses new connections. It keeps their waiting messages."
            }
            BulkAction::Delete => {
                "The hub disconnects them at once. It also deletes their modules and their waiting messages. \
                 This cannot be undone."
            }
        }
    }
}
