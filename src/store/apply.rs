//! Write semantics: the one pure function with which the in-process stores test conditions and make
//! changes, so that they cannot differ.
//!
//! Arithmetic is checked: an `Add` that overflows is refused as invalid; it neither wraps nor
//! saturates. Nothing here knows where items are kept.

use super::{
    Change, ITEM_FORMAT, Item, Key, Page, Query, StoreError, StoreErrorKind, Value, When, Write,
};

/// The result of a write, given the current item.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The conditions hold: the item after the write (`None`: no item).
    Apply(Option<Item>),
    /// A condition fails: the item stays as it is.
    Refuse,
}

/// Tests a write against the current item.
pub(super) fn apply(item: Option<&Item>, write: &Write) -> Result<Verdict, StoreError> {
    check_write(write)?;
    if !write.when.iter().all(|when| holds(item, when)) {
        return Ok(Verdict::Refuse);
    }
    if write.change == [Change::Delete] {
        return Ok(Verdict::Apply(None));
    }
    let mut next = item.cloned().unwrap_or_default();
    for change in &write.change {
        make(&mut next, change)?;
    }
    if item_bytes(&write.key, &next) > Item::MAX_BYTES {
        return Err(invalid(format!("an item would be above {} bytes", Item::MAX_BYTES)));
    }
    Ok(Verdict::Apply(Some(next)))
}

/// Fails on a key that no store takes.
pub(super) fn check_key(key: &Key) -> Result<(), StoreError> {
    check_pk(&key.pk)?;
    match key.sk.len() {
        0 => Err(invalid("a sort key is empty")),
        n if n > Key::MAX_SK_BYTES => {
            Err(invalid(format!("a sort key is above {} bytes", Key::MAX_SK_BYTES)))
        }
        _ => Ok(()),
    }
}

/// Fails on a query that no store takes. Returns the largest number of items its page may hold.
pub(super) fn check_query(query: &Query) -> Result<usize, StoreError> {
    check_pk(&query.pk)?;
    match query.limit {
        0 => Err(invalid("a query asks for no items: its limit is at least 1")),
        n => Ok(n.min(Page::MAX_ITEMS)),
    }
}

/// Fails on a write that is malformed regardless of the current item.
pub(super) fn check_write(write: &Write) -> Result<(), StoreError> {
    check_key(&write.key)?;
    for when in &write.when {
        match when {
            When::Absent | When::Exists => {}
            When::Equals(name, _)
            | When::Missing(name)
            | When::AtLeast(name, _)
            | When::Below(name, _) => check_name(name)?,
        }
    }
    if write.change.is_empty() {
        return Err(invalid("a write changes nothing"));
    }
    for (i, change) in write.change.iter().enumerate() {
        let Some(name) = changed_name(change) else {
            if write.change.len() > 1 {
                return Err(invalid("a delete is combined with other changes"));
            }
            continue;
        };
        check_name(name)?;
        if write.change[..i].iter().any(|earlier| changed_name(earlier) == Some(name)) {
            return Err(invalid("a write changes one attribute twice"));
        }
    }
    Ok(())
}

fn check_pk(pk: &str) -> Result<(), StoreError> {
    match pk.len() {
        0 => Err(invalid("a partition key is empty")),
        n if n > Key::MAX_PK_BYTES => {
            Err(invalid(format!("a partition key is above {} bytes", Key::MAX_PK_BYTES)))
        }
        _ => Ok(()),
    }
}

/// Rejects attribute names that a DynamoDB item already uses, so that no store allows them.
fn check_name(name: &str) -> Result<(), StoreError> {
    match name {
        "" => Err(invalid("an attribute has an empty name")),
        "pk" | "sk" | ITEM_FORMAT => Err(invalid("an attribute has a name that the store needs")),
        _ => Ok(()),
    }
}

fn changed_name(change: &Change) -> Option<&str> {
    match change {
        Change::Set(name, _) | Change::Add(name, _) | Change::Remove(name) => Some(name),
        Change::Delete => None,
    }
}

fn holds(item: Option<&Item>, when: &When) -> bool {
    let value = |name: &str| item.and_then(|item| item.0.get(name));
    let number = |name: &str| item.and_then(|item| item.int(name));
    match when {
        When::Absent => item.is_none(),
        When::Exists => item.is_some(),
        When::Equals(name, wanted) => value(name) == Some(wanted),
        When::Missing(name) => value(name).is_none(),
        When::AtLeast(name, least) => number(name).is_some_and(|n| n >= *least),
        When::Below(name, bound) => number(name).is_some_and(|n| n < *bound),
    }
}

fn make(item: &mut Item, change: &Change) -> Result<(), StoreError> {
    match change {
        Change::Set(name, value) => {
            item.0.insert(name.clone(), value.clone());
        }
        Change::Add(name, by) => {
            let old = match item.0.get(name) {
                None => 0,
                Some(Value::Int(n)) => *n,
                Some(_) => {
                    return Err(invalid("a number is added to a value that is not a number"));
                }
            };
            let new = old.checked_add(*by).ok_or_else(|| invalid("a sum is out of range"))?;
            item.0.insert(name.clone(), Value::Int(new));
        }
        Change::Remove(name) => {
            item.0.remove(name);
        }
        Change::Delete => {}
    }
    Ok(())
}

/// The size of an item as DynamoDB counts it (keys with their names, then each attribute's name and
/// value), with every number counted at its longest.
pub(super) fn item_bytes(key: &Key, item: &Item) -> usize {
    const NUMBER_BYTES: usize = 12;
    let keys = "pk".len() + key.pk.len() + "sk".len() + key.sk.len();
    item.0.iter().fold(keys, |sum, (name, value)| {
        let bytes = match value {
            Value::Int(_) => NUMBER_BYTES,
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
        };
        sum.saturating_add(name.len()).saturating_add(bytes)
    })
}

fn invalid(message: impl Into<String>) -> StoreError {
    StoreError::new(StoreErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(when: Vec<When>, change: Vec<Change>) -> Write {
        Write { key: Key { pk: "p".into(), sk: "s".into() }, when, change }
    }

    fn item(n: i64) -> Item {
        Item([("n".into(), Value::Int(n))].into())
    }

    fn kind(result: Result<Verdict, StoreError>) -> StoreErrorKind {
        result.unwrap_err().kind
    }

    #[test]
    fn a_condition_is_tested_before_the_sum_that_would_overflow() {
        let add = |when| write(when, vec![Change::Add("n".into(), 1)]);
        let full = item(i64::MAX);
        assert_eq!(kind(apply(Some(&full), &add(vec![]))), StoreErrorKind::Invalid);
        let guarded = add(vec![When::Below("n".into(), i64::MAX)]);
        assert_eq!(apply(Some(&full), &guarded).unwrap(), Verdict::Refuse);
    }

    #[test]
    fn an_item_may_be_as_large_as_the_bound_and_not_a_byte_more() {
        let fixed = "pk".len() + "p".len() + "sk".len() + "s".len() + "b".len();
        let of = |n| write(vec![], vec![Change::Set("b".into(), Value::Bytes(vec![0; n]))]);
        let room = Item::MAX_BYTES - fixed;
        assert!(matches!(apply(None, &of(room)).unwrap(), Verdict::Apply(Some(_))));
        assert_eq!(kind(apply(None, &of(room + 1))), StoreErrorKind::Invalid);
    }

    #[test]
    fn a_number_that_is_missing_meets_no_bound() {
        for when in [When::AtLeast("n".into(), i64::MIN), When::Below("n".into(), i64::MAX)] {
            let write = write(vec![when], vec![Change::Delete]);
            assert_eq!(apply(None, &write).unwrap(), Verdict::Refuse);
            assert_eq!(apply(Some(&Item::default()), &write).unwrap(), Verdict::Refuse);
        }
    }

    #[test]
    fn all_conditions_must_hold() {
        let both = write(
            vec![When::Exists, When::Equals("n".into(), Value::Int(2))],
            vec![Change::Delete],
        );
        assert_eq!(apply(Some(&item(1)), &both).unwrap(), Verdict::Refuse);
        assert_eq!(apply(Some(&item(2)), &both).unwrap(), Verdict::Apply(None));
    }
}
