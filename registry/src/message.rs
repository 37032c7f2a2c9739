//! A cloud-to-device message: what its sender gives, what is kept of it, and what becomes of it.

use bytes::Bytes;
use jiff::Timestamp;

use crate::id::GenerationId;

/// Of which outcomes the sender wants feedback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// Of none.
    #[default]
    None,
    /// Of completion.
    Positive,
    /// Of every outcome but completion.
    Negative,
    /// Of every outcome.
    Full,
}

/// What finally became of a message; each has exactly one.
///
/// Source: IoT Hub, "Send cloud-to-device messages", life cycle of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The device has it.
    Completed,
    /// The device refused it for good.
    Rejected,
    /// The device did not complete it in time.
    Expired,
    /// The device gave it back as often as is allowed.
    DeliveryCountExceeded,
    /// An operator emptied the queue.
    Purged,
}

/// A message as its sender gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewC2d {
    /// Made up when absent.
    pub message_id: Option<String>,
    /// Ties an answer to a request; the applications' own.
    pub correlation_id: Option<String>,
    /// Who sent it; the applications' own.
    pub user_id: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The encoding of the body.
    pub content_encoding: Option<String>,
    /// `/devices/{id}/messages/devicebound` when absent.
    pub to: Option<String>,
    /// Which outcomes the sender wants feedback of.
    pub ack: Ack,
    /// The hub's default time to live when absent.
    pub expiry: Option<Timestamp>,
    /// The application's properties, in order.
    pub properties: Vec<(String, String)>,
    /// Counts with the properties against [`RegistryLimits::c2d_bytes_max`](crate::store::RegistryLimits).
    pub body: Bytes,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct C2dMessage {
    /// Its number: later messages have greater ones, and no message ever has another's.
    pub number: u64,
    /// The generation it was addressed to; no other ever gets it.
    pub generation: GenerationId,
    /// When it was accepted.
    pub enqueued: Timestamp,
    /// From then on it is not delivered.
    pub expiry: Timestamp,
    /// The sender's id of it, or a random one.
    pub message_id: String,
    /// Ties an answer to a request; the applications' own.
    pub correlation_id: Option<String>,
    /// Who sent it; the applications' own.
    pub user_id: Option<String>,
    /// The media type of the body.
    pub content_type: Option<String>,
    /// The encoding of the body.
    pub content_encoding: Option<String>,
    /// The address the sender gave, if any.
    pub to: Option<String>,
    /// Which outcomes the sender wants feedback of.
    pub ack: Ack,
    /// The application's properties, in order.
    pub properties: Vec<(String, String)>,
    /// The content.
    pub body: Bytes,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 5] = [
        Outcome::Completed,
        Outcome::Rejected,
        Outcome::Expired,
        Outcome::DeliveryCountExceeded,
        Outcome::Purged,
    ];
}

impl Ack {
    /// The value of `iothub-ack`.
    pub fn as_str(self) -> &'static str {
        match self {
            Ack::None => "none",
            Ack::Positive => "positive",
            Ack::Negative => "negative",
            Ack::Full => "full",
        }
    }

    /// Whether the sender wants feedback of this outcome.
    pub fn wants(self, outcome: Outcome) -> bool {
        match self {
            Ack::None => false,
            Ack::Positive => outcome == Outcome::Completed,
            Ack::Negative => outcome != Outcome::Completed,
            Ack::Full => true,
        }
    }
}

impl NewC2d {
    /// Body and properties together, in bytes: what IoT Hub's 64 KiB bound counts.
    pub fn size(&self) -> usize {
        let system = [
            &self.message_id,
            &self.correlation_id,
            &self.user_id,
            &self.content_type,
            &self.content_encoding,
            &self.to,
        ];
        let system: usize = system.into_iter().flatten().map(String::len).sum();
        let application: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + system + application
    }
}

impl C2dMessage {
    pub(crate) fn new(
        message: NewC2d,
        number: u64,
        generation: GenerationId,
        enqueued: Timestamp,
        expiry: Timestamp,
    ) -> Self {
        Self {
            number,
            generation,
            enqueued,
            expiry,
            message_id: message.message_id.unwrap_or_else(random_message_id),
            correlation_id: message.correlation_id,
            user_id: message.user_id,
            content_type: message.content_type,
            content_encoding: message.content_encoding,
            to: message.to,
            ack: message.ack,
            properties: message.properties,
            body: message.body,
        }
    }

    /// What the message costs in memory, roughly, in bytes.
    pub(crate) fn memory(&self) -> usize {
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + properties + size_of::<Self>()
    }
}

/// A random id in the form of a GUID.
fn random_message_id() -> String {
    let hex: String = crate::random_bytes::<16>().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
