//! The smallest forms: one button, or one button behind a confirmation.

use maud::{Markup, html};

use super::visit::Visit;

/// What a button does when it is pressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Button<'a> {
    pub(super) label: &'a str,
    pub(super) action: &'a str,
    /// Further fields of its form, by name.
    pub(super) fields: &'a [(&'a str, &'a str)],
}

impl Button<'_> {
    /// The button alone.
    pub(super) fn show(self, visit: &Visit) -> Markup {
        self.form(visit, "")
    }

    /// The button of an action that cannot be undone, behind a question that states the consequences.
    pub(super) fn ask_first(self, visit: &Visit, what_follows: &str) -> Markup {
        html! {
            details.sure {
                summary { (self.label) }
                p { (what_follows) }
                (self.form(visit, "danger"))
            }
        }
    }

    fn form(self, visit: &Visit, class: &str) -> Markup {
        html! {
            form method="post" action=(self.action) {
                (visit.token_field())
                @for (name, value) in self.fields { input type="hidden" name=(name) value=(value); }
                button class=(class) type="submit" { (self.label) }
            }
        }
    }
}
