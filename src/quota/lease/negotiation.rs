//! The negotiation of a lease with its pool: what is known of the pool, and the call being made.
//!
//! A state machine without I/O, clocks, locks or atomics: each step takes the
//! [balance](super::balance) as a value and changes it. Here is the state and what follows from it;
//! the steps are in `ask.rs` and `give.rs` (which call to make), `answer.rs` (what came back),
//! `debt.rs`, `limit.rs` and `record.rs`.

use super::balance::{Balance, signed};
use super::call::{Context, LeaseCall, Op, Seek};
use super::ceiling::Ceiling;
use super::rarely::{Begins, Rarely};
use crate::clock::Now;
use crate::ids::SubPoolNumber;
use crate::quota::demand::{RootSeen, Want};
use crate::quota::pool::{Entry, Terms, View};

/// The first lease of a pool, in asks: small, because this process's demand is not known yet. Of a
/// large limit it is one part in so many, up to the larger of these, so that a tenant who calls now
/// and then takes one lease and not three; of units that are given once it stays small. No more
/// than the smaller may be served before a record allows it.
const FIRST_ASKS: u64 = 8;
const MOST_FIRST_ASKS: u64 = 32;
const FIRST_OF_LIMIT: u64 = 128;

/// Room under a ceiling for at least this many asks: a tenant that calls now and then never waits.
const AHEAD_ASKS: u64 = 4;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Negotiation {
    pub(super) terms: Terms,
    /// The highest limit since the pool was seen, if it has paid part of what is owed and was
    /// lowered again before it was written.
    pub(super) peak: Option<Box<Terms>>,
    pub(super) view: Option<View>,
    /// The view is too old to refuse by: read again first.
    pub(super) stale: bool,
    /// The pool was never seen, and is to be read before it is created.
    pub(super) unseen: bool,
    /// The shard that holds its entry; `None`: the pool itself, the root.
    pub(super) shard: Option<SubPoolNumber>,
    /// It stays with the root, because something is owed there.
    pub(super) in_root: bool,
    /// For a shard: its root when last read, with what it owes.
    pub(super) root: Rarely<RootSeen>,
    /// Whether units are given back instead of taken.
    pub(super) closing: Closing,
    pub(super) debts: Rarely<Debts>,
    /// The number of the last view, and when it was seen.
    pub(super) view_no: u64,
    pub(super) seen_ns: u64,
    /// Size of the next lease before the caps, in atoms.
    pub(super) size: u64,
    /// The last lease: its size, and when it was granted.
    pub(super) granted: u64,
    pub(super) granted_ns: u64,
    /// The highest ceiling in the log, and how fast units are used.
    pub(super) ceiling: Ceiling,
    /// The usual ask, in atoms.
    pub(super) first_ask: u64,
    /// Another process sealed our log and closed the entry: `view` stays as it was, and with it the
    /// bound. What remains of the entry is in `remains`.
    pub(super) sealed: bool,
    pub(super) remains: Option<Box<Entry>>,
    pub(super) in_flight: Option<Box<(Op, LeaseCall)>>,
    /// The newest revision known when the call in flight was asked, and the revision as of which
    /// the pool was last seen: under a newer one other processes may have changed it since.
    pub(super) asked_rev: i64,
    pub(super) seen_rev: i64,
    /// The newest revision as of which the other side of its limit was seen.
    pub(super) beside_rev: i64,
    /// A try of the call in flight may have been applied. The failure of a later try says nothing
    /// about it, so only an answer ends the call.
    pub(super) in_doubt: bool,
    /// A grant to a missing entry was refused: a late copy of it, arriving when there are units
    /// again, would create the entry unnoticed.
    pub(super) may_be_late: bool,
    /// Units the pool lacks: owed by late use, or given out before the limit was lowered. `left` is
    /// lower by this much until units left here, or given back by requests, have returned to the
    /// pool.
    pub(super) withheld: u64,
}

/// Whether a lease gives units back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    No,
    /// Until the next ask.
    Resting,
    ForGood,
}

/// The debt of a pool, as this process knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Debts {
    /// Atoms settled that nothing pays for, not charged yet.
    pub(super) owing: u64,
    /// Atoms on their way to pay a debt, and how many of them were taken.
    pub(super) pay: Option<u64>,
    pub(super) paid: Option<u64>,
    /// The pool was read and does not exist.
    pub(super) absent: bool,
    /// Units were charged in a shard, or given back to it, since its root was read.
    pub(super) has_charged: bool,
    pub(super) has_given: bool,
    /// The number of the last known payment from a shard to the root.
    pub(super) last_payment: Option<u64>,
    /// What was owed in the last view, and the number of the view that last raised that.
    pub(super) seen: u64,
    pub(super) since_no: u64,
}

impl Begins for Debts {
    const BEGINNING: &'static Self = &Self {
        owing: 0,
        pay: None,
        paid: None,
        absent: false,
        has_charged: false,
        has_given: false,
        last_payment: None,
        seen: 0,
        since_no: 0,
    };
}

impl Begins for RootSeen {
    const BEGINNING: &'static Self = &Self { free: 0, share: 0, owed: 0 };
}

impl Debts {
    /// Whether no charge and no payment is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.owing == 0 && self.pay.is_none() && self.paid.is_none() && !self.has_charged
    }

    /// Whether changes in the shard require the root to be read.
    pub(super) fn is_for_root(&self) -> bool {
        self.has_charged || self.has_given
    }
}

impl Negotiation {
    /// One for a pool that was never seen. `first_ask` is the usual ask, which sets the first size.
    pub(super) fn new(terms: Terms, first_ask: u64) -> Self {
        let first_ask = first_ask.max(1);
        Self {
            terms,
            peak: None,
            view: None,
            stale: false,
            unseen: false,
            shard: None,
            in_root: false,
            root: Rarely::default(),
            closing: Closing::No,
            debts: Rarely::default(),
            view_no: 0,
            seen_ns: 0,
            size: first_ask.saturating_mul(FIRST_ASKS),
            granted: 0,
            granted_ns: 0,
            ceiling: Ceiling::default(),
            first_ask,
            sealed: false,
            remains: None,
            in_flight: None,
            asked_rev: i64::MIN,
            seen_rev: i64::MIN,
            beside_rev: i64::MIN,
            in_doubt: false,
            may_be_late: false,
            withheld: 0,
        }
    }

    /// Sets the size of a first lease of a window's units by their limit.
    pub(super) fn size_by_limit(&mut self) {
        let limit = u64::try_from(self.terms.limit).unwrap_or(0);
        let asks = (limit / FIRST_OF_LIMIT / self.first_ask).clamp(FIRST_ASKS, MOST_FIRST_ASKS);
        self.size = self.first_ask.saturating_mul(asks);
    }

    /// The call to make now, or `None` if there is nothing to ask for. While a call is in flight,
    /// returns that same call.
    pub(super) fn next(&mut self, at: &mut Balance, with: Context<'_>) -> Option<LeaseCall> {
        if let Some(open) = self.in_flight.as_deref() {
            let (op, call) = open.clone();
            // Made before and not answered, perhaps cut off: its outcome is unknown.
            self.in_doubt |= op != Op::Seek;
            return Some(call);
        }
        // A sealed writer gets no more units, whatever is wanted.
        if self.closing == Closing::Resting && !self.sealed && at.wanted > 0 {
            self.closing = Closing::No;
        }
        let (op, call) = match self.closing {
            _ if self.sealed => self.settle_sealed(at, with),
            Closing::No => self.ask(at, with),
            Closing::Resting | Closing::ForGood => self.give(at, with),
        }?;
        self.asked_rev = self.terms.rev.max(self.beside_rev);
        self.in_flight = Some(Box::new((op, call.clone())));
        Some(call)
    }

    /// Frees what the last step may have left boxed without need.
    pub(super) fn tidy(&mut self) {
        self.debts.tidy();
        self.root.tidy();
    }

    /// Whether there is something to ask for that arrived while the lease was still in hand.
    pub(super) fn is_asked_again(&self, at: &mut Balance, now: Now) -> bool {
        !self.takes_no_more() && at.wanted > 0 && self.is_short(at, now) && !self.ceiling.wanted
    }

    /// Whether the next call may give units back.
    pub(super) fn may_give_back(&self) -> bool {
        let gives = self.closing != Closing::No || self.sealed || self.withheld > 0;
        gives && self.in_flight.is_none()
    }

    /// Whether nothing is left to give back and no call is in flight.
    pub(super) fn is_returned(&self, at: &Balance) -> bool {
        let nothing = match self.view.and_then(|view| view.mine) {
            _ if self.sealed => self.remains.is_none(),
            None => !self.may_be_late,
            Some(mine) => at.left <= 0 && mine.held <= self.used(at),
        };
        let is_written = self.peak.is_none() || self.sealed;
        let is_charged = self.chargeable(at) == 0 && !self.debts.has_charged;
        self.in_flight.is_none() && nothing && is_written && is_charged
    }

    /// Whether nothing of it is in doubt, in hand or to be recorded.
    pub(super) fn is_idle(&self, at: &Balance) -> bool {
        self.in_flight.is_none()
            && !self.may_be_late
            && !self.takes_no_more()
            && self.debts.is_idle()
            && !self.ceiling.wanted
            && self.open_holds(at) == 0
    }

    /// Whether it takes nothing more from its pool, whatever is asked of it.
    pub(super) fn takes_no_more(&self) -> bool {
        self.sealed || self.closing == Closing::ForGood
    }

    /// Whether the pool was last seen before this revision, or lacks our limit. See
    /// [`Lease::looks_anew`](super::Lease::looks_anew).
    pub(super) fn looks_anew(&mut self, at: &mut Balance, rev: i64) -> bool {
        let is_unwritten = self.view.is_some_and(|view| self.is_outdated(&view));
        let is_old = self.seen_rev < rev;
        if !is_old && !is_unwritten {
            return false;
        }
        self.beside_rev = rev;
        // A pool already seen as of then gets its write next: another read would delay that.
        self.look(at, is_old)
    }

    /// Has the next call read the pool first, unless it takes nothing more.
    pub(super) fn look(&mut self, at: &mut Balance, reads: bool) -> bool {
        at.is_looked_for = !self.takes_no_more();
        self.unseen |= at.is_looked_for && reads;
        at.is_looked_for
    }

    /// Draws on this shard of its pool from now on. The call in flight has been answered; it has
    /// changed nothing.
    pub(super) fn divert(&mut self, shard: SubPoolNumber) {
        (self.in_flight, self.in_doubt, self.unseen) = (None, false, false);
        (self.shard, self.stale) = (Some(shard), true);
    }

    /// Its root owes: moves there, where the debt is visible, if nothing of ours is in the shard
    /// and it has nothing to give. No call is in flight.
    pub(super) fn follow_debt(&mut self) {
        let is_clear = self.view.is_none_or(|view| view.mine.is_none() && view.free <= 0);
        let follows = is_clear && self.in_flight.is_none() && self.closing == Closing::No;
        if follows && self.shard.is_some() && !self.sealed {
            self.unseen = true;
            self.go_to_root();
        }
    }

    /// Moves the lease to the root, whose state is not known yet.
    pub(super) fn go_to_root(&mut self) {
        (self.shard, self.in_root, self.view) = (None, true, None);
        self.root = Rarely::default();
        self.debts.absent = false;
    }

    /// Whether units of its pool are in shards.
    pub(super) fn is_split(&self) -> bool {
        self.shard.is_some() || self.view.is_some_and(|view| view.sub_pools > 0)
    }

    /// Looks for units in the root and the shards before concluding that there are none.
    pub(super) fn seek(&self, at: &Balance, with: Context<'_>, may_make: bool) -> (Op, LeaseCall) {
        // A lease that closes reports to the root and asks for no units.
        let wanted = self.closing == Closing::No && !self.sealed;
        let (need, wish) = if wanted { (at.lacks(at.wanted), self.wish(at)) } else { (0, 0) };
        let of_root = self.unseen || self.debts.is_for_root() || self.owed() > 0;
        let want = Want { need, wish, terms: self.terms, may_make, of_root };
        let seek = Seek { pool: with.of.pool.clone(), shard: self.shard, want };
        (Op::Seek, LeaseCall::Seek(seek))
    }

    /// Atoms in its entry.
    pub(super) fn held(&self) -> u64 {
        self.view.and_then(|v| v.mine).map_or(0, |mine| mine.held)
    }

    /// What may be served: the first law of leases.
    pub(super) fn bound(&self) -> u64 {
        let mine = self.view.and_then(|view| view.mine);
        mine.map_or(0, |mine| mine.held.min(mine.preauthorised.max(self.ceiling.logged)))
    }

    /// Settled use and open holds; more than the bound where a late cost has made a debt.
    pub(super) fn used(&self, at: &Balance) -> u64 {
        self.used_beside(at.left.saturating_add(signed(self.withheld)))
    }

    /// The same, given the sum of left and withheld.
    pub(super) fn used_beside(&self, rest: i64) -> u64 {
        let bound = self.bound();
        match rest {
            debt @ ..0 => bound.saturating_add(debt.unsigned_abs()),
            rest => bound.saturating_sub(rest.unsigned_abs()),
        }
    }

    /// Open holds alone.
    pub(super) fn open_holds(&self, at: &Balance) -> u64 {
        self.used(at).saturating_sub(at.total)
    }

    /// Atoms held that requests have neither used nor hold.
    pub(super) fn unused(&self, at: &Balance) -> u64 {
        self.held().saturating_sub(self.used(at))
    }

    /// Atoms of the whole limit that are used or in the hands of others, for alerts. `taken` are
    /// those out of the pool; `None`: as it was last seen.
    pub(super) fn used_of_all(&self, at: &Balance, taken: Option<i64>) -> i64 {
        let seen = || self.view.map_or(0, |view| view.terms.limit.saturating_sub(view.free));
        let taken = taken.unwrap_or_else(seen);
        let others = taken.saturating_sub(signed(self.held())).max(0);
        // Use of our own entry is known more exactly here. Once it is folded, all of it is out.
        let is_folded = self.view.is_some_and(|view| view.mine.is_none());
        others.saturating_add(if is_folded { 0 } else { signed(at.total) })
    }

    /// Late use owed, as far as is known, under the limits in force since.
    pub(super) fn owed(&self) -> u64 {
        let terms = self.peak.as_deref().copied().unwrap_or(self.terms);
        let here = self.view.map_or(0, |view| view.owed_under(terms));
        let newer = self.view.map(|view| view.terms).filter(|known| known.rev < terms.rev);
        let raised = newer.map_or(0, |known| terms.limit.saturating_sub(known.limit).max(0));
        here.saturating_add(self.root.owed.saturating_sub(raised.unsigned_abs()))
    }

    /// The same under the limit as it is stored, in the item that a payment goes to.
    pub(super) fn owed_in_store(&self) -> u64 {
        let here = || self.view.map_or(0, |view| view.owed());
        if self.shard.is_some() { self.root.owed } else { here() }
    }

    /// Demand over the span that a ceiling leaves room for, in atoms; all of a first lease, since
    /// its demand is unknown.
    pub(super) fn ahead(&self) -> u64 {
        let asks = if self.view.is_none() { FIRST_ASKS } else { AHEAD_ASKS };
        self.ceiling.demand().max(self.first_ask.saturating_mul(asks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Surrogate, WriterId};
    use crate::quota::lease::call::{Fixed, Writer};
    use crate::quota::pool::PoolId;
    use crate::store::layout::Space;
    use crate::store::{Change, Item, StoreError, StoreErrorKind};

    /// The item that this write creates.
    fn created(call: Option<LeaseCall>) -> Item {
        let Some(LeaseCall::Write(write)) = call else { panic!("{call:?}") };
        let set = |change| match change {
            Change::Set(name, value) => (name, value),
            other => panic!("{other:?}"),
        };
        Item(write.change.into_iter().map(set).collect())
    }

    /// The lease of a test, and the writer that it is of.
    fn fixed() -> (Fixed, Writer) {
        let (tenant, limit) = (Surrogate::test(1), "jobs/day".into());
        let pool = PoolId { tenant, limit, scope: 0, start_ms: 0 };
        let (incarnation, end_ms, ttl) = (WriterId::test(7), i64::MAX, None);
        let fixed = Fixed { pool, incarnation, end_ms, ttl, of_slot: false, bills: false };
        (fixed, Writer { space: Space::new("test"), incarnation })
    }

    /// No store, no runtime, no atomics: a balance goes in, and comes out changed.
    #[test]
    fn units_leave_the_balance_before_they_go_back_and_return_if_that_fails() {
        let (of, writer) = &fixed();
        let with = Context { of, writer, now: Now { mono_ns: 0, wall_ms: 0 } };
        let mut it = Negotiation::new(Terms { limit: 1_000, rev: 1 }, 1);
        let mut at = Balance { free: 1_000, wanted: 3, ..Balance::default() };

        let item = created(it.next(&mut at, with));
        it.answered(&mut at, with, Ok(Some(item))).unwrap();
        assert_eq!((at.left, at.free, at.wanted), (8, 992, 0), "a first lease");

        at.left -= 3; // drawn by a request
        it.closing = Closing::Resting;
        assert!(it.may_give_back() && it.next(&mut at, with).is_some());
        assert_eq!((at.left, it.open_holds(&at)), (0, 8), "on their way, and not free");

        let throttled = StoreError::new(StoreErrorKind::Throttled, "busy");
        it.answered(&mut at, with, Err(throttled)).unwrap_err();
        assert_eq!((at.left, it.open_holds(&at)), (5, 3), "ours again");
    }

    /// Use is reported late while the last call of a lease that ends is on its way, and that call
    /// fails.
    #[test]
    fn what_was_to_go_back_for_good_returns_whole_beside_late_use() {
        for is_applied_elsewhere in [false, true] {
            let (of, writer) = &fixed();
            let with = Context { of, writer, now: Now { mono_ns: 0, wall_ms: 0 } };
            let mut it = Negotiation::new(Terms { limit: 1_000, rev: 1 }, 1);
            let mut at = Balance { free: 1_000, wanted: 3, ..Balance::default() };
            let item = created(it.next(&mut at, with));
            it.answered(&mut at, with, Ok(Some(item.clone()))).unwrap();

            (at.left, at.total) = (at.left - 3, at.total + 3);
            it.closing = Closing::ForGood;
            assert!(it.next(&mut at, with).is_some());
            assert_eq!(it.in_flight.as_deref().unwrap().0, Op::Fold(3));
            (at.left, at.total) = (at.left - 2, at.total + 2); // settled late
            if is_applied_elsewhere {
                // The fold was refused: the entry is as it was.
                it.answered(&mut at, with, Ok(Some(item))).unwrap();
            } else {
                let throttled = StoreError::new(StoreErrorKind::Throttled, "busy");
                it.answered(&mut at, with, Err(throttled)).unwrap_err();
            }
            assert_eq!((at.left, at.total, it.bound()), (3, 5, 8), "5 of 8 are used");
            assert!(it.next(&mut at, with).is_some());
            assert_eq!(it.in_flight.as_deref().unwrap().0, Op::Fold(5), "and nothing is owed");
        }
    }
}
