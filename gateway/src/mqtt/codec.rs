//! Packets to bytes and back, strictly by MQTT 3.1.1.
//!
//! Whatever is wrong is refused as soon as the bytes that show it are there: a wrong type or flag at the first
//! byte, a length at the length. Nothing is reserved by what a peer claims. Topic and payload of a PUBLISH share the
//! read buffer; acknowledgements cost no allocation. Rules that need a session are left to `session::core`.

use bytes::{Buf, Bytes, BytesMut};

use super::packet::{
    Connect, ConnectReturnCode, InvalidText, Packet, Password, Publish, QoS, SUBSCRIPTION_REFUSED, Subscribe,
    Unsubscribe, Utf8Bytes, Will,
};

pub use encode::encode;

mod encode;

/// Whose packets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Client,
    Server,
}

/// How large packets may be, and which are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketLimits {
    stage: DecodeStage,
    packet_bytes_max: usize,
    payload_bytes_max: usize,
}

/// Where in its life a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DecodeStage {
    /// Only CONNECT may come.
    First,
    /// Everything but CONNECT may come.
    Later,
}

/// Why bytes are no packet that may come now. Every one of them ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("packet type {0} is reserved")]
    ReservedType(u8),
    #[error("{0} may not come from this side")]
    WrongSide(&'static str),
    #[error("the first packet is {0}, not CONNECT")]
    NotConnect(&'static str),
    #[error("the peer sent a second CONNECT")]
    SecondConnect,
    #[error("flags {flags:#06b} are not allowed in {packet}")]
    Flags { packet: &'static str, flags: u8 },
    #[error("quality of service 3 does not exist")]
    QoS,
    #[error("DUP is set on a message of quality of service 0")]
    DupWithoutId,
    #[error("the remaining length has more than 4 bytes, or more than it needs")]
    RemainingLength,
    #[error("{packet} has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge { packet: &'static str, bytes: usize, bytes_max: usize },
    #[error("the payload has {bytes} bytes; at most {bytes_max} are allowed")]
    PayloadTooLarge { bytes: usize, bytes_max: usize },
    #[error("{packet} has a remaining length of {bytes}")]
    WrongLength { packet: &'static str, bytes: usize },
    #[error("the packet ends before its fields do")]
    Missing,
    #[error("the packet goes on for {0} bytes after its last field")]
    Surplus(usize),
    #[error("the packet id is 0; MQTT allows 1 to 65535")]
    PacketIdZero,
    #[error("text in a packet: {0}")]
    Text(#[from] InvalidText),
    #[error("a topic may not be empty")]
    EmptyTopic,
    #[error("a topic to publish to may not have + or #")]
    TopicWildcard,
    #[error("no filter is asked for")]
    NoFilter,
    #[error("the protocol is not MQTT")]
    ProtocolName,
    #[error("this hub does not speak MQTT 5")]
    Version5,
    #[error("this hub does not speak protocol level {0}")]
    ProtocolLevel(u8),
    #[error("connect flags {0:#010b} are not allowed")]
    ConnectFlags(u8),
    #[error("the client id is empty")]
    EmptyClientId,
    #[error("code {0:#04x} means nothing in this packet")]
    Code(u8),
}

impl PacketLimits {
    /// Before the peer is known: CONNECT and nothing else, of at most `connect_bytes_max` bytes.
    pub fn before_connect(connect_bytes_max: usize) -> Self {
        Self { stage: DecodeStage::First, packet_bytes_max: connect_bytes_max, payload_bytes_max: 0 }
    }

    /// After CONNECT: whole packets of at most `packet_bytes_max`, payloads of at most `payload_bytes_max` bytes.
    pub fn after_connect(packet_bytes_max: usize, payload_bytes_max: usize) -> Self {
        Self { stage: DecodeStage::Later, packet_bytes_max, payload_bytes_max }
    }

    fn bytes_max(&self, kind: PacketKind) -> usize {
        match kind {
            PacketKind::Connect | PacketKind::Publish => self.packet_bytes_max,
            _ => self.packet_bytes_max.min(SMALL_PACKET_BYTES_MAX),
        }
    }
}

impl DecodeError {
    /// What the peer hears before the connection ends, for the few errors that have an answer.
    pub fn answer(&self) -> Option<&'static [u8]> {
        match self {
            // [MQTT-3.1.2-2]
            DecodeError::ProtocolLevel(_) => {
                Some(&[0x20, 2, 0, ConnectReturnCode::UnacceptableProtocol as u8])
            }
            // Source: MQTT 5.0, 3.2.2.2, reason code 0x84; the only place where we speak version 5.
            DecodeError::Version5 => Some(&[0x20, 3, 0, 0x84, 0]),
            // [MQTT-3.1.3-8]; with clean session too, since nobody is nameless here (threats T207).
            DecodeError::EmptyClientId => Some(&[0x20, 2, 0, ConnectReturnCode::IdentifierRejected as u8]),
            _ => None,
        }
    }
}

/// Takes the next packet out of `buf`, or says that more bytes are needed (`None`) or that no bytes can help.
pub fn decode(buf: &mut BytesMut, limits: &PacketLimits, from: Side) -> Result<Option<Packet>, DecodeError> {
    let Some(&first) = buf.first() else { return Ok(None) };
    let kind = PacketKind::parse(first, limits, from)?;
    let Some((remaining, header_bytes)) = remaining_length(&buf[1..])? else { return Ok(None) };
    let header_bytes = header_bytes + 1;
    check_length(kind, header_bytes, remaining, limits)?;
    if kind == PacketKind::Publish {
        check_publish_lengths(&buf[header_bytes..], first, remaining, limits)?;
    }
    if buf.len() < header_bytes + remaining {
        return Ok(None);
    }
    buf.advance(header_bytes);
    let packet = match kind {
        PacketKind::Publish => decode_publish(first, buf.split_to(remaining).freeze())?,
        PacketKind::Subscribe => decode_subscribe(buf.split_to(remaining).freeze())?,
        PacketKind::Unsubscribe => decode_unsubscribe(buf.split_to(remaining).freeze())?,
        PacketKind::Connect => decode_connect(buf.split_to(remaining).freeze())?,
        PacketKind::ConnAck => decode_connack(buf.get_u8(), buf.get_u8())?,
        PacketKind::SubAck => decode_suback(buf.split_to(remaining).freeze())?,
        PacketKind::PubAck => Packet::PubAck(packet_id(buf.get_u16())?),
        PacketKind::PubRec => Packet::PubRec(packet_id(buf.get_u16())?),
        PacketKind::PubRel => Packet::PubRel(packet_id(buf.get_u16())?),
        PacketKind::PubComp => Packet::PubComp(packet_id(buf.get_u16())?),
        PacketKind::UnsubAck => Packet::UnsubAck(packet_id(buf.get_u16())?),
        PacketKind::PingReq => Packet::PingReq,
        PacketKind::PingResp => Packet::PingResp,
        PacketKind::Disconnect => Packet::Disconnect,
    };
    Ok(Some(packet))
}

/// The packet types, by the upper half of the first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PacketKind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
}

impl PacketKind {
    /// The type of a first byte, if it may come now from this side with these flags.
    fn parse(first: u8, limits: &PacketLimits, from: Side) -> Result<Self, DecodeError> {
        let kind = Self::of(first)?;
        let is_right_side = match from {
            Side::Client => kind.client_sends(),
            Side::Server => kind.server_sends(),
        };
        if !is_right_side {
            return Err(DecodeError::WrongSide(kind.name()));
        }
        match (limits.stage, kind) {
            (DecodeStage::First, PacketKind::Connect) => {}
            // [MQTT-3.1.0-1]
            (DecodeStage::First, other) => return Err(DecodeError::NotConnect(other.name())),
            // [MQTT-3.1.0-2]
            (DecodeStage::Later, PacketKind::Connect) => return Err(DecodeError::SecondConnect),
            (DecodeStage::Later, _) => {}
        }
        kind.check_flags(first & 0x0F)?;
        Ok(kind)
    }

    fn of(first: u8) -> Result<Self, DecodeError> {
        match first >> 4 {
            1 => Ok(PacketKind::Connect),
            2 => Ok(PacketKind::ConnAck),
            3 => Ok(PacketKind::Publish),
            4 => Ok(PacketKind::PubAck),
            5 => Ok(PacketKind::PubRec),
            6 => Ok(PacketKind::PubRel),
            7 => Ok(PacketKind::PubComp),
            8 => Ok(PacketKind::Subscribe),
            9 => Ok(PacketKind::SubAck),
            10 => Ok(PacketKind::Unsubscribe),
            11 => Ok(PacketKind::UnsubAck),
            12 => Ok(PacketKind::PingReq),
            13 => Ok(PacketKind::PingResp),
            14 => Ok(PacketKind::Disconnect),
            reserved => Err(DecodeError::ReservedType(reserved)),
        }
    }

    /// Source: MQTT 3.1.1, table 2.1, direction of flow.
    fn client_sends(self) -> bool {
        !matches!(
            self,
            PacketKind::ConnAck | PacketKind::SubAck | PacketKind::UnsubAck | PacketKind::PingResp
        )
    }

    fn server_sends(self) -> bool {
        !matches!(
            self,
            PacketKind::Connect
                | PacketKind::Subscribe
                | PacketKind::Unsubscribe
                | PacketKind::PingReq
                | PacketKind::Disconnect
        )
    }

    /// [MQTT-2.2.2-2]: flags other than those of table 2.2 end the connection.
    fn check_flags(self, flags: u8) -> Result<(), DecodeError> {
        match self {
            PacketKind::Publish => match QoS::parse(flags >> 1 & 0b11) {
                None => Err(DecodeError::QoS),
                // [MQTT-3.3.1-2]
                Some(QoS::AtMostOnce) if flags & 0b1000 != 0 => Err(DecodeError::DupWithoutId),
                Some(_) => Ok(()),
            },
            PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe if flags == 0b0010 => Ok(()),
            PacketKind::PubRel | PacketKind::Subscribe | PacketKind::Unsubscribe => {
                Err(DecodeError::Flags { packet: self.name(), flags })
            }
            _ if flags == 0 => Ok(()),
            _ => Err(DecodeError::Flags { packet: self.name(), flags }),
        }
    }

    /// The remaining length of the types that have a fixed one.
    fn fixed_length(self) -> Option<usize> {
        match self {
            PacketKind::Connect
            | PacketKind::Publish
            | PacketKind::Subscribe
            | PacketKind::SubAck
            | PacketKind::Unsubscribe => None,
            PacketKind::ConnAck
            | PacketKind::PubAck
            | PacketKind::PubRec
            | PacketKind::PubRel
            | PacketKind::PubComp
            | PacketKind::UnsubAck => Some(2),
            PacketKind::PingReq | PacketKind::PingResp | PacketKind::Disconnect => Some(0),
        }
    }

    fn name(self) -> &'static str {
        match self {
            PacketKind::Connect => "CONNECT",
            PacketKind::ConnAck => "CONNACK",
            PacketKind::Publish => "PUBLISH",
            PacketKind::PubAck => "PUBACK",
            PacketKind::PubRec => "PUBREC",
            PacketKind::PubRel => "PUBREL",
            PacketKind::PubComp => "PUBCOMP",
            PacketKind::Subscribe => "SUBSCRIBE",
            PacketKind::SubAck => "SUBACK",
            PacketKind::Unsubscribe => "UNSUBSCRIBE",
            PacketKind::UnsubAck => "UNSUBACK",
            PacketKind::PingReq => "PINGREQ",
            PacketKind::PingResp => "PINGRESP",
            PacketKind::Disconnect => "DISCONNECT",
        }
    }
}

/// The remaining length and how many bytes it took, once they are all there. Source: MQTT 3.1.1, 2.2.3; a length
/// written with more bytes than it needs is refused, as MQTT 5 demands ([MQTT5-1.5.5-1]).
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            let is_padded = index > 0 && *byte == 0;
            return if is_padded { Err(DecodeError::RemainingLength) } else { Ok(Some((length, index + 1))) };
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(DecodeError::RemainingLength) }
}

fn check_length(
    kind: PacketKind,
    header: usize,
    remaining: usize,
    limits: &PacketLimits,
) -> Result<(), DecodeError> {
    if let Some(fixed) = kind.fixed_length()
        && fixed != remaining
    {
        return Err(DecodeError::WrongLength { packet: kind.name(), bytes: remaining });
    }
    let bytes_max = limits.bytes_max(kind);
    let bytes = header + remaining;
    if bytes > bytes_max {
        return Err(DecodeError::TooLarge { packet: kind.name(), bytes, bytes_max });
    }
    Ok(())
}

/// A PUBLISH tells the size of its payload with the length of its topic, long before the payload is there.
fn check_publish_lengths(
    body: &[u8],
    first: u8,
    remaining: usize,
    limits: &PacketLimits,
) -> Result<(), DecodeError> {
    let Some(topic_length) = body.first_chunk() else { return Ok(()) };
    let id_bytes = if first & 0b0110 == 0 { 0 } else { 2 };
    let header = 2 + usize::from(u16::from_be_bytes(*topic_length)) + id_bytes;
    let bytes = remaining.checked_sub(header).ok_or(DecodeError::Missing)?;
    let bytes_max = limits.payload_bytes_max;
    if bytes > bytes_max { Err(DecodeError::PayloadTooLarge { bytes, bytes_max }) } else { Ok(()) }
}

fn decode_publish(first: u8, body: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = FieldReader(body);
    let topic = fields.text()?;
    if topic.is_empty() {
        // [MQTT-4.7.3-1]
        return Err(DecodeError::EmptyTopic);
    }
    if topic.contains(['+', '#']) {
        // [MQTT-3.3.2-2]
        return Err(DecodeError::TopicWildcard);
    }
    let qos = QoS::parse(first >> 1 & 0b11).ok_or(DecodeError::QoS)?;
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(packet_id(fields.u16()?)?),
    };
    let (dup, retain) = (first & 0b1000 != 0, first & 0b0001 != 0);
    Ok(Packet::Publish(Publish { dup, qos, retain, topic, packet_id, payload: fields.0 }))
}

fn decode_subscribe(body: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = FieldReader(body);
    let packet_id = packet_id(fields.u16()?)?;
    let mut filters = Vec::new();
    while !fields.0.is_empty() {
        let filter = fields.filter()?;
        // [MQTT-3-8.3-4]
        let qos = QoS::parse(fields.u8()?).ok_or(DecodeError::QoS)?;
        filters.push((filter, qos));
    }
    // [MQTT-3.8.3-3]
    if filters.is_empty() {
        Err(DecodeError::NoFilter)
    } else {
        Ok(Packet::Subscribe(Subscribe { packet_id, filters }))
    }
}

fn decode_unsubscribe(body: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = FieldReader(body);
    let packet_id = packet_id(fields.u16()?)?;
    let mut filters = Vec::new();
    while !fields.0.is_empty() {
        filters.push(fields.filter()?);
    }
    if filters.is_empty() {
        // [MQTT-3.10.3-2]
        return Err(DecodeError::NoFilter);
    }
    Ok(Packet::Unsubscribe(Unsubscribe { packet_id, filters }))
}

fn decode_connect(body: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = FieldReader(body);
    check_protocol(&mut fields)?;
    let flags = ConnectFlags::parse(fields.u8()?)?;
    let keep_alive = fields.u16()?;
    let client_id = fields.text()?;
    let will = match flags.will {
        None => None,
        Some((qos, retain)) => {
            let topic = fields.text()?;
            if topic.is_empty() {
                return Err(DecodeError::EmptyTopic);
            }
            if topic.contains(['+', '#']) {
                return Err(DecodeError::TopicWildcard);
            }
            Some(Will { topic, payload: fields.binary()?, qos, retain })
        }
    };
    let username = if flags.username { Some(fields.text()?.as_str().to_owned()) } else { None };
    let password = if flags.password { Some(Password::from_bytes(&fields.binary()?)) } else { None };
    fields.finish()?;
    if client_id.is_empty() {
        return Err(DecodeError::EmptyClientId);
    }
    let client_id = client_id.as_str().to_owned();
    let clean_session = flags.clean_session;
    Ok(Packet::Connect(Box::new(Connect { client_id, clean_session, keep_alive, username, password, will })))
}

/// Protocol name and level; what follows them is written as the level says.
fn check_protocol(fields: &mut FieldReader) -> Result<(), DecodeError> {
    let name = fields.text()?;
    let level = fields.u8()?;
    match (name.as_str(), level) {
        ("MQTT", 4) => Ok(()),
        ("MQTT", 5) => Err(DecodeError::Version5),
        // `MQIsdp` is what 3.1 called itself.
        ("MQTT" | "MQIsdp", level) => Err(DecodeError::ProtocolLevel(level)),
        // [MQTT-3.1.2-1]
        _ => Err(DecodeError::ProtocolName),
    }
}

/// The flag byte of CONNECT, once its parts agree with each other.
struct ConnectFlags {
    clean_session: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn parse(byte: u8) -> Result<Self, DecodeError> {
        let is_set = |bit: u8| byte & 1 << bit != 0;
        let qos = QoS::parse(byte >> 3 & 0b11);
        let will = match (is_set(2), qos) {
            (true, Some(qos)) => Some((qos, is_set(5))),
            // [MQTT-3.1.2-13], [MQTT-3.1.2-15]
            (false, Some(QoS::AtMostOnce)) if !is_set(5) => None,
            // [MQTT-3.1.2-14]
            _ => return Err(DecodeError::ConnectFlags(byte)),
        };
        let (username, password) = (is_set(7), is_set(6));
        // [MQTT-3.1.2-3], [MQTT-3.1.2-22]
        if is_set(0) || (password && !username) {
            return Err(DecodeError::ConnectFlags(byte));
        }
        Ok(Self { clean_session: is_set(1), will, username, password })
    }
}

fn decode_connack(flags: u8, code: u8) -> Result<Packet, DecodeError> {
    if flags > 1 {
        return Err(DecodeError::Flags { packet: PacketKind::ConnAck.name(), flags });
    }
    let session_present = flags == 1;
    match ConnectReturnCode::parse(code) {
        // [MQTT-3.2.2-4]
        Some(refusal) if session_present && refusal != ConnectReturnCode::Accepted => {
            Err(DecodeError::Code(code))
        }
        Some(code) => Ok(Packet::ConnAck { session_present, code }),
        None => Err(DecodeError::Code(code)),
    }
}

fn decode_suback(body: Bytes) -> Result<Packet, DecodeError> {
    let mut fields = FieldReader(body);
    let packet_id = packet_id(fields.u16()?)?;
    if fields.0.is_empty() {
        return Err(DecodeError::Missing);
    }
    let is_known = |code: u8| code == SUBSCRIPTION_REFUSED || QoS::parse(code).is_some();
    match fields.0.iter().find(|code| !is_known(**code)) {
        // [MQTT-3.9.3-2]
        Some(code) => Err(DecodeError::Code(*code)),
        None => Ok(Packet::SubAck { packet_id, codes: fields.0.to_vec() }),
    }
}

/// [MQTT-2.3.1-1]
fn packet_id(number: u16) -> Result<u16, DecodeError> {
    if number == 0 { Err(DecodeError::PacketIdZero) } else { Ok(number) }
}

/// The fields of one packet's body, read from the front.
struct FieldReader(Bytes);

impl FieldReader {
    fn u8(&mut self) -> Result<u8, DecodeError> {
        self.0.try_get_u8().map_err(|_| DecodeError::Missing)
    }

    fn u16(&mut self) -> Result<u16, DecodeError> {
        self.0.try_get_u16().map_err(|_| DecodeError::Missing)
    }

    fn binary(&mut self) -> Result<Bytes, DecodeError> {
        let length = usize::from(self.u16()?);
        if length > self.0.len() {
            return Err(DecodeError::Missing);
        }
        Ok(self.0.split_to(length))
    }

    fn text(&mut self) -> Result<Utf8Bytes, DecodeError> {
        Ok(Utf8Bytes::parse(self.binary()?)?)
    }

    fn filter(&mut self) -> Result<Utf8Bytes, DecodeError> {
        let filter = self.text()?;
        // [MQTT-4.7.3-1]
        if filter.is_empty() { Err(DecodeError::EmptyTopic) } else { Ok(filter) }
    }

    fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Surplus(self.0.len())) }
    }
}

/// Protocol name, level, flags and keep-alive.
const CONNECT_FIXED_BYTES: usize = 10;

/// Room for 16 filters of the longest kind; CONNECT and PUBLISH have limits of their own.
const SMALL_PACKET_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests;
