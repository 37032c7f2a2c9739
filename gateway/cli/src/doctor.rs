//! `doctor`: finds what is wrong with a hub on this machine, or with the connection to another
//! one, and says what to do.
//!
//! It changes nothing. Every check prints a line, so that a healthy hub is reported as well.

use std::fmt;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::exit::{Exit, Failure};
use crate::login::Access;
use crate::output::{answer, printable};

mod machine;
mod service;

/// `doctor`.
#[derive(Args)]
pub(super) struct DoctorArgs {
    /// text: one line for each check; json: a list of objects
    #[arg(short, long, value_enum, default_value = "text")]
    output: DoctorFormat,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum DoctorFormat {
    Text,
    Json,
}

/// What one check found.
#[derive(Debug)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    detail: String,
    /// What the operator can do.
    hint: &'static str,
}

/// The result of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Ok,
    /// It works now, but will stop working or does not work for every client.
    Warn,
    /// There is no hub, or the hub does not serve now.
    NotReady,
    Fail,
}

impl DoctorArgs {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let mut findings = Vec::new();
        if self.access.is_local() {
            findings = machine::examine(self.access.data_dir(), Timestamp::now());
        }
        match self.access.login() {
            Ok(login) => findings.extend(service::examine(login).await),
            Err(failure) => findings.push(Finding::not_ready(
                "hub",
                failure.message(),
                "start it with `portcullis`, name its --data-dir, or give --login CONNSTR and --ca FILE",
            )),
        }
        match self.output {
            DoctorFormat::Text => {
                answer(&findings.iter().map(|finding| format!("{finding}\n")).collect::<String>())?
            }
            DoctorFormat::Json => {
                let list = Value::Array(findings.iter().map(Finding::to_json).collect());
                answer(&format!("{list:#}\n"))?;
            }
        }
        Ok(match findings.iter().map(|finding| finding.verdict).max() {
            Some(Verdict::Fail) => Exit::Error,
            Some(Verdict::NotReady) => Exit::NotReady,
            Some(Verdict::Ok | Verdict::Warn) | None => Exit::Done,
        })
    }
}

impl Finding {
    fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, verdict: Verdict::Ok, detail: detail.into(), hint: "" }
    }

    fn warn(check: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { check, verdict: Verdict::Warn, detail: detail.into(), hint }
    }

    fn not_ready(check: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { check, verdict: Verdict::NotReady, detail: detail.into(), hint }
    }

    fn fail(check: &'static str, detail: impl Into<String>, hint: &'static str) -> Self {
        Self { check, verdict: Verdict::Fail, detail: detail.into(), hint }
    }

    fn to_json(&self) -> Value {
        let hint = (!self.hint.is_empty()).then_some(self.hint);
        json!({ "check": self.check, "verdict": self.verdict.word(), "detail": self.detail, "hint": hint })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:4}  {}: {}", self.verdict.word(), self.check, printable(&self.detail))?;
        match self.hint {
            "" => Ok(()),
            hint => write!(f, "  hint: {hint}"),
        }
    }
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::NotReady | Verdict::Fail => "fail",
        }
    }
}

pub(super) const EXAMPLES: &str = "\
Examples:
  portcullis doctor                                          # on the hub's machine
  portcullis doctor --data-dir /var/lib/portcullis -o json
  portcullis doctor --login 'HostName=hub.example.com;SharedAccessKeyName=…' --ca ca.pem

Exit codes: 0 healthy, 1 something is wrong, 2 nothing is wrong but the hub does not serve.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_reads_as_one_line() {
        assert_eq!(Finding::ok("clock", "in step").to_string(), "ok    clock: in step");
        let finding = Finding::fail("clock", "2\n0 s off", "set it");
        assert_eq!(finding.to_string(), "fail  clock: 2\\n0 s off  hint: set it");
        let expected = json!({"check": "clock", "verdict": "fail", "detail": "2\n0 s off", "hint": "set it"});
        assert_eq!(finding.to_json(), expected);
    }

    #[test]
    fn a_failure_outweighs_a_hub_that_does_not_serve() {
        assert!(Verdict::Fail > Verdict::NotReady && Verdict::NotReady > Verdict::Warn);
    }
}
