//! The JSON of an access list, in requests and answers. IoT Hub has none, and its SDKs ignore it.
//!
//! An update without an access list keeps the stored one. An SDK that reads an identity, changes it and writes it back
//! leaves out what it does not know, and that must not allow everything. `null` allows everything.

use portcullis_registry::access::Access;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::iothub::problem::Problem;

/// What an identity may do. An unknown member is a mistake, because it may be meant to narrow access.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessJson {
    /// Any of `telemetry`, `c2d`, `twin`, `methods:NAME` and `methods:BEGINNING*`
    allow: Vec<String>,
}

impl AccessJson {
    /// None for an identity without an access list.
    pub(crate) fn of(access: &Access) -> Option<Self> {
        access.to_entries().map(|allow| Self { allow })
    }
}

/// The access that a member asks for.
pub(super) fn parse(access: Option<AccessJson>) -> Result<Access, Problem> {
    let Some(AccessJson { allow }) = access else { return Ok(Access::EVERYTHING) };
    Access::parse(&allow).map_err(|error| Problem::argument_invalid(format!("access: {error}")))
}

#[cfg(test)]
mod tests {
    use portcullis_registry::id::{DeviceId, IdentityId};

    use super::*;
    use crate::iothub::identity_json::IdentityIn;

    fn access(json: &str) -> Result<Option<Access>, Problem> {
        let id = IdentityId::device(DeviceId::parse("d1").unwrap());
        Ok(IdentityIn::parse(json.as_bytes())?.into_spec(id)?.access)
    }

    #[test]
    fn an_access_list_is_absent_taken_away_or_given() {
        assert_eq!(access("{}").unwrap(), None);
        assert_eq!(access(r#"{"access":null}"#).unwrap(), Some(Access::EVERYTHING));
        for (json, words) in [
            (r#"{"access":{"allow":[]}}"#, &[][..]),
            (r#"{"access":{"allow":["methods:diag*","telemetry"]}}"#, &["telemetry", "methods:diag*"]),
        ] {
            assert_eq!(access(json).unwrap(), Some(Access::parse(words).unwrap()), "{json}");
        }
        for bad in [
            r#"{"access":{}}"#,
            r#"{"access":[]}"#,
            r#"{"access":"c2d"}"#,
            r#"{"access":{"allow":null}}"#,
            r#"{"access":{"allow":"c2d"}}"#,
            r#"{"access":{"allow":[1]}}"#,
            r#"{"access":{"allow":["c2d"],"deny":["telemetry"]}}"#,
            r#"{"access":{"allow":["c2d"]},"access":null}"#,
        ] {
            assert_eq!(access(bad).unwrap_err().name(), "DeserializationError", "{bad}");
        }
        let unknown = access(r#"{"access":{"allow":["everything"]}}"#).unwrap_err();
        assert_eq!(unknown.name(), "ArgumentInvalid");
        assert!(
            unknown.text().starts_with(r#"access: "everything" is none of telemetry"#),
            "{}",
            unknown.text()
        );
    }
}
