//! Writes as expressions: one call of `UpdateItem` or `DeleteItem`, whose condition holds exactly
//! when the write's conditions hold, the item is in our format, and no sum overflows.
//!
//! Every name and value is a placeholder, so no attribute name can be a reserved word or a piece of
//! syntax, and the service's messages about an expression reveal no stored data.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::super::{Change, When, Write};
use super::item::{self, FORMAT, ITEM_FORMAT, PK};

/// The expressions of a write and their placeholder values.
#[derive(Debug, Default)]
pub(super) struct Expressions {
    /// Never empty: an item in another format is always refused.
    pub(super) condition: String,
    /// `None` for a delete.
    pub(super) update: Option<String>,
    /// Placeholders of names. If empty, left out of the request, as the service requires.
    pub(super) names: HashMap<String, String>,
    pub(super) values: HashMap<String, AttributeValue>,
}

impl Expressions {
    /// `write` has been checked: its changes are distinct, and a delete stands alone.
    pub(super) fn of(write: &Write) -> Self {
        let mut this = Self::default();
        let format = this.value(item::number(FORMAT));
        let mut conditions =
            vec![format!("(attribute_not_exists({PK}) OR {ITEM_FORMAT} = {format})")];
        conditions.extend(write.when.iter().map(|when| this.condition_of(when)));
        let (mut set, mut add, mut remove) =
            (vec![format!("{ITEM_FORMAT} = {format}")], vec![], vec![]);
        let mut deletes = false;
        for change in &write.change {
            match change {
                Change::Set(name, value) => {
                    let (name, value) = (this.name(name), this.value(item::value(value)));
                    set.push(format!("{name} = {value}"));
                }
                Change::Add(name, by) => {
                    let (name, value) = (this.name(name), this.value(item::number(*by)));
                    conditions.push(this.has_room(&name, *by));
                    add.push(format!("{name} {value}"));
                }
                Change::Remove(name) => remove.push(this.name(name)),
                Change::Delete => deletes = true,
            }
        }
        this.condition = conditions.join(" AND ");
        this.update = (!deletes).then(|| {
            let clauses = [("SET", set), ("ADD", add), ("REMOVE", remove)];
            let full = clauses.iter().filter(|(_, parts)| !parts.is_empty());
            full.map(|(verb, parts)| format!("{verb} {}", parts.join(", ")))
                .collect::<Vec<_>>()
                .join(" ")
        });
        this
    }

    fn condition_of(&mut self, when: &When) -> String {
        match when {
            When::Absent => format!("attribute_not_exists({PK})"),
            When::Exists => format!("attribute_exists({PK})"),
            When::Missing(name) => format!("attribute_not_exists({})", self.name(name)),
            When::Equals(name, value) => self.compare(name, "=", item::value(value)),
            When::AtLeast(name, n) => self.compare(name, ">=", item::number(*n)),
            When::Below(name, n) => self.compare(name, "<", item::number(*n)),
        }
    }

    /// False for an attribute that is missing or of another type, as the laws require.
    fn compare(&mut self, name: &str, with: &str, value: AttributeValue) -> String {
        format!("{} {with} {}", self.name(name), self.value(value))
    }

    /// A number in the table may have 38 digits, ours have the range of `i64`: the condition stops
    /// an addition that would leave that range or whose attribute is not a number.
    fn has_room(&mut self, name: &str, by: i64) -> String {
        let lowest = i64::MIN.saturating_sub(by.min(0));
        let highest = i64::MAX.saturating_sub(by.max(0));
        let (lowest, highest) =
            (self.value(item::number(lowest)), self.value(item::number(highest)));
        format!("(attribute_not_exists({name}) OR {name} BETWEEN {lowest} AND {highest})")
    }

    /// The placeholder of a name: one per name, because the service refuses duplicates.
    fn name(&mut self, name: &str) -> String {
        let known = self.names.iter().find(|(_, stands_for)| *stands_for == name);
        if let Some((placeholder, _)) = known {
            return placeholder.clone();
        }
        let placeholder = format!("#n{}", self.names.len());
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, Value};

    fn of(when: Vec<When>, change: Vec<Change>) -> Expressions {
        Expressions::of(&Write { key: Key { pk: "p".into(), sk: "s".into() }, when, change })
    }

    const OURS: &str = "(attribute_not_exists(pk) OR tallygate = :v0)";

    #[test]
    fn a_lease_is_one_update_with_all_its_conditions() {
        let taken = of(
            vec![
                When::Equals("entry".into(), Value::Bytes(b"op 0".into())),
                When::AtLeast("free".into(), 4),
            ],
            vec![
                Change::Add("free".into(), -4),
                Change::Set("entry".into(), Value::Bytes(b"op 1".into())),
                Change::Remove("ttl".into()),
            ],
        );
        assert_eq!(
            taken.condition,
            format!(
                "{OURS} AND #n0 = :v1 AND #n1 >= :v2 AND \
                 (attribute_not_exists(#n1) OR #n1 BETWEEN :v4 AND :v5)"
            )
        );
        let update = "SET tallygate = :v0, #n0 = :v6 ADD #n1 :v3 REMOVE #n2";
        assert_eq!(taken.update.as_deref(), Some(update));
        assert_eq!(taken.names["#n1"], "free");
        assert_eq!(taken.names.len(), 3);
        assert_eq!(taken.values[":v4"], item::number(i64::MIN + 4));
        assert_eq!(taken.values[":v5"], item::number(i64::MAX));
    }

    #[test]
    fn a_delete_updates_nothing_and_names_nothing() {
        let deleted = of(vec![When::Exists], vec![Change::Delete]);
        assert_eq!(deleted.condition, format!("{OURS} AND attribute_exists(pk)"));
        assert_eq!((deleted.update, deleted.names.len()), (None, 0));
    }

    #[test]
    fn the_room_of_a_sum_ends_where_the_sum_would() {
        let room = |by| {
            let all = of(vec![], vec![Change::Add("n".into(), by)]);
            (all.values[":v2"].clone(), all.values[":v3"].clone())
        };
        let of = |low, high| (item::number(low), item::number(high));
        assert_eq!(room(0), of(i64::MIN, i64::MAX));
        assert_eq!(room(7), of(i64::MIN, i64::MAX - 7));
        assert_eq!(room(i64::MAX), of(i64::MIN, 0));
        assert_eq!(room(i64::MIN), of(0, i64::MAX));
    }
}
