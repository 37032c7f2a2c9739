//! The side by side run in small, on the servers that need not be fetched.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use serde_json::Value;

#[test]
fn a_quick_run_measures_the_hub_and_the_bare_limit() {
    let output = tempfile::tempdir().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_side_by_side"));
    let run =
        run.args(["--quick", "--only", "portcullis,bare", "--output"]).arg(output.path()).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let figures = std::fs::read(output.path().join("side_by_side.json")).unwrap();
    let figures: Value = serde_json::from_slice(&figures).unwrap();
    let [hub, bare] = [0, 1].map(|place| figures["servers"][place]["medians"].clone());
    for measure in ["ConnectRate", "TelemetryRate", "BaseMemory", "IdleMemory"] {
        assert!(hub[measure].as_f64().unwrap() > 0.0, "{measure} of the hub: {hub}");
        assert!(bare[measure].as_f64().unwrap() > 0.0, "{measure} of the limit: {bare}");
    }
    for measure in ["UnicastRate", "UnicastP99", "SingleRate"] {
        assert!(hub[measure].as_f64().unwrap() > 0.0, "{measure} of the hub: {hub}");
        assert_eq!(bare[measure], Value::Null, "the limit delivers nothing");
    }
    assert_eq!(hub["TelemetryLost"], 0.0);
    let table = std::fs::read_to_string(output.path().join("side_by_side.md")).unwrap();
    assert_eq!(
        table.lines().next(),
        Some(concat!("| | Portcullis ", env!("CARGO_PKG_VERSION"), " | bare rustls |"))
    );
}
