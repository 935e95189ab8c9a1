//! A tenant as the hot path sees it, and its **sheet**: everything one decision needs, valid until
//! the next edge in time (a window's end, a day's end, an exception's end) or change of plan.
//!
//! A permit clones one `Arc` of the sheet and has all it will ever need: the leases it drew from,
//! the buckets, and the row its use is counted in. So a refund reaches its own window and pool even
//! when the window has turned over meanwhile. What outlives an edge is carried to the next sheet:
//! leases whose window goes on, buckets, the row of the same day.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::ArcSwap;

use super::bucket::Bucket;
use super::caller::KnownCaller;
use super::hub::Hub;
use super::lease::Lease;
use super::policy::{Place, Policy};
use super::pool::{self, PoolId, Terms};
use super::resolve::LiveCatalog;
use crate::catalog::{Anchors, Catalog, MeterId, Window, Zone};
use crate::clock::Now;
use crate::decision::Reason;
use crate::directory::{Surrogate, TenantRecord};

/// The parts of a tenant that outlive its sheets.
#[derive(Debug)]
pub(crate) struct TenantCore {
    pub(crate) surrogate: Surrogate,
    /// The outer id.
    pub(crate) id: Arc<str>,
    /// Requests admitted and not yet settled.
    pub(crate) in_flight: AtomicU32,
    /// Requests waiting for a lease.
    pub(crate) waiting: AtomicU32,
    /// Here, so that a permit reaches it without a count of its own on what all tenants share.
    pub(crate) hub: Arc<Hub>,
    /// Every lease of the tenant as a whole, so that no two are ever of one pool: sheets of before
    /// and after an edge may both be in use.
    leases: Mutex<Vec<Arc<Lease>>>,
}

impl TenantCore {
    /// The lease of this pool that there is, or `new` from now on.
    #[cold]
    fn only_lease(&self, new: Lease) -> Arc<Lease> {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leases.iter().find(|lease| lease.pool() == new.pool()) {
            known.retarget(new.terms());
            return known.clone();
        }
        leases.retain(|lease| {
            Arc::strong_count(lease) > 1 || !lease.is_returned() || lease.is_unlogged()
        });
        let new = Arc::new(new);
        leases.push(new.clone());
        new
    }
}

/// A tenant in memory.
#[derive(Debug)]
pub(crate) struct LiveTenant {
    pub(crate) core: Arc<TenantCore>,
    sheet: ArcSwap<Sheet>,
    /// What the directory said, and when it was read on the monotonic clock. Held while the sheet is
    /// made anew, so that two requests at an edge do not make two.
    record: Mutex<Arc<TenantRecord>>,
    read_ns: AtomicU64,
    /// Whether the maintenance task has it in hand.
    refreshing: AtomicBool,
}

/// Whether a tenant may call at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    Refused(Reason),
}

/// What resolving a tenant against a catalog came to.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) policy: Arc<Policy>,
    pub(crate) standing: Standing,
    pub(crate) anchors: Anchors,
    /// When it has to be resolved anew: an exception, a grace or a trial ends.
    pub(crate) until_ms: i64,
    /// Billing account in force.
    pub(crate) account: Option<Arc<str>>,
    /// Catalog revision, then tenant version: whose limits win in a pool.
    pub(crate) rev: i64,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) tenant: Arc<TenantCore>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) standing: Standing,
    pub(crate) anchors: Anchors,
    rev: i64,
    pub(crate) catalog: Arc<Catalog>,
    /// The catalog it was made under, counted by this process.
    pub(crate) epoch: u64,
    /// Valid while `from_ms <= now < until_ms`.
    from_ms: i64,
    until_ms: i64,
    pub(crate) buckets: Arc<[Bucket]>,
    leases: Box<[OnceLock<Arc<Lease>>]>,
    pub(crate) row: Arc<UseRow>,
    /// Whether the recorder has it in hand.
    dirty: AtomicBool,
    /// Another holds now: whoever kept this one at hand looks for that.
    replaced: AtomicBool,
}

/// A sheet that is kept: itself, or through a caller who has it at hand, which saves a busy tenant
/// the counting of references.
#[derive(Clone, Debug)]
pub(crate) enum SheetRef {
    Own(Arc<Sheet>),
    Of(Arc<KnownCaller>),
}

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

impl LiveTenant {
    /// A tenant that has just been read.
    pub(crate) fn new(
        record: Arc<TenantRecord>,
        live: &LiveCatalog,
        hub: &Arc<Hub>,
        now: Now,
    ) -> Self {
        let core = Arc::new(TenantCore {
            surrogate: record.surrogate,
            id: record.id.as_str().into(),
            in_flight: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            leases: Mutex::default(),
            hub: hub.clone(),
        });
        let sheet = Sheet::new(core.clone(), None, &record, live, &hub.parts, now);
        Self {
            core,
            sheet: ArcSwap::from_pointee(sheet),
            record: Mutex::new(record),
            read_ns: AtomicU64::new(now.mono_ns),
            refreshing: AtomicBool::new(false),
        }
    }

    /// The sheet that holds now, made anew if an edge has passed.
    pub(crate) fn sheet(&self, live: &LiveCatalog, hub: &Hub, now: Now) -> Arc<Sheet> {
        let sheet = self.sheet.load_full();
        if sheet.holds(live.epoch, now) {
            return sheet;
        }
        self.turn_over(None, live, hub, now)
    }

    /// The sheet as it stands, whether it still holds or not.
    pub(crate) fn last_sheet(&self) -> Arc<Sheet> {
        self.sheet.load_full()
    }

    /// Takes over what the directory says now.
    pub(crate) fn learn(&self, record: Arc<TenantRecord>, live: &LiveCatalog, hub: &Hub, now: Now) {
        self.turn_over(Some(record), live, hub, now);
        self.read_ns.store(now.mono_ns, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }

    /// The directory does not answer: what was known goes on holding, and is asked for again later.
    pub(crate) fn keep_as_known(&self, read_ns: u64) {
        self.read_ns.store(read_ns, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }

    /// How old the directory's word is, in nanoseconds.
    pub(crate) fn age_ns(&self, now: Now) -> u64 {
        now.mono_ns
            .saturating_sub(self.read_ns.load(Ordering::Relaxed))
    }

    /// True once until it has been read again: whoever gets it asks for a refresh.
    pub(crate) fn wants_refresh(&self) -> bool {
        !self.refreshing.load(Ordering::Relaxed) && !self.refreshing.swap(true, Ordering::AcqRel)
    }

    /// A refresh could not be asked for after all.
    pub(crate) fn unwant_refresh(&self) {
        self.refreshing.store(false, Ordering::Release);
    }

    #[cold]
    fn turn_over(
        &self,
        news: Option<Arc<TenantRecord>>,
        live: &LiveCatalog,
        hub: &Hub,
        now: Now,
    ) -> Arc<Sheet> {
        let mut record = self.locked();
        let before = self.sheet.load_full();
        let changed = news.as_ref().is_some_and(|news| **news != **record);
        if let Some(news) = news {
            *record = news;
        }
        if !changed && before.holds(live.epoch, now) {
            return before;
        }
        let core = self.core.clone();
        let sheet = Arc::new(Sheet::new(
            core,
            Some(&before),
            &record,
            live,
            &hub.parts,
            now,
        ));
        for lease in before.open_leases().filter(|lease| !sheet.has(lease)) {
            hub.retire(lease.clone());
        }
        self.sheet.store(sheet.clone());
        before.replaced.store(true, Ordering::Release);
        sheet
    }

    fn locked(&self) -> MutexGuard<'_, Arc<TenantRecord>> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far a clock may run back behind a sheet before the sheet is made anew, in milliseconds: a
/// smaller step only keeps a window a little longer, which moves no limit.
const BACKWARD_MS: i64 = 3_600_000;

impl Sheet {
    /// Makes the sheet that holds now, carrying over what goes on from the one before.
    pub(crate) fn new(
        tenant: Arc<TenantCore>,
        before: Option<&Sheet>,
        record: &TenantRecord,
        live: &LiveCatalog,
        parts: &AtomicU32,
        now: Now,
    ) -> Self {
        let (catalog, epoch) = (live.catalog.clone(), live.epoch);
        let resolved = live.resolve(record, now.wall_ms);
        let Resolved {
            policy,
            standing,
            anchors,
            until_ms,
            account,
            rev,
        } = resolved;
        let zone = &catalog.timezone;
        let cycle = crate::catalog::Every::Cycle.window(now.wall_ms, zone, &anchors);
        let row = use_row(before, &catalog, account, cycle.start_ms, parts, now);
        let day = crate::catalog::Every::Day.window(now.wall_ms, zone, &anchors);
        let mut until_ms = until_ms.min(day.end_ms).min(cycle.end_ms);
        let leases = (0..policy.tenant_pools)
            .map(|_| OnceLock::new())
            .collect::<Box<[_]>>();
        for pool in &policy.pools {
            let window = window_of(pool.every, pool.expires_ms, now.wall_ms, zone, &anchors);
            until_ms = until_ms.min(window.end_ms);
        }
        let sheet = Self {
            buckets: carry_buckets(before, &policy, now),
            from_ms: now.wall_ms,
            dirty: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            tenant,
            policy,
            standing,
            anchors,
            rev,
            catalog,
            epoch,
            until_ms,
            leases,
            row,
        };
        sheet.carry_leases(before);
        sheet
    }

    /// Whether it still holds.
    pub(crate) fn holds(&self, epoch: u64, now: Now) -> bool {
        now.wall_ms < self.until_ms
            && now.wall_ms >= self.from_ms - BACKWARD_MS
            && self.epoch == epoch
            && !self.replaced.load(Ordering::Acquire)
    }

    /// The lease of a pool of scope `tenant`, made empty on first use.
    pub(crate) fn lease(&self, pool: u16, slot: u16) -> &Arc<Lease> {
        self.leases[usize::from(slot)]
            .get_or_init(|| self.tenant.only_lease(self.new_lease(pool, 0)))
    }

    /// The leases of this sheet that have been used.
    pub(crate) fn open_leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.iter().filter_map(OnceLock::get)
    }

    /// Whether this very lease is in it.
    pub(crate) fn has(&self, lease: &Arc<Lease>) -> bool {
        self.open_leases().any(|own| Arc::ptr_eq(own, lease))
    }

    /// The lease at this slot, if it has been used.
    pub(crate) fn known_lease(&self, slot: u16) -> Option<&Arc<Lease>> {
        self.leases[usize::from(slot)].get()
    }

    pub(crate) fn new_lease(&self, pool: u16, scope: u128) -> Lease {
        let rule = &self.policy.pools[usize::from(pool)];
        let window = self.window(pool);
        let id = PoolId {
            tenant: self.tenant.surrogate,
            limit: rule.id.clone(),
            scope,
            start_ms: window.start_ms,
        };
        let terms = Terms {
            limit: rule.limit,
            rev: self.rev,
        };
        Lease::new(id, window.end_ms, terms, rule.usual_ask)
            .forgotten_at(pool::ttl(rule.every, window))
    }

    /// Tells a scoped lease of the limit that holds now.
    pub(crate) fn retarget(&self, lease: &Lease, pool: u16) {
        let limit = self.policy.pools[usize::from(pool)].limit;
        lease.retarget_if_changed(Terms {
            limit,
            rev: self.rev,
        });
    }

    /// The window of a pool that this sheet is in.
    pub(crate) fn window(&self, pool: u16) -> Window {
        let rule = &self.policy.pools[usize::from(pool)];
        let zone = &self.catalog.timezone;
        window_of(
            rule.every,
            rule.expires_ms,
            self.from_ms,
            zone,
            &self.anchors,
        )
    }

    /// True once until [`clean`](Self::clean): whoever gets it brings the sheet to the recorder.
    pub(crate) fn soil(&self) -> bool {
        !self.dirty.load(Ordering::Relaxed) && !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// Whether nothing of it is in use, unrecorded or leased: it can be forgotten.
    pub(crate) fn is_quiet(&self) -> bool {
        !self.dirty.load(Ordering::Acquire)
            && self.tenant.in_flight.load(Ordering::Acquire) == 0
            && self.open_leases().all(|lease| lease.is_returned())
    }

    pub(crate) fn clean(&self) {
        self.dirty.store(false, Ordering::Release);
    }

    /// Takes over the leases whose pool is the same, and tells them of another limit.
    fn carry_leases(&self, before: Option<&Sheet>) {
        let Some(before) = before else { return };
        for (i, pool) in self.policy.pools.iter().enumerate() {
            let Place::Sheet(slot) = pool.place else {
                continue;
            };
            let index = u16::try_from(i).expect("the policy bounds its pools");
            let start_ms = self.window(index).start_ms;
            let same = |lease: &&Arc<Lease>| {
                lease.pool().limit == pool.id && lease.pool().start_ms == start_ms
            };
            if let Some(lease) = before.open_leases().find(same) {
                lease.retarget(Terms {
                    limit: pool.limit,
                    rev: self.rev,
                });
                // A slot of a sheet nobody has seen yet is empty.
                let _ = self.leases[usize::from(slot)].set(lease.clone());
            }
        }
    }
}

impl std::ops::Deref for SheetRef {
    type Target = Arc<Sheet>;

    fn deref(&self) -> &Arc<Sheet> {
        match self {
            Self::Own(sheet) => sheet,
            Self::Of(caller) => &caller.sheet,
        }
    }
}

impl UseRow {
    /// Counts atoms that were used.
    pub(crate) fn add(&self, meter: MeterId, atoms: u64) {
        if let Some(row) = self.totals.get(usize::from(meter.0)) {
            row.total.fetch_add(atoms, Ordering::Relaxed);
        }
    }

    /// Atoms counted so far.
    pub(crate) fn total(&self, meter: MeterId) -> u64 {
        let row = self.totals.get(usize::from(meter.0));
        row.map_or(0, |row| row.total.load(Ordering::Relaxed))
    }

    /// Meters whose total has risen since the log last had it, with the total; the log has them from
    /// now on.
    pub(crate) fn unlogged(&self) -> impl Iterator<Item = (MeterId, u64)> + '_ {
        self.totals.iter().enumerate().filter_map(|(i, row)| {
            let total = row.total.load(Ordering::Relaxed);
            let news = row.logged.swap(total, Ordering::Relaxed) != total;
            news.then(|| (MeterId(u16::try_from(i).unwrap_or(u16::MAX)), total))
        })
    }
}

/// The row of the same day, period and account goes on; anything else begins a new one.
fn use_row(
    before: Option<&Sheet>,
    catalog: &Arc<Catalog>,
    account: Option<Arc<str>>,
    period_ms: i64,
    parts: &AtomicU32,
    now: Now,
) -> Arc<UseRow> {
    let day = crate::catalog::local_day(now.wall_ms, &catalog.timezone);
    if let Some(before) = before {
        let row = &before.row;
        let same = row.day == day && row.period_ms == period_ms && row.account == account;
        if same && same_meters(&before.catalog, catalog) {
            return row.clone();
        }
    }
    let totals = catalog.meters.iter().map(|_| UseTotal::default()).collect();
    let part = parts.fetch_add(1, Ordering::Relaxed);
    Arc::new(UseRow {
        part,
        period_ms,
        day,
        account,
        totals,
    })
}

fn same_meters(a: &Arc<Catalog>, b: &Arc<Catalog>) -> bool {
    let names = |c: &Arc<Catalog>| {
        c.meters
            .iter()
            .map(|m| (m.name.clone(), m.scale))
            .collect::<Vec<_>>()
    };
    Arc::ptr_eq(a, b) || names(a) == names(b)
}

fn carry_buckets(before: Option<&Sheet>, policy: &Arc<Policy>, now: Now) -> Arc<[Bucket]> {
    if let Some(before) = before.filter(|b| Arc::ptr_eq(&b.policy, policy)) {
        return before.buckets.clone();
    }
    let mut buckets: Vec<Bucket> = (0..policy.tenant_buckets)
        .map(|_| Bucket::default())
        .collect();
    for rate in &policy.rates {
        let Place::Sheet(slot) = rate.place else {
            continue;
        };
        let old = before.and_then(|b| {
            let old = b.policy.rates.iter().find(|r| r.id == rate.id)?;
            let Place::Sheet(at) = old.place else {
                return None;
            };
            Some((old, &b.buckets[usize::from(at)]))
        });
        if let Some((old, bucket)) = old {
            buckets[usize::from(slot)] = rate.rule.adopt(bucket, &old.rule, now.mono_ns);
        }
    }
    buckets.into()
}

fn window_of(
    every: crate::catalog::Every,
    expires_ms: Option<i64>,
    at_ms: i64,
    zone: &Zone,
    anchors: &Anchors,
) -> Window {
    let window = every.window(at_ms, zone, anchors);
    match expires_ms {
        // Past its end a grant's window is behind us: nothing is taken from it, and it sets no edge.
        Some(end) if end > at_ms => Window {
            end_ms: window.end_ms.min(end),
            ..window
        },
        _ => window,
    }
}
