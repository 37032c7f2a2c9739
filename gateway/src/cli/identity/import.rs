//! `device-identity import`: a file of identities, as IoT Hub exports it, goes into the registry line by line.
//!
//! What a line asks for is the hub's to understand. Lines travel together as long as that cannot change their order:
//! the hub does devices before their modules and deletes modules first, so of one device only modules may follow it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use clap::Args;
use portcullis_registry::lines::{Line, LineSplitter};
use serde_json::{Value, json};

use crate::cli::exit::{Exit, Failure};
use crate::cli::rest::Rest;
use crate::json::StrictObject;

/// What to import.
#[derive(Args)]
pub(in crate::cli) struct ImportArgs {
    /// The file; - for standard input
    #[arg(long, visible_alias = "if", value_name = "FILE")]
    input_file: PathBuf,
}

impl ImportArgs {
    pub(super) async fn run(self, rest: &Rest) -> Result<(), Failure> {
        let is_stdin = self.input_file.as_os_str() == "-";
        let told = |error: io::Error| Failure::error(format!("{}: {error}", self.input_file.display()));
        let mut file: Box<dyn Read> = if is_stdin {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(&self.input_file).map_err(told)?)
        };
        let mut import = Import { rest, batch: Vec::new(), bytes: 0, done: 0, refused: 0 };
        let mut splitter = LineSplitter::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let length = match file.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(told(error)),
            };
            let mut lines = Vec::new();
            splitter.feed(&piece[..length], |line| lines.push(line));
            for line in lines {
                import.line(line).await?;
            }
        }
        if let Some(line) = splitter.finish() {
            import.line(line).await?;
        }
        import.send().await?;
        import.end()
    }
}

struct Import<'a> {
    rest: &'a Rest,
    /// What goes to the hub next, or, with a reason, what never does.
    batch: Vec<(u64, Result<Value, String>)>,
    bytes: usize,
    done: u64,
    refused: u64,
}

impl Import<'_> {
    async fn line(&mut self, line: Line) -> Result<(), Failure> {
        let bytes = line.text.as_ref().map_or(0, String::len);
        let item = match line.text {
            Ok(text) => parse(&text),
            Err(error) => Err(error.to_string()),
        };
        let is_full = self.batch.len() == BATCH_LINES || self.bytes + bytes > BATCH_BYTES;
        if is_full || item.as_ref().is_ok_and(|item| self.must_precede(item)) {
            self.send().await?;
        }
        self.bytes += bytes;
        self.batch.push((line.number, item));
        Ok(())
    }

    /// Whether the batch has to be done before `item`.
    fn must_precede(&self, item: &Value) -> bool {
        let earlier = self.batch.iter().filter_map(|(_, item)| item.as_ref().ok());
        earlier.filter(|earlier| earlier["id"] == item["id"]).any(|earlier| {
            let module = name(item, "moduleId");
            module.is_empty() || module == name(earlier, "moduleId") || is_delete(earlier) || is_delete(item)
        })
    }

    /// Has the batch done and tells what became of each line of it.
    async fn send(&mut self) -> Result<(), Failure> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let items: Vec<Value> = batch.iter().filter_map(|(_, item)| item.as_ref().ok().cloned()).collect();
        let answer = if items.is_empty() { Value::Null } else { self.rest.change_many(&items).await? };
        let errors = answer["errors"].as_array().map(Vec::as_slice).unwrap_or_default();
        let errors: HashMap<(&str, &str), &Value> = errors
            .iter()
            .map(|error| ((name(error, "deviceId"), name(error, "moduleId")), &error["errorStatus"]))
            .collect();
        let mut out = io::stdout().lock();
        for (number, item) in &batch {
            let result = match item {
                Err(reason) => json!({ "line": number, "result": "refused", "reason": reason }),
                Ok(item) => {
                    let (device, module) = (name(item, "id"), name(item, "moduleId"));
                    let reason = errors.get(&(device, module));
                    let result = if reason.is_some() { "refused" } else { "done" };
                    json!({ "line": number, "deviceId": device, "moduleId": item["moduleId"], "result": result,
                        "reason": reason })
                }
            };
            if result["result"] == "done" {
                self.done += 1
            } else {
                self.refused += 1
            }
            writeln!(out, "{result}").map_err(|error| Failure::error(format!("standard output: {error}")))?;
        }
        Ok(())
    }

    fn end(self) -> Result<(), Failure> {
        match (self.done, self.refused) {
            (_, 0) => Ok(()),
            (0, refused) => Err(Failure::error(format!("none of {refused} lines was done"))),
            (done, refused) => {
                Err(Failure::new(Exit::Partial, format!("{done} lines were done, {refused} were not")))
            }
        }
    }
}

/// A line as the hub wants it, with an id its result can be told by.
fn parse(text: &str) -> Result<Value, String> {
    let StrictObject(item): StrictObject =
        serde_json::from_str(text).map_err(|error| format!("the line is not an identity: {error}"))?;
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    if !item.get("id").is_some_and(is_text) {
        return Err("id is missing or not a text".to_owned());
    }
    if item.get("moduleId").is_some_and(|module| !module.is_null() && !module.is_string()) {
        return Err("moduleId is not a text".to_owned());
    }
    Ok(Value::Object(item))
}

/// A member's text; absent, `null` and empty are the same.
fn name<'a>(item: &'a Value, member: &str) -> &'a str {
    item[member].as_str().unwrap_or_default()
}

fn is_delete(item: &Value) -> bool {
    name(item, "importMode").to_ascii_lowercase().starts_with("delete")
}

/// As many as the hub takes at once.
const BATCH_LINES: usize = 100;
/// Far less than the hub takes at once.
const BATCH_BYTES: usize = 256 * 1024;
const PIECE_BYTES: usize = 64 * 1024;
