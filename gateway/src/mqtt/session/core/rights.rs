//! Which right of an access list a device needs for a topic or filter. What is for services needs none of these.

use portcullis_registry::access::Right;

use crate::iothub::topic::{Filter, PublishTopic};

pub(super) fn to_publish(topic: &PublishTopic<'_>) -> Option<Right> {
    match topic {
        PublishTopic::Telemetry { .. } => Some(Right::Telemetry),
        PublishTopic::TwinGet { .. } | PublishTopic::TwinReported { .. } => Some(Right::Twin),
        PublishTopic::MethodResponse { .. } => Some(Right::Methods),
        PublishTopic::Command(_) => None,
    }
}

pub(super) fn to_subscribe(filter: &Filter) -> Option<Right> {
    match filter {
        Filter::C2d | Filter::Inputs | Filter::ModuleAll => Some(Right::C2d),
        Filter::TwinResponses | Filter::TwinDesired => Some(Right::Twin),
        Filter::Methods => Some(Right::Methods),
        Filter::Events { .. } | Filter::Feedback | Filter::AdminAnswers(_) | Filter::AdminEvents(_) => None,
    }
}
