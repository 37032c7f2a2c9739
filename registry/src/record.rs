//! What is written down: versioned records of identities, messages and feedback, apart from the domain values on purpose.
//!
//! To change a record: add a version to its enum, write that one, and keep reading the old ones.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::backend::StoreError;
use crate::credential::{KeyPair, SymmetricKey, Thumbprint, ThumbprintPair};
use crate::feedback::Feedback;
use crate::id::{GenerationId, IdentityId, Revision};
use crate::identity::{Authentication, Identity, Status};
use crate::message::{Ack, C2dMessage, Outcome};
use crate::queue_max::QueueMax;

#[derive(Serialize, Deserialize)]
enum IdentityRecord {
    V1(IdentityV1),
    V2 {
        identity: IdentityV1,
        /// The entries of the access list, if there is one.
        allow: Option<Vec<String>>,
    },
    V3 {
        identity: IdentityV1,
        allow: Option<Vec<String>>,
        /// How many messages may wait, where that is not the hub's own number.
        queue_max: Option<u16>,
    },
}

#[derive(Serialize, Deserialize)]
struct IdentityV1 {
    disabled: bool,
    status_reason: Option<String>,
    status_updated_ns: Option<i128>,
    authentication: AuthenticationV1,
    iot_edge: bool,
    managed_by: Option<String>,
}

#[derive(Serialize, Deserialize)]
enum AuthenticationV1 {
    Sas { primary: Vec<u8>, secondary: Vec<u8> },
    SelfSigned { primary: Option<String>, secondary: Option<String> },
    CertificateAuthority,
    None,
}

#[derive(Serialize, Deserialize)]
enum MessageRecord {
    V1(MessageV1),
}

#[derive(Serialize, Deserialize)]
struct MessageV1 {
    enqueued_ns: i128,
    expiry_ns: i128,
    message_id: String,
    correlation_id: Option<String>,
    user_id: Option<String>,
    content_type: Option<String>,
    content_encoding: Option<String>,
    to: Option<String>,
    ack: u8,
    properties: Vec<(String, String)>,
    body: bytes::Bytes,
}

#[derive(Serialize, Deserialize)]
enum FeedbackRecord {
    V1(FeedbackV1),
}

#[derive(Serialize, Deserialize)]
struct FeedbackV1 {
    generation: u64,
    message_id: String,
    outcome: u8,
    at_ns: i128,
}

/// An identity as it is stored; id, generation and revision are in columns of their own.
pub(crate) fn encode_identity(identity: &Identity) -> Vec<u8> {
    let allow = identity.access.to_entries();
    let queue_max = identity.queue_max.map(QueueMax::get);
    let identity = IdentityV1 {
        disabled: identity.status == Status::Disabled,
        status_reason: identity.status_reason.clone(),
        status_updated_ns: identity.status_updated.map(Timestamp::as_nanosecond),
        authentication: match &identity.authentication {
            Authentication::Sas(keys) => AuthenticationV1::Sas {
                primary: keys.primary.as_bytes().to_vec(),
                secondary: keys.secondary.as_bytes().to_vec(),
            },
            Authentication::SelfSigned(pair) => AuthenticationV1::SelfSigned {
                primary: pair.primary.as_ref().map(ToString::to_string),
                secondary: pair.secondary.as_ref().map(ToString::to_string),
            },
            Authentication::CertificateAuthority => AuthenticationV1::CertificateAuthority,
            Authentication::None => AuthenticationV1::None,
        },
        iot_edge: identity.iot_edge,
        managed_by: identity.managed_by.as_deref().map(str::to_owned),
    };
    postcard::to_stdvec(&IdentityRecord::V3 { identity, allow, queue_max })
        .expect("writing to memory cannot fail")
}

/// The identity a record holds.
pub(crate) fn decode_identity(
    id: &IdentityId,
    generation: GenerationId,
    revision: Revision,
    record: &[u8],
) -> Result<Identity, StoreError> {
    let unreadable = || StoreError::Fatal(format!("the record of identity {id} cannot be read"));
    let (v1, allow, queue_max) = match postcard::from_bytes(record).map_err(|_| unreadable())? {
        IdentityRecord::V1(v1) => (v1, None, None),
        IdentityRecord::V2 { identity, allow } => (identity, allow, None),
        IdentityRecord::V3 { identity, allow, queue_max } => (identity, allow, queue_max),
    };
    Ok(Identity {
        id: id.clone(),
        generation,
        revision,
        status: if v1.disabled { Status::Disabled } else { Status::Enabled },
        status_reason: v1.status_reason,
        status_updated: v1
            .status_updated_ns
            .map(Timestamp::from_nanosecond)
            .transpose()
            .map_err(|_| unreadable())?,
        authentication: decode_authentication(v1.authentication).ok_or_else(unreadable)?,
        iot_edge: v1.iot_edge,
        managed_by: v1.managed_by.map(Into::into),
        access: allow.map_or(Ok(Access::EVERYTHING), Access::parse).map_err(|_| unreadable())?,
        queue_max: queue_max.map(|bound| QueueMax::new(bound.into()).ok_or_else(unreadable)).transpose()?,
    })
}

fn decode_authentication(stored: AuthenticationV1) -> Option<Authentication> {
    let thumbprint = |text: Option<String>| text.map(|text| Thumbprint::parse(&text)).transpose().ok();
    Some(match stored {
        AuthenticationV1::Sas { primary, secondary } => Authentication::Sas(KeyPair {
            primary: SymmetricKey::from_bytes(primary).ok()?,
            secondary: SymmetricKey::from_bytes(secondary).ok()?,
        }),
        AuthenticationV1::SelfSigned { primary, secondary } => Authentication::SelfSigned(ThumbprintPair {
            primary: thumbprint(primary)?,
            secondary: thumbprint(secondary)?,
        }),
        AuthenticationV1::CertificateAuthority => Authentication::CertificateAuthority,
        AuthenticationV1::None => Authentication::None,
    })
}

/// A message as it is stored; its number and generation are in columns of their own.
pub(crate) fn encode_message(message: &C2dMessage) -> Vec<u8> {
    let record = MessageRecord::V1(MessageV1 {
        enqueued_ns: message.enqueued.as_nanosecond(),
        expiry_ns: message.expiry.as_nanosecond(),
        message_id: message.message_id.clone(),
        correlation_id: message.correlation_id.clone(),
        user_id: message.user_id.clone(),
        content_type: message.content_type.clone(),
        content_encoding: message.content_encoding.clone(),
        to: message.to.clone(),
        ack: match message.ack {
            Ack::None => 0,
            Ack::Positive => 1,
            Ack::Negative => 2,
            Ack::Full => 3,
        },
        properties: message.properties.clone(),
        body: message.body.clone(),
    });
    postcard::to_stdvec(&record).expect("writing to memory cannot fail")
}

/// The message a record holds.
pub(crate) fn decode_message(
    to: &IdentityId,
    number: u64,
    generation: GenerationId,
    record: &[u8],
) -> Result<C2dMessage, StoreError> {
    let unreadable = || StoreError::Fatal(format!("the record of message {number} to {to} cannot be read"));
    let MessageRecord::V1(v1) = postcard::from_bytes(record).map_err(|_| unreadable())?;
    Ok(C2dMessage {
        number,
        generation,
        enqueued: Timestamp::from_nanosecond(v1.enqueued_ns).map_err(|_| unreadable())?,
        expiry: Timestamp::from_nanosecond(v1.expiry_ns).map_err(|_| unreadable())?,
        message_id: v1.message_id,
        correlation_id: v1.correlation_id,
        user_id: v1.user_id,
        content_type: v1.content_type,
        content_encoding: v1.content_encoding,
        to: v1.to,
        ack: match v1.ack {
            0 => Ack::None,
            1 => Ack::Positive,
            2 => Ack::Negative,
            3 => Ack::Full,
            _ => return Err(unreadable()),
        },
        properties: v1.properties,
        body: v1.body,
    })
}

/// Feedback as it is stored; the identity it is about is in a column of its own.
pub(crate) fn encode_feedback(feedback: &Feedback) -> Vec<u8> {
    let record = FeedbackRecord::V1(FeedbackV1 {
        generation: feedback.generation.number(),
        message_id: feedback.message_id.clone(),
        outcome: match feedback.outcome {
            Outcome::Completed => 0,
            Outcome::Rejected => 1,
            Outcome::Expired => 2,
            Outcome::DeliveryCountExceeded => 3,
            Outcome::Purged => 4,
        },
        at_ns: feedback.at.as_nanosecond(),
    });
    postcard::to_stdvec(&record).expect("writing to memory cannot fail")
}

/// The feedback a record holds.
pub(crate) fn decode_feedback(device: &IdentityId, record: &[u8]) -> Result<Feedback, StoreError> {
    let unreadable = || StoreError::Fatal(format!("the record of feedback on {device} cannot be read"));
    let FeedbackRecord::V1(v1) = postcard::from_bytes(record).map_err(|_| unreadable())?;
    Ok(Feedback {
        device: device.clone(),
        generation: GenerationId::new(v1.generation),
        message_id: v1.message_id,
        outcome: match v1.outcome {
            0 => Outcome::Completed,
            1 => Outcome::Rejected,
            2 => Outcome::Expired,
            3 => Outcome::DeliveryCountExceeded,
            4 => Outcome::Purged,
            _ => return Err(unreadable()),
        },
        at: Timestamp::from_nanosecond(v1.at_ns).map_err(|_| unreadable())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DeviceId;

    fn decode(record: &[u8]) -> Result<Identity, StoreError> {
        let id = IdentityId::device(DeviceId::parse("d1").unwrap());
        decode_identity(&id, GenerationId::new(7), Revision::new(9), record)
    }

    /// A disabled device with a reason and the iotEdge flag that authenticates by nothing.
    const IDENTITY_V1: &[u8] = b"\x01\x01\x06broken\x00\x03\x01\x00";

    #[test]
    fn a_record_of_an_earlier_version_is_an_identity_without_what_that_did_not_know() {
        let identity = decode(&[b"\x00", IDENTITY_V1].concat()).unwrap();
        assert_eq!((identity.status, identity.status_reason.as_deref()), (Status::Disabled, Some("broken")));
        assert_eq!((&identity.authentication, identity.iot_edge), (&Authentication::None, true));
        assert_eq!((&identity.access, identity.queue_max), (&Access::EVERYTHING, None));
        let second = [b"\x01", IDENTITY_V1, b"\x01\x01\x03c2d"].concat();
        let second = decode(&second).unwrap();
        assert_eq!((&second.access, second.queue_max), (&Access::parse(["c2d"]).unwrap(), None));
        // Written again it is of the version of today, with nothing changed.
        let written = encode_identity(&identity);
        assert_eq!(written, [b"\x02", IDENTITY_V1, b"\x00\x00"].concat());
        assert_eq!(decode(&written).unwrap(), identity);
    }

    #[test]
    fn an_access_list_comes_back_as_it_was() {
        let list = &b"\x01\x02\x03c2d\x0emethods:reboot"[..];
        let record = [b"\x02", IDENTITY_V1, list, b"\x00"].concat();
        let identity = decode(&record).unwrap();
        assert_eq!(identity.access, Access::parse(["methods:reboot", "c2d"]).unwrap());
        assert_eq!(encode_identity(&identity), record);
        let nothing = Identity { access: Access::parse([""; 0]).unwrap(), ..identity };
        assert_eq!(decode(&encode_identity(&nothing)).unwrap(), nothing);
    }

    #[test]
    fn a_bound_of_the_queue_comes_back_as_it_was() {
        let record = [b"\x02", IDENTITY_V1, b"\x00\x01\xe8\x07"].concat();
        let identity = decode(&record).unwrap();
        assert_eq!(identity.queue_max, QueueMax::new(1_000));
        assert_eq!(encode_identity(&identity), record);
    }

    #[test]
    fn t905_a_record_whose_end_cannot_be_read_is_no_identity() {
        for (version, rest) in [
            (b"\x01", &b"\x01\x01\x08anything"[..]),
            (b"\x01", b"\x01\x02\x03c2d"),
            (b"\x01", b""),
            (b"\x02", b"\x00"),
            (b"\x02", b"\x00\x01\x00"),
            (b"\x02", b"\x00\x01\x91\x4e"),
            (b"\x03", b"\x00\x00"),
        ] {
            assert!(decode(&[version, IDENTITY_V1, rest].concat()).is_err(), "{rest:?}");
        }
    }
}
