//! What a session is subscribed to, and the few bytes that say so in the store.
//!
//! A device has at most six filters, so a list is searched faster than anything else and kept smaller.

use portcullis_registry::id::IdentityId;

use crate::iothub::topic::{EventName, Filter};
use crate::mqtt::packet::QoS;

/// Filters with the quality of service granted for each; none is there twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Subscriptions {
    filters: Vec<Filter>,
    granted: Vec<QoS>,
}

impl Subscriptions {
    /// Reads what `encode` wrote. Anything else, as by a later version, is no subscription at all.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&VERSION, entries) = bytes.split_first()? else { return None };
        let (pairs, []) = entries.as_chunks::<2>() else { return None };
        let mut subscriptions = Self::default();
        for [filter, qos] in pairs {
            let qos = QoS::parse(*qos).filter(|qos| *qos != QoS::ExactlyOnce)?;
            subscriptions.insert(filter_of(*filter)?, qos, FILTERS_STORED_MAX);
        }
        Some(subscriptions)
    }

    /// The bytes to store, if there is anything to keep.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![VERSION];
        for (filter, qos) in self.filters.iter().zip(&self.granted) {
            if let Some(code) = code_of(filter) {
                bytes.extend([code, *qos as u8]);
            }
        }
        if bytes.len() > 1 { Some(bytes) } else { None }
    }

    /// Grants a filter, anew if it is there already ([MQTT-3.8.4-3]); false if there is no room for another.
    pub(super) fn insert(&mut self, filter: Filter, qos: QoS, count_max: usize) -> bool {
        if let Some(index) = self.position(&filter) {
            self.granted[index] = qos;
            return true;
        }
        if self.filters.len() >= count_max {
            return false;
        }
        self.filters.push(filter);
        self.granted.push(qos);
        true
    }

    pub(super) fn remove(&mut self, filter: &Filter) {
        if let Some(index) = self.position(filter) {
            self.filters.remove(index);
            self.granted.remove(index);
        }
    }

    pub(super) fn contains(&self, filter: &Filter) -> bool {
        self.position(filter).is_some()
    }

    pub(super) fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// At which quality cloud-to-device messages go out: the highest of the filters they match ([MQTT-3.3.5-1]).
    pub(super) fn c2d_qos(&self) -> Option<QoS> {
        self.highest(Filter::admits_c2d)
    }

    /// At which quality telemetry of this sender goes out.
    pub(super) fn event_qos(&self, device: &str, module: Option<&str>) -> Option<QoS> {
        self.highest(|filter| filter.admits(device, module))
    }

    /// At which quality feedback goes out.
    pub(super) fn feedback_qos(&self) -> Option<QoS> {
        self.highest(|filter| *filter == Filter::Feedback)
    }

    /// At which quality the answer to a command goes out.
    pub(super) fn answer_qos(&self, topic: &str) -> Option<QoS> {
        self.highest(|filter| filter.admits_answer(topic))
    }

    /// At which quality an event goes out; without a name and id, at which any would.
    pub(super) fn admin_event_qos(&self, event: Option<(EventName, &IdentityId)>) -> Option<QoS> {
        self.highest(|filter| match (filter, event) {
            (Filter::AdminEvents(_), None) => true,
            (Filter::AdminEvents(wanted), Some((name, id))) => wanted.admits(name, id),
            _ => false,
        })
    }

    fn highest(&self, admits: impl Fn(&Filter) -> bool) -> Option<QoS> {
        self.filters.iter().zip(&self.granted).filter(|(filter, _)| admits(filter)).map(|(_, qos)| *qos).max()
    }

    fn position(&self, filter: &Filter) -> Option<usize> {
        self.filters.iter().position(|own| own == filter)
    }
}

/// The stored code of a filter; those of services are never stored. Codes are a promise: none is ever reused.
fn code_of(filter: &Filter) -> Option<u8> {
    match filter {
        Filter::C2d => Some(1),
        Filter::Inputs => Some(2),
        Filter::ModuleAll => Some(3),
        Filter::TwinResponses => Some(4),
        Filter::TwinDesired => Some(5),
        Filter::Methods => Some(6),
        Filter::AdminAnswers(_) | Filter::AdminEvents(_) | Filter::Events { .. } | Filter::Feedback => None,
    }
}

fn filter_of(code: u8) -> Option<Filter> {
    match code {
        1 => Some(Filter::C2d),
        2 => Some(Filter::Inputs),
        3 => Some(Filter::ModuleAll),
        4 => Some(Filter::TwinResponses),
        5 => Some(Filter::TwinDesired),
        6 => Some(Filter::Methods),
        _ => None,
    }
}

const VERSION: u8 = 1;

/// As many as there are codes.
const FILTERS_STORED_MAX: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Subscriptions {
        let mut subscriptions = Subscriptions::default();
        for code in 1..=6 {
            let qos = if code % 2 == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce };
            assert!(subscriptions.insert(filter_of(code).unwrap(), qos, 16));
        }
        subscriptions
    }

    #[test]
    fn what_is_stored_comes_back() {
        let bytes = all().encode().unwrap();
        assert!(bytes.len() <= 1024);
        assert_eq!(Subscriptions::decode(&bytes), Some(all()));
        assert_eq!(Subscriptions::default().encode(), None);
    }

    #[test]
    fn stored_bytes_stay_readable() {
        assert_eq!(all().encode().unwrap(), [1, 1, 1, 2, 0, 3, 1, 4, 0, 5, 1, 6, 0]);
    }

    #[test]
    fn bytes_of_another_kind_are_no_subscriptions() {
        for bytes in [
            &b""[..],
            b"\x00",
            b"\x02\x01\x01",
            b"\x01\x01",
            b"\x01\x07\x00",
            b"\x01\x01\x02",
            b"\x01\x00\x00",
        ] {
            assert_eq!(Subscriptions::decode(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn filters_of_services_are_never_stored() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.insert(Filter::Events { device: None, modules: None }, QoS::AtLeastOnce, 16);
        subscriptions.insert(Filter::Feedback, QoS::AtLeastOnce, 16);
        assert_eq!(subscriptions.encode(), None);
    }

    #[test]
    fn t216_the_same_filter_again_takes_no_room() {
        let mut subscriptions = Subscriptions::default();
        for _ in 0..20_000 {
            assert!(subscriptions.insert(Filter::C2d, QoS::AtLeastOnce, 1));
        }
        assert!(!subscriptions.insert(Filter::Methods, QoS::AtLeastOnce, 1));
        assert!(subscriptions.insert(Filter::C2d, QoS::AtMostOnce, 1));
        assert_eq!(subscriptions.c2d_qos(), Some(QoS::AtMostOnce));
        subscriptions.remove(&Filter::C2d);
        assert_eq!(subscriptions, Subscriptions::default());
    }
}
