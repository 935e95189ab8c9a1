//! Work the hot path leaves for background tasks: leases to renew, sheets and leases to record.
//! Pushing never waits; each item is in hand at most once.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::{Notify, mpsc};

use crate::clock::{Clock, Now};
use crate::holders::{Holder, is_held_only_by};
use crate::patience::Progress;
use crate::policy::scoped::{ScopedTable, WithoutValue};
use crate::quota::lease::{Lease, Listed};
use crate::rates::{LimitId, ThrottledLimits};
use crate::repeated::repeated;
use crate::sheets::sheet::Sheet;
use crate::store::Reach;

/// Most leases waiting for the renewer. A lease is in hand at most once, so this is a bound on
/// tenants whose leases run out in the same instant; beyond it a request retries by itself.
pub(crate) const RENEWAL_QUEUE: usize = 65_536;

/// Retired leases looked at before other tasks get a turn: well under a millisecond.
const RETIRED_AT_ONCE: usize = 1_024;

/// Out of 256 new pools, how many must already exist for this process to read before creating: a
/// read costs a fifth of a refused write.
const LOOK_FIRST: u32 = 256 / 5;

/// The initial guess of a process that shares its store: it reads first, until two pools in a row
/// were missing.
const EXPECTED: u32 = 256 / 4;

/// An item whose totals have risen since they were last recorded.
#[derive(Clone, Debug)]
pub(crate) enum Dirty {
    /// A tenant's use row and the leases in its sheet.
    Sheet(Arc<Sheet>),
    /// A lease of a key, user or address.
    Lease(Arc<Lease>),
}

/// Sheets waiting for answers to leases, in order of arrival.
#[derive(Debug, Default)]
struct After {
    /// Keyed by the lease's address.
    places: HashMap<usize, u64>,
    waiting: BTreeMap<u64, (Arc<Lease>, Vec<Arc<Sheet>>)>,
    next: u64,
    /// Sheets whose lease was answered and that are being paid right now.
    settling: Vec<Arc<Sheet>>,
}

/// Sheets whose lease was answered. They count as unpaid until this is dropped.
pub(crate) struct Answered<'a> {
    hub: &'a Hub,
    pub(crate) sheets: Vec<Arc<Sheet>>,
}

impl Drop for Answered<'_> {
    fn drop(&mut self) {
        if self.sheets.is_empty() {
            return;
        }
        let mut after = locked(&self.hub.after);
        for sheet in &self.sheets {
            if let Some(at) = after.settling.iter().position(|it| Arc::ptr_eq(it, sheet)) {
                after.settling.swap_remove(at);
            }
        }
        drop(after);
        self.hub.paid.notify_waiters();
    }
}

/// The incarnation under which this process leases and records. A sealed one is replaced by
/// another.
#[derive(Debug)]
struct Incarnation {
    /// 0 before it is registered.
    now: Mutex<u128>,
    /// The incarnation that was found sealed, or 0.
    sealed: Mutex<u128>,
}

/// See the [module](self).
pub(crate) struct Hub {
    incarnation: Incarnation,
    /// Wakes the task that resolves tenants again under a new incarnation.
    new_writer: Notify,
    /// Leases that may serve no more until a higher ceiling is on record.
    capped: Mutex<Vec<Arc<Lease>>>,
    /// Wakes the recorder for them.
    pub(crate) hurry: Notify,
    /// Leases with units that other processes could take back, noted since the recorder last asked:
    /// until those units may be served or have gone back, it shows that this process lives.
    reclaimable: Mutex<Vec<Weak<Lease>>>,
    renewer: mpsc::Sender<Arc<Lease>>,
    dirty: Mutex<Vec<Dirty>>,
    /// Leases that no sheet holds any more: given back once their last permit is gone.
    retired: Mutex<VecDeque<Arc<Lease>>>,
    /// Sheets whose late use or debts wait for an answer to a lease.
    after: Mutex<After>,
    /// Wakes tasks that wait for all of it to be paid.
    paid: Notify,
    /// Counts answers to leases.
    answers: AtomicU64,
    /// Whether rates are shared with other nodes.
    shares_rates: AtomicBool,
    /// Rate limits that have refused since the last slot, and the slot's number.
    told: Mutex<ThrottledLimits>,
    slot: AtomicU16,
    /// Wakes the recorder where it does not wait for its interval (`durable`).
    pub(crate) dirtied: Notify,
    pub(crate) scoped: ScopedTable,
    pub(crate) without_value: WithoutValue,
    /// Permits that have not ended. On its own, so that nothing shares its cache line.
    pub(crate) open_permits: Box<AtomicU64>,
    /// The last flush is over: nothing more is recorded.
    has_ended: AtomicBool,
    /// Whether the store is known to be away: then no request waits for units.
    pub(crate) reach: Reach,
    /// Until when compacted tenants hold units.
    idle_until_ms: AtomicI64,
    /// Out of 256 pools this process was about to create, how many already existed, lately.
    made_by_others: AtomicU32,
    /// Numbers use rows.
    pub(crate) parts: AtomicU32,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Hub {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> (Arc<Self>, mpsc::Receiver<Arc<Lease>>) {
        let (renewer, queue) = mpsc::channel(RENEWAL_QUEUE);
        let hub = Self {
            incarnation: Incarnation { now: Mutex::new(0), sealed: Mutex::new(0) },
            new_writer: Notify::new(),
            capped: Mutex::default(),
            reclaimable: Mutex::default(),
            hurry: Notify::new(),
            renewer,
            dirty: Mutex::default(),
            retired: Mutex::default(),
            shares_rates: AtomicBool::new(false),
            without_value: WithoutValue::default(),
            told: Mutex::default(),
            slot: AtomicU16::new(1),
            after: Mutex::default(),
            paid: Notify::new(),
            answers: AtomicU64::new(0),
            dirtied: Notify::new(),
            scoped: ScopedTable::default(),
            open_permits: Box::default(),
            has_ended: AtomicBool::new(false),
            reach: Reach::default(),
            idle_until_ms: AtomicI64::new(i64::MIN),
            made_by_others: AtomicU32::new(0),
            parts: AtomicU32::new(0),
            clock,
        };
        (Arc::new(hub), queue)
    }

    /// The incarnation that leases and records now.
    pub(crate) fn incarnation(&self) -> u128 {
        *locked(&self.incarnation.now)
    }

    /// Makes this one current. It is registered.
    pub(crate) fn set_writer(&self, incarnation: u128) {
        let before = std::mem::replace(&mut *locked(&self.incarnation.now), incarnation);
        if before != 0 {
            self.new_writer.notify_one();
        }
    }

    /// Returns once there is a newer incarnation than at the last call.
    pub(crate) async fn new_writer_notified(self: Arc<Self>) {
        self.new_writer.notified().await;
    }

    /// This incarnation's log was sealed by another process: the recorder must begin another.
    pub(crate) fn note_sealed(&self, incarnation: u128) {
        *locked(&self.incarnation.sealed) = incarnation;
        self.hurry.notify_one();
    }

    /// Whether the current incarnation has been sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        let sealed = *locked(&self.incarnation.sealed);
        sealed != 0 && sealed == self.incarnation()
    }

    /// Notes a lease that waits for a higher ceiling: it is recorded soon.
    pub(crate) fn raise(&self, lease: &Arc<Lease>) {
        if lease.listed.put(Listed::CAPPED) {
            locked(&self.capped).push(lease.clone());
        }
        self.hurry.notify_one();
    }

    /// Takes the leases that wait for a higher ceiling.
    pub(crate) fn take_capped(&self) -> Vec<Arc<Lease>> {
        let capped = std::mem::take(&mut *locked(&self.capped));
        capped.iter().for_each(|lease| _ = lease.listed.take(Listed::CAPPED));
        capped
    }

    /// Notes a lease whose units other processes could take back, even if none is ever used.
    pub(crate) fn note_reclaimable(&self, lease: &Arc<Lease>) {
        if lease.may_be_reclaimed() && lease.listed.put(Listed::RECLAIMABLE) {
            locked(&self.reclaimable).push(Arc::downgrade(lease));
        }
    }

    /// Takes the leases that were noted.
    pub(crate) fn take_reclaimable(&self) -> Vec<Weak<Lease>> {
        let noted = std::mem::take(&mut *locked(&self.reclaimable));
        let there = noted.iter().filter_map(Weak::upgrade);
        there.for_each(|lease| _ = lease.listed.take(Listed::RECLAIMABLE));
        noted
    }

    /// Hands a lease to the renewer, unless it is there.
    pub(crate) fn wake(&self, lease: &Arc<Lease>) {
        if lease.queue() && self.renewer.try_send(lease.clone()).is_err() {
            // Full, or the gate is closed: the next request that needs units tries again.
            lease.unqueue();
        }
    }

    /// Waits for `n` atoms that were asked for: until they are here, or known to be unavailable.
    pub(crate) async fn answer_for(&self, lease: &Arc<Lease>, n: u64) {
        while !lease.answer_for(n, &*self.clock).await {
            lease.want(n);
            self.wake(lease);
        }
    }

    /// Notes that a sheet has totals to record.
    pub(crate) fn mark_sheet_dirty(&self, sheet: &Arc<Sheet>) {
        if sheet.mark_dirty() {
            if self.has_ended.load(Ordering::Acquire) {
                self.say_unrecorded(&sheet.tenant.id);
            }
            self.dirty().push(Dirty::Sheet(sheet.clone()));
        }
    }

    /// Nothing is recorded any more. Returns for how many tenants and scoped leases there is
    /// something that is not on record.
    pub(crate) fn ends(&self) -> usize {
        self.has_ended.store(true, Ordering::Release);
        self.soiled_len()
    }

    #[cold]
    fn say_unrecorded(&self, tenant: &str) {
        const TEXT: &str = "usage after the gate was closed is not recorded: end all work before";
        repeated!(warn, self.clock.now().wall_ms, TEXT; tenant);
    }

    /// Notes that a scoped lease has a total to record.
    pub(crate) fn mark_lease_dirty(&self, lease: &Arc<Lease>) {
        if lease.mark_dirty() {
            self.dirty().push(Dirty::Lease(lease.clone()));
        }
    }

    /// Other processes may have created pools: most that a fresh process looks for exist.
    pub(crate) fn expect_pools(&self) {
        self.made_by_others.store(EXPECTED, Ordering::Relaxed);
    }

    /// Notes whether a pool this process had not seen existed.
    pub(crate) fn pool_was_there(&self, there: bool) {
        // A race may lose one update, which costs nothing.
        let before = self.made_by_others.load(Ordering::Relaxed);
        let after = (before * 7 + if there { 256 } else { 0 }) / 8;
        self.made_by_others.store(after, Ordering::Relaxed);
    }

    /// Whether other processes create needed pools so often that reading first is cheaper.
    pub(crate) fn others_make_pools(&self) -> bool {
        self.made_by_others.load(Ordering::Relaxed) > LOOK_FIRST
    }

    /// Takes what is to be recorded, leaving as much capacity behind.
    pub(crate) fn take_dirty(&self) -> Vec<Dirty> {
        let mut dirty = self.dirty();
        let room = Vec::with_capacity(dirty.capacity());
        std::mem::replace(&mut *dirty, room)
    }

    /// Rates are shared with other nodes from now on.
    pub(crate) fn share_rates(&self) {
        self.shares_rates.store(true, Ordering::Relaxed);
    }

    /// Whether rates are shared with other nodes.
    pub(crate) fn shares_rates(&self) -> bool {
        self.shares_rates.load(Ordering::Relaxed)
    }

    /// The number of the current reporting slot for rate limits; never 0.
    pub(crate) fn slot(&self) -> u16 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Reports a rate limit that has refused.
    pub(crate) fn tell(&self, limit: LimitId) {
        locked(&self.told).tell(limit);
    }

    /// Takes the reported limits and begins another slot.
    pub(crate) fn take_told(&self) -> BTreeSet<LimitId> {
        let next = |slot: u16| Some(slot.checked_add(1).unwrap_or(1));
        let _ = self.slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        std::mem::take(&mut *locked(&self.told)).ids()
    }

    /// How many answers leases have had.
    pub(crate) fn answers(&self) -> u64 {
        self.answers.load(Ordering::Acquire)
    }

    /// How far the call for this lease has come.
    pub(crate) fn progress(&self, lease: &Lease) -> Progress {
        Progress {
            is_in_line: lease.is_in_line(),
            of_line: self.answers(),
            own: lease.answer_no.load(Ordering::Relaxed),
        }
    }

    /// Has late use or debts of this sheet looked at again once the lease has been answered. False:
    /// it was answered after the first `seen` answers, perhaps to what this sheet has asked since,
    /// and there may be no other answer to wait for.
    #[must_use]
    pub(crate) fn settle_after(&self, lease: &Arc<Lease>, sheet: &Arc<Sheet>, seen: u64) -> bool {
        let mut after = locked(&self.after);
        if lease.answer_no.load(Ordering::Relaxed) > seen {
            return false;
        }
        let After { places, waiting, next, .. } = &mut *after;
        let place = *places.entry(Arc::as_ptr(lease).addr()).or_insert_with(|| {
            *next += 1;
            *next
        });
        let (_, sheets) = waiting.entry(place).or_insert_with(|| (lease.clone(), Vec::new()));
        if !sheets.iter().any(|known| Arc::ptr_eq(known, sheet)) {
            sheets.push(sheet.clone());
        }
        true
    }

    /// The lease has been answered: takes the sheets that wait for it.
    pub(crate) fn take_after(&self, lease: &Arc<Lease>) -> Answered<'_> {
        let mut after = locked(&self.after);
        // Under the lock, so that a sheet that asks just now either is taken here or sees it.
        let number = self.answers.fetch_add(1, Ordering::AcqRel) + 1;
        lease.answer_no.store(number, Ordering::Relaxed);
        let place = after.places.remove(&Arc::as_ptr(lease).addr());
        let taken = place.and_then(|place| after.waiting.remove(&place));
        let sheets = taken.map_or_else(Vec::new, |(_, sheets)| sheets);
        after.settling.extend(sheets.iter().cloned());
        Answered { hub: self, sheets }
    }

    /// Asks again for the leases that late use waits for, of one tenant or of all. False: all of it
    /// has been paid.
    fn ask_after(&self, of: Option<&Arc<Sheet>>) -> bool {
        let is_of = |sheet: &Arc<Sheet>| of.is_none_or(|of| Arc::ptr_eq(&of.tenant, &sheet.tenant));
        let after = locked(&self.after);
        let waiting = after.waiting.values().filter(|(_, sheets)| sheets.iter().any(is_of));
        let leases: Vec<_> = waiting.map(|(lease, _)| lease.clone()).collect();
        let is_settling = after.settling.iter().any(is_of);
        drop(after);
        leases.iter().for_each(|lease| self.wake(lease));
        is_settling || !leases.is_empty()
    }

    /// Waits until the late use of this sheet's tenant, or of all, has been paid or is owed; the
    /// caller bounds the wait.
    pub(crate) async fn all_paid(&self, of: Option<&Arc<Sheet>>) {
        loop {
            let mut paid = std::pin::pin!(self.paid.notified());
            paid.as_mut().enable();
            if !self.ask_after(of) {
                return;
            }
            paid.await;
        }
    }

    /// Takes all waiting sheets, whatever they wait for.
    pub(crate) fn take_all_after(&self) -> Vec<Arc<Sheet>> {
        let mut after = locked(&self.after);
        after.places.clear();
        let all = std::mem::take(&mut after.waiting);
        all.into_values().flat_map(|(_, sheets)| sheets).collect()
    }

    /// Retires a lease that no sheet holds any more.
    pub(crate) fn retire(&self, lease: Arc<Lease>) {
        lease.listed.put(Listed::WANTED);
        if lease.listed.put(Listed::RETIRED) {
            locked(&self.retired).push_back(lease);
        }
    }

    /// A retired lease is in use again: it leaves the list at the next pass.
    pub(crate) fn unretire(&self, lease: &Arc<Lease>) {
        lease.listed.take(Listed::WANTED);
    }

    /// All retired leases, in use or not: the gate closes.
    pub(crate) fn take_all_retired(&self) -> Vec<Arc<Lease>> {
        std::mem::take(&mut *locked(&self.retired)).into()
    }

    /// Gives back retired leases with units that others can use; the rest are dropped once only
    /// this list and their tenant hold them. A request in flight keeps its lease, a caller at rest
    /// only an old sheet with it, which does not stop units that no request holds from going back.
    ///
    /// At the turn of an hour there is one for each tenant: other tasks run in between, and
    /// retiring another lease never waits for this.
    pub(crate) async fn return_retired(&self) {
        let mut to_see = locked(&self.retired).len();
        while to_see > 0 {
            // While drained they are in no list, so nothing is awaited before they are back.
            let some = to_see.min(RETIRED_AT_ONCE);
            let some: Vec<_> = {
                let mut retired = locked(&self.retired);
                let some = some.min(retired.len());
                retired.drain(..some).collect()
            };
            if some.is_empty() {
                return;
            }
            to_see -= some.len();
            let now = self.clock.now();
            let kept: Vec<_> = some.into_iter().filter(|lease| self.keeps(lease, now)).collect();
            locked(&self.retired).extend(kept);
            tokio::task::yield_now().await;
        }
    }

    /// Whether a lease taken from the list goes back there.
    fn keeps(&self, lease: &Arc<Lease>, now: Now) -> bool {
        // Before the checks: a lease retired again from here on is put back by that call.
        lease.listed.take(Listed::RETIRED);
        if !lease.listed.has(Listed::WANTED) {
            return false;
        }
        let is_done = lease.is_returned() && !lease.is_unlogged();
        let is_over = lease.is_over(now.wall_ms);
        let is_alone = is_held_only_by(lease, [Holder::Tenant, Holder::Asker]);
        let is_closed = lease.open_holds() == 0;
        if !is_done && !is_over && (is_alone || is_closed) {
            if lease.incarnation() == self.incarnation() {
                lease.rest();
            } else {
                lease.close(); // nothing more is drawn, also for asks made while in use
            }
            self.wake(lease);
        }
        !(is_alone && (is_done || is_over)) && lease.listed.put(Listed::RETIRED)
    }

    /// Notes a compacted tenant that holds units until then.
    pub(crate) fn idle_hold_until(&self, until_ms: i64) {
        self.idle_until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// No compacted tenant holds units after this instant.
    pub(crate) fn idle_hold_only_until(&self, until_ms: i64) {
        self.idle_until_ms.store(until_ms, Ordering::Release);
    }

    /// Whether compacted tenants hold units in a current window.
    pub(crate) fn asleep_hold_units(&self, now_ms: i64) -> bool {
        self.idle_until_ms.load(Ordering::Acquire) > now_ms
    }

    /// How many tenants and scoped leases have something to record.
    pub(crate) fn soiled_len(&self) -> usize {
        self.dirty().len()
    }

    fn dirty(&self) -> MutexGuard<'_, Vec<Dirty>> {
        locked(&self.dirty)
    }
}

/// A panic leaves nothing here half done.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("dirty", &self.soiled_len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::payers::late::LateUse;
    use crate::payers::purse;
    use crate::policy::scoped::ScopesOf;
    use crate::quota::lease::Take;

    #[tokio::test]
    async fn late_use_counts_as_unpaid_while_it_is_being_paid() {
        let (gate, _clock) = crate::testing::gate(
            r#"
            default-plan = "free"
            [plan.free]
            quota.requests = "10/day"
            "#,
        );
        let tenant = gate.tenant("acme").await.unwrap();
        let (inner, other) = (&gate.inner, gate.tenant("other").await.unwrap());
        let sheet =
            |of: &crate::TenantHandle| of.0.sheet(&inner.catalogs.live.load(), inner.clock.now());
        let (sheet, other) = (sheet(&tenant), sheet(&other));
        let (hub, lease) = (&inner.hub, purse::lease_of(&sheet, 0));
        assert!(hub.settle_after(lease, &sheet, hub.answers()));
        assert!(hub.ask_after(Some(&sheet)) && !hub.ask_after(Some(&other)));
        let answered = hub.take_after(lease);
        assert!(hub.ask_after(Some(&sheet)) && hub.ask_after(None), "it is not paid yet");
        assert!(!hub.ask_after(Some(&other)));
        drop(answered);
        assert!(!hub.ask_after(None));
        // An answer that comes between asking and waiting is not waited for: it was the last.
        let before = hub.answers();
        drop(hub.take_after(lease));
        assert!(!hub.settle_after(lease, &sheet, before) && !hub.ask_after(None));
        assert!(hub.settle_after(lease, &sheet, hub.answers()) && hub.ask_after(None));
    }

    #[tokio::test(start_paused = true)]
    async fn late_use_is_paid_by_what_a_request_gives_back_before_the_lease_is_asked() {
        let (gate, clock) = crate::testing::gate(
            r#"
            default-plan = "free"
            [plan.free]
            quota.requests = "100/day"
            "#,
        );
        let tenant = gate.tenant("acme").await.unwrap();
        let inner = &gate.inner;
        let sheet = tenant.0.sheet(&inner.catalogs.live.load(), inner.clock.now());
        let (hub, lease, now) = (&inner.hub, purse::lease_of(&sheet, 0), clock.now());
        lease.want(1);
        hub.wake(lease);
        hub.answer_for(lease, 1).await;
        let all = lease.here();
        assert!(matches!(lease.take(all, now), Take::Taken { .. }));
        let meter = sheet.policy.pools[0].meter;
        LateUse { sheet: &sheet, scopes: ScopesOf::default(), now }.pay(meter, all);
        assert!(sheet.unpaid.is_some(), "the renewer has not run since");
        lease.release(all);
        let paid = tokio::time::timeout(Duration::from_secs(1), hub.all_paid(Some(&sheet)));
        paid.await.expect("without another request");
        assert_eq!((sheet.unpaid.is_some(), lease.total()), (false, all));
    }
}
