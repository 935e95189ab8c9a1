//! The ledger: what all writers have recorded, folded. A row counts as its largest total per
//! writer; rows add up. Requests with an idempotency key are not in the logs: their settled claims
//! are added.
//!
//! Read on demand and incrementally: each log from the slot where the last reading ended, at most
//! once in [`FRESH_MS`], and never again once it has ended with a seal. Only this process's memory
//! holds the fold; the logs are the truth.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Mutex;

use super::claims::{self, Claimed};
use super::record::UseKey;
use super::{compact, log};
use crate::admission::lease::Writer;
#[cfg(feature = "stripe")]
use crate::admission::pool::PoolId;
use crate::catalog::{Zone, local_day};
use crate::directory::Surrogate;
use crate::store::{Key, MAX_PAGE_ITEMS, Query, Store, StoreError};

#[cfg(feature = "stripe")]
mod examine;
mod seal_all;
#[cfg(feature = "stripe")]
pub(crate) use examine::Examined;

/// A reading younger than this is not repeated: a page that is reloaded costs no reads.
const FRESH_MS: i64 = 1_000;

/// How far back writers are looked for, in days: what `GET /usage/history` can show. Older rows
/// stay in the store.
const DAYS_BACK: i64 = 400;

/// A log that has not grown for so long, an hour, has been left: others fold it.
const LEFT_MS: i64 = 3_600_000;

const DAY_MS: i64 = 86_400_000;

/// See the [module](self).
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    writer: Writer,
    fold: Mutex<Fold>,
    read_at_ms: AtomicI64,
}

/// Use of one meter on one day, over all writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DayUse {
    pub(crate) meter: Arc<str>,
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) day: u32,
    pub(crate) atoms: u64,
}

/// Use of one meter in one billing period on one account, over all writers and days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeriodUse {
    pub(crate) account: Option<Arc<str>>,
    pub(crate) tenant: Surrogate,
    pub(crate) meter: Arc<str>,
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) atoms: u64,
}

#[derive(Default)]
struct Fold {
    /// Whether rows are kept: from the first question on. Who only folds runs needs none of them,
    /// and they are several hundred bytes for each tenant.
    keeps: bool,
    /// Next slot of each writer's log.
    next: HashMap<u128, u64>,
    /// When each log was last seen to have grown, Unix milliseconds.
    moved_ms: HashMap<u128, i64>,
    /// When all logs were last looked at in order to fold them.
    looked_ms: Option<i64>,
    /// Logs that have ended: nothing can be added to them.
    ended: HashSet<u128>,
    /// First run of each log that is not folded.
    folded: HashMap<u128, u64>,
    /// The last day of which all writers are known; earlier days are not looked at again.
    days_from_ms: Option<i64>,
    uses: HashMap<Surrogate, HashMap<(u128, UseKey), u64>>,
    /// When a tenant's claims were read, and what they came to.
    claims: HashMap<Surrogate, (i64, Claimed)>,
    /// Totals of pools beyond a quota: few tenants draw from one.
    #[cfg(feature = "stripe")]
    over: HashMap<PoolId, HashMap<u128, u64>>,
}

/// Atoms by account, tenant, meter, scale and period.
type Sums = BTreeMap<(Option<Arc<str>>, Surrogate, Arc<str>, u64, i64), u64>;

impl Ledger {
    pub(crate) fn new(store: Arc<dyn Store>, writer: Writer) -> Self {
        Self { store, writer, fold: Mutex::default(), read_at_ms: AtomicI64::new(i64::MIN) }
    }

    /// What a tenant used, by meter and day, over all writers, in no order; without the
    /// row `live` (its writer and part), of which the caller has the total as it is now.
    pub(crate) async fn uses(
        &self,
        tenant: Surrogate,
        live: (u128, u32),
        now_ms: i64,
    ) -> Result<Vec<DayUse>, StoreError> {
        let mut fold = self.fold.lock().await;
        self.keep_rows(&mut fold);
        self.read(&mut fold, now_ms).await?;
        let mut days = HashMap::<_, u64>::new();
        for ((meter, scale, period_ms, day, _), total) in
            self.claimed(&mut fold, tenant, now_ms).await?
        {
            let sum = days.entry((meter.clone(), *scale, *period_ms, *day)).or_default();
            *sum = u64::saturating_add(*sum, *total);
        }
        for ((of, key), total) in fold.uses.get(&tenant).into_iter().flatten() {
            if (*of, key.part) == live {
                continue;
            }
            let day = (key.meter.clone(), key.scale, key.period_ms, key.day);
            let sum = days.entry(day).or_default();
            *sum = sum.saturating_add(*total);
        }
        let day = |((meter, scale, period_ms, day), atoms)| DayUse {
            meter,
            scale,
            period_ms,
            day,
            atoms,
        };
        Ok(days.into_iter().map(day).collect())
    }

    /// What was used by account, tenant, meter with its scale, and billing period, over all writers
    /// and days: as the logs are now, for a report that follows a flush must see it.
    pub(crate) async fn by_period(&self, now_ms: i64) -> Result<Vec<PeriodUse>, StoreError> {
        let mut fold = self.fold.lock().await;
        self.keep_rows(&mut fold);
        self.read_now(&mut fold, now_ms).await?;
        self.periods(&mut fold, now_ms).await
    }

    /// Replaces full runs of slots by what they come to: in our own log, and in those that nobody
    /// has written to for [`LEFT_MS`]. Who writes folds, so that each slot is removed once; and the
    /// others' logs are looked at no more often than that, for each look costs.
    pub(crate) async fn fold_runs(&self, own: u128, now_ms: i64) -> Result<(), StoreError> {
        let mut due = Vec::new();
        {
            let mut fold = self.fold.lock().await;
            let looked_ms = *fold.looked_ms.get_or_insert(now_ms);
            if now_ms.saturating_sub(looked_ms) >= LEFT_MS {
                self.read(&mut fold, now_ms).await?;
                fold.looked_ms = Some(now_ms);
            } else {
                self.read_log(&mut fold, own, now_ms).await?;
            }
            for (of, next) in &fold.next {
                let moved_ms = fold.moved_ms.get(of).copied().unwrap_or(now_ms);
                let is_ours = *of == own || now_ms.saturating_sub(moved_ms) >= LEFT_MS;
                let from = fold.folded.get(of).copied().unwrap_or(0);
                if is_ours && next.saturating_sub(1) / compact::RUN > from {
                    due.push((*of, *next, from));
                }
            }
        }
        due.sort_unstable();
        // Without the lock: it may take minutes, and nobody's report waits for it.
        for (incarnation, end, from) in due {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let runs = compact::fold_runs(&*self.store, &writer, end, from).await?;
            self.fold.lock().await.folded.insert(incarnation, runs);
        }
        Ok(())
    }

    /// What the logs come to by period, and settled claims, of which the logs say nothing.
    async fn periods(&self, fold: &mut Fold, now_ms: i64) -> Result<Vec<PeriodUse>, StoreError> {
        let mut sums = fold.sums();
        for tenant in claims::claimants(&*self.store, &self.writer.space).await? {
            for ((meter, scale, period_ms, _, account), total) in
                self.claimed(fold, tenant, now_ms).await?
            {
                let key = (account.clone(), tenant, meter.clone(), *scale, *period_ms);
                let sum = sums.entry(key).or_default();
                *sum = sum.saturating_add(*total);
            }
        }
        let of = |((account, tenant, meter, scale, period_ms), atoms)| PeriodUse {
            account,
            tenant,
            meter,
            scale,
            period_ms,
            atoms,
        };
        Ok(sums.into_iter().map(of).collect())
    }

    /// What a tenant's settled claims come to.
    async fn claimed<'f>(
        &self,
        fold: &'f mut Fold,
        tenant: Surrogate,
        now_ms: i64,
    ) -> Result<&'f Claimed, StoreError> {
        let known = fold.claims.get(&tenant);
        let is_fresh = known.is_some_and(|(at_ms, _)| (0..FRESH_MS).contains(&(now_ms - at_ms)));
        if !is_fresh {
            let key = self.writer.space.claimant(tenant);
            let claimed = match known.is_some() || self.store.read(key).await?.is_some() {
                true => claims::read(&*self.store, &self.writer.space, tenant).await?,
                false => return Ok(const { &Claimed::new() }),
            };
            fold.claims.insert(tenant, (now_ms, claimed));
        }
        Ok(&fold.claims[&tenant].1)
    }

    /// When the logs were last read, Unix milliseconds.
    pub(crate) fn read_at_ms(&self) -> i64 {
        self.read_at_ms.load(Ordering::Relaxed)
    }

    /// From now on rows are kept. What was read so far was not: all of it once more.
    fn keep_rows(&self, fold: &mut Fold) {
        if !fold.keeps {
            fold.keeps = true;
            fold.next.values_mut().for_each(|next| *next = 0);
            fold.ended.clear();
            self.read_at_ms.store(i64::MIN, Ordering::Relaxed);
        }
    }

    async fn read(&self, fold: &mut Fold, now_ms: i64) -> Result<(), StoreError> {
        let age = now_ms.saturating_sub(self.read_at_ms());
        if (0..FRESH_MS).contains(&age) {
            return Ok(());
        }
        self.read_now(fold, now_ms).await
    }

    async fn read_now(&self, fold: &mut Fold, now_ms: i64) -> Result<(), StoreError> {
        for incarnation in self.writers(fold, now_ms).await? {
            self.read_log(fold, incarnation, now_ms).await?;
        }
        self.read_at_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Reads on in one log, unless it has ended.
    async fn read_log(&self, fold: &mut Fold, of: u128, now_ms: i64) -> Result<(), StoreError> {
        if fold.ended.contains(&of) {
            return Ok(());
        }
        let writer = Writer { incarnation: of, space: self.writer.space.clone() };
        let from = fold.next.get(&of).copied().unwrap_or(0);
        let mut news = Vec::new();
        let read = log::read(&*self.store, &writer, from, |rows, of| news.push((rows, of)));
        let log::End { next, sealed } = read.await?;
        if fold.keeps {
            news.into_iter().for_each(|(rows, of)| fold.take(rows, of));
        }
        fold.next.insert(of, next);
        if next != from || !fold.moved_ms.contains_key(&of) {
            fold.moved_ms.insert(of, now_ms);
        }
        if sealed {
            fold.ended.insert(of);
        }
        Ok(())
    }

    /// Every writer there may be: those known, and those registered since the last reading.
    async fn writers(&self, fold: &mut Fold, now_ms: i64) -> Result<Vec<u128>, StoreError> {
        let from_ms = fold.days_from_ms.unwrap_or(now_ms.saturating_sub(DAYS_BACK * DAY_MS));
        // A day ahead, for writers whose clock is.
        let until_ms = now_ms.saturating_add(DAY_MS);
        let (mut day, last) = (utc_day(from_ms), utc_day(until_ms));
        while day <= last {
            let Key { pk, sk: from } = self.writer.space.registry_day(day);
            let mut query = Query { pk, from, until: None, limit: MAX_PAGE_ITEMS };
            loop {
                let page = self.store.query(query.clone()).await?;
                for (sk, _) in &page.items {
                    let incarnation =
                        sk.split_once('#').map(|(_, id)| u128::from_str_radix(id, 16));
                    if let Some(Ok(incarnation)) = incarnation {
                        fold.next.entry(incarnation).or_insert(0);
                    }
                }
                let Some(next) = page.next else { break };
                query.from = next;
            }
            day = first_of_next_month(day);
        }
        fold.days_from_ms = Some(now_ms.saturating_sub(DAY_MS));
        let mut writers: Vec<u128> = fold.next.keys().copied().collect();
        writers.sort_unstable();
        Ok(writers)
    }
}

fn utc_day(at_ms: i64) -> u32 {
    local_day(at_ms, &Zone::utc())
}

/// A partition of the registry is a month. Days are numbers, yyyymmdd.
fn first_of_next_month(day: u32) -> u32 {
    let (year, month) = (day / 10_000, day / 100 % 100);
    let (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    year * 10_000 + month * 100 + 1
}

impl Fold {
    /// Sums by account, tenant, meter, scale and period.
    fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        for (key, total) in self.uses.values().flatten().map(|((_, key), total)| (key, total)) {
            let UseKey { tenant, meter, scale, period_ms, account, .. } = key.clone();
            let sum = sums.entry((account, tenant, meter, scale, period_ms)).or_default();
            *sum = sum.saturating_add(*total);
        }
        sums
    }

    fn take(&mut self, rows: super::record::Rows, of: u128) {
        for (key, total) in rows.uses {
            let known = self.uses.entry(key.tenant).or_default().entry((of, key)).or_default();
            *known = total.max(*known);
        }
        #[cfg(feature = "stripe")]
        for (pool, row) in
            rows.pools.into_iter().filter(|(pool, _)| pool.limit.ends_with(examine::OVER))
        {
            let known = self.over.entry(pool).or_default().entry(of).or_default();
            *known = row.total.max(*known);
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("read_at_ms", &self.read_at_ms()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::layout::Space;
    use crate::store::{Change, Memory, When, Write};
    use crate::testing::Faulty;
    use crate::usage::log::LogWriter;
    use crate::usage::record::Rows;

    /// 2026-03-17 12:00 UTC.
    const NOW_MS: i64 = 1_773_748_800_000;

    fn used(total: u64) -> Vec<u8> {
        let key = UseKey {
            tenant: Surrogate::test(1),
            part: 0,
            meter: "requests".into(),
            scale: 1,
            period_ms: 0,
            day: 20_260_317,
            account: None,
        };
        Rows { uses: [(key, total)].into(), ..Rows::default() }.pack(0, None).remove(0)
    }

    async fn record(store: &Faulty, log: &mut LogWriter, total: u64) {
        let body = used(total);
        let written = store.write(log.slot(&body)).await.unwrap();
        log.wrote(&body, written).unwrap();
    }

    async fn total(ledger: &Ledger, now_ms: i64) -> u64 {
        let uses = ledger.uses(Surrogate::test(1), (0, 1), now_ms).await.unwrap();
        uses.iter().map(|day| day.atoms).sum()
    }

    #[tokio::test]
    async fn a_first_reading_looks_at_months_and_a_later_one_at_what_is_new() {
        let store = Faulty::scripted(Memory::new(), []);
        let space = Space::new("test");
        let begin = |days_ago| LogWriter::begin(&store, space.clone(), NOW_MS - days_ago * DAY_MS);
        let mut old = begin(399).await.unwrap();
        let mut dead = begin(40).await.unwrap();
        let mut new = begin(0).await.unwrap();
        for log in [&mut old, &mut dead, &mut new] {
            record(&store, log, 5).await;
        }
        store.write(log::seal(dead.writer(), 1)).await.unwrap();

        let ledger = Ledger::new(Arc::new(store.clone()), new.writer().clone());
        let before = store.calls();
        assert_eq!(total(&ledger, NOW_MS).await, 15);
        // 15 months at most; of each log its folds, and its slots; and who has claims.
        assert!(store.calls() - before <= 15 + 3 * 2 + 1, "{}", store.calls() - before);

        record(&store, &mut old, 6).await;
        let before = store.calls();
        assert_eq!(total(&ledger, NOW_MS + FRESH_MS).await, 16);
        let told = "a month, the logs that have not ended, and who has claims";
        assert_eq!(store.calls() - before, 1 + 2 + 1, "{told}");

        // Who registers later is found, also over the end of a month and of a year.
        for (n, days) in (1..).zip([1, 20, 290, 300]) {
            let now_ms = NOW_MS + days * DAY_MS;
            let mut later = LogWriter::begin(&store, space.clone(), now_ms).await.unwrap();
            record(&store, &mut later, 1).await;
            assert_eq!(total(&ledger, now_ms).await, 16 + n, "after {days} days");
        }
    }

    /// A reader that was in the middle of a run when somebody folded it.
    #[tokio::test]
    async fn a_log_that_was_folded_since_is_read_on() {
        let store = Faulty::scripted(Memory::new(), []);
        let mut log = LogWriter::begin(&store, Space::new("test"), NOW_MS).await.unwrap();
        let writer = log.writer().clone();
        let reader = || Ledger::new(Arc::new(store.clone()), writer.clone());
        let (ledger, folder) = (reader(), reader());
        for n in 1..=5 {
            record(&store, &mut log, n).await;
        }
        assert_eq!(total(&ledger, NOW_MS).await, 5);
        for n in 6..=2 * compact::RUN + 1 {
            record(&store, &mut log, n).await;
        }
        folder.fold_runs(log.incarnation(), NOW_MS).await.unwrap();
        assert_eq!(total(&ledger, NOW_MS + FRESH_MS).await, 2 * compact::RUN + 1);
        // Nothing is taken for a fold that is none.
        let hole = log.writer().space.log(log.incarnation(), 2 * compact::RUN);
        let cut = Write { key: hole, when: vec![When::Exists], change: vec![Change::Delete] };
        record(&store, &mut log, 9_999).await;
        store.write(cut).await.unwrap();
        let late = reader();
        assert!(late.uses(Surrogate::test(1), (0, 1), NOW_MS).await.is_err());
    }
}
