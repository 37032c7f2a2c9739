//! How a verb ends: its exit code, and the line on standard error that says why it failed.
//!
//! The exit codes are az's, extended. Scripts depend on them.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

/// The result of the program that the shell sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Done,
    /// The hub, the network or this machine failed.
    Error,
    Usage,
    NotFound,
    /// It exists already, or it has changed since the caller read it.
    Conflict,
    Unauthorized,
    /// Throttled, or no answer in time. Another attempt may succeed.
    Throttled,
    /// Some of several items succeeded and others failed.
    Partial,
    /// `status`: the hub runs but does not serve.
    NotReady,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// The number that scripts see.
    pub(super) fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Error => 1,
            Exit::Usage | Exit::NotReady => 2,
            Exit::NotFound => 3,
            Exit::Conflict => 4,
            Exit::Unauthorized => 5,
            Exit::Throttled => 6,
            Exit::Partial => 7,
            Exit::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a verb failed, as text for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    exit: Exit,
    /// IoT Hub's error number, if the hub sent one.
    code: Option<u32>,
    message: String,
    hint: Option<String>,
    /// Whether every other request to the hub would fail for the same reason.
    ends_all: bool,
    passing: Option<Passing>,
}

/// A failure that may pass: the same request may succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passing {
    /// How long to wait first, if the hub said so.
    pub(super) after: Option<Duration>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let ends_all = exit == Exit::Unauthorized;
        Self { exit, code: None, message: message.into(), hint: None, ends_all, passing: None }
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

    /// Marks that the hub cannot be reached.
    pub(super) fn of_the_link(self) -> Self {
        Self { ends_all: true, ..self }
    }

    pub(super) fn that_passes(self, after: Option<Duration>) -> Self {
        Self { passing: Some(Passing { after }), ..self }
    }

    pub(super) fn ends_all(&self) -> bool {
        self.ends_all
    }

    pub(super) fn passing(&self) -> Option<Passing> {
        self.passing
    }

    pub(super) fn code(&self) -> Option<u32> {
        self.code
    }

    /// What failed, without code and hint.
    pub(super) fn message(&self) -> &str {
        &self.message
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
