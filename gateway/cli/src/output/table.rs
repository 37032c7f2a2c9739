//! Tables for people, and the same cells as tab-separated values for scripts.

use serde_json::Value;

use crate::output::{Columns, printable, text_of};

/// Rows of cells under titles, all of them safe for a terminal.
pub(super) struct Table {
    titles: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// One row for each object of a list, or for the one object.
    pub(super) fn of(value: &Value, columns: Columns<'_>) -> Self {
        let objects = match value {
            // A query without a result gives null, which makes no row.
            Value::Null => &[],
            Value::Array(objects) => objects.as_slice(),
            one => std::slice::from_ref(one),
        };
        match columns {
            Columns::Fixed(columns) => Self {
                titles: columns.iter().map(|(title, _)| (*title).to_owned()).collect(),
                rows: objects
                    .iter()
                    .map(|object| columns.iter().map(|(_, cell)| printable(&cell(object))).collect())
                    .collect(),
            },
            Columns::Members => Self::of_members(objects),
        }
    }

    /// Columns from the first object: its scalar members, its items, or itself.
    fn of_members(objects: &[Value]) -> Self {
        let is_scalar = |value: &Value| !value.is_array() && !value.is_object();
        match objects.first() {
            Some(Value::Object(first)) => {
                let names: Vec<_> = first
                    .iter()
                    .filter(|(_, value)| is_scalar(value))
                    .map(|(name, _)| name.clone())
                    .collect();
                let cell = |object: &Value, name: &String| object.get(name).map(text_of).unwrap_or_default();
                let row = |object| names.iter().map(|name| printable(&cell(object, name))).collect();
                Self {
                    rows: objects.iter().map(row).collect(),
                    titles: names.iter().map(|name| printable(name)).collect(),
                }
            }
            Some(Value::Array(first)) => {
                let cell = |object: &Value, place: usize| object.get(place).map(text_of).unwrap_or_default();
                let row = |object| (0..first.len()).map(|place| printable(&cell(object, place))).collect();
                Self {
                    titles: (1..=first.len()).map(|number| format!("Column{number}")).collect(),
                    rows: objects.iter().map(row).collect(),
                }
            }
            _ => Self {
                titles: vec!["Result".into()],
                rows: objects.iter().map(|value| vec![printable(&text_of(value))]).collect(),
            },
        }
    }

    /// Columns two spaces apart, with a ruled header, as az prints them.
    pub(super) fn text(&self) -> String {
        let mut widths = Vec::new();
        self.head(&mut widths) + &self.body(&widths)
    }

    /// The header. Sets `widths` to the widths of the columns.
    pub(super) fn head(&self, widths: &mut Vec<usize>) -> String {
        widths.resize(self.titles.len(), 0);
        for cells in std::iter::once(&self.titles).chain(&self.rows) {
            for (width, cell) in widths.iter_mut().zip(cells) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let rule: Vec<_> = widths.iter().map(|width| "-".repeat(*width)).collect();
        line(&self.titles, widths) + &line(&rule, widths)
    }

    /// The rows. A cell wider than its column pushes the rest of its row aside.
    pub(super) fn body(&self, widths: &[usize]) -> String {
        self.rows.iter().map(|row| line(row, widths)).collect()
    }

    pub(super) fn tab_separated(&self) -> String {
        self.rows.iter().map(|row| row.join("\t") + "\n").collect()
    }
}

fn line(cells: &[String], widths: &[usize]) -> String {
    let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
    padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
}
