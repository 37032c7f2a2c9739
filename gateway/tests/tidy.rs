//! What the code promises about its own shape: crate arrows, file headers, nothing left undone, and that the catalogue of
//! threats, the code that cites it and the tests named after it agree.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
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

#[test]
fn the_catalogue_of_threats_and_what_cites_it_agree() {
    let catalogue = Catalogue::read();
    let mut cited = BTreeSet::new();
    let mut tested = BTreeSet::new();
    for path in texts() {
        let text = fs::read_to_string(&path).unwrap();
        for id in ids_cited(&text) {
            assert!(catalogue.declared.contains(&id), "{} cites {id}: no such line", path.display());
            cited.insert(id);
        }
        if path.extension().is_some_and(|extension| extension == "rs") {
            tested.extend(ids_tested(&text));
        }
    }
    assert!(cited.len() > 100 && tested.len() > 100, "the check itself no longer sees citations");
    for id in catalogue.declared.iter().filter(|id| id.starts_with('T')) {
        let is_explained = catalogue.explained.contains(id);
        assert!(tested.contains(id) || is_explained, "{id} has no test and no row in section 6");
        assert!(
            !tested.contains(id) || !is_explained,
            "{id} has a test: its row in section 6 is out of date"
        );
    }
}

#[test]
fn ids_are_seen_where_they_stand_alone() {
    // Not spelt out, or this file would count as a test of them.
    let spell = |text: &str| text.replace("FN", "fn");
    let cited = spell("T403, (P6) 'G1' T1003. FN t604_t408_p7_a_ca_goes() {} T2xx P256 T12 p99_ms t101_x");
    assert_eq!(ids_cited(&cited), ["T403", "P6", "G1", "T1003", "T604", "T408", "P7"]);
    let tested = spell("T403 FN t604_p7_t408_it() {} FN t99_it() {} FN total() {}");
    assert_eq!(ids_tested(&tested), ["T604", "P7", "T408"]);
}

/// What `gateway/THREATS.md` declares, and for which lines it says why they have no test.
struct Catalogue {
    declared: BTreeSet<String>,
    explained: BTreeSet<String>,
}

impl Catalogue {
    fn read() -> Self {
        let page = fs::read_to_string(root().join("gateway/THREATS.md")).unwrap();
        let (lines, rest) = page.split_once("\n## 6. ").expect("a section 6");
        let untested = rest.split_once("\n## 7. ").expect("a section 7").0;
        let mut declared = BTreeSet::new();
        for id in lines.lines().filter_map(|line| line.strip_prefix("- ")).filter_map(first_id) {
            assert!(declared.insert(id.clone()), "{id} is declared twice");
        }
        for id in lines.split("**").filter(|word| is_id(word)) {
            assert!(declared.insert(id.to_owned()), "{id} is declared twice");
        }
        let rows = untested.lines().filter_map(|line| line.strip_prefix("| "));
        let explained: BTreeSet<_> =
            rows.filter_map(|row| row.split('|').next()).flat_map(ids_cited).collect();
        assert!(declared.len() > 100 && !explained.is_empty(), "the check itself no longer reads the page");
        Self { declared, explained }
    }
}

/// Every text of the project that may cite the catalogue.
fn texts() -> Vec<PathBuf> {
    let mut found = vec![root().join("README.md")];
    for directory in [".github", "certs", "registry", "gateway", "simulator", "benches"] {
        texts_in(&root().join(directory), &mut found);
    }
    found
}

fn texts_in(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_text = [".rs", ".py", ".js", ".md"].iter().any(|end| name.ends_with(end));
        if path.is_dir() && name != "target" {
            texts_in(&path, found);
        } else if is_text && !name.ends_with(".min.js") {
            found.push(path);
        }
    }
}

/// Whether this is an id of the catalogue, such as `T403`, `P6` or `G1`.
fn is_id(word: &str) -> bool {
    let Some(kind) = word.chars().next() else { return false };
    let digits = &word[kind.len_utf8()..];
    let lengths = match kind {
        'T' => 3..=4,
        'P' => 1..=2,
        'G' => 1..=1,
        _ => return false,
    };
    lengths.contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// The id a line begins with.
fn first_id(line: &str) -> Option<String> {
    line.split([' ', ':']).next().filter(|word| is_id(word)).map(str::to_owned)
}

/// The ids in a text, and those that its functions are named after.
fn ids_cited(text: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut before = "";
    for word in words(text) {
        if is_id(word) {
            ids.push(word.to_owned());
        } else if before == "fn" {
            ids.extend(ids_in_name(word));
        }
        before = word;
    }
    ids
}

/// The ids that the functions of a text are named after.
fn ids_tested(text: &str) -> Vec<String> {
    let names = words(text).zip(words(text).skip(1)).filter(|(before, _)| *before == "fn");
    names.flat_map(|(_, name)| ids_in_name(name)).collect()
}

/// The ids a name begins with: T604 and T408 of `t604_t408_the_ca_is_removed`.
fn ids_in_name(name: &str) -> impl Iterator<Item = String> {
    name.split('_').map(str::to_ascii_uppercase).take_while(|part| is_id(part))
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_apart = |symbol: char| !symbol.is_ascii_alphanumeric() && symbol != '_';
    text.split(is_apart).filter(|word| !word.is_empty())
}

/// What REST and the portal may read of a `Hub` themselves: handles that decide nothing.
const HUB_HANDLES: &[&str] =
    &["config", "clock", "hosts", "tls", "metrics", "stopping", "to_the_end", "watch_policies"];
/// What a `Hub` holds for its operations. No value that REST or the portal have has a field of such a name, so it is
/// recognised whatever the hub is called there.
const HUB_HOLDS: &[&str] = &[
    "registry",
    "sessions",
    "bus",
    "audit",
    "history",
    "jobs",
    "trust",
    "admission",
    "failed_identities",
    "posted",
    "watchers",
    "policy_changes",
];

/// The ways in which code of REST or the portal goes past the operations to what a hub holds.
fn reaches_into_hub(code: &str) -> Vec<String> {
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).collect();
    let dense = words.join(" ").replace(" .", ".").replace(" {", "{");
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let word = |text: &str| text.chars().take_while(|c| is_word(*c)).collect::<String>();
    let mut found = Vec::new();
    for hub in ["hub.", "hub()."] {
        for (at, _) in dense.match_indices(hub) {
            // `hub.css` is a path.
            let is_whole_word = !dense[..at].ends_with(|c: char| is_word(c) || c == '/');
            let reached = word(&dense[at + hub.len()..]);
            // Where nothing is reached, a sentence ends.
            if is_whole_word && !reached.is_empty() && !HUB_HANDLES.contains(&reached.as_str()) {
                found.push(format!("{hub}{reached}"));
            }
        }
    }
    for held in HUB_HOLDS {
        for (at, access) in dense.match_indices(&format!(".{held}")) {
            // A call of this name is not the field.
            if !dense[at + access.len()..].starts_with(|c: char| is_word(c) || c == '(') {
                found.push(access.to_owned());
            }
        }
    }
    let takes_apart = dense.match_indices("Hub{").filter(|(at, _)| !dense[..*at].ends_with(is_word));
    found.extend(takes_apart.map(|(_, text)| text.to_owned()));
    found
}

#[test]
fn only_operations_and_mqtt_use_what_a_hub_holds() {
    let mut read = 0;
    for (path, text) in sources(&["gateway"]) {
        if room(&path).is_some_and(|own| own == "http" || own == "portal") {
            read += 1;
            let found = reaches_into_hub(shipped(&text));
            assert!(found.is_empty(), "{} goes past the operations: {found:?}", path.display());
        }
    }
    assert!(read > 40, "the check no longer sees REST and the portal");
}

#[test]
fn each_way_into_a_hub_is_seen() {
    for code in [
        "hub.registry.entry(&id)",
        "self.hub.sessions.len()",
        "visit\n    .hub()\n    // why\n    .registry\n    .entry(&id)",
        "visit.hub().refusals.of(id)",
        "hub\n.policies()",
        "let Hub { registry, .. } = &*hub;",
        "let h = visit.hub(); h.audit.record(entry)",
        "return hub.bus.lost()",
        "state.0.sessions",
    ] {
        assert!(!reaches_into_hub(code).is_empty(), "{code}");
    }
    for code in [
        "hub.config.limits",
        "visit.hub().clock.wall()",
        "overview.refusals",
        "audit::read(&hub, &caller, wanted)",
        "// hub.registry",
        "use crate::hub::bus;",
        "struct GitHub { a: u8 }",
    ] {
        assert_eq!(reaches_into_hub(code), Vec::<String>::new(), "{code}");
    }
}

#[test]
fn threads_are_started_where_their_log_is_heard() {
    for (path, text) in sources(&["gateway", "registry"]) {
        if path.ends_with("registry/src/thread.rs") || path.ends_with("tests.rs") {
            continue;
        }
        for word in ["thread::spawn(", "thread::Builder", "thread::{Builder"] {
            assert!(
                !shipped(&text).contains(word),
                "{} starts a thread with {word}: use portcullis_registry::thread::start",
                path.display()
            );
        }
    }
}

/// What a test needs a program from outside for. `openssl` is not among them: nothing is fetched for it.
const OUTSIDE: &[&str] = &[
    "tools::python",
    "tools::node",
    "tools::azurite",
    "tools::mosquitto",
    "tools::chromium",
    "tools::axe",
    "tools::strace",
    "Azurite::start(",
    "Chromium::shared(",
];

#[test]
fn tests_that_need_a_program_from_outside_are_ignored_offline() {
    let mark = r#"#[cfg_attr(offline, ignore = "PORTCULLIS_TEST_OFFLINE=1")]"#;
    let mut seen = 0;
    for package in PACKAGES {
        let mut files = Vec::new();
        let tests = root().join(package).join("tests");
        if tests.exists() {
            rust_files(&tests, &mut files);
        }
        for path in files.iter().filter(|path| !path.ends_with("tidy.rs")) {
            let text = fs::read_to_string(path).unwrap();
            let functions = functions(&text);
            let needing = needing_outside(&functions);
            for function in functions.iter().filter(|function| function.attributes.contains("test")) {
                let (needs, marked) = (needing.contains(function.name), function.attributes.contains(mark));
                assert_eq!(
                    needs,
                    marked,
                    "{}: {} needs or has in vain {mark}",
                    path.display(),
                    function.name
                );
                seen += usize::from(needs);
            }
            if !needing.is_empty() {
                let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
                assert!(
                    manifest.contains("testing/offline.rs\""),
                    "{package} does not build with offline.rs"
                );
            }
        }
    }
    assert!(seen > 30, "the check no longer sees such tests");
}

/// A function of a file, as text.
struct Function<'a> {
    name: &'a str,
    /// The lines that begin with `#[` right before it.
    attributes: String,
    body: &'a str,
}

/// The functions of a file that stand at its left margin or in an `impl`, each up to the next one.
fn functions(text: &str) -> Vec<Function<'_>> {
    let mut heads: Vec<(usize, &str, String)> = Vec::new();
    let (mut at, mut attributes) = (0, String::new());
    for line in text.split_inclusive('\n') {
        let code = line.trim_start();
        let code = ["pub(crate) ", "pub(super) ", "pub ", "async "]
            .iter()
            .fold(code, |code, word| code.strip_prefix(word).unwrap_or(code));
        if let Some(rest) = code.strip_prefix("fn ") {
            let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
            heads.push((at, name, std::mem::take(&mut attributes)));
        } else if code.starts_with("#[") {
            attributes += code;
        } else {
            attributes.clear();
        }
        at += line.len();
    }
    let ends = heads.iter().skip(1).map(|(at, ..)| *at).chain([text.len()]).collect::<Vec<_>>();
    let bodies = heads.into_iter().zip(ends);
    bodies.map(|((at, name, attributes), end)| Function { name, attributes, body: &text[at..end] }).collect()
}

/// The names of those that use such a program, or call one in the same file that does.
fn needing_outside<'a>(functions: &[Function<'a>]) -> BTreeSet<&'a str> {
    let uses = |function: &&Function<'a>| OUTSIDE.iter().any(|word| function.body.contains(word));
    let mut needing: BTreeSet<_> = functions.iter().filter(uses).map(|function| function.name).collect();
    loop {
        let calls = |function: &&Function<'a>| needing.iter().any(|name| is_called(name, function.body));
        let more: BTreeSet<_> = functions.iter().filter(calls).map(|function| function.name).collect();
        let before = needing.len();
        needing.extend(more);
        if needing.len() == before {
            return needing;
        }
    }
}

/// Whether a text has a call of this name, by itself or behind a type's.
fn is_called(name: &str, text: &str) -> bool {
    let call = format!("{name}(");
    text.match_indices(&call).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        before.is_some_and(|c| !c.is_alphanumeric() && c != '_')
    })
}

#[test]
fn a_type_name_is_declared_once() {
    let mut declared: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in sources(&["gateway", "registry"]) {
        if path.ends_with("tests.rs") || path.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        for line in shipped(&text).lines() {
            let line = line.strip_prefix("pub ").unwrap_or(line);
            let line = match line.strip_prefix("pub(") {
                Some(rest) => rest.split_once(") ").map_or(line, |(_, rest)| rest),
                None => line,
            };
            let Some(rest) =
                ["struct ", "enum ", "trait ", "type "].iter().find_map(|word| line.strip_prefix(word))
            else {
                continue;
            };
            let name: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if let Some(other) = declared.insert(name.clone(), path.clone()) {
                panic!("{name} is declared in {} and in {}", other.display(), path.display());
            }
        }
    }
    assert!(
        declared.contains_key("Hub") && declared.contains_key("Registry"),
        "the check sees no declarations"
    );
}
