//! The ledger: what all writers have recorded, folded. A row counts as its largest total per
//! writer; rows add up. Requests with an idempotency key are not in the logs: their settled claims
//! are added.
//!
//! Read on demand and incrementally: each log from the slot where the last reading ended, at most
//! once in [`FRESH_MS`]. Only this process's memory holds the fold; the logs are the truth.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Mutex;

use super::claims::{self, Claimed};
use super::record::{PoolRow, UseKey};
use super::{compact, log};
use crate::admission::lease::Writer;
use crate::admission::pool::PoolId;
use crate::catalog::{Zone, local_day};
use crate::directory::Surrogate;
use crate::store::{MAX_PAGE_ITEMS, Query, Store, StoreError};

/// A reading younger than this is not repeated: a page that is reloaded costs no reads.
const FRESH_MS: i64 = 1_000;

/// How far back writers are looked for, in days: what `GET /usage/history` can show. Older rows
/// stay in the store.
const DAYS_BACK: i64 = 400;

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
    /// Next slot of each writer's log.
    next: HashMap<u128, u64>,
    /// First run of each log that is not folded.
    folded: HashMap<u128, u64>,
    /// The last day of which all writers are known; earlier days are not looked at again.
    days_from_ms: Option<i64>,
    uses: HashMap<Surrogate, HashMap<(u128, UseKey), u64>>,
    pools: HashMap<PoolId, HashMap<u128, PoolRow>>,
    /// When a tenant's claims were read, and what they came to.
    claims: HashMap<Surrogate, (i64, Claimed)>,
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
    /// and days.
    pub(crate) async fn by_period(&self, now_ms: i64) -> Result<Vec<PeriodUse>, StoreError> {
        let mut fold = self.fold.lock().await;
        self.read(&mut fold, now_ms).await?;
        let mut sums = BTreeMap::<_, u64>::new();
        for (key, total) in fold.uses.values().flatten().map(|((_, key), total)| (key, total)) {
            let UseKey { tenant, meter, scale, period_ms, account, .. } = key.clone();
            let sum = sums.entry((account, tenant, meter, scale, period_ms)).or_default();
            *sum = sum.saturating_add(*total);
        }
        for tenant in claims::claimants(&*self.store, &self.writer.space).await? {
            for ((meter, scale, period_ms, _, account), total) in
                self.claimed(&mut fold, tenant, now_ms).await?
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

    /// What a tenant's settled claims come to, of which the log says nothing.
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

    async fn read(&self, fold: &mut Fold, now_ms: i64) -> Result<(), StoreError> {
        let age = now_ms.saturating_sub(self.read_at_ms());
        if (0..FRESH_MS).contains(&age) {
            return Ok(());
        }
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
    fn take(&mut self, rows: super::record::Rows, of: u128) {
        for (key, total) in rows.uses {
            let known = self.uses.entry(key.tenant).or_default().entry((of, key)).or_default();
            *known = total.max(*known);
        }
        for (pool, row) in rows.pools {
            self.pools.entry(pool).or_default().entry(of).or_default().raise(row);
        }
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("read_at_ms", &self.read_at_ms()).finish_non_exhaustive()
    }
}
