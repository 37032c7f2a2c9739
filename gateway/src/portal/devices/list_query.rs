//! The view of a list of devices in its address: filters, order, and position. It is parsed from a query and written as
//! one, so that every view has an address.

use portcullis_registry::identity::{AuthenticationKind, Status};
use portcullis_registry::store::PageStart;

use crate::operations::listing::{DeviceFilter, IdFilter};
use crate::portal::fields::FormFields;
use crate::portal::paths::encoded;

/// One view of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::portal) struct ListQuery {
    pub(super) filter: DeviceFilter,
    pub(super) is_descending: bool,
    pub(super) count: Count,
    pub(super) from: From,
}

/// How many devices a page has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Count(pub(super) usize);

/// The position in the list where a page begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum From {
    #[default]
    Beginning,
    /// After this id in the list's order.
    After(String),
    /// The page ends before this id.
    Before(String),
}

impl Default for Count {
    fn default() -> Self {
        Self(Self::ALL[1])
    }
}

impl Count {
    pub(super) const ALL: [usize; 3] = [25, 50, 100];
}

impl ListQuery {
    /// Parses a query. Ignores what it cannot parse; the page shows the filters in use.
    pub(in crate::portal) fn parse(query: &FormFields) -> Self {
        let id = match (query.trimmed("q"), query.text("match")) {
            (None, _) => IdFilter::Any,
            (Some(text), Some("contains")) => IdFilter::Contains(bounded(text)),
            (Some(text), _) => IdFilter::Begins(bounded(text)),
        };
        let yes_or_no = |name: &str, yes: &str, no: &str| match query.text(name) {
            Some(text) if text == yes => Some(true),
            Some(text) if text == no => Some(false),
            _ => None,
        };
        let is_enabled = yes_or_no("status", "enabled", "disabled");
        let kind = query.text("auth");
        let count = query.text("count").and_then(|text| text.parse().ok());
        Self {
            filter: DeviceFilter {
                id,
                status: is_enabled.map(|yes| if yes { Status::Enabled } else { Status::Disabled }),
                authentication: AuthenticationKind::ALL.into_iter().find(|own| Some(own.as_str()) == kind),
                connected: yes_or_no("connected", "yes", "no"),
                iot_edge: yes_or_no("type", "edge", "device"),
            },
            is_descending: query.text("order") == Some("descending"),
            count: count.filter(|count| Count::ALL.contains(count)).map(Count).unwrap_or_default(),
            from: match (query.text("after"), query.text("before")) {
                (Some(id), _) => From::After(bounded(id)),
                (None, Some(id)) => From::Before(bounded(id)),
                (None, None) => From::Beginning,
            },
        }
    }

    /// The address of this view under `path`.
    pub(in crate::portal) fn address(&self, path: &str) -> String {
        let DeviceFilter { id, status, authentication, connected, iot_edge } = &self.filter;
        let (text, how) = match id {
            IdFilter::Any => (None, None),
            IdFilter::Begins(text) => (Some(text.as_str()), None),
            IdFilter::Contains(text) => (Some(text.as_str()), Some("contains")),
        };
        let (after, before) = match &self.from {
            From::Beginning => (None, None),
            From::After(id) => (Some(id.as_str()), None),
            From::Before(id) => (None, Some(id.as_str())),
        };
        let count = Some(self.count).filter(|count| *count != Count::default());
        let count = count.map(|Count(count)| count.to_string());
        let pairs = [
            ("q", text),
            ("match", how),
            ("status", status.map(|status| if status == Status::Enabled { "enabled" } else { "disabled" })),
            ("auth", authentication.map(AuthenticationKind::as_str)),
            ("connected", connected.map(|yes| if yes { "yes" } else { "no" })),
            ("type", iot_edge.map(|edge| if edge { "edge" } else { "device" })),
            ("order", self.is_descending.then_some("descending")),
            ("count", count.as_deref()),
            ("after", after),
            ("before", before),
        ];
        let pairs = pairs.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?))));
        let query = pairs.collect::<Vec<_>>().join("&");
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// The list from its beginning.
    pub(super) fn at(&self, from: From) -> Self {
        Self { from, ..self.clone() }
    }

    /// The same devices in the other order, from the beginning.
    pub(super) fn turned(&self) -> Self {
        Self { is_descending: !self.is_descending, ..self.at(From::Beginning) }
    }

    /// Whether there is no filter.
    pub(super) fn is_unfiltered(&self) -> bool {
        self.filter == DeviceFilter::default()
    }

    /// The position in the order of ids, and whether devices from there come in the reverse order of the list.
    pub(super) fn place(&self) -> (PageStart<'_>, bool) {
        match (&self.from, self.is_descending) {
            (From::Beginning, false) => (PageStart::First, false),
            (From::Beginning, true) => (PageStart::Last, false),
            (From::After(id), false) => (PageStart::After(id), false),
            (From::After(id), true) => (PageStart::Before(id), false),
            (From::Before(id), false) => (PageStart::Before(id), true),
            (From::Before(id), true) => (PageStart::After(id), true),
        }
    }
}

/// Shortens a text to the longest id.
fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}

const TEXT_CHARACTERS_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_view_has_an_address_that_leads_back_to_it() {
        let read = |query: &str| ListQuery::parse(&FormFields::parse(query.as_bytes()));
        for query in [
            "",
            "q=pump-",
            "q=a%2Fb%26c%3D%2B&match=contains&status=disabled&auth=selfSigned&connected=yes&type=edge&order=descending&count=100&after=%25%3D",
            "status=enabled&connected=no&type=device&before=d1",
        ] {
            let asked = read(query);
            let address = asked.address("/portal/devices");
            assert_eq!(address, format!("/portal/devices{}{query}", if query.is_empty() { "" } else { "?" }));
        }
        for odd in [
            "q=",
            "q=+++",
            "status=odd",
            "auth=&connected=1",
            "count=1000000",
            "count=-1",
            "order=up",
            "after=",
        ] {
            assert_eq!(read(odd), ListQuery::default(), "{odd}");
        }
    }
}
