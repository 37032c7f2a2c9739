//! Events for operators as they happen: changed identities, connects, disconnects and refusals.
//!
//! Each event gets the next number, even if nobody listens, so a slow listener sees the gap. Nothing here waits: an
//! event without a listener costs one addition, and a slow listener loses the oldest events.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use portcullis_registry::id::IdentityId;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::iothub::topic::EventName;

/// Emits events to listeners.
#[derive(Debug)]
pub struct Events {
    /// The next number. Locked while an event is emitted, so that events stay in order.
    next: Mutex<u64>,
    told: broadcast::Sender<Arc<Event>>,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts every event of this hub since its start, from 1.
    pub number: u64,
    pub time: Timestamp,
    pub name: EventName,
    pub id: IdentityId,
    pub details: Details,
}

/// The details of an event. Which members are present depends on the event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// One of a fixed set of words: why a connection ended, or what was wrong with a credential.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The reason as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The address of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// The etag of the identity after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The id of a cloud-to-device message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventOut<'a> {
    sequence: u64,
    time: String,
    event: &'static str,
    device_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    module_id: Option<&'a str>,
    #[serde(flatten)]
    details: &'a Details,
}

impl Default for Events {
    fn default() -> Self {
        Self { next: Mutex::new(1), told: broadcast::channel(EVENTS_MAX).0 }
    }
}

impl Events {
    /// Emits an event to all listeners, in the order of the numbers. Computes `details` only if there is a listener.
    pub fn emit(&self, name: EventName, id: &IdentityId, time: Timestamp, details: impl FnOnce() -> Details) {
        let details = (self.listeners() > 0).then(details);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        if let Some(details) = details {
            // The listener may have left in the meantime.
            let _ = self.told.send(Arc::new(Event { number, time, name, id: id.clone(), details }));
        }
    }

    /// The number of listeners.
    pub fn listeners(&self) -> usize {
        self.told.receiver_count()
    }

    /// A receiver of all events from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.told.subscribe()
    }
}

impl Event {
    /// The body of the event's message, as JSON.
    pub fn body(&self) -> String {
        serde_json::to_string(&EventOut {
            sequence: self.number,
            time: self.time.to_string(),
            event: self.name.as_str(),
            device_id: self.id.device.as_str(),
            module_id: self.id.module.as_ref().map(|module| module.as_str()),
            details: &self.details,
        })
        .expect("texts and numbers are JSON")
    }
}

/// How many events may wait for a listener before it loses the oldest.
const EVENTS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use portcullis_registry::id::{DeviceId, ModuleId};

    use super::*;

    fn id() -> IdentityId {
        IdentityId::module(DeviceId::parse("d1").unwrap(), ModuleId::parse("m").unwrap())
    }

    #[tokio::test]
    async fn events_are_numbered_whether_somebody_listens_or_not() {
        let events = Events::default();
        let emit = || events.emit(EventName::Connected, &id(), Timestamp::UNIX_EPOCH, Details::default);
        emit();
        let mut heard = events.listen();
        emit();
        assert_eq!(heard.recv().await.unwrap().number, 2);
    }

    #[tokio::test]
    async fn a_listener_that_lags_sees_a_gap_in_the_numbers() {
        let events = Events::default();
        let mut heard = events.listen();
        for _ in 0..EVENTS_MAX + 10 {
            events.emit(EventName::Connected, &id(), Timestamp::UNIX_EPOCH, Details::default);
        }
        assert!(matches!(heard.recv().await, Err(broadcast::error::RecvError::Lagged(10))));
        assert_eq!(heard.recv().await.unwrap().number, 11);
    }

    #[test]
    fn a_body_says_what_there_is_to_say() {
        let details = Details { reason: Some("disabled"), ..Details::default() };
        let event = Event {
            number: 7,
            time: Timestamp::UNIX_EPOCH,
            name: EventName::Disconnected,
            id: id(),
            details,
        };
        let body: serde_json::Value = serde_json::from_str(&event.body()).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"sequence": 7, "time": "1970-01-01T00:00:00Z", "event": "disconnected",
                "deviceId": "d1", "moduleId": "m", "reason": "disabled"})
        );
    }
}
