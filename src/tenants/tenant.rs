//! A tenant in memory: the [`sheet`](crate::sheets::sheet) in force, and what outlives it.

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use crate::clock::{Now, nanos};
use crate::directory::TenantRecord;
use crate::ids::WriterId;
use crate::payers::late;
use crate::policy::resolve::LiveCatalog;
use crate::quota::lease::at_rest::LeaseAtRest;
use crate::sheets::hub::Hub;
use crate::sheets::sheet::{Before, Sheet};
use crate::sheets::tenant_core::TenantCore;
use crate::sheets::use_row::RowAtRest;
use crate::tenants::packed::KeptRecord;
use crate::tenants::{MAX_VOUCHED, REFRESH_AGE};

/// A tenant in memory.
#[derive(Debug)]
pub(crate) struct LiveTenant {
    pub(crate) core: Arc<TenantCore>,
    sheet: ArcSwap<Sheet>,
    /// What the directory said, and when it was read on the monotonic clock. Held while the sheet
    /// is made anew, so that two requests at an edge do not make two.
    record: Mutex<KeptRecord>,
    read_ns: AtomicU64,
    /// When it was really read, in [`ticks`]: `read_ns` may be a later time up to which the feed of
    /// changes vouches for it.
    really_read: AtomicU32,
    /// It is to be read again, so that nothing vouches for it.
    doubted: AtomicBool,
    /// How many changes had been heard of when a key of it was revoked last, that one among them.
    keys_since: AtomicU64,
    /// When it was last read there was no such tenant.
    gone: AtomicBool,
    /// How often its assigned plan has changed in this process. A caller in memory is younger than
    /// a round of it.
    plans: AtomicU16,
    /// Up to when the changes of its plan that its callers made are paid for, in [`ticks`]: see
    /// [`PLAN_CHANGES`].
    plan_changes: AtomicU32,
    /// Whether the maintenance task has it in hand.
    refreshing: AtomicBool,
}

/// Changes of a tenant's plan that its callers may make at once, and the time after which they may
/// make another. Each is written to the directory: callers that disagree, such as holders of tokens
/// made before and after an upgrade, must not have it written for each request.
const PLAN_CHANGES: u32 = 10;
/// A minute, in [`ticks`].
const PLAN_CHANGE_EVERY: u32 = 27;

/// Time on the monotonic clock in steps of two seconds, so that a tenant's fits beside its flags.
pub(super) fn ticks(now: Now) -> u32 {
    ticks_of(now.mono_ns)
}

const TICK_BITS: u32 = 31;

pub(super) fn ticks_of(mono_ns: u64) -> u32 {
    u32::try_from(mono_ns >> TICK_BITS).unwrap_or(u32::MAX)
}

/// A tenant that has just been taken apart, on its way back.
pub(crate) struct Woken {
    pub(crate) record: Arc<TenantRecord>,
    pub(crate) read_ns: u64,
    pub(crate) incarnation: WriterId,
    pub(crate) epoch: u64,
    pub(crate) row: RowAtRest,
    pub(crate) leases: Vec<LeaseAtRest>,
}

impl LiveTenant {
    /// A tenant that has just been read.
    pub(crate) fn new(
        record: Arc<TenantRecord>,
        live: &LiveCatalog,
        hub: &Arc<Hub>,
        now: Now,
    ) -> Self {
        let core = Arc::new(TenantCore::new(&record, hub));
        let sheet = Sheet::new(core.clone(), Before::Nothing, &record, live, now);
        Self::with(core, sheet, record, now.mono_ns)
    }

    /// A tenant that slept.
    pub(crate) fn wake(woken: Woken, live: &LiveCatalog, hub: &Arc<Hub>, now: Now) -> Self {
        let Woken { record, read_ns, incarnation, epoch, row, leases } = woken;
        let core = Arc::new(TenantCore::new(&record, hub));
        let goes_on = epoch == live.epoch && incarnation == hub.incarnation.current();
        let before = if goes_on { Before::Sleep(Arc::new(row.wake())) } else { Before::Nothing };
        let sheet = Sheet::new(core.clone(), before, &record, live, now);
        sheet.wake_leases(leases, incarnation);
        let tenant = Self::with(core, sheet, record, read_ns);
        // While it slept no change of it was heard of.
        tenant.doubted.store(true, Ordering::SeqCst);
        tenant
    }

    fn with(core: Arc<TenantCore>, sheet: Sheet, record: Arc<TenantRecord>, read_ns: u64) -> Self {
        let sheet = Arc::new(sheet);
        core.put_in_force(&sheet);
        Self {
            core,
            sheet: ArcSwap::new(sheet),
            record: Mutex::new(KeptRecord::of(&record)),
            read_ns: AtomicU64::new(read_ns),
            really_read: AtomicU32::new(ticks_of(read_ns)),
            doubted: AtomicBool::new(false),
            keys_since: AtomicU64::new(0),
            gone: AtomicBool::new(false),
            plans: AtomicU16::new(0),
            plan_changes: AtomicU32::new(0),
            refreshing: AtomicBool::new(false),
        }
    }

    /// The sheet that holds now, made anew if an edge has passed.
    pub(crate) fn sheet(&self, live: &LiveCatalog, now: Now) -> Arc<Sheet> {
        let sheet = self.sheet.load_full();
        if sheet.holds(live.epoch, now) {
            return sheet;
        }
        self.turn_over(None, live, now)
    }

    /// The sheet of the windows that this instant, which is not ahead of us, lies in: the one that
    /// holds now, unless that is of later ones.
    pub(crate) fn sheet_of(&self, live: &LiveCatalog, now: Now, at_ms: i64) -> Arc<Sheet> {
        let sheet = self.sheet(live, now);
        let record = self.record();
        if at_ms >= now.wall_ms || sheet.is_of(&record, at_ms) {
            return sheet;
        }
        Arc::new(Sheet::past(self.core.clone(), &record, live, now, at_ms))
    }

    /// A sheet under another plan file, to read limits by. No request ever finds it.
    pub(crate) fn sheet_under(&self, file: &LiveCatalog, now: Now) -> Arc<Sheet> {
        Arc::new(Sheet::past(self.core.clone(), &self.record(), file, now, now.wall_ms))
    }

    /// The sheet as it stands, whether it still holds or not.
    pub(crate) fn last_sheet(&self) -> Arc<Sheet> {
        self.sheet.load_full()
    }

    /// Takes over what the directory says now.
    pub(crate) fn learn(&self, record: Arc<TenantRecord>, live: &LiveCatalog, now: Now) {
        self.turn_over(Some(record), live, now);
        self.gone.store(false, Ordering::Release);
        self.really_read.store(ticks(now), Ordering::Relaxed);
        self.doubted.store(false, Ordering::SeqCst);
        self.read_ns.store(now.mono_ns, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }

    /// The directory does not answer: what was known goes on holding, and is asked for again later.
    pub(crate) fn keep_as_known(&self, read_ns: u64) {
        self.doubted.store(true, Ordering::SeqCst);
        self.read_ns.store(read_ns, Ordering::Release);
        self.refreshing.store(false, Ordering::Release);
    }

    /// There is no such tenant any more: its callers are refused once they are looked up again.
    pub(crate) fn is_none(&self, read_ns: u64) {
        self.gone.store(true, Ordering::Release);
        self.keep_as_known(read_ns);
    }

    /// Whether there was no such tenant when it was last read.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// The record as last read from the directory.
    pub(crate) fn record(&self) -> TenantRecord {
        self.locked().unpack()
    }

    /// Whether its plan ends a while after its first request, of which nothing is known.
    pub(crate) fn lacks_first_request(&self, live: &LiveCatalog, now: Now) -> bool {
        let expires = self.sheet(live, now).policy.plan.expires.is_some();
        expires && self.record().first_request_ms.is_none()
    }

    /// When the directory was read.
    pub(crate) fn read_ns(&self) -> u64 {
        self.read_ns.load(Ordering::Acquire)
    }

    /// Makes the record count as read at this time at the latest, so that it is reread in the
    /// background.
    pub(crate) fn read_by(&self, at_ns: u64) {
        self.doubted.store(true, Ordering::SeqCst);
        self.read_ns.fetch_min(at_ns, Ordering::SeqCst);
    }

    /// A change of it has begun: it is as old as it really is. Returns whether that is too old.
    pub(crate) fn begins(&self, now: Now) -> bool {
        self.read_by(u64::from(self.really_read.load(Ordering::Relaxed)) << TICK_BITS);
        self.age_ns(now) >= nanos(REFRESH_AGE)
    }

    /// A key of it was revoked, with the change of this number.
    pub(crate) fn revoked(&self, change: u64) {
        self.keys_since.fetch_max(change, Ordering::AcqRel);
    }

    /// The number of the change that revoked a key of it last.
    #[inline]
    pub(crate) fn keys_since(&self) -> u64 {
        self.keys_since.load(Ordering::Relaxed)
    }

    /// How often its assigned plan has changed in this process.
    #[inline]
    pub(crate) fn plans(&self) -> u16 {
        self.plans.load(Ordering::Acquire)
    }

    /// Whether a caller may change its plan now.
    pub(crate) fn may_change_plan(&self, now: Now) -> bool {
        let paid = self.plan_changes.load(Ordering::Relaxed);
        paid <= ticks(now).saturating_add((PLAN_CHANGES - 1) * PLAN_CHANGE_EVERY)
    }

    /// Counts a change of its plan by a caller.
    pub(crate) fn count_plan_change(&self, now: Now) {
        let add = |paid: u32| Some(paid.max(ticks(now)).saturating_add(PLAN_CHANGE_EVERY));
        let (set, get) = (Ordering::Relaxed, Ordering::Relaxed);
        let _ = self.plan_changes.fetch_update(set, get, add);
    }

    /// The age of the record as read from the directory, in nanoseconds.
    pub(crate) fn age_ns(&self, now: Now) -> u64 {
        now.mono_ns.saturating_sub(self.read_ns.load(Ordering::Relaxed))
    }

    /// The same for a request. What no process has changed since it was read is as old as the last
    /// look at the feed of changes.
    pub(crate) fn age_in_use_ns(&self, now: Now) -> u64 {
        let age_ns = self.age_ns(now);
        if age_ns < nanos(REFRESH_AGE) {
            return age_ns;
        }
        self.vouched_age_ns(now)
    }

    #[cold]
    fn vouched_age_ns(&self, now: Now) -> u64 {
        let read_ns = self.read_ns.load(Ordering::SeqCst);
        if let Some(until_ns) = self.vouched_ns(read_ns, now) {
            let (set, get) = (Ordering::SeqCst, Ordering::Relaxed);
            let is_set = self.read_ns.compare_exchange(read_ns, until_ns, set, get).is_ok();
            // It may have come into doubt meanwhile, which finds the earlier time.
            if is_set && self.vouched_ns(read_ns, now).is_none() {
                self.read_ns.fetch_min(read_ns, set);
            }
        }
        self.age_ns(now)
    }

    /// Up to when the feed of changes vouches for what was read then, if it does.
    fn vouched_ns(&self, read_ns: u64, now: Now) -> Option<u64> {
        let really_read = self.really_read.load(Ordering::Relaxed);
        let is_old = ticks(now).saturating_sub(really_read) >= ticks_of(nanos(MAX_VOUCHED));
        let followed = &self.core.hub.followed;
        let until_ns = followed.vouches_for(self.core.surrogate, read_ns, now)?;
        (!is_old && !self.doubted.load(Ordering::SeqCst)).then_some(until_ns)
    }

    /// True once until the tenant has been reread: the caller that gets `true` asks for a refresh.
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
        now: Now,
    ) -> Arc<Sheet> {
        let mut kept = self.locked();
        let mut record = kept.unpack();
        let before = self.sheet.load_full();
        // A reading that was under way while the record was changed brings back no older version.
        let news = news.filter(|news| news.version >= record.version);
        let changed = news.as_ref().is_some_and(|news| **news != record);
        if let Some(news) = news.filter(|_| changed) {
            if news.assigned_plan() != record.assigned_plan() {
                self.plans.fetch_add(1, Ordering::AcqRel);
            }
            *kept = KeptRecord::of(&news);
            record = Arc::unwrap_or_clone(news);
        }
        if !changed && before.holds(live.epoch, now) {
            return before;
        }
        let core = self.core.clone();
        let sheet = Arc::new(Sheet::new(core, Before::Sheet(&before), &record, live, now));
        sheet.unpaid.follow(&before);
        self.sheet.store(sheet.clone());
        self.core.put_in_force(&sheet);
        before.replaced.store(true, Ordering::Release);
        // After that: what the old one opens from now on it retires by itself.
        for lease in before.open_leases().filter(|lease| !sheet.has(lease)) {
            self.core.hub.retired.add(lease.clone());
        }
        late::settle_debts(&sheet, now); // with a grant that was just given
        sheet
    }

    fn locked(&self) -> MutexGuard<'_, KeptRecord> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
