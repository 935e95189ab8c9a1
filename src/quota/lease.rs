//! A lease: units of one pool that this process has taken in advance and serves from memory.
//!
//! Two halves. The **hot** half is a handful of atomics: what is left, what was settled, and when
//! it is worth asking for more. The **cold** half is a state machine without I/O: [`Lease::next`]
//! says which write to make, [`Lease::answered`] reads what came back. One write is in flight at a
//! time; after an unknown outcome the identical write is repeated, and the state that comes back is
//! adopted, never computed.
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

use std::sync::atomic::{
    AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use self::ask::Op;
pub(crate) use self::ask::{LeaseCall, Seek};
use self::ceiling::Ceiling;
use self::debt::Debts;
use crate::catalog::Window;
use crate::clock::Now;
use crate::quota::alert::{AlertRule, Alerting, Due};
use crate::quota::pool::{Entry, PoolId, Terms, View};
use crate::store::layout::Space;

mod ask;
pub(crate) mod at_rest;
mod ceiling;
mod cold;
mod debt;
mod remaining;
mod size;
mod wait;

/// The first lease of a pool, in asks: small, because this process's demand is not known yet.
pub(crate) const FIRST_ASKS: u64 = 8;

/// Largest total of a lease or a use row, in atoms, so that sums of several stay in range. Anything
/// beyond it is a reporting mistake.
pub(crate) const MOST: u64 = 1 << 60;

/// The leasing process: its part of the table and its incarnation.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    pub(crate) space: Space,
    pub(crate) incarnation: u128,
}

/// How long after its slot a slot's lease is forgotten: there is another every few seconds. If a
/// clock steps back into the slot, what was leased of it counts as used.
pub(crate) const SLOT_OVER_MS: i64 = 5_000;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Lease {
    pool: PoolId,
    /// The incarnation that owns its entry and log.
    incarnation: u128,
    end_ms: i64,
    /// The TTL its pool is created with; see [`pool::ttl`].
    ttl: Option<i64>,
    /// Atoms that may still be taken; negative is a debt.
    left: AtomicI64,
    /// Atoms settled.
    total: AtomicU64,
    /// `total` as last written to the usage log; set by the flush alone.
    logged: AtomicU64,
    /// Renew when `left` falls below this.
    low: AtomicI64,
    /// Until then, asks whose shortfall against what is left of the pool is at least
    /// `refused_short` are refused without asking it. Requests that give units back lower the
    /// shortfall.
    refused_until_ns: AtomicU64,
    refused_short: AtomicI64,
    /// Largest ask since the last answer, and the sum of the asks waiting now.
    wanted: AtomicU64,
    waiting: AtomicU64,
    /// Counts up before and after units move between `left` and `free_seen`: odd while they do.
    moves: AtomicU32,
    /// Free units when the pool was last seen.
    free_seen: AtomicI64,
    /// The revision of its terms.
    rev: AtomicI64,
    /// Whether it is of a slot of a strict rate; see `ceiling.rs`.
    of_slot: bool,
    /// Whether its quota bills: its units pay for late use of its window, in any process, before
    /// that counts as overage. So what is left goes back even after the window.
    bills: bool,
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
    /// Whether anything of its pool is owed, and whether the pool was ever read.
    in_debt: AtomicBool,
    seen: AtomicBool,
    /// Whether the limit was changed within the window.
    moved: AtomicBool,
    /// Whether a request waits for a read of the pool, because its limit may have been changed
    /// elsewhere.
    looked_for: AtomicBool,
    /// Wakes requests that wait for units.
    changed: Notify,
    cold: Mutex<Cold>,
}

/// The known state of the pool, and the call being made.
#[derive(Debug)]
struct Cold {
    terms: Terms,
    /// The highest limit since the pool was seen, if it has paid part of what is owed and was
    /// lowered again before it was written.
    peak: Option<Terms>,
    /// Alerts of its quota, if there are any.
    alerting: Option<Box<Alerting>>,
    view: Option<View>,
    /// The view is too old to refuse by: read again first.
    stale: bool,
    /// The pool was never seen, and is to be read before it is created.
    unseen: bool,
    /// The sub-pool that holds its entry; `None`: the pool itself.
    shard: Option<u16>,
    /// It stays with the root, because something is owed there.
    in_root: bool,
    /// For a sub-pool: what was free in its root when last read, and the sub-pool's share of it.
    elsewhere: i64,
    share: i64,
    /// Units it owes.
    owed_elsewhere: u64,
    /// Whether units are given back instead of taken.
    closing: Closing,
    debts: Debts,
    /// Size of the next lease before the caps, in atoms.
    size: u64,
    /// The last lease: its size, and when it was granted.
    granted: u64,
    granted_ns: u64,
    /// The highest ceiling in the log, and how fast units are used: see `ceiling.rs`.
    ceiling: Ceiling,
    /// The usual ask, in atoms.
    first_ask: u64,
    /// Another process sealed our log and closed the entry: `view` stays as it was, and with it the
    /// bound. What remains of the entry is in `remains`.
    sealed: bool,
    remains: Option<Entry>,
    in_flight: Option<Box<(Op, LeaseCall)>>,
    /// The newest revision known when the call in flight was asked, and the revision as of which
    /// the pool was last seen: under a newer one other processes may have changed it since.
    asked_rev: i64,
    seen_rev: i64,
    /// The newest revision as of which the other side of its limit was seen.
    beside_rev: i64,
    /// A try of the call in flight may have been applied. The failure of a later try says nothing
    /// about it, so only an answer ends the call.
    in_doubt: bool,
    /// A grant to a missing entry was refused: a late copy of it, arriving when there are units
    /// again, would create the entry unnoticed.
    may_be_late: bool,
    /// Units the pool lacks: owed by late use, or given out before the limit was lowered. `left` is
    /// lower by this much until units left here, or given back by requests, have returned to the
    /// pool.
    withheld: u64,
}

/// Whether a lease gives units back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closing {
    No,
    /// Until the next ask.
    Resting,
    ForGood,
}

/// The hub's lists a lease is on, so that none has to be searched.
#[derive(Debug, Default)]
pub(crate) struct Listed(AtomicU8);

impl Listed {
    /// On the list of leases that wait for a higher ceiling.
    pub(crate) const CAPPED: u8 = 1;
    /// On the list of leases that no sheet holds any more.
    pub(crate) const RETIRED: u8 = 2;
    /// Still wanted on the list; without this it is dropped at the next pass over the list.
    pub(crate) const WANTED: u8 = 4;
    /// On the list of leases with units that other processes could take back.
    pub(crate) const RECLAIMABLE: u8 = 8;

    /// True: it was not on the list before.
    pub(crate) fn put(&self, list: u8) -> bool {
        self.0.fetch_or(list, Ordering::AcqRel) & list == 0
    }

    /// True: it was on the list.
    pub(crate) fn take(&self, list: u8) -> bool {
        self.0.fetch_and(!list, Ordering::AcqRel) & list != 0
    }

    pub(crate) fn has(&self, list: u8) -> bool {
        self.0.load(Ordering::Acquire) & list != 0
    }
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

impl Lease {
    /// A lease that holds nothing yet. `first_ask` is the usual ask, which sets the first size.
    pub(crate) fn new(pool: PoolId, end_ms: i64, terms: Terms, first_ask: u64) -> Self {
        Self {
            pool,
            incarnation: 0,
            end_ms,
            ttl: None,
            left: AtomicI64::new(0),
            total: AtomicU64::new(0),
            logged: AtomicU64::new(0),
            low: AtomicI64::new(0),
            refused_until_ns: AtomicU64::new(0),
            refused_short: AtomicI64::new(0),
            wanted: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            moves: AtomicU32::new(0),
            free_seen: AtomicI64::new(terms.limit),
            rev: AtomicI64::new(terms.rev),
            of_slot: false,
            bills: false,
            queued: AtomicBool::new(false),
            turns: AtomicU16::new(0),
            dirty: AtomicBool::new(false),
            listed: Listed::default(),
            answer_no: AtomicU64::new(0),
            in_debt: AtomicBool::new(false),
            seen: AtomicBool::new(false),
            moved: AtomicBool::new(false),
            looked_for: AtomicBool::new(false),
            changed: Notify::new(),
            cold: Mutex::new(Cold {
                terms,
                peak: None,
                alerting: None,
                view: None,
                stale: false,
                unseen: false,
                shard: None,
                in_root: false,
                elsewhere: 0,
                share: 0,
                owed_elsewhere: 0,
                closing: Closing::No,
                debts: Debts::default(),
                size: first_ask.max(1).saturating_mul(FIRST_ASKS),
                granted: 0,
                granted_ns: 0,
                ceiling: Ceiling::default(),
                first_ask: first_ask.max(1),
                sealed: false,
                remains: None,
                in_flight: None,
                asked_rev: i64::MIN,
                seen_rev: i64::MIN,
                beside_rev: i64::MIN,
                in_doubt: false,
                may_be_late: false,
                withheld: 0,
            }),
        }
    }

    /// Sets the incarnation.
    pub(crate) fn under(self, incarnation: u128) -> Self {
        Self { incarnation, ..self }
    }

    /// The incarnation that owns its entry and log.
    pub(crate) fn incarnation(&self) -> u128 {
        self.incarnation
    }

    /// Sets the alerts to raise.
    pub(crate) fn alerting(self, alerting: Option<Alerting>) -> Self {
        self.cold().alerting = alerting.map(Box::new);
        self
    }

    /// Replaces the alerts of its quota.
    pub(crate) fn realert(&self, tenant: &Arc<str>, rule: Option<&Arc<AlertRule>>) {
        let mut cold = self.cold();
        match (&mut cold.alerting, rule) {
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
        let cold = self.cold();
        let alerting = cold.alerting.as_ref()?;
        let seen = || cold.view.map_or(0, |view| view.terms.limit.saturating_sub(view.free));
        let taken = taken.unwrap_or_else(seen);
        let others = taken.saturating_sub(signed(cold.held())).max(0);
        // Use of our own entry is known more exactly here. Once it is folded, all of it is out.
        let is_folded = cold.view.is_some_and(|view| view.mine.is_none());
        let own = if is_folded { 0 } else { signed(self.total()) };
        alerting.due(others.saturating_add(own), self.window())
    }

    /// Marks this much use as alerted.
    pub(crate) fn alert_is_told(&self, at: i64) {
        if let Some(alerting) = &mut self.cold().alerting {
            alerting.settle(at);
        }
    }

    /// Sets whether its quota bills.
    pub(crate) fn billing(self, bills: bool) -> Self {
        Self { bills, ..self }
    }

    /// Whether what is left of it has no further use.
    pub(crate) fn is_over(&self, now_ms: i64) -> bool {
        let more_ms = if self.bills { ask::MAKE_WITHIN_MS } else { 0 };
        self.end_ms.saturating_add(more_ms) <= now_ms
    }

    pub(crate) fn pool(&self) -> &PoolId {
        &self.pool
    }

    /// The window of its pool.
    pub(crate) fn window(&self) -> Window {
        Window { start_ms: self.pool.start_ms, end_ms: self.end_ms }
    }

    /// Whether the limit was changed within the window.
    #[inline]
    pub(crate) fn has_moved(&self) -> bool {
        self.moved.load(Ordering::Relaxed)
    }

    /// The newest revision known here: of its own terms, or of those other processes have written.
    pub(crate) fn newest_rev(&self) -> i64 {
        let cold = self.cold();
        cold.view.map_or(cold.terms.rev, |view| view.terms.rev.max(cold.terms.rev))
    }

    /// Whether the pool was last seen before this revision, or lacks our limit; the next call then
    /// reads it. A sealed writer or a lease closing for good asks for nothing more.
    pub(crate) fn looks_anew(&self, rev: i64) -> bool {
        let mut cold = self.cold();
        let is_unwritten = cold.view.is_some_and(|view| cold.is_outdated(&view));
        let is_old = cold.seen_rev < rev;
        if !is_old && !is_unwritten {
            return false;
        }
        let looks = !cold.sealed && cold.closing != Closing::ForGood;
        // A pool already seen as of then gets its write next: another read would delay that.
        cold.unseen |= looks && is_old;
        cold.beside_rev = rev;
        self.looked_for.store(looks, Ordering::Release);
        looks
    }

    /// Takes `n` atoms if they are here: one compare-and-swap.
    pub(crate) fn take(&self, n: u64, now: Now) -> Take {
        let ask = signed(n);
        let mut left = self.left.load(Ordering::Relaxed);
        loop {
            if left < ask {
                return self.short(n, now);
            }
            let next = left - ask;
            let swapped =
                self.left.compare_exchange_weak(left, next, Ordering::AcqRel, Ordering::Relaxed);
            match swapped {
                Ok(_) => {
                    return Take::Taken { renew: next < self.low.load(Ordering::Relaxed) };
                }
                Err(seen) => left = seen,
            }
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
        let ask = signed(n);
        let taken = self.left.fetch_update(Ordering::AcqRel, Ordering::Relaxed, |left| {
            let next = left.saturating_sub(ask);
            (next >= floor.min(0)).then_some(next)
        });
        taken.is_ok()
    }

    /// Gives back `n` atoms of a hold.
    pub(crate) fn release(&self, n: u64) {
        self.left.fetch_add(signed(n), Ordering::AcqRel);
    }

    /// Settles `n` atoms of a hold: they were used.
    pub(crate) fn settle(&self, n: u64) {
        self.total.fetch_add(n, Ordering::SeqCst); // see `mark_dirty`
    }

    /// Settles `n` atoms that no hold covers: what is left pays, the rest is a debt. A total stops
    /// at [`MOST`].
    pub(crate) fn settle_late(&self, n: u64) {
        let n = n.min(MOST.saturating_sub(self.total()));
        self.left.fetch_sub(signed(n), Ordering::AcqRel);
        self.settle(n);
    }

    /// Atoms taken by requests that have not ended.
    pub(crate) fn open_holds(&self) -> u64 {
        let cold = self.cold();
        self.open_of(&cold)
    }

    /// Atoms that may still be taken; negative is a debt.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn left(&self) -> i64 {
        self.left.load(Ordering::Acquire)
    }

    /// Atoms that may be taken without asking the pool.
    pub(crate) fn here(&self) -> u64 {
        u64::try_from(self.left.load(Ordering::Acquire)).unwrap_or(0)
    }

    /// Atoms settled by this process.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::SeqCst)
    }

    /// `total`, if it has risen since it was last logged; marks it as logged.
    pub(crate) fn unlogged(&self) -> Option<u64> {
        let total = self.total();
        (!self.of_slot && self.logged.swap(total, Ordering::Relaxed) != total).then_some(total)
    }

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

    /// Whether the log lacks some of the total.
    pub(crate) fn is_unlogged(&self) -> bool {
        !self.of_slot && self.logged.load(Ordering::Relaxed) != self.total()
    }

    fn is_refused(&self, n: u64, now: Now) -> bool {
        now.mono_ns < self.refused_until_ns.load(Ordering::Acquire)
            && self.lacking(n) >= self.refused_short.load(Ordering::Relaxed)
    }

    fn cold(&self) -> MutexGuard<'_, Cold> {
        // A panic while it was held is a bug elsewhere; the state is whole between statements.
        self.cold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn signed(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(i64::MAX)
}
