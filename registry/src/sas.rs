//! Shared access signature tokens: read, check, sign. Pure: time is an argument, keys are brought along.
//!
//! A token is `SharedAccessSignature sr={resource}&sig={signature}&se={expiry}[&skn={policy}]`. The signature is over
//! the bytes of `sr` and `se` exactly as they are in the token; they are decoded once, afterwards, and never encoded
//! again, because every SDK encodes them differently.
//!
//! Source: IoT Hub, "Control access to IoT Hub by using shared access signatures".

use std::borrow::Cow;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;

use crate::credential::SymmetricKey;

/// A token that has been read but not believed.
#[derive(Clone, Debug)]
pub struct SasToken<'a> {
    signed_resource: &'a str,
    signed_expiry: &'a str,
    signature: [u8; SIGNATURE_BYTES],
    resource: Cow<'a, str>,
    policy: Option<Cow<'a, str>>,
    expiry: i64,
}

/// Exactly what is wrong with a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SasError {
    /// The text does not begin as a token does.
    #[error("it does not begin with `SharedAccessSignature `")]
    NotAToken,
    /// The text is longer than any token.
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// This field is absent or empty.
    #[error("it has no {0}")]
    Missing(&'static str),
    /// This field is there more than once.
    #[error("it has {0} twice")]
    Duplicate(&'static str),
    /// `sig` is not the base64 of 32 bytes.
    #[error("its sig is not the base64 of an HMAC-SHA256")]
    BadSignature,
    /// `se` is not a number of seconds.
    #[error("its se is not a time in seconds since 1970")]
    BadExpiry,
    /// `sr` does not decode to a plain path.
    #[error("its sr is not a path of plain, non-empty segments")]
    BadResource,
    /// `skn` does not decode to a policy's name, or to one that is too long.
    #[error("its skn is not a policy name")]
    BadPolicy,
    /// Neither key made the signature.
    #[error("its signature was made with another key")]
    SignatureMismatch,
    /// The token's time is over.
    #[error(
        "it expired {since_seconds} s ago by this hub's clock; if it is new, its maker's clock is that far behind or more"
    )]
    Expired {
        /// How long ago it ended, in seconds.
        since_seconds: i64,
    },
}

impl<'a> SasToken<'a> {
    /// Reads a token; its fields may come in any order, unknown ones are ignored.
    pub fn parse(text: &'a str) -> Result<Self, SasError> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err(SasError::TooLong);
        }
        let fields = text.strip_prefix("SharedAccessSignature ").ok_or(SasError::NotAToken)?;
        let (mut sr, mut sig, mut se, mut skn) = (None, None, None, None);
        for field in fields.split('&') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let (slot, name) = match name {
                _ if name.eq_ignore_ascii_case("sr") => (&mut sr, "sr"),
                _ if name.eq_ignore_ascii_case("sig") => (&mut sig, "sig"),
                _ if name.eq_ignore_ascii_case("se") => (&mut se, "se"),
                _ if name.eq_ignore_ascii_case("skn") => (&mut skn, "skn"),
                _ => continue,
            };
            if slot.replace(value).is_some() {
                return Err(SasError::Duplicate(name));
            }
        }
        let filled = |value: Option<&'a str>, name| {
            value.filter(|value| !value.is_empty()).ok_or(SasError::Missing(name))
        };
        let signed_resource = filled(sr, "sr")?;
        let signed_expiry = filled(se, "se")?;
        Ok(Self {
            signature: parse_signature(filled(sig, "sig")?)?,
            resource: parse_resource(signed_resource)?,
            policy: skn.filter(|name| !name.is_empty()).map(parse_policy).transpose()?,
            expiry: parse_expiry(signed_expiry)?,
            signed_resource,
            signed_expiry,
        })
    }

    /// What the token is for: host and path, decoded, without a leading slash.
    pub fn resource(&self) -> &str {
        &self.resource
    }

    /// The shared access policy it was signed for, if any.
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }

    /// Seconds since 1970.
    pub fn expiry(&self) -> i64 {
        self.expiry
    }

    /// Whether `key` made the signature; takes the same time for every key.
    pub fn is_signed_by(&self, key: &SymmetricKey) -> bool {
        signature_over(self.signed_resource, self.signed_expiry, key).verify_slice(&self.signature).is_ok()
    }

    /// Whether the token still counts at `now`; `leeway` is how long after its end it does.
    pub fn check_expiry(&self, now: Timestamp, leeway: Duration) -> Result<(), SasError> {
        let since_seconds = now.as_second().saturating_sub(self.expiry);
        let leeway = i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX);
        if since_seconds > leeway || (leeway == 0 && since_seconds >= 0) {
            return Err(SasError::Expired { since_seconds });
        }
        Ok(())
    }
}

/// A token for `resource` (decoded, as in `host/devices/d1`) that counts until `expiry` (seconds since 1970).
/// `policy` is the name of the shared access policy whose key this is, if it is one's.
pub fn sign(resource: &str, key: &SymmetricKey, expiry: i64, policy: Option<&str>) -> String {
    let sr = utf8_percent_encode(resource, UNRESERVED_KEPT).to_string();
    let se = expiry.to_string();
    let signature = STANDARD.encode(signature_over(&sr, &se, key).finalize().into_bytes());
    let sig = utf8_percent_encode(&signature, UNRESERVED_KEPT);
    match policy {
        None => format!("SharedAccessSignature sr={sr}&sig={sig}&se={se}"),
        Some(policy) => {
            let skn = utf8_percent_encode(policy, UNRESERVED_KEPT);
            format!("SharedAccessSignature sr={sr}&sig={sig}&se={se}&skn={skn}")
        }
    }
}

fn signature_over(sr: &str, se: &str, key: &SymmetricKey) -> Hmac<Sha256> {
    // HMAC takes keys of any length, so this cannot fail.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("HMAC takes any key length");
    mac.update(sr.as_bytes());
    mac.update(b"\n");
    mac.update(se.as_bytes());
    mac
}

/// Percent-decodes; a literal `+` is a plus and never a blank.
fn parse_signature(text: &str) -> Result<[u8; SIGNATURE_BYTES], SasError> {
    let (mut base64, mut length) = ([0; SIGNATURE_CHARS], 0);
    for byte in percent_decode_str(text) {
        *base64.get_mut(length).ok_or(SasError::BadSignature)? = byte;
        length += 1;
    }
    // The decoder wants room for whole groups.
    let mut bytes = [0; SIGNATURE_BYTES + 1];
    match STANDARD.decode_slice(&base64[..length], &mut bytes) {
        Ok(SIGNATURE_BYTES) => Ok(std::array::from_fn(|index| bytes[index])),
        _ => Err(SasError::BadSignature),
    }
}

/// The one allocation a token costs, unless nothing in it is encoded.
fn parse_resource(text: &str) -> Result<Cow<'_, str>, SasError> {
    let decoded = match text.contains('%') {
        false => Cow::Borrowed(text),
        true => {
            let mut bytes = Vec::with_capacity(text.len());
            bytes.extend(percent_decode_str(text));
            Cow::Owned(String::from_utf8(bytes).map_err(|_| SasError::BadResource)?)
        }
    };
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && !segment.chars().any(|c| c.is_control() || c == '\\' || c.is_whitespace())
    };
    if !decoded.split('/').all(plain) {
        return Err(SasError::BadResource);
    }
    Ok(decoded)
}

fn parse_policy(text: &str) -> Result<Cow<'_, str>, SasError> {
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| SasError::BadPolicy)?;
    if decoded.len() > POLICY_BYTES_MAX || decoded.chars().any(char::is_control) {
        return Err(SasError::BadPolicy);
    }
    Ok(decoded)
}

/// Plain decimal digits only: no sign, blank, fraction or other script's digits.
fn parse_expiry(text: &str) -> Result<i64, SasError> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(SasError::BadExpiry);
    }
    text.parse().map_err(|_| SasError::BadExpiry)
}

/// What Python's `quote(safe="")` leaves as it is.
const UNRESERVED_KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const SIGNATURE_BYTES: usize = 32;
/// The same in base64.
const SIGNATURE_CHARS: usize = 44;
const TOKEN_BYTES_MAX: usize = 4096;
const POLICY_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    const PRIMARY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
    const SECONDARY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    const POLICY: &str = "QEFCQ0RFRkdISUpLTE1OT1BRUlNUVVZXWFlaW1xdXl8=";
    const SE: i64 = 1_893_456_000;

    fn key(text: &str) -> SymmetricKey {
        SymmetricKey::parse_base64(text).unwrap()
    }

    fn is_signed(sr: &str, sig: &str, by: &str) -> bool {
        let token = format!("SharedAccessSignature sr={sr}&sig={sig}&se={SE}");
        SasToken::parse(&token).unwrap().is_signed_by(&key(by))
    }

    fn error(token: &str) -> SasError {
        SasToken::parse(token).unwrap_err()
    }

    fn with_sr(sr: &str) -> String {
        format!("SharedAccessSignature sr={sr}&sig=W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c%3D&se={SE}")
    }

    fn with_sig(sig: &str) -> String {
        format!("SharedAccessSignature sr=h%2Fdevices%2Fd&sig={sig}&se={SE}")
    }

    fn with_se(se: &str) -> String {
        format!(
            "SharedAccessSignature sr=h%2Fdevices%2Fd&sig=W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c%3D&se={se}"
        )
    }

    #[test]
    fn t303_the_signature_is_over_the_bytes_as_sent() {
        let cases = [
            ("hub.example.test%2Fdevices%2FDev-01", "W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c=", PRIMARY),
            (
                "hub.example.test%2Fdevices%2FDev-01",
                "NADy1/hYErjTDotxhCoyFNTmVPDA6Cequ7BWVlz3F/0=",
                SECONDARY,
            ),
            ("hub.example.test%2fdevices%2fDev-01", "2xEkSgpb7u41zhNDCOBoK44k6YpqyiNVw4TaFuYspAM=", PRIMARY),
            ("hub.example.test/devices/Dev-01", "FE6Z2efMslJQm8iXGbFCSfnPfdomCdeM8WhZ8XlE5qs=", PRIMARY),
            (
                "hub.example.test%2Fdevices%2FDev-01%2Fmodules%2Fmod1",
                "HKOcDufU7u7pzxcA2YuT3dLpq9KajcPPm+A8NIguE2I=",
                PRIMARY,
            ),
            (
                "hub.example.test%2Fdevices%2Fa%2Bb%23c",
                "MnQywnU6f1nQlXgePSTE7VUBKHS0X/Th4xLprOOqK2k=",
                PRIMARY,
            ),
            ("hub.example.test", "TRODCZ8graMmL8b+JDhDq5oTzXX/jb5eca3y5Z0B9UI=", POLICY),
            ("hub.example.test%2Fdevices", "EyomDWBKpZ6S12nFzxULoL5vawffrDjxBFNB1CBuHGQ=", POLICY),
        ];
        for (sr, sig, by) in cases {
            assert!(is_signed(sr, sig, by), "{sr}");
            let encoded = sig.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            assert!(is_signed(sr, &encoded, by), "{sr}");
            assert!(!is_signed(sr, sig, "MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="), "{sr}");
        }
    }

    #[test]
    fn whole_tokens_of_the_worked_example_are_signed_alike() {
        let cases = [
            (
                "hub.example.test/devices/Dev-01",
                PRIMARY,
                None,
                "SharedAccessSignature sr=hub.example.test%2Fdevices%2FDev-01&sig=W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c%3D&se=1893456000",
            ),
            (
                "hub.example.test",
                POLICY,
                Some("iothubowner"),
                "SharedAccessSignature sr=hub.example.test&sig=TRODCZ8graMmL8b%2BJDhDq5oTzXX%2Fjb5eca3y5Z0B9UI%3D&se=1893456000&skn=iothubowner",
            ),
        ];
        for (resource, by, policy, token) in cases {
            assert_eq!(sign(resource, &key(by), SE, policy), token);
            let read = SasToken::parse(token).unwrap();
            assert_eq!((read.resource(), read.policy(), read.expiry()), (resource, policy, SE));
        }
    }

    #[test]
    fn t301_missing_empty_or_misspelt_parts_are_refused() {
        let sig = "W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c%3D";
        assert_eq!(error(&format!("SharedAccessSignature sig={sig}&se=1")), SasError::Missing("sr"));
        assert_eq!(error(&format!("SharedAccessSignature sr=&sig={sig}&se=1")), SasError::Missing("sr"));
        assert_eq!(error("SharedAccessSignature sr=h&se=1"), SasError::Missing("sig"));
        assert_eq!(error(&format!("SharedAccessSignature sr=h&sig={sig}")), SasError::Missing("se"));
        for text in [
            "",
            "sr=h",
            "sharedaccesssignature sr=h&se=1",
            "SharedAccessSignature",
            "SharedAccessSignature\tsr=h",
        ] {
            assert_eq!(error(text), SasError::NotAToken, "{text}");
        }
        assert_eq!(
            error(&format!("{}{}", with_sr("h"), "&x=".to_owned() + &"y".repeat(4096))),
            SasError::TooLong
        );
    }

    #[test]
    fn t302_fields_stand_in_any_order_but_once() {
        let sig = "TRODCZ8graMmL8b%2BJDhDq5oTzXX%2Fjb5eca3y5Z0B9UI%3D";
        let node = format!("SharedAccessSignature sr=hub.example.test&sig={sig}&skn=iothubowner&se={SE}");
        assert!(SasToken::parse(&node).unwrap().is_signed_by(&key(POLICY)));
        let odd = format!("SharedAccessSignature se={SE}&colour=red&SKN=x&SIG={sig}&SR=hub.example.test");
        assert!(SasToken::parse(&odd).unwrap().is_signed_by(&key(POLICY)));
        assert_eq!(error(&format!("{node}&se={SE}")), SasError::Duplicate("se"));
        assert_eq!(error(&format!("{node}&skn=iothubowner")), SasError::Duplicate("skn"));
    }

    #[test]
    fn t303_a_slash_encoded_twice_is_no_slash() {
        let token = with_sr("h%252Fdevices%252Fd");
        assert_eq!(SasToken::parse(&token).unwrap().resource(), "h%2Fdevices%2Fd");
    }

    #[test]
    fn t304_a_plus_is_a_plus_and_a_blank_is_nothing() {
        assert!(is_signed("hub.example.test", "TRODCZ8graMmL8b+JDhDq5oTzXX/jb5eca3y5Z0B9UI=", POLICY));
        assert_eq!(error(&with_sig("TRODCZ8graMmL8b JDhDq5oTzXX/jb5eca3y5Z0B9UI=")), SasError::BadSignature);
        assert_eq!(
            error(&with_sig("TRODCZ8graMmL8b%20JDhDq5oTzXX/jb5eca3y5Z0B9UI=")),
            SasError::BadSignature
        );
        assert_eq!(SasToken::parse(&with_sr("h/devices/a+b")).unwrap().resource(), "h/devices/a+b");
    }

    #[test]
    fn t305_only_the_base64_of_32_bytes_is_a_signature() {
        let cases = [
            "%%%",
            "!!!!",
            "W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7c",
            "W8hRTXmhf0OhBIBHTG0gZnMFlz6KyaXdIebb5DGUj7d=",
            "TRODCZ8graMmL8b-JDhDq5oTzXX_jb5eca3y5Z0B9UI=",
            "AAAA",
            &STANDARD.encode([1; 31]),
            &STANDARD.encode([1; 33]),
            &"A".repeat(3000),
        ];
        for sig in cases {
            assert_eq!(error(&with_sig(sig)), SasError::BadSignature, "{sig:.60}");
        }
    }

    #[test]
    fn t307_an_empty_policy_is_none_and_a_strange_one_is_refused() {
        assert_eq!(SasToken::parse(&format!("{}&skn=", with_sr("h"))).unwrap().policy(), None);
        assert_eq!(error(&format!("{}&skn={}", with_sr("h"), "x".repeat(257))), SasError::BadPolicy);
        assert_eq!(error(&format!("{}&skn=a%00", with_sr("h"))), SasError::BadPolicy);
    }

    #[test]
    fn t308_paths_that_are_not_plain_are_refused() {
        for sr in [
            "h%2F",
            "h/devices/",
            "h//devices/d",
            "/h/devices/d",
            "h/devices/../d",
            "h/devices/./d",
            "h/devices/a%00b",
            "h/devices/a%5Cb",
            "h/devices/a\\b",
            "h/devices/a%20b",
            "h/devices/%ff",
        ] {
            assert_eq!(error(&with_sr(sr)), SasError::BadResource, "{sr}");
        }
    }

    #[test]
    fn t315_only_plain_seconds_are_an_expiry() {
        let digits = "9".repeat(40);
        for se in [
            "-1",
            "+1",
            "1.5",
            "0x10",
            "1e9",
            " 1",
            "1 ",
            "%31",
            "१२",
            "9223372036854775808",
            "18446744073709551616",
            &digits,
        ] {
            assert_eq!(error(&with_se(se)), SasError::BadExpiry, "{se}");
        }
        assert_eq!(error(&with_se("")), SasError::Missing("se"));
    }

    #[test]
    fn t316_expiry_is_judged_without_overflow() {
        let now = Timestamp::from_second(SE).unwrap();
        let check = |se: &str, leeway| {
            SasToken::parse(&with_se(se)).unwrap().check_expiry(now, Duration::from_secs(leeway))
        };
        assert_eq!(check(&(SE - 1).to_string(), 0), Err(SasError::Expired { since_seconds: 1 }));
        assert!(check(&SE.to_string(), 0).is_err());
        assert!(check(&(SE + 1).to_string(), 0).is_ok());
        assert!(check("253402300799", 0).is_ok());
        assert!(check("9223372036854775807", 0).is_ok());
        assert!(check(&(SE - 300).to_string(), 300).is_ok());
        assert!(check(&(SE - 301).to_string(), 300).is_err());
        assert!(check("0", u64::MAX).is_ok());
    }

    #[test]
    fn t318_the_secondary_key_signs_as_well_as_the_primary() {
        let token = sign("h/devices/d", &key(SECONDARY), SE, None);
        let read = SasToken::parse(&token).unwrap();
        assert!(read.is_signed_by(&key(SECONDARY)));
        assert!(!read.is_signed_by(&key(PRIMARY)));
    }

    #[test]
    fn t320_one_flipped_character_is_a_mismatch() {
        let token = sign("h/devices/d", &key(PRIMARY), SE, None);
        let read = SasToken::parse(&token).unwrap();
        let mut other = key(PRIMARY).as_bytes().to_vec();
        other[31] ^= 1;
        assert!(!read.is_signed_by(&SymmetricKey::from_bytes(other).unwrap()));
    }
}
