//! Queries over devices and modules, in IoT Hub's query language: checks the caller's right and returns pages of rows.
//!
//! `grammar` parses a query into a `statement`. `scan` walks through the identities. `row` is a query's view of one.
//! `evaluate` and `aggregate` compute the answer. A request looks at a limited number of identities. If more are left,
//! it returns the rows it has, perhaps none, and a token to continue with. Only an aggregate over all rows looks at all
//! identities. It yields the processor between steps.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portcullis_registry::id::{DeviceId, IdentityId, ModuleId};
use portcullis_registry::policy::Rights;
use serde_json::{Map, Value as Json};

use crate::auth::{AuthError, VerifiedService};
use crate::hub::Hub;
use aggregate::Groups;
pub use grammar::InvalidQuery;
use row::Row;
use scan::Scan;
use statement::{Projection, Select, SelectItem, Statement};

mod aggregate;
mod evaluate;
mod grammar;
mod row;
mod scan;
mod statement;
mod value;

/// One page of rows.
#[derive(Debug)]
pub struct QueryPage {
    pub rows: Vec<Json>,
    pub kind: ItemKind,
    /// The continuation token of the next page; none on the last page.
    pub next: Option<String>,
}

/// What the rows are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemKind {
    /// Whole twins.
    Twin,
    /// The selected values.
    Raw,
}

/// Why a query gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    #[error(transparent)]
    Forbidden(#[from] AuthError),
    #[error(transparent)]
    Invalid(#[from] InvalidQuery),
    #[error("this hub did not give the continuation token for this query; start the query again without it")]
    Continuation,
    #[error("the answer has more than {0} groups; add a WHERE, or group by fewer properties")]
    TooManyGroups(usize),
}

/// Answers a query with at most `rows_max` rows, from `continuation` on.
pub async fn run(
    hub: &Hub,
    caller: &VerifiedService,
    text: &str,
    rows_max: usize,
    continuation: Option<&str>,
) -> Result<QueryPage, QueryError> {
    caller.check(Rights::SERVICE_CONNECT)?;
    let statement = grammar::parse(text)?;
    let kind = match statement.select {
        Select::All => ItemKind::Twin,
        Select::Items(_) => ItemKind::Raw,
    };
    if statement.is_aggregate() {
        if continuation.is_some() {
            return Err(QueryError::Continuation);
        }
        let rows = aggregate(hub, &statement).await?;
        return Ok(QueryPage { rows, kind, next: None });
    }
    let from = match continuation {
        None => Continuation { after: None, left: statement.top },
        Some(token) => Continuation::parse(token, &statement)?,
    };
    let (rows, next) = page(hub, &statement, rows_max, from).await;
    Ok(QueryPage { rows, kind, next: next.map(|place| place.to_token()) })
}

async fn page(
    hub: &Hub,
    statement: &Statement,
    rows_max: usize,
    from: Continuation,
) -> (Vec<Json>, Option<Continuation>) {
    let wanted = from.left.map_or(rows_max, |left| left.min(rows_max));
    let is_enough = from.left.is_some_and(|left| left <= rows_max);
    let left = |rows: &[Json]| from.left.map(|left| left.saturating_sub(rows.len()));
    let mut scan = Scan::new(&hub.registry, statement.source, statement.narrowing(), from.after.clone());
    let mut rows: Vec<Json> = Vec::new();
    let mut last = from.after.clone();
    let mut weight = 0;
    if wanted == 0 {
        return (rows, None);
    }
    let step = step_devices(statement);
    while let Some(entries) = scan.step(step) {
        // Devices without modules are looked at too, but give no row.
        weight += step;
        for entry in entries {
            let row = Row::of(hub, &entry);
            weight += statement.weight();
            if !fulfils(statement, &row) {
                last = Some(entry.identity().id.clone());
                continue;
            }
            if rows.len() == wanted {
                // There are more rows, and the next page begins after `last`.
                let place = Continuation { left: left(&rows), after: last };
                return (rows, Some(place));
            }
            rows.push(select(&statement.select, &row));
            last = Some(entry.identity().id.clone());
            if is_enough && rows.len() == wanted {
                return (rows, None);
            }
        }
        if weight > WEIGHT_MAX {
            let place = Continuation { left: left(&rows), after: scan.place().cloned() };
            return (rows, Some(place));
        }
        last = scan.place().cloned();
        tokio::task::yield_now().await;
    }
    (rows, None)
}

async fn aggregate(hub: &Hub, statement: &Statement) -> Result<Vec<Json>, QueryError> {
    let items: &[SelectItem] = match &statement.select {
        Select::All => &[],
        Select::Items(items) => items,
    };
    let mut groups = Groups::new(items, &statement.group_by);
    let mut scan = Scan::new(&hub.registry, statement.source, statement.narrowing(), None);
    while let Some(entries) = scan.step(step_devices(statement)) {
        for entry in entries {
            let row = Row::of(hub, &entry);
            if fulfils(statement, &row) {
                groups.add(&row)?;
            }
        }
        tokio::task::yield_now().await;
    }
    let mut rows = groups.into_rows();
    rows.truncate(statement.top.unwrap_or(usize::MAX));
    Ok(rows)
}

fn fulfils(statement: &Statement, row: &Row) -> bool {
    statement.condition.as_ref().is_none_or(|condition| evaluate::holds(condition, row))
}

fn select(select: &Select, row: &Row) -> Json {
    let Select::Items(items) = select else { return row.to_json() };
    let selected = items.iter().filter_map(|item| match &item.of {
        Projection::Expression(of) => Some((item.name.clone(), evaluate::value(of, row).into_json()?)),
        Projection::Aggregate(..) => None,
    });
    Json::Object(selected.collect::<Map<_, _>>())
}

/// How many devices to look at before other tasks run. The more a query costs for each device, the fewer.
fn step_devices(statement: &Statement) -> usize {
    (STEP_WEIGHT / statement.weight()).clamp(1, STEP_DEVICES_MAX)
}

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Continuation {
    after: Option<IdentityId>,
    /// How many more rows the query's TOP allows.
    left: Option<usize>,
}

impl Continuation {
    /// The caller's form: `left|device/module`, in base64. No id contains these characters.
    fn to_token(&self) -> String {
        let left = self.left.map(|left| left.to_string()).unwrap_or_default();
        let after = self.after.as_ref().map(ToString::to_string).unwrap_or_default();
        STANDARD.encode(format!("{left}|{after}"))
    }

    /// A forged token reveals only what the query would, and cannot raise TOP.
    fn parse(token: &str, statement: &Statement) -> Result<Self, QueryError> {
        let parsed = || {
            let text = String::from_utf8(STANDARD.decode(token).ok()?).ok()?;
            let (left, after) = text.split_once('|')?;
            let left = match (left, statement.top) {
                ("", None) => None,
                (left, Some(top)) => Some(left.parse::<usize>().ok()?.min(top)),
                (_, None) => return None,
            };
            Some(Self { left, after: if after.is_empty() { None } else { Some(parse_id(after)?) } })
        };
        parsed().ok_or(QueryError::Continuation)
    }
}

fn parse_id(text: &str) -> Option<IdentityId> {
    let (device, module) = match text.split_once('/') {
        None => (text, None),
        Some((device, module)) => (device, Some(ModuleId::parse(module).ok()?)),
    };
    Some(IdentityId { device: DeviceId::parse(device).ok()?, module })
}

/// The most work of one request, about a tenth of a second. The unit is one evaluated part of a condition.
const WEIGHT_MAX: usize = 200_000;
/// The work of one step, in the same unit.
const STEP_WEIGHT: usize = 4_000;
/// The most devices of one step.
const STEP_DEVICES_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_brings_back_its_place_and_no_other_is_taken() {
        let all = grammar::parse("SELECT * FROM devices").unwrap();
        let top = grammar::parse("SELECT TOP 5 * FROM devices").unwrap();
        for (after, left, statement) in
            [(None, None, &all), (Some("d1"), None, &all), (Some("d1/m"), Some(3), &top)]
        {
            let place = Continuation { after: after.map(|id| parse_id(id).unwrap()), left };
            assert_eq!(Continuation::parse(&place.to_token(), statement).unwrap(), place);
        }
        let token = |text: &str| STANDARD.encode(text);
        assert_eq!(Continuation::parse(&token("99|d1"), &top).unwrap().left, Some(5));
        for (text, statement) in [
            ("", &all),
            ("d1", &all),
            ("3|d1", &all),
            ("|d1", &top),
            ("-1|d1", &top),
            ("|d1/", &all),
            ("|d1/m/n", &all),
            ("|../etc", &all),
        ] {
            assert!(Continuation::parse(&token(text), statement).is_err(), "{text}");
        }
        assert!(Continuation::parse("?", &all).is_err());
    }
}
