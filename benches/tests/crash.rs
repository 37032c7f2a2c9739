//! The crash programs in small; their headers tell how to run them in full.

use std::process::Command;

#[test]
fn t901_ten_kills_lose_nothing() {
    let run = Command::new(env!("CARGO_BIN_EXE_crash")).args(["--rounds", "10"]).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(String::from_utf8_lossy(&run.stdout).starts_with("10 kills"));
}

#[test]
fn t903_lost_power_takes_nothing_acknowledged_and_a_disk_that_lies_is_found_out() {
    if std::env::var_os("PORTCULLIS_TEST_OFFLINE").is_some_and(|value| value == "1") && !has_strace() {
        return;
    }
    let run = |arguments: &[&str]| Command::new(env!("CARGO_BIN_EXE_powercut")).args(arguments).output().unwrap();
    let honest = run(&["--cuts", "150", "--writes", "150"]);
    assert!(honest.status.success(), "{}", String::from_utf8_lossy(&honest.stderr));
    // The same check, on a disk that forgets: it has to see that something is missing.
    let lying = run(&["--cuts", "150", "--writes", "150", "--forget-syncs"]);
    assert!(!lying.status.success(), "{}", String::from_utf8_lossy(&lying.stdout));
    assert!(String::from_utf8_lossy(&lying.stderr).contains("power lost at event"));
}
