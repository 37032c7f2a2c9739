//! How the portal writes states, types of authentication, and times.

use jiff::Timestamp;
use maud::{Markup, html};
use portcullis_registry::identity::{AuthenticationKind, Status};

pub(super) fn status(status: Status) -> Markup {
    match status {
        Status::Enabled => html! { span.chip.good { "Enabled" } },
        Status::Disabled => html! { span.chip.bad { "Disabled" } },
    }
}

pub(super) fn connection(is_connected: bool) -> Markup {
    match is_connected {
        true => html! { span.chip.good { "Connected" } },
        false => html! { span.chip { "Disconnected" } },
    }
}

/// A type of authentication, as the Azure portal names it.
pub(super) fn authentication(kind: AuthenticationKind) -> &'static str {
    match kind {
        AuthenticationKind::Sas => "Symmetric key",
        AuthenticationKind::SelfSigned => "X.509 self-signed",
        AuthenticationKind::CertificateAuthority => "X.509 CA signed",
        AuthenticationKind::None => "None",
    }
}

/// A time in UTC to the second.
pub(super) fn time(time: Timestamp) -> Markup {
    html! { time.nowrap datetime=(time) { (time.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// The same, or "never".
pub(super) fn time_or_never(at: Option<Timestamp>) -> Markup {
    at.map_or_else(|| html! { span.quiet { "never" } }, time)
}

/// `1 device`, `1,000 devices`.
pub(super) fn count(number: usize, one: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {one}{s}", grouped(number))
}

/// A number with thousands separators.
pub(super) fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_counted() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_000_000, "1,000,000")] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!((count(1, "device"), count(2, "device")), ("1 device".into(), "2 devices".into()));
    }
}
