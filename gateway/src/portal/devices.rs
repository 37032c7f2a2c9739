//! `/portal/devices` and related pages: the list, changing several devices at once, creating one.

pub(super) mod create;
pub(super) mod csv;
pub(super) mod list;
pub(super) mod list_query;
pub(super) mod selected;
