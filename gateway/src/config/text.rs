//! Durations, sizes and counts as people write them: `10s`, `1h30m`, `64KiB`, `2048`.

use std::time::Duration;

/// A duration: numbers with units `d`, `h`, `m`, `s`, `ms`, the largest first.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text;
    let mut total = 0_u64;
    let mut units = DURATION_UNITS.iter();
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let unit_end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let part = units.find(|(name, _)| *name == unit).zip(number.parse::<u64>().ok());
        let part = part.and_then(|((_, milliseconds), number)| number.checked_mul(*milliseconds));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| not_a_duration(text))?;
        rest = after;
    }
    if text.is_empty() { Err(not_a_duration(text)) } else { Ok(Duration::from_millis(total)) }
}

/// The shortest text that parses to `duration`, which has whole milliseconds.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut left = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut shown = String::new();
    for (unit, milliseconds) in DURATION_UNITS {
        let number = left / milliseconds;
        left %= milliseconds;
        if number > 0 {
            shown.push_str(&format!("{number}{unit}"));
        }
    }
    if shown.is_empty() { "0s".to_owned() } else { shown }
}

/// A number of bytes: a whole number, alone or with the unit `B`, `KiB`, `MiB` or `GiB`.
pub(super) fn parse_bytes(text: &str) -> Result<usize, String> {
    let (number, unit) = split_number(text);
    let unit = unit.trim_start();
    let factor =
        SIZE_UNITS.iter().find(|(name, _)| *name == unit || unit.is_empty()).map(|(_, factor)| *factor);
    let bytes =
        factor.zip(number.parse::<usize>().ok()).and_then(|(factor, number)| number.checked_mul(factor));
    bytes.ok_or_else(|| format!("{text:?} is not a size such as \"64KiB\" or \"1MiB\""))
}

/// The shortest text that parses to `bytes`.
pub(super) fn show_bytes(bytes: usize) -> String {
    let largest = SIZE_UNITS.iter().rev().find(|(_, factor)| bytes != 0 && bytes.is_multiple_of(*factor));
    largest.map_or_else(|| format!("{bytes}B"), |(name, factor)| format!("{}{name}", bytes / factor))
}

/// A whole number.
pub(super) fn parse_count(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

pub(super) fn show_count(count: usize) -> String {
    count.to_string()
}

fn split_number(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn not_a_duration(text: &str) -> String {
    format!("{text:?} is not a duration such as \"10s\", \"500ms\" or \"1h30m\"")
}

/// Unit and milliseconds, the largest first.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Unit and bytes, the smallest first.
const SIZE_UNITS: [(&str, usize); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, milliseconds) in [
            ("10s", 10_000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
            ("1s5ms", 1_005),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
    }

    #[test]
    fn t912_what_is_no_duration_is_refused() {
        for text in [
            "",
            "10",
            "s",
            "10 s",
            "-1s",
            "1.5s",
            "1m1h",
            "1s1s",
            "10S",
            "10s ",
            "99999999999999999999s",
            "1w",
        ] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert!(parse_duration(&format!("{}d", u64::MAX)).is_err());
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("65536", 65_536), ("64KiB", 65_536), ("1 MiB", 1 << 20), ("0", 0), ("12B", 12)]
        {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn t912_what_is_no_size_is_refused() {
        for text in ["", "KiB", "64KB", "64kib", "-1", "1.5KiB", "64KiBB", "99999999999999999999", " 1"] {
            assert!(parse_bytes(text).is_err(), "{text:?}");
        }
        assert!(parse_bytes(&format!("{}GiB", usize::MAX)).is_err());
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for milliseconds in [0, 1, 999, 1_000, 61_001, 1_177_000, 172_800_000, u64::MAX] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
        }
        for bytes in [0, 1, 1_023, 1_024, 264 * 1_024, 1 << 30, usize::MAX] {
            assert_eq!(parse_bytes(&show_bytes(bytes)), Ok(bytes));
        }
        assert_eq!(show_bytes(264 * 1_024), "264KiB");
        assert_eq!(show_duration(Duration::from_secs(1_177)), "19m37s");
    }
}
