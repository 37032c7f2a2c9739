//! The packets of MQTT 3.1.1 as values.
//!
//! What can be wrong in a single field is ruled out by its type; what depends on the session is left to
//! `session::core`. Topic and payload share the buffer they were read into.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;
use zeroize::Zeroizing;

/// One MQTT control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    Connect(Box<Connect>),
    ConnAck { session_present: bool, code: ConnectReturnCode },
    Publish(Publish),
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe(Subscribe),
    SubAck { packet_id: u16, codes: Vec<u8> },
    Unsubscribe(Unsubscribe),
    UnsubAck(u16),
    PingReq,
    PingResp,
    Disconnect,
}

/// The first packet of a client. The client id is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    pub client_id: String,
    pub clean_session: bool,
    /// Seconds; 0 is no promise.
    pub keep_alive: u16,
    pub username: Option<String>,
    pub password: Option<Password>,
    pub will: Option<Will>,
}

/// What a client wants published when it vanishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    pub topic: Utf8Bytes,
    pub payload: Bytes,
    pub qos: QoS,
    pub retain: bool,
}

/// The password of CONNECT: wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<String>);

/// An application message. `packet_id` is there for QoS 1 and 2 only and is never 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    pub dup: bool,
    pub qos: QoS,
    pub retain: bool,
    pub topic: Utf8Bytes,
    pub packet_id: Option<u16>,
    pub payload: Bytes,
}

/// A wish for messages: at least one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    pub packet_id: u16,
    pub filters: Vec<(Utf8Bytes, QoS)>,
}

/// The end of a wish: at least one filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe {
    pub packet_id: u16,
    pub filters: Vec<Utf8Bytes>,
}

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum QoS {
    AtMostOnce = 0,
    AtLeastOnce = 1,
    ExactlyOnce = 2,
}

/// The answers to CONNECT. Source: MQTT 3.1.1, table 3.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectReturnCode {
    Accepted = 0,
    UnacceptableProtocol = 1,
    IdentifierRejected = 2,
    ServerUnavailable = 3,
    BadUserNameOrPassword = 4,
    NotAuthorized = 5,
}

/// A text as MQTT carries it: UTF-8 of at most 65,535 bytes without control characters or noncharacters, in a
/// buffer it may share with others.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Utf8Bytes(Bytes);

/// Why bytes are no text of MQTT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidText {
    #[error("longer than {TEXT_BYTES_MAX} bytes")]
    TooLong,
    #[error("not UTF-8")]
    NotUtf8,
    #[error("the character U+{:04X} is not allowed", u32::from(*.0))]
    Character(char),
}

impl Utf8Bytes {
    /// The only way in: length, encoding and characters are checked here and nowhere else.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self, InvalidText> {
        let bytes = bytes.into();
        check_text(&bytes)?;
        Ok(Self(bytes))
    }

    pub fn as_str(&self) -> &str {
        // Checked when it was made; without `unsafe`, looking again is the price of sharing the buffer.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Whether bytes are a text MQTT can carry. Source: [MQTT-1.5.3-1], [MQTT-1.5.3-2]; control characters and
/// noncharacters, which the standard lets a server refuse, are refused (threats T208).
fn check_text(bytes: &[u8]) -> Result<&str, InvalidText> {
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(InvalidText::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| InvalidText::NotUtf8)?;
    // Nearly every text is plain ASCII, which many bytes at a time tell.
    if bytes.iter().fold(true, |plain, byte| plain & matches!(byte, 0x20..=0x7E)) {
        return Ok(text);
    }
    match text.chars().find(|character| character.is_control() || is_noncharacter(*character)) {
        None => Ok(text),
        Some(character) => Err(InvalidText::Character(character)),
    }
}

/// Source: Unicode, "Noncharacters": the last two code points of each plane, and U+FDD0 to U+FDEF.
fn is_noncharacter(character: char) -> bool {
    let code = u32::from(character);
    code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code)
}

impl Deref for Utf8Bytes {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Utf8Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Password {
    /// Bytes that are no UTF-8 become U+FFFD, which is in no token: such a password is wrong, not malformed.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(Zeroizing::new(String::from_utf8_lossy(bytes).into_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

impl QoS {
    /// The level of two bits; 3 is none ([MQTT-3.3.1-4]).
    pub fn parse(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}

impl ConnectReturnCode {
    /// The code of a byte; 6 and above are reserved.
    pub fn parse(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(ConnectReturnCode::Accepted),
            1 => Some(ConnectReturnCode::UnacceptableProtocol),
            2 => Some(ConnectReturnCode::IdentifierRejected),
            3 => Some(ConnectReturnCode::ServerUnavailable),
            4 => Some(ConnectReturnCode::BadUserNameOrPassword),
            5 => Some(ConnectReturnCode::NotAuthorized),
            _ => None,
        }
    }
}

impl Packet {
    /// The packet's name in the standard.
    pub fn name(&self) -> &'static str {
        match self {
            Packet::Connect(_) => "CONNECT",
            Packet::ConnAck { .. } => "CONNACK",
            Packet::Publish(_) => "PUBLISH",
            Packet::PubAck(_) => "PUBACK",
            Packet::PubRec(_) => "PUBREC",
            Packet::PubRel(_) => "PUBREL",
            Packet::PubComp(_) => "PUBCOMP",
            Packet::Subscribe(_) => "SUBSCRIBE",
            Packet::SubAck { .. } => "SUBACK",
            Packet::Unsubscribe(_) => "UNSUBSCRIBE",
            Packet::UnsubAck(_) => "UNSUBACK",
            Packet::PingReq => "PINGREQ",
            Packet::PingResp => "PINGRESP",
            Packet::Disconnect => "DISCONNECT",
        }
    }
}

/// The code in SUBACK for a filter that is not granted.
pub const SUBSCRIPTION_REFUSED: u8 = 0x80;

/// What the two length bytes of a text can say.
pub const TEXT_BYTES_MAX: usize = u16::MAX as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t208_texts_that_mqtt_cannot_carry_are_refused() {
        let refused: [&[u8]; 12] = [
            b"a\0b",
            b"\x01",
            b"\x1f",
            b"\x7f",
            "\u{80}".as_bytes(),
            "\u{9f}".as_bytes(),
            "\u{ffff}".as_bytes(),
            "\u{fdd0}".as_bytes(),
            "\u{10fffe}".as_bytes(),
            b"\xc0\xaf",
            b"\xed\xa0\x80",
            b"\xff",
        ];
        for bytes in refused {
            assert!(Utf8Bytes::parse(bytes).is_err(), "{bytes:02x?}");
        }
    }

    #[test]
    fn t208_other_texts_come_back_as_they_are() {
        for text in ["", "a", " ~", "\u{feff}", "\u{fffd}", "ä€😀", &"x".repeat(TEXT_BYTES_MAX)] {
            assert_eq!(Utf8Bytes::parse(text.to_owned()).unwrap().as_str(), text);
        }
        assert_eq!(Utf8Bytes::parse("x".repeat(TEXT_BYTES_MAX + 1)), Err(InvalidText::TooLong));
    }

    #[test]
    fn a_password_is_not_shown() {
        let password = Password::from_bytes(b"secret");
        assert_eq!(password.as_str(), "secret");
        assert!(!format!("{password:?}").contains("secret"));
        assert_eq!(Password::from_bytes(b"\xff").as_str(), "\u{fffd}");
    }
}
