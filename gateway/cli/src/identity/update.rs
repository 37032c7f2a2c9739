//! `update`: changes the named properties of an identity and keeps the others.

use clap::Args;
use serde_json::{Map, Value};

use crate::exit::Failure;
use crate::identity::allowed::AllowedArg;
use crate::identity::authentication::AuthenticationArgs;
use crate::identity::queue::QueueArg;

/// The arguments of `update` for devices and for modules.
#[derive(Args)]
pub(crate) struct UpdateArgs {
    #[command(flatten)]
    authentication: AuthenticationArgs,
    #[command(flatten)]
    allowed: AllowedArg,
    #[command(flatten)]
    queue: QueueArg,
    /// Set properties by their names in JSON, for example `capabilities.iotEdge=true`; null clears one
    #[arg(long, value_name = "NAME=VALUE", num_args = 1.., value_parser = Assignment::parse)]
    set: Vec<Assignment>,
    /// Continue only if the identity still has this etag; `*` overwrites any version. Without it, the update fails if
    /// somebody changes the identity between reading and writing
    #[arg(short, long)]
    pub(super) etag: Option<String>,
}

/// A property's path and its new value.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Assignment {
    path: Vec<String>,
    value: Value,
}

impl UpdateArgs {
    /// Whether no change is asked for.
    pub(super) fn is_empty(&self) -> bool {
        self.authentication.is_empty()
            && self.allowed.is_empty()
            && self.queue.is_empty()
            && self.set.is_empty()
    }

    /// Changes an identity that was read.
    pub(super) fn change(&self, identity: &mut Value) -> Result<(), Failure> {
        self.authentication.change(identity)?;
        self.allowed.write(identity);
        self.queue.write(identity);
        for assignment in &self.set {
            assignment.apply(identity);
        }
        Ok(())
    }
}

/// The error for an update without a change.
pub(super) fn nothing_to_change() -> Failure {
    Failure::usage("nothing to change").with_hint("`--help` lists the properties to set")
}

impl Assignment {
    fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
        let path: Vec<_> = path.split('.').map(str::to_owned).collect();
        // The hub ignores members it does not know, so the change would silently not happen.
        if path.iter().any(String::is_empty) || !SETTABLE.contains(&path[0].as_str()) {
            return Err(format!(
                "this property cannot be set; name {}, or a member of these",
                SETTABLE.join(", ")
            ));
        }
        Ok(Self { path, value: parse_value(value) })
    }

    fn apply(&self, identity: &mut Value) {
        let mut place = identity;
        for name in &self.path {
            if !place.is_object() {
                *place = Map::new().into();
            }
            place = &mut place[name.as_str()];
        }
        *place = self.value.clone();
    }
}

/// JSON if the text is null, a boolean, an object or the like. Digits stay text, because no property is a number.
fn parse_value(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(Value::Number(_)) | Err(_) => text.into(),
        Ok(value) => value,
    }
}

const SETTABLE: [&str; 6] =
    ["status", "statusReason", "capabilities", "authentication", "managedBy", "access"];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn properties_are_set_by_their_path() {
        let mut device = json!({"status": "enabled", "statusReason": "x", "capabilities": null});
        for text in ["status=disabled", "statusReason=null", "capabilities.iotEdge=true"] {
            Assignment::parse(text).unwrap().apply(&mut device);
        }
        let expected = json!({"status": "disabled", "statusReason": null, "capabilities": {"iotEdge": true}});
        assert_eq!(device, expected);
    }

    #[test]
    fn values_are_json_where_they_can_be_nothing_else() {
        for (text, value) in [
            ("true", json!(true)),
            ("12", json!("12")),
            ("a=b", json!("a=b")),
            ("", json!("")),
            (r#"{"a":1}"#, json!({"a": 1})),
            (r#""true""#, json!("true")),
        ] {
            assert_eq!(parse_value(text), value, "{text}");
        }
    }

    #[test]
    fn what_the_hub_would_pass_over_cannot_be_set() {
        for text in ["tags.site=1", "deviceId=x", "etag=x", "status", "=x", "capabilities.=true", ""] {
            assert!(Assignment::parse(text).is_err(), "{text}");
        }
    }
}
