//! What goes to standard output: JSON, a table, or tab-separated values. Data only; messages go to standard error.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::cli::exit::Failure;

/// The words az knows for output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Json,
    /// JSON for eyes; the same as json
    Jsonc,
    Table,
    /// Tab-separated values without a header
    Tsv,
    /// Nothing
    None,
}

/// A column of a table: its title, and the cell for one object.
pub(super) type Column = (&'static str, fn(&Value) -> String);

/// Prints one object, or a list of objects.
pub(super) fn print(value: &Value, format: Format, columns: &[Column]) -> Result<(), Failure> {
    answer(&render(value, format, columns))
}

/// Prints a single text as it is, or, with a format, under its name.
pub(super) fn print_text(name: &'static str, text: &str, format: Option<Format>) -> Result<(), Failure> {
    match format {
        None | Some(Format::Tsv) => answer(&format!("{text}\n")),
        Some(Format::Json | Format::Jsonc) => answer(&to_json(&serde_json::json!({ name: text }))),
        Some(Format::Table) => answer(&to_table(&[name], &[vec![text.to_owned()]])),
        Some(Format::None) => Ok(()),
    }
}

/// Writes and flushes.
pub(super) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A member as text; absent, null and not a scalar are empty.
pub(super) fn scalar(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// The text without what would move a terminal's cursor or worse; devices choose some of these texts.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] })
        .collect()
}

/// Writes an answer. Whoever reads may stop reading: that is no failure worth a message.
pub(super) fn answer(text: &str) -> Result<(), Failure> {
    match write_out(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::error(format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

fn render(value: &Value, format: Format, columns: &[Column]) -> String {
    let objects = match value {
        Value::Array(objects) => objects.as_slice(),
        one => std::slice::from_ref(one),
    };
    let row = |object: &Value| columns.iter().map(|(_, cell)| printable(&cell(object))).collect::<Vec<_>>();
    match format {
        Format::Json | Format::Jsonc => to_json(value),
        Format::Table => {
            let titles: Vec<_> = columns.iter().map(|(title, _)| *title).collect();
            to_table(&titles, &objects.iter().map(row).collect::<Vec<_>>())
        }
        Format::Tsv => objects.iter().map(|object| row(object).join("\t") + "\n").collect(),
        Format::None => String::new(),
    }
}

fn to_json(value: &Value) -> String {
    format!("{value:#}\n")
}

/// Columns two spaces apart, with a ruled header, as az prints them.
fn to_table(titles: &[&str], rows: &[Vec<String>]) -> String {
    let width = |(place, title): (usize, &&str)| {
        let cells = rows.iter().filter_map(|row| row.get(place)).map(|cell| cell.chars().count());
        cells.fold(title.chars().count(), usize::max)
    };
    let widths: Vec<_> = titles.iter().enumerate().map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = String>| {
        let padded = cells.zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut text = line(&mut titles.iter().map(|title| (*title).to_owned()));
    text += &line(&mut widths.iter().map(|width| "-".repeat(*width)));
    for row in rows {
        text += &line(&mut row.iter().cloned());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const COLUMNS: &[Column] = &[("Id", |row| scalar(row, "/id")), ("On", |row| scalar(row, "/deep/on"))];

    #[test]
    fn a_table_is_aligned() {
        let rows = json!([{"id": "pump-7", "deep": {"on": true}}, {"id": "p", "deep": null}]);
        assert_eq!(render(&rows, Format::Table, COLUMNS), "Id      On\n------  ----\npump-7  true\np\n");
    }

    #[test]
    fn tab_separated_values_have_no_header() {
        assert_eq!(render(&json!({"id": 7, "deep": {"on": false}}), Format::Tsv, COLUMNS), "7\tfalse\n");
    }

    #[test]
    fn json_is_indented_and_none_is_nothing() {
        assert_eq!(render(&json!({"id": 1}), Format::Json, COLUMNS), "{\n  \"id\": 1\n}\n");
        assert_eq!(render(&json!({"id": 1}), Format::None, COLUMNS), "");
    }

    #[test]
    fn an_empty_list_still_has_its_header() {
        assert_eq!(render(&json!([]), Format::Table, COLUMNS), "Id  On\n--  --\n");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc ä"), "a\\u{1b}[2Jb\\nc ä");
    }
}
