//! Tenants by what is on record of their limits, over all writers: the candidates for a list of
//! those that are nearest to one, found without a look at those that used nothing.
//!
//! Each record of a log has the total of every pool that changed. Of those only the newest window
//! of each quota of a whole tenant is kept, some 100 bytes for each, from the first question on;
//! what is asked later reads only what is new in the logs. No tenant's record is read: how much a
//! tenant may use is not known here, so a total counts by the smallest limit of any plan that it
//! does not exceed, and by itself.
//!
//! Use under an idempotency key is drawn from pools like any other, and is in their totals.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::{Arc, Mutex};

use super::super::log;
use super::super::record::{FromRows, PoolRow, UseKey};
use super::{Fold, Ledger, locked};
use crate::ids::{ByRandomBits, Surrogate, WriterId};
use crate::quota::lease::Writer;
use crate::quota::pool::PoolId;
use crate::sheets::use_row::RowAtoms;
use crate::store::{StoreError, StoreErrorKind};

/// Parts of the totals, by the tenant's id: between two of them other tasks have a turn, so that
/// none waits for longer than it takes to walk a 64th of all.
const PARTS: usize = 64;

/// The least number of candidates by each order of each limit.
const LEAST: usize = 8;

/// A quota of the plan file, as far as a ranking needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RankedLimit {
    /// Its words: `requests/month`.
    pub(crate) id: Arc<str>,
    /// What the plans allow, in atoms, ascending.
    pub(crate) allowed: Vec<u64>,
    /// No window that began before this Unix millisecond is open.
    pub(crate) since_ms: i64,
}

/// The tenants that come first. [`Ledger::busiest`] returns them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Busiest {
    /// Unordered.
    pub(crate) tenants: BTreeSet<Surrogate>,
    /// Number of tenants that were compared: all with use of a limit in a window that is open.
    pub(crate) compared: usize,
}

/// What was read for rankings so far.
#[derive(Default)]
pub(super) struct Ranking {
    /// Positions in the logs; holds no rows.
    fold: Mutex<Fold>,
    totals: Vec<Mutex<Totals>>,
    limits: Mutex<Vec<Arc<str>>>,
    /// Held while a ranking is made: the logs are read, and the totals walked, by one at a time.
    making: tokio::sync::Mutex<()>,
}

/// By tenant and limit.
type Totals = HashMap<(Surrogate, u16), Total, ByRandomBits>;

/// The totals in a record of quotas of whole tenants, which nothing else of it is needed for.
#[derive(Debug, Default, PartialEq, Eq)]
struct PoolTotals(Vec<(PoolId, u64)>);

impl FromRows for PoolTotals {
    type List = Vec<(PoolId, u64)>;

    fn add_use(_: &mut Self::List, _: &UseKey, _: RowAtoms) {}

    fn add_pool(list: &mut Self::List, pool: &PoolId, row: PoolRow) {
        // Shares within a tenant, and units that were given, are no quota of a tenant.
        if pool.scope == 0 && row.total > 0 && !pool.limit.starts_with("grant/") {
            list.push((pool.clone(), row.total));
        }
    }

    fn of(list: Self::List) -> Self {
        Self(list)
    }
}

/// What writers have counted in the newest window of a limit: nearly always there is one.
struct Total {
    start_ms: i64,
    first: (WriterId, u64),
    others: Vec<(WriterId, u64)>,
}

impl Total {
    /// A writer's total of a window; those of older ones no longer count.
    fn take(&mut self, of: WriterId, start_ms: i64, total: u64) {
        if start_ms > self.start_ms {
            *self = Self { start_ms, first: (of, total), others: Vec::new() };
        } else if start_ms == self.start_ms {
            let mut known = std::iter::once(&mut self.first).chain(&mut self.others);
            match known.find(|(writer, _)| *writer == of) {
                Some((_, known)) => *known = total.max(*known),
                None => self.others.push((of, total)),
            }
        }
    }

    fn sum(&self) -> u64 {
        self.others.iter().fold(self.first.1, |sum, (_, n)| sum.saturating_add(*n))
    }
}

impl Ranking {
    pub(super) fn new() -> Self {
        Self { totals: (0..PARTS).map(|_| Mutex::default()).collect(), ..Self::default() }
    }

    fn take(&self, totals: PoolTotals, of: WriterId) {
        // Those of one record are mostly of a few limits, whose ids they share.
        let mut last = None::<(Arc<str>, u16)>;
        for (pool, total) in totals.0 {
            let number = match &last {
                Some((id, number)) if Arc::ptr_eq(id, &pool.limit) => Some(*number),
                _ => self.number(&pool.limit),
            };
            let Some(limit) = number else { continue };
            last = Some((pool.limit, limit));
            let mut part = locked_part(&self.totals[part_of(pool.tenant)]);
            let new = Total { start_ms: pool.start_ms, first: (of, total), others: Vec::new() };
            part.entry((pool.tenant, limit))
                .and_modify(|known| known.take(of, pool.start_ms, total))
                .or_insert(new);
        }
    }

    /// The number of a limit's id; `None`: there are as many as a number can tell apart.
    fn number(&self, id: &Arc<str>) -> Option<u16> {
        let mut limits = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = limits.iter().position(|known| known == id).unwrap_or_else(|| {
            limits.push(id.clone());
            limits.len() - 1
        });
        u16::try_from(known).ok()
    }

    /// The candidates among what has been read.
    async fn first(&self, limits: &[RankedLimit], most: usize) -> Busiest {
        let ids = self.limits.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let by_number = |id: &Arc<str>| limits.iter().position(|limit| limit.id == *id);
        let by_number: Vec<Option<usize>> = ids.iter().map(by_number).collect();
        let each = (most / (2 * limits.len().max(1))).max(LEAST);
        let mut found: Vec<[First; 2]> =
            limits.iter().map(|_| [First::new(each), First::new(each)]).collect();
        let mut compared = 0;
        for part in &self.totals {
            {
                let mut part = locked_part(part);
                // A window that is over is that of nothing to come.
                part.retain(|(_, limit), total| {
                    let of = by_number[usize::from(*limit)];
                    of.is_none_or(|at| total.start_ms >= limits[at].since_ms)
                });
                let mut whose = Vec::new();
                for ((tenant, limit), total) in &*part {
                    let Some(at) = by_number[usize::from(*limit)] else { continue };
                    let sum = total.sum();
                    found[at][0].offer(share(sum, &limits[at].allowed), *tenant);
                    found[at][1].offer(sum, *tenant);
                    whose.push(*tenant);
                }
                // Where there is one limit, no tenant is there twice.
                if ids.len() > 1 {
                    whose.sort_unstable();
                    whose.dedup();
                }
                compared += whose.len();
            }
            tokio::task::yield_now().await;
        }
        let tenants = found.into_iter().flatten().flat_map(First::tenants).collect();
        Busiest { tenants, compared }
    }
}

/// Of the smallest limit that the total does not exceed, in millionths; of the largest one if it
/// exceeds them all.
fn share(total: u64, allowed: &[u64]) -> u64 {
    let next = allowed.partition_point(|limit| *limit < total);
    let of = allowed.get(next).or(allowed.last()).copied().filter(|it| *it > 0);
    let millionths = |of: u64| u128::from(total) * 1_000_000 / u128::from(of);
    of.map_or(0, |of| u64::try_from(millionths(of)).unwrap_or(u64::MAX))
}

/// Those with the largest numbers.
struct First {
    most: usize,
    kept: BinaryHeap<Reverse<(u64, Surrogate)>>,
}

impl First {
    fn new(most: usize) -> Self {
        Self { most, kept: BinaryHeap::with_capacity(most + 1) }
    }

    fn offer(&mut self, number: u64, tenant: Surrogate) {
        let is_full = self.kept.len() >= self.most;
        if is_full && self.kept.peek().is_some_and(|least| least.0.0 >= number) {
            return;
        }
        self.kept.push(Reverse((number, tenant)));
        if is_full {
            self.kept.pop();
        }
    }

    fn tenants(self) -> impl Iterator<Item = Surrogate> {
        self.kept.into_iter().map(|Reverse((_, tenant))| tenant)
    }
}

/// By the highest bits: within a part the map goes by the lowest ones.
fn part_of(tenant: Surrogate) -> usize {
    (tenant.as_u128() >> (u128::BITS - PARTS.ilog2())) as usize
}

/// A panic leaves nothing half done in a part.
fn locked_part(part: &Mutex<Totals>) -> std::sync::MutexGuard<'_, Totals> {
    part.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Ledger {
    /// Tenants among which those are that have used most of one of these limits, by what is on
    /// record: some `most` of them, or more where there are many limits. Reads what is new in the
    /// logs, a query for each that may have grown, and nothing of any tenant.
    pub(crate) async fn busiest(
        &self,
        limits: &[RankedLimit],
        most: usize,
        now_ms: i64,
    ) -> Result<Busiest, StoreError> {
        let _turn = self.ranking.making.lock().await;
        self.read_pools(now_ms).await?;
        Ok(self.ranking.first(limits, most).await)
    }

    /// Reads on in every log that has not ended.
    async fn read_pools(&self, now_ms: i64) -> Result<(), StoreError> {
        let ranking = &self.ranking;
        for incarnation in self.writers(&ranking.fold, now_ms).await? {
            let (from, mut keys) = {
                let mut fold = locked(&ranking.fold);
                if fold.ended.contains(&incarnation) {
                    continue;
                }
                let from = fold.next.get(&incarnation).copied().unwrap_or(0);
                (from, fold.keys.remove(&incarnation).unwrap_or_default())
            };
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let take = |_, rows, of| ranking.take(rows, of);
            let read = log::read_on(&*self.store, &writer, from, &mut keys, take).await;
            let log::End { next, sealed } = match read {
                Ok(end) => end,
                // The audit names it; the others are shown all the same.
                Err(error) if error.kind == StoreErrorKind::Corrupt => continue,
                Err(error) => return Err(error),
            };
            let mut fold = locked(&ranking.fold);
            fold.came_to(incarnation, next, (!sealed).then_some(keys));
            if sealed {
                fold.ended.insert(incarnation);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::log::LogWriter;
    use crate::ledger::record::Rows;
    use crate::store::layout::Space;
    use crate::store::{Memory, Store};
    use crate::testing::Faulty;

    /// 2026-03-17 12:00 UTC, and the begin of that month.
    const NOW_MS: i64 = 1_773_748_800_000;
    const MONTH_MS: i64 = 1_772_323_200_000;

    fn limit(allowed: &[u64]) -> RankedLimit {
        let id = "requests/month".into();
        RankedLimit { id, allowed: allowed.to_vec(), since_ms: MONTH_MS }
    }

    fn rows(totals: impl IntoIterator<Item = (u128, i64, u64)>) -> Rows {
        let row = |(tenant, start_ms, total)| {
            let limit = "requests/month".into();
            let pool = PoolId { tenant: Surrogate::test(tenant), limit, scope: 0, start_ms };
            (pool, PoolRow { total, ceiling: total })
        };
        Rows { pools: totals.into_iter().map(row).collect(), ..Rows::default() }
    }

    async fn record(store: &Faulty, log: &mut LogWriter, rows: &Rows) {
        for body in rows.pack(NOW_MS, None) {
            let written = store.write(log.slot(&body)).await.unwrap();
            log.wrote(&body, written).unwrap();
        }
    }

    async fn ids(ledger: &Ledger, allowed: &[u64], now_ms: i64) -> BTreeSet<Surrogate> {
        let busiest = ledger.busiest(&[limit(allowed)], 16, now_ms).await.unwrap();
        busiest.tenants
    }

    fn of(tenants: &[u128]) -> BTreeSet<Surrogate> {
        tenants.iter().map(|n| Surrogate::test(*n)).collect()
    }

    #[tokio::test]
    async fn writers_add_up_and_windows_that_are_past_do_not_count() {
        let store = Faulty::scripted(Memory::new(), []);
        let space = Space::new("test");
        let mut logs = Vec::new();
        for _ in 0..2 {
            logs.push(LogWriter::begin(&store, space.clone(), NOW_MS).await.unwrap());
        }
        let many = (0..100).map(|n| (n, MONTH_MS, 10));
        record(&store, &mut logs[0], &rows(many.chain([(500, MONTH_MS - 1, 999)]))).await;
        // Each half of it is less than what others have used.
        record(&store, &mut logs[0], &rows([(600, MONTH_MS, 8)])).await;
        record(&store, &mut logs[1], &rows([(600, MONTH_MS, 8), (601, MONTH_MS, 9)])).await;
        let ledger = Ledger::new(Arc::new(store.clone()), logs[0].writer().clone());
        let found = ids(&ledger, &[1_000], NOW_MS).await;
        assert!(found.contains(&Surrogate::test(600)), "{found:?}");
        assert!(found.is_disjoint(&of(&[500, 601])), "{found:?}");
        let busiest = ledger.busiest(&[limit(&[1_000])], 16, NOW_MS).await.unwrap();
        assert_eq!(busiest.compared, 102);
        let kept =
            || ledger.ranking.totals.iter().map(|part| locked_part(part).len()).sum::<usize>();
        assert_eq!(kept(), 102, "nothing of a window that is over");
        let next = RankedLimit { since_ms: MONTH_MS + 1, ..limit(&[1_000]) };
        let busiest = ledger.busiest(&[next], 16, NOW_MS).await.unwrap();
        assert_eq!((busiest.compared, kept()), (0, 0));
    }

    /// A tenant at the end of a small plan among many that use more of a large one.
    #[tokio::test]
    async fn one_at_the_end_of_a_small_plan_is_found_among_many_of_a_large_one() {
        let store = Faulty::scripted(Memory::new(), []);
        let mut log = LogWriter::begin(&store, Space::new("test"), NOW_MS).await.unwrap();
        let large = (0..1_000).map(|n| (n, MONTH_MS, 2_000 + n as u64));
        record(&store, &mut log, &rows(large.chain([(7_777, MONTH_MS, 99)]))).await;
        let ledger = Ledger::new(Arc::new(store), log.writer().clone());
        assert!(ids(&ledger, &[100, 1_000_000], NOW_MS).await.contains(&Surrogate::test(7_777)));
    }

    /// The number of reads, and not their time, shows that it does not grow with the tenants.
    #[tokio::test]
    async fn it_reads_the_logs_and_only_once() {
        let calls_with = async |tenants: u128| {
            let store = Faulty::scripted(Memory::new(), []);
            let mut log = LogWriter::begin(&store, Space::new("test"), NOW_MS).await.unwrap();
            record(&store, &mut log, &rows((0..tenants).map(|n| (n, MONTH_MS, 1)))).await;
            record(&store, &mut log, &rows([(777, MONTH_MS, 900)])).await;
            let ledger = Ledger::new(Arc::new(store.clone()), log.writer().clone());
            let calls = |before| store.calls() - before;
            let before = store.calls();
            let found = ids(&ledger, &[1_000], NOW_MS).await;
            assert!(found.contains(&Surrogate::test(777)) && found.len() <= 32, "{}", found.len());
            let first = calls(before);
            let before = store.calls();
            ids(&ledger, &[1_000], NOW_MS).await;
            assert!(calls(before) <= 4, "{} calls for nothing new", calls(before));
            record(&store, &mut log, &rows([(778, MONTH_MS, 950)])).await;
            let before = store.calls();
            let found = ids(&ledger, &[1_000], NOW_MS).await;
            assert!(found.contains(&Surrogate::test(778)));
            assert!(calls(before) <= 4, "{} calls for what is new", calls(before));
            first
        };
        let (few, many) = (calls_with(1_000).await, calls_with(20_000).await);
        assert!(many <= few + 4, "{many} calls among 20,000 tenants, {few} among 1,000");
    }

    #[test]
    fn a_share_is_of_the_smallest_limit_that_holds_it() {
        let of = |total| share(total, &[0, 100, 1_000]);
        let shares = [0, 99, 100, 101, 2_000].map(of);
        assert_eq!(shares, [0, 990_000, 1_000_000, 101_000, 2_000_000]);
        assert_eq!(share(5, &[]), 0);
    }
}
