//! The lock token: names one delivery that is answered apart from it, as over HTTPS.

use std::fmt;

/// Random, so that no device completes what was not delivered to it; written as a GUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LockToken(u128);

impl LockToken {
    pub(crate) fn random() -> Self {
        Self(u128::from_be_bytes(crate::random_bytes::<16>()))
    }

    /// Reads what `Display` wrote; anything else names no delivery.
    pub fn parse(text: &str) -> Option<Self> {
        let mut groups = text.split('-');
        let is_guid = GROUPS.iter().all(|length| groups.next().is_some_and(|group| group.len() == *length));
        if !is_guid
            || groups.next().is_some()
            || !text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        {
            return None;
        }
        u128::from_str_radix(&text.replace('-', ""), 16).ok().map(Self)
    }
}

impl fmt::Display for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = format!("{:032x}", self.0);
        write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

impl fmt::Debug for LockToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockToken")
    }
}

/// How many digits each group of a GUID has.
const GROUPS: [usize; 5] = [8, 4, 4, 4, 12];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_nothing_else_is_one() {
        let token = LockToken::random();
        assert_eq!(LockToken::parse(&token.to_string()), Some(token));
        for text in
            ["", "-", "0", "00000000-0000-0000-0000-00000000000", "00000000-0000-0000-0000-00000000000g"]
        {
            assert_eq!(LockToken::parse(text), None, "{text}");
        }
        assert_eq!(LockToken::parse(&format!("{token}-")), None);
        assert_eq!(LockToken::parse("+0000000-0000-0000-0000-000000000000"), None);
    }
}
