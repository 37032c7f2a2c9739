//! Topics and filters, parsed once into values, and the topics that the hub writes.
//!
//! A device has a fixed set of topics of its own, and so has a service. The parser refuses every other topic. It
//! compares filters as text with the known ones and never matches wildcards (IoT Hub: "Communicate with IoT Hub using
//! MQTT"). Ids are written as they are in topics; everything in a property bag is percent-encoded.

use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::message::{Ack, C2dMessage, NewC2d};
use portcullis_registry::policy::Rights;

use super::message_properties::bag;
use super::property_bag::{ENCODED, write_pair};

mod admin;

pub use admin::{AdminCommand, EventName, EventsFilter, admin_event_topic, answer_topic};

/// The role in which a connection publishes and subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A device or a module.
    Device(IdentityId),
    /// A service that holds a policy with these rights; it has no identity.
    Service(Rights),
}

/// A topic a peer may publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishTopic<'a> {
    /// The property bag is percent-encoded, as received.
    Telemetry { bag: &'a str },
    /// A request for the twin. The answer has the same request id.
    TwinGet { rid: &'a str },
    /// A change of the twin's reported properties.
    TwinReported { rid: &'a str },
    /// The response to a direct method. The device chooses the status.
    MethodResponse { status: &'a str, rid: &'a str },
    /// A command, for services only.
    Command(AdminCommand<'a>),
}

/// A filter a peer may subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Cloud-to-device messages.
    C2d,
    /// A module's inputs.
    Inputs,
    /// Everything under a module's own topic.
    ModuleAll,
    /// Answers to twin requests.
    TwinResponses,
    /// Changes of the twin's desired properties.
    TwinDesired,
    /// Direct method calls.
    Methods,
    /// Telemetry, for services only. `device` absent: of every device. `modules` absent: what devices themselves send;
    /// `Some(None)`: what any of their modules sends; `Some(Some(_))`: what that module sends.
    Events { device: Option<DeviceId>, modules: Option<Option<ModuleId>> },
    /// Feedback on cloud-to-device messages, for services only.
    Feedback,
    /// Answers to commands, for services only: all, or those on exactly this topic.
    AdminAnswers(Option<Box<str>>),
    /// Events of identities and connections, for services only.
    AdminEvents(EventsFilter),
}

/// Why this peer may not use a topic or filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("this peer may not publish to the topic {0:?}")]
    NotForPublish(String),
    #[error("this peer may not subscribe to the filter {0:?}")]
    NotForSubscribe(String),
    #[error("the topic {0:?} needs a request id of 1 to {RID_BYTES_MAX} bytes")]
    NoRequestId(String),
}

/// Parses a topic that `role` publishes to. Services publish commands only.
pub fn parse_publish<'a>(role: &Role, topic: &'a str) -> Result<PublishTopic<'a>, TopicError> {
    let foreign = || TopicError::NotForPublish(excerpt(topic));
    let Role::Device(id) = role else {
        return admin::parse_command(topic).map(PublishTopic::Command).ok_or_else(foreign);
    };
    if let Some(rest) = own_topic(id, topic) {
        let bag = rest.strip_prefix("messages/events").and_then(|rest| telemetry_bag(id, rest));
        return bag.map(|bag| PublishTopic::Telemetry { bag }).ok_or_else(foreign);
    }
    let request_id = |query| request_id(query).ok_or_else(|| TopicError::NoRequestId(excerpt(topic)));
    if let Some(query) = topic.strip_prefix("$iothub/twin/GET/?") {
        return Ok(PublishTopic::TwinGet { rid: request_id(query)? });
    }
    if let Some(query) = topic.strip_prefix("$iothub/twin/PATCH/properties/reported/?") {
        return Ok(PublishTopic::TwinReported { rid: request_id(query)? });
    }
    if let Some((status, query)) =
        topic.strip_prefix("$iothub/methods/res/").and_then(|rest| rest.split_once("/?"))
        && !status.is_empty()
        && status.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return Ok(PublishTopic::MethodResponse { status, rid: request_id(query)? });
    }
    Err(foreign())
}

/// Parses a filter that `role` subscribes to.
pub fn parse_filter(role: &Role, text: &str) -> Result<Filter, TopicError> {
    let filter = match role {
        Role::Device(id) => parse_device_filter(id, text),
        Role::Service(rights) => parse_service_filter(*rights, text),
    };
    filter.ok_or_else(|| TopicError::NotForSubscribe(excerpt(text)))
}

fn parse_device_filter(id: &IdentityId, text: &str) -> Option<Filter> {
    match text {
        "$iothub/twin/res/#" => return Some(Filter::TwinResponses),
        "$iothub/twin/PATCH/properties/desired/#" => return Some(Filter::TwinDesired),
        "$iothub/methods/POST/#" => return Some(Filter::Methods),
        _ => {}
    }
    match (own_topic(id, text)?, &id.module) {
        ("messages/devicebound/#", _) => Some(Filter::C2d),
        // IoT Hub: Python, Node and Java subscribe to their inputs, the C and C# SDKs to everything of their module.
        ("inputs/#", Some(_)) => Some(Filter::Inputs),
        ("#", Some(_)) => Some(Filter::ModuleAll),
        _ => None,
    }
}

/// A service's filters depend on its rights. It may always subscribe to answers to its own commands.
fn parse_service_filter(rights: Rights, text: &str) -> Option<Filter> {
    let (filter, wanted) = match text {
        "$admin/res/#" => return Some(Filter::AdminAnswers(None)),
        // mosquitto_rr waits for its answer on one topic.
        _ if admin::is_answer_topic(text) => return Some(Filter::AdminAnswers(Some(text.into()))),
        FEEDBACK_TOPIC => (Filter::Feedback, Rights::SERVICE_CONNECT),
        _ if text.starts_with('$') => {
            (Filter::AdminEvents(admin::parse_admin_events_filter(text)?), Rights::REGISTRY_READ)
        }
        _ => (parse_events_filter(text)?, Rights::SERVICE_CONNECT),
    };
    rights.contains(wanted).then_some(filter)
}

fn parse_events_filter(text: &str) -> Option<Filter> {
    let sender = text.strip_prefix("devices/")?.strip_suffix("/messages/events/#")?;
    let Some((device, module)) = sender.split_once("/modules/") else {
        return Some(Filter::Events { device: any_or(sender, DeviceId::parse)?, modules: None });
    };
    let device = any_or(device, DeviceId::parse)?;
    let module = any_or(module, ModuleId::parse)?;
    // A module name across all devices has no use.
    if device.is_none() && module.is_some() {
        return None;
    }
    Some(Filter::Events { device, modules: Some(module) })
}

/// `+` means any, `Some(None)`. Any other text must be an id.
fn any_or<T, E>(level: &str, parse: fn(&str) -> Result<T, E>) -> Option<Option<T>> {
    if level == "+" { Some(None) } else { parse(level).ok().map(Some) }
}

/// The part after the identity's own prefix in a topic or filter.
fn own_topic<'a>(id: &IdentityId, text: &'a str) -> Option<&'a str> {
    let rest = text.strip_prefix("devices/")?.strip_prefix(id.device.as_str())?.strip_prefix('/')?;
    match &id.module {
        None => Some(rest),
        Some(module) => rest.strip_prefix("modules/")?.strip_prefix(module.as_str())?.strip_prefix('/'),
    }
}

/// The property bag of a telemetry topic, from the part after `messages/events`. The last slash may be missing. A
/// module's bag may end in a slash (IoT Hub: the Node SDK writes one after an output's name).
fn telemetry_bag<'a>(id: &IdentityId, rest: &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return Some(rest);
    }
    let bag = rest.strip_prefix('/')?;
    let bag = match bag.strip_suffix('/') {
        Some(before) if id.module.is_some() && !before.is_empty() => before,
        _ => bag,
    };
    if bag.contains('/') { None } else { Some(bag) }
}

/// The request id in the query of a topic, as written. The answer repeats it exactly.
fn request_id(query: &str) -> Option<&str> {
    let rid = query.split('&').find_map(|parameter| parameter.strip_prefix("$rid="))?;
    if rid.is_empty() || rid.len() > RID_BYTES_MAX { None } else { Some(rid) }
}

impl Filter {
    /// Whether a subscriber with this filter gets the telemetry of this sender.
    pub fn admits(&self, device: &str, module: Option<&str>) -> bool {
        let Filter::Events { device: wanted, modules } = self else { return false };
        let is_device = wanted.as_ref().is_none_or(|id| id.as_str() == device);
        let is_module = match (modules, module) {
            (None, None) => true,
            (Some(wanted), Some(own)) => wanted.as_ref().is_none_or(|id| id.as_str() == own),
            (None, Some(_)) | (Some(_), None) => false,
        };
        is_device && is_module
    }

    /// Whether a subscriber with this filter gets the answer to its own command on `topic`.
    pub fn admits_answer(&self, topic: &str) -> bool {
        matches!(self, Filter::AdminAnswers(wanted) if wanted.as_deref().is_none_or(|own| own == topic))
    }

    /// Whether the filter matches cloud-to-device messages.
    pub fn admits_c2d(&self) -> bool {
        matches!(self, Filter::C2d | Filter::ModuleAll)
    }
}

/// The topic of a cloud-to-device message. It holds the whole property bag, system properties first.
///
/// It always has `%24.to`, by which the C# and Java SDKs find the bag. Times have seven fraction digits, because C#
/// reads no others. Source: IoT Hub, "Communicate with IoT Hub using MQTT"; azure-iot-sdk-c and -csharp.
pub fn c2d_topic(id: &IdentityId, message: &C2dMessage) -> String {
    let mut topic = String::with_capacity(TOPIC_CAPACITY);
    write_own_prefix(&mut topic, id.device.as_str(), id.module.as_ref().map(ModuleId::as_str));
    topic.push_str("/messages/devicebound/");
    write_pair(&mut topic, bag::MESSAGE_ID, &message.message_id);
    match &message.to {
        Some(to) => write_pair(&mut topic, bag::TO, to),
        None => write_pair(&mut topic, bag::TO, &address(id)),
    }
    let optional = [
        (bag::CORRELATION_ID, &message.correlation_id),
        (bag::USER_ID, &message.user_id),
        (bag::CONTENT_TYPE, &message.content_type),
        (bag::CONTENT_ENCODING, &message.content_encoding),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            write_pair(&mut topic, name, value);
        }
    }
    write_pair(&mut topic, bag::EXPIRY, &round_trip_time(message.expiry));
    if message.ack != Ack::None {
        write_pair(&mut topic, bag::ACK, message.ack.as_str());
    }
    // A device trusts these names as the hub's own, so a sender must not set them.
    let is_own = |name: &str| name != bag::ACK && !name.starts_with(bag::SYSTEM_PREFIX);
    for (name, value) in message.properties.iter().filter(|(name, _)| is_own(name)) {
        write_pair(&mut topic, name, value);
    }
    topic
}

/// Whether a message's properties fit into a topic, with room for all that the hub adds.
pub fn c2d_fits(message: &NewC2d) -> bool {
    let system = [
        &message.message_id,
        &message.correlation_id,
        &message.user_id,
        &message.content_type,
        &message.content_encoding,
        &message.to,
    ];
    let system = system.into_iter().flatten().map(|value| encoded_bytes(value));
    // Every property also needs `&` and `=`.
    let application =
        message.properties.iter().map(|(name, value)| encoded_bytes(name) + encoded_bytes(value) + 2);
    system.chain(application).sum::<usize>() + TOPIC_BYTES_ADDED_MAX <= TOPIC_BYTES_MAX
}

fn encoded_bytes(text: &str) -> usize {
    utf8_percent_encode(text, ENCODED).map(str::len).sum()
}

/// The topic on which services receive telemetry: the sender's own, with the given bag, which is already encoded.
pub fn events_topic(device: &str, module: Option<&str>, bag: &str) -> String {
    let ids = device.len() + module.map_or(0, str::len);
    let mut topic = String::with_capacity(ids + bag.len() + EVENTS_WORDS_BYTES);
    write_own_prefix(&mut topic, device, module);
    topic.push_str("/messages/events/");
    topic.push_str(bag);
    topic
}

/// Where services see the telemetry of whom, and with which properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventsTopic<'a> {
    pub device: &'a str,
    pub module: Option<&'a str>,
    /// The property bag, percent-encoded.
    pub bag: &'a str,
}

impl<'a> EventsTopic<'a> {
    /// Reads a topic made by `events_topic`.
    pub fn parse(topic: &'a str) -> Option<Self> {
        let (device, rest) = topic.strip_prefix("devices/")?.split_once('/')?;
        let (module, rest) = match rest.strip_prefix("modules/") {
            Some(rest) => rest.split_once('/').map(|(module, rest)| (Some(module), rest))?,
            None => (None, rest),
        };
        let bag = rest.strip_prefix("messages/events/").filter(|bag| !bag.contains('/'))?;
        Some(Self { device, module, bag })
    }
}

/// What a service subscribes to for the telemetry of a device and its modules, or of all.
pub fn events_filters(device: Option<&DeviceId>) -> [String; 2] {
    let device = device.map_or("+", DeviceId::as_str);
    [format!("devices/{device}/messages/events/#"), format!("devices/{device}/modules/+/messages/events/#")]
}

/// The topic of an answer to a twin request.
pub fn twin_response_topic(status: u16, rid: &str) -> String {
    format!("$iothub/twin/res/{status}/?$rid={rid}")
}

fn write_own_prefix(topic: &mut String, device: &str, module: Option<&str>) {
    topic.push_str("devices/");
    topic.push_str(device);
    if let Some(module) = module {
        topic.push_str("/modules/");
        topic.push_str(module);
    }
}

/// The default destination of a message. IoT Hub percent-encodes the ids in it.
pub(crate) fn address(id: &IdentityId) -> String {
    let device = utf8_percent_encode(id.device.as_str(), ENCODED);
    match &id.module {
        None => format!("/devices/{device}/messages/devicebound"),
        Some(module) => {
            let module = utf8_percent_encode(module.as_str(), ENCODED);
            format!("/devices/{device}/modules/{module}/messages/devicebound")
        }
    }
}

/// .NET's round-trip form: `2024-05-01T08:15:30.0000000Z`.
pub(crate) fn round_trip_time(time: Timestamp) -> String {
    format!("{time:.7}")
}

/// The beginning of a topic, long enough to recognise it.
fn excerpt(topic: &str) -> String {
    topic.chars().take(EXCERPT_CHARACTERS).collect()
}

/// The topic of feedback on cloud-to-device messages.
pub const FEEDBACK_TOPIC: &str = "$admin/feedback";

/// The longest topic that MQTT can carry ([MQTT-1.5.3]).
const TOPIC_BYTES_MAX: usize = u16::MAX as usize;

/// SDKs use numbers or GUIDs.
const RID_BYTES_MAX: usize = 256;

const EXCERPT_CHARACTERS: usize = 160;

/// The longest ids in the topic and, encoded twice, in the address; a generated message id; names and times.
const TOPIC_BYTES_ADDED_MAX: usize = 2 * 1024;

/// Most topics of messages fit into this without growing.
const TOPIC_CAPACITY: usize = 384;

/// The length of a telemetry topic without ids and bag: `devices//modules//messages/events/`.
const EVENTS_WORDS_BYTES: usize = 34;

#[cfg(test)]
mod tests;
