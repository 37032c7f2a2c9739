//! The flag that sets what an identity may do.

use clap::Args;
use serde_json::{Value, json};

/// The access list. Without the flag the request does not mention access.
#[derive(Args)]
pub(crate) struct AllowedArg {
    /// What it may do: telemetry, c2d, twin, methods:NAME and methods:BEGINNING*, separated by commas;
    /// `none` for nothing, `all` for everything
    #[arg(long = "access", value_name = "LIST")]
    allowed: Option<String>,
}

impl AllowedArg {
    /// Whether the flag is absent.
    pub(super) fn is_empty(&self) -> bool {
        self.list().is_none()
    }

    /// Writes the access list into an identity.
    pub(super) fn write(&self, identity: &mut Value) {
        let Some(list) = self.list() else { return };
        identity["access"] = match list {
            "all" => Value::Null,
            "none" => json!({ "allow": [] }),
            list => json!({ "allow": list.split(',').map(str::trim).collect::<Vec<_>>() }),
        };
    }

    /// An option with an empty value counts as absent. Otherwise a variable that is not set would allow everything.
    fn list(&self) -> Option<&str> {
        self.allowed.as_deref().map(str::trim).filter(|list| !list.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(list: Option<&str>) -> Value {
        let mut identity = json!({ "access": "as it was" });
        AllowedArg { allowed: list.map(str::to_owned) }.write(&mut identity);
        identity["access"].take()
    }

    #[test]
    fn a_list_is_written_as_it_is_asked_for() {
        for absent in [None, Some(""), Some(" ")] {
            assert_eq!(written(absent), "as it was");
        }
        assert_eq!(written(Some("all")), Value::Null);
        assert_eq!(written(Some("none")), json!({ "allow": [] }));
        assert_eq!(written(Some("c2d, methods:diag*")), json!({ "allow": ["c2d", "methods:diag*"] }));
        // What is no list is the hub's to refuse.
        assert_eq!(written(Some("c2d,,all")), json!({ "allow": ["c2d", "", "all"] }));
    }
}
