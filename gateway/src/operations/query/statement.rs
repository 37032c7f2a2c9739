//! A parsed statement of IoT Hub's query language. `grammar` makes it; `evaluate` and `aggregate` answer it.

use std::collections::BTreeSet;

use portcullis_registry::id::DeviceId;

use super::value::Value;

/// A whole query.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Statement {
    /// The most rows, on all pages together.
    pub(super) top: Option<usize>,
    pub(super) select: Select,
    pub(super) source: Source,
    pub(super) condition: Option<Expression>,
    pub(super) group_by: Vec<PropertyPath>,
}

/// The selected values of each row.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Select {
    /// The whole row.
    All,
    Items(Vec<SelectItem>),
}

/// One selected value.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SelectItem {
    /// Its name in the answer.
    pub(super) name: String,
    pub(super) of: Projection,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Projection {
    Expression(Expression),
    /// Over the rows of a group: of the given values, or of the rows themselves.
    Aggregate(Aggregate, Option<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    Sum,
    Average,
    Minimum,
    Maximum,
}

/// The source of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Devices,
    Modules,
}

/// The names that lead to a property, outermost first, without the name of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PropertyPath(pub(super) Vec<String>);

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expression {
    Literal(Value<'static>),
    Property(PropertyPath),
    Or(Vec<Expression>),
    And(Vec<Expression>),
    Not(Box<Expression>),
    Compare(Box<Expression>, Comparison, Box<Expression>),
    /// Whether the value is in the list.
    In(Box<Expression>, Vec<Value<'static>>),
    /// The first value, and the operations on it in order.
    Calculate(Box<Expression>, Vec<(Operator, Expression)>),
    Call(Function, Vec<Expression>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    Greater,
    LessOrEqual,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Plus,
    Minus,
    Times,
    DividedBy,
    Modulo,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    IsArray,
    IsBool,
    IsDefined,
    IsNull,
    IsNumber,
    IsObject,
    IsPrimitive,
    IsString,
    StartsWith,
    EndsWith,
    Contains,
}

impl Function {
    /// The function with this name, in any letter case. Source: IoT Hub, "Query language".
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "is_array" => Function::IsArray,
            "is_bool" => Function::IsBool,
            "is_defined" => Function::IsDefined,
            "is_null" => Function::IsNull,
            "is_number" => Function::IsNumber,
            "is_object" => Function::IsObject,
            "is_primitive" => Function::IsPrimitive,
            "is_string" => Function::IsString,
            "startswith" | "starts_with" => Function::StartsWith,
            "endswith" | "ends_with" => Function::EndsWith,
            "contains" => Function::Contains,
            _ => return None,
        })
    }

    /// How many arguments it takes.
    pub(super) fn arguments(self) -> usize {
        match self {
            Function::StartsWith | Function::EndsWith | Function::Contains => 2,
            Function::IsArray
            | Function::IsBool
            | Function::IsDefined
            | Function::IsNull
            | Function::IsNumber
            | Function::IsObject
            | Function::IsPrimitive
            | Function::IsString => 1,
        }
    }
}

impl Aggregate {
    /// The aggregate with this name, in any letter case.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "count" => Aggregate::Count,
            "sum" => Aggregate::Sum,
            "avg" => Aggregate::Average,
            "min" => Aggregate::Minimum,
            "max" => Aggregate::Maximum,
            _ => return None,
        })
    }
}

/// The devices that a condition may match, as far as its form shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Narrowing {
    Any,
    /// Only these.
    Ids(BTreeSet<DeviceId>),
    /// Those whose ids have this prefix.
    Prefix(DeviceId),
}

impl Statement {
    /// Whether the answer combines all rows.
    pub(super) fn is_aggregate(&self) -> bool {
        let has_aggregate = match &self.select {
            Select::All => false,
            Select::Items(items) => items.iter().any(|item| matches!(item.of, Projection::Aggregate(..))),
        };
        has_aggregate || !self.group_by.is_empty()
    }

    /// The devices to look at, so that a query for a few devices does not walk through all.
    pub(super) fn narrowing(&self) -> Narrowing {
        match &self.condition {
            None => Narrowing::Any,
            Some(Expression::And(all)) => {
                let narrowings = all.iter().map(Expression::narrowing);
                narrowings.min_by_key(Narrowing::breadth).unwrap_or(Narrowing::Any)
            }
            Some(condition) => condition.narrowing(),
        }
    }

    /// The work for one row, in parts of the condition.
    pub(super) fn weight(&self) -> usize {
        1 + self.condition.as_ref().map_or(0, Expression::weight)
    }
}

impl Narrowing {
    fn breadth(&self) -> usize {
        match self {
            Narrowing::Ids(_) => 0,
            Narrowing::Prefix(_) => 1,
            Narrowing::Any => 2,
        }
    }
}

impl PropertyPath {
    fn is_device_id(&self) -> bool {
        self.0 == ["deviceId"]
    }
}

impl Expression {
    fn narrowing(&self) -> Narrowing {
        match self {
            Expression::Compare(left, Comparison::Equal, right) => match (&**left, &**right) {
                (Expression::Property(path), Expression::Literal(value))
                | (Expression::Literal(value), Expression::Property(path))
                    if path.is_device_id() =>
                {
                    Narrowing::Ids(ids(std::slice::from_ref(value)))
                }
                _ => Narrowing::Any,
            },
            Expression::In(of, values) if is_device_id(of) => Narrowing::Ids(ids(values)),
            Expression::Call(Function::StartsWith, arguments) => match arguments.as_slice() {
                [of, Expression::Literal(Value::Text(prefix))] if is_device_id(of) => {
                    // A prefix that is not an id, such as an empty one, narrows nothing.
                    DeviceId::parse(prefix).map_or(Narrowing::Any, Narrowing::Prefix)
                }
                _ => Narrowing::Any,
            },
            _ => Narrowing::Any,
        }
    }

    fn weight(&self) -> usize {
        let sum = |parts: &[Expression]| parts.iter().map(Expression::weight).sum::<usize>();
        1 + match self {
            Expression::Literal(_) | Expression::Property(_) => 0,
            Expression::Or(parts) | Expression::And(parts) | Expression::Call(_, parts) => sum(parts),
            Expression::Not(of) => of.weight(),
            Expression::Compare(left, _, right) => left.weight() + right.weight(),
            Expression::In(of, values) => of.weight() + values.len(),
            Expression::Calculate(first, rest) => {
                first.weight() + rest.iter().map(|(_, part)| part.weight()).sum::<usize>()
            }
        }
    }
}

fn is_device_id(expression: &Expression) -> bool {
    matches!(expression, Expression::Property(path) if path.is_device_id())
}

/// The values that can be ids.
fn ids(values: &[Value<'static>]) -> BTreeSet<DeviceId> {
    values.iter().filter_map(Value::as_text).filter_map(|text| DeviceId::parse(text).ok()).collect()
}
