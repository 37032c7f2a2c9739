//! `GET /portal/live`: events of devices as they happen, as server-sent events for the portal's script.
//!
//! With `telemetry={id}`: the telemetry of one device and its modules, and its connects, disconnects and refusals. With
//! `device={id}`, once or more: only the connects, disconnects and refusals of those devices. A stream ends with its
//! reader's sign-in. A slow reader loses events and learns how many, and never slows a device down. Texts are JSON, so
//! no text of a device can end a field of the stream, and the script shows them as text (threats T713).

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use portcullis_registry::id::{DeviceId, IdentityId};
use portcullis_registry::policy::Policies;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::answer::PageResult;
use super::fields::Query;
use super::visit::Visit;
use crate::hub::bus;
use crate::hub::events;
use crate::iothub::message_properties::bag;
use crate::iothub::problem::Problem;
use crate::iothub::property_bag::stamped_pairs;
use crate::iothub::topic::EventName;
use crate::operations::presence;
use crate::operations::watch::{News, Watch};

/// `GET /portal/live`.
pub(super) async fn stream(visit: Visit, Query(query): Query) -> PageResult {
    let (hub, service) = (visit.hub(), visit.service());
    let watch = match query.text("telemetry") {
        Some(device) => crate::operations::watch::telemetry(hub, service, DeviceId::parse(device)?)?,
        None => {
            let devices: HashSet<_> = query.all("device").map(DeviceId::parse).collect::<Result<_, _>>()?;
            if devices.is_empty() || devices.len() > DEVICES_MAX {
                return Err(Problem::argument_invalid("Name at least one device, and not too many.").into());
            }
            crate::operations::watch::presence(hub, service, devices)?
        }
    };
    Ok(EventStream::new(visit, watch).into_response())
}

/// One stream.
struct EventStream {
    policies: watch::Receiver<Arc<Policies>>,
    looks: Interval,
    watch: Watch,
    visit: Visit,
    /// Events to send before any that arrive.
    next: VecDeque<Event>,
}

impl EventStream {
    fn new(visit: Visit, watch: Watch) -> Self {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let policies = visit.hub().watch_policies();
        let mut live = Self { policies, looks, watch, visit, next: VecDeque::new() };
        live.push_presence();
        live
    }

    fn into_response(self) -> Response {
        let events = stream::unfold(self, |mut live| async move {
            let event = live.event().await?;
            Some((Ok::<_, Infallible>(event), live))
        });
        Sse::new(events).into_response()
    }

    /// The next event; none once its reader is signed out or the hub stops.
    async fn event(&mut self) -> Option<Event> {
        let hub = Arc::clone(self.visit.hub());
        loop {
            if let Some(event) = self.next.pop_front() {
                return self.visit.still_holds().then_some(event);
            }
            tokio::select! {
                () = hub.stopping.cancelled() => return None,
                changed = self.policies.changed() => {
                    if changed.is_err() || !self.visit.still_holds() {
                        return None;
                    }
                }
                // A comment keeps the connection open, and shows whether the reader is still connected.
                _ = self.looks.tick() => self.next.push_back(Event::default().comment("")),
                news = self.watch.next() => self.take(news?),
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Telemetry(event) => self.push_event("telemetry", &TelemetryOut::new(&event)),
            News::Event(event) => match event.name {
                EventName::Connected | EventName::Disconnected => self.push_state(&event.id),
                EventName::CredentialRefused => self.push_event("refused", &RefusedOut::new(&event)),
                EventName::IdentityCreated
                | EventName::IdentityUpdated
                | EventName::IdentityDeleted
                | EventName::ConnectionFlapping
                | EventName::C2dExpired => {}
            },
            News::Missed(_) => self.push_presence(),
        }
    }

    /// Sends the state of every watched device, because the page may show an old one.
    fn push_presence(&mut self) {
        let devices: Vec<_> = self.watch.devices().cloned().collect();
        devices.into_iter().for_each(|device| self.push_state(&IdentityId::device(device)));
    }

    /// Sends the present state, which is later than the event that caused this.
    fn push_state(&mut self, id: &IdentityId) {
        let connected = presence::is_connected(self.visit.hub(), id);
        let module = id.module.as_ref().map(|module| module.as_str());
        self.push_event("state", &StateOut { device: id.device.as_str(), module, connected });
    }

    fn push_event(&mut self, name: &str, what: &impl Serialize) {
        match Event::default().event(name).json_data(what) {
            Ok(event) => self.next.push_back(event),
            Err(error) => tracing::error!(%error, "an event for the portal cannot be written"),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StateOut<'a> {
    device: &'a str,
    module: Option<&'a str>,
    connected: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefusedOut<'a> {
    time: String,
    module: Option<&'a str>,
    reason: &'a str,
    peer: &'a str,
}

impl<'a> RefusedOut<'a> {
    fn new(event: &'a events::Event) -> Self {
        Self {
            time: event.time.to_string(),
            module: event.id.module.as_ref().map(|module| module.as_str()),
            reason: event.details.text.as_deref().unwrap_or_default(),
            peer: event.details.peer.as_deref().unwrap_or_default(),
        }
    }
}

/// A message as the page shows it.
#[derive(Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct TelemetryOut {
    time: String,
    module: Option<String>,
    /// The sender's properties, by name.
    properties: Vec<(String, String)>,
    /// Text if it is text, otherwise hexadecimal; cut if it is long.
    body: String,
    is_text: bool,
    is_cut: bool,
    bytes: usize,
    /// How many messages before this one the page missed.
    lost: u64,
}

impl TelemetryOut {
    fn new(event: &bus::TelemetryEvent) -> Self {
        let telemetry = &event.telemetry;
        let mut time = String::new();
        let mut properties = Vec::new();
        for (name, value) in stamped_pairs(&telemetry.bag) {
            let value = value.unwrap_or_default();
            match name.as_str() {
                bag::ENQUEUED_TIME => time = value,
                name if name.starts_with(bag::CONNECTION_PREFIX) => {}
                _ => properties.push((name, value)),
            }
        }
        let (body, is_text, is_cut) = shown(&telemetry.payload);
        Self {
            time,
            module: telemetry.module.clone(),
            properties,
            body,
            is_text,
            is_cut,
            bytes: telemetry.payload.len(),
            lost: event.lost_before,
        }
    }
}

/// A payload as it is shown; whether as text, and whether there is more.
fn shown(payload: &[u8]) -> (String, bool, bool) {
    let is_readable = |text: &&str| !text.contains(|c: char| c.is_control() && !c.is_whitespace());
    match std::str::from_utf8(payload).ok().filter(is_readable) {
        Some(text) => {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            (text[..end].to_owned(), true, end < text.len())
        }
        None => {
            let part = &payload[..payload.len().min(HEX_BYTES_MAX)];
            let hex: Vec<_> = part.iter().map(|byte| format!("{byte:02x}")).collect();
            (hex.join(" "), false, part.len() < payload.len())
        }
    }
}

/// Devices of one page of the list.
const DEVICES_MAX: usize = 250;
/// How often a stream sends a comment, and checks that its reader is still signed in.
const LOOK_EVERY: Duration = Duration::from_secs(15);
const TEXT_BYTES_MAX: usize = 4096;
const HEX_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_message_shows_what_its_sender_set_and_when_the_hub_took_it() {
        let telemetry = bus::Telemetry {
            device: "pump".into(),
            module: Some("m".into()),
            bag: "iothub-connection-device-id=pump&iothub-enqueuedtime=2026-01-01T00%3A00%3A00Z\
                  &%24.ct=text%2Fplain&a%26b=%3Cb%3E&empty="
                .into(),
            payload: Bytes::from_static(b"hot\n"),
        };
        let shown =
            TelemetryOut::new(&bus::TelemetryEvent { telemetry: Arc::new(telemetry), lost_before: 3 });
        let properties = [("$.ct", "text/plain"), ("a&b", "<b>"), ("empty", "")];
        let expected = TelemetryOut {
            time: "2026-01-01T00:00:00Z".into(),
            module: Some("m".into()),
            properties: properties.map(|(name, value)| (name.into(), value.into())).into(),
            body: "hot\n".into(),
            is_text: true,
            is_cut: false,
            bytes: 4,
            lost: 3,
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn what_is_no_text_is_shown_in_hexadecimal_and_what_is_long_is_cut() {
        assert_eq!(shown(b"\x00\xff"), ("00 ff".into(), false, false));
        assert_eq!(shown("grün\t\r\n".as_bytes()), ("grün\t\r\n".into(), true, false));
        let (text, is_text, is_cut) = shown("é".repeat(4000).as_bytes());
        assert_eq!((text.len(), is_text, is_cut), (TEXT_BYTES_MAX, true, true));
        let (hex, _, is_cut) = shown(&[0; 5000]);
        assert_eq!((hex.len(), is_cut), (HEX_BYTES_MAX * 3 - 1, true));
    }
}
