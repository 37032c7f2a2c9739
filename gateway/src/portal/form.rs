//! The fields of forms, each with its label, a hint, and the error of its value.

use maud::{Markup, html};

/// The errors of a form, by field.
#[derive(Debug, Default)]
pub(super) struct Errors(Vec<(&'static str, String)>);

impl Errors {
    pub(super) fn add(&mut self, field: &'static str, text: impl Into<String>) {
        self.0.push((field, text.into()));
    }

    /// Returns a value, or adds the error of the field.
    pub(super) fn take<T, E: ToString>(&mut self, field: &'static str, value: Result<T, E>) -> Option<T> {
        value.map_err(|error| self.add(field, error.to_string())).ok()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The error of a field.
    pub(super) fn at(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| *own == field).map(|(_, text)| text.as_str())
    }
}

/// A field for a line of text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TextField<'a> {
    pub(super) name: &'static str,
    pub(super) label: &'a str,
    pub(super) value: &'a str,
    pub(super) hint: Option<&'a str>,
    pub(super) placeholder: Option<&'a str>,
    pub(super) is_required: bool,
    pub(super) length_max: Option<usize>,
    /// The path that checks the text while it is typed. The answer appears below the field.
    pub(super) check: Option<&'a str>,
}

impl TextField<'_> {
    pub(super) fn show(&self, errors: &Errors) -> Markup {
        let Self { name, label, value, hint, placeholder, is_required, length_max, check } = *self;
        let error = errors.at(name);
        html! {
            div.field {
                label for=(name) { (label) }
                input id=(name) name=(name) type="text" value=(value) placeholder=[placeholder] required[is_required]
                    maxlength=[length_max] spellcheck="false" autocapitalize="off" autocomplete="off"
                    aria-describedby={ (name) "-says" } aria-invalid=[error.map(|_| "true")]
                    hx-get=[check] hx-target=[check.map(|_| format!("#{name}-says"))] hx-swap=[check.map(|_| "innerHTML")]
                    hx-trigger=[check.map(|_| "input changed delay:250ms")] hx-sync=[check.map(|_| "this:replace")];
                (field_message(name, error, hint, check.is_some()))
            }
        }
    }
}

/// A field for several lines.
pub(super) fn text_area(name: &'static str, label: &str, value: &str, hint: &str, errors: &Errors) -> Markup {
    let error = errors.at(name);
    html! {
        div.field {
            label for=(name) { (label) }
            textarea id=(name) name=(name) rows="5" spellcheck="false" aria-describedby={ (name) "-says" }
                aria-invalid=[error.map(|_| "true")] { "\n" (value) }
            (field_message(name, error, Some(hint), false))
        }
    }
}

/// The text below a field.
pub(super) fn field_message(name: &str, error: Option<&str>, hint: Option<&str>, is_live: bool) -> Markup {
    html! {
        div id={ (name) "-says" } aria-live=[is_live.then_some("polite")] {
            @if let Some(error) = error { (wrong(error)) }
            @else if let Some(hint) = hint { p.hint { (hint) } }
        }
    }
}

/// An error of a field, as a sentence.
pub(super) fn wrong(text: &str) -> Markup {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    html! { p.error { (first) (letters.as_str()) (end) } }
}

/// One choice of several.
pub(super) fn radio(name: &str, value: &str, label: &str, is_chosen: bool) -> Markup {
    html! {
        div.choice {
            input type="radio" id={ (name) "-" (value) } name=(name) value=(value) checked[is_chosen];
            label for={ (name) "-" (value) } { (label) }
        }
    }
}

/// A box to tick.
pub(super) fn checkbox(name: &str, label: &str, is_ticked: bool) -> Markup {
    html! {
        div.choice {
            input type="checkbox" id=(name) name=(name) value="yes" checked[is_ticked];
            label for=(name) { (label) }
        }
    }
}
