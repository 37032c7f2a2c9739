//! A list that is printed in parts as they arrive, so that a long list needs no memory.
//!
//! The parts make one list: one JSON array, one YAML sequence, one table. A list that breaks off stays unfinished, so
//! that no reader takes it for the whole list.

use std::io;
use std::ops::ControlFlow;

use serde_json::Value;

use crate::exit::Failure;
use crate::output::query::Query;
use crate::output::table::Table;
use crate::output::{Column, Columns, Format, answer, cannot_write, colour, render, to_yaml, write_out};

/// A list that is being printed.
pub(crate) struct Listing<'a> {
    format: Format,
    query: Option<&'a Query>,
    columns: &'a [Column],
    /// The widths of the table's columns; empty until its header is printed.
    widths: Vec<usize>,
    /// How many items have arrived.
    count: usize,
    /// The items, which wait for the end if a query needs the whole list.
    waiting: Vec<Value>,
}

impl<'a> Listing<'a> {
    pub(super) fn new(format: Format, query: Option<&'a Query>, columns: &'a [Column]) -> Self {
        Self { format, query, columns, widths: Vec::new(), count: 0, waiting: Vec::new() }
    }

    /// Prints more items. Returns `Break` when standard output is closed.
    pub(crate) fn add(&mut self, items: Vec<Value>) -> Result<ControlFlow<()>, Failure> {
        if self.query.is_some() {
            if self.waiting.len() + items.len() > QUERIED_ITEMS_MAX {
                return Err(Failure::error(format!("--query takes at most {QUERIED_ITEMS_MAX} items"))
                    .with_hint("list fewer with --top, or query the printed list with another tool"));
            }
            self.waiting.extend(items);
            return Ok(ControlFlow::Continue(()));
        }
        let text = self.part(items)?;
        match write_out(&text) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(cannot_write(&error)),
        }
    }

    /// Ends the list.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        let rest = match self.query {
            Some(query) => {
                let whole = Value::Array(std::mem::take(&mut self.waiting));
                render(&query.pick(&whole)?, self.format, Columns::Members)?
            }
            None => self.tail()?,
        };
        answer(&rest)
    }

    fn part(&mut self, items: Vec<Value>) -> Result<String, Failure> {
        let mut text = String::new();
        match self.format {
            Format::Json | Format::Jsonc => {
                for item in &items {
                    text += if self.count == 0 { "[\n  " } else { ",\n  " };
                    let object =
                        if self.format == Format::Json { format!("{item:#}") } else { colour::to_json(item) };
                    // JSON has a line break only between tokens.
                    text += &object.trim_end().replace('\n', "\n  ");
                    self.count += 1;
                }
            }
            Format::Yaml if !items.is_empty() => {
                self.count += items.len();
                text = to_yaml(&Value::Array(items))?;
            }
            Format::Table => {
                self.count += items.len();
                let table = Table::of(&Value::Array(items), Columns::Fixed(self.columns));
                if self.widths.is_empty() {
                    text = table.head(&mut self.widths);
                }
                text += &table.body(&self.widths);
            }
            Format::Tsv => {
                text = Table::of(&Value::Array(items), Columns::Fixed(self.columns)).tab_separated();
            }
            Format::Yaml | Format::None => {}
        }
        Ok(text)
    }

    fn tail(&mut self) -> Result<String, Failure> {
        Ok(match self.format {
            Format::Json | Format::Jsonc if self.count == 0 => "[]\n".into(),
            Format::Json | Format::Jsonc => "\n]\n".into(),
            Format::Yaml if self.count == 0 => "[]\n".into(),
            Format::Table if self.widths.is_empty() => self.part(Vec::new())?,
            Format::Yaml | Format::Table | Format::Tsv | Format::None => String::new(),
        })
    }
}

/// About 100 MB.
const QUERIED_ITEMS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::output::scalar;

    const COLUMNS: &[Column] = &[("Id", |row| scalar(row, "/id"))];

    fn listed(format: Format, parts: &[Value]) -> String {
        let mut listing = Listing::new(format, None, COLUMNS);
        let mut text = String::new();
        for part in parts {
            text += &listing.part(part.as_array().unwrap().clone()).unwrap();
        }
        text + &listing.tail().unwrap()
    }

    #[test]
    fn parts_make_one_list_as_if_printed_at_once() {
        let whole = json!([{"id": "a", "deep": {"x": [1, "two\nlines"]}}, {"id": "b"}, {"id": "cc"}]);
        let items = whole.as_array().unwrap();
        let parts = [json!([items[0], items[1]]), json!([]), json!([items[2]])];
        for format in [Format::Json, Format::Jsonc, Format::Yaml, Format::Table, Format::Tsv, Format::None] {
            let at_once = render(&whole, format, Columns::Fixed(COLUMNS)).unwrap();
            assert_eq!(listed(format, &parts), at_once, "{format:?}");
        }
    }

    #[test]
    fn an_empty_list_is_a_list() {
        for format in [Format::Json, Format::Jsonc, Format::Yaml, Format::Table, Format::Tsv, Format::None] {
            let at_once = render(&json!([]), format, Columns::Fixed(COLUMNS)).unwrap();
            assert_eq!(listed(format, &[]), at_once, "{format:?}");
            assert_eq!(listed(format, &[json!([])]), at_once, "{format:?}");
        }
    }
}
