//! `/portal/new-device`: the form for a new device, and a check of its id while it is typed.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use maud::html;
use portcullis_registry::error::RegistryError;
use portcullis_registry::id::{DeviceId, IdentityId, Precondition};
use portcullis_registry::identity::{AuthenticationKind, IdentitySpec, Status};

use crate::iothub::problem::Problem;
use crate::operations::identities::{self, IdentityError};
use crate::portal::answer::{Html, PageResult, see_other};
use crate::portal::credential_form::CredentialForm;
use crate::portal::fields::{FormFields, Query};
use crate::portal::form::{self, Errors, TextField};
use crate::portal::layout::{self, Section};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// The fields of the form.
struct NewDevice {
    id: String,
    iot_edge: bool,
    is_enabled: bool,
    credential: CredentialForm,
}

/// `GET /portal/new-device`.
pub(in crate::portal) async fn show(visit: Visit) -> Response {
    let empty = NewDevice {
        id: String::new(),
        iot_edge: false,
        is_enabled: true,
        credential: CredentialForm::new(AuthenticationKind::Sas, None),
    };
    Html(empty.page(&visit, &Errors::default(), None)).into_response()
}

/// `POST /portal/new-device`.
pub(in crate::portal) async fn create(visit: Visit, fields: FormFields) -> PageResult {
    let wanted = NewDevice::read(&fields);
    let mut errors = Errors::default();
    let Some(spec) = wanted.parse(&mut errors) else {
        let page = wanted.page(&visit, &errors, None);
        return Ok((StatusCode::BAD_REQUEST, Html(page)).into_response());
    };
    let device = spec.id.device.clone();
    match identities::put(visit.hub(), visit.service(), spec, Precondition::Absent).await {
        Ok(_) => {
            visit.flash(format!("Device {device} created."));
            Ok(see_other(&paths::created(&device)))
        }
        Err(error) => {
            let is_taken = matches!(error, IdentityError::Registry(RegistryError::AlreadyExists(_)));
            let problem = Problem::from(error).for_known_caller();
            let above = if is_taken {
                errors.add("id", problem.text());
                None
            } else {
                Some(problem.text())
            };
            Ok((problem.status(), Html(wanted.page(&visit, &errors, above))).into_response())
        }
    }
}

/// `GET /portal/check-id?id=…`: whether it is a valid id that no device has.
pub(in crate::portal) async fn check_id(visit: Visit, Query(query): Query) -> PageResult {
    let text = query.text("id").unwrap_or_default();
    let said = match DeviceId::parse(text) {
        _ if text.is_empty() => html! { p.hint { (ID_HINT) } },
        Err(error) => form::wrong(&error.to_string()),
        Ok(id) => match identities::is_taken(visit.hub(), visit.service(), id)? {
            true => form::wrong("A device with this id exists already"),
            false => html! { p.fine { "This id is free." } },
        },
    };
    Ok(Html(said).into_response())
}

impl NewDevice {
    fn read(fields: &FormFields) -> Self {
        Self {
            id: fields.text("id").unwrap_or_default().to_owned(),
            iot_edge: fields.is_ticked("edge"),
            is_enabled: fields.text("status") != Some("disabled"),
            credential: CredentialForm::read(fields),
        }
    }

    fn parse(&self, errors: &mut Errors) -> Option<IdentitySpec> {
        let device = errors.take("id", DeviceId::parse(&self.id));
        let authentication = self.credential.parse(errors);
        Some(IdentitySpec {
            status: if self.is_enabled { Status::Enabled } else { Status::Disabled },
            authentication: authentication?,
            iot_edge: self.iot_edge,
            ..IdentitySpec::sas_device(IdentityId::device(device?))
        })
    }

    fn page(&self, visit: &Visit, errors: &Errors, above: Option<&str>) -> maud::Markup {
        let id = TextField {
            name: "id",
            label: "Device ID",
            value: &self.id,
            hint: Some(ID_HINT),
            is_required: true,
            length_max: Some(128),
            check: Some(paths::CHECK_ID),
            ..TextField::default()
        };
        let content = html! {
            p.crumbs { a href=(paths::DEVICES) { "Devices" } }
            h1 { "Create a device" }
            @if let Some(text) = above { p.notice.failed role="alert" { (text) } }
            @if !errors.is_empty() { p.notice.failed role="alert" { "Nothing was created. Correct the marked fields below." } }
            form.card.form method="post" action=(paths::NEW_DEVICE) {
                (visit.token_field())
                (id.show(errors))
                (form::checkbox("edge", "IoT Edge device", self.iot_edge))
                (self.credential.show(errors))
                fieldset {
                    legend { "Connect this device to an IoT hub" }
                    (form::radio("status", "enabled", "Enable", self.is_enabled))
                    (form::radio("status", "disabled", "Disable", !self.is_enabled))
                }
                div.toolbar {
                    button.primary type="submit" { "Save" }
                    a.button href=(paths::DEVICES) { "Cancel" }
                }
            }
        };
        layout::page(visit, Section::Devices, "Create a device", content)
    }
}

const ID_HINT: &str =
    "Up to 128 letters, digits and -.:%_*?!(),=@;$' in which case matters. It can never change.";
