//! Data on standard output: JSON, YAML, a table, or tab-separated values. Messages go to standard error.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::exit::Failure;

mod colour;
mod listing;
mod query;
mod table;

pub(super) use listing::Listing;
use query::Query;
use table::Table;

/// az's names of the output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Json,
    /// JSON with colours on a terminal, unless NO_COLOR is set
    Jsonc,
    Yaml,
    Table,
    /// Tab-separated values without a header
    Tsv,
    /// Nothing
    None,
}

/// How to print objects.
#[derive(Args)]
pub(super) struct OutputArgs {
    /// The output format
    #[arg(short, long, value_enum, default_value = "json")]
    output: Format,
    /// Print only what this JMESPath expression selects
    #[arg(long, value_name = "JMESPATH", value_parser = Query::parse)]
    query: Option<Query>,
}

/// How to print a single text.
#[derive(Args)]
pub(super) struct TextArgs {
    /// The output format; without it the bare text
    #[arg(short, long, value_enum)]
    output: Option<Format>,
    /// Print only what this JMESPath expression selects
    #[arg(long, value_name = "JMESPATH", value_parser = Query::parse)]
    query: Option<Query>,
}

/// A column of a table: its title, and the cell for one object.
pub(super) type Column = (&'static str, fn(&Value) -> String);

impl OutputArgs {
    /// Prints one object, or a list of objects.
    pub(super) fn print(&self, value: &Value, columns: &[Column]) -> Result<(), Failure> {
        match &self.query {
            None => print(value, self.output, columns),
            Some(query) => answer(&render(&query.pick(value)?, self.output, Columns::Members)?),
        }
    }

    pub(super) fn is_table(&self) -> bool {
        self.output == Format::Table
    }

    /// Starts a list that is printed in parts.
    pub(super) fn list<'a>(&'a self, columns: &'a [Column]) -> Listing<'a> {
        Listing::new(self.output, self.query.as_ref(), columns)
    }
}

impl TextArgs {
    /// Prints a single text, or with a format or a query an object that has it under `name`.
    pub(super) fn print(&self, name: &'static str, text: &str) -> Result<(), Failure> {
        let object = json!({ name: text });
        match (&self.query, self.output) {
            (None, None | Some(Format::Tsv)) => answer(&format!("{text}\n")),
            (None, Some(format)) => answer(&render(&object, format, Columns::Members)?),
            (Some(query), format) => {
                let format = format.unwrap_or(Format::Json);
                answer(&render(&query.pick(&object)?, format, Columns::Members)?)
            }
        }
    }
}

impl TextArgs {
    /// Prints an object as text, or with a format or a query as data; `table` is the list for its table formats.
    pub(super) fn print_report(
        &self,
        value: &Value,
        words: impl FnOnce() -> String,
        table: impl FnOnce() -> (Value, &'static [Column]),
    ) -> Result<(), Failure> {
        match (&self.query, self.output) {
            (None, None) => answer(&words()),
            (None, Some(format @ (Format::Table | Format::Tsv))) => {
                let (rows, columns) = table();
                print(&rows, format, columns)
            }
            (None, Some(format)) => print(value, format, &[]),
            (Some(query), format) => {
                let format = format.unwrap_or(Format::Json);
                answer(&render(&query.pick(value)?, format, Columns::Members)?)
            }
        }
    }
}

/// Where the columns of a table come from.
#[derive(Clone, Copy)]
enum Columns<'a> {
    Fixed(&'a [Column]),
    /// The scalar members of the first object, under their own names.
    Members,
}

/// Prints one object, or a list of objects.
pub(super) fn print(value: &Value, format: Format, columns: &[Column]) -> Result<(), Failure> {
    answer(&render(value, format, Columns::Fixed(columns))?)
}

/// Writes an answer. A reader who closes standard output causes no error message.
pub(super) fn answer(text: &str) -> Result<(), Failure> {
    match write_out(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(cannot_write(&error)),
        _ => Ok(()),
    }
}

/// Writes and flushes.
pub(super) fn write_out(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// A member as text; empty if it is absent, null or not a scalar.
pub(super) fn scalar(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).map(text_of).unwrap_or_default()
}

/// The text without characters that could control a terminal. Devices choose some of these texts.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|char| if char.is_control() { char.escape_default().collect() } else { vec![char] })
        .collect()
}

fn cannot_write(error: &io::Error) -> Failure {
    Failure::error(format!("standard output: {error}"))
}

fn text_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Array(_) | Value::Object(_) => String::new(),
    }
}

fn render(value: &Value, format: Format, columns: Columns<'_>) -> Result<String, Failure> {
    Ok(match format {
        Format::Json => to_json(value),
        Format::Jsonc => colour::to_json(value),
        Format::Yaml => to_yaml(value)?,
        Format::Table => Table::of(value, columns).text(),
        Format::Tsv => Table::of(value, columns).tab_separated(),
        Format::None => String::new(),
    })
}

fn to_json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn to_yaml(value: &Value) -> Result<String, Failure> {
    let text = serde_saphyr::to_string(value).map_err(|error| Failure::error(format!("YAML: {error}")))?;
    Ok(if text.ends_with('\n') { text } else { text + "\n" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns<'static> =
        Columns::Fixed(&[("Id", |row| scalar(row, "/id")), ("On", |row| scalar(row, "/deep/on"))]);

    fn rendered(value: &Value, format: Format) -> String {
        render(value, format, COLUMNS).unwrap()
    }

    #[test]
    fn a_table_is_aligned() {
        let rows = json!([{"id": "pump-7", "deep": {"on": true}}, {"id": "p", "deep": null}]);
        assert_eq!(rendered(&rows, Format::Table), "Id      On\n------  ----\npump-7  true\np\n");
    }

    #[test]
    fn tab_separated_values_have_no_header() {
        assert_eq!(rendered(&json!({"id": 7, "deep": {"on": false}}), Format::Tsv), "7\tfalse\n");
    }

    #[test]
    fn json_is_indented_and_none_is_nothing() {
        assert_eq!(rendered(&json!({"id": 1}), Format::Json), "{\n  \"id\": 1\n}\n");
        assert_eq!(rendered(&json!({"id": 1}), Format::None), "");
    }

    #[test]
    fn yaml_keeps_texts_texts() {
        let value =
            json!({"id": "yes", "etag": "AAA=", "count": "12", "none": null, "keys": {"a": [1, true]}});
        let expected = "count: \"12\"\netag: AAA=\nid: \"yes\"\nkeys:\n  a:\n  - 1\n  - true\nnone: null\n";
        assert_eq!(rendered(&value, Format::Yaml), expected);
    }

    #[test]
    fn an_empty_list_still_has_its_header() {
        assert_eq!(rendered(&json!([]), Format::Table), "Id  On\n--  --\n");
    }

    #[test]
    fn a_querys_result_makes_its_own_columns() {
        let table = |value: Value| render(&value, Format::Table, Columns::Members).unwrap();
        assert_eq!(table(json!("x")), "Result\n------\nx\n");
        assert_eq!(table(json!(["x", "y"])), "Result\n------\nx\ny\n");
        assert_eq!(
            table(json!([["x", 1], ["y", 2]])),
            "Column1  Column2\n-------  -------\nx        1\ny        2\n"
        );
        assert_eq!(table(json!([{"a": 1, "deep": {}}, {"a": 2}])), "a\n-\n1\n2\n");
        assert_eq!(render(&json!(null), Format::Tsv, Columns::Members).unwrap(), "");
        assert_eq!(render(&json!(["x", "y"]), Format::Tsv, Columns::Members).unwrap(), "x\ny\n");
    }

    #[test]
    fn control_characters_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc ä"), "a\\u{1b}[2Jb\\nc ä");
    }
}
