//! `--query`: a JMESPath expression that selects from the output, as in az.

use jmespath::Expression;
use serde_json::Value;

use crate::exit::Failure;

/// A valid JMESPath expression.
#[derive(Clone)]
pub(super) struct Query(Expression<'static>);

impl Query {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        jmespath::compile(text).map(Self).map_err(|error| error.to_string())
    }

    /// The result of the expression.
    pub(super) fn pick(&self, value: &Value) -> Result<Value, Failure> {
        let found = self.0.search(value).map_err(|error| Failure::usage(format!("--query: {error}")))?;
        serde_json::to_value(found).map_err(|error| Failure::error(format!("--query: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_query_picks_and_renames() {
        let devices = json!([{"deviceId": "a", "status": "enabled", "n": 3}, {"deviceId": "b", "status": "disabled", "n": 4}]);
        let picked = |text: &str| Query::parse(text).unwrap().pick(&devices).unwrap();
        assert_eq!(picked("[?status=='disabled'].deviceId"), json!(["b"]));
        assert_eq!(picked("length(@)"), json!(2));
        assert_eq!(picked("[0].{id: deviceId, n: n}"), json!({"id": "a", "n": 3}));
        assert_eq!(picked("[0].nothing"), json!(null));
    }

    #[test]
    fn nonsense_is_told_before_anything_is_asked() {
        assert!(Query::parse("[?").is_err());
        assert!(Query::parse("").is_err());
        assert!(Query::parse("nosuch(@)").unwrap().pick(&json!([])).is_err());
    }
}
