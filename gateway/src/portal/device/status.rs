//! `POST …/status`: whether a device may connect, why, and its type; for a module, who manages it.

use maud::{Markup, html};
use portcullis_registry::identity::{Identity, IdentitySpec, STATUS_REASON_CHARS_MAX, Status};

use super::details::{self, DetailsForm};
use super::{NamedIdentityPage, changed, version, version_field};
use crate::operations::identities;
use crate::portal::answer::PageResult;
use crate::portal::fields::FormFields;
use crate::portal::form::{self, Errors, TextField};
use crate::portal::visit::Visit;
use crate::portal::{paths, text};

/// The fields of the form.
#[derive(Clone, Debug)]
pub(super) struct StatusForm {
    is_enabled: bool,
    reason: String,
    iot_edge: bool,
    managed_by: String,
}

/// `POST …/status`.
pub(in crate::portal) async fn save(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let precondition = version(&fields)?;
    let entry = identities::retrieve(hub, service, &id)?;
    let form = StatusForm::read(&fields);
    let mut errors = Errors::default();
    let Some(spec) = form.parse(&entry.identity(), &mut errors) else {
        return Ok(details::page(
            &visit,
            &entry,
            DetailsForm { status: Some(form), errors, ..DetailsForm::default() },
        ));
    };
    let outcome = identities::put(hub, service, spec, precondition).await;
    changed(&visit, outcome, &id, "Saved.")
}

impl StatusForm {
    pub(super) fn of(identity: &Identity) -> Self {
        Self {
            is_enabled: identity.status == Status::Enabled,
            reason: identity.status_reason.clone().unwrap_or_default(),
            iot_edge: identity.iot_edge,
            managed_by: identity.managed_by.as_deref().unwrap_or_default().to_owned(),
        }
    }

    fn read(fields: &FormFields) -> Self {
        let text = |name: &str| fields.trimmed(name).unwrap_or_default().to_owned();
        Self {
            is_enabled: fields.text("status") != Some("disabled"),
            reason: text("reason"),
            iot_edge: fields.is_ticked("edge"),
            managed_by: text("managed-by"),
        }
    }

    fn parse(&self, identity: &Identity, errors: &mut Errors) -> Option<IdentitySpec> {
        let spec = IdentitySpec::keeping(identity);
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        if identity.id.module.is_some() {
            // IoT Hub: a module has no status of its own.
            return Some(IdentitySpec { managed_by: given(&self.managed_by), ..spec });
        }
        if self.reason.chars().count() > STATUS_REASON_CHARS_MAX {
            errors.add("reason", format!("a reason may have at most {STATUS_REASON_CHARS_MAX} characters"));
            return None;
        }
        Some(IdentitySpec {
            status: if self.is_enabled { Status::Enabled } else { Status::Disabled },
            status_reason: given(&self.reason),
            iot_edge: self.iot_edge,
            ..spec
        })
    }

    pub(super) fn show(
        &self,
        visit: &Visit,
        identity: &Identity,
        errors: &Errors,
        may_write: bool,
    ) -> Markup {
        let of_module = identity.id.module.is_some();
        if !may_write {
            return self.describe(identity);
        }
        let reason = TextField {
            name: "reason",
            label: "Reason",
            value: &self.reason,
            hint: Some("For later readers"),
            length_max: Some(STATUS_REASON_CHARS_MAX),
            ..TextField::default()
        };
        let managed_by = TextField {
            name: "managed-by",
            label: "Managed by",
            value: &self.managed_by,
            hint: Some("Who manages it; free text"),
            ..TextField::default()
        };
        html! {
            form method="post" action=(paths::under(&identity.id, "status")) {
                (visit.token_field()) (version_field(identity))
                @if of_module { (managed_by.show(errors)) }
                @else {
                    fieldset {
                        legend { "Enable connection to IoT hub" }
                        (form::radio("status", "enabled", "Enable", self.is_enabled))
                        (form::radio("status", "disabled", "Disable", !self.is_enabled))
                    }
                    (reason.show(errors))
                    (form::checkbox("edge", "IoT Edge device", self.iot_edge))
                }
                button.primary type="submit" { "Save" }
            }
        }
    }

    /// The same for a caller that may not change it.
    fn describe(&self, identity: &Identity) -> Markup {
        html! {
            dl.facts {
                @if identity.id.module.is_some() {
                    dt { "Managed by" } dd { (self.managed_by) }
                } @else {
                    dt { "Status" } dd { (text::status(identity.status)) }
                    dt { "Reason" } dd { (self.reason) }
                }
            }
        }
    }
}
