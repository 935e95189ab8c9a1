//! Finds the writers, by the months under which they have registered.
//!
//! A writer registers under the month of its own clock, which may be wrong: ahead, or at 1970. So
//! a list has every month under which one has registered, and the months of that list are looked
//! at, whatever this process's clock says. A writer whose clock is set registers again, before its
//! next record: a reader with that clock finds it among the new writers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::super::log::{LAST, REGISTRY_FORMAT, utc_day};
use super::{DAY_MS, Fold, Ledger, locked};
use crate::ids::WriterId;
use crate::store::layout::{check_format, registered};
use crate::store::{Key, Page, Query, StoreError};

/// How many days back to look for writers: as far as `GET /usage/history` can show. Older rows stay
/// in the store.
const DAYS_BACK: i64 = 400;

/// Before this month there was no release of this crate: a clock that said so was wrong, and its
/// months are looked at however long ago they are.
const FIRST_MONTH: u32 = 202_601;

/// How often all months are looked at again: a writer whose clock was behind, by less than makes
/// another month, is not among the new ones.
const ALL_MS: u64 = DAY_MS.unsigned_abs();

/// How long the list of months is not read again.
const LIST_MS: u64 = 60_000;

/// Where this process has looked for writers.
#[derive(Default)]
pub(super) struct MonthsSeen {
    /// Who had registered last in each month.
    last: Marks,
    /// When the list of them was read, Unix milliseconds.
    list_ms: Option<i64>,
    /// When all months were looked at, Unix milliseconds.
    all_ms: Option<i64>,
}

/// Who has registered last, by the month.
type Marks = BTreeMap<u32, String>;

impl Ledger {
    /// Every possible writer: those known, and those registered since the last reading.
    pub(super) async fn writers(
        &self,
        fold: &Mutex<Fold>,
        now_ms: i64,
    ) -> Result<Vec<WriterId>, StoreError> {
        let all = is_due(locked(fold).months.all_ms, ALL_MS, now_ms);
        let list = is_due(locked(fold).months.list_ms, LIST_MS, now_ms);
        let known = locked(fold).months.last.clone();
        let marks = if list { self.marks().await? } else { known };
        let days = locked(fold).months.due(&marks, all, (now_ms, self.since_ms));
        // In the order of time.
        for day in days.into_values() {
            self.note_registered_from(day, fold).await?;
        }
        let mut fold = locked(fold);
        fold.months.last = marks;
        if list {
            fold.months.list_ms = Some(now_ms);
        }
        if all {
            fold.months.all_ms = Some(now_ms);
        }
        let mut writers: Vec<WriterId> = fold.next.keys().copied().collect();
        writers.sort_unstable();
        Ok(writers)
    }

    /// The months under which writers have registered.
    async fn marks(&self) -> Result<Marks, StoreError> {
        let mut marks = Marks::new();
        let Key { pk, .. } = self.writer.space.registry_month(0);
        let mut query = Query { pk, from: String::new(), until: None, limit: Page::MAX_ITEMS };
        loop {
            let page = self.store.query(query.clone()).await?;
            for (month, item) in &page.items {
                check_format(item, REGISTRY_FORMAT, "a month of the registry")?;
                if let Ok(month) = month.parse() {
                    marks.insert(month, item.text(LAST).unwrap_or_default().to_owned());
                }
            }
            let Some(next) = page.next else { return Ok(marks) };
            query.from = next;
        }
    }

    /// Notes the writers that registered on this day and later in its month.
    async fn note_registered_from(&self, day: u32, fold: &Mutex<Fold>) -> Result<(), StoreError> {
        let Key { pk, sk: from } = self.writer.space.registry_day(day);
        let mut query = Query { pk, from, until: None, limit: Page::MAX_ITEMS };
        loop {
            let page = self.store.query(query.clone()).await?;
            for (sk, _) in &page.items {
                if let Some(incarnation) = registered(sk) {
                    locked(fold).next.entry(incarnation).or_insert(0);
                }
            }
            let Some(next) = page.next else { return Ok(()) };
            query.from = next;
        }
    }
}

impl MonthsSeen {
    /// The days from which months are to be looked at, by the month: those of this clock from a day
    /// before the last look on, and others as a whole, if they have new writers.
    fn due(&self, marks: &Marks, all: bool, (now_ms, begun_ms): (i64, i64)) -> BTreeMap<u32, u32> {
        let since_ms = self.all_ms.filter(|_| !all).map_or(now_ms, |at_ms| at_ms.min(now_ms));
        let first = utc_day(since_ms.saturating_sub(DAY_MS));
        // A day ahead, for writers whose clock is fast.
        let last = utc_day(now_ms.saturating_add(DAY_MS));
        let mut due: BTreeMap<u32, u32> =
            [first, utc_day(now_ms), last].map(|day| (day / 100, first_of(day / 100))).into();
        if !all {
            due.insert(first / 100, first);
        }
        let back_ms = now_ms.saturating_sub(DAYS_BACK * DAY_MS);
        let back = utc_day(back_ms) / 100;
        if all {
            // Months that are not marked: by builds that marked none.
            let mut month = utc_day(begun_ms.max(back_ms)) / 100;
            while month < first / 100 {
                due.entry(month).or_insert(first_of(month));
                month = next(month);
            }
        }
        for (month, mark) in marks {
            let is_looked_for = *month >= back || *month < FIRST_MONTH;
            if is_looked_for && (all || self.last.get(month) != Some(mark)) {
                due.entry(*month).or_insert(first_of(*month));
            }
        }
        due
    }
}

/// Whether to look again: for the first time, after so long, and if the clock was set by as much.
fn is_due(looked_ms: Option<i64>, every_ms: u64, now_ms: i64) -> bool {
    looked_ms.is_none_or(|at_ms| now_ms.abs_diff(at_ms) >= every_ms)
}

/// The month after this one.
fn next(month: u32) -> u32 {
    if month % 100 == 12 { month + 89 } else { month + 1 }
}

/// Days are numbers, yyyymmdd, and months yyyymm.
fn first_of(month: u32) -> u32 {
    month.saturating_mul(100).saturating_add(1)
}
