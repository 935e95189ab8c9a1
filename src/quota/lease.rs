//! A lease: units of one pool that this process has taken in advance and serves from memory.
//!
//! Two structs. Requests draw from an [`AtomicBalance`]: what is left, what was settled, and when
//! it is worth asking for more. The [`Negotiation`] with the pool is a plain state machine behind a
//! lock: it says which call to make next, and what came back. One call is in flight at a time;
//! after an unknown outcome the identical call is repeated, and the state that comes back is
//! adopted, never computed. The lease joins them: each step of the negotiation reads the balance,
//! and what it has changed is applied.
//!
//! # Laws
//!
//! 1. `left + withheld + open holds + total == bound`: the smaller of what the pool's entry says
//!    this process has and the larger of what that entry pre-authorised and the highest ceiling in
//!    the usage log. `left` is raised only by what the store has acknowledged, so what is served
//!    never passes it, and the entry and the log together show what cannot have been served.
//! 2. `total` (settled use) never falls.
//! 3. Before units are given back, `left` is lowered by them.
//! 4. What the pool lacks, owed or given out before its limit was lowered, is withheld: it makes
//!    `left` negative, and what requests give back fills that first.
//! 5. Units served beyond the lease (a cost learned late) make `left` negative: a debt. While it
//!    stands nothing is admitted, and what is released or granted pays it first.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::balance::{AtomicBalance, Balance, signed};
use self::call::{Context, Fixed};
use self::negotiation::{Closing, Negotiation};
use crate::catalog::Window;
use crate::clock::Now;
use crate::ids::{SubPoolNumber, WriterId};
use crate::quota::alert::{AlertRule, Alerting, Due};
use crate::quota::demand::RootSeen;
use crate::quota::pool::{PoolId, Terms};
use crate::store::{Item, StoreError};

mod answer;
mod ask;
pub(crate) mod at_rest;
mod balance;
mod call;
mod ceiling;
mod debt;
mod give;
mod limit;
mod listed;
mod negotiation;
mod rarely;
mod record;
mod remaining;
mod size;
mod wait;

pub(crate) use self::balance::MOST;
pub(crate) use self::call::{LeaseCall, Seek, Writer};
pub(crate) use self::listed::Listed;

/// How long after its slot a slot's lease is forgotten: there is another every few seconds. If a
/// clock steps back into the slot, what was leased of it counts as used.
pub(crate) const SLOT_OVER_MS: i64 = 5_000;

/// A lease with more unused units than one part in this of its limit (1 %) is worth giving back
/// when it falls quiet.
const OF_NOTE: i64 = 100;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lease {
    fixed: Fixed,
    balance: AtomicBalance,
    negotiation: Mutex<Negotiation>,
    /// The revision of its terms.
    rev: AtomicI64,
    /// Alerts of its quota, if there are any.
    alerting: Mutex<Option<Box<Alerting>>>,
    /// Whether it is with the renewer, or queued for it.
    queued: AtomicBool,
    /// Turns of it that have begun at the renewer and have not ended.
    turns: AtomicU16,
    /// Whether it is queued for the recorder (leases of narrower scope than the tenant).
    dirty: AtomicBool,
    /// Which of the hub's lists it is on.
    pub(crate) listed: Listed,
    /// The number of its last answer among all answers of this process; the hub sets it.
    pub(crate) answer_no: AtomicU64,
}

/// The result of an attempt to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Take {
    /// Taken. `renew`: it is time to ask for more, ahead of need.
    Taken { renew: bool },
    /// Not enough here, and the pool may have more.
    Need,
    /// Not enough here, nor in the pool when it was last asked.
    Exhausted,
}

/// How a lease is made.
impl Lease {
    /// A lease that holds nothing yet. `first_ask` is the usual ask, which sets the first size.
    pub(crate) fn new(pool: PoolId, end_ms: i64, terms: Terms, first_ask: u64) -> Self {
        let mut negotiation = Negotiation::new(terms, first_ask);
        if !pool.is_once() {
            negotiation.size_by_limit();
        }
        let fixed = Fixed {
            pool,
            incarnation: WriterId::NONE,
            end_ms,
            ttl: None,
            of_slot: false,
            bills: false,
        };
        let balance = Balance { free: terms.limit, ..Balance::default() };
        Self::with(fixed, balance, negotiation)
    }

    fn with(fixed: Fixed, balance: Balance, mut negotiation: Negotiation) -> Self {
        negotiation.tidy();
        Self {
            fixed,
            balance: AtomicBalance::new(balance),
            rev: negotiation.terms.rev.into(),
            negotiation: Mutex::new(negotiation),
            alerting: Mutex::default(),
            queued: AtomicBool::new(false),
            turns: AtomicU16::new(0),
            dirty: AtomicBool::new(false),
            listed: Listed::default(),
            answer_no: AtomicU64::new(0),
        }
    }

    /// Sets the incarnation.
    pub(crate) fn under(mut self, incarnation: WriterId) -> Self {
        self.fixed.incarnation = incarnation;
        self
    }

    /// Sets when its pool may be deleted.
    pub(crate) fn forgotten_at(mut self, ttl: Option<i64>) -> Self {
        self.fixed.ttl = ttl;
        self
    }

    /// Marks it as a lease of a slot of a strict rate.
    pub(crate) fn of_slot(mut self, of_slot: bool) -> Self {
        self.fixed.of_slot = of_slot;
        self
    }

    /// Sets whether its quota bills.
    pub(crate) fn billing(mut self, bills: bool) -> Self {
        self.fixed.bills = bills;
        self
    }

    /// Sets the alerts to raise.
    pub(crate) fn alerting(self, alerting: Option<Alerting>) -> Self {
        *self.alerts() = alerting.map(Box::new);
        self
    }
}

/// What a lease is of.
impl Lease {
    pub(crate) fn pool(&self) -> &PoolId {
        &self.fixed.pool
    }

    /// The window of its pool.
    pub(crate) fn window(&self) -> Window {
        Window { start_ms: self.fixed.pool.start_ms, end_ms: self.fixed.end_ms }
    }

    /// The incarnation that owns its entry and log.
    pub(crate) fn incarnation(&self) -> WriterId {
        self.fixed.incarnation
    }

    pub(crate) fn is_of_slot(&self) -> bool {
        self.fixed.of_slot
    }

    /// Whether what is left of it has no further use.
    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        let more_ms = if self.fixed.bills { ask::MAKE_WITHIN_MS } else { 0 };
        self.fixed.end_ms.saturating_add(more_ms) <= now_ms
    }
}

/// What requests do with it. Nothing here locks, unless a refusal is looked at while units move.
impl Lease {
    /// Takes `n` atoms if they are here: one compare-and-swap.
    pub(crate) fn take(&self, n: u64, now: Now) -> Take {
        match self.balance.take(n) {
            Some(left) => Take::Taken { renew: self.balance.is_low(left) },
            None => self.short(n, now),
        }
    }

    #[cold]
    fn short(&self, n: u64, now: Now) -> Take {
        if self.is_refused(n, now) {
            return Take::Exhausted;
        }
        self.want(n);
        Take::Need
    }

    /// Takes `n` atoms even below zero, down to `floor`: what `on-lease-error` admits while the
    /// store is away.
    pub(crate) fn take_down_to(&self, n: u64, floor: i64) -> bool {
        self.balance.take_down_to(n, floor)
    }

    /// Gives back `n` atoms of a hold.
    pub(crate) fn release(&self, n: u64) {
        self.balance.release(n);
    }

    /// Settles `n` atoms of a hold: they were used.
    pub(crate) fn settle(&self, n: u64) {
        self.balance.settle(n);
    }

    /// Settles `n` atoms that no hold covers: what is left pays, the rest is a debt. A total stops
    /// at [`MOST`]: returns how much was settled.
    pub(crate) fn settle_late(&self, n: u64) -> u64 {
        self.balance.settle_late(n)
    }

    /// Asks the pool for `n` atoms with its next call.
    pub(crate) fn want(&self, n: u64) {
        self.balance.want(n);
    }

    /// Atoms that may still be taken; negative is a debt.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn left(&self) -> i64 {
        self.balance.left()
    }

    /// Atoms that may be taken without asking the pool.
    pub(crate) fn here(&self) -> u64 {
        u64::try_from(self.balance.left()).unwrap_or(0)
    }

    /// Atoms settled by this process.
    pub(crate) fn total(&self) -> u64 {
        self.balance.total()
    }

    /// Whether the limit was changed within the window.
    #[inline]
    pub(crate) fn has_moved(&self) -> bool {
        self.balance.has_moved()
    }

    /// Whether anything is owed; takes no lock, and is the whole answer for most leases.
    pub(crate) fn is_in_debt(&self) -> bool {
        self.balance.is_in_debt()
    }

    /// Whether the pool was never read; takes no lock either.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.balance.is_seen()
    }

    /// Whether the pool had too little when it was last asked.
    pub(crate) fn is_refused_now(&self, now: Now) -> bool {
        self.is_refused(u64::MAX, now)
    }

    fn is_refused(&self, n: u64, now: Now) -> bool {
        let short = || signed(n).saturating_sub(self.of_all());
        self.balance.refused_from(now).is_some_and(|refused| short() >= refused)
    }
}

/// Its places in queues and lists.
impl Lease {
    /// Sets the queued flag. If it was clear, returns true and the caller must enqueue the lease.
    pub(crate) fn queue(&self) -> bool {
        !self.queued.load(Ordering::SeqCst) && !self.queued.swap(true, Ordering::SeqCst)
    }

    /// Whether it is with the renewer, or on its way there.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn is_queued(&self) -> bool {
        self.queued.load(Ordering::SeqCst)
    }

    /// Whether it waits for its turn at the renewer, behind other leases.
    pub(crate) fn is_in_line(&self) -> bool {
        self.queued.load(Ordering::SeqCst) && self.turns.load(Ordering::Relaxed) == 0
    }

    /// The renewer begins to call for it, until [`ends_turn`](Self::ends_turn).
    pub(crate) fn begins_turn(&self) {
        self.turns.fetch_add(1, Ordering::Relaxed);
    }

    /// The renewer has done what there was to do.
    pub(crate) fn ends_turn(&self) {
        self.turns.fetch_sub(1, Ordering::Relaxed);
    }

    /// Clears the queued flag: the lease did not reach the renewer after all.
    pub(crate) fn unqueue(&self) {
        self.queued.store(false, Ordering::Release);
    }

    /// Sets the dirty flag. If it was clear, returns true and the caller must hand the lease to the
    /// recorder; [`clear_dirty`](Self::clear_dirty) resets it.
    ///
    /// Adding to a total and then reading the flag, and clearing the flag and then reading the
    /// total, are in one order for all threads: otherwise both sides could miss the last addition.
    pub(crate) fn mark_dirty(&self) -> bool {
        !self.dirty.load(Ordering::SeqCst) && !self.dirty.swap(true, Ordering::SeqCst)
    }

    pub(crate) fn clear_dirty(&self) {
        self.dirty.store(false, Ordering::SeqCst);
    }

    /// `total`, if it has risen since it was last logged; marks it as logged.
    pub(crate) fn unlogged(&self) -> Option<u64> {
        if self.fixed.of_slot { None } else { self.balance.unlogged() }
    }

    /// Whether the log lacks some of the total.
    pub(crate) fn is_unlogged(&self) -> bool {
        !self.fixed.of_slot && self.balance.is_unlogged()
    }
}

/// Its alerts.
impl Lease {
    /// Replaces the alerts of its quota.
    pub(crate) fn realert(&self, tenant: &Arc<str>, rule: Option<&Arc<AlertRule>>) {
        match (&mut *self.alerts(), rule) {
            (Some(alerting), Some(rule)) => alerting.follow(rule),
            (alerting @ None, Some(rule)) => {
                *alerting = Some(Box::new(Alerting::new(tenant.clone(), rule.clone())));
            }
            (alerting, None) => *alerting = None,
        }
    }

    /// The alert that is due, if use has passed a percentage of the limit. `taken` are the atoms
    /// out of the pool; `None`: as this process last saw it.
    pub(crate) fn due_alert(&self, taken: Option<i64>) -> Option<Due> {
        let alerts = self.alerts();
        let alerting = alerts.as_ref()?;
        let used = self.read(|it, at| it.used_of_all(at, taken));
        alerting.due(used, self.window())
    }

    /// Marks this much use as alerted.
    pub(crate) fn alert_is_told(&self, used: i64) {
        if let Some(alerting) = &mut *self.alerts() {
            alerting.settle(used);
        }
    }
}

/// What the renewer does with it.
impl Lease {
    /// The call to make now, or `None` if there is nothing to ask for; the lease may then be queued
    /// again. While a call is in flight, returns that same call.
    pub(crate) fn next(&self, writer: &Writer, now: Now) -> Option<LeaseCall> {
        let mut negotiation = self.negotiation();
        let with = Context { of: &self.fixed, writer, now };
        loop {
            let gives = negotiation.may_give_back();
            let call = self.step_of(&mut negotiation, gives, |it, at| it.next(at, with));
            if call.is_some() {
                return call;
            }
            // Only now may it be queued again: two drivers of one lease would make two calls at
            // once, and a late answer would be taken for the newer one. An ask made while it was
            // still in hand did not queue it, so check once more.
            self.queued.store(false, Ordering::SeqCst);
            let asked = self.step_of(&mut negotiation, false, |it, at| it.is_asked_again(at, now));
            if !asked || self.queued.swap(true, Ordering::SeqCst) {
                return None;
            }
        }
    }

    /// Takes in the answer to the call from [`next`](Self::next). `Ok(true)`: call `next` again at
    /// once. After an unknown outcome the call stays in flight until it is answered, however its
    /// repeats fail; after any other error it is dropped, because it was not applied.
    pub(crate) fn answered(
        &self,
        writer: &Writer,
        now: Now,
        answer: Result<Option<Item>, StoreError>,
    ) -> Result<bool, StoreError> {
        let with = Context { of: &self.fixed, writer, now };
        self.step(|it, at| it.answered(at, with, answer))
    }

    /// The pool may have more than when it refused.
    pub(crate) fn forget_refusal(&self) {
        self.step(|it, at| (at.refused_until_ns, it.stale) = (0, true));
    }

    /// Another process has probably created its pool: read it before creating it.
    pub(crate) fn look_first(&self) {
        let mut it = self.negotiation();
        it.unseen |= it.view.is_none();
    }

    /// Whether it has not seen its pool yet.
    pub(crate) fn is_unseen(&self) -> bool {
        self.negotiation().view.is_none()
    }

    /// The pool was found to have so many writers that this lease draws on its shard from now on.
    /// The call in flight has been answered; it has changed nothing.
    pub(crate) fn divert(&self, shard: SubPoolNumber) {
        self.negotiation().divert(shard);
    }

    /// Whether it has a shard, or is to stay with the root.
    pub(crate) fn has_place(&self) -> bool {
        let it = self.negotiation();
        it.shard.is_some() || it.in_root
    }

    /// Its root owes. If nothing of ours is in the shard and it has nothing to give, the lease
    /// moves to the root, where the debt is visible. No call is in flight.
    pub(crate) fn follow_debt(&self) {
        self.negotiation().follow_debt();
    }

    /// The shard that holds its entry; `None`: the pool itself.
    pub(crate) fn shard(&self) -> Option<SubPoolNumber> {
        self.negotiation().shard
    }

    /// Records the root as it was last read for this lease.
    pub(crate) fn saw_root(&self, root: RootSeen) {
        self.negotiation().root = root.into();
    }

    /// Whether another process closed the entry: this incarnation is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.negotiation().sealed
    }

    /// Whether it waits for a ceiling, not for the pool.
    pub(crate) fn is_capped(&self) -> bool {
        self.negotiation().ceiling.wanted
    }

    /// Whether it has given back all it could and its entry is gone.
    pub(crate) fn has_left(&self) -> bool {
        let it = self.negotiation();
        it.closing != Closing::No && it.view.is_some_and(|view| view.mine.is_none())
    }
}

/// Its terms, and its end.
impl Lease {
    /// The catalog or the directory has another limit, or the same one under a newer revision:
    /// other processes may have written one in between. Takes effect with the next call, which the
    /// next request that needs units triggers: a refusal under the old limit is forgotten, and
    /// units a lowered limit lacks are not served until then.
    pub(crate) fn retarget(&self, terms: Terms) {
        self.step(|it, at| {
            it.retarget(at, terms);
            self.rev.fetch_max(terms.rev, Ordering::Relaxed);
        });
    }

    /// [`retarget`](Self::retarget) for the common case, no news: takes no lock unless the terms
    /// are newer.
    pub(crate) fn retarget_if_changed(&self, terms: Terms) {
        if self.rev.load(Ordering::Relaxed) < terms.rev {
            self.retarget(terms);
        }
    }

    /// The limit as the catalog has it.
    pub(crate) fn terms(&self) -> Terms {
        self.negotiation().terms
    }

    /// The newest revision known here: of its own terms, or of those other processes have written.
    pub(crate) fn newest_rev(&self) -> i64 {
        let it = self.negotiation();
        it.view.map_or(it.terms.rev, |view| view.terms.rev.max(it.terms.rev))
    }

    /// Whether the pool was last seen before this revision, or lacks our limit; the next call then
    /// reads it. A sealed writer or a lease closing for good asks for nothing more.
    pub(crate) fn looks_anew(&self, rev: i64) -> bool {
        self.step(|it, at| it.looks_anew(at, rev))
    }

    /// Whether the pool was last seen before the view of this number; the next call then reads it:
    /// it may owe by now what was seen elsewhere.
    pub(crate) fn looks_after(&self, view_no: u64) -> bool {
        self.step(|it, at| it.view_no < view_no && it.look(at, true))
    }

    /// The lease is idle: what is left goes back, until the next ask.
    pub(crate) fn rest(&self) {
        let mut it = self.negotiation();
        if it.closing == Closing::No {
            it.closing = Closing::Resting;
            it.granted_ns = 0; // how long it lasted says nothing of what is needed
        }
    }

    /// Whether a process that dies would lose units of note with it: any of those that are given
    /// once, or more than one part in [`OF_NOTE`] of a limit.
    pub(crate) fn is_worth_returning(&self) -> bool {
        let is_once = self.fixed.pool.is_once();
        self.read(|it, at| {
            let unused = signed(it.unused(at));
            unused > 0 && (is_once || unused.saturating_mul(OF_NOTE) > it.terms.limit)
        }) && !self.is_of_slot()
    }

    /// The gate closes: from now on units are only given back.
    pub(crate) fn close(&self) {
        self.negotiation().closing = Closing::ForGood;
    }

    /// Whether nothing is left to give back and no call is in flight.
    pub(crate) fn is_returned(&self) -> bool {
        self.read(Negotiation::is_returned)
    }

    /// Whether it takes nothing more from its pool, whatever is asked of it: use that it cannot pay
    /// is owed, and never waits for it.
    pub(crate) fn takes_no_more(&self) -> bool {
        self.negotiation().takes_no_more()
    }

    /// Atoms taken by requests that have not ended.
    pub(crate) fn open_holds(&self) -> u64 {
        self.read(Negotiation::open_holds)
    }
}

/// Its debts.
impl Lease {
    /// Settles `n` atoms that nothing pays for.
    pub(crate) fn owe(&self, n: u64) {
        // What was not counted is not owed: no charge could ever cover it.
        let n = self.settle_late(n);
        self.step(|it, at| it.owe(at, n));
    }

    /// Atoms owed.
    pub(crate) fn debt(&self) -> u64 {
        if self.is_in_debt() { self.step(Negotiation::note_debt) } else { 0 }
    }

    /// The number of the view that showed the debt; 0: there is none, or it arose here.
    pub(crate) fn owes_since(&self) -> u64 {
        let debts = &self.negotiation().debts;
        if debts.seen > 0 { debts.since_no } else { 0 }
    }

    /// Atoms of the debt that can be paid from elsewhere, charged or not, even while requests hold
    /// units that could pay it on release. `None` while a payment is under way.
    pub(crate) fn payable(&self) -> Option<u64> {
        self.step(Negotiation::payable)
    }

    /// Whether a payment is on its way to the store.
    pub(crate) fn is_paying(&self) -> bool {
        self.negotiation().debts.pay.is_some()
    }

    /// Pays what is owed, with the next call, with atoms that were taken elsewhere;
    /// [`take_paid`](Self::take_paid) returns the result. False: another payment is under way, and
    /// this one is not made.
    #[must_use]
    pub(crate) fn pay(&self, n: u64) -> bool {
        self.step(|it, at| it.pay(at, n))
    }

    /// How much the payment has paid, returned once: at most what was owed by then, and at most
    /// what was brought.
    pub(crate) fn take_paid(&self) -> Option<u64> {
        self.negotiation().take_paid()
    }
}

/// Its ceiling.
impl Lease {
    /// The ceiling for the record being made: current use plus this much time of demand. `None`:
    /// the one in force has room for that.
    pub(crate) fn propose_ceiling(&self, now: Now, ahead: Duration) -> Option<u64> {
        self.step(|it, at| it.propose_ceiling(at, now, ahead))
    }

    /// A record with this ceiling is in the store.
    pub(crate) fn ceiling_logged(&self, ceiling: u64) {
        self.step(|it, at| it.ceiling_logged(at, ceiling));
    }

    /// Units held that only the ceiling keeps from being served.
    #[cfg(test)]
    pub(crate) fn capped(&self) -> u64 {
        let it = self.negotiation();
        it.held() - it.bound()
    }

    /// Whether other processes could reclaim units of it if they took this one for dead: it holds
    /// units above its bound.
    pub(crate) fn may_be_reclaimed(&self) -> bool {
        let it = self.negotiation();
        !it.sealed && it.held() > it.bound()
    }
}

/// How the two halves meet.
impl Lease {
    /// Makes a step of the negotiation.
    fn step<T>(&self, step: impl FnOnce(&mut Negotiation, &mut Balance) -> T) -> T {
        self.step_of(&mut self.negotiation(), false, step)
    }

    fn step_of<T>(
        &self,
        negotiation: &mut Negotiation,
        gives_back: bool,
        step: impl FnOnce(&mut Negotiation, &mut Balance) -> T,
    ) -> T {
        let (before, mut at) = self.balance.begin(gives_back);
        let result = step(negotiation, &mut at);
        negotiation.tidy();
        self.balance.apply(before, at);
        result
    }

    /// Looks at both halves while no step is made.
    fn read<T>(&self, read: impl FnOnce(&Negotiation, &Balance) -> T) -> T {
        let negotiation = self.negotiation();
        read(&negotiation, &self.balance.load())
    }

    fn negotiation(&self) -> MutexGuard<'_, Negotiation> {
        // A panic while it was held is a bug elsewhere; the state is whole between statements.
        self.negotiation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn alerts(&self) -> MutexGuard<'_, Option<Box<Alerting>>> {
        self.alerting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
