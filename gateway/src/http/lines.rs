//! The lines of import and export files in IoT Hub's words: those of `POST /devices`, one item a line.

use portcullis_registry::identity::Identity;
use portcullis_registry::lines::LineError;

use crate::operations::bulk::ChangeError;
use crate::http::bulk::{About, parse_change};
use crate::http::problem::Problem;
use crate::http::wire;
use crate::operations::jobs::line::{self, Asked, Form, Refusal, Words};
use crate::iothub::strict_json::StrictObject;

/// IoT Hub's words.
#[derive(Debug)]
pub(crate) struct Lines;

impl Words for Lines {
    fn parse(&self, text: &str) -> Result<Asked, (line::About, Refusal)> {
        let StrictObject(item) = serde_json::from_str(text).map_err(|error| {
            let problem = Problem::deserialization(format!("the line is not an identity: {error}"));
            (line::About::default(), refusal(&problem))
        })?;
        let about = About::of(&item);
        match parse_change(&item) {
            Ok(change) => Ok(Asked { has_twin: about.has_twin, change }),
            Err(problem) => {
                let about = line::About { device: about.device, module: about.module };
                Err((about, refusal(&problem)))
            }
        }
    }

    fn unreadable(&self, error: LineError) -> Refusal {
        refusal(&Problem::deserialization(error.to_string()))
    }

    fn refusal(&self, error: ChangeError) -> Refusal {
        refusal(&error.into())
    }

    fn write(&self, identity: &Identity, form: Form, to: &mut Vec<u8>) {
        wire::write_line(identity, form, to);
    }
}

fn refusal(problem: &Problem) -> Refusal {
    Refusal { code: problem.number(), name: problem.name(), text: problem.text().to_owned() }
}

#[cfg(test)]
mod tests;
