//! The grammar of IoT Hub's query language, for devices and modules.
//!
//! Source: IoT Hub, "Query language". Keywords may have any letter case; names and texts may not. The limits on a
//! query's length and on the depth of its brackets limit the work of parsing it.

use std::borrow::Cow;

use winnow::ascii::{Caseless, multispace0};
use winnow::combinator::{
    alt, cut_err, delimited, eof, fail, not, opt, preceded, repeat, separated, terminated,
};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::stream::Stateful;
use winnow::token::{any, one_of, take_while};
use winnow::{ModalResult, Parser};

use super::statement::{
    Aggregate, Comparison, Expression, Function, Operator, Projection, PropertyPath, Select, SelectItem,
    Source, Statement,
};
use super::value::Value;

/// Why a text is not a query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuery {
    #[error("a query has at most {QUERY_BYTES_MAX} bytes")]
    TooLong,
    #[error("the query has a mistake at character {place}, at {near:?}{expected}")]
    Syntax { place: usize, near: String, expected: String },
    #[error("{0:?} must be in GROUP BY, or inside COUNT, SUM, AVG, MIN or MAX")]
    NotGrouped(String),
    #[error("SELECT * cannot be combined with GROUP BY; name the properties to select")]
    AllGrouped,
}

/// Parses a query.
pub(super) fn parse(text: &str) -> Result<Statement, InvalidQuery> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(InvalidQuery::TooLong);
    }
    let statement = statement.parse(Stateful { input: text, state: Depth(0) }).map_err(|error| {
        let rest = text.get(error.offset()..).unwrap_or_default();
        let expected = error.inner().to_string().replace('\n', ", ");
        InvalidQuery::Syntax {
            place: text[..text.len() - rest.len()].chars().count() + 1,
            near: rest.chars().take(NEAR_CHARS_MAX).collect(),
            expected: if expected.is_empty() { expected } else { format!(": {expected}") },
        }
    })?;
    check_grouping(&statement)?;
    Ok(statement)
}

/// Checks that each selected value is the same for a whole group.
fn check_grouping(statement: &Statement) -> Result<(), InvalidQuery> {
    if !statement.is_aggregate() {
        return Ok(());
    }
    let Select::Items(items) = &statement.select else { return Err(InvalidQuery::AllGrouped) };
    let is_grouped = |item: &&SelectItem| match &item.of {
        Projection::Aggregate(..) | Projection::Expression(Expression::Literal(_)) => true,
        Projection::Expression(Expression::Property(path)) => statement.group_by.contains(path),
        Projection::Expression(_) => false,
    };
    match items.iter().find(|item| !is_grouped(item)) {
        Some(item) => Err(InvalidQuery::NotGrouped(item.name.clone())),
        None => Ok(()),
    }
}

type Input<'i> = Stateful<&'i str, Depth>;

/// How many brackets are open.
#[derive(Debug)]
struct Depth(usize);

fn statement(input: &mut Input<'_>) -> ModalResult<Statement> {
    multispace0.parse_next(input)?;
    word("SELECT").parse_next(input)?;
    let top = opt(preceded(word("TOP"), cut_err(whole_number))).parse_next(input)?;
    let items = alt((symbol("*").value(None), select_items.map(Some))).parse_next(input)?;
    word("FROM").parse_next(input)?;
    let source = cut_err(source).parse_next(input)?;
    let condition = opt(preceded(word("WHERE"), cut_err(or))).parse_next(input)?;
    let group_by = opt(preceded((word("GROUP"), word("BY")), cut_err(separated(1.., path, symbol(",")))))
        .parse_next(input)?;
    eof.context(expected("the end of the query")).parse_next(input)?;
    let select = match items {
        None => Select::All,
        Some(items) => Select::Items(items),
    };
    Ok(Statement { top, select, source, condition, group_by: group_by.unwrap_or_default() })
}

fn select_items(input: &mut Input<'_>) -> ModalResult<Vec<SelectItem>> {
    let items: Vec<(Projection, Option<&str>)> =
        separated(1.., (projection, opt(preceded(word("AS"), cut_err(name)))), symbol(","))
            .parse_next(input)?;
    let named = items.into_iter().enumerate().map(|(place, (of, name))| {
        let own = match &of {
            Projection::Expression(Expression::Property(PropertyPath(names))) => names.last().cloned(),
            Projection::Expression(_) | Projection::Aggregate(..) => None,
        };
        let name = name.map(str::to_owned).or(own).unwrap_or_else(|| format!("${}", place + 1));
        SelectItem { name, of }
    });
    Ok(named.collect())
}

fn projection(input: &mut Input<'_>) -> ModalResult<Projection> {
    alt((aggregate, or.map(Projection::Expression))).parse_next(input)
}

fn aggregate(input: &mut Input<'_>) -> ModalResult<Projection> {
    let aggregate = terminated(name, symbol("(")).verify_map(Aggregate::named).parse_next(input)?;
    let of = match aggregate {
        Aggregate::Count => opt(alt((symbol("*").value(None), path.map(Some)))).parse_next(input)?.flatten(),
        _ => Some(cut_err(path).parse_next(input)?),
    };
    cut_err(symbol(")")).parse_next(input)?;
    Ok(Projection::Aggregate(aggregate, of.map(Expression::Property)))
}

fn source(input: &mut Input<'_>) -> ModalResult<Source> {
    let modules = preceded(symbol("."), cut_err(word("modules")));
    preceded(word("devices"), opt(modules))
        .map(|modules| if modules.is_some() { Source::Modules } else { Source::Devices })
        .context(expected("devices or devices.modules"))
        .parse_next(input)
}

fn or(input: &mut Input<'_>) -> ModalResult<Expression> {
    let first = and.parse_next(input)?;
    let rest: Vec<Expression> = repeat(0.., preceded(word("OR"), cut_err(and))).parse_next(input)?;
    Ok(joined(first, rest, Expression::Or))
}

fn and(input: &mut Input<'_>) -> ModalResult<Expression> {
    let first = negation.parse_next(input)?;
    let rest: Vec<Expression> = repeat(0.., preceded(word("AND"), cut_err(negation))).parse_next(input)?;
    Ok(joined(first, rest, Expression::And))
}

fn joined(first: Expression, rest: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    if rest.is_empty() { first } else { join(std::iter::once(first).chain(rest).collect()) }
}

fn negation(input: &mut Input<'_>) -> ModalResult<Expression> {
    let times: usize = repeat(0.., word("NOT")).parse_next(input)?;
    let of =
        if times == 0 { comparison.parse_next(input)? } else { cut_err(comparison).parse_next(input)? };
    Ok(if times.is_multiple_of(2) { of } else { Expression::Not(Box::new(of)) })
}

fn comparison(input: &mut Input<'_>) -> ModalResult<Expression> {
    let left = sum.parse_next(input)?;
    if let Some(comparison) = opt(comparison_sign).parse_next(input)? {
        let right = cut_err(sum).parse_next(input)?;
        return Ok(Expression::Compare(Box::new(left), comparison, Box::new(right)));
    }
    if opt(word("IN")).parse_next(input)?.is_some() {
        return Ok(Expression::In(Box::new(left), cut_err(list).parse_next(input)?));
    }
    let outside = alt((word("NIN"), (word("NOT"), word("IN")).void()));
    if opt(outside).parse_next(input)?.is_some() {
        let inside = Expression::In(Box::new(left), cut_err(list).parse_next(input)?);
        return Ok(Expression::Not(Box::new(inside)));
    }
    Ok(left)
}

fn comparison_sign(input: &mut Input<'_>) -> ModalResult<Comparison> {
    alt((
        symbol("=").value(Comparison::Equal),
        symbol("!=").value(Comparison::NotEqual),
        symbol("<>").value(Comparison::NotEqual),
        symbol("<=").value(Comparison::LessOrEqual),
        symbol(">=").value(Comparison::GreaterOrEqual),
        symbol("<").value(Comparison::Less),
        symbol(">").value(Comparison::Greater),
    ))
    .parse_next(input)
}

fn list(input: &mut Input<'_>) -> ModalResult<Vec<Value<'static>>> {
    delimited(symbol("["), separated(0.., literal, symbol(",")), symbol("]"))
        .context(expected("a list of values in [ ]"))
        .parse_next(input)
}

fn sum(input: &mut Input<'_>) -> ModalResult<Expression> {
    let sign = |input: &mut Input<'_>| {
        alt((symbol("+").value(Operator::Plus), symbol("-").value(Operator::Minus))).parse_next(input)
    };
    let first = product.parse_next(input)?;
    let rest: Vec<_> = repeat(0.., (sign, cut_err(product))).parse_next(input)?;
    Ok(calculated(first, rest))
}

fn product(input: &mut Input<'_>) -> ModalResult<Expression> {
    let sign = |input: &mut Input<'_>| {
        alt((
            symbol("*").value(Operator::Times),
            symbol("/").value(Operator::DividedBy),
            symbol("%").value(Operator::Modulo),
        ))
        .parse_next(input)
    };
    let first = operand.parse_next(input)?;
    let rest: Vec<_> = repeat(0.., (sign, cut_err(operand))).parse_next(input)?;
    Ok(calculated(first, rest))
}

fn calculated(first: Expression, rest: Vec<(Operator, Expression)>) -> Expression {
    if rest.is_empty() { first } else { Expression::Calculate(Box::new(first), rest) }
}

fn operand(input: &mut Input<'_>) -> ModalResult<Expression> {
    alt((literal.map(Expression::Literal), call, path.map(Expression::Property), bracketed))
        .context(expected("a property, a value or ("))
        .parse_next(input)
}

fn call(input: &mut Input<'_>) -> ModalResult<Expression> {
    let function = terminated(name, symbol("(")).parse_next(input)?;
    let Some(function) = Function::named(function) else {
        return cut_err(fail.context(StrContext::Label("function"))).parse_next(input);
    };
    let arguments: Vec<Expression> =
        nested(|input| separated(0.., or, symbol(",")).parse_next(input)).parse_next(input)?;
    if arguments.len() != function.arguments() {
        return cut_err(fail.context(StrContext::Label("number of arguments"))).parse_next(input);
    }
    cut_err(symbol(")")).parse_next(input)?;
    Ok(Expression::Call(function, arguments))
}

fn bracketed(input: &mut Input<'_>) -> ModalResult<Expression> {
    symbol("(").parse_next(input)?;
    terminated(nested(|input| cut_err(or).parse_next(input)), cut_err(symbol(")"))).parse_next(input)
}

/// The content of brackets, one level deeper.
fn nested<'i, T>(
    inner: impl Fn(&mut Input<'i>) -> ModalResult<T>,
) -> impl Parser<Input<'i>, T, ErrMode<ContextError>> {
    move |input: &mut Input<'i>| {
        if input.state.0 == DEPTH_MAX {
            return cut_err(fail.context(expected("fewer brackets inside each other"))).parse_next(input);
        }
        input.state.0 += 1;
        let read = inner(input);
        input.state.0 -= 1;
        read
    }
}

fn literal(input: &mut Input<'_>) -> ModalResult<Value<'static>> {
    alt((
        number.map(Value::Number),
        quoted.map(|text| Value::Text(Cow::Owned(text))),
        word("true").value(Value::Bool(true)),
        word("false").value(Value::Bool(false)),
        word("null").value(Value::Null),
    ))
    .parse_next(input)
}

fn number(input: &mut Input<'_>) -> ModalResult<f64> {
    let digits = || take_while(1.., |character: char| character.is_ascii_digit());
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digits());
    let number = (opt('-'), digits(), opt(('.', digits())), opt(exponent)).take();
    lexeme(terminated(number, not(name_character)))
        .verify_map(|text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite()))
        .parse_next(input)
}

fn whole_number(input: &mut Input<'_>) -> ModalResult<usize> {
    lexeme(take_while(1.., |character: char| character.is_ascii_digit()))
        .verify_map(|text: &str| text.parse().ok())
        .context(expected("a number"))
        .parse_next(input)
}

/// A text in single or double quotation marks. A backslash escapes the next character.
fn quoted(input: &mut Input<'_>) -> ModalResult<String> {
    let mark = one_of(['\'', '"']).parse_next(input)?;
    let mut text = String::new();
    loop {
        match cut_err(any.context(expected("a closing quotation mark"))).parse_next(input)? {
            end if end == mark => break,
            '\\' => text.push(cut_err(any).parse_next(input)?),
            character => text.push(character),
        }
    }
    multispace0.parse_next(input)?;
    Ok(text)
}

/// The names that lead to a property. Drops the source's own name in front of them.
fn path(input: &mut Input<'_>) -> ModalResult<PropertyPath> {
    let names: Vec<&str> = separated(1.., name, symbol(".")).parse_next(input)?;
    let own = match names.as_slice() {
        ["devices", "modules", rest @ ..] | ["devices", rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    Ok(PropertyPath(own.iter().map(|name| (*name).to_owned()).collect()))
}

fn name<'i>(input: &mut Input<'i>) -> ModalResult<&'i str> {
    let is_word = |name: &str| WORDS.iter().any(|word| word.eq_ignore_ascii_case(name));
    let first = one_of(|character: char| character.is_ascii_alphabetic() || matches!(character, '_' | '$'));
    lexeme((first, take_while(0.., is_name_character)).take().verify(move |name: &str| !is_word(name)))
        .parse_next(input)
}

fn name_character(input: &mut Input<'_>) -> ModalResult<char> {
    one_of(is_name_character).parse_next(input)
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '$')
}

/// A keyword, whole and in any letter case.
fn word<'i>(word: &'static str) -> impl Parser<Input<'i>, (), ErrMode<ContextError>> {
    lexeme(terminated(Caseless(word), not(name_character))).void().context(expected(word))
}

fn symbol<'i>(symbol: &'static str) -> impl Parser<Input<'i>, (), ErrMode<ContextError>> {
    lexeme(symbol).void()
}

/// A part of a query and the blanks after it.
fn lexeme<'i, T>(
    part: impl Parser<Input<'i>, T, ErrMode<ContextError>>,
) -> impl Parser<Input<'i>, T, ErrMode<ContextError>> {
    terminated(part, multispace0)
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// Keywords, which no property may have as its name.
const WORDS: [&str; 15] = [
    "SELECT", "TOP", "FROM", "WHERE", "GROUP", "BY", "AS", "AND", "OR", "NOT", "IN", "NIN", "true", "false",
    "null",
];
/// Long enough for a list of about two hundred ids.
const QUERY_BYTES_MAX: usize = 32 * 1024;
/// The deepest nesting of brackets.
const DEPTH_MAX: usize = 32;
/// How much of a query an error shows.
const NEAR_CHARS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(text: &str) -> Expression {
        parse(&format!("SELECT * FROM devices WHERE {text}")).unwrap().condition.unwrap()
    }

    fn property(name: &str) -> Expression {
        Expression::Property(PropertyPath(name.split('.').map(str::to_owned).collect()))
    }

    #[test]
    fn the_queries_of_known_tools_are_read() {
        for text in [
            "select * from devices",
            "SELECT * FROM devices WHERE deviceId = 'x'",
            "SELECT * FROM devices WHERE deviceId IN ['a','b']",
            "SELECT * FROM devices.modules WHERE deviceId in ['x']",
            "select * from devices.modules where devices.deviceId = 'x'",
            "SELECT deviceId as DeviceId, status as Status, lastActivityTime as LastActivityTime, \
             capabilities.iotEdge as IotEdge, modelId as ModelId FROM devices \
             WHERE STARTSWITH(devices.deviceId, 'x')",
            "SELECT deviceId FROM devices WHERE (status='enabled' AND capabilities.iotEdge=true)",
            "select * from devices where capabilities.iotEdge = true",
            "SELECT COUNT() AS totalNumberOfDevices FROM devices",
            "SELECT TOP 10 * FROM devices WHERE status != \"enabled\"",
            "SELECT status, COUNT() AS numberOfDevices FROM devices GROUP BY status",
            "SELECT * FROM devices WHERE is_defined(tags.site) AND tags.floor NIN [1, 2] OR NOT is_null(tags.x)",
            "\n select\t*\r\nfrom devices ",
        ] {
            parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn operators_bind_as_in_sql() {
        let is = |name: &str| {
            let yes = Expression::Literal(Value::Bool(true));
            Expression::Compare(Box::new(property(name)), Comparison::Equal, Box::new(yes))
        };
        assert_eq!(
            condition("a = true OR b=true AND NOT c = TRUE"),
            Expression::Or(vec![is("a"), Expression::And(vec![is("b"), Expression::Not(Box::new(is("c")))])])
        );
        assert_eq!(
            condition("(a = true OR b = true) AND not not c.d = true"),
            Expression::And(vec![Expression::Or(vec![is("a"), is("b")]), is("c.d")])
        );
        let one = Expression::Literal(Value::Number(1.0));
        let product = Expression::Calculate(Box::new(property("b")), vec![(Operator::Times, one.clone())]);
        let sum = Expression::Calculate(Box::new(property("a")), vec![(Operator::Plus, product)]);
        assert_eq!(
            condition("a + b * 1 >= 1"),
            Expression::Compare(Box::new(sum), Comparison::GreaterOrEqual, Box::new(one))
        );
    }

    #[test]
    fn texts_are_taken_as_they_stand() {
        for (text, value) in [
            ("'it\\'s'", "it's"),
            ("\"it's\"", "it's"),
            ("'a\\\\b'", "a\\b"),
            ("'AND OR -- ; DROP'", "AND OR -- ; DROP"),
            ("''", ""),
        ] {
            let right = Expression::Literal(Value::Text(value.into()));
            let wanted = Expression::Compare(Box::new(property("a")), Comparison::Equal, Box::new(right));
            assert_eq!(condition(&format!("a = {text}")), wanted);
        }
    }

    #[test]
    fn t711_what_is_no_query_is_refused_and_says_where() {
        for text in [
            "",
            "SELECT",
            "SELECT * FROM",
            "SELECT * FROM users",
            "SELECT * FROM devices.jobs",
            "SELECT * FROM devices; DROP TABLE devices",
            "SELECT * FROM devices WHERE",
            "SELECT * FROM devices WHERE a =",
            "SELECT * FROM devices WHERE a = 'open",
            "SELECT * FROM devices WHERE a = 'open\\",
            "SELECT * FROM devices WHERE (a = 1",
            "SELECT * FROM devices WHERE a = 1)",
            "SELECT * FROM devices WHERE a IN 'x'",
            "SELECT * FROM devices WHERE a IN [b]",
            "SELECT * FROM devices WHERE a == 1",
            "SELECT * FROM devices WHERE a = 1e999",
            "SELECT * FROM devices WHERE 1a = 1",
            "SELECT * FROM devices WHERE load_file('/etc/passwd')",
            "SELECT * FROM devices WHERE is_defined()",
            "SELECT * FROM devices WHERE startswith(deviceId)",
            "SELECT TOP x * FROM devices",
            "SELECT TOP -1 * FROM devices",
            "SELECT TOP 99999999999999999999999 * FROM devices",
            "SELECT a b FROM devices",
            "SELECT *, a FROM devices",
            "SELECT a, COUNT() FROM devices",
            "SELECT a + 1, COUNT() FROM devices GROUP BY a",
            "SELECT * FROM devices GROUP BY a",
            "SELECT SUM() FROM devices",
            "UPDATE devices SET a = 1",
            "SELECT * FROM devices WHERE ä = 1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        let error = parse("SELECT * FROM devices WHERE 'ä' = ?").unwrap_err().to_string();
        assert!(error.contains("character 35") && error.contains("\"?\""), "{error}");
    }

    proptest::proptest! {
        #[test]
        fn t711_any_words_are_read_or_refused(
            words in proptest::collection::vec(
                proptest::sample::select(vec![
                    "SELECT", "TOP", "FROM", "WHERE", "GROUP", "BY", "AS", "AND", "OR", "NOT", "IN", "NIN", "devices",
                    "devices.modules", "*", "(", ")", "[", "]", ",", ".", "=", "!=", "<", "-", "+", "'", "\"", "\\", "1",
                    "1e9", "true", "null", "a", "$b", "count(", "sum(", "is_null(", "startswith(", "é", "\0", ";",
                ]),
                0..40,
            ),
            glue in proptest::sample::select(vec!["", " "]),
        ) {
            let text = words.join(glue);
            let _ = parse(&text);
            let _ = parse(&format!("SELECT * FROM devices WHERE {text}"));
        }
    }

    #[test]
    fn t711_long_and_deep_queries_are_bounded() {
        let deep = |levels: usize| {
            parse(&format!("SELECT * FROM devices WHERE {}a{}", "(".repeat(levels), ")".repeat(levels)))
        };
        assert!(deep(DEPTH_MAX).is_ok());
        assert!(deep(DEPTH_MAX + 1).is_err());
        assert!(deep(10_000).is_err());
        let calls = format!("SELECT * FROM devices WHERE {}a", "is_null(".repeat(3_000));
        assert!(parse(&calls).is_err());
        let long = format!("SELECT * FROM devices WHERE a{}", " AND NOT NOT a = 1 + 1 + 1".repeat(1_000));
        assert!(parse(&long).is_ok());
        assert_eq!(parse(&"x".repeat(QUERY_BYTES_MAX + 1)), Err(InvalidQuery::TooLong));
    }
}
