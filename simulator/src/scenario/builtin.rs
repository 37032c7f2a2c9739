//! The built-in scenarios: the files in `scenarios/`, which also document the format.

use super::Scenario;
use super::file::FileError;

/// A built-in scenario.
#[derive(Clone, Copy, Debug)]
pub struct Builtin {
    pub name: &'static str,
    /// The text of the file.
    pub text: &'static str,
}

macro_rules! builtin {
    ($($name:literal),* $(,)?) => {
        /// All of them, the simplest first.
        pub const ALL: &[Builtin] = &[
            $(Builtin { name: $name, text: include_str!(concat!("../../scenarios/", $name, ".toml")) }),*
        ];
    };
}

builtin![
    "smoke",
    "ramp",
    "steady",
    "storm",
    "herd",
    "flapping",
    "slow-readers",
    "hostile",
    "modules",
    "certificates",
    "mixed",
];

/// The scenario called `name`, or a name that is close to it.
pub fn find(name: &str) -> Result<&'static Builtin, Option<&'static str>> {
    let likeness = |known: &str| strsim::normalized_damerau_levenshtein(name, known);
    ALL.iter().find(|builtin| builtin.name == name).ok_or_else(|| {
        let best = ALL.iter().max_by(|one, other| likeness(one.name).total_cmp(&likeness(other.name)));
        best.map(|builtin| builtin.name).filter(|known| likeness(known) >= LIKENESS_MIN)
    })
}

impl Builtin {
    /// The parsed scenario.
    pub fn scenario(&self) -> Result<Scenario, FileError> {
        Scenario::parse(self.text)
    }
}

const LIKENESS_MIN: f64 = 0.5;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn each_file_is_a_scenario_of_its_name_that_ends_and_expects_something() {
        for builtin in ALL {
            let scenario = builtin.scenario().unwrap_or_else(|error| panic!("{}: {error}", builtin.name));
            assert_eq!(scenario.name, builtin.name);
            assert!(!scenario.description.is_empty() && scenario.duration().is_some(), "{}", builtin.name);
            assert!(!scenario.expect.is_empty(), "{}", builtin.name);
        }
    }

    #[test]
    fn no_file_is_forgotten() {
        let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")).unwrap();
        assert_eq!(files.count(), ALL.len());
    }

    #[test]
    fn a_misspelled_name_is_told_its_like() {
        assert_eq!(find("storm").unwrap().name, "storm");
        assert_eq!(find("strom").unwrap_err(), Some("storm"));
        assert_eq!(find("zzzz").unwrap_err(), None);
    }
}
