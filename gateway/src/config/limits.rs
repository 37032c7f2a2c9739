//! Every limit an operator may move: its default, its range and its meaning, each written once.
//!
//! To add a limit, add its line below; file, environment, `config print` and range check follow from it.

use std::time::Duration;

use super::text::{parse_bytes, parse_count, parse_duration, show_bytes, show_count, show_duration};

/// Declares `Limits` and the table of its settings. A line reads: name, type as kind, default, smallest and largest.
macro_rules! limits {
    ($( #[doc = $help:literal] $name:ident: $type:ty as $kind:ident = $default:expr, $min:expr, $max:expr; )+) => {
        /// What one peer, one connection and one request may cost at most.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct Limits {
            $( #[doc = $help] pub $name: $type, )+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $( $name: $default, )+ }
            }
        }

        /// Every limit, as a setting.
        pub(super) const LIMITS: &[Limit] = &[
            $( Limit {
                name: stringify!($name),
                help: $help,
                set: |limits, text| {
                    let value = kind!($kind, parse)(text)?;
                    if !($min..=$max).contains(&value) {
                        let show = kind!($kind, show);
                        return Err(format!("{} is not between {} and {}", show(value), show($min), show($max)));
                    }
                    limits.$name = value;
                    Ok(())
                },
                show: |limits| kind!($kind, show)(limits.$name),
            }, )+
        ];
    };
}

/// The functions that read and show a kind of value.
macro_rules! kind {
    (duration, parse) => {
        parse_duration
    };
    (duration, show) => {
        show_duration
    };
    (bytes, parse) => {
        parse_bytes
    };
    (bytes, show) => {
        show_bytes
    };
    (count, parse) => {
        parse_count
    };
    (count, show) => {
        show_count
    };
}

/// One limit, as a setting.
pub(super) struct Limit {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) set: fn(&mut Limits, &str) -> Result<(), String>,
    pub(super) show: fn(&Limits) -> String,
}

limits! {
    /// From accept to the end of the TLS handshake.
    handshake_time_max: Duration as duration = seconds(10), seconds(1), seconds(600);
    /// From accept to the end of CONNECT.
    connect_time_max: Duration as duration = seconds(15), seconds(1), seconds(600);
    /// Connections that have not yet proven who they are, in all.
    anonymous_connections_max: usize as count = 2_048, 1, 1_000_000;
    /// The same from one address (of IPv6, one /64).
    anonymous_per_address_max: usize as count = 256, 1, 1_000_000;
    /// Failed logins a second from one address (of IPv6, one /64) until it is turned away; 0 is no limit.
    failed_logins_per_address_per_second_max: usize as count = 20, 0, 1_000_000;
    /// Failed logins a second of one identity that are answered and recorded; 0 is no limit.
    failed_logins_per_identity_per_second_max: usize as count = 10, 0, 1_000_000;
    /// Refused identities of which the last refusals are remembered; as many again that nobody registered.
    refused_identities_max: usize as count = 10_000, 1, 1_000_000;
    /// How long a connection waits at most when its identity's was taken over just before; 0s is no wait.
    takeover_wait_time_max: Duration as duration = seconds(1), seconds(0), seconds(60);
    /// MQTT connections of devices and services that have proven who they are, in all.
    connections_max: usize as count = 1_000_000, 1, 10_000_000;
    /// Telemetry messages a second of one device or module, beyond which it is read more slowly; 0 is no limit.
    messages_per_identity_per_second_max: usize as count = 0, 0, 1_000_000;
    /// A CONNECT packet.
    connect_packet_bytes_max: usize as bytes = kib(32), kib(8), kib(256);
    /// Any other MQTT packet.
    packet_bytes_max: usize as bytes = kib(264), kib(8), kib(1_024);
    /// The payload of a telemetry message.
    telemetry_payload_bytes_max: usize as bytes = kib(256), kib(1), kib(1_024);
    /// The longest keep-alive a device gets; none, or a longer one, counts as this.
    keep_alive_max: Duration as duration = seconds(1_177), seconds(1), seconds(65_535);
    /// Subscriptions of one connection.
    filters_per_connection_max: usize as count = 16, 1, 1_000;
    /// C2D messages sent to one connection and not yet acknowledged.
    c2d_in_flight_max: usize as count = 16, 1, 1_000;
    /// Bytes held for a connection that does not read.
    output_bytes_max: usize as bytes = kib(256), kib(64), kib(16_384);
    /// How long a connection may not take what it is sent.
    write_time_max: Duration as duration = seconds(60), seconds(1), seconds(3_600);
    /// How long a token counts after its end.
    sas_expiry_leeway: Duration as duration = seconds(0), seconds(0), seconds(300);
    /// The body of a REST request.
    request_body_bytes_max: usize as bytes = kib(1_024), kib(1), kib(16_384);
    /// The request line and headers of a REST request.
    request_head_bytes_max: usize as bytes = kib(16), kib(8), kib(1_024);
    /// From the first byte of a REST request to its answer.
    request_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
    /// A file of identities that is uploaded to be imported.
    upload_bytes_max: usize as bytes = kib(4 * 1_024 * 1_024), kib(1), kib(1_024 * 1_024 * 1_024);
    /// How long such an upload may stand still.
    upload_idle_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
    /// Modules of one device.
    modules_per_device_max: usize as count = 20, 1, 1_000;
    /// C2D messages that wait for one device or module.
    queue_messages_max: usize as count = 50, 1, 10_000;
    /// A C2D message's body and properties.
    c2d_bytes_max: usize as bytes = kib(64), kib(1), kib(256);
    /// When a C2D message expires if its sender does not say.
    c2d_ttl_default: Duration as duration = seconds(3_600), seconds(1), seconds(30 * DAY_SECONDS);
    /// The furthest expiry a sender may ask for.
    c2d_ttl_max: Duration as duration = seconds(2 * DAY_SECONDS), seconds(1), seconds(30 * DAY_SECONDS);
    /// How often a device may abandon a C2D message until it is given up.
    c2d_delivery_count_max: usize as count = 10, 1, 100;
    /// How long a C2D message that was polled over HTTPS is locked if the device does not say.
    c2d_lock_time_default: Duration as duration = seconds(60), seconds(5), seconds(300);
    /// Feedback on C2D messages that waits for services; beyond it the oldest is dropped.
    feedback_records_max: usize as count = 100_000, 64, 10_000_000;
    /// How long feedback waits for a service.
    feedback_ttl_max: Duration as duration = seconds(3_600), seconds(60), seconds(2 * DAY_SECONDS);
    /// How long the first record of a batch of feedback waits for others.
    feedback_batch_time_max: Duration as duration = seconds(15), seconds(0), seconds(600);
    /// How often a batch of feedback is handed out at most.
    feedback_delivery_count_max: usize as count = 10, 1, 100;
    /// All waiting C2D messages of the hub.
    queued_bytes_max: usize as bytes = kib(1_024 * 1_024), kib(1_024), kib(1_024 * 1_024 * 1_024);
    /// A blob that a job reads or writes.
    blob_bytes_max: usize as bytes = kib(8 * 1_024 * 1_024), kib(1), kib(128 * 1_024 * 1_024);
    /// How long a blob store may take to answer, or to pass on the next 64 KiB.
    blob_idle_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
}

impl Limits {
    /// Limits that contradict each other, or nothing.
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        let contradictions = [
            (self.handshake_time_max > self.connect_time_max, "handshake_time_max is above connect_time_max"),
            (
                self.anonymous_per_address_max > self.anonymous_connections_max,
                "anonymous_per_address_max is above anonymous_connections_max",
            ),
            (
                self.connect_packet_bytes_max > self.packet_bytes_max,
                "connect_packet_bytes_max is above packet_bytes_max",
            ),
            (
                self.telemetry_payload_bytes_max > self.packet_bytes_max,
                "telemetry_payload_bytes_max is above packet_bytes_max",
            ),
            (self.c2d_bytes_max > self.output_bytes_max, "c2d_bytes_max is above output_bytes_max"),
            (self.c2d_ttl_default > self.c2d_ttl_max, "c2d_ttl_default is above c2d_ttl_max"),
        ];
        contradictions.into_iter().find(|(holds, _)| *holds).map(|(_, what)| what)
    }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn kib(kib: usize) -> usize {
    kib * 1_024
}

const DAY_SECONDS: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_within_its_range_and_read_back() {
        let defaults = Limits::default();
        let mut limits = defaults.clone();
        for limit in LIMITS {
            assert_eq!((limit.set)(&mut limits, &(limit.show)(&defaults)), Ok(()), "{}", limit.name);
        }
        assert_eq!(limits, defaults);
        assert_eq!(limits.contradiction(), None);
    }

    #[test]
    fn t912_a_limit_out_of_range_is_refused_and_changes_nothing() {
        let mut limits = Limits::default();
        let find = |name: &str| LIMITS.iter().find(|limit| limit.name == name).unwrap();
        let refused = (find("handshake_time_max").set)(&mut limits, "0s").unwrap_err();
        assert_eq!(refused, "0s is not between 1s and 10m");
        assert!((find("packet_bytes_max").set)(&mut limits, "1GiB").is_err());
        assert!((find("queue_messages_max").set)(&mut limits, "0").is_err());
        assert_eq!(limits, Limits::default());
    }

    #[test]
    fn t912_limits_that_contradict_each_other_are_found() {
        let limits = Limits { c2d_ttl_max: seconds(60), ..Limits::default() };
        assert_eq!(limits.contradiction(), Some("c2d_ttl_default is above c2d_ttl_max"));
    }

    #[test]
    fn names_end_in_their_unit_and_help_ends_in_a_full_stop() {
        for limit in LIMITS {
            let ends = ["_max", "_default", "_leeway"].iter().any(|end| limit.name.ends_with(end));
            assert!(ends && limit.help.ends_with('.'), "{}", limit.name);
        }
    }
}
