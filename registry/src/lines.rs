//! A file of identities cut into its lines: one JSON object a line, each good or bad on its own.
//!
//! The file comes in pieces of any size and memory is bounded by one line, whatever the file. A byte order mark at the
//! start, `\r\n` and a missing last line end are taken, blank lines are skipped; lines that are too long or no UTF-8
//! are reported as such and the next one is read. What the JSON means is others' business.
//!
//! Source: IoT Hub, "Import and export device identities in bulk".

use std::fmt;

/// One line that is not blank.
#[derive(PartialEq, Eq)]
pub struct Line {
    /// Its position in the file, from 1; blank lines count.
    pub number: u64,
    /// Without its line end.
    pub text: Result<String, LineError>,
}

/// Why a line cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// The line is longer than [`LINE_BYTES_MAX`].
    #[error("the line has more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// Its bytes are no text.
    #[error("the line is not UTF-8")]
    NotUtf8,
}

/// Cuts the pieces that are pushed into lines.
#[derive(Default)]
pub struct LineSplitter {
    /// The line that has not ended yet, as far as it is kept.
    begun: Vec<u8>,
    /// How many lines have ended.
    ended: u64,
}

impl LineSplitter {
    /// Takes the next piece of the file and gives each line that ends in it, in order.
    pub fn push(&mut self, piece: &[u8], mut each: impl FnMut(Line)) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.keep(&rest[..end]);
            if let Some(line) = self.end() {
                each(line);
            }
            rest = &rest[end + 1..];
        }
        self.keep(rest);
    }

    /// The last line, when no line end follows it.
    pub fn finish(mut self) -> Option<Line> {
        self.end()
    }

    /// What makes a line too long in any case is not kept.
    fn keep(&mut self, bytes: &[u8]) {
        let room = KEPT_BYTES_MAX - self.begun.len();
        self.begun.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    fn end(&mut self) -> Option<Line> {
        self.ended += 1;
        let text = read(&self.begun, self.ended == 1);
        self.begun.clear();
        text.map(|text| Line { number: self.ended, text })
    }
}

/// `None` when the line is blank.
fn read(mut bytes: &[u8], is_first: bool) -> Option<Result<String, LineError>> {
    if is_first {
        bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    }
    bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    if bytes.len() > LINE_BYTES_MAX {
        return Some(Err(LineError::TooLong));
    }
    if bytes.trim_ascii().is_empty() {
        return None;
    }
    Some(std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| LineError::NotUtf8))
}

/// Lines carry keys: the text is never shown.
impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.text.as_ref().map(String::len);
        f.debug_struct("Line").field("number", &self.number).field("bytes", &bytes).finish()
    }
}

impl fmt::Debug for LineSplitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LineSplitter").field("ended", &self.ended).finish_non_exhaustive()
    }
}

/// A line has at most this many bytes, its end not counted.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The longest good line, with what may surround it, and one byte more, so that a longer one is seen as such.
const KEPT_BYTES_MAX: usize = BYTE_ORDER_MARK.len() + LINE_BYTES_MAX + b"\r".len() + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Line> {
        let mut splitter = LineSplitter::default();
        let mut found = Vec::new();
        for piece in pieces {
            splitter.push(piece, |line| found.push(line));
        }
        found.extend(splitter.finish());
        found
    }

    fn good(number: u64, text: &str) -> Line {
        Line { number, text: Ok(text.to_owned()) }
    }

    fn bad(number: u64, error: LineError) -> Line {
        Line { number, text: Err(error) }
    }

    #[test]
    fn t808_marks_line_ends_and_blank_lines_do_not_matter() {
        let expected = [good(1, "{}"), good(4, r#"{"id":"a"}"#)];
        for file in [
            "{}\n\n \t\n{\"id\":\"a\"}\n",
            "\u{feff}{}\r\n\r\n\n{\"id\":\"a\"}\r\n",
            "{}\n\n\n{\"id\":\"a\"}",
        ] {
            assert_eq!(lines(&[file.as_bytes()]), expected, "{file:?}");
        }
        assert_eq!(lines(&[b""]), []);
        assert_eq!(lines(&["\u{feff}\n".as_bytes()]), []);
        // Only at the start is it a mark.
        assert_eq!(lines(&["a\n\u{feff}b".as_bytes()]), [good(1, "a"), good(2, "\u{feff}b")]);
    }

    #[test]
    fn t808_what_is_not_utf8_is_told_and_the_rest_goes_on() {
        let expected = [good(1, "a"), bad(2, LineError::NotUtf8), good(3, "ü")];
        assert_eq!(lines(&[b"a\n\xc3\x28\n\xc3", b"\xbc\n"]), expected);
    }

    #[test]
    fn t808_the_longest_line_is_read_and_a_longer_one_told() {
        let longest = "x".repeat(LINE_BYTES_MAX);
        for (before, after) in [("", ""), ("", "\n"), ("", "\r\n"), ("\u{feff}", "\r\n"), ("\u{feff}", "")] {
            let file = format!("{before}{longest}{after}");
            assert_eq!(lines(&[file.as_bytes()]), [good(1, &longest)], "{before:?} {after:?}");
            let file = format!("{before}{longest}x{after}");
            assert_eq!(lines(&[file.as_bytes()]), [bad(1, LineError::TooLong)], "{before:?} {after:?}");
        }
    }

    #[test]
    fn t808_an_endless_line_is_not_held() {
        let mut splitter = LineSplitter::default();
        for _ in 0..1000 {
            splitter.push(&[b'x'; 64 * 1024], |line| panic!("{line:?}"));
        }
        assert!(splitter.begun.capacity() <= 4 * LINE_BYTES_MAX, "{}", splitter.begun.capacity());
        let mut found = Vec::new();
        splitter.push(b"\n{}\n", |line| found.push(line));
        assert_eq!(found, [bad(1, LineError::TooLong), good(2, "{}")]);
    }

    #[test]
    fn no_text_of_a_line_is_shown() {
        assert!(!format!("{:?}", lines(&[b"secret\nsecret"])).contains("secret"));
    }

    proptest! {
        #[test]
        fn t808_lines_are_the_same_however_the_file_is_cut(
            file in "[a\u{feff}ü \r\n]{0,40}",
            cuts in proptest::collection::vec(0usize..80, 0..6),
        ) {
            let bytes = file.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            prop_assert_eq!(lines(&pieces), lines(&[bytes]));
        }
    }
}
