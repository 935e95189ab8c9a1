//! The list of limits under pressure: one item that every node reads once a slot. A node whose
//! demand exceeds its part adds the limit, and the row lapses when no node renews it.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::LimitId;
use crate::ids::Surrogate;
use crate::store::layout::{self, check_format};
use crate::store::{Change, Item, Key, Name, StoreError, StoreErrorKind, Value, Write};

/// Format of the item.
const FORMAT: i64 = 1;
const ROW: &str = "p";

/// Most limits under pressure at once: the item stays far below its size limit, and cheap to read
/// every slot; concurrent additions may exceed it by as many for a slot. Limits without a place
/// keep equal parts.
pub(crate) const MAX_ROWS: usize = 1_000;

/// Age at which a row is renewed if there is still pressure.
const RENEW_MS: i64 = 60_000;
/// Age at which a row has lapsed: no node renewed it.
const LAPSE_MS: i64 = 180_000;

/// A limit under pressure, and the time of its last renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PressureRow {
    pub(crate) id: LimitId,
    at_ms: i64,
}

impl PressureRow {
    pub(crate) fn is_live(&self, now_ms: i64) -> bool {
        now_ms.saturating_sub(self.at_ms) < LAPSE_MS
    }
}

/// The rows of the list.
pub(crate) fn read(item: Option<&Item>) -> Result<Vec<PressureRow>, StoreError> {
    let Some(item) = item else { return Ok(vec![]) };
    check_format(item, FORMAT, "rates under pressure")?;
    let damaged = || StoreError::new(StoreErrorKind::Corrupt, "a row of rates under pressure");
    let rows = item.0.iter().filter(|(name, _)| name.starts_with(ROW));
    let row = |(name, value): (&Name, &Value)| {
        let Value::Int(at_ms) = value else { return Err(damaged()) };
        Ok(PressureRow { id: parse(name).ok_or_else(damaged)?, at_ms: *at_ms })
    };
    rows.map(row).collect()
}

/// An update of the list.
#[derive(Debug)]
pub(crate) struct Noted {
    /// The write that adds limits and removes lapsed ones; `None`: no change is needed.
    pub(crate) write: Option<Write>,
    /// The limits under pressure after it.
    pub(crate) listed: BTreeSet<LimitId>,
}

/// Adds these limits, if missing, and removes lapsed ones. If there are too many, tenants have
/// equal parts of the list, as far as they need them: one with thousands under pressure makes room
/// for one with few.
pub(crate) fn note(key: Key, rows: &[PressureRow], pressed: &[LimitId], now_ms: i64) -> Noted {
    let pressed: BTreeSet<&LimitId> = pressed.iter().collect();
    let known: BTreeSet<&LimitId> = rows.iter().map(|row| &row.id).collect();
    let stay = rows.iter().filter(|row| row.is_live(now_ms) || pressed.contains(&row.id));
    let new = pressed.iter().filter(|id| !known.contains(**id)).copied();
    let mut by_tenant = BTreeMap::<Surrogate, Vec<&LimitId>>::new();
    for id in stay.map(|row| &row.id).chain(new) {
        by_tenant.entry(id.tenant).or_default().push(id);
    }
    let most = share_of_each(by_tenant.values().map(Vec::len).collect(), MAX_ROWS);
    let listed = by_tenant.into_values().flat_map(|ids| ids.into_iter().take(most));
    let listed: BTreeSet<&LimitId> = listed.collect();
    let is_fresh = |row: &&PressureRow| now_ms.saturating_sub(row.at_ms) < RENEW_MS;
    let fresh: BTreeSet<&LimitId> = rows.iter().filter(is_fresh).map(|row| &row.id).collect();
    let set = pressed.iter().filter(|id| listed.contains(**id) && !fresh.contains(**id));
    let mut change: Vec<Change> = set.map(|id| Change::Set(name(id), Value::Int(now_ms))).collect();
    let gone = known.iter().filter(|id| !listed.contains(**id));
    change.extend(gone.map(|id| Change::Remove(name(id))));
    let write = (!change.is_empty()).then(|| {
        let (format, version) = layout::format(FORMAT);
        change.push(Change::Set(format, version));
        Write { key, when: vec![], change }
    });
    Noted { write, listed: listed.into_iter().cloned().collect() }
}

/// The maximum for each, so that the total fits and no one gets less than another because that one
/// wants more.
fn share_of_each(mut wanted: Vec<usize>, there_is: usize) -> usize {
    wanted.sort_unstable();
    let (mut left, mut others) = (there_is, wanted.len());
    for wants in wanted {
        let share = left / others;
        if wants > share {
            return share;
        }
        (left, others) = (left - wants, others - 1);
    }
    there_is
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

#[cfg(test)]
mod tests {
    use super::*;

    fn id(tenant: u128, scope: usize) -> LimitId {
        let scope = u128::try_from(scope).unwrap();
        LimitId { tenant: Surrogate::test(tenant), rate: "default/s".into(), scope }
    }

    fn key() -> Key {
        Key { pk: "V".into(), sk: "-".into() }
    }

    fn listed_after(rows: &BTreeSet<LimitId>, pressed: &[LimitId]) -> BTreeSet<LimitId> {
        let rows: Vec<PressureRow> =
            rows.iter().cloned().map(|id| PressureRow { id, at_ms: 0 }).collect();
        note(key(), &rows, pressed, 1_000).listed
    }

    #[test]
    fn a_tenant_with_thousands_of_limits_under_pressure_makes_room_for_others() {
        let hog: Vec<LimitId> = (0..10_000).map(|scope| id(1, scope)).collect();
        let mut rows = listed_after(&BTreeSet::new(), &hog);
        assert_eq!(rows.len(), MAX_ROWS);
        for tenant in 2..=50 {
            rows = listed_after(&rows, &[id(tenant, 0)]);
            assert!(rows.contains(&id(tenant, 0)), "tenant {tenant}");
        }
        assert_eq!(rows.len(), MAX_ROWS);
        let other: Vec<LimitId> = (0..10_000).map(|scope| id(60, scope)).collect();
        rows = listed_after(&rows, &other);
        let of = |tenant| rows.iter().filter(|id| id.tenant == Surrogate::test(tenant)).count();
        assert_eq!((of(1), of(60), of(7)), (475, 475, 1));
        // It stays like that in later rounds: there was room for one more.
        let again = listed_after(&rows, &hog);
        assert!(rows.is_subset(&again) && again.len() == MAX_ROWS);
        let pressed: Vec<LimitId> = rows.iter().cloned().collect();
        let rows: Vec<PressureRow> =
            rows.into_iter().map(|id| PressureRow { id, at_ms: 0 }).collect();
        assert_eq!(note(key(), &rows, &pressed, 1_000).write, None);
    }
}
