//! News for operators as it happens: identities that change, connections that come, go or are refused.
//!
//! Each event has the next number, told or not, so whoever reads too slowly sees the gap. Nothing here waits: an event
//! with no listener costs an addition, and a listener that lags loses the oldest.

use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use portcullis_registry::id::IdentityId;
use serde::Serialize;
use tokio::sync::broadcast;

use crate::iothub::topic::EventName;

/// Where events are told and heard.
#[derive(Debug)]
pub struct Events {
    /// The next number; held while an event is told, so that none overtakes an earlier one.
    next: Mutex<u64>,
    told: broadcast::Sender<Arc<Event>>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Counts every event of this hub since its start, from 1.
    pub number: u64,
    pub time: Timestamp,
    pub name: EventName,
    pub id: IdentityId,
    pub details: Details,
}

/// What else there is to say; which members are there depends on the event.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// A fixed word: why a connection ended, or what a credential lacked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// The same in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The address of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Of the identity, after the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Of a cloud-to-device message.
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
    /// Tells everybody who listens, in the order of the numbers; `details` are made only if anybody does.
    pub fn emit(&self, name: EventName, id: &IdentityId, time: Timestamp, details: impl FnOnce() -> Details) {
        let details = (self.listeners() > 0).then(details);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *next;
        *next += 1;
        if let Some(details) = details {
            // Whoever listened may have left meanwhile.
            let _ = self.told.send(Arc::new(Event { number, time, name, id: id.clone(), details }));
        }
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.told.receiver_count()
    }

    /// What is told from now on.
    pub fn listen(&self) -> broadcast::Receiver<Arc<Event>> {
        self.told.subscribe()
    }
}

impl Event {
    /// The body of its message, as JSON.
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

/// Events a listener may be behind before it loses the oldest.
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
