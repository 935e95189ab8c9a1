//! The list of limits under pressure: one item that every node reads once a slot. A limit is put
//! there by a node that is asked for more than its part of it, and lapses when nobody is.

use std::collections::BTreeSet;

use super::machine::LimitId;
use crate::directory::Surrogate;
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, Write};

/// Format of the item.
const FORMAT: i64 = 1;
const ROW: &str = "p";

/// Most limits under pressure at once: the item stays far below what an item may hold, and reading
/// it every slot stays cheap. What finds no place keeps equal parts.
pub(crate) const MAX_ROWS: usize = 1_000;

/// A row is written again when it is so old, and somebody still presses.
const RENEW_MS: i64 = 60_000;
/// A row so old is no pressure any more: nobody renewed it.
const LAPSE_MS: i64 = 180_000;

/// A limit under pressure, and when somebody last said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: LimitId,
    at_ms: i64,
}

impl Row {
    pub(crate) fn is_live(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.at_ms) < LAPSE_MS
    }
}

/// What is in the list.
pub(crate) fn read(item: Option<&Item>) -> Result<Vec<Row>, StoreError> {
    let Some(item) = item else { return Ok(vec![]) };
    check_format(item, FORMAT, "rates under pressure")?;
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a row of rates under pressure");
    let rows = item.0.iter().filter(|(name, _)| name.starts_with(ROW));
    let row = |(name, value): (&Name, &Value)| {
        let Value::Int(at_ms) = value else { return Err(damaged()) };
        Ok(Row { id: parse(name).ok_or_else(damaged)?, at_ms: *at_ms })
    };
    rows.map(row).collect()
}

/// The write that puts these limits there, if they are not, and takes off what has lapsed.
pub(crate) fn note(key: Key, rows: &[Row], pressed: &[LimitId], now_ms: i64) -> Option<Write> {
    let is_fresh = |row: &&Row| now_ms.saturating_sub(row.at_ms) < RENEW_MS;
    let fresh: BTreeSet<&LimitId> = rows.iter().filter(is_fresh).map(|row| &row.id).collect();
    let known: BTreeSet<&LimitId> = rows.iter().map(|row| &row.id).collect();
    let room = MAX_ROWS.saturating_sub(rows.len());
    let (old, new): (Vec<&LimitId>, Vec<&LimitId>) =
        pressed.iter().filter(|id| !fresh.contains(id)).partition(|id| known.contains(id));
    let mut change: Vec<Change> = old
        .into_iter()
        .chain(new.into_iter().take(room))
        .map(|id| Change::Set(name(id), Value::Int(now_ms)))
        .collect();
    let lapsed = rows.iter().filter(|row| !row.is_live(now_ms) && !pressed.contains(&row.id));
    change.extend(lapsed.map(|row| Change::Remove(name(&row.id))));
    if change.is_empty() {
        return None;
    }
    let (format, version) = layout::format(FORMAT);
    change.push(Change::Set(format, version));
    Some(Write { key, when: vec![], change })
}

fn name(id: &LimitId) -> Name {
    format!("{ROW}{}#{:032x}#{}", id.tenant, id.scope, id.rate).into()
}

fn parse(name: &str) -> Option<LimitId> {
    let mut parts = name.strip_prefix(ROW)?.splitn(3, '#');
    let tenant = Surrogate::parse(parts.next()?)?;
    let scope = u128::from_str_radix(parts.next()?, 16).ok()?;
    Some(LimitId { tenant, scope, rate: parts.next()?.into() })
}
