//! `POST …/access`: what a device or module may do on its own connection, and how many messages may wait for it.

use maud::{Markup, html};
use portcullis_registry::access::Access;
use portcullis_registry::identity::{Identity, IdentitySpec};
use portcullis_registry::queue_max::QueueMax;

use super::details::{self, DetailsForm};
use super::{NamedIdentityPage, changed, version, version_field};
use crate::operations::identities;
use crate::portal::answer::PageResult;
use crate::portal::fields::FormFields;
use crate::portal::form::{self, Errors, TextField};
use crate::portal::paths;
use crate::portal::visit::Visit;

/// The fields of the form.
#[derive(Clone, Debug)]
pub(super) struct AccessForm {
    may_everything: bool,
    /// The ticked ones of `WORDS`.
    ticked: Vec<String>,
    /// Names of methods, or prefixes, separated by commas.
    methods: String,
    queue_max: String,
}

/// `POST …/access`.
pub(in crate::portal) async fn save(
    visit: Visit,
    NamedIdentityPage(id): NamedIdentityPage,
    fields: FormFields,
) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let precondition = version(&fields)?;
    let entry = identities::retrieve(hub, service, &id)?;
    let form = AccessForm::read(&fields);
    let mut errors = Errors::default();
    let (access, queue_max) = (form.parse_access(&mut errors), form.parse_queue_max(&mut errors));
    let (Some(access), Some(queue_max)) = (access, queue_max) else {
        return Ok(details::page(
            &visit,
            &entry,
            DetailsForm { access: Some(form), errors, ..DetailsForm::default() },
        ));
    };
    let spec = IdentitySpec {
        access: Some(access),
        queue_max: Some(queue_max),
        ..IdentitySpec::keeping(&entry.identity())
    };
    let outcome = identities::put(hub, service, spec, precondition).await;
    changed(&visit, outcome, &id, "Saved.")
}

impl AccessForm {
    pub(super) fn of(identity: &Identity) -> Self {
        let words = identity.access.to_entries();
        let may_everything = words.is_none();
        let (methods, ticked): (Vec<_>, Vec<_>) =
            words.unwrap_or_default().into_iter().partition(|word| word.starts_with(METHODS));
        let methods = methods.iter().filter_map(|word| word.strip_prefix(METHODS));
        Self {
            may_everything,
            ticked,
            methods: methods.collect::<Vec<_>>().join(", "),
            queue_max: identity.queue_max.map(|own| own.get().to_string()).unwrap_or_default(),
        }
    }

    fn read(fields: &FormFields) -> Self {
        let text = |name: &str| fields.trimmed(name).unwrap_or_default().to_owned();
        Self {
            may_everything: fields.text("allow") != Some("list"),
            ticked: fields.all("may").map(str::to_owned).collect(),
            methods: text("methods"),
            queue_max: text("queue-max"),
        }
    }

    fn parse_access(&self, errors: &mut Errors) -> Option<Access> {
        if self.may_everything {
            return Some(Access::EVERYTHING);
        }
        let methods = self.methods.split(',').map(str::trim).filter(|name| !name.is_empty());
        let words = self.ticked.iter().cloned().chain(methods.map(|name| format!("{METHODS}{name}")));
        errors.take("methods", Access::parse(words))
    }

    fn parse_queue_max(&self, errors: &mut Errors) -> Option<Option<QueueMax>> {
        if self.queue_max.is_empty() {
            return Some(None);
        }
        let read = self.queue_max.parse().ok().and_then(QueueMax::new);
        let out_of_range = format!("enter a number from 1 to {}, or leave it empty", QueueMax::HIGHEST);
        errors.take("queue-max", read.ok_or(out_of_range)).map(Some)
    }

    pub(super) fn show(&self, visit: &Visit, identity: &Identity, errors: &Errors) -> Markup {
        let methods = TextField {
            name: "methods",
            label: "Direct methods",
            value: &self.methods,
            hint: Some(
                "Names separated by commas; diag* means every name that begins with diag, * means every name",
            ),
            ..TextField::default()
        };
        let limit = visit.hub().config.limits.queue_messages_max;
        let hint = format!("If empty, the hub's limit applies: {limit}");
        let queue_max = TextField {
            name: "queue-max",
            label: "Most waiting messages",
            value: &self.queue_max,
            hint: Some(&hint),
            ..TextField::default()
        };
        html! {
            form method="post" action=(paths::under(&identity.id, "access")) {
                (visit.token_field()) (version_field(identity))
                fieldset.allowed {
                    legend { "Access" }
                    (form::radio("allow", "everything", "Everything", self.may_everything))
                    (form::radio("allow", "list", "Only the following", !self.may_everything))
                    div.listed {
                        @for (word, label) in WORDS {
                            div.choice {
                                input type="checkbox" id={ "may-" (word) } name="may" value=(word)
                                    checked[self.ticked.iter().any(|own| own == word)];
                                label for={ "may-" (word) } { (label) }
                            }
                        }
                        (methods.show(errors))
                    }
                }
                (queue_max.show(errors))
                p.hint { "The hub closes a connection that has more rights than this. It may then reconnect." }
                button.primary type="submit" { "Save" }
            }
        }
    }
}

const METHODS: &str = "methods:";
const WORDS: [(&str, &str); 3] =
    [("telemetry", "Send telemetry"), ("c2d", "Receive messages"), ("twin", "Read and report twin")];
