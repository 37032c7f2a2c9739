//! A line of a file of identities, in IoT Hub's words: those of `POST /devices`, one item a line.

use portcullis_registry::lines::LineError;

use crate::iothub::change::{IdentityChange, NamedIdentity, loses_twin, parse_change};
use crate::iothub::problem::Problem;
use crate::iothub::strict_json::StrictObject;
use crate::operations::bulk::ChangeError;

/// What a line asks for.
#[derive(Clone, Debug)]
pub struct LineChange {
    pub change: IdentityChange,
    /// It has tags or desired properties, which are not kept.
    pub has_twin: bool,
}

/// Why a line was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineRefusal {
    /// IoT Hub's number of the error.
    pub code: u32,
    /// IoT Hub's name of the error.
    pub name: &'static str,
    pub text: String,
}

/// What a line asks for, or whom it names and why it asks for nothing.
pub fn parse(text: &str) -> Result<LineChange, (NamedIdentity, LineRefusal)> {
    let StrictObject(item) = serde_json::from_str(text).map_err(|error| {
        let problem = Problem::deserialization(format!("the line is not an identity: {error}"));
        (NamedIdentity::default(), LineRefusal::from(&problem))
    })?;
    match parse_change(&item) {
        Ok(change) => Ok(LineChange { has_twin: loses_twin(&item, &change), change }),
        Err(problem) => Err((NamedIdentity::of(&item), LineRefusal::from(&problem))),
    }
}

impl From<&Problem> for LineRefusal {
    fn from(problem: &Problem) -> Self {
        Self { code: problem.number(), name: problem.name(), text: problem.text().to_owned() }
    }
}

impl From<ChangeError> for LineRefusal {
    fn from(error: ChangeError) -> Self {
        Self::from(&Problem::from(error))
    }
}

/// The line cannot even be read.
impl From<LineError> for LineRefusal {
    fn from(error: LineError) -> Self {
        Self::from(&Problem::deserialization(error.to_string()))
    }
}

#[cfg(test)]
mod tests;
