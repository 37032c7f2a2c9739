//! The values of the query language, and the results of its operators.
//!
//! A missing value is undefined, and so is nearly every result from it. If a condition is undefined for a row, the
//! answer omits the row. Values of different types are never equal and have no order. Times compare as times.

use std::borrow::Cow;
use std::cmp::Ordering;

use jiff::Timestamp;
use serde_json::Value as Json;

use super::statement::{Comparison, Operator};
use crate::iothub::time::time_text;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Undefined,
    Null,
    Bool(bool),
    Number(f64),
    Text(Cow<'a, str>),
    /// A time, or never.
    Time(Option<Timestamp>),
    /// An object or an array.
    Tree(Json),
}

impl<'a> Value<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Value::Text(Cow::Borrowed(text))
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    pub(super) fn as_number(&self) -> Option<f64> {
        match self {
            Value::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// A truth value; undefined for none.
    pub(super) fn of_truth(truth: Option<bool>) -> Self {
        truth.map_or(Value::Undefined, Value::Bool)
    }

    /// The member of an object at the end of these names.
    pub(super) fn member(self, names: &[String]) -> Value<'static> {
        let Value::Tree(mut tree) = self else { return Value::Undefined };
        for name in names {
            match tree.get_mut(name).map(Json::take) {
                Some(inner) => tree = inner,
                None => return Value::Undefined,
            }
        }
        Value::from(tree)
    }

    /// The form in an answer; none for undefined.
    pub(super) fn into_json(self) -> Option<Json> {
        Some(match self {
            Value::Undefined => return None,
            Value::Null => Json::Null,
            Value::Bool(value) => value.into(),
            Value::Number(number) => number_to_json(number),
            Value::Text(text) => text.into_owned().into(),
            Value::Time(time) => time_text(time).into(),
            Value::Tree(tree) => tree,
        })
    }

    /// The result of a comparison, if there is one.
    pub(super) fn compare(&self, comparison: Comparison, other: &Value<'_>) -> Option<bool> {
        match comparison {
            Comparison::Equal => self.equals(other),
            Comparison::NotEqual => self.equals(other).map(|equal| !equal),
            Comparison::Less => self.order(other).map(Ordering::is_lt),
            Comparison::Greater => self.order(other).map(Ordering::is_gt),
            Comparison::LessOrEqual => self.order(other).map(Ordering::is_le),
            Comparison::GreaterOrEqual => self.order(other).map(Ordering::is_ge),
        }
    }

    fn equals(&self, other: &Value<'_>) -> Option<bool> {
        match (self, other) {
            (Value::Undefined, _) | (_, Value::Undefined) => None,
            (Value::Time(_), Value::Text(_)) | (Value::Text(_), Value::Time(_)) => {
                Some(self.order(other) == Some(Ordering::Equal))
            }
            (Value::Null, Value::Null) => Some(true),
            (Value::Bool(own), Value::Bool(other)) => Some(own == other),
            (Value::Number(own), Value::Number(other)) => Some(own == other),
            (Value::Text(own), Value::Text(other)) => Some(own == other),
            (Value::Time(own), Value::Time(other)) => Some(own == other),
            (Value::Tree(own), Value::Tree(other)) => Some(own == other),
            _ => Some(false),
        }
    }

    fn order(&self, other: &Value<'_>) -> Option<Ordering> {
        match (self, other) {
            (Value::Number(own), Value::Number(other)) => own.partial_cmp(other),
            (Value::Text(own), Value::Text(other)) => Some(own.cmp(other)),
            // IoT Hub's "never" is before any time.
            (Value::Time(own), Value::Time(other)) => Some(own.cmp(other)),
            (Value::Time(own), Value::Text(text)) => Some(own.cmp(&parse_time(text)?)),
            (Value::Text(text), Value::Time(other)) => Some(parse_time(text)?.cmp(other)),
            _ => None,
        }
    }

    /// The result of an operator on two numbers, or of `+` on two texts.
    pub(super) fn calculate(self, operator: Operator, other: &Value<'_>) -> Value<'static> {
        let (own, other) = match (&self, other) {
            (Value::Number(own), Value::Number(other)) => (*own, *other),
            _ => return Value::Undefined,
        };
        let number = match operator {
            Operator::Plus => own + other,
            Operator::Minus => own - other,
            Operator::Times => own * other,
            Operator::DividedBy => own / other,
            Operator::Modulo => own % other,
        };
        // Zero divided by zero is not a number in JSON.
        if number.is_finite() { Value::Number(number) } else { Value::Undefined }
    }
}

impl From<Json> for Value<'static> {
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(number) => number.as_f64().map_or(Value::Undefined, Value::Number),
            Json::String(text) => Value::Text(text.into()),
            tree => Value::Tree(tree),
        }
    }
}

/// A whole number appears without a fraction.
fn number_to_json(number: f64) -> Json {
    const WHOLE_MAX: f64 = (1_u64 << 53) as f64;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX { (number as i64).into() } else { number.into() }
}

/// A time in a query: with a zone, or in UTC without one. The inner none is IoT Hub's word for never.
fn parse_time(text: &str) -> Option<Option<Timestamp>> {
    if text.starts_with("0001-01-01T00:00:00") {
        return Some(None);
    }
    let with_zone = text.parse::<Timestamp>();
    with_zone
        .or_else(|_| format!("{text}Z").parse())
        .or_else(|_| format!("{text}T00:00:00Z").parse())
        .ok()
        .map(Some)
}
