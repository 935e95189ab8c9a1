//! The ledger: what all writers have recorded, folded. A row counts as its largest total per
//! writer; rows add up.
//!
//! Read on demand and incrementally: each log from the slot where the last reading ended, at most
//! once in [`FRESH_MS`]. Only this process's memory holds the fold; the logs are the truth.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Mutex;

#[cfg(feature = "stripe")]
use super::record::PoolRow;
use super::record::UseKey;
use super::{compact, log};
use crate::admission::lease::Writer;
#[cfg(feature = "stripe")]
use crate::admission::pool::PoolId;
use crate::catalog::{Zone, local_day};
use crate::directory::Surrogate;
#[cfg(feature = "stripe")]
use crate::store::StoreErrorKind;
use crate::store::{MAX_PAGE_ITEMS, Query, Store, StoreError};

/// A reading younger than this is not repeated: a page that is reloaded costs no reads.
const FRESH_MS: i64 = 1_000;

/// How far back writers are looked for, in days: what `GET /usage/history` can show. Older rows
/// stay in the store.
const DAYS_BACK: i64 = 400;

const DAY_MS: i64 = 86_400_000;

/// How the words of a pool beyond a quota end: see `admission/policy/lower.rs`.
#[cfg(feature = "stripe")]
const OVER: &str = "/over";

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

/// All that the logs say, for the audit.
#[cfg(feature = "stripe")]
pub(crate) struct Examined {
    pub(crate) uses: Vec<PeriodUse>,
    pub(crate) pools: HashMap<PoolId, HashMap<u128, PoolRow>>,
    /// Writers whose log cannot be read to its end, and why.
    pub(crate) broken: Vec<(u128, String)>,
}

#[cfg(feature = "stripe")]
impl Examined {
    /// As [`Ledger::beyond`].
    pub(crate) fn beyond(&self, tenant: Surrogate, quota: &str, span: (i64, i64)) -> u64 {
        let ours = self.pools.iter().filter(|(pool, _)| is_beyond(pool, tenant, quota, span));
        ours.flat_map(|(_, of)| of.values()).fold(0, |sum, row| sum.saturating_add(row.total))
    }
}

/// Whether a pool is what lies beyond this quota, in a window that begins in this span.
#[cfg(feature = "stripe")]
fn is_beyond(pool: &PoolId, tenant: Surrogate, quota: &str, (from, until): (i64, i64)) -> bool {
    let words = pool.limit.strip_suffix(OVER) == Some(quota);
    words && pool.tenant == tenant && (from..until).contains(&pool.start_ms)
}

#[derive(Default)]
struct Fold {
    /// Next slot of each writer's log.
    next: HashMap<u128, u64>,
    /// First run of each log that is not folded.
    folded: HashMap<u128, u64>,
    /// The last day of which all writers are known; earlier days are not looked at again.
    days_from_ms: Option<i64>,
    uses: HashMap<Surrogate, HashMap<(u128, UseKey), u64>>,
    /// Totals of pools beyond a quota: few tenants draw from one.
    #[cfg(feature = "stripe")]
    over: HashMap<PoolId, HashMap<u128, u64>>,
}

impl Ledger {
    pub(crate) fn new(store: Arc<dyn Store>, writer: Writer, _now_ms: i64) -> Self {
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
        self.read(&mut fold, now_ms).await?;
        let mut days = HashMap::<_, u64>::new();
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
        self.read_now(&mut fold, now_ms).await?;
        Ok(fold.periods())
    }

    /// Atoms drawn beyond a quota, over all writers and its windows that begin in this span. As of
    /// the last [`by_period`](Self::by_period).
    #[cfg(feature = "stripe")]
    pub(crate) async fn beyond(&self, tenant: Surrogate, quota: &str, span: (i64, i64)) -> u64 {
        let over = &self.fold.lock().await.over;
        let ours = over.iter().filter(|(pool, _)| is_beyond(pool, tenant, quota, span));
        ours.flat_map(|(_, of)| of.values()).fold(0, |sum, total| sum.saturating_add(*total))
    }

    /// Use by period, read from every log's first slot, whatever memory holds; and the pools'
    /// rows. A log that cannot be read to its end is read as far as that goes, and named.
    #[cfg(feature = "stripe")]
    pub(crate) async fn examine(&self, now_ms: i64) -> Result<Examined, StoreError> {
        let (mut fold, mut broken) = (Fold::default(), Vec::new());
        let mut pools = HashMap::<PoolId, HashMap<u128, PoolRow>>::new();
        for incarnation in self.writers(&mut fold, now_ms).await? {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let mut news = Vec::new();
            let read = log::read(&*self.store, &writer, 0, |rows, of| news.push((rows, of))).await;
            for (rows, of) in news {
                for (pool, row) in &rows.pools {
                    let of_pool = pools.entry(pool.clone()).or_default();
                    of_pool.entry(of).or_default().raise(*row);
                }
                fold.take(rows, of);
            }
            match read {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    broken.push((incarnation, error.message));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Examined { uses: fold.periods(), pools, broken })
    }

    /// Replaces full runs of slots by what they come to, in every log there is.
    pub(crate) async fn fold_runs(&self, now_ms: i64) -> Result<(), StoreError> {
        let mut fold = self.fold.lock().await;
        self.read(&mut fold, now_ms).await?;
        let mut ends: Vec<(u128, u64)> = fold.next.iter().map(|(of, next)| (*of, *next)).collect();
        ends.sort_unstable();
        for (incarnation, end) in ends {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let from = fold.folded.get(&incarnation).copied().unwrap_or(0);
            if end.saturating_sub(1) / compact::RUN > from {
                let runs = compact::fold_runs(&*self.store, &writer, end, from).await?;
                fold.folded.insert(incarnation, runs);
            }
        }
        Ok(())
    }

    /// When the logs were last read, Unix milliseconds.
    pub(crate) fn read_at_ms(&self) -> i64 {
        self.read_at_ms.load(Ordering::Relaxed)
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
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let from = fold.next.get(&incarnation).copied().unwrap_or(0);
            let mut news = Vec::new();
            let read = log::read(&*self.store, &writer, from, |rows, of| news.push((rows, of)));
            let next = read.await?;
            for (rows, of) in news {
                fold.take(rows, of);
            }
            fold.next.insert(incarnation, next);
        }
        self.read_at_ms.store(now_ms, Ordering::Relaxed);
        Ok(())
    }

    /// Every writer there may be: those known, and those registered since the last reading.
    async fn writers(&self, fold: &mut Fold, now_ms: i64) -> Result<Vec<u128>, StoreError> {
        let from = fold.days_from_ms.unwrap_or(now_ms.saturating_sub(DAYS_BACK * DAY_MS));
        let zone = Zone::utc();
        let mut at_ms = from;
        // A day ahead, for writers whose clock is.
        while at_ms <= now_ms.saturating_add(DAY_MS) {
            let day = local_day(at_ms, &zone);
            let mut query = Query {
                pk: self.writer.space.registry(day, 0).pk,
                from: String::new(),
                until: None,
                limit: MAX_PAGE_ITEMS,
            };
            loop {
                let page = self.store.query(query.clone()).await?;
                for (sk, _) in &page.items {
                    if let Ok(incarnation) = u128::from_str_radix(sk, 16) {
                        fold.next.entry(incarnation).or_insert(0);
                    }
                }
                let Some(next) = page.next else { break };
                query.from = next;
            }
            at_ms += DAY_MS;
        }
        fold.days_from_ms = Some(now_ms.saturating_sub(DAY_MS));
        let mut writers: Vec<u128> = fold.next.keys().copied().collect();
        writers.sort_unstable();
        Ok(writers)
    }
}

impl Fold {
    /// Sums by account, tenant, meter, scale and period.
    fn periods(&self) -> Vec<PeriodUse> {
        let mut sums = BTreeMap::<_, u64>::new();
        for (key, total) in self.uses.values().flatten().map(|((_, key), total)| (key, total)) {
            let UseKey { tenant, meter, scale, period_ms, account, .. } = key.clone();
            let sum = sums.entry((account, tenant, meter, scale, period_ms)).or_default();
            *sum = sum.saturating_add(*total);
        }
        let of = |((account, tenant, meter, scale, period_ms), atoms)| PeriodUse {
            account,
            tenant,
            meter,
            scale,
            period_ms,
            atoms,
        };
        sums.into_iter().map(of).collect()
    }

    fn take(&mut self, rows: super::record::Rows, of: u128) {
        for (key, total) in rows.uses {
            let known = self.uses.entry(key.tenant).or_default().entry((of, key)).or_default();
            *known = total.max(*known);
        }
        #[cfg(feature = "stripe")]
        for (pool, row) in rows.pools.into_iter().filter(|(pool, _)| pool.limit.ends_with(OVER)) {
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
