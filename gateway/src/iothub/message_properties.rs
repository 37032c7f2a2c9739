//! The names of a message's properties: in a property bag, in the headers of HTTP, and as services see them.
//!
//! Source: IoT Hub, "Create and read IoT Hub messages", system properties; REST API, device and service messaging.

/// A system property and its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemProperty {
    /// In a property bag.
    pub in_bag: &'static str,
    /// The header that carries it, where one does.
    pub header: Option<&'static str>,
    /// Among the system properties of a message as services print it.
    pub field: &'static str,
    /// Whether a device may set it on telemetry by that header.
    pub is_sent_by_devices: bool,
}

/// Every system property that a sender sets.
pub const SYSTEM_PROPERTIES: [SystemProperty; 9] = [
    row(bag::MESSAGE_ID, Some(header::MESSAGE_ID), "messageId", true),
    row(bag::CORRELATION_ID, Some(header::CORRELATION_ID), "correlationId", true),
    row(bag::USER_ID, Some(header::USER_ID), "userId", true),
    row(bag::CONTENT_TYPE, Some(header::CONTENT_TYPE), "contentType", true),
    row(bag::CONTENT_ENCODING, Some(header::CONTENT_ENCODING), "contentEncoding", true),
    row(bag::TO, Some(header::TO), "to", true),
    row(bag::EXPIRY, Some(header::EXPIRY), "expiryTimeUtc", false),
    row(bag::CREATION_TIME, None, "creationTimeUtc", false),
    row(bag::OUTPUT_NAME, None, "outputName", false),
];

const fn row(
    in_bag: &'static str,
    header: Option<&'static str>,
    field: &'static str,
    is_sent_by_devices: bool,
) -> SystemProperty {
    SystemProperty { in_bag, header, field, is_sent_by_devices }
}

/// How services see a system property of a bag; one that is not known here by what follows its prefix.
pub fn field_of(in_bag: &str) -> &str {
    let known = SYSTEM_PROPERTIES.iter().find(|property| property.in_bag == in_bag);
    known.map_or(in_bag.strip_prefix(bag::SYSTEM_PREFIX).unwrap_or(in_bag), |property| property.field)
}

/// The property of a bag that a header on telemetry stands for, if it stands for one.
pub fn property_of_header(name: &str) -> Option<&str> {
    if let Some(own) = name.strip_prefix(header::APPLICATION_PREFIX) {
        return Some(own);
    }
    let known = SYSTEM_PROPERTIES.iter().find(|property| property.header == Some(name));
    known.filter(|property| property.is_sent_by_devices).map(|property| property.in_bag)
}

/// Names in a property bag.
pub mod bag {
    /// How the names of system properties begin.
    pub const SYSTEM_PREFIX: &str = "$.";
    pub const MESSAGE_ID: &str = "$.mid";
    pub const CORRELATION_ID: &str = "$.cid";
    pub const USER_ID: &str = "$.uid";
    pub const TO: &str = "$.to";
    pub const CONTENT_TYPE: &str = "$.ct";
    pub const CONTENT_ENCODING: &str = "$.ce";
    pub const EXPIRY: &str = "$.exp";
    pub const CREATION_TIME: &str = "$.ctime";
    pub const OUTPUT_NAME: &str = "$.on";
    /// Which outcome of a cloud-to-device message is reported back.
    pub const ACK: &str = "iothub-ack";

    /// How the names of what is known of a sender begin.
    pub const CONNECTION_PREFIX: &str = "iothub-connection-";
    pub const CONNECTION_DEVICE_ID: &str = "iothub-connection-device-id";
    pub const CONNECTION_MODULE_ID: &str = "iothub-connection-module-id";
    pub const CONNECTION_AUTH_METHOD: &str = "iothub-connection-auth-method";
    pub const CONNECTION_AUTH_GENERATION_ID: &str = "iothub-connection-auth-generation-id";
    /// When the hub took the message.
    pub const ENQUEUED_TIME: &str = "iothub-enqueuedtime";
    pub const MESSAGE_SOURCE: &str = "iothub-message-source";
    /// What kind of message it is, where it is a special one.
    pub const MESSAGE_TYPE: &str = "iothub-MessageType";
    /// The message type of a last will.
    pub const WILL: &str = "Will";
    /// RETAIN was set; it is passed on as a property.
    pub const RETAIN: &str = "mqtt-retain";
    pub const CONNECTION_DEVICE_ID_SHORT: &str = "$.cdid";
    pub const CONNECTION_MODULE_ID_SHORT: &str = "$.cmid";

    /// How the names of properties that only this hub knows begin.
    pub const OWN_PREFIX: &str = "portcullis-";
    /// How many messages before this one its reader missed.
    pub const LOST: &str = "portcullis-lost";
}

/// Names of headers, in lower case as HTTP/2 wants them.
pub mod header {
    /// How the names of headers with application properties begin.
    pub const APPLICATION_PREFIX: &str = "iothub-app-";
    /// Ours: all application properties, as a property bag. Header names have no letter case, property names do.
    pub const PROPERTIES: &str = "iothub-properties";
    pub const MESSAGE_ID: &str = "iothub-messageid";
    pub const CORRELATION_ID: &str = "iothub-correlationid";
    pub const USER_ID: &str = "iothub-userid";
    pub const TO: &str = "iothub-to";
    pub const CONTENT_TYPE: &str = "iothub-contenttype";
    pub const CONTENT_ENCODING: &str = "iothub-contentencoding";
    pub const EXPIRY: &str = "iothub-expiry";
    pub const ACK: &str = "iothub-ack";
    pub const SEQUENCE_NUMBER: &str = "iothub-sequencenumber";
    pub const ENQUEUED_TIME: &str = "iothub-enqueuedtime";
    pub const DELIVERY_COUNT: &str = "iothub-deliverycount";
    /// How long a message handed out is locked, in seconds.
    pub const LOCK_TIMEOUT: &str = "iothub-messagelocktimeout";
    /// The name of the error in an answer.
    pub const ERROR_CODE: &str = "iothub-errorcode";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_on_telemetry_stands_for_a_property_or_for_nothing() {
        for (name, property) in [
            ("iothub-messageid", Some("$.mid")),
            ("iothub-to", Some("$.to")),
            ("iothub-app-colour", Some("colour")),
            // Ours to set, or of no meaning on telemetry.
            ("iothub-expiry", None),
            ("iothub-enqueuedtime", None),
            ("content-type", None),
        ] {
            assert_eq!(property_of_header(name), property, "{name}");
        }
    }

    #[test]
    fn services_see_long_names() {
        assert_eq!((field_of("$.mid"), field_of("$.exp")), ("messageId", "expiryTimeUtc"));
        assert_eq!((field_of("$.later"), field_of("iothub-ack")), ("later", "iothub-ack"));
    }

    #[test]
    fn no_name_stands_twice() {
        let names = |of: fn(&SystemProperty) -> Option<&'static str>| {
            let mut names: Vec<_> = SYSTEM_PROPERTIES.iter().filter_map(of).collect();
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            (names.len(), count)
        };
        for (distinct, count) in [
            names(|property| Some(property.in_bag)),
            names(|property| property.header),
            names(|property| Some(property.field)),
        ] {
            assert_eq!(distinct, count);
        }
    }
}
