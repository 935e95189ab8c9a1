//! The **sheet** of a tenant: everything one decision needs, valid until the next change of plan or
//! edge in time (the end of a window, a day or an exception).
//!
//! A permit keeps the sheet and with it all it will ever need: the leases it drew from, the
//! buckets, and the row its use is counted in. So a refund reaches its own window and pool even if
//! the window has turned over meanwhile. What outlives an edge is carried to the next sheet: leases
//! of continuing windows, buckets, the row of the same day.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::catalog::{Anchors, Catalog, MeterId, Window, Zone};
use crate::clock::Now;
use crate::directory::TenantRecord;
use crate::holders::{Holder, is_held_only_by};
use crate::ids::WriterId;
use crate::policy::bucket::Bucket;
use crate::policy::resolve::{LiveCatalog, Resolved, Standing};
use crate::policy::scoped::ScopedKey;
use crate::policy::{BucketSlot, CounterHome, LeaseSlot, Policy, PoolIndex, PoolRule};
use crate::quota::alert::Alerting;
use crate::quota::lease::at_rest::LeaseAtRest;
use crate::quota::lease::{Lease, MOST};
use crate::quota::pool::{self, PoolId, Terms};
use crate::repeated::repeated;
use crate::sheets::tenant_core::TenantCore;
use crate::sheets::unpaid::Unpaid;
use crate::sheets::use_row::{UseRow, same_meters, use_row};
use crate::table::Table;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Sheet {
    pub(crate) tenant: Arc<TenantCore>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) standing: Standing,
    pub(crate) anchors: Anchors,
    rev: i64,
    /// The incarnation of its leases and its row.
    pub(crate) incarnation: WriterId,
    pub(crate) catalog: Arc<Catalog>,
    /// The catalog it was made under, counted by this process.
    pub(crate) epoch: u64,
    /// Valid while `from_ms <= now < until_ms`. A clock may step back so far.
    from_ms: i64,
    until_ms: i64,
    pub(crate) buckets: Table<BucketSlot, Arc<[Bucket]>>,
    /// The window of each pool, computed once for all requests until the next edge.
    windows: Table<PoolIndex, Box<[Window]>>,
    leases: Table<LeaseSlot, Box<[OnceLock<Arc<Lease>>]>>,
    pub(crate) row: Arc<UseRow>,
    /// The previous row of the same meters: at midnight the log still lacks some of it.
    row_before: Option<Arc<UseRow>>,
    pub(crate) unpaid: Unpaid<Self>,
    /// Whether it is queued for the recorder.
    dirty: AtomicBool,
    /// Another sheet is in force: a caller that kept this one must look it up.
    pub(crate) replaced: AtomicBool,
}

/// The state a new sheet carries on from.
pub(crate) enum Before<'a> {
    Nothing,
    Sheet(&'a Sheet),
    /// The row of a compacted tenant.
    Sleep(Arc<UseRow>),
}

/// How far a clock may step back behind a sheet before the sheet is rebuilt, in milliseconds: a
/// smaller step only keeps a window a little longer, which moves no limit.
const BACKWARD_MS: i64 = 3_600_000;

/// The same behind the end of a grant, an exception, a grace or a trial: before it something else
/// was in force. Readings of one instant may differ by some milliseconds, which rebuilds nothing.
const BEHIND_AN_END_MS: i64 = 1_000;

impl Sheet {
    /// Makes the current sheet, carrying over what continues from the one before.
    pub(crate) fn new(
        tenant: Arc<TenantCore>,
        before: Before<'_>,
        record: &TenantRecord,
        live: &LiveCatalog,
        now: Now,
    ) -> Self {
        Self::at(tenant, before, record, live, (now, now.wall_ms))
    }

    /// Counts atoms that were used.
    #[inline]
    pub(crate) fn count_used(&self, meter: MeterId, atoms: u64) {
        if !self.row.add(meter, atoms) {
            self.say_cut(meter, atoms);
        }
    }

    /// Counts atoms that were due or held, and went back. Nothing is recorded of them: they are a
    /// number of the metric.
    #[cfg_attr(not(feature = "metrics"), allow(unused_variables, reason = "nothing is counted"))]
    #[inline]
    pub(crate) fn count_refund(&self, meter: MeterId, atoms: u64) {
        #[cfg(feature = "metrics")]
        if atoms > 0 {
            self.policy.count_refund(&self.catalog, meter, atoms);
        }
    }

    /// A total is full: some of this use is on no record.
    #[cold]
    fn say_cut(&self, meter: MeterId, atoms: u64) {
        const TEXT: &str = "usage beyond the largest total of a meter is not counted: look for a \
                            mistake in the reported numbers";
        let Some(rules) = self.catalog.meters.get(usize::from(meter.0)) else { return };
        let (units, most) = (atoms / rules.scale.max(1), MOST / rules.scale.max(1));
        let (meter, tenant) = (&*rules.name, &*self.tenant.id);
        let now_ms = self.tenant.hub.clock.now().wall_ms;
        repeated!(warn, now_ms, TEXT; tenant, meter, units, most);
    }

    /// A sheet for the past windows around an instant, under the present plan: it pays use that is
    /// learned of after its window. No request ever finds it.
    pub(crate) fn past(
        tenant: Arc<TenantCore>,
        record: &TenantRecord,
        live: &LiveCatalog,
        now: Now,
        at_ms: i64,
    ) -> Self {
        let sheet = Self::at(tenant, Before::Nothing, record, live, (now, at_ms));
        sheet.replaced.store(true, Ordering::Release);
        sheet
    }

    fn at(
        tenant: Arc<TenantCore>,
        before: Before<'_>,
        record: &TenantRecord,
        live: &LiveCatalog,
        (now, at_ms): (Now, i64),
    ) -> Self {
        let (catalog, epoch) = (live.catalog.clone(), live.epoch);
        let resolved = live.resolve(record, now.wall_ms);
        let Resolved { policy, standing, anchors, since_ms, until_ms, account, rev } = resolved;
        let era = record.era(at_ms);
        // The present customer is the record's, also where the clock that linked it is ahead.
        let account =
            if at_ms < now.wall_ms { era.account.as_deref().map(Arc::from) } else { account };
        let anchors = era.anchors(anchors.term);
        let now = Now { wall_ms: at_ms, ..now };
        let zone = &catalog.timezone;
        let period = era.period(now.wall_ms, zone);
        let incarnation = tenant.hub.incarnation.current();
        // Leases and counts of an earlier incarnation stay with that one.
        let before_row = match &before {
            Before::Sheet(sheet) if sheet.incarnation == incarnation => {
                Some((&sheet.row, &sheet.catalog))
            }
            // Kept only for the catalog and the incarnation it was counted under.
            Before::Sleep(row) => Some((row, &catalog)),
            _ => None,
        };
        let parts = &tenant.hub.parts;
        let row = use_row(before_row, &catalog, account, period.start_ms, parts, now);
        let row_before = match (&before, before_row) {
            (_, Some((of, its))) if !Arc::ptr_eq(of, &row) => {
                same_meters(its, &catalog).then(|| of.clone())
            }
            (Before::Sheet(sheet), Some(_)) => sheet.row_before.clone(),
            _ => None,
        };
        let before = if let Before::Sheet(sheet) = before { Some(sheet) } else { None };
        let day = crate::catalog::Every::Day.window(now.wall_ms, zone, &anchors);
        let mut until_ms = until_ms.min(day.end_ms).min(period.end_ms).min(era.until_ms);
        let leases = policy.tenant_leases.table(OnceLock::new);
        let window = |rule: &PoolRule| window_of(rule, now.wall_ms, zone, &anchors);
        let windows: Table<PoolIndex, Box<[Window]>> = policy.pools.iter().map(window).collect();
        until_ms = windows.iter().fold(until_ms, |until, window| until.min(window.end_ms));
        let sheet = Self {
            buckets: carry_buckets(before, &policy, now),
            from_ms: (now.wall_ms - BACKWARD_MS).max(since_ms.saturating_sub(BEHIND_AN_END_MS)),
            dirty: AtomicBool::new(false),
            replaced: AtomicBool::new(false),
            tenant,
            policy,
            standing,
            anchors,
            rev,
            incarnation,
            catalog,
            epoch,
            until_ms,
            windows,
            leases,
            row,
            row_before,
            unpaid: Unpaid::default(),
        };
        sheet.carry_leases();
        sheet
    }

    /// Whether it is still valid.
    pub(crate) fn holds(&self, epoch: u64, now: Now) -> bool {
        now.wall_ms < self.until_ms
            && now.wall_ms >= self.from_ms
            && self.epoch == epoch
            && !self.replaced.load(Ordering::Acquire)
    }

    /// Whether this instant is of its customer, in its billing period and in the windows of its
    /// quotas, by the tenant's record.
    pub(crate) fn is_of(&self, record: &TenantRecord, at_ms: i64) -> bool {
        let era = record.era(at_ms);
        let period = era.period(at_ms, &self.catalog.timezone);
        let pools = self.policy.quotas.iter().filter_map(|quota| quota.included.or(quota.over));
        (period.start_ms, era.account.as_deref())
            == (self.row.period_ms, self.row.account.as_deref())
            && pools
                .map(|pool| self.window(pool))
                .all(|window| (window.start_ms..window.end_ms).contains(&at_ms))
    }

    /// The lease of a pool of scope `tenant`, created empty on first use.
    pub(crate) fn lease(&self, pool: PoolIndex, slot: LeaseSlot) -> &Arc<Lease> {
        self.leases[slot].get_or_init(|| {
            let lease = self.tenant.only_lease(self.new_lease(pool, 0));
            if !self.replaced.load(Ordering::Acquire) {
                self.tenant.hub.retired.remove(&lease);
            } else if is_held_only_by(&lease, [Holder::Tenant, Holder::Asker]) {
                // A request older than the sheet in force draws for the first time: no later sheet
                // has this lease, so it must be given back from here.
                self.tenant.hub.retired.add(lease.clone());
            }
            lease
        })
    }

    /// The leases of this sheet in use so far.
    pub(crate) fn open_leases(&self) -> impl Iterator<Item = &Arc<Lease>> {
        self.leases.iter().filter_map(OnceLock::get)
    }

    /// Whether it holds this very lease.
    pub(crate) fn has(&self, lease: &Arc<Lease>) -> bool {
        self.open_leases().any(|own| Arc::ptr_eq(own, lease))
    }

    /// The lease at this slot, if it has been used.
    pub(crate) fn known_lease(&self, slot: LeaseSlot) -> Option<&Arc<Lease>> {
        self.leases[slot].get()
    }

    /// Its use row and the one before: their counts appear here first.
    pub(crate) fn live_rows(&self) -> impl Iterator<Item = &UseRow> {
        [&self.row].into_iter().chain(&self.row_before).map(|row| &**row)
    }

    /// Matches the writer and part of these rows.
    pub(crate) fn live(&self) -> impl Fn(WriterId, u32) -> bool + '_ {
        move |of, part| of == self.incarnation && self.live_rows().any(|row| row.part == part)
    }

    pub(crate) fn new_lease(&self, pool: PoolIndex, scope: u128) -> Lease {
        let rule = &self.policy.pools[pool];
        let window = self.window(pool);
        let id = PoolId {
            tenant: self.tenant.surrogate,
            limit: rule.id.clone(),
            scope,
            start_ms: window.start_ms,
        };
        Lease::new(id, window.end_ms, self.terms(pool), rule.usual_ask)
            .under(self.incarnation)
            .forgotten_at(match rule.slot_ms {
                Some(_) => Some(pool::slot_ttl(window)),
                None => pool::ttl(rule.every, window),
            })
            .of_slot(rule.slot_ms.is_some())
            .billing(rule.bills)
            .alerting(self.alerting(rule))
    }

    /// The lease of a pool of narrower scope than the tenant, for this value of it, created empty
    /// on first use and moved to the present limit; `None`: there is no room for more of them.
    pub(crate) fn scoped_lease(
        &self,
        pool: PoolIndex,
        value: u128,
        now: Now,
    ) -> Option<Arc<Lease>> {
        let key = self.scoped_key(pool, value);
        let scoped = &self.tenant.hub.scoped;
        let lease = scoped.lease(key, now.mono_ns, || self.new_lease(pool, value))?;
        lease.retarget_if_changed(self.terms(pool));
        Some(lease)
    }

    /// The same, if it exists.
    pub(crate) fn known_scoped_lease(&self, pool: PoolIndex, value: u128) -> Option<Arc<Lease>> {
        self.tenant.hub.scoped.known_lease(&self.scoped_key(pool, value))
    }

    fn scoped_key(&self, pool: PoolIndex, value: u128) -> ScopedKey {
        ScopedKey {
            tenant: self.tenant.surrogate,
            limit: self.policy.pools[pool].id.clone(),
            value,
            start_ms: self.window(pool).start_ms,
            incarnation: self.incarnation,
        }
    }

    /// The limit of a pool under this sheet.
    pub(crate) fn terms(&self, pool: PoolIndex) -> Terms {
        Terms { limit: self.policy.pools[pool].limit, rev: self.rev }
    }

    /// The window of a pool under this sheet.
    pub(crate) fn window(&self, pool: PoolIndex) -> Window {
        self.windows[pool]
    }

    /// Hands it to the recorder, unless it is queued there already;
    /// [`clear_dirty`](Self::clear_dirty) ends that. See [`Lease::mark_dirty`] for the order.
    #[inline]
    pub(crate) fn mark_dirty(self: &Arc<Self>) {
        if !self.dirty.load(Ordering::SeqCst) {
            self.hand_to_recorder();
        }
    }

    #[cold]
    fn hand_to_recorder(self: &Arc<Self>) {
        if !self.dirty.swap(true, Ordering::SeqCst) {
            self.tenant.hub.unrecorded.add_sheet(self, &self.tenant.id);
        }
    }

    /// The sheet that has replaced this one; `None`: it is in force itself.
    pub(crate) fn newer(&self) -> Option<Arc<Self>> {
        if !self.replaced.load(Ordering::Acquire) {
            return None;
        }
        self.tenant.in_force().filter(|newer| !std::ptr::eq(&**newer, self))
    }

    /// Whether it is queued for the recorder.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty.load(Ordering::Acquire)
    }

    /// Whether nothing of it is in use, unrecorded or leased: it can be dropped.
    ///
    /// A permit keeps its sheet, or the caller entry that has it: only the tenant and the calling
    /// code may hold it besides.
    pub(crate) fn is_quiet(self: &Arc<Self>, now: Now) -> bool {
        self.is_ours_alone()
            && self.is_at_rest(now)
            && self.open_leases().all(|lease| lease.is_returned())
    }

    /// Whether it is of the same tenant as the other.
    pub(crate) fn shares_tenant(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.tenant, &other.tenant)
    }

    /// Whether only its tenant and the calling code hold it.
    pub(crate) fn is_ours_alone(self: &Arc<Self>) -> bool {
        is_held_only_by(self, [Holder::Tenant, Holder::Asker])
            && is_held_only_by(&self.tenant, [Holder::Tenant, Holder::Sheet])
    }

    /// Whether all of its use is on record and its buckets are full: a bucket dropped earlier would
    /// be full too early.
    pub(crate) fn is_at_rest(&self, now: Now) -> bool {
        let is_recorded = !self.is_dirty() && self.row.is_logged();
        let is_recorded = is_recorded && !self.unpaid.is_some_still();
        is_recorded && self.buckets.iter().all(|bucket| bucket.is_full(now.mono_ns))
    }

    pub(crate) fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::SeqCst);
    }

    /// Takes over the leases whose pool is unchanged, from the sheet before and from older ones
    /// (the tenant has come back to a plan), and moves them to the present limits.
    fn carry_leases(&self) {
        for lease in self.tenant.leases() {
            let id = lease.pool();
            if let Some((pool, slot)) = self.pool_of(&id.limit, id.start_ms, lease.incarnation()) {
                lease.retarget(Terms { limit: pool.limit, rev: self.rev });
                lease.realert(&self.tenant.id, pool.alerts.as_ref());
                self.tenant.hub.retired.remove(&lease);
                // The slot is empty in a sheet not yet published.
                let _ = self.leases[slot].set(lease);
            }
        }
    }

    /// Restores the leases of a compacted tenant. Those of past pools are given back.
    pub(crate) fn wake_leases(&self, leases: Vec<LeaseAtRest>, incarnation: WriterId) {
        for at_rest in leases {
            let (limit, start_ms) = at_rest.pool();
            let here = self.pool_of(limit, start_ms, incarnation);
            let alerting = here.and_then(|(pool, _)| self.alerting(pool));
            let lease = at_rest.wake(self.tenant.surrogate, incarnation, alerting);
            let lease = self.tenant.only_lease(lease);
            self.tenant.hub.raises.note_reclaimable(&lease);
            match here {
                Some((pool, slot)) => {
                    lease.retarget(Terms { limit: pool.limit, rev: self.rev });
                    let _ = self.leases[slot].set(lease);
                }
                None => self.tenant.hub.retired.add(lease),
            }
        }
    }

    /// The tenant-wide pool of a lease and its slot here, if the lease continues.
    fn pool_of(
        &self,
        limit: &str,
        start_ms: i64,
        incarnation: WriterId,
    ) -> Option<(&PoolRule, LeaseSlot)> {
        self.policy.pools.iter().zip(&self.windows).find_map(|(pool, window)| match pool.place {
            CounterHome::Sheet(slot) if *pool.id == *limit && window.start_ms == start_ms => {
                (incarnation == self.incarnation).then_some((pool, slot))
            }
            _ => None,
        })
    }

    fn alerting(&self, pool: &PoolRule) -> Option<Alerting> {
        Some(Alerting::new(self.tenant.id.clone(), pool.alerts.clone()?))
    }
}

fn carry_buckets(
    before: Option<&Sheet>,
    policy: &Arc<Policy>,
    now: Now,
) -> Table<BucketSlot, Arc<[Bucket]>> {
    if let Some(before) = before.filter(|b| Arc::ptr_eq(&b.policy, policy)) {
        return before.buckets.clone();
    }
    let mut buckets: Table<_, Vec<Bucket>> = policy.tenant_buckets.table(Bucket::default);
    for rate in &policy.rates {
        let CounterHome::Sheet(slot) = rate.place else {
            continue;
        };
        let old = before.and_then(|b| {
            let old = b.policy.rates.iter().find(|r| r.id == rate.id)?;
            let CounterHome::Sheet(at) = old.place else {
                return None;
            };
            Some((old, &b.buckets[at]))
        });
        if let Some((old, bucket)) = old {
            buckets[slot] = rate.rule.adopt(bucket, &old.rule, now.mono_ns);
        }
    }
    buckets.shared()
}

fn window_of(rule: &PoolRule, at_ms: i64, zone: &Zone, anchors: &Anchors) -> Window {
    if let Some(slot_ms) = rule.slot_ms {
        let start_ms = at_ms - at_ms.rem_euclid(slot_ms);
        return Window { start_ms, end_ms: start_ms.saturating_add(slot_ms) };
    }
    let window = rule.every.window(at_ms, zone, anchors);
    match rule.expires_ms {
        // Past its end a grant's window has ended: nothing is taken from it, and it sets no edge.
        Some(end) if end > at_ms => Window { end_ms: window.end_ms.min(end), ..window },
        _ => window,
    }
}
