//! Device to cloud: all telemetry enters here. Stamps the verified sender on each message and puts it on the bus. The
//! session sends the PUBACK after this has returned.

use bytes::Bytes;
use jiff::Timestamp;
use portcullis_registry::access::{AccessDenied, Right};

use crate::auth::VerifiedIdentity;
use crate::hub::Hub;
use crate::hub::bus::{BusStopped, Telemetry};
use crate::hub::metrics::Scope;
use crate::iothub::message_properties::bag;
use crate::iothub::property_bag::{BagError, PropertyBag};

/// A device's message, as far as the session has parsed it.
#[derive(Clone, Debug)]
pub struct Incoming<'a> {
    /// The last topic segment, percent-encoded as received.
    pub bag: &'a str,
    pub payload: Bytes,
    pub retain: bool,
    /// Whether this is the last will of a lost connection.
    pub will: bool,
}

/// Why a message was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Denied(#[from] AccessDenied),
    #[error("property bag: {0}")]
    Bag(#[from] BagError),
    #[error(transparent)]
    Bus(#[from] BusStopped),
}

/// Accepts one message of `sender`. When this returns `Ok` the bus has it (threats P5). Waits while the bus is full.
///
/// Source: IoT Hub, "Create and read IoT Hub messages" for the names of the stamp.
pub async fn accept(hub: &Hub, sender: &VerifiedIdentity, incoming: Incoming<'_>) -> Result<(), IngestError> {
    sender.check(Right::Telemetry)?;
    let properties = PropertyBag::parse(incoming.bag)?;
    let bag = stamped(sender, &properties, &incoming, hub.clock.wall());
    let id = sender.id();
    hub.metrics.received(incoming.payload.len());
    hub.bus
        .publish(Telemetry {
            device: id.device.as_str().to_owned(),
            module: id.module.as_ref().map(|module| module.as_str().to_owned()),
            bag,
            payload: incoming.payload,
        })
        .await?;
    Ok(())
}

/// The encoded properties, with those that only the hub sets. The parser has dropped properties of these names that the
/// sender wrote.
fn stamped(
    sender: &VerifiedIdentity,
    properties: &PropertyBag,
    incoming: &Incoming<'_>,
    now: Timestamp,
) -> String {
    let (generation, now) = (sender.generation().to_string(), now.to_string());
    let mut stamp = Vec::with_capacity(STAMP_MAX);
    stamp.push((bag::CONNECTION_DEVICE_ID, sender.id().device.as_str()));
    if let Some(module) = &sender.id().module {
        stamp.push((bag::CONNECTION_MODULE_ID, module.as_str()));
    }
    stamp.push((bag::CONNECTION_AUTH_METHOD, sender.credential().auth_method()));
    stamp.push((bag::CONNECTION_AUTH_GENERATION_ID, &generation));
    stamp.push((bag::ENQUEUED_TIME, &now));
    if incoming.will {
        stamp.push((bag::MESSAGE_TYPE, bag::WILL));
    }
    if incoming.retain {
        // IoT Hub: RETAIN is never kept; it is passed on as a property.
        stamp.push((bag::RETAIN, "true"));
    }
    properties.encode_with(&stamp)
}

/// Whether a device may post so many messages now, by what it may post in a second; if not, that is counted. A session
/// bounds its own rate by reading no faster.
pub fn may_post(hub: &Hub, sender: &VerifiedIdentity, messages: usize) -> bool {
    let messages = u32::try_from(messages).unwrap_or(u32::MAX);
    let may = hub.posted.spend_many(sender.id().clone(), messages, hub.clock.now().monotonic);
    if !may {
        hub.metrics.throttled(Scope::Messages);
    }
    may
}

/// Properties of a stamp.
const STAMP_MAX: usize = 7;
