//! Names: devices, modules, generations and etags, each parsed once into a type that cannot be wrong.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A device id: 1 to 128 characters of IoT Hub's alphabet, compared byte by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(Arc<str>);

/// A module id; the same rules as a device id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModuleId(Arc<str>);

/// A device, or a module under a device.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdentityId {
    /// The device, or the device of the module.
    pub device: DeviceId,
    /// The module; none for the device itself.
    pub module: Option<ModuleId>,
}

/// Why a text is no id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text has this many characters.
    #[error("an id has 1 to {ID_BYTES_MAX} characters, this one has {0}")]
    Length(usize),
    /// This character is in no id.
    #[error("{0:?} may not be in an id: letters, digits and -.:%_*?!(),=@;$' may")]
    Character(char),
    /// IoT Hub allows this character, but a topic of MQTT cannot carry it.
    #[error("{0:?} may not be in an id: MQTT gives it a meaning of its own")]
    MqttWildcard(char),
    /// The text is `.` or `..`, which URLs resolve away.
    #[error("an id may not be `.` or `..`")]
    Dots,
}

impl DeviceId {
    /// The only way in: length and alphabet are checked here and nowhere else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// For a set of ids to be searched by a text that is none, such as how some begin.
impl Borrow<str> for DeviceId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl ModuleId {
    /// The only way in: length and alphabet are checked here and nowhere else.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        check(text)?;
        Ok(Self(text.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl IdentityId {
    /// The id of a device.
    pub fn device(device: DeviceId) -> Self {
        Self { device, module: None }
    }

    /// The id of a module.
    pub fn module(device: DeviceId, module: ModuleId) -> Self {
        Self { device, module: Some(module) }
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ModuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `device`, or `device/module`: `/` is in no id, so the two cannot be taken for each other.
impl fmt::Display for IdentityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{module}", self.device),
        }
    }
}

/// Distinguishes an identity from an earlier one of the same id. Grows for ever; reads like the 18 digits of IoT Hub's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GenerationId(u64);

impl GenerationId {
    /// The generation of this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for GenerationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:018}", self.0)
    }
}

/// Names one state of an identity. Grows with every change; never compared across identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Revision(u64);

impl Revision {
    /// The revision of this number.
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub fn number(self) -> u64 {
        self.0
    }

    /// As HTTP shows it.
    pub fn etag(self) -> ETag {
        ETag(STANDARD.encode(self.0.to_be_bytes()))
    }
}

/// An entity tag without its quotation marks; opaque to clients.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ETag(String);

impl ETag {
    /// As the header `ETag` carries it.
    pub fn quoted(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What must hold of the stored identity for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// No `If-Match`: a PUT creates, a DELETE is unconditional.
    Absent,
    /// `If-Match: *`: whatever version there is.
    AnyVersion,
    /// `If-Match: "…"`: exactly this version.
    Version(ETag),
}

/// An `If-Match` that is neither `*` nor one entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected * or one entity tag")]
pub struct InvalidPrecondition;

impl Precondition {
    /// Reads the header `If-Match`. The SDKs write the star and the tag with and without quotation marks, so
    /// `*`, `"*"`, `"x"`, `x` and `W/"x"` are all read (IoT Hub: azure-iot-sdk-python #716).
    pub fn parse_if_match(header: Option<&str>) -> Result<Self, InvalidPrecondition> {
        let Some(text) = header.map(str::trim) else { return Ok(Self::Absent) };
        let text = text.strip_prefix("W/").unwrap_or(text);
        let text = match text.strip_prefix('"') {
            Some(rest) => rest.strip_suffix('"').ok_or(InvalidPrecondition)?,
            None => text,
        };
        match text {
            "*" => Ok(Self::AnyVersion),
            tag if tag.is_empty() || tag.contains(['"', ',', ' ']) => Err(InvalidPrecondition),
            tag => Ok(Self::Version(ETag(tag.to_owned()))),
        }
    }

    /// Whether a stored revision satisfies it.
    pub fn admits(&self, revision: Revision) -> bool {
        match self {
            Precondition::Absent | Precondition::AnyVersion => true,
            Precondition::Version(tag) => *tag == revision.etag(),
        }
    }
}

/// Source: IoT Hub, "Identity registry" for the alphabet. It also lists `+` and `#`, which no MQTT topic can carry.
fn check(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() || text.len() > ID_BYTES_MAX {
        return Err(InvalidId::Length(text.chars().count()));
    }
    if text == "." || text == ".." {
        return Err(InvalidId::Dots);
    }
    match text.chars().find(|character| !is_allowed(*character)) {
        None => Ok(()),
        Some(character @ ('+' | '#')) => Err(InvalidId::MqttWildcard(character)),
        Some(character) => Err(InvalidId::Character(character)),
    }
}

fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || "-:.%_*?!(),=@;$'".contains(character)
}

/// Characters and bytes are the same here: the alphabet is ASCII.
const ID_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t501_ids_of_wrong_length_or_alphabet_are_refused() {
        let long = "x".repeat(129);
        let endless = "x".repeat(65_536);
        for text in [
            "", &long, &endless, "a b", "a/b", "a\u{0}b", "a\nb", "ä", "a&b", "a\"b", "a\\b", "<", ">", ".",
            "..",
        ] {
            assert!(DeviceId::parse(text).is_err(), "{text:.20}");
            assert!(ModuleId::parse(text).is_err(), "{text:.20}");
        }
    }

    #[test]
    fn t501_one_and_128_characters_work() {
        assert!(DeviceId::parse("x").is_ok());
        assert!(DeviceId::parse(&"x".repeat(128)).is_ok());
        assert!(DeviceId::parse("...").is_ok());
    }

    #[test]
    fn t502_every_allowed_character_comes_back_as_it_is() {
        let all = "azAZ09-.%_*?!(),:;=@$'";
        assert_eq!(DeviceId::parse(all).unwrap().as_str(), all);
    }

    #[test]
    fn plus_and_hash_are_refused_in_words_of_their_own() {
        assert_eq!(DeviceId::parse("a+b").unwrap_err(), InvalidId::MqttWildcard('+'));
        assert_eq!(DeviceId::parse("a#b").unwrap_err(), InvalidId::MqttWildcard('#'));
    }

    #[test]
    fn t503_case_and_percent_signs_tell_ids_apart() {
        assert_ne!(DeviceId::parse("d1").unwrap(), DeviceId::parse("D1").unwrap());
        assert_ne!(DeviceId::parse("d%31").unwrap(), DeviceId::parse("d1").unwrap());
    }

    #[test]
    fn t705_every_way_to_write_if_match_is_read() {
        let parse = |text| Precondition::parse_if_match(Some(text));
        assert_eq!(Precondition::parse_if_match(None), Ok(Precondition::Absent));
        assert_eq!(parse("*"), Ok(Precondition::AnyVersion));
        assert_eq!(parse("\"*\""), Ok(Precondition::AnyVersion));
        let tag = Ok(Precondition::Version(ETag("AAA=".into())));
        for text in ["AAA=", "\"AAA=\"", "W/\"AAA=\"", " \"AAA=\" "] {
            assert_eq!(parse(text), tag, "{text}");
        }
        for text in ["", "\"", "\"\"", "\"a\",\"b\"", "a b", "\"a"] {
            assert_eq!(parse(text), Err(InvalidPrecondition), "{text}");
        }
    }

    #[test]
    fn an_etag_admits_its_own_revision_only() {
        let tag = Precondition::Version(Revision::new(7).etag());
        assert!(tag.admits(Revision::new(7)));
        assert!(!tag.admits(Revision::new(8)));
    }
}
