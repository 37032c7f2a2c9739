//! Reading the record: its end, its last lines, and whether its chain is whole. Never writes.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::effect::CHANGED;
use super::writer::digest;
use crate::hub::reverse_lines::Backwards;

/// What to read.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only lines of greater numbers.
    pub after: u64,
    /// Only lines of smaller numbers.
    pub before: Option<u64>,
    /// At most so many, the latest.
    pub count: usize,
    /// Only changes of this device and its modules, or of what else has this name.
    pub target: Option<String>,
    /// Only what this shared access policy asked for.
    pub actor: Option<String>,
    /// Only this operation, in its word.
    pub operation: Option<String>,
    /// Only what was refused.
    pub refused: bool,
}

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("{0} cannot be read: {1}")]
    Unreadable(PathBuf, io::Error),
    #[error("the line before number {0} is missing or was changed")]
    Chain(u64),
}

/// The latest lines that are wanted, oldest first. It looks from the end backwards and no further than it must, and
/// never beyond the file before the current one.
pub fn read(directory: &Path, wanted: &AuditFilter) -> io::Result<Vec<Value>> {
    let mut found = VecDeque::new();
    let mut files = old_files(directory)?;
    files.push(directory.join(CURRENT));
    for path in files.iter().rev().take(FILES_READ).filter(|path| path.exists()) {
        let mut lines = Backwards::open(path)?;
        while let Some(line) = lines.next()? {
            let Ok(line) = serde_json::from_slice::<Value>(&line) else { continue };
            let is_old = line["number"].as_u64().is_some_and(|number| number <= wanted.after);
            if is_old || found.len() >= wanted.count {
                return Ok(found.into());
            }
            if wanted.admits(&line) {
                found.push_front(line);
            }
        }
    }
    Ok(found.into())
}

/// A record whose chain is whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    pub lines: u64,
    /// Lines that a crash cut while they were written; nobody was told that what they say was done.
    pub cut: u64,
}

/// Follows the chain from the oldest file kept to the end.
pub fn verify(directory: &Path) -> Result<Verified, Broken> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        move |error| Broken::Unreadable(path, error)
    };
    let mut files = old_files(directory).map_err(unreadable(directory))?;
    files.push(directory.join(CURRENT));
    let mut previous: Option<String> = None;
    let mut verified = Verified::default();
    for path in files {
        let file = File::open(&path).map_err(unreadable(&path))?;
        for line in BufReader::new(file).lines() {
            let line = line.map_err(unreadable(&path))?;
            let parsed: Option<Value> = serde_json::from_str(&line).ok();
            let number = parsed.as_ref().and_then(|line| line["number"].as_u64());
            let (Some(parsed), Some(number)) = (parsed, number) else {
                verified.cut += 1;
                continue;
            };
            // The first line kept stands on one that may be gone with its file.
            if previous.as_ref().is_some_and(|previous| parsed["previous"] != *previous.as_str()) {
                return Err(Broken::Chain(number));
            }
            previous = Some(digest(line.as_bytes()));
            verified.lines += 1;
        }
    }
    Ok(verified)
}

/// What a line says of what changed, for people: `status: enabled -> disabled, primaryKey: changed`. Empty when it says
/// nothing. Texts in it are as they were given: whoever shows them escapes what a screen must not get.
pub fn effect_text(line: &Value) -> String {
    let members = |name: &str| line[name].as_object().into_iter().flatten();
    let changes = members("changes").map(|(field, change)| match change.as_str() {
        Some(CHANGED) => format!("{field}: {CHANGED}"),
        _ => format!("{field}: {} -> {}", value_text(&change["before"]), value_text(&change["after"])),
    });
    let details = members("details").map(|(name, value)| format!("{name}: {}", value_text(value)));
    let job = line["job"].as_str().map(|job| format!("job: {job}"));
    changes.chain(details).chain(job).collect::<Vec<_>>().join(", ")
}

fn value_text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(value_text).collect::<Vec<_>>().join("+"),
        other => other.to_string(),
    }
}

impl AuditFilter {
    fn admits(&self, line: &Value) -> bool {
        let is_target = |target: &str| {
            let own = line["target"].as_str().unwrap_or_default();
            own == target || own.strip_prefix(target).is_some_and(|rest| rest.starts_with('/'))
        };
        let is_in_range =
            |number| number > self.after && self.before.is_none_or(|before: u64| number < before);
        line["number"].as_u64().is_some_and(is_in_range)
            && self.target.as_deref().is_none_or(is_target)
            && self.actor.as_deref().is_none_or(|actor| line["actor"] == actor)
            && self.operation.as_deref().is_none_or(|operation| line["op"] == operation)
            && !(self.refused && line["result"] == DONE)
    }
}

/// Number and bytes of the last whole line, if there is one. One that lacks nothing but its end is whole.
pub(super) fn last(directory: &Path) -> io::Result<Option<(u64, Vec<u8>)>> {
    let mut files = old_files(directory)?;
    files.push(directory.join(CURRENT));
    for path in files.iter().rev().filter(|path| path.exists()) {
        let mut lines = Backwards::open(path)?;
        while let Some(line) = lines.next()? {
            let parsed: Option<Value> = serde_json::from_slice(&line).ok();
            if let Some(number) = parsed.and_then(|line| line["number"].as_u64()) {
                return Ok(Some((number, line)));
            }
        }
    }
    Ok(None)
}

/// Whether the current file ends in the middle of a line.
pub(super) fn is_cut(directory: &Path) -> io::Result<bool> {
    let path = directory.join(CURRENT);
    if !path.exists() {
        return Ok(false);
    }
    let mut file = File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

/// The files put aside, oldest first.
pub(super) fn old_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<_> = entries.iter().map(fs::DirEntry::path).filter(|path| is_old(path)).collect();
    files.sort();
    Ok(files)
}

/// The name of a full file, after its last line; names sort as numbers do.
pub(super) fn file_name(last: u64) -> String {
    format!("audit-{last:020}.ndjson")
}

fn is_old(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.strip_prefix("audit-")
        .and_then(|rest| rest.strip_suffix(".ndjson"))
        .is_some_and(|number| number.len() == 20 && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The result of what was not refused.
pub(super) const DONE: &str = "done";
/// The file that is written now.
pub(super) const CURRENT: &str = "audit.ndjson";
/// The current one and the one before it.
const FILES_READ: usize = 2;

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_page_of_what_is_wanted_ends_where_the_one_before_it_begins() {
        let directory = TempDir::new().unwrap();
        let lines: String = (1..=9)
            .map(|number| {
                let (actor, result) = if number % 3 == 0 { ("eve", "no right") } else { ("bob", "done") };
                let op = if number < 5 { "createIdentity" } else { "deleteIdentity" };
                let target = format!("d{number}");
                let line = serde_json::json!({
                    "number": number, "actor": actor, "op": op, "target": target, "result": result
                });
                format!("{line}\n")
            })
            .collect();
        fs::write(directory.path().join(CURRENT), lines).unwrap();
        let read = |wanted: AuditFilter| {
            let lines = read(directory.path(), &wanted).unwrap();
            lines.iter().filter_map(|line| line["number"].as_u64()).collect::<Vec<_>>()
        };
        let page = AuditFilter { count: 4, ..AuditFilter::default() };
        assert_eq!(read(page.clone()), [6, 7, 8, 9]);
        assert_eq!(read(AuditFilter { before: Some(6), ..page.clone() }), [2, 3, 4, 5]);
        assert_eq!(read(AuditFilter { before: Some(1), ..page.clone() }), [0; 0]);
        assert_eq!(read(AuditFilter { actor: Some("eve".into()), ..page.clone() }), [3, 6, 9]);
        assert_eq!(read(AuditFilter { refused: true, before: Some(9), ..page.clone() }), [3, 6]);
        let operation = Some("createIdentity".to_owned());
        assert_eq!(read(AuditFilter { operation, after: 2, ..page }), [3, 4]);
    }

    #[test]
    fn what_changed_is_told_in_one_text() {
        let line = serde_json::json!({
            "changes": {
                "status": {"before": "enabled", "after": "disabled"},
                "statusReason": {"before": null, "after": "lost"},
                "primaryKey": "changed",
            },
            "details": {"keys": true},
            "job": "j1",
        });
        let expected = "status: enabled -> disabled, statusReason: none -> lost, primaryKey: changed, keys: true, job: j1";
        let mut told: Vec<_> = effect_text(&line).split(", ").map(str::to_owned).collect();
        let mut expected: Vec<_> = expected.split(", ").map(str::to_owned).collect();
        told.sort();
        expected.sort();
        assert_eq!(told, expected);
        assert_eq!(effect_text(&serde_json::json!({"op": "deleteIdentity"})), "");
    }

    #[test]
    fn a_line_that_lacks_only_its_end_is_the_last_one() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join(CURRENT);
        fs::write(&path, "{\"number\":1}\n{\"number\":2}").unwrap();
        assert!(is_cut(directory.path()).unwrap());
        assert_eq!(last(directory.path()).unwrap(), Some((2, b"{\"number\":2}".to_vec())));
        fs::write(&path, "{\"number\":1}\n{\"number\":2").unwrap();
        assert_eq!(last(directory.path()).unwrap(), Some((1, b"{\"number\":1}".to_vec())));
        fs::write(&path, "").unwrap();
        assert!(!is_cut(directory.path()).unwrap());
    }
}
