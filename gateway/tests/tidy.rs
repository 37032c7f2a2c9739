//! What the code promises about its own shape: crate arrows, file headers, nothing left undone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The folders of the workspace's packages.
const PACKAGES: &[&str] =
    &["certs", "registry", "gateway", "gateway/cli", "gateway/testing", "simulator", "benches"];

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
    for (path, text) in sources(PACKAGES) {
        let is_tests =
            path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests");
        assert!(is_tests || text.starts_with("//! "), "{} has no header", path.display());
    }
}

#[test]
fn nothing_is_left_undone() {
    let words = ["TO", "DO"].concat();
    let marks = [words, ["FIX", "ME"].concat(), ["unimplemented", "!("].concat(), ["to", "do!("].concat()];
    for (path, text) in sources(PACKAGES) {
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
        ("simulator", "portcullis-cli"),
        ("gateway", "portcullis-simulator"),
        ("gateway", "portcullis-cli"),
        ("gateway", "portcullis-testing"),
        ("gateway/cli", "portcullis-testing"),
        ("gateway/testing", "portcullis-cli"),
        // The command line's own.
        ("gateway", "clap"),
        ("gateway", "clap_mangen"),
        ("gateway", "indicatif"),
        ("gateway", "jmespath"),
        ("gateway", "rumqttc"),
        ("gateway", "serde-saphyr"),
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
        let is_pure = ["iothub", "mqtt/codec", "mqtt/packet", "mqtt/connect", "mqtt/session/core"]
            .iter()
            .any(|room| inside.starts_with(room) || inside == Path::new(&format!("{room}.rs")));
        if !is_tests && is_pure {
            for word in ["tokio", "hub::Hub", "Timestamp::now", "Instant::now"] {
                assert!(!text.contains(word), "{} knows {word}", path.display());
            }
        }
    }
}

/// The rooms of the gateway and the other rooms that each may import from. Ground is at the end; nothing imports
/// upwards, and no front imports from another one.
const ARROWS: &[(&str, &[&str])] = &[
    ("serve", &["mqtt", "http", "portal", "operations", "iothub", "hub", "auth", "tls", "config"]),
    ("portal", &["operations", "iothub", "hub", "auth", "config"]),
    ("http", &["operations", "iothub", "hub", "auth", "config"]),
    ("mqtt", &["operations", "iothub", "hub", "auth", "config"]),
    ("operations", &["hub", "iothub", "blob", "auth", "config"]),
    ("hub", &["iothub", "blob", "tls", "auth", "config"]),
    ("blob", &["tls", "config"]),
    ("tls", &["config"]),
    ("config", &["auth"]),
    ("iothub", &["auth"]),
    ("auth", &[]),
];

/// The room of a file of `gateway/src`: its first folder, or the file that opens it.
fn room(path: &Path) -> Option<String> {
    let inside = path.strip_prefix(root().join("gateway/src")).ok()?;
    let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
    Some(first.trim_end_matches(".rs").to_owned()).filter(|room| room != "lib")
}

/// The code of a file, less its tests: these may reach wherever they like.
fn shipped(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests").next().unwrap_or(text)
}

#[test]
fn rooms_import_downwards_only() {
    let mut seen = BTreeSet::new();
    for (path, text) in sources(&["gateway"]) {
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let Some(own) = room(&path) else { continue };
        let (_, allowed) = ARROWS
            .iter()
            .find(|(room, _)| *room == own)
            .unwrap_or_else(|| panic!("{} is in no room of the table", path.display()));
        for reference in shipped(&text).split("crate::").skip(1) {
            let name: String = reference.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if reference.starts_with('{') {
                panic!(
                    "{}: write `use crate::ROOM::…`, one a room, so that arrows can be read",
                    path.display()
                );
            }
            if name != own && ARROWS.iter().any(|(room, _)| *room == name) {
                assert!(allowed.contains(&name.as_str()), "{} imports from {name}", path.display());
                seen.insert((own.clone(), name));
            }
        }
    }
    for (from, to) in [("portal", "operations"), ("operations", "hub"), ("hub", "config"), ("mqtt", "iothub")]
    {
        assert!(seen.contains(&(from.to_owned(), to.to_owned())), "the check no longer sees {from} -> {to}");
    }
}
