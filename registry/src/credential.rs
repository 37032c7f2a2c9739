//! What an identity proves itself with: symmetric keys and certificate thumbprints.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A symmetric key of 16 to 64 bytes. Compared in constant time, wiped when dropped, and shown to nobody by accident.
#[derive(Clone)]
pub struct SymmetricKey(Arc<KeyBytes>);

/// In one piece of memory: a hub holds millions.
struct KeyBytes {
    bytes: Zeroizing<[u8; KEY_BYTES_MAX]>,
    length: u8,
}

/// Why a text is no symmetric key. It never holds the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// The text is not base64 of the standard alphabet.
    #[error("a symmetric key is standard base64")]
    Encoding,
    /// The key has this many bytes.
    #[error("a symmetric key has {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, this one has {0}")]
    Length(usize),
}

impl SymmetricKey {
    /// Reads standard base64.
    ///
    /// Source: IoT Hub, "Control access to IoT Hub by using shared access signatures".
    pub fn parse_base64(text: &str) -> Result<Self, InvalidKey> {
        // A 64-byte key is 88 characters; nothing longer is worth decoding.
        if text.len() > 2 * KEY_BYTES_MAX {
            return Err(InvalidKey::Length(text.len() / 4 * 3));
        }
        let bytes = STANDARD.decode(text).map_err(|_| InvalidKey::Encoding)?;
        Self::from_bytes(bytes)
    }

    /// Takes raw bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, InvalidKey> {
        Self::copy(&Zeroizing::new(bytes))
    }

    /// A new random key of 32 bytes.
    pub fn generate() -> Self {
        let bytes: Zeroizing<[u8; 32]> = Zeroizing::new(crate::random_bytes());
        Self::copy(bytes.as_slice()).expect("32 bytes are a key")
    }

    fn copy(from: &[u8]) -> Result<Self, InvalidKey> {
        if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&from.len()) {
            return Err(InvalidKey::Length(from.len()));
        }
        let mut bytes = Zeroizing::new([0; KEY_BYTES_MAX]);
        bytes[..from.len()].copy_from_slice(from);
        Ok(Self(Arc::new(KeyBytes { bytes, length: from.len() as u8 })))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.bytes[..usize::from(self.0.length)]
    }

    /// Standard base64; wiped when dropped.
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(self.as_bytes()))
    }
}

impl PartialEq for SymmetricKey {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl Eq for SymmetricKey {}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(…)")
    }
}

/// The two keys of an identity or policy; either one counts, so that one can be replaced while the other works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// The first key; either one counts.
    pub primary: SymmetricKey,
    /// The second key, for changing the first without an interruption.
    pub secondary: SymmetricKey,
}

impl KeyPair {
    /// Two new random keys.
    pub fn generate() -> Self {
        Self { primary: SymmetricKey::generate(), secondary: SymmetricKey::generate() }
    }
}

/// The hash of a certificate: SHA-1 (40 hex digits) or SHA-256 (64), upper case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Thumbprint(Box<str>);

/// Why a text is no thumbprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidThumbprint {
    /// The text has this many digits.
    #[error("a thumbprint has 40 (SHA-1) or 64 (SHA-256) hex digits, this one has {0}")]
    Length(usize),
    /// A character is no hex digit.
    #[error("a thumbprint consists of hex digits")]
    Digit,
    /// All digits are zero.
    #[error("a thumbprint of zeros belongs to no certificate")]
    Zero,
}

impl Thumbprint {
    /// Reads hex of any letter case, with or without colons between the bytes.
    pub fn parse(text: &str) -> Result<Self, InvalidThumbprint> {
        let digits: String = text.chars().take(200).filter(|character| *character != ':').collect();
        if !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(InvalidThumbprint::Digit);
        }
        if !matches!(digits.len(), SHA1_DIGITS | 64) {
            return Err(InvalidThumbprint::Length(digits.len()));
        }
        if digits.bytes().all(|digit| digit == b'0') {
            return Err(InvalidThumbprint::Zero);
        }
        Ok(Self(digits.to_ascii_uppercase().into()))
    }

    /// The thumbprint as upper-case hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a SHA-1 hash, for which two certificates can be made by now.
    pub fn is_weak(&self) -> bool {
        self.0.len() == SHA1_DIGITS
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The thumbprints of a self-signed identity; at least one is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThumbprintPair {
    /// The first thumbprint; either one counts.
    pub primary: Option<Thumbprint>,
    /// The second thumbprint, for changing certificates without an interruption.
    pub secondary: Option<Thumbprint>,
}

impl ThumbprintPair {
    /// Those that are there.
    pub fn iter(&self) -> impl Iterator<Item = &Thumbprint> {
        self.primary.iter().chain(&self.secondary)
    }
}

const SHA1_DIGITS: usize = 40;
const KEY_BYTES_MIN: usize = 16;
const KEY_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t707_keys_of_16_to_64_bytes_are_taken() {
        for (length, good) in
            [(0, false), (15, false), (16, true), (32, true), (64, true), (65, false), (1000, false)]
        {
            let parsed = SymmetricKey::parse_base64(&STANDARD.encode(vec![7; length]));
            assert_eq!(parsed.is_ok(), good, "{length}");
        }
        for text in
            ["AAAA AAAA AAAA AAAA AAAA AAAA", "not base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"]
        {
            assert_eq!(SymmetricKey::parse_base64(text), Err(InvalidKey::Encoding), "{text}");
        }
    }

    #[test]
    fn keys_are_random_and_come_back_from_base64() {
        let key = SymmetricKey::generate();
        assert_eq!(SymmetricKey::parse_base64(&key.to_base64()), Ok(key.clone()));
        assert_ne!(key, SymmetricKey::generate());
    }

    #[test]
    fn t712_a_key_shows_nothing_of_itself() {
        let key = SymmetricKey::parse_base64("AAECAwQFBgcICQoLDA0ODw==").unwrap();
        assert_eq!(format!("{key:?}"), "SymmetricKey(…)");
    }

    #[test]
    fn t401_thumbprints_take_colons_and_any_case() {
        let plain = Thumbprint::parse(&"AB".repeat(20)).unwrap();
        assert_eq!(Thumbprint::parse(&"ab".repeat(20)).unwrap(), plain);
        assert_eq!(Thumbprint::parse(&vec!["Ab"; 20].join(":")).unwrap(), plain);
        assert!(Thumbprint::parse(&"0f".repeat(32)).is_ok());
    }

    #[test]
    fn t405_what_is_no_hash_is_refused() {
        for text in [
            "",
            "ab",
            &"a".repeat(39),
            &"a".repeat(41),
            &"g".repeat(40),
            &"0".repeat(40),
            &"0".repeat(64),
            &"a".repeat(9999),
        ] {
            assert!(Thumbprint::parse(text).is_err(), "{text:.50}");
        }
    }
}
