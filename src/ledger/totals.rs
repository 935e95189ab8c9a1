//! The ledger: the folded records of all writers. A row counts as its largest total per writer;
//! rows add up. Requests with an idempotency key are not in the logs: their settled claims are
//! added.
//!
//! Read on demand and incrementally: each log from the slot where the last reading ended, at most
//! once in [`FRESH_MS`], and never again once it has ended with a seal. The fold exists only in
//! this process's memory; the logs are the source of truth.
//!
//! The fold's lock is held to look at it, never across a call: a request that arrives while the
//! logs are being read waits for that reading, and for nothing of another tenant's. Two concurrent
//! readings do no harm, because a larger total replaces a smaller one in either order.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::claims::{self, Claimed};
use super::record::UseKey;
use super::{compact, log};
use crate::flights::Flights;
use crate::ids::{Surrogate, WriterId};
use crate::ledger::numbers::Numbered;
use crate::quota::lease::Writer;
use crate::sheets::use_row::RowAtoms;
use crate::store::{Store, StoreError};

mod busiest;
mod dated;
#[cfg(feature = "stripe")]
mod examine;
mod registry;
mod seal_all;
pub(crate) use busiest::RankedLimit;
#[cfg(feature = "stripe")]
pub(crate) use examine::Examined;
use registry::MonthsSeen;

/// A reading younger than this is not repeated: reloading a page costs no reads.
pub(crate) const FRESH_MS: i64 = 1_000;

/// Limit on tenants remembered as having no claims, for [`FRESH_MS`]; beyond it the older ones are
/// forgotten.
const MAX_UNCLAIMED: usize = 4_096;

/// A log that has not grown for this long, an hour, is abandoned: others fold it.
const LEFT_MS: i64 = 3_600_000;

const DAY_MS: i64 = 86_400_000;

/// See the [module](self).
pub(crate) struct Ledger {
    store: Arc<dyn Store>,
    writer: Writer,
    fold: Mutex<Fold>,
    read_at_ms: AtomicI64,
    /// When the first catalog was published, Unix milliseconds, by the clock of that moment.
    since_ms: i64,
    /// Readings in progress, each shared by all that wait for it: of the logs, and of a tenant's
    /// claims.
    reading: Flights<Option<Surrogate>, Result<(), StoreError>>,
    ranking: busiest::Ranking,
}

/// Usage of one meter on one day, over all writers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DayUse {
    pub(crate) meter: Arc<str>,
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) day: u32,
    pub(crate) atoms: RowAtoms,
}

/// Usage of one meter in one billing period on one account, over all writers and days.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeriodUse {
    pub(crate) account: Option<Arc<str>>,
    pub(crate) tenant: Surrogate,
    pub(crate) meter: Arc<str>,
    pub(crate) scale: u64,
    pub(crate) period_ms: i64,
    pub(crate) atoms: RowAtoms,
}

#[derive(Default)]
struct Fold {
    /// Whether rows are kept: from the first query on. A process that only folds runs does not need
    /// them, and they take several hundred bytes per tenant.
    keeps: bool,
    /// Counts full restarts: results of a reading from before one are discarded.
    generation: u64,
    /// Next slot to read of each writer's log.
    next: HashMap<WriterId, u64>,
    /// The rows of logs that have not ended, by number, where rows are kept.
    keys: HashMap<WriterId, Numbered>,
    /// When each log was last seen to have grown, Unix milliseconds.
    moved_ms: HashMap<WriterId, i64>,
    /// When all logs were last checked for folding.
    looked_ms: Option<i64>,
    /// Sealed logs: nothing can be added to them.
    ended: HashSet<WriterId>,
    /// First unfolded run of each log.
    folded: HashMap<WriterId, u64>,
    /// Where writers were looked for.
    months: MonthsSeen,
    uses: HashMap<Surrogate, HashMap<(WriterId, UseKey), RowAtoms>>,
    /// When a tenant's claims were read, and their sums.
    claims: HashMap<Surrogate, (i64, Option<Arc<Claimed>>)>,
}

/// Account, tenant, meter, scale and period.
pub(crate) type PeriodKey = (Option<Arc<str>>, Surrogate, Arc<str>, u64, i64);

/// Atoms by account, tenant, meter, scale and period.
type Sums = BTreeMap<PeriodKey, RowAtoms>;

impl Ledger {
    pub(crate) fn new(store: Arc<dyn Store>, writer: Writer) -> Self {
        let (fold, read_at_ms) = (Mutex::default(), AtomicI64::new(i64::MIN));
        let (since_ms, reading) = (i64::MIN, Flights::default());
        let ranking = busiest::Ranking::new();
        Self { store, writer, fold, read_at_ms, since_ms, reading, ranking }
    }

    /// Sets when the first catalog was published (Unix milliseconds): months from before are only
    /// looked at if a writer has marked them.
    pub(crate) fn begun(mut self, at_ms: Option<i64>) -> Self {
        self.since_ms = at_ms.unwrap_or(i64::MIN);
        self
    }

    fn locked(&self) -> MutexGuard<'_, Fold> {
        locked(&self.fold)
    }

    /// A tenant's usage by meter and day, over all writers, unordered; without the rows that are
    /// `live` (by writer and part), whose current totals the caller already has.
    pub(crate) async fn uses(
        &self,
        tenant: Surrogate,
        live: impl Fn(WriterId, u32) -> bool,
        now_ms: i64,
    ) -> Result<Vec<DayUse>, StoreError> {
        self.keep_rows();
        self.read(now_ms).await?;
        let claimed = self.claimed(tenant, now_ms).await?;
        let mut days = HashMap::<_, RowAtoms>::new();
        for ((meter, scale, period_ms, day, _), total) in claimed.iter().flat_map(|it| it.iter()) {
            days.entry((meter.clone(), *scale, *period_ms, *day)).or_default().add(*total);
        }
        let fold = self.locked();
        for ((of, key), total) in fold.uses.get(&tenant).into_iter().flatten() {
            if live(*of, key.part) {
                continue;
            }
            let day = (key.meter.clone(), key.scale, key.period_ms, key.day);
            days.entry(day).or_default().add(*total);
        }
        drop(fold);
        let day = |((meter, scale, period_ms, day), atoms)| DayUse {
            meter,
            scale,
            period_ms,
            day,
            atoms,
        };
        Ok(days.into_iter().map(day).collect())
    }

    /// Usage by account, tenant, meter with its scale, and billing period, over all writers and
    /// days. Never cached, because a report that follows a flush must see it.
    pub(crate) async fn by_period(&self, now_ms: i64) -> Result<Vec<PeriodUse>, StoreError> {
        self.keep_rows();
        self.read_now(now_ms).await?;
        self.periods(&self.fold, now_ms).await
    }

    /// Totals of the logs alone, of periods that began at this Unix millisecond or later: costs a
    /// query for each log that may have grown.
    #[cfg(feature = "stripe")]
    pub(crate) async fn logged(
        &self,
        from_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<PeriodUse>, StoreError> {
        self.keep_rows();
        self.read_now(now_ms).await?;
        let sums = self.locked().sums(from_ms);
        Ok(sums.into_iter().map(period_use).collect())
    }

    /// Replaces full runs of slots with their totals: in our own log, and in logs that have not
    /// been written to for [`LEFT_MS`]. The writer itself folds, so that each slot is removed once;
    /// other logs are checked no more often than that, because each check costs.
    pub(crate) async fn fold_runs(&self, own: WriterId, now_ms: i64) -> Result<(), StoreError> {
        let mut due = Vec::new();
        let looked_ms = *self.locked().looked_ms.get_or_insert(now_ms);
        if is_left(looked_ms, now_ms) {
            self.read(now_ms).await?;
            self.locked().looked_ms = Some(now_ms);
        } else {
            self.read_log(own, now_ms).await?;
        }
        {
            let fold = self.locked();
            for (of, next) in &fold.next {
                let moved_ms = fold.moved_ms.get(of).copied().unwrap_or(now_ms);
                let is_ours = *of == own || is_left(moved_ms, now_ms);
                let from = fold.folded.get(of).copied().unwrap_or(0);
                if is_ours && next.saturating_sub(1) / compact::RUN > from {
                    due.push((*of, *next, from));
                }
            }
        }
        due.sort_unstable();
        for (incarnation, end, from) in due {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let runs = compact::fold_runs(&*self.store, &writer, end, from).await?;
            self.locked().folded.insert(incarnation, runs);
        }
        Ok(())
    }

    /// Totals of the logs by period, plus settled claims, which are not in the logs.
    async fn periods(&self, fold: &Mutex<Fold>, now_ms: i64) -> Result<Vec<PeriodUse>, StoreError> {
        let mut sums = locked(fold).sums(i64::MIN);
        for tenant in claims::claimants(&*self.store, &self.writer.space).await? {
            let claimed = self.read_claims(fold, tenant, now_ms).await?;
            for ((meter, scale, period_ms, _, account), total) in
                claimed.iter().flat_map(|claimed| claimed.iter())
            {
                let key = (account.clone(), tenant, meter.clone(), *scale, *period_ms);
                sums.entry(key).or_default().add(*total);
            }
        }
        Ok(sums.into_iter().map(period_use).collect())
    }

    /// A tenant's settled claims, summed, if it has any: concurrent callers share one reading.
    async fn claimed(
        &self,
        tenant: Surrogate,
        now_ms: i64,
    ) -> Result<Option<Arc<Claimed>>, StoreError> {
        if let Some(fresh) = fresh_claims(&self.fold, tenant, now_ms) {
            return Ok(fresh);
        }
        let read = async { self.read_claims(&self.fold, tenant, now_ms).await.map(|_| ()) };
        self.reading.once(&Some(tenant), read).await?;
        let known = self.locked().claims.get(&tenant).cloned();
        Ok(known.and_then(|(_, claimed)| claimed))
    }

    /// The same, read only for this caller unless fresh.
    async fn read_claims(
        &self,
        fold: &Mutex<Fold>,
        tenant: Surrogate,
        now_ms: i64,
    ) -> Result<Option<Arc<Claimed>>, StoreError> {
        if let Some(fresh) = fresh_claims(fold, tenant, now_ms) {
            return Ok(fresh);
        }
        let had_some = matches!(locked(fold).claims.get(&tenant), Some((_, Some(_))));
        let key = self.writer.space.claimant(tenant);
        let claimed = match had_some || self.store.read(key).await?.is_some() {
            true => Some(claims::read(&*self.store, &self.writer.space, tenant).await?),
            false => None,
        };
        let claimed = claimed.map(Arc::new);
        let mut fold = locked(fold);
        fold.claims.insert(tenant, (now_ms, claimed.clone()));
        if fold.claims.len() > MAX_UNCLAIMED {
            fold.claims.retain(|_, (at_ms, it)| it.is_some() || is_fresh(*at_ms, now_ms));
        }
        Ok(claimed)
    }

    /// When the logs were last read, Unix milliseconds.
    pub(crate) fn read_at_ms(&self) -> i64 {
        self.read_at_ms.load(Ordering::Relaxed)
    }

    /// Keeps rows from now on. Rows read so far were dropped, so everything is read again.
    fn keep_rows(&self) {
        let mut fold = self.locked();
        if !fold.keeps {
            fold.keeps = true;
            fold.generation += 1;
            fold.next.values_mut().for_each(|next| *next = 0);
            fold.keys.clear();
            fold.ended.clear();
            self.read_at_ms.store(i64::MIN, Ordering::Relaxed);
        }
    }

    /// Reads the logs unless they were just read: concurrent callers share one reading.
    async fn read(&self, now_ms: i64) -> Result<(), StoreError> {
        if is_fresh(self.read_at_ms(), now_ms) {
            return Ok(());
        }
        let read = async {
            // A request that joined at the last moment of a reading finds it done.
            match is_fresh(self.read_at_ms(), now_ms) {
                true => Ok(()),
                false => self.read_now(now_ms).await,
            }
        };
        self.reading.once(&None, read).await
    }

    async fn read_now(&self, now_ms: i64) -> Result<(), StoreError> {
        let generation = self.locked().generation;
        for incarnation in self.writers(&self.fold, now_ms).await? {
            self.read_log(incarnation, now_ms).await?;
        }
        let fold = self.locked();
        if fold.generation == generation {
            // Also of a clock that has been set back: what it has read is not from the future.
            self.read_at_ms.store(now_ms, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Continues reading one log, unless it has ended.
    async fn read_log(&self, of: WriterId, now_ms: i64) -> Result<(), StoreError> {
        let (from, mut keys, keeps, generation) = {
            let mut fold = self.locked();
            if fold.ended.contains(&of) {
                return Ok(());
            }
            let from = fold.next.get(&of).copied().unwrap_or(0);
            (from, fold.keys.remove(&of).unwrap_or_default(), fold.keeps, fold.generation)
        };
        let writer = Writer { incarnation: of, space: self.writer.space.clone() };
        let mut news = Vec::new();
        let log::End { next, sealed } = if keeps {
            let read = |_, rows, of| news.push((rows, of));
            log::read_on(&*self.store, &writer, from, &mut keys, read).await?
        } else {
            log::read_end(&*self.store, &writer, from).await?
        };
        let mut fold = self.locked();
        if fold.generation != generation {
            return Ok(()); // its rows were not kept, and must be read again
        }
        if fold.keeps {
            news.into_iter().for_each(|(rows, of)| fold.take(rows, of));
        }
        if next != from || !fold.moved_ms.contains_key(&of) {
            fold.moved_ms.insert(of, now_ms);
        }
        fold.came_to(of, next, (keeps && !sealed).then_some(keys));
        if sealed {
            fold.ended.insert(of);
        }
        Ok(())
    }
}

/// Whether that is long ago, or the clock was set by as much since.
fn is_left(at_ms: i64, now_ms: i64) -> bool {
    now_ms.abs_diff(at_ms) >= LEFT_MS.unsigned_abs()
}

impl Fold {
    /// A log was read to before this slot, where its keys have these numbers. Readings of one log
    /// may overlap: position and numbers are those of the one that came furthest.
    fn came_to(&mut self, of: WriterId, next: u64, keys: Option<Numbered>) {
        let known = self.next.entry(of).or_insert(0);
        if next < *known {
            return;
        }
        *known = next;
        if let Some(keys) = keys {
            self.keys.insert(of, keys);
        }
    }
}

/// A panic leaves nothing half done in a fold.
fn locked(fold: &Mutex<Fold>) -> MutexGuard<'_, Fold> {
    fold.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tenant's known claims, if fresh.
fn fresh_claims(
    fold: &Mutex<Fold>,
    tenant: Surrogate,
    now_ms: i64,
) -> Option<Option<Arc<Claimed>>> {
    let fold = locked(fold);
    let (at_ms, claimed) = fold.claims.get(&tenant)?;
    is_fresh(*at_ms, now_ms).then(|| claimed.clone())
}

/// Whether data read at `at_ms` need not be read again.
pub(crate) fn is_fresh(at_ms: i64, now_ms: i64) -> bool {
    (0..FRESH_MS).contains(&now_ms.saturating_sub(at_ms))
}

impl UseKey {
    fn period_key(&self) -> PeriodKey {
        let UseKey { tenant, meter, scale, period_ms, account, .. } = self.clone();
        (account, tenant, meter, scale, period_ms)
    }
}

impl Fold {
    /// Sums by account, tenant, meter, scale and period, of periods from this one on.
    fn sums(&self, from_ms: i64) -> Sums {
        let mut sums = Sums::new();
        let rows = self.uses.values().flatten().map(|((_, key), total)| (key, total));
        for (key, total) in rows.filter(|(key, _)| key.period_ms >= from_ms) {
            sums.entry(key.period_key()).or_default().add(*total);
        }
        sums
    }

    fn take(&mut self, rows: super::record::Rows, of: WriterId) {
        for (key, total) in rows.uses {
            self.uses.entry(key.tenant).or_default().entry((of, key)).or_default().raise(total);
        }
    }
}

fn period_use((key, atoms): (PeriodKey, RowAtoms)) -> PeriodUse {
    let (account, tenant, meter, scale, period_ms) = key;
    PeriodUse { account, tenant, meter, scale, period_ms, atoms }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").field("read_at_ms", &self.read_at_ms()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::amount::Atoms;
    use crate::ledger::log::LogWriter;
    use crate::ledger::numbers::RowKey;
    use crate::ledger::record::Rows;
    use crate::store::layout::Space;
    use crate::store::{Change, Memory, When, Write};
    use crate::testing::Faulty;

    /// 2026-03-17 12:00 UTC.
    const NOW_MS: i64 = 1_773_748_800_000;

    fn used(total: u64) -> Vec<u8> {
        used_at(total, 0)
    }

    fn key() -> UseKey {
        UseKey {
            tenant: Surrogate::test(1),
            part: 0,
            meter: "requests".into(),
            scale: 1,
            period_ms: 0,
            day: 20_260_317,
            account: None,
        }
    }

    fn used_at(total: u64, at_ms: i64) -> Vec<u8> {
        let atoms = RowAtoms { used: Atoms(total), over: Atoms::NONE };
        Rows { uses: [(key(), atoms)].into(), ..Rows::default() }.pack(at_ms, None).remove(0)
    }

    async fn record(store: &Faulty, log: &mut LogWriter, total: u64) {
        let body = used(total);
        let written = store.write(log.slot(&body)).await.unwrap();
        log.wrote(&body, written).unwrap();
    }

    async fn total(ledger: &Ledger, now_ms: i64) -> u64 {
        let uses = ledger.uses(Surrogate::test(1), |_, _| false, now_ms).await.unwrap();
        uses.iter().map(|day| day.atoms.used.0).sum()
    }

    #[test]
    fn of_readings_that_overlap_the_one_that_came_furthest_keeps_the_numbers() {
        let row = |n| RowKey::Use(UseKey { tenant: Surrogate::test(n), ..key() });
        let keys = |tenants: &[u128]| {
            let mut keys = Numbered::default();
            tenants.iter().for_each(|n| keys.add(row(*n)));
            keys
        };
        let (mut fold, of) = (Fold::default(), WriterId::test(1));
        fold.came_to(of, 10, Some(keys(&[1, 2, 3])));
        // The numbers begin anew in slot 10, which another reading has not seen yet.
        fold.came_to(of, 11, Some(keys(&[4, 5])));
        fold.came_to(of, 10, Some(keys(&[1, 2, 3])));
        assert_eq!((fold.next[&of], &fold.keys[&of]), (11, &keys(&[4, 5])));
    }

    #[tokio::test]
    async fn a_first_reading_looks_at_months_and_a_later_one_at_what_is_new() {
        let store = Faulty::scripted(Memory::new(), []);
        let space = Space::new("test");
        let begin = async |days_ago| {
            let at_ms = NOW_MS - days_ago * DAY_MS;
            let mut log = LogWriter::begin(&store, space.clone(), at_ms).await?;
            log.register(&store, at_ms).await.map(|()| log)
        };
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
        // The list of months, and at most 15 of them; for each log its folds and its slots; and the
        // tenants with claims.
        assert!(store.calls() - before <= 1 + 15 + 3 * 2 + 1, "{}", store.calls() - before);
        let young = Ledger::new(Arc::new(store.clone()), new.writer().clone()).begun(Some(NOW_MS));
        let before = store.calls();
        assert_eq!(total(&young, NOW_MS).await, 15);
        let told = "of a young store: the list, and three months that are in it";
        assert_eq!(store.calls() - before, 1 + 3 + 3 * 2 + 1, "{told}");

        record(&store, &mut old, 6).await;
        let before = store.calls();
        assert_eq!(total(&ledger, NOW_MS + FRESH_MS).await, 16);
        let told = "a month, the logs that have not ended, and who has claims";
        assert_eq!(store.calls() - before, 1 + 2 + 1, "{told}");

        // Writers that register later are found, also across the end of a month and of a year.
        for (n, days) in (1..).zip([1, 20, 290, 300]) {
            let now_ms = NOW_MS + days * DAY_MS;
            let mut later = LogWriter::begin(&store, space.clone(), now_ms).await.unwrap();
            record(&store, &mut later, 1).await;
            assert_eq!(total(&ledger, now_ms).await, 16 + n, "after {days} days");
        }
    }

    #[tokio::test]
    async fn what_was_recorded_by_an_instant_is_known_and_of_a_fold_by_its_end() {
        let store = Faulty::scripted(Memory::new(), []);
        let mut log = LogWriter::begin(&store, Space::new("test"), NOW_MS).await.unwrap();
        let ledger = Ledger::new(Arc::new(store.clone()), log.writer().clone());
        let key = (None, Surrogate::test(1), Arc::from("requests"), 1, 0);
        // A record a second: each with one unit more.
        for n in 1..=compact::RUN + 9 {
            let at_ms = NOW_MS + 1_000 * n.cast_signed();
            let body = used_at(n, at_ms);
            let written = store.write(log.slot(&body)).await.unwrap();
            log.wrote(&body, written).unwrap();
        }
        let by = async |seconds: [u64; 2]| {
            let instants = seconds.map(|n| NOW_MS + 1_000 * n.cast_signed());
            let instants = [(key.clone(), instants.to_vec())].into();
            let sums = ledger.recorded_by(&instants, NOW_MS).await.unwrap();
            sums[&key].iter().map(|atoms| atoms.used.0).collect::<Vec<_>>()
        };
        assert_eq!(by([0, 7]).await, [0, 7]);
        ledger.fold_runs(log.incarnation(), NOW_MS).await.unwrap();
        let run = compact::RUN;
        assert_eq!(by([run - 1, run + 3]).await, [0, run + 3]);
        assert_eq!(by([run, 2 * run]).await, [run, run + 9]);
    }

    /// A reader that was in the middle of a run when another process folded it.
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
        // A hole is not mistaken for a fold.
        let hole = log.writer().space.log(log.incarnation(), 2 * compact::RUN);
        let cut = Write { key: hole, when: vec![When::Exists], change: vec![Change::Delete] };
        record(&store, &mut log, 9_999).await;
        store.write(cut).await.unwrap();
        let late = reader();
        assert!(late.uses(Surrogate::test(1), |_, _| false, NOW_MS).await.is_err());
    }
}
