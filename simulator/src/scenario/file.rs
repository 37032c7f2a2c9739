//! A scenario as TOML text. An unknown key is an error that suggests a similar one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{InvalidScenario, Scenario, parse_duration};

/// Why a file is not a scenario.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{0}")]
    Syntax(String),
    #[error(transparent)]
    Invalid(#[from] InvalidScenario),
}

impl Scenario {
    /// Reads and checks the scenario in `path`. Without a name it is named after the file.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = fs::read_to_string(path).map_err(|error| FileError::Read(path.to_owned(), error))?;
        let mut scenario = Self::parse(&text)?;
        if scenario.name.is_empty() {
            scenario.name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        }
        Ok(scenario)
    }

    /// Parses and checks a scenario.
    pub fn parse(text: &str) -> Result<Self, FileError> {
        let scenario: Self = toml::from_str(text).map_err(|error| FileError::Syntax(explain(&error)))?;
        Ok(scenario.check()?)
    }
}

/// The library's error text, which shows the place, and a suggestion for an unknown key.
fn explain(error: &toml::de::Error) -> String {
    let mut text = error.to_string().trim_end().to_owned();
    // serde: "unknown field `a`, expected one of `b`, `c`" or "…, expected `b`".
    let names: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
    if let ([unknown, known @ ..], true) = (&names[..], error.message().starts_with("unknown field"))
        && let Some(meant) = closest(unknown, known)
    {
        text.push_str(&format!("\ndid you mean `{meant}`?"));
    }
    text
}

fn closest<'a>(unknown: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(unknown, name);
    let liked =
        known.iter().map(|name| (likeness(name), *name)).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    liked.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, name)| name)
}

/// A duration such as `"10s"`. `"0s"` is allowed.
pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    match text.as_str() {
        "0s" => Ok(Duration::ZERO),
        _ => parse_duration(&text).map_err(serde::de::Error::custom),
    }
}

pub(super) fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

/// Below this similarity a suggestion would only confuse.
const LIKENESS_MIN: f64 = 0.5;

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Scenario::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_has_its_default() {
        let scenario = Scenario::parse("[[phase]]\nduration = '5s'").unwrap();
        assert_eq!(scenario.fleet.devices, 100);
        assert_eq!(scenario.phases[0].connected, 1.0);
        assert_eq!(scenario.phases[0].duration, Some(Duration::from_secs(5)));
    }

    #[test]
    fn an_unknown_key_is_an_error_that_says_what_was_meant() {
        for (text, unknown, meant) in [
            ("[fleet]\ndevises = 3", "devises", "devices"),
            ("[[phase]]\ntelemtry_per_second = 1", "telemtry_per_second", "telemetry_per_second"),
            ("[expect]\nlots = 0", "lots", "lost"),
            ("[[phase]]\nhostile = { bad_token = 1 }", "bad_token", "bad_tokens"),
            ("[fleet]\ncredentials = { sass = 1 }", "sass", "sas"),
            ("[[phases]]\nname = 'x'", "phases", "phase"),
        ] {
            let said = error(text);
            assert!(said.contains(&format!("unknown field `{unknown}`")), "{said}");
            assert!(said.ends_with(&format!("did you mean `{meant}`?")), "{said}");
        }
        let said = error("[fleet]\nzebra = 1");
        assert!(said.contains("unknown field `zebra`") && !said.contains("did you mean"), "{said}");
    }

    #[test]
    fn an_error_shows_its_place() {
        let said = error("[fleet]\ndevices = 'many'");
        assert!(said.contains("line 2") && said.contains("devices"), "{said}");
        assert!(error("[[phase]]\nduration = '60'").contains("number with its unit"));
    }

    #[test]
    fn what_cannot_be_run_is_refused_here_too() {
        assert!(matches!(Scenario::parse("seed = 1"), Err(FileError::Invalid(InvalidScenario::NoPhase))));
    }
}
