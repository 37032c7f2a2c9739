//! Which IP addresses a blob store may have. A user's address, or the name server of a user, may point inside.
//!
//! The rule lists what is allowed, not what is forbidden: of IPv6 only the global unicast range, of IPv4 every address
//! outside the special registries. An IPv6 address that embeds an IPv4 address is never decoded, and none is allowed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The reach of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The internet.
    Public,
    /// This machine or its own network. Allowed only for hosts that the operator lists.
    Private,
    /// No blob store can be here: multicast, link-local, a cloud's metadata service, translations of IPv4 and the like.
    Never,
}

/// The reach of an address.
pub(super) fn reach(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => reach_v6(address),
    }
}

/// Source: IANA IPv4 Special-Purpose Address Registry.
fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Never;
    }
    let within = |(network, bits): &(Ipv4Addr, u32)| {
        let mask = u32::MAX << (32 - bits);
        address.to_bits() & mask == network.to_bits()
    };
    if PRIVATE_V4.iter().any(within) {
        Reach::Private
    } else if SPECIAL_V4.iter().any(within) {
        Reach::Never
    } else {
        Reach::Public
    }
}

/// Source: IANA IPv6 Special-Purpose Address Registry and IPv6 Global Unicast Address Assignments.
fn reach_v6(address: Ipv6Addr) -> Reach {
    let within = |(network, bits): &(Ipv6Addr, u32)| {
        let mask = u128::MAX << (128 - bits);
        address.to_bits() & mask == network.to_bits()
    };
    if address == Ipv6Addr::LOCALHOST {
        return Reach::Private;
    }
    if METADATA_V6.contains(&address) || carries_v4(address) {
        return Reach::Never;
    }
    if within(&UNIQUE_LOCAL) {
        return Reach::Private;
    }
    if within(&GLOBAL) && !SPECIAL_V6.iter().any(within) { Reach::Public } else { Reach::Never }
}

/// Whether the lower half is an interface identifier that embeds an IPv4 address (ISATAP, RFC 5214).
fn carries_v4(address: Ipv6Addr) -> bool {
    let [_, _, _, _, high, low, _, _] = address.segments();
    high & !0x0200 == 0 && low == 0x5efe
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> Ipv4Addr {
    Ipv4Addr::new(a, b, c, d)
}

const fn v6(a: u16, b: u16, c: u16) -> Ipv6Addr {
    Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0)
}

const PRIVATE_V4: [(Ipv4Addr, u32); 5] = [
    (v4(10, 0, 0, 0), 8),
    (v4(100, 64, 0, 0), 10),
    (v4(127, 0, 0, 0), 8),
    (v4(172, 16, 0, 0), 12),
    (v4(192, 168, 0, 0), 16),
];
const SPECIAL_V4: [(Ipv4Addr, u32); 10] = [
    // "This" network.
    (v4(0, 0, 0, 0), 8),
    // Link-local; most clouds' metadata service is here.
    (v4(169, 254, 0, 0), 16),
    // IETF protocol assignments.
    (v4(192, 0, 0, 0), 24),
    // Documentation.
    (v4(192, 0, 2, 0), 24),
    // 6to4 relays.
    (v4(192, 88, 99, 0), 24),
    // Benchmarks.
    (v4(198, 18, 0, 0), 15),
    // Documentation.
    (v4(198, 51, 100, 0), 24),
    (v4(203, 0, 113, 0), 24),
    // Multicast.
    (v4(224, 0, 0, 0), 4),
    // Reserved, and the broadcast address.
    (v4(240, 0, 0, 0), 4),
];
/// Metadata and platform services that have addresses outside link-local ones: Azure's wire server, Alibaba's.
const METADATA_V4: [Ipv4Addr; 2] = [v4(168, 63, 129, 16), v4(100, 100, 100, 200)];
/// Amazon's metadata service, in the unique local range.
const METADATA_V6: [Ipv6Addr; 1] = [Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254)];
const UNIQUE_LOCAL: (Ipv6Addr, u32) = (v6(0xfc00, 0, 0), 7);
const GLOBAL: (Ipv6Addr, u32) = (v6(0x2000, 0, 0), 3);
/// Special addresses within the global range. Mapped, compatible and NAT64 addresses are outside it.
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    // IETF protocol assignments, Teredo among them.
    (v6(0x2001, 0, 0), 23),
    // Documentation.
    (v6(0x2001, 0x0db8, 0), 32),
    (v6(0x3fff, 0, 0), 20),
    // 6to4.
    (v6(0x2002, 0, 0), 16),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: Reach, addresses: &[&str]) {
        for text in addresses {
            assert_eq!(reach(text.parse().unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn t801_addresses_of_the_internet_are_public() {
        check(
            Reach::Public,
            &[
                "1.1.1.1",
                "9.255.255.255",
                "11.0.0.0",
                "20.60.0.1",
                "100.63.255.255",
                "100.128.0.0",
                "126.255.255.255",
                "128.0.0.0",
                "168.63.129.15",
                "169.253.255.255",
                "169.255.0.0",
                "172.15.255.255",
                "172.32.0.0",
                "191.255.255.255",
                "192.0.1.0",
                "192.167.255.255",
                "192.169.0.0",
                "198.17.255.255",
                "198.20.0.0",
                "223.255.255.255",
                "2600:1f00::1",
                "2001:200::1",
                "2603:1030::5",
                "2a01:111::1",
                "3ffe::1",
            ],
        );
    }

    #[test]
    fn t801_addresses_of_this_machine_and_its_network_are_private() {
        check(
            Reach::Private,
            &[
                "127.0.0.1",
                "127.255.255.254",
                "10.0.0.1",
                "10.255.255.255",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.0.1",
                "192.168.255.255",
                "100.64.0.1",
                "100.127.255.255",
                "::1",
                "fc00::1",
                "fd12:3456:789a::1",
                "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            ],
        );
    }

    #[test]
    fn t801_addresses_no_blob_store_can_have() {
        check(
            Reach::Never,
            &[
                // Unspecified and "this" network.
                "0.0.0.0",
                "0.0.0.1",
                "0.255.255.255",
                "::",
                // Link-local and metadata.
                "169.254.169.254",
                "169.254.0.1",
                "168.63.129.16",
                "100.100.100.200",
                "192.0.0.192",
                "fd00:ec2::254",
                "fe80::1",
                "febf::1",
                "fec0::1",
                // Multicast, broadcast, reserved.
                "224.0.0.1",
                "239.255.255.255",
                "240.0.0.1",
                "255.255.255.255",
                "ff02::1",
                "ff0e::1",
                // Documentation, benchmarks.
                "192.0.2.1",
                "198.51.100.1",
                "203.0.113.1",
                "198.18.0.1",
                "198.19.255.255",
                "2001:db8::1",
                "3fff::1",
                "3fff:fff::1",
                "192.88.99.1",
                // IPv4 in IPv6: mapped, compatible, translated, NAT64, 6to4, Teredo, ISATAP.
                "::ffff:127.0.0.1",
                "::ffff:1.1.1.1",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "64:ff9b::7f00:1",
                "64:ff9b::1.1.1.1",
                "64:ff9b:1::10.0.0.1",
                "2002:7f00:1::1",
                "2001:0:7f00:1::1",
                "2600:1f00::5efe:7f00:1",
                "2600:1f00::200:5efe:7f00:1",
                "fd00::5efe:a00:1",
                // Outside what is handed out.
                "100::1",
                "4000::1",
                "5f00::1",
                "2001:1ff::1",
            ],
        );
    }
}
