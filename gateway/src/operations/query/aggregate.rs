//! Counts and sums over all rows, or over each group of them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use serde_json::{Map, Value as Json};

use super::QueryError;
use super::evaluate::value;
use super::row::Row;
use super::statement::{Aggregate, Projection, PropertyPath, SelectItem};
use super::value::Value;

/// The result so far.
#[derive(Debug)]
pub(super) struct Groups<'s> {
    items: &'s [SelectItem],
    by: &'s [PropertyPath],
    /// By the common values of its rows, as JSON text.
    groups: BTreeMap<String, Group>,
}

/// One group: the value of each item so far.
#[derive(Debug)]
struct Group(Vec<Cell>);

#[derive(Debug)]
enum Cell {
    /// The value that all rows of the group share.
    Common(Option<Json>),
    Sum {
        of: Aggregate,
        count: u64,
        result: Option<f64>,
    },
}

impl<'s> Groups<'s> {
    pub(super) fn new(items: &'s [SelectItem], by: &'s [PropertyPath]) -> Self {
        Self { items, by, groups: BTreeMap::new() }
    }

    /// Adds a row.
    pub(super) fn add(&mut self, row: &Row) -> Result<(), QueryError> {
        let common: Vec<Option<Json>> = self.by.iter().map(|path| row.property(path).into_json()).collect();
        let key = serde_json::to_string(&common).expect("JSON is text");
        let room = self.groups.len() < GROUPS_MAX;
        let group = match self.groups.entry(key) {
            Entry::Occupied(group) => group.into_mut(),
            Entry::Vacant(place) if room => place.insert(Group::new(self.items, Some(row))),
            Entry::Vacant(_) => return Err(QueryError::TooManyGroups(GROUPS_MAX)),
        };
        for (item, cell) in self.items.iter().zip(&mut group.0) {
            cell.add(item, row);
        }
        Ok(())
    }

    /// The answer, one row for each group. Without GROUP BY it has one row, even if no row was counted.
    pub(super) fn into_rows(self) -> Vec<Json> {
        let nothing = || Group::new(self.items, None);
        let groups: Vec<Group> = match self.groups.is_empty() && self.by.is_empty() {
            true => vec![nothing()],
            false => self.groups.into_values().collect(),
        };
        let shown = |group: Group| {
            let named = self.items.iter().zip(group.0);
            Json::Object(
                named
                    .filter_map(|(item, cell)| Some((item.name.clone(), cell.into_json()?)))
                    .collect::<Map<_, _>>(),
            )
        };
        groups.into_iter().map(shown).collect()
    }
}

impl Group {
    fn new(items: &[SelectItem], row: Option<&Row>) -> Self {
        let cell = |item: &SelectItem| match &item.of {
            Projection::Expression(of) => Cell::Common(row.and_then(|row| value(of, row).into_json())),
            Projection::Aggregate(of, _) => Cell::Sum { of: *of, count: 0, result: None },
        };
        Self(items.iter().map(cell).collect())
    }
}

impl Cell {
    fn add(&mut self, item: &SelectItem, row: &Row) {
        let (Cell::Sum { of, count, result }, Projection::Aggregate(_, expression)) = (self, &item.of) else {
            return;
        };
        let value = expression.as_ref().map(|expression| value(expression, row));
        match (of, value) {
            (Aggregate::Count, None) => *count += 1,
            (Aggregate::Count, Some(value)) => *count += u64::from(value != Value::Undefined),
            // A value that is not a number does not count.
            (of, value) => {
                let Some(number) = value.and_then(|value| value.as_number()) else { return };
                *count += 1;
                *result = Some(match (*result, of) {
                    (None, _) => number,
                    (Some(result), Aggregate::Minimum) => result.min(number),
                    (Some(result), Aggregate::Maximum) => result.max(number),
                    (Some(result), Aggregate::Sum | Aggregate::Average | Aggregate::Count) => result + number,
                });
            }
        }
    }

    fn into_json(self) -> Option<Json> {
        match self {
            Cell::Common(value) => value,
            Cell::Sum { of: Aggregate::Count, count, .. } => Some(count.into()),
            Cell::Sum { of: Aggregate::Average, count, result } => {
                Value::Number(result? / count as f64).into_json()
            }
            Cell::Sum { result, .. } => Value::Number(result?).into_json(),
        }
    }
}

/// The most groups of one answer.
const GROUPS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::grammar;
    use super::super::row::tests::row;
    use super::super::statement::Select;
    use super::*;

    fn answer(query: &str, rows: &[Row]) -> Result<Vec<Json>, QueryError> {
        let statement = grammar::parse(query).unwrap();
        let Select::Items(items) = &statement.select else { panic!("{query}") };
        let mut groups = Groups::new(items, &statement.group_by);
        rows.iter().try_for_each(|row| groups.add(row))?;
        Ok(groups.into_rows())
    }

    #[test]
    fn everything_is_counted_once() {
        let rows = [row("a", None), row("b", None), row("b", Some("m"))];
        let all = "SELECT COUNT() AS all, COUNT(status) AS devices, SUM(cloudToDeviceMessageCount) AS sum, \
                   AVG(cloudToDeviceMessageCount) AS mean, MIN(version), MAX(deviceId) AS none FROM devices";
        let wanted = json!({"all": 3, "devices": 2, "sum": 9, "mean": 3, "$5": 1});
        assert_eq!(answer(all, &rows).unwrap(), [wanted]);
        assert_eq!(answer("SELECT COUNT() FROM devices", &[]).unwrap(), [json!({"$1": 0})]);
        let grouped = "SELECT deviceId, status, COUNT() AS n FROM devices GROUP BY deviceId, status";
        let wanted = [
            json!({"deviceId": "a", "status": "disabled", "n": 1}),
            json!({"deviceId": "b", "status": "disabled", "n": 1}),
            json!({"deviceId": "b", "n": 1}),
        ];
        assert_eq!(answer(grouped, &rows).unwrap(), wanted);
        assert_eq!(answer(grouped, &[]).unwrap(), [] as [Json; 0]);
    }

    #[test]
    fn t711_groups_are_bounded() {
        let rows: Vec<Row> = (0..=GROUPS_MAX).map(|number| row(&format!("d{number}"), None)).collect();
        let grouped = "SELECT deviceId, COUNT() FROM devices GROUP BY deviceId";
        assert_eq!(answer(grouped, &rows[1..]).unwrap().len(), GROUPS_MAX);
        assert!(matches!(answer(grouped, &rows), Err(QueryError::TooManyGroups(_))));
    }
}
