//! A list of devices for people: in the order of their ids, page by page, with a filter.
//!
//! A request looks at a limited number of devices, in small steps and without a lock between them. If more are left, it
//! returns the devices it has, perhaps none, and the id to continue after. An index finds the devices with a prefix. It
//! also finds the connected ones, unless so many are connected that a walk soon meets enough of them.

use std::sync::Arc;

use portcullis_registry::entry::Entry;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::identity::{AuthenticationKind, Status};
use portcullis_registry::policy::Rights;
use portcullis_registry::store::{DevicePage, PageStart};

use crate::auth::VerifiedService;
use crate::hub::Hub;
use crate::operations::identities::IdentityError;
use crate::operations::presence;

/// The devices to list. Without a value, a field matches any device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFilter {
    pub id: IdFilter,
    pub status: Option<Status>,
    pub authentication: Option<AuthenticationKind>,
    pub connected: Option<bool>,
    pub iot_edge: Option<bool>,
}

/// A condition on an id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum IdFilter {
    #[default]
    Any,
    /// The beginning of the id.
    Begins(String),
    /// A part of the id, in any letter case.
    Contains(String),
}

/// One page.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// In the requested direction.
    pub devices: Vec<Arc<Entry>>,
    /// The id after which the next page begins; none on the last page.
    pub next: Option<DeviceId>,
    /// Whether the request stopped before the page was full. There may be more devices, or not.
    pub is_unfinished: bool,
}

/// At most `count` devices that `filter` admits, from a position on.
pub async fn devices(
    hub: &Hub,
    caller: &VerifiedService,
    filter: &DeviceFilter,
    place: PageStart<'_>,
    count: usize,
) -> Result<Listing, IdentityError> {
    caller.check(Rights::REGISTRY_READ)?;
    let candidates = Candidates::of(hub, filter);
    let mut listing = Listing::default();
    let (mut looked_at, mut last): (usize, Option<DeviceId>) = (0, None);
    loop {
        let from = match (&last, place) {
            (None, place) => place,
            (Some(id), PageStart::First | PageStart::After(_)) => PageStart::After(id.as_str()),
            (Some(id), PageStart::Last | PageStart::Before(_)) => PageStart::Before(id.as_str()),
        };
        let page = candidates.page(from);
        looked_at += STEP_DEVICES;
        for entry in page.devices.into_iter().filter(|entry| filter.admits(hub, entry)) {
            if listing.devices.len() == count {
                // This device no longer fits on the page, so there is a next page after the last device of this one.
                listing.next = listing.devices.last().map(|entry| entry.identity().id.device.clone());
                return Ok(listing);
            }
            listing.devices.push(entry);
        }
        last = page.next;
        if last.is_none() {
            return Ok(listing);
        }
        if looked_at >= LOOKED_AT_MAX {
            // A full page continues after its last device, because the next match may not have been found yet.
            let full = listing.devices.last().filter(|_| listing.devices.len() == count);
            listing.is_unfinished = full.is_none();
            listing.next = full.map(|entry| entry.identity().id.device.clone()).or(last);
            return Ok(listing);
        }
        tokio::task::yield_now().await;
    }
}

/// The devices to look at.
enum Candidates<'h> {
    /// Every device whose id has this prefix.
    All { hub: &'h Hub, prefix: &'h str },
    /// These, in the order of their ids.
    These(Vec<Arc<Entry>>),
}

impl<'h> Candidates<'h> {
    fn of(hub: &'h Hub, filter: &'h DeviceFilter) -> Self {
        let prefix = match &filter.id {
            IdFilter::Begins(prefix) => prefix.as_str(),
            IdFilter::Any | IdFilter::Contains(_) => "",
        };
        if filter.connected != Some(true) || hub.sessions.len() > LOOKED_AT_MAX {
            return Self::All { hub, prefix };
        }
        let sessions = hub.sessions.all();
        let ids = sessions.iter().map(|session| session.who().id());
        let mut ids: Vec<&IdentityId> =
            ids.filter(|id| id.module.is_none() && id.device.as_str().starts_with(prefix)).collect();
        ids.sort_unstable();
        Self::These(ids.into_iter().filter_map(|id| hub.registry.entry(id)).collect())
    }

    /// The next step from a position on.
    fn page(&self, place: PageStart<'_>) -> DevicePage {
        let devices = match self {
            Self::All { hub, prefix } => return hub.registry.page_of(prefix, place, STEP_DEVICES),
            Self::These(devices) => devices,
        };
        let is_before = |entry: &Arc<Entry>, id: &str| entry.identity().id.device.as_str() < id;
        let up_to = |id: &str| devices.partition_point(|entry| is_before(entry, id));
        let devices = match place {
            PageStart::First => devices.clone(),
            PageStart::After(id) => {
                let rest = devices[up_to(id)..].iter();
                rest.filter(|entry| entry.identity().id.device.as_str() != id).cloned().collect()
            }
            PageStart::Last => devices.iter().rev().cloned().collect(),
            PageStart::Before(id) => devices[..up_to(id)].iter().rev().cloned().collect(),
        };
        DevicePage { devices, next: None }
    }
}

impl DeviceFilter {
    fn admits(&self, hub: &Hub, entry: &Entry) -> bool {
        let identity = entry.identity();
        let is = |wanted: Option<bool>, found: bool| wanted.is_none_or(|wanted| wanted == found);
        self.id.admits(identity.id.device.as_str())
            && self.status.is_none_or(|status| status == identity.status)
            && self.authentication.is_none_or(|kind| kind == identity.authentication.kind())
            && is(self.iot_edge, identity.iot_edge)
            && self.connected.is_none_or(|wanted| wanted == presence::is_connected(hub, &identity.id))
    }
}

impl IdFilter {
    fn admits(&self, id: &str) -> bool {
        match self {
            IdFilter::Any => true,
            IdFilter::Begins(prefix) => id.starts_with(prefix.as_str()),
            IdFilter::Contains(part) => {
                let (id, part) = (id.as_bytes(), part.as_bytes());
                part.is_empty() || id.windows(part.len()).any(|window| window.eq_ignore_ascii_case(part))
            }
        }
    }
}

/// How many devices to look at before other tasks run.
const STEP_DEVICES: usize = 256;
/// How many devices to look at for one page.
const LOOKED_AT_MAX: usize = 8_192;
