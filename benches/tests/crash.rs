//! The crash programs in small; their headers tell how to run them in full.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

fn crash(arguments: &[&str]) {
    let run = Command::new(env!("CARGO_BIN_EXE_crash")).args(arguments).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout).contains("none lost, none half, none came back"));
}

#[test]
fn t901_ten_kills_lose_nothing() {
    crash(&["--rounds", "10"]);
}

/// The same check, on a store that acknowledges before it commits: it has to see that something is missing.
#[test]
fn t901_kills_find_out_a_store_that_acknowledges_early() {
    let arguments = ["--rounds", "10", "--acknowledge-early"];
    let run = Command::new(env!("CARGO_BIN_EXE_crash")).args(arguments).output().unwrap();
    assert!(!run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
    let complaint = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(complaint.contains("writes acknowledged: w") && complaint.contains(", found "), "{complaint}");
}

#[test]
fn t914_a_stop_under_load_is_in_order_and_loses_nothing() {
    crash(&["--rounds", "3", "--end", "terminate"]);
}

#[test]
fn t908_a_hub_whose_disk_fails_gives_up_and_loses_nothing() {
    crash(&["--rounds", "2", "--end", "disk"]);
}

#[test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
fn t903_lost_power_takes_nothing_acknowledged_and_a_disk_or_store_that_lies_is_found_out() {
    let strace = portcullis_testing::tools::strace();
    let run = |arguments: &[&str]| {
        let mut run = Command::new(env!("CARGO_BIN_EXE_powercut"));
        run.args(["--cuts", "150", "--writes", "150", "--strace"]).arg(&strace.program).args(arguments);
        if let Some(libraries) = &strace.libraries {
            run.env("LD_LIBRARY_PATH", libraries);
        }
        run.output().unwrap()
    };
    let honest = run(&[]);
    assert!(honest.status.success(), "{}", String::from_utf8_lossy(&honest.stderr));
    // The same check, on a disk that forgets: it has to see that something is missing.
    let lying = run(&["--forget-syncs"]);
    assert!(!lying.status.success(), "{}", String::from_utf8_lossy(&lying.stdout));
    assert!(String::from_utf8_lossy(&lying.stderr).contains("power lost at event"));
    // And on a disk that keeps its word, under a store that acknowledges before it commits.
    let early = run(&["--acknowledge-early"]);
    assert!(!early.status.success(), "{}", String::from_utf8_lossy(&early.stdout));
    assert!(String::from_utf8_lossy(&early.stderr).contains("should be there"));
}
