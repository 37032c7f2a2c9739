//! The value of an expression for one row. Truth has three values: true, false and undefined.

use super::row::Row;
use super::statement::{Expression, Function};
use super::value::Value;

/// Whether a row meets a condition.
pub(super) fn holds(condition: &Expression, row: &Row) -> bool {
    truth(condition, row) == Some(true)
}

/// The value of an expression for a row.
pub(super) fn value<'r>(expression: &'r Expression, row: &'r Row) -> Value<'r> {
    match expression {
        Expression::Literal(value) => value.clone(),
        Expression::Property(path) => row.property(path),
        Expression::Calculate(first, rest) => rest
            .iter()
            .fold(value(first, row), |result, (operator, of)| result.calculate(*operator, &value(of, row))),
        Expression::Or(_)
        | Expression::And(_)
        | Expression::Not(_)
        | Expression::Compare(..)
        | Expression::In(..)
        | Expression::Call(..) => Value::of_truth(truth(expression, row)),
    }
}

fn truth(expression: &Expression, row: &Row) -> Option<bool> {
    match expression {
        Expression::Or(parts) => any(parts, row, true),
        Expression::And(parts) => any(parts, row, false),
        Expression::Not(of) => truth(of, row).map(|truth| !truth),
        Expression::Compare(left, comparison, right) => {
            value(left, row).compare(*comparison, &value(right, row))
        }
        Expression::In(of, values) => is_one_of(&value(of, row), values),
        Expression::Call(function, arguments) => call(*function, arguments, row),
        Expression::Literal(_) | Expression::Property(_) | Expression::Calculate(..) => {
            value(expression, row).as_bool()
        }
    }
}

/// OR if `decisive` is true, AND if it is false. One decisive part decides; otherwise an undefined part does.
fn any(parts: &[Expression], row: &Row, decisive: bool) -> Option<bool> {
    let mut outcome = Some(!decisive);
    for part in parts {
        match truth(part, row) {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => outcome = None,
        }
    }
    outcome
}

fn is_one_of(value: &Value<'_>, values: &[Value<'static>]) -> Option<bool> {
    if *value == Value::Undefined {
        return None;
    }
    Some(values.iter().any(|other| value.compare(super::statement::Comparison::Equal, other) == Some(true)))
}

fn call(function: Function, arguments: &[Expression], row: &Row) -> Option<bool> {
    let mut values = arguments.iter().map(|argument| value(argument, row));
    let first = values.next()?;
    match function {
        Function::IsDefined => Some(first != Value::Undefined),
        Function::IsNull => Some(first == Value::Null),
        Function::IsBool => Some(matches!(first, Value::Bool(_))),
        Function::IsNumber => Some(matches!(first, Value::Number(_))),
        Function::IsString => Some(matches!(first, Value::Text(_) | Value::Time(_))),
        Function::IsObject => Some(matches!(&first, Value::Tree(tree) if tree.is_object())),
        Function::IsArray => Some(matches!(&first, Value::Tree(tree) if tree.is_array())),
        Function::IsPrimitive => Some(!matches!(first, Value::Undefined | Value::Tree(_))),
        Function::StartsWith | Function::EndsWith | Function::Contains => {
            let second = values.next()?;
            let (text, part) = (first.as_text()?, second.as_text()?);
            Some(match function {
                Function::StartsWith => text.starts_with(part),
                Function::EndsWith => text.ends_with(part),
                _ => text.contains(part),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::grammar;
    use super::super::row::tests::row;
    use super::*;

    fn is(condition: &str) -> bool {
        let statement = grammar::parse(&format!("SELECT * FROM devices WHERE {condition}")).unwrap();
        holds(&statement.condition.unwrap(), &row("pump-7", None))
    }

    #[test]
    fn conditions_hold_for_what_they_say() {
        for condition in [
            "deviceId = 'pump-7'",
            "devices.deviceId IN ['a', 'pump-7']",
            "deviceId NIN ['a']",
            "deviceId NOT IN ['a']",
            "deviceId != 'Pump-7'",
            "deviceId <> 'a' AND deviceId > 'pump-6' AND deviceId <= 'pump-7'",
            "startswith(deviceId, 'pump') AND endswith(deviceId, '-7') AND contains(deviceId, 'mp')",
            "status = 'disabled' AND statusReason = \"it's broken\"",
            "capabilities.iotEdge = true AND capabilities.iotEdge",
            "cloudToDeviceMessageCount >= 3 AND cloudToDeviceMessageCount * 2 - 1 = 5",
            "connectionState = 'Connected'",
            "authenticationType = 'sas' AND is_null(x509Thumbprint.primaryThumbprint)",
            "x509Thumbprint.primaryThumbprint = null",
            "statusUpdateTime > '2024-05-01' AND statusUpdateTime < '2024-05-01T08:15:31Z'",
            "statusUpdateTime = '2024-05-01T10:15:30.500+02:00'",
            "lastActivityTime < '2024-05-01T00:00:00' AND lastActivityTime = '0001-01-01T00:00:00Z'",
            "is_defined(status) AND NOT is_defined(tags.site)",
            "is_object(tags) AND is_primitive(status) AND is_string(etag) AND is_number(version)",
            "is_bool(capabilities.iotEdge) AND NOT is_array(properties) AND is_object(properties.desired)",
            "properties.desired.$version = 1",
            "tags.site = 'A' OR status = 'disabled'",
        ] {
            assert!(is(condition), "{condition}");
        }
    }

    #[test]
    fn what_is_not_there_fulfils_nothing() {
        for condition in [
            "tags.site = 'A'",
            "tags.site != 'A'",
            "NOT tags.site = 'A'",
            "tags.site IN ['A']",
            "NOT (tags.site = 'A' OR status = 'enabled')",
            "tags.site = 'A' AND status = 'disabled'",
            "moduleId = 'm'",
            "deviceid = 'pump-7'",
            "status",
            "status > 1",
            "status = 1",
            "1 / 0 = 1 / 0",
            "startswith(version, '1')",
            "deviceId",
            "symmetricKey.primaryKey != ''",
            "authentication.symmetricKey.primaryKey != ''",
        ] {
            assert!(!is(condition), "{condition}");
        }
    }
}
