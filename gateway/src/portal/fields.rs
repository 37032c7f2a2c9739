//! The fields of a form or a query, as they were sent. A name may appear more than once, for a list of boxes.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::answer::RefusedPage;
use crate::iothub::problem::Problem;

/// The fields of a posted form. `guard` has read them and checked that the form belongs to this sign-in.
#[derive(Clone, Debug, Default)]
pub(super) struct FormFields(Vec<(String, String)>);

/// The fields of a request's query.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(pub(super) FormFields);

impl FormFields {
    pub(super) fn parse(text: &[u8]) -> Self {
        Self(
            form_urlencoded::parse(text)
                .take(FIELDS_MAX)
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }

    /// The first value with this name. Absent and empty are the same.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().filter(|value| !value.is_empty())
    }

    /// The first value with this name, without the blanks around it that pasting adds.
    pub(super) fn trimmed(&self, name: &str) -> Option<&str> {
        self.text(name).map(str::trim).filter(|value| !value.is_empty())
    }

    /// Whether a box with this name is ticked.
    pub(super) fn is_ticked(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// Every value with this name.
    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

impl<S: Sync> FromRequestParts<S> for FormFields {
    type Rejection = RefusedPage;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RefusedPage> {
        let fields = parts.extensions.get::<Self>().cloned();
        fields.ok_or_else(|| RefusedPage(Problem::internal("a form was reached without the guard")))
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = RefusedPage;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, RefusedPage> {
        Ok(Self(FormFields::parse(parts.uri.query().unwrap_or_default().as_bytes())))
    }
}

/// More than any form here has, even with every device of a page ticked.
const FIELDS_MAX: usize = 1_000;
