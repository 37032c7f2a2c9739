//! What `durable_file` asks of the disk, seen by strace: the content is synced before it gets its name, and the name
//! before the call returns.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::Command;

use portcullis_registry::durable_file::replace;

/// Not a test of its own: what the test below runs under strace.
#[test]
fn child_that_replaces_a_file() {
    let Some(path) = std::env::var_os(CHILD_PATH) else { return };
    replace(Path::new(&path), b"new", 0o600).unwrap();
}

#[test]
#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]
fn t903_content_is_synced_before_its_name_and_its_name_before_the_end() {
    let strace = portcullis_testing::tools::strace();
    let directory = tempfile::tempdir().unwrap();
    // As the kernel names it, for that is what the log says.
    let inside = directory.path().canonicalize().unwrap().join("inside");
    fs::create_dir(&inside).unwrap();
    let (path, log) = (inside.join("file"), directory.path().join("log"));
    fs::write(&path, "old").unwrap();
    let mut run = Command::new(&strace.program);
    if let Some(libraries) = &strace.libraries {
        run.env("LD_LIBRARY_PATH", libraries);
    }
    let run = run
        .args(["-f", "-qq", "-y", "-e", "signal=none", "-e"])
        .arg("trace=write,fsync,fdatasync,rename,renameat,renameat2")
        .arg("-o")
        .args([&log, &std::env::current_exe().unwrap()])
        .args(["--exact", "child_that_replaces_a_file"])
        .env(CHILD_PATH, &path)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(fs::read(&path).unwrap(), b"new");

    let log = fs::read_to_string(&log).unwrap();
    let inside = inside.to_str().unwrap();
    let calls: Vec<String> = log
        .lines()
        .filter(|line| line.contains(inside) && line.ends_with("= 0") || line.contains("file.new>, \"new\""))
        .map(|line| {
            let (_, call) = line.split_once(' ').unwrap();
            let name = call.trim_start().split('(').next().unwrap();
            // Whatever of the family of calls the standard library takes.
            let name = if name.starts_with("rename") { "rename" } else { name };
            match (name, call.contains(&format!("{inside}/file.new")), call.contains(&format!("<{inside}>")))
            {
                (_, false, true) => format!("{name} directory"),
                (_, true, false) => format!("{name} file"),
                _ => panic!("{line}"),
            }
        })
        .collect();
    assert_eq!(calls, ["write file", "fsync file", "rename file", "fsync directory"], "{log}");
}

const CHILD_PATH: &str = "PORTCULLIS_TEST_DURABLE_FILE";
