//! `POST …/messages`: sends a message to a device or module, and shows the form for it.

use std::time::Duration;

use bytes::Bytes;
use maud::{Markup, html};
use portcullis_registry::error::SendError;
use portcullis_registry::id::IdentityId;
use portcullis_registry::message::{Ack, NewC2d};

use super::NamedIdentityPage;
use super::messages::{self, page};
use crate::iothub::problem::Problem;
use crate::operations::c2d::{self, C2dError};
use crate::portal::answer::{PageResult, see_other};
use crate::portal::fields::FormFields;
use crate::portal::form::{self, Errors, TextField};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// The fields of the form.
#[derive(Clone, Debug, Default)]
pub(super) struct MessageForm {
    body: String,
    properties: Vec<(String, String)>,
    message_id: String,
    correlation_id: String,
    content_type: String,
    content_encoding: String,
    expiry_minutes: String,
    ack: Ack,
}

/// `POST …/messages`.
pub(in crate::portal) async fn send(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let form = MessageForm::read(&fields);
    let mut errors = Errors::default();
    let Some(message) = form.parse(&visit, &mut errors) else {
        return page(&visit, &id, &form, &errors, None);
    };
    match c2d::send(hub, service, &id, message).await {
        Ok(message) => {
            visit.flash(format!("Message {} accepted.", message.message_id));
            Ok(see_other(&paths::under(&id, messages::PATH)))
        }
        Err(error) => {
            let above = form.blame(error, &mut errors);
            page(&visit, &id, &form, &errors, above)
        }
    }
}

impl MessageForm {
    fn read(fields: &FormFields) -> Self {
        let text = |name: &str| fields.trimmed(name).unwrap_or_default().to_owned();
        let names = fields.all("property-name");
        let properties = names.zip(fields.all("property-value"));
        let properties = properties.map(|(name, value)| (name.trim().to_owned(), value.to_owned()));
        let ack = text("ack");
        Self {
            // A browser sends line ends as CR LF. A device expects the text as it was typed.
            body: fields.text("body").unwrap_or_default().replace("\r\n", "\n"),
            properties: properties.filter(|(name, value)| !name.is_empty() || !value.is_empty()).collect(),
            message_id: text("message-id"),
            correlation_id: text("correlation-id"),
            content_type: text("content-type"),
            content_encoding: text("content-encoding"),
            expiry_minutes: text("expiry"),
            ack: ACKS.into_iter().find(|own| own.as_str() == ack).unwrap_or_default(),
        }
    }

    fn parse(&self, visit: &Visit, errors: &mut Errors) -> Option<NewC2d> {
        if self.properties.iter().any(|(name, _)| name.is_empty()) {
            errors.add("properties", "give the property a name");
        }
        let expiry = match self.expiry_minutes.as_str() {
            "" => None,
            text => {
                let minutes = text.parse::<u32>().ok().filter(|minutes| *minutes > 0);
                let minutes = errors
                    .take("expiry", minutes.ok_or("enter a number of minutes above 0, or leave it empty"));
                let after = Duration::from_secs(u64::from(minutes.unwrap_or_default()) * 60);
                visit.hub().clock.wall().checked_add(after).ok()
            }
        };
        let given = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        errors.is_empty().then(|| NewC2d {
            message_id: given(&self.message_id),
            correlation_id: given(&self.correlation_id),
            user_id: None,
            content_type: given(&self.content_type),
            content_encoding: given(&self.content_encoding),
            to: None,
            ack: self.ack,
            expiry,
            properties: self.properties.clone(),
            body: Bytes::from(self.body.clone()),
        })
    }

    /// Adds the reason of a refused message to the field it belongs to, or returns it for the top of the page.
    fn blame(&self, error: C2dError, errors: &mut Errors) -> Option<Problem> {
        let text = error.to_string();
        let field = match &error {
            C2dError::PropertiesTooLong | C2dError::Send(SendError::BadProperty) => "properties",
            C2dError::Send(SendError::TooLarge { .. }) => "body",
            C2dError::Send(SendError::BadExpiry { .. }) => "expiry",
            C2dError::Send(SendError::LongMessageId { .. }) => "message-id",
            // The caller can see the device's page, so it may learn that the device exists.
            C2dError::Send(SendError::Disabled(id)) => {
                return Some(Problem::argument_invalid(format!("{id} is disabled and accepts no messages.")));
            }
            C2dError::Forbidden(_)
            | C2dError::Queue(_)
            | C2dError::Send(
                SendError::NotFound(_)
                | SendError::AccessDenied(_)
                | SendError::QueueFull { .. }
                | SendError::HubFull
                | SendError::Store(_),
            ) => return Some(Problem::from(error).for_known_caller()),
        };
        errors.add(field, text);
        None
    }

    pub(super) fn show(&self, visit: &Visit, id: &IdentityId, errors: &Errors) -> Markup {
        let line = |name, label, value, hint| {
            TextField { name, label, value, hint, ..TextField::default() }.show(errors)
        };
        // One empty row after the filled ones. A script adds more.
        let empty = (String::new(), String::new());
        let rows = self.properties.iter().chain(std::iter::repeat_n(&empty, 2));
        let limits = &visit.hub().config.limits;
        let expiry = format!(
            "Empty: {} minutes. At most {}",
            limits.c2d_ttl_default.as_secs() / 60,
            limits.c2d_ttl_max.as_secs() / 60
        );
        html! {
            form method="post" action=(paths::under(id, messages::PATH)) {
                (visit.token_field())
                (form::text_area("body", "Message body", &self.body, "Plain text", errors))
                fieldset {
                    legend { "Properties" }
                    div data-rows {
                        @for (name, value) in rows {
                            div.row data-row {
                                input name="property-name" value=(name) aria-label="Name of a property" placeholder="name" spellcheck="false" autocapitalize="off";
                                input name="property-value" value=(value) aria-label="Value of the property" placeholder="value" spellcheck="false" autocapitalize="off";
                            }
                        }
                    }
                    button type="button" data-add-row hidden { "Add property" }
                    (form::field_message("properties", errors.at("properties"), None, false))
                }
                details open[self.has_system_properties() || !errors.is_empty()] {
                    summary { "System properties" }
                    div.pair {
                        (line("message-id", "Message ID", &self.message_id, Some("If empty, the hub generates one")))
                        (line("correlation-id", "Correlation ID", &self.correlation_id, None))
                        (line("content-type", "Content type", &self.content_type, Some("For example application/json")))
                        (line("content-encoding", "Content encoding", &self.content_encoding, Some("For example utf-8")))
                        (line("expiry", "Expires in minutes", &self.expiry_minutes, Some(&expiry)))
                        div.field {
                            label for="ack" { "Acknowledgement" }
                            select id="ack" name="ack" {
                                @for ack in ACKS { option value=(ack.as_str()) selected[ack == self.ack] { (ack.as_str()) } }
                            }
                            p.hint { "The outcomes for which the hub sends feedback" }
                        }
                    }
                }
                button.primary type="submit" { "Send" }
            }
        }
    }

    fn has_system_properties(&self) -> bool {
        let texts = [
            &self.message_id,
            &self.correlation_id,
            &self.content_type,
            &self.content_encoding,
            &self.expiry_minutes,
        ];
        self.ack != Ack::None || texts.into_iter().any(|text| !text.is_empty())
    }
}

const ACKS: [Ack; 4] = [Ack::None, Ack::Positive, Ack::Negative, Ack::Full];
