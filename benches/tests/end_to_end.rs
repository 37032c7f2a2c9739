//! The end-to-end program in small: every row is measured and written down. What the figures are is for the full run.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::process::Command;

use serde_json::Value;

#[test]
fn every_row_has_a_figure() {
    let output = tempfile::tempdir().unwrap();
    let small = "--rounds 1 --connects 20 --senders 5 --seconds 1 --revocations 3 --identities 50 --idle 20 --c2d-rate 20";
    let run = Command::new(env!("CARGO_BIN_EXE_end_to_end"))
        .args(small.split(' '))
        .arg("--output")
        .arg(output.path())
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let json = fs::read_to_string(output.path().join("end_to_end.json")).unwrap();
    let rows: Vec<Value> = serde_json::from_str(&json).unwrap();
    let compared = rows.iter().filter(|row| row["limit"].as_f64().is_some_and(|limit| limit > 0.0));
    // The CPU of so few may be below what the kernel counts in.
    assert!(compared.count() >= 2, "{rows:?}");
    for row in &rows {
        assert!(row["hub"].as_f64().is_some_and(|figure| figure >= 0.0), "{row}");
    }
    let markdown = fs::read_to_string(output.path().join("end_to_end.md")).unwrap();
    assert_eq!(markdown.lines().filter(|line| line.starts_with("| ")).count(), rows.len() + 1, "{markdown}");
}
