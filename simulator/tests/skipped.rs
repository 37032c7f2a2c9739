//! The last word of `cargo test --workspace`: how many tests a run without a network ignores.
//!
//! cargo runs the tests of packages, and of the files in a package, in alphabetical order; nothing of the workspace
//! comes after this one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::io::{Write, stderr};
use std::path::Path;

use portcullis_testing::tools;

/// What each test carries that needs a program from outside.
const MARK: &str = "#[cfg_attr(offline, ignore = ";

#[test]
fn ignored_tests_are_counted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let packages = ["gateway", "gateway/cli", "benches"];
    let marked: usize = packages.iter().map(|package| marked(&root.join(package).join("tests"))).sum();
    assert!(marked > 0, "no test carries {MARK}");
    if tools::is_offline() {
        // Straight to the file: what a passing test prints is otherwise not shown.
        writeln!(stderr(), "{marked} tests of the workspace are ignored ({}=1)", tools::OFFLINE).unwrap();
    }
}

/// How many tests in the files of a directory carry the mark.
fn marked(directory: &Path) -> usize {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let texts = files.filter(|path| path.is_file()).map(|path| fs::read_to_string(path).unwrap());
    texts.map(|text| text.lines().filter(|line| line.starts_with(MARK)).count()).sum()
}
