//! The use row: what a tenant used in one day, billing period and account, by meter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::lease::MOST;
use crate::catalog::{Catalog, MeterId};
use crate::clock::Now;

/// What was used in one day, billing period and account, by meter. Its totals never fall.
#[derive(Debug)]
pub(crate) struct UseRow {
    /// Sets it apart from a row of the same day that this process began anew, so that each keeps a
    /// total that never falls.
    pub(crate) part: u32,
    pub(crate) period_ms: i64,
    /// Local day, as yyyymmdd.
    pub(crate) day: u32,
    pub(crate) account: Option<Arc<str>>,
    totals: Box<[UseTotal]>,
}

#[derive(Debug, Default)]
struct UseTotal {
    total: AtomicU64,
    logged: AtomicU64,
}

impl UseRow {
    /// Counts atoms that were used. A total stops at [`MOST`].
    pub(crate) fn add(&self, meter: MeterId, atoms: u64) {
        let Some(row) = self.totals.get(usize::from(meter.0)) else {
            return;
        };
        let before = row.total.fetch_add(atoms, Ordering::SeqCst); // see `Sheet::soil`
        if before.saturating_add(atoms) > MOST {
            row.total.store(MOST, Ordering::SeqCst);
        }
    }

    /// Atoms counted so far.
    pub(crate) fn total(&self, meter: MeterId) -> u64 {
        let row = self.totals.get(usize::from(meter.0));
        row.map_or(0, |row| row.total.load(Ordering::Relaxed))
    }

    /// Takes what was counted, by meter: it is counted elsewhere from now on.
    pub(crate) fn take(&self) -> impl Iterator<Item = (MeterId, u64)> + '_ {
        self.totals.iter().enumerate().filter_map(|(i, row)| {
            let total = row.total.swap(0, Ordering::Relaxed);
            (total > 0).then(|| (MeterId(u16::try_from(i).unwrap_or(u16::MAX)), total))
        })
    }

    /// Meters whose total has risen since the log last had it, with the total; the log has them
    /// from now on.
    pub(crate) fn unlogged(&self) -> impl Iterator<Item = (MeterId, u64)> + '_ {
        self.totals.iter().enumerate().filter_map(|(i, row)| {
            let total = row.total.load(Ordering::SeqCst);
            let news = row.logged.swap(total, Ordering::Relaxed) != total;
            news.then(|| (MeterId(u16::try_from(i).unwrap_or(u16::MAX)), total))
        })
    }

    /// Whether the log has all of it.
    pub(super) fn is_logged(&self) -> bool {
        let is_logged = |row: &UseTotal| {
            row.logged.load(Ordering::Relaxed) == row.total.load(Ordering::Relaxed)
        };
        self.totals.iter().all(is_logged)
    }

    /// What it comes down to. `None`: the log lacks some of it.
    pub(super) fn at_rest(&self) -> Option<RowAtRest> {
        self.is_logged().then(|| RowAtRest {
            part: self.part,
            period_ms: self.period_ms,
            day: self.day,
            account: self.account.clone(),
            totals: self.totals.iter().map(|row| row.total.load(Ordering::Relaxed)).collect(),
        })
    }
}

/// A row while its tenant sleeps, all of it recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct RowAtRest {
    part: u32,
    period_ms: i64,
    day: u32,
    account: Option<Arc<str>>,
    totals: Vec<u64>,
}

impl RowAtRest {
    /// The row again, as it was.
    pub(super) fn wake(self) -> UseRow {
        let row = |total: u64| UseTotal { total: total.into(), logged: total.into() };
        let totals = self.totals.into_iter().map(row).collect();
        let Self { part, period_ms, day, account, .. } = self;
        UseRow { part, period_ms, day, account, totals }
    }
}

/// The row of the same day, period and account goes on; anything else begins a new one.
pub(super) fn use_row(
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

fn same_meters(a: &Arc<Catalog>, b: &Arc<Catalog>) -> bool {
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
        row.add(MeterId(0), 10_000_000_000);
        // As long as a request may say that it is: what was used before does not come to nothing.
        row.add(MeterId(0), u64::MAX - 10_000_000_000 + 1);
        assert_eq!(row.total(MeterId(0)), MOST);
        row.add(MeterId(0), u64::MAX);
        assert_eq!(row.total(MeterId(0)), MOST);
        row.add(MeterId(7), 1); // of another catalog
    }
}
