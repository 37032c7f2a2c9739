//! The host of a blob store: scheme, name and port in one canonical form, so that hosts compare exactly.
//!
//! Parsing is strict. It refuses what a browser would take for an address (`2130706433`, `0x7f.1`, `0177.0.0.1`), a
//! name that ends in a dot, letters outside ASCII, user information, and a port with a leading zero.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A blob store: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobHost {
    tls: bool,
    host: Host,
    port: u16,
}

/// A name in lower case, or an address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    Name(String),
    Address(IpAddr),
}

impl BlobHost {
    /// A host that the operator lists: `store.example.com`, `azurite.local:10000` or `http://127.0.0.1:10000`.
    /// Without a scheme it is https.
    pub fn parse(text: &str) -> Result<Self, InvalidBlobHost> {
        let (tls, authority) = match text.split_once("://") {
            Some((scheme, rest)) => (is_tls(scheme), rest),
            None => (Some(true), text),
        };
        let host = tls.and_then(|tls| Self::from_authority(tls, authority));
        host.ok_or_else(|| InvalidBlobHost(text.to_owned()))
    }

    /// The part of a URI between its scheme and its path. None unless it is a plain host with or without a port.
    pub(crate) fn from_authority(tls: bool, authority: &str) -> Option<Self> {
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']')?;
                let port = if after.is_empty() { None } else { Some(after.strip_prefix(':')?) };
                (Host::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
            }
            None => {
                let (host, port) = match authority.split_once(':') {
                    Some((host, port)) => (host, Some(port)),
                    None => (authority, None),
                };
                (Host::parse(host)?, port)
            }
        };
        let port = match port {
            Some(text) => parse_port(text)?,
            None => default_port(tls),
        };
        Some(Self { tls, host, port })
    }

    pub(crate) fn tls(&self) -> bool {
        self.tls
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Whether it is an account of Azure Blob storage, over https and on its usual port.
    ///
    /// Source: Azure Storage, "Storage account overview", account names: 3 to 24 lower-case letters and digits.
    pub(crate) fn is_azure(&self) -> bool {
        let Host::Name(name) = &self.host else { return false };
        let account = name.strip_suffix(AZURE_SUFFIX).unwrap_or_default();
        let letters = account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        self.tls && self.port == default_port(true) && letters && (3..=24).contains(&account.len())
    }
}

impl Host {
    /// A name or an IPv4 address in its usual form.
    fn parse(text: &str) -> Option<Self> {
        let name = text.to_ascii_lowercase();
        let last = name.rsplit('.').next()?;
        // Resolvers and URL parsers read a last part such as these as an address in an unusual form.
        let is_number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x");
        if is_number {
            return name.parse::<Ipv4Addr>().ok().map(|address| Self::Address(IpAddr::V4(address)));
        }
        let is_name = name.len() <= NAME_LENGTH_MAX && name.split('.').all(is_label);
        is_name.then_some(Self::Name(name))
    }
}

impl fmt::Display for BlobHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.tls { "https://" } else { "http://" })?;
        match &self.host {
            Host::Name(name) => f.write_str(name)?,
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}")?,
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]")?,
        }
        if self.port == default_port(self.tls) { Ok(()) } else { write!(f, ":{}", self.port) }
    }
}

/// The text does not name a blob host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a blob host such as \"store.example.com\", \"azurite.local:10000\" or \"http://127.0.0.1:10000\""
)]
pub struct InvalidBlobHost(String);

/// Whether a scheme uses TLS. None unless it is https or http.
pub(crate) fn is_tls(scheme: &str) -> Option<bool> {
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Some(true),
        "http" => Some(false),
        _ => None,
    }
}

fn is_label(label: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let hyphen_outside = label.starts_with('-') || label.ends_with('-');
    (1..=LABEL_LENGTH_MAX).contains(&label.len()) && label.bytes().all(plain) && !hyphen_outside
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || text.starts_with('0') {
        return None;
    }
    text.parse().ok()
}

fn default_port(tls: bool) -> u16 {
    if tls { 443 } else { 80 }
}

const AZURE_SUFFIX: &str = ".blob.core.windows.net";
const NAME_LENGTH_MAX: usize = 253;
const LABEL_LENGTH_MAX: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_operator_lists_is_written_in_one_way() {
        for (text, shown) in [
            ("azurite.local:10000", "https://azurite.local:10000"),
            ("store.example.com", "https://store.example.com"),
            ("https://Store.Example.com:443", "https://store.example.com"),
            ("HTTP://127.0.0.1:10000", "http://127.0.0.1:10000"),
            ("http://azurite", "http://azurite"),
            ("http://azurite:80", "http://azurite"),
            ("http://[::1]:10000", "http://[::1]:10000"),
            ("http://[0:0:0::1]", "http://[::1]"),
            ("blob_store-1.test:8443", "https://blob_store-1.test:8443"),
        ] {
            assert_eq!(BlobHost::parse(text).map(|host| host.to_string()), Ok(shown.to_owned()), "{text}");
            assert_eq!(BlobHost::parse(shown), BlobHost::parse(text), "{shown}");
        }
    }

    #[test]
    fn t912_what_is_no_blob_host_is_refused() {
        for text in [
            "",
            "http://",
            "ftp://store",
            "file:///etc",
            "*.example.com",
            "store.example.com/",
            "store.example.com/container",
            "store.example.com?x",
            "user@store.example.com",
            "store.example.com.",
            ".store",
            "a..b",
            "-store",
            "store-",
            "st\u{f6}re.example.com",
            "store.example.com:",
            "store.example.com:0",
            "store.example.com:080",
            "store.example.com:+80",
            "store.example.com:65536",
            "store.example.com:80:80",
            "st ore",
            "store\r\n",
            "store\0",
            "store%2e",
            "::1",
            "[::1",
            "[::1]x",
            "[::1]:",
            "[fe80::1%25eth0]",
            "[127.0.0.1]",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.0.0.1",
            "127.0.0.01",
            "127.0.0.1.2",
            "127.0.0.1.",
            "1.2.3.256",
            "store.0x7f",
            "store.5",
            &"a".repeat(64),
            &format!("{0}.{0}.{0}.{0}", "a".repeat(63)),
        ] {
            assert!(BlobHost::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn t804_azure_is_told_from_those_that_look_like_it() {
        let is_azure = |text: &str| BlobHost::parse(text).is_ok_and(|host| host.is_azure());
        for text in [
            "acct.blob.core.windows.net",
            "ACCT.Blob.Core.Windows.Net",
            "acct.blob.core.windows.net:443",
            "https://0abc12.blob.core.windows.net",
        ] {
            assert!(is_azure(text), "{text}");
        }
        for text in [
            "blob.core.windows.net",
            ".blob.core.windows.net",
            "ac.blob.core.windows.net",
            "acctblob.core.windows.net",
            "acct.blob.core.windows.net.",
            "acct.blob.core.windows.net.evil.test",
            "acct.blob.core.windows.net.evil",
            "acct.blob.core.windows.network",
            "evil.test.blob.core.windows.net",
            "acct.privatelink.blob.core.windows.net",
            "evil-acct.blob.core.windows.net",
            "xn--acct-0qa.blob.core.windows.net",
            "acct.xn--blob-0qa.core.windows.net",
            "acct.blob.core.windows.net:8443",
            "http://acct.blob.core.windows.net",
            "http://acct.blob.core.windows.net:443",
            "acct.blob.core.windows.com",
            "acct.file.core.windows.net",
            "acct.blob-core.windows.net",
            "acct.blob.core.windows.net@evil.test",
            "acct\u{3002}blob.core.windows.net",
            "\u{430}cct.blob.core.windows.net",
        ] {
            assert!(!is_azure(text), "{text}");
        }
    }
}
