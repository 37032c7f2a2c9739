//! How a verb ends: its exit code, and the one line on stderr that says why it failed.
//!
//! The exit codes are az's, extended; scripts rest on them.

use std::fmt;
use std::process::ExitCode;

/// How the program ended, as the shell sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    /// The hub, the network or this machine failed.
    Error = 1,
    Usage = 2,
    NotFound = 3,
    /// It exists already, or is no longer what the caller took it for.
    Conflict = 4,
    Unauthorized = 5,
    /// Throttled, or no answer in time: worth another try.
    Throttled = 6,
    /// Ctrl-C.
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb failed, in the operator's words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    /// IoT Hub's number of the error, when the hub told one.
    code: Option<u32>,
    message: String,
    hint: Option<String>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), hint: None }
    }

    pub(super) fn error(message: impl Into<String>) -> Self {
        Self::new(Exit::Error, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(super) fn with_code(self, code: u32) -> Self {
        Self { code: Some(code), ..self }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub(super) fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "error[{code}]: {}", self.message)?,
            None => write!(f, "error: {}", self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "  hint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reads_as_one_line() {
        let failure =
            Failure::new(Exit::NotFound, "pump-7").with_code(404001).with_hint("list shows what there is");
        assert_eq!(failure.to_string(), "error[404001]: pump-7  hint: list shows what there is");
        assert_eq!(Failure::error("no route").to_string(), "error: no route");
    }
}
