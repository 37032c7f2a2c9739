//! The property bag: `key=value` pairs joined with `&`, percent-encoded, the last segment of a topic.
//!
//! Parses what devices write, and writes what devices and services read (IoT Hub: "Communicate with IoT Hub using
//! MQTT"). It knows the names of the properties that the hub sets, so that no peer can set them, but not their values.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::message_properties::bag;

/// The properties of one message, in order and without repeated names. System properties begin with `$.`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropertyBag {
    system: Vec<(String, String)>,
    application: Vec<(String, String)>,
}

/// Why a text is not a property bag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BagError {
    #[error("it is {bytes} bytes long; at most {BAG_BYTES_MAX} are allowed")]
    TooLong { bytes: usize },
    #[error("a percent sign is not followed by two hexadecimal digits")]
    BadEscape,
    #[error("a name or value is not UTF-8 once decoded")]
    NotUtf8,
    #[error("a name or value contains a NUL")]
    Nul,
    #[error("a property has no name")]
    NoName,
    #[error("the property {0:?} appears more than once")]
    Repeated(String),
}

impl PropertyBag {
    /// Parses a bag. An empty text is an empty bag. A name without `=` has an empty value. Leaves out names that only
    /// the hub sets (threats T507).
    pub fn parse(text: &str) -> Result<Self, BagError> {
        let mut bag = Self::default();
        if text.is_empty() {
            return Ok(bag);
        }
        if text.len() > BAG_BYTES_MAX {
            return Err(BagError::TooLong { bytes: text.len() });
        }
        let mut left_out = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if name.is_empty() {
                return Err(BagError::NoName);
            }
            match is_set_by_hub(&name) {
                true => left_out.push(name),
                false => bag.add(name.into_owned(), value.into_owned()),
            }
        }
        match bag.repeated(&left_out) {
            Some(name) => Err(BagError::Repeated(name.to_owned())),
            None => Ok(bag),
        }
    }

    /// A name that appears more than once, including in `others`.
    fn repeated<'a>(&'a self, others: &'a [Cow<'_, str>]) -> Option<&'a str> {
        let own = self.system.iter().chain(&self.application).map(|(name, _)| name.as_str());
        // There may be thousands of names. Sorting is cheaper than a hash of each when there are few.
        let mut names: Vec<&str> = own.chain(others.iter().map(Cow::as_ref)).collect();
        names.sort_unstable();
        names.array_windows().find(|[name, next]| name == next).map(|[name, _]| *name)
    }

    /// Adds a property at the end of its kind. The caller makes sure that the name is new.
    pub fn push(&mut self, name: &str, value: &str) {
        self.add(name.to_owned(), value.to_owned());
    }

    fn add(&mut self, name: String, value: String) {
        let kind = if is_system(&name) { &mut self.system } else { &mut self.application };
        kind.push((name, value));
    }

    /// The percent-encoded text. System properties come first, because some SDKs look for them only there.
    pub fn encode(&self) -> String {
        self.encode_with(&[])
    }

    /// The same with more application properties before the others. The caller makes sure that their names are new and
    /// not the system's.
    pub fn encode_with(&self, stamp: &[(&str, &str)]) -> String {
        let (system, application) = (self.system.iter(), self.application.iter());
        let pairs = || {
            system.clone().map(as_texts).chain(stamp.iter().copied()).chain(application.clone().map(as_texts))
        };
        let bytes: usize = pairs().map(|(name, value)| name.len() + value.len() + ENCODING_BYTES).sum();
        let mut text = String::with_capacity(bytes);
        pairs().for_each(|(name, value)| write_pair(&mut text, name, value));
        text
    }

    /// The value of a property, decoded.
    pub fn find(&self, name: &str) -> Option<&str> {
        let kind = if is_system(name) { &self.system } else { &self.application };
        kind.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// The properties whose names begin with `$.`.
    pub fn system(&self) -> &[(String, String)] {
        &self.system
    }

    pub fn application(&self) -> &[(String, String)] {
        &self.application
    }

    /// Drops the system properties.
    pub fn into_application(self) -> Vec<(String, String)> {
        self.application
    }
}

/// The pairs of a bag that the hub has read and stamped, decoded, in order; a name without `=` has no value. Nothing is
/// left out. The hub's stamp stands before what an application set, so of equal names the first is the hub's.
pub fn stamped_pairs(bag: &str) -> impl Iterator<Item = (String, Option<String>)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    bag.split('&').filter(|pair| !pair.is_empty()).map(move |pair| match pair.split_once('=') {
        Some((name, value)) => (decoded(name), Some(decoded(value))),
        None => (decoded(pair), None),
    })
}

fn as_texts((name, value): &(String, String)) -> (&str, &str) {
    (name, value)
}

/// Appends `name=value` to a bag or to a topic that ends in one, percent-encoded so that every SDK splits it correctly.
/// A bag contains no slash, so a text that ends in one has no property yet.
pub(crate) fn write_pair(text: &mut String, name: &str, value: &str) {
    if !text.is_empty() && !text.ends_with('/') {
        text.push('&');
    }
    text.extend(utf8_percent_encode(name, ENCODED));
    text.push('=');
    text.extend(utf8_percent_encode(value, ENCODED));
}

fn decode(text: &str) -> Result<Cow<'_, str>, BagError> {
    check_escapes(text)?;
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| BagError::NotUtf8)?;
    if decoded.contains('\0') { Err(BagError::Nul) } else { Ok(decoded) }
}

/// A percent sign must begin an escape, because lenient and strict readers would read anything else differently.
fn check_escapes(text: &str) -> Result<(), BagError> {
    let mut parts = text.as_bytes().split(|byte| *byte == b'%');
    parts.next();
    match parts.all(|part| part.len() >= 2 && part[..2].iter().all(u8::is_ascii_hexdigit)) {
        true => Ok(()),
        false => Err(BagError::BadEscape),
    }
}

fn is_system(name: &str) -> bool {
    name.starts_with(bag::SYSTEM_PREFIX)
}

/// Whether a property holds what only the hub knows: the sender, its credential, and when and how the message arrived.
fn is_set_by_hub(name: &str) -> bool {
    let begins_with = |prefix: &str| {
        name.get(..prefix.len()).is_some_and(|beginning| beginning.eq_ignore_ascii_case(prefix))
    };
    SET_BY_HUB.iter().any(|own| own.eq_ignore_ascii_case(name))
        || SET_BY_HUB_PREFIXES.into_iter().any(begins_with)
}

/// Whatever their letter case. Source: IoT Hub, "Create and read IoT Hub messages", system properties.
const SET_BY_HUB: [&str; 6] = [
    bag::CONNECTION_DEVICE_ID_SHORT,
    bag::CONNECTION_MODULE_ID_SHORT,
    bag::ENQUEUED_TIME,
    bag::MESSAGE_SOURCE,
    bag::MESSAGE_TYPE,
    bag::RETAIN,
];

/// Whatever their letter case.
const SET_BY_HUB_PREFIXES: [&str; 2] = [bag::CONNECTION_PREFIX, bag::OWN_PREFIX];

/// All characters except those that no URI gives a meaning (RFC 3986, 2.3).
pub(crate) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The bytes of a property besides name and value, with room for a few escapes.
const ENCODING_BYTES: usize = 10;

/// The size of a bag in a topic.
pub const BAG_BYTES_MAX: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
    }

    #[test]
    fn system_and_application_properties_are_told_apart() {
        let bag =
            PropertyBag::parse("%24.mid=1&colour=red&$.ct=text%2Fplain&null&empty=&a%3Db=c=d&p=1+1").unwrap();
        assert_eq!(pairs(bag.system()), [("$.mid", "1"), ("$.ct", "text/plain")]);
        assert_eq!(
            pairs(bag.application()),
            [("colour", "red"), ("null", ""), ("empty", ""), ("a=b", "c=d"), ("p", "1+1")]
        );
        assert_eq!(
            (bag.find("$.ct"), bag.find("colour"), bag.find("none")),
            (Some("text/plain"), Some("red"), None)
        );
    }

    #[test]
    fn an_encoded_bag_has_its_system_properties_first() {
        let bag = PropertyBag::parse("colour=light red&$.ct=text/plain; charset=UTF-8").unwrap();
        assert_eq!(bag.encode(), "%24.ct=text%2Fplain%3B%20charset%3DUTF-8&colour=light%20red");
    }

    #[test]
    fn an_empty_bag_is_an_empty_text() {
        assert_eq!(PropertyBag::parse("").unwrap(), PropertyBag::default());
        assert_eq!(PropertyBag::parse("&").unwrap(), PropertyBag::default());
        assert_eq!(PropertyBag::default().encode(), "");
    }

    #[test]
    fn a_stamp_stands_before_the_applications_properties_and_behind_the_systems() {
        let bag = PropertyBag::parse("a=1&$.mid=m").unwrap();
        assert_eq!(bag.encode_with(&[("s", "x y"), ("t", "")]), "%24.mid=m&s=x%20y&t=&a=1");
        assert_eq!(PropertyBag::default().encode_with(&[("s", "1")]), "s=1");
    }

    #[test]
    fn what_the_hub_stamped_is_read_whole_and_in_order() {
        let sent = PropertyBag::parse("a%26b=%3Cb%3E&empty=").unwrap();
        let text = sent.encode_with(&[(bag::CONNECTION_DEVICE_ID, "d 1")]) + "&alone&&bad=%ff";
        let read: Vec<_> = stamped_pairs(&text).collect();
        let expected = [
            (bag::CONNECTION_DEVICE_ID, Some("d 1")),
            ("a&b", Some("<b>")),
            ("empty", Some("")),
            ("alone", None),
            ("bad", Some("\u{fffd}")),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.map(str::to_owned))));
    }

    #[test]
    fn t507_bad_escapes_are_refused() {
        for text in ["%", "a=%", "a=%4", "a=%zz", "%zz=a", "a=%%20", "a=1&b=%2", "a=%+1", "a=%é"] {
            assert_eq!(PropertyBag::parse(text), Err(BagError::BadEscape), "{text}");
        }
        for text in ["a=%00", "%00", "a%00b=c", "a=\0"] {
            assert_eq!(PropertyBag::parse(text), Err(BagError::Nul), "{text}");
        }
        for text in ["a=%ff", "%c0%af=a", "a=%ed%a0%80", "%e4"] {
            assert_eq!(PropertyBag::parse(text), Err(BagError::NotUtf8), "{text}");
        }
    }

    #[test]
    fn t507_repeated_and_nameless_properties_are_refused() {
        for text in ["a=1&a=2", "a=1&%61=1", "a&b&a", "$.mid=1&%24.mid=2", "$.cdid=1&$.cdid=1"] {
            assert!(matches!(PropertyBag::parse(text), Err(BagError::Repeated(_))), "{text}");
        }
        for text in ["=", "=a", "a=1&=2"] {
            assert_eq!(PropertyBag::parse(text), Err(BagError::NoName), "{text}");
        }
        assert!(PropertyBag::parse("a=1&A=2").is_ok());
    }

    #[test]
    fn t507_ten_thousand_pairs_are_too_many() {
        let text: Vec<String> = (0..10_000).map(|number| format!("k{number}=v")).collect();
        assert!(matches!(PropertyBag::parse(&text.join("&")), Err(BagError::TooLong { .. })));
    }

    #[test]
    fn t507_a_bag_at_the_limit_is_read_and_one_byte_more_is_not() {
        let text = format!("a={}", "x".repeat(BAG_BYTES_MAX - 2));
        assert_eq!(PropertyBag::parse(&text).unwrap().application().len(), 1);
        assert!(PropertyBag::parse(&format!("{text}x")).is_err());
        let many: Vec<String> = (0..1500).map(|number| number.to_string()).collect();
        assert_eq!(PropertyBag::parse(&many.join("&")).unwrap().application().len(), 1500);
    }

    #[test]
    fn t507_names_only_the_hub_sets_are_left_out() {
        let reserved = [
            "iothub-connection-device-id=d9",
            "iothub-connection-module-id=m",
            "iothub-connection-auth-method=x",
            "IoTHub-Connection-Auth-Generation-Id=1",
            "iothub-enqueuedtime=2024",
            "iothub-message-source=Telemetry",
            "iothub-MessageType=Will",
            "mqtt-retain=true",
            "portcullis-lost=1",
            "%24.cdid=d9",
            "$.cmid=m",
            "iothub%2Dconnection-device-id=d9",
        ];
        for text in reserved {
            let bag = PropertyBag::parse(&format!("a=1&{text}")).unwrap();
            assert_eq!(bag.encode(), "a=1", "{text}");
        }
    }

    proptest! {
        #[test]
        fn t508_any_property_survives_encoding(name in "[^\0]{1,20}", value in "[^\0]{0,40}") {
            prop_assume!(!is_set_by_hub(&name));
            let mut bag = PropertyBag::default();
            bag.push(&name, &value);
            let text = bag.encode();
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~%=".contains(&byte)));
            prop_assert_eq!(PropertyBag::parse(&text).unwrap(), bag);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,80}", escapes in "[%&=a0-9$.]{0,40}") {
            let _ = PropertyBag::parse(&text);
            if let Ok(bag) = PropertyBag::parse(&escapes) {
                prop_assert_eq!(PropertyBag::parse(&bag.encode()).unwrap(), bag);
            }
        }
    }
}
