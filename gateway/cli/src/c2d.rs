//! `c2d-message`: sends messages to devices over REST, prints the waiting ones, and removes them. A send succeeds when
//! the hub has the message on stable storage.

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use portcullis::iothub::message_properties::header as names;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use crate::exit::Failure;
use crate::identity::path;
use crate::login::Access;
use crate::output::{Column, OutputArgs, scalar};
use crate::rest::Rest;

/// Verbs on cloud-to-device messages.
#[derive(Subcommand)]
pub(super) enum C2dVerb {
    /// Send a message to a device or module; it waits in the queue until it is delivered or expires
    #[command(after_help = SEND_EXAMPLES)]
    Send(SendArgs),
    /// Print the messages that wait for a device or module or are being delivered, and leave them in the queue
    Peek {
        #[command(flatten)]
        queue: QueueArgs,
        /// The highest number of messages to print
        #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..=100))]
        top: u64,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
    /// Remove every message that waits for a device or module or is being delivered
    Purge {
        #[command(flatten)]
        queue: QueueArgs,
        #[command(flatten)]
        output: OutputArgs,
        #[command(flatten)]
        access: Access,
    },
}

/// Whose queue. An option with an empty value counts as absent.
#[derive(Args)]
pub(super) struct QueueArgs {
    /// The device
    #[arg(short, long, value_name = "ID", value_parser = DeviceId::parse)]
    device_id: DeviceId,
    /// A module of the device
    #[arg(short, long, value_name = "ID")]
    module_id: Option<String>,
}

/// A message to send. An option with an empty value counts as absent.
#[derive(Args)]
pub(super) struct SendArgs {
    #[command(flatten)]
    queue: QueueArgs,
    /// The body
    #[arg(long, visible_alias = "da", value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    data: String,
    /// Application properties, names and values percent-encoded
    #[arg(short, long, visible_alias = "properties", value_name = "K=V&K2=V2")]
    props: Option<String>,
    /// Up to 128 characters; the hub makes one if it is absent
    #[arg(long, visible_alias = "mid", value_name = "TEXT")]
    message_id: Option<String>,
    #[arg(long, visible_alias = "cid", value_name = "TEXT")]
    correlation_id: Option<String>,
    #[arg(long, visible_alias = "uid", value_name = "TEXT")]
    user_id: Option<String>,
    /// For example application/json
    #[arg(long, visible_alias = "ct", value_name = "TEXT")]
    content_type: Option<String>,
    /// For example utf-8
    #[arg(long, visible_alias = "ce", value_name = "TEXT")]
    content_encoding: Option<String>,
    /// When it expires: a time (2026-11-24T12:00:00Z), milliseconds since 1970, or from now on (+90s, +10m, +2h, +1d)
    #[arg(long, visible_alias = "expiry-time-utc", value_name = "TIME")]
    expiry: Option<String>,
    /// Which outcomes the hub reports back: none, positive, negative or full
    #[arg(long, value_name = "WHICH")]
    ack: Option<String>,
    #[command(flatten)]
    access: Access,
}

impl C2dVerb {
    pub(super) async fn run(self) -> Result<(), Failure> {
        match self {
            C2dVerb::Send(message) => {
                let to = message.queue.owner()?;
                let headers = message.headers(Timestamp::now())?;
                let rest = Rest::new(message.access.login()?)?;
                let path = [path(&to), vec!["messages", "deviceBound"]].concat();
                rest.post(&path, headers, message.data.into_bytes()).await
            }
            C2dVerb::Peek { queue, top, output, access } => {
                let of = queue.owner()?;
                let path = [vec!["api", "v1"], path(&of), vec!["c2d-messages"]].concat();
                let rest = Rest::new(access.login()?)?;
                output.print(&rest.get(&path, &[("top", &top.to_string())]).await?, MESSAGE_COLUMNS)
            }
            C2dVerb::Purge { queue, output, access } => {
                let of = queue.owner()?;
                let path = [path(&of), vec!["commands"]].concat();
                let rest = Rest::new(access.login()?)?;
                output.print(&rest.delete_for_answer(&path).await?, PURGE_COLUMNS)
            }
        }
    }
}

impl QueueArgs {
    fn owner(&self) -> Result<IdentityId, Failure> {
        let module = present(&self.module_id).map(ModuleId::parse).transpose();
        let module = module.map_err(|error| Failure::usage(format!("--module-id: {error}")))?;
        Ok(IdentityId { device: self.device_id.clone(), module })
    }
}

impl SendArgs {
    /// Property names are case-sensitive and header names are not, so all properties go into one header.
    fn headers(&self, now: Timestamp) -> Result<HeaderMap, Failure> {
        let expiry = present(&self.expiry).map(|text| parse_expiry(text, now)).transpose()?;
        let expiry = expiry.map(|expiry| format!("{expiry:.3}"));
        let given = [
            ("--message-id", names::MESSAGE_ID, present(&self.message_id)),
            ("--correlation-id", names::CORRELATION_ID, present(&self.correlation_id)),
            ("--user-id", names::USER_ID, present(&self.user_id)),
            ("--content-type", names::CONTENT_TYPE, present(&self.content_type)),
            ("--content-encoding", names::CONTENT_ENCODING, present(&self.content_encoding)),
            ("--expiry", names::EXPIRY, expiry.as_deref()),
            ("--ack", names::ACK, present(&self.ack)),
            ("--props", names::PROPERTIES, present(&self.props)),
        ];
        let mut headers = HeaderMap::new();
        for (option, name, value) in given {
            let Some(value) = value else { continue };
            // The hub reads header values as UTF-8.
            let value = HeaderValue::from_bytes(value.as_bytes());
            let value = value.map_err(|_| {
                Failure::usage(format!("{option}: a message cannot carry control characters; remove them"))
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
        Ok(headers)
    }
}

fn present(option: &Option<String>) -> Option<&str> {
    option.as_deref().filter(|text| !text.is_empty())
}

/// A time with its zone, milliseconds since 1970, or `+` and a number of s, m, h or d.
fn parse_expiry(text: &str, now: Timestamp) -> Result<Timestamp, Failure> {
    let parsed = match text.strip_prefix('+') {
        Some(duration) => parse_duration(duration).and_then(|duration| now.checked_add(duration).ok()),
        None => match text.parse::<i64>() {
            Ok(milliseconds) => Timestamp::from_millisecond(milliseconds).ok(),
            Err(_) => text.parse().ok(),
        },
    };
    parsed.ok_or_else(|| {
        let expected = "a time with its zone (2026-11-24T12:00:00Z), milliseconds since 1970, or +10m";
        Failure::usage(format!("--expiry: {text:?} is not {expected}"))
    })
}

fn parse_duration(text: &str) -> Option<SignedDuration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    number.parse::<u32>().ok().map(|number| SignedDuration::from_secs(i64::from(number) * seconds))
}

const MESSAGE_COLUMNS: &[Column] = &[
    ("Number", |message| scalar(message, "/sequenceNumber")),
    ("State", |message| scalar(message, "/state")),
    ("Message Id", |message| scalar(message, "/messageId")),
    ("Enqueued", |message| scalar(message, "/enqueuedTime")),
    ("Expires", |message| scalar(message, "/expiry")),
    ("Deliveries Abandoned", |message| scalar(message, "/deliveryCount")),
    ("Body", |message| scalar(message, "/body")),
];
const PURGE_COLUMNS: &[Column] = &[
    ("Device Id", |purged| scalar(purged, "/deviceId")),
    ("Module Id", |purged| scalar(purged, "/moduleId")),
    ("Messages Purged", |purged| scalar(purged, "/totalMessagesPurged")),
];

pub(super) const SEND_EXAMPLES: &str = "\
Examples:
  portcullis c2d-message send -d pump-7 --data 'open valve'
  portcullis c2d-message send -d pump-7 --data '{\"valve\":3}' --content-type application/json --props 'unit=bar&by=ops%20desk'
  portcullis c2d-message send -d pump-7 -m camera --data snap --expiry +10m --ack full
  portcullis c2d-message peek -d pump-7 -o table             # what waits; nothing is taken
  portcullis c2d-message purge -d pump-7                     # remove all messages";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(subcommand)]
        verb: C2dVerb,
    }

    fn message(arguments: &[&str]) -> SendArgs {
        let line = ["c2d-message", "send", "-d", "pump-7"].iter().chain(arguments);
        match Line::parse_from(line).verb {
            C2dVerb::Send(message) => message,
            C2dVerb::Peek { .. } | C2dVerb::Purge { .. } => panic!("another verb"),
        }
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn every_option_becomes_its_header() {
        let message = message(&[
            "--message-id",
            "m-1",
            "--correlation-id",
            "c-1",
            "--user-id",
            "ä",
            "--content-type",
            "text/plain",
            "--content-encoding",
            "utf-8",
            "--expiry",
            "+10m",
            "--ack",
            "full",
            "--props",
            "Colour=dark%20red&b=",
        ]);
        let headers = message.headers(now()).unwrap();
        assert_eq!(headers.len(), 8);
        assert_eq!(headers["iothub-userid"].as_bytes(), "ä".as_bytes());
        assert_eq!(headers["iothub-expiry"], "2026-11-24T12:10:00.000Z");
        assert_eq!(headers["iothub-properties"], "Colour=dark%20red&b=");
    }

    #[test]
    fn an_option_with_an_empty_value_counts_as_absent() {
        let message = message(&[
            "--message-id",
            "",
            "--correlation-id=",
            "--expiry",
            "",
            "--ack",
            "",
            "--props",
            "",
            "--module-id",
            "",
            "--data",
            "",
        ]);
        assert!(message.headers(now()).unwrap().is_empty());
        assert_eq!(message.queue.owner().unwrap().to_string(), "pump-7");
        assert_eq!(message.data, "");
    }

    #[test]
    fn data_may_begin_with_a_hyphen() {
        assert_eq!(message(&["--data", "-7.5"]).data, "-7.5");
    }

    #[test]
    fn t708_control_characters_cannot_be_smuggled_into_headers() {
        assert!(message(&["--message-id", "a\r\nAuthorization: x"]).headers(now()).is_err());
    }

    #[test]
    fn an_expiry_is_a_time_milliseconds_or_relative() {
        let expiry = |text| parse_expiry(text, now()).map(|expiry| expiry.to_string());
        for (text, time) in [
            ("2026-11-24T14:00:00+01:00", "2026-11-24T13:00:00Z"),
            ("2026-11-24T12:00:00.5Z", "2026-11-24T12:00:00.5Z"),
            ("1795521600000", "2026-11-24T12:00:00Z"),
            ("+90s", "2026-11-24T12:01:30Z"),
            ("+2h", "2026-11-24T14:00:00Z"),
            ("+1d", "2026-11-25T12:00:00Z"),
        ] {
            assert_eq!(expiry(text).as_deref(), Ok(time), "{text}");
        }
        for bad in
            ["soon", "2026-11-24T12:00:00", "+10", "+m", "+-1m", "+10w", "+", "+ä", "99999999999999999999"]
        {
            assert!(expiry(bad).is_err(), "{bad}");
        }
    }
}
