//! Every limit that an operator may change, with its default, its range and its meaning, each written once.
//!
//! To add a limit, add its line below. File, environment, `config print` and range check follow from it.

use std::time::Duration;

use super::text::{parse_bytes, parse_count, parse_duration, show_bytes, show_count, show_duration};

/// Declares `Limits` and the table of its settings. A line reads: name, type as kind, default, smallest and largest.
macro_rules! limits {
    ($( #[doc = $help:literal] $name:ident: $type:ty as $kind:ident = $default:expr, $min:expr, $max:expr; )+) => {
        /// The most that one peer, one connection and one request may cost.
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
    /// Connections that have not signed in yet, in all.
    anonymous_connections_max: usize as count = 2_048, 1, 1_000_000;
    /// The same from one address (of IPv6, one /64).
    anonymous_per_address_max: usize as count = 256, 1, 1_000_000;
    /// Failed sign-ins a second from one address (of IPv6, one /64) before the hub refuses the address; 0 is no limit.
    failed_logins_per_address_per_second_max: usize as count = 20, 0, 1_000_000;
    /// Failed sign-ins a second of one identity that the hub answers and records; 0 is no limit.
    failed_logins_per_identity_per_second_max: usize as count = 10, 0, 1_000_000;
    /// Refused identities whose last refusals the hub keeps, and as many again for ids that are not registered.
    refused_identities_max: usize as count = 10_000, 1, 1_000_000;
    /// The longest wait of a connection whose identity was taken over just before; 0s is no wait.
    takeover_wait_time_max: Duration as duration = seconds(1), seconds(0), seconds(60);
    /// MQTT connections of devices and services that have signed in, in all.
    connections_max: usize as count = 1_000_000, 1, 10_000_000;
    /// Telemetry messages a second of one device or module, above which the hub reads it more slowly; 0 is no limit.
    messages_per_identity_per_second_max: usize as count = 0, 0, 1_000_000;
    /// A CONNECT packet.
    connect_packet_bytes_max: usize as bytes = kib(32), kib(8), kib(256);
    /// Any other MQTT packet.
    packet_bytes_max: usize as bytes = kib(264), kib(8), kib(1_024);
    /// The payload of a telemetry message.
    telemetry_payload_bytes_max: usize as bytes = kib(256), kib(1), kib(1_024);
    /// The longest keep-alive of a device; no keep-alive, or a longer one, counts as this.
    keep_alive_max: Duration as duration = seconds(1_177), seconds(1), seconds(65_535);
    /// Subscriptions of one connection.
    filters_per_connection_max: usize as count = 16, 1, 1_000;
    /// C2D messages sent to one connection that it has not acknowledged yet.
    c2d_in_flight_max: usize as count = 16, 1, 1_000;
    /// Bytes that the hub holds for a connection that does not read.
    output_bytes_max: usize as bytes = kib(256), kib(64), kib(16_384);
    /// How long a connection may fail to read before the hub closes it.
    write_time_max: Duration as duration = seconds(60), seconds(1), seconds(3_600);
    /// How long a token is still valid after its expiry.
    sas_expiry_leeway: Duration as duration = seconds(0), seconds(0), seconds(300);
    /// The body of a REST request.
    request_body_bytes_max: usize as bytes = kib(1_024), kib(1), kib(16_384);
    /// The request line and headers of a REST request.
    request_head_bytes_max: usize as bytes = kib(16), kib(8), kib(1_024);
    /// From the first byte of a REST request to its answer.
    request_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
    /// Watchers of live data at once, such as open portal pages.
    watchers_max: usize as count = 100, 1, 10_000;
    /// People signed in to the portal at once; one more signs out the one who has been idle longest.
    portal_sessions_max: usize as count = 1_000, 1, 100_000;
    /// How long a person may be idle before the portal signs them out.
    portal_idle_time_max: Duration as duration = seconds(3_600), seconds(60), seconds(DAY_SECONDS);
    /// How long a person stays signed in to the portal at most.
    portal_session_time_max: Duration as duration = seconds(12 * 3_600), seconds(60), seconds(30 * DAY_SECONDS);
    /// A file of identities that is uploaded for an import.
    upload_bytes_max: usize as bytes = kib(4 * 1_024 * 1_024), kib(1), kib(1_024 * 1_024 * 1_024);
    /// How long such an upload may make no progress.
    upload_idle_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
    /// Modules of one device.
    modules_per_device_max: usize as count = 20, 1, 1_000;
    /// C2D messages that wait for one device or module.
    queue_messages_max: usize as count = 50, 1, 10_000;
    /// A C2D message's body and properties.
    c2d_bytes_max: usize as bytes = kib(64), kib(1), kib(256);
    /// The time to live of a C2D message whose sender names no expiry.
    c2d_ttl_default: Duration as duration = seconds(3_600), seconds(1), seconds(30 * DAY_SECONDS);
    /// The latest expiry that a sender may name.
    c2d_ttl_max: Duration as duration = seconds(2 * DAY_SECONDS), seconds(1), seconds(30 * DAY_SECONDS);
    /// How often a device may abandon a C2D message before the hub gives it up.
    c2d_delivery_count_max: usize as count = 10, 1, 100;
    /// How long a C2D message that was received over HTTPS is locked if the device names no time.
    c2d_lock_time_default: Duration as duration = seconds(60), seconds(5), seconds(300);
    /// Feedback records on C2D messages that wait for services; above it the hub drops the oldest.
    feedback_records_max: usize as count = 100_000, 64, 10_000_000;
    /// How long feedback waits for a service.
    feedback_ttl_max: Duration as duration = seconds(3_600), seconds(60), seconds(2 * DAY_SECONDS);
    /// How long the first record of a batch of feedback waits for more.
    feedback_batch_time_max: Duration as duration = seconds(15), seconds(0), seconds(600);
    /// How often the hub delivers a batch of feedback at most.
    feedback_delivery_count_max: usize as count = 10, 1, 100;
    /// All waiting C2D messages of the hub.
    queued_bytes_max: usize as bytes = kib(1_024 * 1_024), kib(1_024), kib(1_024 * 1_024 * 1_024);
    /// A blob that a job reads or writes.
    blob_bytes_max: usize as bytes = kib(8 * 1_024 * 1_024), kib(1), kib(128 * 1_024 * 1_024);
    /// How long a blob store may take to answer, or to transfer the next 64 KiB.
    blob_idle_time_max: Duration as duration = seconds(30), seconds(1), seconds(600);
}

impl Limits {
    /// The first pair of limits that contradict each other, if any do.
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
            (
                self.portal_idle_time_max > self.portal_session_time_max,
                "portal_idle_time_max is above portal_session_time_max",
            ),
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
