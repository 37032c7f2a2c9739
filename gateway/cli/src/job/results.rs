//! The result of a job: the number of lines of each outcome, the refused lines with reasons, and the exit code.

use std::io::Write;

use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::output::{Column, printable, scalar};
use crate::rest::Rest;

/// The outcomes of lines, in the order in which they are printed.
const COUNTED: [&str; 5] = ["created", "changed", "unchanged", "deleted", "refused"];

/// How many lines had this outcome.
pub(crate) fn count(job: &Value, what: &str) -> u64 {
    job["outcomes"][what].as_u64().unwrap_or_default()
}

/// The number of lines of each outcome, as text.
pub(crate) fn summary(job: &Value) -> String {
    let mut text = String::new();
    if job["dryRun"] == true {
        text += "nothing was changed; without --dry-run the import would end with:\n";
    }
    for what in COUNTED {
        text += &format!("{what:<9}  {}\n", count(job, what));
    }
    text
}

/// The same as rows and columns of a table.
pub(crate) fn table(job: &Value) -> (Value, &'static [Column]) {
    let rows = COUNTED.iter().map(|what| json!({ "outcome": what, "lines": count(job, what) }));
    (rows.collect(), COLUMNS)
}

/// Prints the first refused lines, and writes the result of every line to `to`, if given.
pub(crate) async fn print_refused(
    rest: &Rest,
    job: &Value,
    mut to: Option<&mut dyn Write>,
) -> Result<(), Failure> {
    let note = printable(&scalar(job, "/note"));
    if !note.is_empty() {
        eprintln!("note: {note}");
    }
    let refused = count(job, "refused");
    if to.is_none() && refused == 0 {
        return Ok(());
    }
    let id = super::id(job);
    let mut results = rest.download(&["api", "v1", "jobs", &id, "files", RESULTS]).await?;
    let mut lines = Lines::default();
    let mut told = 0;
    while let Some(piece) = results.next().await? {
        if let Some(to) = &mut to {
            to.write_all(&piece).map_err(|error| Failure::error(format!("the results: {error}")))?;
        }
        lines.feed(&piece, |line| {
            if told < SHOWN_MAX
                && let Some(words) = refusal(line)
            {
                eprintln!("{words}");
                told += 1;
            }
        });
        let is_enough = told == SHOWN_MAX || told == refused;
        if is_enough && to.is_none() {
            break;
        }
    }
    if refused > told {
        eprintln!("and {} more; use --results-file FILE to get them all", refused - told);
    }
    Ok(())
}

/// A refused line as text; none for other lines.
fn refusal(line: &[u8]) -> Option<String> {
    let result: Value = serde_json::from_slice(line).ok()?;
    if result["outcome"] != "refused" {
        return None;
    }
    let text = |pointer: &str| printable(&scalar(&result, pointer));
    let (device, module) = (text("/id"), text("/moduleId"));
    let about = match (device.as_str(), module.as_str()) {
        ("", _) => String::new(),
        (device, "") => format!(" {device}:"),
        (device, module) => format!(" {device}/{module}:"),
    };
    Some(format!("line {}:{about} {} [{}]", text("/line"), text("/error"), text("/errorCode")))
}

/// The result of a job that counts lines: an error if anything failed.
pub(crate) fn ended(job: &Value, interrupted: bool) -> Result<(), Failure> {
    let refused = count(job, "refused");
    let done: u64 = COUNTED.iter().map(|what| count(job, what)).sum::<u64>() - refused;
    match scalar(job, "/status").as_str() {
        "completed" => {}
        "cancelled" => {
            let lines = done + refused;
            let exit = if interrupted { Exit::Interrupted } else { Exit::Error };
            return Err(Failure::new(exit, format!("the job was cancelled after {lines} lines")));
        }
        _ => {
            let reason = printable(&scalar(job, "/failureReason"));
            let reason =
                if reason.is_empty() { "the job failed; look into the hub's log".to_owned() } else { reason };
            return Err(Failure::error(reason));
        }
    }
    match (done, refused) {
        (_, 0) => Ok(()),
        (0, refused) => Err(Failure::error(format!("all {refused} lines were refused"))),
        (done, refused) => {
            Err(Failure::new(Exit::Partial, format!("{done} lines were applied, {refused} were refused")))
        }
    }
}

/// Splits pieces of text into lines.
#[derive(Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn feed(&mut self, piece: &[u8], mut each: impl FnMut(&[u8])) {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.0.extend_from_slice(&rest[..end]);
            each(&self.0);
            self.0.clear();
            rest = &rest[end + 1..];
        }
        self.0.extend_from_slice(rest);
    }
}

const COLUMNS: &[Column] =
    &[("Outcome", |row| scalar(row, "/outcome")), ("Lines", |row| scalar(row, "/lines"))];
/// Enough to show what is wrong with a file.
const SHOWN_MAX: u64 = 10;
const RESULTS: &str = "results.txt";

#[cfg(test)]
mod tests {
    use super::*;

    fn job(status: &str, counts: [u64; 5]) -> Value {
        let outcomes: serde_json::Map<_, _> =
            COUNTED.iter().zip(counts).map(|(what, count)| ((*what).to_owned(), count.into())).collect();
        json!({"jobId": "j", "status": status, "outcomes": outcomes, "failureReason": "the disk is full"})
    }

    #[test]
    fn how_a_job_ended_is_told_by_the_exit_code() {
        let exit = |status, counts, interrupted| {
            ended(&job(status, counts), interrupted).map_or_else(|failure| failure.exit(), |()| Exit::Done)
        };
        assert_eq!(exit("completed", [1, 2, 3, 4, 0], false), Exit::Done);
        assert_eq!(exit("completed", [0; 5], false), Exit::Done);
        assert_eq!(exit("completed", [1, 0, 0, 0, 1], false), Exit::Partial);
        assert_eq!(exit("completed", [0, 0, 0, 0, 1], false), Exit::Error);
        assert_eq!(exit("completed", [1, 0, 0, 0, 0], true), Exit::Done, "Ctrl-C came too late");
        assert_eq!(exit("cancelled", [1, 0, 0, 0, 0], true), Exit::Interrupted);
        assert_eq!(exit("cancelled", [1, 0, 0, 0, 0], false), Exit::Error);
        let failure = ended(&job("failed", [1, 0, 0, 0, 0]), false).unwrap_err();
        assert_eq!(failure.to_string(), "error: the disk is full");
    }

    #[test]
    fn a_refused_line_is_told_with_its_place_and_nothing_a_terminal_obeys() {
        let told = |result: Value| refusal(result.to_string().as_bytes());
        assert_eq!(told(json!({"line": 1, "id": "a", "outcome": "created"})), None);
        let refused = json!({"line": 7, "id": "a\u{1b}", "moduleId": "m", "outcome": "refused",
            "errorCode": "ModuleNotFound", "error": "a/m"});
        assert_eq!(told(refused).unwrap(), "line 7: a\\u{1b}/m: a/m [ModuleNotFound]");
        let nameless =
            json!({"line": 8, "id": "", "outcome": "refused", "errorCode": "X", "error": "not JSON"});
        assert_eq!(told(nameless).unwrap(), "line 8: not JSON [X]");
    }

    #[test]
    fn lines_are_the_same_however_they_come() {
        for cut in 0..8 {
            let (one, two) = "ab\n\ncde\n".as_bytes().split_at(cut);
            let (mut lines, mut found) = (Lines::default(), Vec::new());
            for piece in [one, two] {
                lines.feed(piece, |line| found.push(String::from_utf8(line.to_vec()).unwrap()));
            }
            assert_eq!(found, ["ab", "", "cde"]);
        }
    }
}
