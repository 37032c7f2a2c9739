//! What the code promises about its own shape: crate arrows, file headers, nothing left undone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources(crates: &[&str]) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    for name in crates {
        rust_files(&root().join(name).join("src"), &mut files);
    }
    assert!(!files.is_empty());
    files.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn every_file_begins_with_its_header() {
    for (path, text) in sources(&["certs", "registry", "gateway", "simulator", "benches"]) {
        let is_tests =
            path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        assert!(is_tests || text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    let words = ["TO", "DO"].concat();
    let marks = [words, ["FIX", "ME"].concat(), ["unimplemented", "!("].concat(), ["to", "do!("].concat()];
    for (path, text) in sources(&["certs", "registry", "gateway", "simulator", "benches"]) {
        for mark in &marks {
            assert!(!text.contains(mark.as_str()), "{} has {mark}", path.display());
        }
    }
}

#[test]
fn dependencies_point_one_way() {
    let depends = |name: &str, on: &str| {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap();
        dependencies.lines().any(|line| line.split('=').next().is_some_and(|key| key.trim() == on))
    };
    let forbidden = [
        ("certs", "portcullis-registry"),
        ("certs", "portcullis"),
        ("certs", "tokio"),
        ("registry", "portcullis"),
        ("registry", "axum"),
        ("registry", "rustls"),
        ("registry", "hyper"),
        ("simulator", "portcullis"),
        ("gateway", "portcullis-simulator"),
    ];
    for (name, on) in forbidden {
        assert!(!depends(name, on), "{name} depends on {on}");
    }
    assert!(depends("gateway", "portcullis-registry"), "the check itself no longer sees dependencies");
}

#[test]
fn registry_and_certs_know_no_network() {
    for (path, text) in sources(&["certs", "registry"]) {
        for word in ["tokio::net", "axum", "rustls::", "TcpStream", "TcpListener"] {
            assert!(!text.contains(word), "{} knows {word}", path.display());
        }
    }
}

#[test]
fn mqtt_knows_bytes_only_and_the_rules_know_no_io() {
    for (path, text) in sources(&["gateway"]) {
        let inside = path.strip_prefix(root().join("gateway/src")).unwrap().to_owned();
        let is_tests = path.ends_with("tests.rs");
        if !is_tests
            && (inside.starts_with("mqtt")
                || inside.starts_with("session/core")
                || inside.ends_with("session/core.rs"))
        {
            for word in ["tokio", "crate::hub", "crate::http", "Timestamp::now", "Instant::now"] {
                assert!(!text.contains(word), "{} knows {word}", path.display());
            }
        }
        let is_face = ["http", "portal"]
            .iter()
            .any(|face| inside.starts_with(face) || inside == Path::new(face).with_extension("rs"));
        if !is_face && !inside.ends_with("serve.rs") {
            for leaf in ["crate::http", "crate::portal"] {
                assert!(!text.contains(leaf), "{} reaches into a leaf", path.display());
            }
        }
    }
}
