//! The modules of a device: `…/modules` lists them, `…/new-module` makes one.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use portcullis_registry::entry::Entry;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{IdentityId, ModuleId, Precondition};
use portcullis_registry::identity::{AuthenticationKind, IdentitySpec};
use portcullis_registry::policy::Rights;

use super::NamedIdentityPage;
use super::frame::{self, Tab, crumbs_below};
use crate::iothub::problem::Problem;
use crate::operations::identities::{self, IdentityError};
use crate::operations::presence;
use crate::portal::answer::{Html, PageResult, see_other};
use crate::portal::credential_form::CredentialForm;
use crate::portal::fields::FormFields;
use crate::portal::form::{Errors, TextField};
use crate::portal::layout::{self, Section};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// `GET …/modules`.
pub(in crate::portal) async fn list(visit: Visit, NamedIdentityPage(id): NamedIdentityPage) -> PageResult {
    let entry = identities::retrieve(visit.hub(), visit.service(), &id)?;
    let modules = identities::modules(visit.hub(), visit.service(), &id.device)?;
    let limit = visit.hub().config.limits.modules_per_device_max;
    let may_add = visit.may(Rights::REGISTRY_WRITE) && modules.len() < limit;
    let content = html! {
        div.toolbar {
            @if may_add { a.button.primary href=(paths::under(&id, "new-module")) { "Add module identity" } }
            span.quiet { (modules.len()) " of " (limit) }
        }
        @if modules.is_empty() {
            div.card.empty {
                strong { "No modules" }
                p { "A module is an identity below the device, for a program on the device that connects by itself. It has its own key and its own messages." }
            }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Modules" {
                table.stack {
                    thead {
                        tr {
                            th scope="col" { "Module ID" } th scope="col" { "Managed by" }
                            th scope="col" { "Authentication type" }
                            th.number scope="col" { "C2D messages" }
                            th scope="col" { "Connection" } th scope="col" { "Last activity" }
                        }
                    }
                    tbody { @for module in &modules { (row(&visit, module)) } }
                }
            }
        }
    };
    Ok(frame::page(&visit, &entry, Tab::Modules, content))
}

fn row(visit: &Visit, module: &Entry) -> Markup {
    let identity = module.identity();
    let live = presence::live_state(visit.hub(), module);
    let name = identity.id.module.as_ref().map(ModuleId::as_str).unwrap_or_default();
    html! {
        tr {
            td data-label="Module ID" { a.id href=(paths::identity(&identity.id)) { (name) } }
            td data-label="Managed by" { (identity.managed_by.as_deref().unwrap_or_default()) }
            td data-label="Authentication type" { (text::authentication(identity.authentication.kind())) }
            td.number data-label="C2D messages" { (live.queued) }
            td data-label="Connection" data-connection-of=(identity.id) { (text::connection(live.connected)) }
            td data-label="Last activity" { (text::time_or_never(live.last_seen)) }
        }
    }
}

/// The fields of the form for a new module.
struct NewModule {
    device: IdentityId,
    id: String,
    managed_by: String,
    credential: CredentialForm,
}

/// `GET …/new-module`.
pub(in crate::portal) async fn show_new(
    visit: Visit,
    NamedIdentityPage(device): NamedIdentityPage,
) -> PageResult {
    identities::retrieve(visit.hub(), visit.service(), &device)?;
    let credential = CredentialForm::new(AuthenticationKind::Sas, None);
    let form = NewModule { device, id: String::new(), managed_by: String::new(), credential };
    Ok(form.page(&visit, &Errors::default(), StatusCode::OK, None))
}

/// `POST …/new-module`.
pub(in crate::portal) async fn create(
    visit: Visit,
    NamedIdentityPage(device): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let form = NewModule {
        device,
        id: fields.text("module-id").unwrap_or_default().to_owned(),
        managed_by: fields.trimmed("managed-by").unwrap_or_default().to_owned(),
        credential: CredentialForm::read(&fields),
    };
    let mut errors = Errors::default();
    let Some(spec) = form.parse(&mut errors) else {
        return Ok(form.page(&visit, &errors, StatusCode::BAD_REQUEST, None));
    };
    let id = spec.id.clone();
    match identities::put(visit.hub(), visit.service(), spec, Precondition::Absent).await {
        Ok(_) => {
            visit.flash(format!("Module {id} created."));
            Ok(see_other(&paths::identity(&id)))
        }
        Err(error) => {
            let is_taken = matches!(error, IdentityError::Registry(RegistryError::AlreadyExists(_)));
            let problem = Problem::from(error).for_known_caller();
            if is_taken {
                errors.add("module-id", problem.text());
            }
            Ok(form.page(&visit, &errors, problem.status(), (!is_taken).then_some(problem.text())))
        }
    }
}

impl NewModule {
    fn parse(&self, errors: &mut Errors) -> Option<IdentitySpec> {
        let module = errors.take("module-id", ModuleId::parse(&self.id));
        let authentication = self.credential.parse(errors);
        let id = IdentityId::module(self.device.device.clone(), module?);
        Some(IdentitySpec {
            authentication: authentication?,
            managed_by: Some(self.managed_by.clone()).filter(|text| !text.is_empty()),
            ..IdentitySpec::sas_device(id)
        })
    }

    fn page(&self, visit: &Visit, errors: &Errors, status: StatusCode, above: Option<&str>) -> Response {
        let id = TextField {
            name: "module-id",
            label: "Module ID",
            value: &self.id,
            hint: Some("The same rules as for a device ID; it can never change"),
            is_required: true,
            length_max: Some(128),
            ..TextField::default()
        };
        let managed_by = TextField {
            name: "managed-by",
            label: "Managed by",
            value: &self.managed_by,
            hint: Some("Who manages it; free text"),
            ..TextField::default()
        };
        let content = html! {
            (crumbs_below(&self.device))
            h1 { "Add a module to " (self.device) }
            @if let Some(text) = above { p.notice.failed role="alert" { (text) } }
            @if !errors.is_empty() { p.notice.failed role="alert" { "Nothing was created. Correct the marked fields below." } }
            form.card.form method="post" action=(paths::under(&self.device, "new-module")) {
                (visit.token_field())
                (id.show(errors))
                (managed_by.show(errors))
                (self.credential.show(errors))
                div.toolbar {
                    button.primary type="submit" { "Save" }
                    a.button href=(paths::under(&self.device, "modules")) { "Cancel" }
                }
            }
        };
        (status, Html(layout::page(visit, Section::Devices, "Add a module", content))).into_response()
    }
}
