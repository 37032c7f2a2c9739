//! Times as IoT Hub writes them.

use jiff::Timestamp;

/// A time as IoT Hub writes it: ISO 8601 in UTC with seven fraction digits, or its text for never.
pub fn time_text(time: Option<Timestamp>) -> String {
    time.map_or_else(|| NEVER.into(), |time| format!("{time:.7}"))
}

/// .NET's `DateTime.MinValue`, which is IoT Hub's text for "never".
pub const NEVER: &str = "0001-01-01T00:00:00";

#[cfg(test)]
mod tests {
    use super::time_text;

    #[test]
    fn times_carry_seven_digits_and_never_has_its_word() {
        let time = "2024-05-01T08:15:30.1234567Z";
        assert_eq!(time_text(Some(time.parse().unwrap())), time);
        assert_eq!(time_text(Some("2024-05-01T08:15:30Z".parse().unwrap())), "2024-05-01T08:15:30.0000000Z");
        assert_eq!(time_text(None), "0001-01-01T00:00:00");
    }
}
