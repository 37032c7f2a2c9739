//! The address of a container with its shared access signature, as a user gives it, and of the blobs in it.
//!
//! The code parses it strictly before any URL library does. Such a library repairs a broken URI, and the result is not
//! what was checked. The query is passed on unchanged and never shown.

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use zeroize::Zeroizing;

use crate::config::blob_host::{BlobHost, is_tls};

/// A container that a user names, at a permitted host.
#[derive(Clone)]
pub(super) struct ContainerAddress {
    host: BlobHost,
    /// Begins with a slash and does not end in one.
    path: String,
    /// The query without its question mark.
    signature: Zeroizing<String>,
    listed: bool,
}

impl ContainerAddress {
    /// Parses a container's URI. Permitted hosts are Azure's own and those that the operator lists.
    pub(super) fn parse(uri: &str, listed: &[BlobHost]) -> Result<Self, &'static str> {
        if uri.len() > URI_BYTES_MAX {
            return Err("the container's URI is too long");
        }
        if !uri.bytes().all(is_uri_byte) {
            return Err("the container's URI has characters that are not allowed in a URI");
        }
        let (scheme, rest) = uri.split_once("://").ok_or(NO_URI)?;
        let tls = is_tls(scheme).ok_or("the container's URI is neither https nor http")?;
        let (before, signature) = rest.split_once('?').ok_or(NO_SIGNATURE)?;
        let (authority, path) = before.split_once('/').ok_or(NO_CONTAINER)?;
        if authority.contains('@') {
            return Err("the container's URI has a user in it");
        }
        let host = BlobHost::from_authority(tls, authority).ok_or("the container's URI has no plain host")?;
        let listed = listed.contains(&host);
        if !listed && !host.is_azure() {
            return Err(HOST_NOT_ALLOWED);
        }
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        // An emulator's path begins with the account.
        let deep_enough = if listed { 1..=2 } else { 1..=1 };
        if !segments.all(is_container) || !deep_enough.contains(&path.split('/').count()) {
            return Err(NO_CONTAINER);
        }
        check_signature(signature)?;
        let (path, signature) = (format!("/{path}"), Zeroizing::new(signature.to_owned()));
        Ok(Self { host, path, signature, listed })
    }

    pub(super) fn host(&self) -> &BlobHost {
        &self.host
    }

    /// Whether the operator lists the host, so that it may have a private address.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// The URL of a blob, or of an operation on it: `comp=block&blockid=…`.
    pub(super) fn url(&self, blob: &str, operation: &str) -> Result<Url, &'static str> {
        check_blob_name(blob)?;
        let Self { host, path, signature, .. } = self;
        let name = utf8_percent_encode(blob, &NAME);
        let between = if operation.is_empty() { "" } else { "&" };
        let text = Zeroizing::new(format!("{host}{path}/{name}?{operation}{between}{}", signature.as_str()));
        let url = Url::parse(&text).map_err(|_| NO_URI)?;
        // The library's result must still be what was checked.
        let origin = Url::parse(&host.to_string()).map_err(|_| NO_URI)?.origin();
        if url.origin() != origin || !url.path().starts_with(path.as_str()) || !url.username().is_empty() {
            return Err(NO_URI);
        }
        Ok(url)
    }
}

impl fmt::Display for ContainerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.host, self.path)
    }
}

impl fmt::Debug for ContainerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerAddress({self})")
    }
}

/// The bytes of a path or query in RFC 3986, and the brackets of an IPv6 address. No blank, control character,
/// backslash or fragment, and nothing outside ASCII.
fn is_uri_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte)
}

/// Source: Azure Storage, "Naming and referencing containers". The accounts of emulators have the same form.
fn is_container(segment: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&segment.len()) && segment.bytes().all(plain)
}

/// Checks that there is a signature, and that no parameter changes what a request does.
fn check_signature(query: &str) -> Result<(), &'static str> {
    let mut signed = false;
    for part in query.split('&') {
        let (name, value) = part.split_once('=').ok_or(NO_SIGNATURE)?;
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        let foreign = OPERATIONS.iter().any(|operation| operation.eq_ignore_ascii_case(name));
        if !name.bytes().all(plain) || foreign {
            return Err(
                "the query of the container's URI holds more than a shared access signature; remove the rest",
            );
        }
        signed |= name == "sig" && !value.is_empty();
    }
    if signed { Ok(()) } else { Err(NO_SIGNATURE) }
}

/// Source: Azure Storage, "Naming and referencing containers, blobs, and metadata".
fn check_blob_name(name: &str) -> Result<(), &'static str> {
    let length = (1..=1024).contains(&name.chars().count());
    let plain = name.chars().all(|c| !c.is_control() && c != '\\');
    let segments = name.split('/').all(|segment| !matches!(segment, "" | "." | "..")) && !name.ends_with('.');
    if length && plain && segments { Ok(()) } else { Err("this is not a valid name of a blob") }
}

/// The characters that stay unencoded in the path of a blob.
const NAME: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');
/// Parameters that choose an operation.
const OPERATIONS: [&str; 8] =
    ["comp", "restype", "blockid", "snapshot", "versionid", "deletetype", "timeout", "prefix"];
/// A user delegation signature has about 600 bytes.
const URI_BYTES_MAX: usize = 4_096;
const NO_URI: &str = "the container's URI is not a valid URI";
const NO_CONTAINER: &str = "the container's URI names no container";
const NO_SIGNATURE: &str = "the container's URI has no shared access signature";
const HOST_NOT_ALLOWED: &str =
    "the container's host is not Azure Blob storage over https and is not listed in jobs.blob_hosts";

#[cfg(test)]
mod tests {
    use super::*;

    const SAS: &str = "sv=2024-11-04&sr=c&sp=rwd&se=2030-01-01T00%3A00%3A00Z&sig=c2VjcmV0%2Bc2VjcmV0%3D";

    fn listed() -> Vec<BlobHost> {
        ["http://127.0.0.1:10000", "azurite.local:10000", "http://[::1]:10000"]
            .map(|text| BlobHost::parse(text).unwrap())
            .to_vec()
    }

    fn parse(uri: &str) -> Result<ContainerAddress, &'static str> {
        ContainerAddress::parse(uri, &listed())
    }

    #[test]
    fn a_blob_name_goes_before_the_signature_which_stays_as_it_is() {
        for (base, shown) in [
            ("https://acct.blob.core.windows.net/reg", "https://acct.blob.core.windows.net/reg"),
            ("https://acct.blob.core.windows.net/reg/", "https://acct.blob.core.windows.net/reg"),
            ("HTTPS://Acct.Blob.core.windows.net:443/reg", "https://acct.blob.core.windows.net/reg"),
            ("http://127.0.0.1:10000/devstoreaccount1/reg", "http://127.0.0.1:10000/devstoreaccount1/reg"),
            ("http://[::1]:10000/devstoreaccount1/reg", "http://[::1]:10000/devstoreaccount1/reg"),
            ("https://azurite.local:10000/reg", "https://azurite.local:10000/reg"),
        ] {
            let address = parse(&format!("{base}?{SAS}")).unwrap();
            assert_eq!(address.to_string(), shown);
            let url = address.url("devices.txt", "").unwrap();
            assert_eq!(url.as_str(), format!("{shown}/devices.txt?{SAS}"));
            let url = address.url("a b/ü%2e.txt", "comp=block&blockid=MDA%3D").unwrap();
            assert_eq!(
                url.as_str(),
                format!("{shown}/a%20b/%C3%BC%252e.txt?comp=block&blockid=MDA%3D&{SAS}")
            );
        }
    }

    #[test]
    fn t807_the_signature_is_shown_nowhere() {
        let address = parse(&format!("https://acct.blob.core.windows.net/reg?{SAS}")).unwrap();
        for text in [address.to_string(), format!("{address:?}"), format!("{address:#?}")] {
            assert!(text.contains("acct.blob.core.windows.net/reg"), "{text}");
            assert!(!text.contains('?') && !text.contains("sig") && !text.contains("c2Vj"), "{text}");
        }
        for uri in
            [format!("https://evil.test/reg?{SAS}"), format!("https://acct.blob.core.windows.net?{SAS}")]
        {
            let reason = parse(&uri).unwrap_err();
            assert!(!reason.contains("sig=") && !reason.contains("c2Vj") && !reason.contains("evil"));
        }
    }

    #[test]
    fn t801_addresses_in_every_form_are_refused() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:10001",
            "10.0.0.5",
            "192.168.1.1",
            "169.254.169.254",
            "168.63.129.16",
            "0.0.0.0",
            "224.0.0.1",
            "[::1]",
            "[::]",
            "[::]:10000",
            "[::ffff:127.0.0.1]:10000",
            "[0:0:0:0:0:ffff:7f00:1]:10000",
            "[64:ff9b::7f00:1]",
            "[fe80::1]",
            "[fd00::1]",
            "2130706433",
            "2130706433:10000",
            "0x7f000001:10000",
            "0x7f.0.0.1:10000",
            "0177.0.0.1:10000",
            "017700000001:10000",
            "127.1:10000",
            "127.0.1:10000",
            "0:10000",
            "localhost",
            "localhost:10000",
            "127.0.0.1.:10000",
            "127.0.0.1.nip.io",
        ] {
            for scheme in ["http", "https"] {
                let uri = format!("{scheme}://{host}/devstoreaccount1/reg?{SAS}");
                assert!(parse(&uri).is_err(), "{uri}");
            }
        }
    }

    #[test]
    fn t803_other_schemes_users_odd_ports_and_control_characters_are_refused() {
        let path = format!("/reg?{SAS}");
        for before in [
            "http://acct.blob.core.windows.net",
            "http://acct.blob.core.windows.net:443",
            "file://acct.blob.core.windows.net",
            "ftp://acct.blob.core.windows.net",
            "gopher://acct.blob.core.windows.net",
            "wasbs://acct.blob.core.windows.net",
            "//acct.blob.core.windows.net",
            "acct.blob.core.windows.net",
            "https:acct.blob.core.windows.net",
            "https:/acct.blob.core.windows.net",
            "https:\\\\acct.blob.core.windows.net",
            " https://acct.blob.core.windows.net",
            "https://user@acct.blob.core.windows.net",
            "https://user:password@acct.blob.core.windows.net",
            "https://acct.blob.core.windows.net@evil.test",
            "https://acct.blob.core.windows.net:443@evil.test",
            "https://evil.test\\@acct.blob.core.windows.net",
            "https://evil.test#@acct.blob.core.windows.net",
            "https://evil.test#.blob.core.windows.net",
            "https://acct.blob.core.windows.net:80",
            "https://acct.blob.core.windows.net:8443",
            "https://acct.blob.core.windows.net:0443",
            "https://acct.blob.core.windows.net:",
            "https://acct.blob.core.windows.net:-1",
            "https://acct.blob.core.windows.net:443:443",
            "https://azurite.local",
            "http://azurite.local:10000",
            "https://127.0.0.1:10000",
            "https://acct.blob.core.windows.net\r\n",
            "https://acct.blob.core.windows.net\n",
            "https://acct.blob.core\t.windows.net",
            "https://acct.blob.core.windows.net%0d%0a",
            "https://acct%2eblob.core.windows.net",
            "https://acct.blob.core.windows.net\0",
        ] {
            assert!(parse(&format!("{before}{path}")).is_err(), "{before:?}");
        }
        for after in [
            "",
            "/",
            "/?",
            "/reg",
            "/reg?",
            "/reg#sig=x",
            "/reg?sig=x#y",
            "/reg?sig=",
            "/reg?se=1",
            "/reg?sig",
            "/reg?sig=x\r\nHost: evil.test",
            "/reg?sig=x&",
            "/reg?sig=x y",
            "/reg?sig=\u{fc}",
            "/reg?comp=list&sig=x",
            "/reg?COMP=list&sig=x",
            "/reg?c%6fmp=list&sig=x",
            "/reg?restype=container&sig=x",
            "//reg?sig=x",
            "/reg//?sig=x",
            "/./reg?sig=x",
            "/../reg?sig=x",
            "/..?sig=x",
            "/%2e%2e?sig=x",
            "/reg%2f..?sig=x",
            "/reg/devices.txt?sig=x",
            "/reg/more?sig=x",
            "/$logs?sig=x",
            "/r\r\neg?sig=x",
        ] {
            assert!(parse(&format!("https://acct.blob.core.windows.net{after}")).is_err(), "{after:?}");
        }
        let long = format!("https://acct.blob.core.windows.net/reg?sig={}", "x".repeat(URI_BYTES_MAX));
        assert!(parse(&long).is_err());
    }

    #[test]
    fn t804_hosts_off_the_list_are_refused() {
        for host in [
            "evil.test",
            "acct.blob.core.windows.net.evil.test",
            "evil-acct.blob.core.windows.net",
            "acctblob.core.windows.net",
            "acct.blob.core.windows.net.",
            "acct.blob.core.windows.net..",
            "acct.blob.core.windows.net.:443",
            "xn--blob-0qa.core.windows.net",
            "xn--acct-0qa.blob.core.windows.net",
            "\u{430}cct.blob.core.windows.net",
            "acct.blob.core.windows.net\u{2024}",
            "acct\u{3002}blob.core.windows.net",
            "azurite.local.:10000",
            "azurite.local:10001",
            "azurite.local.evil.test:10000",
            "evil.azurite.local:10000",
            "azurite-local:10000",
            "",
            ":443",
        ] {
            assert!(parse(&format!("https://{host}/reg?{SAS}")).is_err(), "{host}");
        }
    }

    #[test]
    fn a_blob_cannot_leave_its_container() {
        let address = parse(&format!("https://acct.blob.core.windows.net/reg?{SAS}")).unwrap();
        for name in
            ["", "/", "a/", "/a", "a//b", ".", "..", "../other/x", "a/../../x", "a\\b", "a\nb", "a\0", "a."]
        {
            assert!(address.url(name, "").is_err(), "{name:?}");
        }
        assert!(address.url(&"a".repeat(1_025), "").is_err());
        for name in ["devices.txt", "2026/11/devices.txt", "?x=1", "a#b", "%2e%2e/x", "...x"] {
            let url = address.url(name, "").unwrap();
            assert!(url.path().starts_with("/reg/") && url.query() == Some(SAS), "{url}");
        }
    }
}
