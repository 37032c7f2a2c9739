//! Names in certificates: the one common name that says which identity a certificate is for, and names for people.

use std::fmt;

use x509_parser::x509::X509Name;

/// Why a subject has no common name that could be compared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoCommonName {
    /// There is none.
    #[error("the certificate's subject has no common name (alternative names do not count)")]
    Missing,
    /// There are this many.
    #[error("the certificate's subject has {0} common names, where exactly one belongs")]
    Many(usize),
    /// It is text in an encoding that is not read.
    #[error("the certificate's common name is in an encoding that is not read")]
    Encoding,
}

/// The common name of a subject that has exactly one. Its bytes are the certificate's; nothing is trimmed or folded.
pub(crate) fn common_name<'a>(subject: &'a X509Name<'_>) -> Result<&'a str, NoCommonName> {
    let mut names = subject.iter_common_name();
    let first = names.next().ok_or(NoCommonName::Missing)?;
    match names.count() {
        0 => first.as_str().map_err(|_| NoCommonName::Encoding),
        more => Err(NoCommonName::Many(more + 1)),
    }
}

/// A name for a log line: bounded, with control characters escaped. A stranger chose it.
pub(crate) fn shown(name: &X509Name<'_>) -> String {
    let text = name.to_string();
    if text.is_empty() { "(empty)".to_owned() } else { Shown(&text).to_string() }
}

/// A stranger's text, made fit to be shown.
pub(crate) struct Shown<'a>(pub(crate) &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, char) in self.0.chars().enumerate() {
            if index == SHOWN_CHARS_MAX {
                return f.write_str("…");
            }
            if char.is_control() {
                write!(f, "{}", char.escape_default())?;
            } else {
                write!(f, "{char}")?;
            }
        }
        Ok(())
    }
}

const SHOWN_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_text_cannot_forge_a_log_line() {
        assert_eq!(Shown("a\nb\u{1b}[2J").to_string(), "a\\nb\\u{1b}[2J");
        assert_eq!(Shown(&"x".repeat(1_000)).to_string().chars().count(), SHOWN_CHARS_MAX + 1);
    }
}
