//! The name of a hub.

use std::fmt;

use rustls_pki_types::ServerName;

/// A DNS name or an IPv4 address that fits into a connection string and into a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName(String);

impl HostName {
    /// Refuses an IPv6 address, because connection strings could not tell it from `name:port`.
    pub fn parse(text: &str) -> Result<Self, InvalidHostName> {
        let is_name = match ServerName::try_from(text) {
            Ok(ServerName::DnsName(_)) => !text.ends_with('.'),
            Ok(ServerName::IpAddress(address)) => std::net::IpAddr::from(address).is_ipv4(),
            _ => false,
        };
        if is_name { Ok(Self(text.to_owned())) } else { Err(InvalidHostName(text.to_owned())) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a host name: a DNS name such as \"hub.example.com\", or an IPv4 address, without scheme and port"
)]
pub struct InvalidHostName(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_taken() {
        for text in
            ["localhost", "hub.example.com", "HUB-1.example", "192.168.1.5", "a_b.test", &"a".repeat(63)]
        {
            assert_eq!(HostName::parse(text).map(|name| name.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn t912_what_is_no_name_is_refused() {
        let too_long = format!("{0}.{0}.{0}.{0}", "a".repeat(63));
        for text in [
            "",
            ".",
            "hub.",
            "*.example.com",
            "hub:8883",
            "https://hub",
            "hub/x",
            "a b",
            "::1",
            "[::1]",
            "256.1.1.1",
            "-a.test",
            "a..b",
            "hüb",
            "a\0b",
            &"a".repeat(64),
            &too_long,
        ] {
            assert!(HostName::parse(text).is_err(), "{text:?}");
        }
    }
}
