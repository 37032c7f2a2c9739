//! The last word of `cargo test --workspace`: how many tests were left out because the run is offline.
//!
//! cargo runs the tests of packages, and of the files in a package, in alphabetical order; nothing of the workspace
//! comes after this one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Write, stderr};

use portcullis_testing::tools;

#[test]
fn tests_left_out_are_told() {
    let skipped = tools::take_skipped();
    if skipped > 0 {
        // Straight to the file: what a passing test prints is otherwise not shown.
        writeln!(stderr(), "{skipped} skipped ({})", tools::OFFLINE).unwrap();
    }
}
