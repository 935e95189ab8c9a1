//! The use row: a tenant's use in one day, billing period and account, by meter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::amount::Atoms;
use crate::catalog::{Catalog, MeterId};
use crate::clock::Now;
use crate::quota::lease::MOST;

/// Use in one day, billing period and account, by meter. Its totals never fall.
#[derive(Debug)]
pub(crate) struct UseRow {
    /// Distinguishes rows of the same day that this process began separately, so that the total of
    /// each never falls.
    pub(crate) part: u32,
    pub(crate) period_ms: i64,
    /// Local day, as yyyymmdd.
    pub(crate) day: u32,
    pub(crate) account: Option<Arc<str>>,
    totals: Box<[UseTotal]>,
}

/// Atoms of a use row. Neither ever falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowAtoms {
    pub(crate) used: Atoms,
    /// Of these: drawn beyond a quota that bills. Recorded at the draw, because nothing else shows
    /// it: windows of quotas are not billing periods, and grants pay in between.
    pub(crate) over: Atoms,
}

impl RowAtoms {
    /// Takes the larger of each.
    pub(crate) fn raise(&mut self, other: RowAtoms) {
        self.used = self.used.max(other.used);
        self.over = self.over.max(other.over);
    }

    pub(crate) fn add(&mut self, other: RowAtoms) {
        self.used = self.used.saturating_add(other.used);
        self.over = self.over.saturating_add(other.over);
    }
}

/// A meter whose total has risen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Risen {
    pub(crate) meter: MeterId,
    pub(crate) total: RowAtoms,
    pub(crate) by: RowAtoms,
}

/// Everything used of a meter, and the part drawn beyond a quota that bills.
#[derive(Debug, Default)]
struct UseTotal {
    used: RowTotal,
    over: RowTotal,
}

#[derive(Debug, Default)]
struct RowTotal {
    total: AtomicU64,
    logged: AtomicU64,
}

impl RowTotal {
    /// Adds atoms. A total stops at [`MOST`]; false: it did, and some are not counted.
    fn add(&self, atoms: u64) -> bool {
        let before = self.total.fetch_add(atoms, Ordering::SeqCst); // see `Sheet::mark_dirty`
        if before.saturating_add(atoms) > MOST {
            self.total.store(MOST, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The present total, and how much of it the log lacked; marks it as logged.
    fn log(&self) -> (u64, u64) {
        let total = self.total.load(Ordering::SeqCst);
        (total, total.saturating_sub(self.logged.swap(total, Ordering::Relaxed)))
    }

    fn is_logged(&self) -> bool {
        self.logged.load(Ordering::Relaxed) == self.total.load(Ordering::Relaxed)
    }
}

impl From<u64> for RowTotal {
    fn from(total: u64) -> Self {
        Self { total: total.into(), logged: total.into() }
    }
}

impl UseTotal {
    fn atoms(&self) -> RowAtoms {
        let total = |of: &RowTotal| Atoms(of.total.load(Ordering::Relaxed));
        RowAtoms { used: total(&self.used), over: total(&self.over) }
    }
}

impl UseRow {
    /// Counts atoms that were used. False: the total has stopped at [`MOST`].
    #[inline]
    pub(super) fn add(&self, meter: MeterId, atoms: u64) -> bool {
        self.totals.get(usize::from(meter.0)).is_none_or(|row| row.used.add(atoms))
    }

    /// Counts atoms, used or counted as such, that were drawn beyond a quota that bills.
    pub(crate) fn add_over(&self, meter: MeterId, atoms: u64) {
        if let Some(row) = self.totals.get(usize::from(meter.0)).filter(|_| atoms > 0) {
            row.over.add(atoms);
        }
    }

    /// Atoms counted so far.
    pub(crate) fn total(&self, meter: MeterId) -> RowAtoms {
        let row = self.totals.get(usize::from(meter.0));
        row.map_or(RowAtoms::default(), UseTotal::atoms)
    }

    /// Takes the counts, by meter: they are counted elsewhere from now on.
    pub(crate) fn take(&self) -> impl Iterator<Item = (MeterId, u64)> + '_ {
        self.totals.iter().enumerate().filter_map(|(i, row)| {
            // Elsewhere they are drawn again.
            row.over.total.store(0, Ordering::Relaxed);
            let total = row.used.total.swap(0, Ordering::Relaxed);
            (total > 0).then(|| (MeterId(u16::try_from(i).unwrap_or(u16::MAX)), total))
        })
    }

    /// Meters whose total has risen since it was last logged; marks them as logged.
    pub(crate) fn unlogged(&self) -> impl Iterator<Item = Risen> + '_ {
        self.totals.iter().enumerate().filter_map(|(i, row)| {
            let ((used, more), (over, more_over)) = (row.used.log(), row.over.log());
            let meter = MeterId(u16::try_from(i).unwrap_or(u16::MAX));
            (more > 0 || more_over > 0).then_some(Risen {
                meter,
                total: RowAtoms { used: Atoms(used), over: Atoms(over) },
                by: RowAtoms { used: Atoms(more), over: Atoms(more_over) },
            })
        })
    }

    /// Whether the log has all of it.
    pub(crate) fn is_logged(&self) -> bool {
        self.totals.iter().all(|row| row.used.is_logged() && row.over.is_logged())
    }

    /// The compact form. `None`: the log lacks some of it.
    pub(crate) fn at_rest(&self) -> Option<RowAtRest> {
        self.is_logged().then(|| RowAtRest {
            part: self.part,
            period_ms: self.period_ms,
            day: self.day,
            account: self.account.clone(),
            totals: self.totals.iter().map(UseTotal::atoms).collect(),
        })
    }
}

/// A row of a compacted tenant, all of it recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RowAtRest {
    part: u32,
    period_ms: i64,
    day: u32,
    account: Option<Arc<str>>,
    totals: Vec<RowAtoms>,
}

impl RowAtRest {
    /// Restores the row as it was.
    pub(crate) fn wake(self) -> UseRow {
        let row = |RowAtoms { used, over }| UseTotal { used: used.0.into(), over: over.0.into() };
        let totals = self.totals.into_iter().map(row).collect();
        let Self { part, period_ms, day, account, .. } = self;
        UseRow { part, period_ms, day, account, totals }
    }
}

/// Continues the row of the same day, period and account; anything else begins a new one.
pub(crate) fn use_row(
    before: Option<(&Arc<UseRow>, &Arc<Catalog>)>,
    catalog: &Arc<Catalog>,
    account: Option<Arc<str>>,
    period_ms: i64,
    parts: &AtomicU32,
    now: Now,
) -> Arc<UseRow> {
    let day = crate::catalog::local_day(now.wall_ms, &catalog.timezone);
    if let Some((row, its_catalog)) = before {
        let same = row.day == day && row.period_ms == period_ms && row.account == account;
        if same && same_meters(its_catalog, catalog) {
            return row.clone();
        }
    }
    let totals = catalog.meters.iter().map(|_| UseTotal::default()).collect();
    let part = parts.fetch_add(1, Ordering::Relaxed);
    Arc::new(UseRow { part, period_ms, day, account, totals })
}

pub(crate) fn same_meters(a: &Arc<Catalog>, b: &Arc<Catalog>) -> bool {
    let names =
        |c: &Arc<Catalog>| c.meters.iter().map(|m| (m.name.clone(), m.scale)).collect::<Vec<_>>();
    Arc::ptr_eq(a, b) || names(a) == names(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_stops_where_sums_stay_in_range() {
        let totals = [UseTotal::default()].into();
        let row = UseRow { part: 0, period_ms: 0, day: 20_261_122, account: None, totals };
        assert!(row.add(MeterId(0), 10_000_000_000));
        // The longest length a request may state: earlier use is not lost.
        assert!(!row.add(MeterId(0), u64::MAX - 10_000_000_000 + 1));
        assert_eq!(row.total(MeterId(0)).used, Atoms(MOST));
        assert!(!row.add(MeterId(0), u64::MAX));
        assert_eq!(row.total(MeterId(0)).used, Atoms(MOST));
        assert!(row.add(MeterId(7), 1), "of another catalog");
    }
}
