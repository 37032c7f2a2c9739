//! The topics of operators: commands, their answers, and events. A command is a REST request in a topic:
//! `$admin/{METHOD}/{path}?$rid={id}`, with further query parameters as in REST.

use percent_encoding::utf8_percent_encode;
use portcullis_registry::id::{DeviceId, IdentityId};

use super::request_id;
use crate::iothub::property_bag::ENCODED;

/// A command as it stands in its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminCommand<'a> {
    pub method: &'a str,
    /// Without the first slash. Segments are percent-encoded as in REST.
    pub path: &'a str,
    /// With the request id still in it.
    pub query: &'a str,
    pub rid: &'a str,
}

/// The events that operators receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    IdentityCreated,
    IdentityUpdated,
    IdentityDeleted,
    Connected,
    Disconnected,
    ConnectionFlapping,
    CredentialRefused,
    C2dExpired,
}

/// The events that a subscriber asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventsFilter {
    pub name: Option<EventName>,
    /// Only those of this device and its modules.
    pub device: Option<DeviceId>,
}

/// Parses a command; none if the topic has another form. Ids may hold `?`, so the last one begins the query.
pub(super) fn parse_command(topic: &str) -> Option<AdminCommand<'_>> {
    let (method, rest) = topic.strip_prefix("$admin/")?.split_once('/')?;
    let (path, query) = rest.rsplit_once('?')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let rid = request_id(query)?;
    let known = METHODS.contains(&method) && !path.is_empty();
    known.then_some(AdminCommand { method, path, query, rid })
}

/// Parses `$admin/events/#`, `$admin/events/{name}/#`, `$admin/events/+/{deviceId}/#` or both names given.
pub(super) fn parse_admin_events_filter(text: &str) -> Option<EventsFilter> {
    let words = text.strip_prefix("$admin/events/")?.strip_suffix('#')?;
    let Some(words) = words.strip_suffix('/') else {
        return words.is_empty().then(EventsFilter::default);
    };
    let (name, device) = match words.split_once('/') {
        None => (words, None),
        Some((name, device)) => (name, Some(DeviceId::parse(device).ok()?)),
    };
    match (name, device) {
        ("+", None) => None,
        ("+", device) => Some(EventsFilter { name: None, device }),
        (name, device) => Some(EventsFilter { name: Some(EventName::parse(name)?), device }),
    }
}

/// The topic of an answer: status, the request id as it was given, and the rest of the answer's head.
pub fn answer_topic(status: u16, rid: &str, head: &[(&str, String)]) -> String {
    let mut topic = format!("$admin/res/{status}/?$rid={rid}");
    for (name, value) in head {
        topic.push('&');
        topic.push_str(name);
        topic.push('=');
        topic.extend(utf8_percent_encode(value, ENCODED));
    }
    topic
}

/// Whether a filter is the whole topic of an answer.
pub(super) fn is_answer_topic(text: &str) -> bool {
    let rest = text.strip_prefix("$admin/res/").and_then(|rest| rest.split_once("/?"));
    let is_status = |status: &str| status.len() == 3 && status.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= ANSWER_TOPIC_BYTES_MAX
        && !text.contains(['+', '#'])
        && rest.is_some_and(|(status, query)| is_status(status) && super::request_id(query).is_some())
}

/// The topic of an event.
pub fn admin_event_topic(name: EventName, id: &IdentityId) -> String {
    match &id.module {
        None => format!("$admin/events/{}/{}", name.as_str(), id.device),
        Some(module) => format!("$admin/events/{}/{}/{module}", name.as_str(), id.device),
    }
}

impl EventsFilter {
    pub fn admits(&self, name: EventName, id: &IdentityId) -> bool {
        self.name.is_none_or(|wanted| wanted == name)
            && self.device.as_ref().is_none_or(|device| *device == id.device)
    }
}

impl EventName {
    /// The name in topics and bodies.
    pub fn as_str(self) -> &'static str {
        match self {
            EventName::IdentityCreated => "identityCreated",
            EventName::IdentityUpdated => "identityUpdated",
            EventName::IdentityDeleted => "identityDeleted",
            EventName::Connected => "connected",
            EventName::Disconnected => "disconnected",
            EventName::ConnectionFlapping => "connectionFlapping",
            EventName::CredentialRefused => "credentialRefused",
            EventName::C2dExpired => "c2dExpired",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        ALL.into_iter().find(|name| name.as_str() == word)
    }
}

const METHODS: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];
const ALL: [EventName; 8] = [
    EventName::IdentityCreated,
    EventName::IdentityUpdated,
    EventName::IdentityDeleted,
    EventName::Connected,
    EventName::Disconnected,
    EventName::ConnectionFlapping,
    EventName::CredentialRefused,
    EventName::C2dExpired,
];

/// The longest topic of an answer that a subscriber may name. A request id and an etag fit into it.
const ANSWER_TOPIC_BYTES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use portcullis_registry::id::ModuleId;

    use super::*;

    #[test]
    fn a_command_is_method_path_query_and_request_id() {
        let command = parse_command("$admin/PUT/devices/pump-7/?$rid=42").unwrap();
        assert_eq!((command.method, command.path, command.rid), ("PUT", "devices/pump-7", "42"));
        let command = parse_command("$admin/GET/devices?top=3&$rid=a&x=y").unwrap();
        assert_eq!((command.path, command.query, command.rid), ("devices", "top=3&$rid=a&x=y", "a"));
        assert_eq!(parse_command("$admin/GET/devices/a?b/?$rid=1").unwrap().path, "devices/a?b");
    }

    #[test]
    fn what_is_no_command_is_none() {
        let long = format!("$admin/GET/devices/?$rid={}", "1".repeat(257));
        for topic in [
            "$admin",
            "$admin/GET",
            "$admin/GET/devices",
            "$admin/GET/devices/?",
            "$admin/GET/devices/?$rid=",
            "$admin/GET/?$rid=1",
            "$admin/get/devices/?$rid=1",
            "$admin/TRACE/devices/?$rid=1",
            "admin/GET/devices/?$rid=1",
            &long,
        ] {
            assert_eq!(parse_command(topic), None, "{topic:.40}");
        }
    }

    #[test]
    fn events_are_wanted_by_name_by_device_by_both_or_all() {
        let device = Some(DeviceId::parse("d1").unwrap());
        let name = Some(EventName::Connected);
        for (text, wanted) in [
            ("$admin/events/#", EventsFilter { name: None, device: None }),
            ("$admin/events/connected/#", EventsFilter { name, device: None }),
            ("$admin/events/+/d1/#", EventsFilter { name: None, device: device.clone() }),
            ("$admin/events/connected/d1/#", EventsFilter { name, device }),
        ] {
            assert_eq!(parse_admin_events_filter(text), Some(wanted), "{text}");
        }
        for text in [
            "$admin/events",
            "$admin/events/",
            "$admin/events/+",
            "$admin/events/+/#",
            "$admin/events/nonsense/#",
            "$admin/events/connected",
            "$admin/events/connected#",
            "$admin/events/connected/+/#",
            "$admin/events/connected/d1/m/#",
            "$admin/#",
        ] {
            assert_eq!(parse_admin_events_filter(text), None, "{text}");
        }
    }

    #[test]
    fn a_wanted_device_is_its_modules_too_and_no_other() {
        let wanted = parse_admin_events_filter("$admin/events/+/d1/#").unwrap();
        let id = |text| IdentityId::device(DeviceId::parse(text).unwrap());
        let module = IdentityId::module(DeviceId::parse("d1").unwrap(), ModuleId::parse("m").unwrap());
        assert!(wanted.admits(EventName::Connected, &id("d1")));
        assert!(wanted.admits(EventName::Disconnected, &module));
        assert!(!wanted.admits(EventName::Connected, &id("d10")));
    }

    #[test]
    fn topics_are_as_documented() {
        let etag = [("etag", "AAA=".to_owned())];
        assert_eq!(answer_topic(200, "4/2", &etag), "$admin/res/200/?$rid=4/2&etag=AAA%3D");
        let module = IdentityId::module(DeviceId::parse("d1").unwrap(), ModuleId::parse("m").unwrap());
        assert_eq!(admin_event_topic(EventName::Connected, &module), "$admin/events/connected/d1/m");
    }
}
