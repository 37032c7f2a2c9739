//! The measurements of a run: rows for people as they come, and at the end all of them as Markdown and JSON.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// A table that grows during the run.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    ours: f64,
    limit: Option<f64>,
    unit: &'static str,
}

impl Table {
    /// A figure without a comparison.
    pub fn add(&mut self, name: &str, ours: f64, unit: &'static str) {
        self.push(Row { name: name.to_owned(), ours, limit: None, unit });
    }

    /// A figure and that of the limit in the same run.
    pub fn compare(&mut self, name: &str, ours: f64, limit: f64, unit: &'static str) {
        self.push(Row { name: name.to_owned(), ours, limit: Some(limit), unit });
    }

    fn push(&mut self, row: Row) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    /// As Markdown, under `title`.
    pub fn to_markdown(&self, title: &str) -> String {
        let mut text =
            format!("# {title}\n\n| what | hub | limit | ratio | unit |\n|---|---:|---:|---:|---|\n");
        for row in &self.rows {
            let (limit, ratio) = match row.limit {
                Some(limit) => (shown(limit), format!("{:.2}", row.ours / limit)),
                None => (String::new(), String::new()),
            };
            text += &format!("| {} | {} | {limit} | {ratio} | {} |\n", row.name, shown(row.ours), row.unit);
        }
        text
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let row = |row: &Row| {
            let ratio = row.limit.map(|limit| row.ours / limit);
            json!({ "name": row.name, "hub": row.ours, "limit": row.limit, "ratio": ratio, "unit": row.unit })
        };
        self.rows.iter().map(row).collect()
    }

    /// Writes both into `directory`, as `name`.md and `name`.json.
    pub fn write(&self, directory: &Path, name: &str, title: &str) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join(format!("{name}.md")), self.to_markdown(title))?;
        let json = serde_json::to_string_pretty(&self.to_json())? + "\n";
        fs::write(directory.join(format!("{name}.json")), json)?;
        Ok(())
    }
}

impl Row {
    fn line(&self) -> String {
        let beside = match self.limit {
            Some(limit) => format!("{:>12}{:>8.2}", shown(limit), self.ours / limit),
            None => format!("{:>20}", ""),
        };
        format!("{:<52}{:>12}{beside}  {}", self.name, shown(self.ours), self.unit)
    }
}

/// The median. Of an even number, the lower of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

fn shown(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_there_where_there_is_a_limit() {
        let mut table = Table::default();
        table.compare("a", 3.0, 2.0, "us");
        table.add("b", 120.4, "/s");
        let text = table.to_markdown("t");
        assert!(text.contains("| a | 3.00 | 2.00 | 1.50 | us |"), "{text}");
        assert!(text.contains("| b | 120 |  |  | /s |"), "{text}");
        assert_eq!(table.to_json()[0]["ratio"], 1.5);
    }

    #[test]
    fn medians_are_measured_values() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0]), 1.0);
        assert!(median(Vec::new()).is_nan());
    }
}
