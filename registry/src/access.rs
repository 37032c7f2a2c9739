//! What an identity may do: everything its kind may, or only what its access list names.
//!
//! A list is parsed once and bounded; an identity without one carries one empty pointer. A right that this program
//! learns later is in no list written before, so "everything" is never the same as a list of all rights.

use std::fmt;
use std::sync::Arc;

/// What an identity may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access(Option<Arc<Vec<AccessEntry>>>);

/// Something an identity does on a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Send telemetry, its will included.
    Telemetry,
    /// Receive cloud-to-device messages; for a module, what is routed to its inputs too.
    C2d,
    /// Read its twin, report properties and receive desired ones.
    Twin,
    /// Receive and answer calls of the methods the list names.
    Methods,
}

/// One entry of a list. The order is the one in which lists are written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AccessEntry {
    Telemetry,
    C2d,
    Twin,
    Methods(MethodPattern),
}

/// A method's name, or the beginning of names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct MethodPattern {
    name: Box<str>,
    is_prefix: bool,
}

/// Why a text is no access list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAccess {
    /// The text is no entry of a list; an excerpt is given.
    #[error("{0:?} is none of telemetry, c2d, twin and methods:NAME, where methods:* is every method")]
    Unknown(String),
    /// The text is no name of a method, nor the beginning of names; an excerpt is given.
    #[error(
        "{0:?}: the name of a method has 1 to {METHOD_CHARACTERS_MAX} visible ASCII characters without comma, / + #, \
         and a * only at its end"
    )]
    Method(String),
    /// The list has more than [`ENTRIES_MAX`] entries.
    #[error("an access list has at most {ENTRIES_MAX} entries")]
    TooMany,
}

/// An identity wanted to do what its access list does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the access list allows {allowed}, not {wanted}")]
pub struct AccessDenied {
    /// What the identity wanted to do.
    pub wanted: Right,
    /// What its access list allows instead.
    pub allowed: Access,
}

impl Access {
    /// Everything: the access of an identity that has no list.
    pub const EVERYTHING: Self = Self(None);

    /// Reads a list. One without entries allows nothing.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, InvalidAccess> {
        let mut entries = Vec::new();
        for text in texts {
            if entries.len() == ENTRIES_MAX {
                return Err(InvalidAccess::TooMany);
            }
            entries.push(AccessEntry::parse(text.as_ref())?);
        }
        entries.sort_unstable();
        entries.dedup();
        entries.shrink_to_fit();
        Ok(Self(Some(Arc::new(entries))))
    }

    /// The entries of the list as texts, in a fixed order; none if there is no list.
    pub fn to_entries(&self) -> Option<Vec<String>> {
        self.0.as_ref().map(|entries| entries.iter().map(AccessEntry::to_string).collect())
    }

    /// Whether it includes the right.
    pub fn allows(&self, wanted: Right) -> bool {
        self.0.as_ref().is_none_or(|entries| entries.iter().any(|entry| entry.right() == wanted))
    }

    /// Refuses a right that it does not include.
    pub fn check(&self, wanted: Right) -> Result<(), AccessDenied> {
        if self.allows(wanted) { Ok(()) } else { Err(AccessDenied { wanted, allowed: self.clone() }) }
    }

    /// Whether it allows all that `other` does. When in doubt it does not: each entry of `other` must be covered by one
    /// entry of this list.
    pub fn covers(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(others)) => {
                others.iter().all(|other| own.iter().any(|entry| entry.covers(other)))
            }
        }
    }
}

impl AccessEntry {
    fn parse(text: &str) -> Result<Self, InvalidAccess> {
        match text {
            "telemetry" => Ok(AccessEntry::Telemetry),
            "c2d" => Ok(AccessEntry::C2d),
            "twin" => Ok(AccessEntry::Twin),
            _ => match text.strip_prefix("methods:") {
                Some(pattern) => MethodPattern::parse(pattern).map(AccessEntry::Methods),
                None => Err(InvalidAccess::Unknown(excerpt(text))),
            },
        }
    }

    fn right(&self) -> Right {
        match self {
            AccessEntry::Telemetry => Right::Telemetry,
            AccessEntry::C2d => Right::C2d,
            AccessEntry::Twin => Right::Twin,
            AccessEntry::Methods(_) => Right::Methods,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (AccessEntry::Methods(own), AccessEntry::Methods(other)) => own.covers(other),
            _ => self == other,
        }
    }
}

impl MethodPattern {
    fn parse(text: &str) -> Result<Self, InvalidAccess> {
        let (name, is_prefix) = match text.strip_suffix('*') {
            Some(name) => (name, true),
            None => (text, false),
        };
        // A comma separates entries on a command line; the others have a meaning in topics.
        let is_of_a_name = |byte: u8| byte.is_ascii_graphic() && !b"*,/+#".contains(&byte);
        if text.is_empty() || text.len() > METHOD_CHARACTERS_MAX || !name.bytes().all(is_of_a_name) {
            return Err(InvalidAccess::Method(excerpt(text)));
        }
        Ok(Self { name: name.into(), is_prefix })
    }

    /// Whether every name that matches `other` matches this.
    fn covers(&self, other: &Self) -> bool {
        match self.is_prefix {
            true => other.name.starts_with(&*self.name),
            false => self == other,
        }
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_entries() {
            None => f.write_str("everything"),
            Some(entries) if entries.is_empty() => f.write_str("nothing"),
            Some(entries) => f.write_str(&entries.join(", ")),
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Right::Telemetry => "telemetry",
            Right::C2d => "c2d",
            Right::Twin => "twin",
            Right::Methods => "methods",
        })
    }
}

impl fmt::Display for AccessEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AccessEntry::Methods(MethodPattern { name, is_prefix }) => {
                write!(f, "methods:{name}{}", if *is_prefix { "*" } else { "" })
            }
            AccessEntry::Telemetry | AccessEntry::C2d | AccessEntry::Twin => self.right().fmt(f),
        }
    }
}

/// Enough of a text to recognise it by.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARACTERS).collect()
}

/// Entries of one list.
pub const ENTRIES_MAX: usize = 32;

/// The star included.
const METHOD_CHARACTERS_MAX: usize = 128;

const EXCERPT_CHARACTERS: usize = 64;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn access(entries: &[&str]) -> Access {
        Access::parse(entries).unwrap()
    }

    #[test]
    fn no_list_is_everything_and_costs_one_pointer() {
        assert_eq!(size_of::<Access>(), size_of::<usize>());
        for right in RIGHTS {
            assert!(Access::EVERYTHING.allows(right));
            assert!(!access(&[]).allows(right));
        }
        assert_eq!(Access::EVERYTHING.to_entries(), None);
    }

    #[test]
    fn a_list_allows_what_it_names_and_nothing_else() {
        for (entries, allowed) in [
            (&["telemetry"][..], &[Right::Telemetry][..]),
            (&["c2d", "twin"], &[Right::C2d, Right::Twin]),
            (&["methods:reboot"], &[Right::Methods]),
            (&["methods:*", "telemetry"], &[Right::Telemetry, Right::Methods]),
        ] {
            for right in RIGHTS {
                assert_eq!(
                    access(entries).check(right).is_ok(),
                    allowed.contains(&right),
                    "{entries:?} {right}"
                );
            }
        }
        let denied = access(&["methods:diag*", "telemetry"]).check(Right::C2d).unwrap_err();
        assert_eq!(denied.to_string(), "the access list allows telemetry, methods:diag*, not c2d");
        assert_eq!(access(&[]).to_string(), "nothing");
    }

    #[test]
    fn entries_are_written_in_one_order_and_once() {
        let entries = access(&["methods:b*", "twin", "c2d", "methods:a", "twin", "telemetry"]).to_entries();
        assert_eq!(entries.unwrap(), ["telemetry", "c2d", "twin", "methods:a", "methods:b*"]);
    }

    #[test]
    fn what_is_no_list_is_refused_and_named() {
        let long = format!("methods:{}", "x".repeat(METHOD_CHARACTERS_MAX + 1));
        for bad in [
            "",
            "Telemetry",
            " c2d",
            "all",
            "*",
            "methods",
            "methods:",
            "methods:a*b",
            "methods:**",
            "methods:a/b",
            "methods:a b",
            "methods:+",
            "methods:#",
            "methods:a,b",
            "methods:é",
            "methods:\n",
            "Methods:x",
            &long,
        ] {
            assert!(Access::parse([bad]).is_err(), "{bad:?}");
        }
        let refusal = Access::parse(["telemetrie"]).unwrap_err().to_string();
        assert!(refusal.starts_with(r#""telemetrie" is none of telemetry, c2d, twin"#), "{refusal}");
        assert!(Access::parse(["x".repeat(100_000)]).unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn a_list_is_bounded() {
        let entries: Vec<_> = (0..=ENTRIES_MAX).map(|number| format!("methods:m{number}")).collect();
        assert!(Access::parse(&entries[1..]).is_ok());
        assert_eq!(Access::parse(&entries), Err(InvalidAccess::TooMany));
        assert_eq!(Access::parse(vec!["c2d"; ENTRIES_MAX + 1]), Err(InvalidAccess::TooMany));
    }

    #[test]
    fn one_covers_another_when_it_allows_all_of_it() {
        let everything = Access::EVERYTHING;
        let all_entries = access(&["telemetry", "c2d", "twin", "methods:*"]);
        assert!(everything.covers(&everything) && everything.covers(&all_entries));
        // What is added to the rights later is in no list of today.
        assert!(!all_entries.covers(&everything));
        for (wide, narrow) in [
            (&["telemetry", "c2d"][..], &["c2d"][..]),
            (&["c2d"], &[]),
            (&["methods:*"], &["methods:diag*", "methods:reboot"]),
            (&["methods:diag*"], &["methods:diag*"]),
            (&["methods:diag*"], &["methods:diagnose", "methods:diag", "methods:diagnose-*"]),
        ] {
            assert!(access(wide).covers(&access(narrow)), "{wide:?} {narrow:?}");
            assert!(wide == narrow || !access(narrow).covers(&access(wide)), "{wide:?} {narrow:?}");
        }
        for (one, other) in
            [(&["telemetry"], &["c2d"]), (&["methods:a"], &["methods:b"]), (&["methods:a*"], &["twin"])]
        {
            assert!(!access(one).covers(&access(other)) && !access(other).covers(&access(one)));
        }
    }

    const RIGHTS: [Right; 4] = [Right::Telemetry, Right::C2d, Right::Twin, Right::Methods];

    fn entry() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("telemetry".to_owned()),
            Just("c2d".to_owned()),
            Just("twin".to_owned()),
            "methods:[ab]{1,3}",
            "methods:[ab]{0,3}\\*",
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_that_comes_back_or_an_error(entries in prop::collection::vec(".{0,20}", 0..4)) {
            if let Ok(access) = Access::parse(&entries) {
                prop_assert_eq!(Access::parse(access.to_entries().unwrap()), Ok(access));
            }
        }

        #[test]
        fn what_covers_another_allows_every_right_of_it(
            one in prop::collection::vec(entry(), 0..6),
            other in prop::collection::vec(entry(), 0..6),
        ) {
            let (one, other) = (Access::parse(&one).unwrap(), Access::parse(&other).unwrap());
            prop_assert_eq!(Access::parse(other.to_entries().unwrap()), Ok(other.clone()));
            prop_assert!(other.covers(&other));
            if one.covers(&other) {
                for right in RIGHTS {
                    prop_assert!(one.allows(right) || !other.allows(right));
                }
            }
        }
    }
}
