//! JSON in colours, for a terminal without NO_COLOR.

use std::env;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{CharEscape, Formatter, PrettyFormatter, Serializer};

/// JSON with colours on a terminal, without them elsewhere.
pub(super) fn to_json(value: &Value) -> String {
    if is_wanted() { painted(value) } else { super::to_json(value) }
}

/// Source: no-color.org; a variable that is empty counts as absent.
fn is_wanted() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !set("NO_COLOR") && env::var_os("TERM").is_none_or(|term| term != "dumb")
}

fn painted(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = Painted { pretty: PrettyFormatter::new(), is_key: false };
    value
        .serialize(&mut Serializer::with_formatter(&mut text, formatter))
        .expect("JSON can be written to memory");
    String::from_utf8(text).expect("JSON is text") + "\n"
}

/// Names in blue, texts in green, all other scalars in yellow.
struct Painted<'a> {
    pretty: PrettyFormatter<'a>,
    is_key: bool,
}

impl Formatter for Painted<'_> {
    fn begin_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(if self.is_key { NAME } else { TEXT })?;
        out.write_all(b"\"")
    }

    fn end_string<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b"\"")?;
        out.write_all(PLAIN)
    }

    fn write_char_escape<W: ?Sized + Write>(&mut self, out: &mut W, escape: CharEscape) -> io::Result<()> {
        self.pretty.write_char_escape(out, escape)
    }

    fn write_null<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        other(out, "null")
    }

    fn write_bool<W: ?Sized + Write>(&mut self, out: &mut W, value: bool) -> io::Result<()> {
        other(out, if value { "true" } else { "false" })
    }

    fn write_u64<W: ?Sized + Write>(&mut self, out: &mut W, value: u64) -> io::Result<()> {
        other(out, &value.to_string())
    }

    fn write_i64<W: ?Sized + Write>(&mut self, out: &mut W, value: i64) -> io::Result<()> {
        other(out, &value.to_string())
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.begin_array(out)
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_array(out)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_array_value(out, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(out)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.begin_object(out)
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_object(out)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        self.is_key = true;
        self.pretty.begin_object_key(out, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.is_key = false;
        self.pretty.begin_object_value(out)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(out)
    }
}

fn other<W: ?Sized + Write>(out: &mut W, text: &str) -> io::Result<()> {
    out.write_all(OTHER)?;
    out.write_all(text.as_bytes())?;
    out.write_all(PLAIN)
}

const NAME: &[u8] = b"\x1b[34m";
const TEXT: &[u8] = b"\x1b[32m";
const OTHER: &[u8] = b"\x1b[33m";
const PLAIN: &[u8] = b"\x1b[0m";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn without_its_colours_it_is_the_same_json() {
        let value = json!({"id": "a\"\u{1b}\n", "list": [1, -2, true, null, {}], "deep": {"text": ""}});
        let mut text = painted(&value);
        assert!(text.contains("\x1b[34m\"id\"\x1b[0m: \x1b[32m\"a"), "{text}");
        for code in ["\x1b[34m", "\x1b[32m", "\x1b[33m", "\x1b[0m"] {
            text = text.replace(code, "");
        }
        assert_eq!(text, super::super::to_json(&value));
    }
}
