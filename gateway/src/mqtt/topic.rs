//! Topic texts and filters, parsed once into values, and the topics the hub writes.
//!
//! A device has a fixed set of topics, its own; so has a service. Anything else is an error here and gets no further:
//! filters are compared as texts with the few that exist, never matched as wildcards (IoT Hub: "Communicate with IoT
//! Hub using MQTT"). Ids stand in topics as they are; everything in a property bag is percent-encoded.

use jiff::Timestamp;
use percent_encoding::utf8_percent_encode;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::message::{Ack, C2dMessage};

use super::bag::{ENCODED, write_pair};

/// On whose behalf a connection publishes and subscribes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// A device or a module.
    Device(IdentityId),
    /// A service that holds a policy; it has no identity.
    Service,
}

/// A topic a peer may publish to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishTopic<'a> {
    /// The property bag is percent-encoded, as received.
    Telemetry { bag: &'a str },
    /// A wish for the twin, to be answered under the request id.
    TwinGet { rid: &'a str },
    /// A change of the twin's reported properties.
    TwinReported { rid: &'a str },
    /// The answer to a direct method; the status is the device's own.
    MethodResponse { status: &'a str, rid: &'a str },
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
    /// Telemetry, for services only. `device` absent: of every device. `modules` absent: what devices send
    /// themselves; `Some(None)`: what any of their modules sends; `Some(Some(_))`: what that module sends.
    Events { device: Option<DeviceId>, modules: Option<Option<ModuleId>> },
}

/// Why a topic or filter is not one for this peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("{0:?} is no topic this peer may publish to")]
    NotForPublish(String),
    #[error("{0:?} is no filter this peer may subscribe to")]
    NotForSubscribe(String),
    #[error("{0:?} has no request id of 1 to {RID_BYTES_MAX} bytes")]
    NoRequestId(String),
}

/// Reads a topic `role` publishes to. Services publish nowhere.
pub fn parse_publish<'a>(role: &Role, topic: &'a str) -> Result<PublishTopic<'a>, TopicError> {
    let foreign = || TopicError::NotForPublish(excerpt(topic));
    let Role::Device(id) = role else { return Err(foreign()) };
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
    if let Some((status, query)) = topic.strip_prefix("$iothub/methods/res/").and_then(|rest| rest.split_once("/?"))
        && !status.is_empty()
        && status.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return Ok(PublishTopic::MethodResponse { status, rid: request_id(query)? });
    }
    Err(foreign())
}

/// Reads a filter `role` subscribes to.
pub fn parse_filter(role: &Role, text: &str) -> Result<Filter, TopicError> {
    let filter = match role {
        Role::Device(id) => parse_device_filter(id, text),
        Role::Service => parse_events_filter(text),
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
        // IoT Hub: Python, Node and Java ask for their inputs, the C and C# SDKs for everything of their module.
        ("inputs/#", Some(_)) => Some(Filter::Inputs),
        ("#", Some(_)) => Some(Filter::ModuleAll),
        _ => None,
    }
}

fn parse_events_filter(text: &str) -> Option<Filter> {
    let (senders, "messages/events/#") = text.strip_prefix("devices/")?.split_at_checked(text.find("/messages/")? - 7)?
    else {
        return None;
    };
    let _ = senders;
    None
}

/// What follows the identity's own prefix in a topic or filter.
fn own_topic<'a>(id: &IdentityId, text: &'a str) -> Option<&'a str> {
    let rest = text.strip_prefix("devices/")?.strip_prefix(id.device.as_str())?.strip_prefix('/')?;
    match &id.module {
        None => Some(rest),
        Some(module) => rest.strip_prefix("modules/")?.strip_prefix(module.as_str())?.strip_prefix('/'),
    }
}
