//! Debts: use learned late that no units pay for. The pool keeps them as a negative balance, so
//! that no process takes units from it and a restart finds them.
//!
//! # Laws
//!
//! 1. What is owed here and not yet charged keeps `left` negative, as far as open holds could not
//!    pay it once released: a lease in debt admits nothing. (A limit of 0 serves nothing, whatever
//!    is left of it.)
//! 2. A debt is charged once: by a write that names the entry it replaces.
//! 3. A payment is made only while that much is owed, with units taken elsewhere before. If its
//!    outcome is never learned, those units stay taken.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ask::OPS;
use super::{Closing, Cold, Lease, LeaseCall, Op, Writer, signed};
use crate::quota::pool::{self, Entry};

/// Numbers views of pools in the order this process receives them.
static VIEWS: AtomicU64 = AtomicU64::new(1);

/// The debt of a pool, as this process knows it.
#[derive(Debug, Default)]
pub(super) struct Debts {
    /// Atoms settled that nothing pays for, not charged yet.
    owing: u64,
    /// Atoms on their way to pay a debt, and how many of them were taken.
    pay: Option<u64>,
    paid: Option<u64>,
    /// The pool was read and does not exist.
    pub(super) absent: bool,
    /// Units were charged in a sub-pool, or given back to it, since its root was read.
    has_charged: bool,
    pub(super) has_given: bool,
    /// The number of the last known payment from a sub-pool to the root.
    pub(super) last_payment: Option<u64>,
    /// The number of the last view, what was owed in it, and the number of the view that last
    /// raised that.
    view_no: u64,
    seen: u64,
    since_no: u64,
}

impl Debts {
    /// Whether no charge and no payment is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.owing == 0 && self.pay.is_none() && self.paid.is_none() && !self.has_charged
    }

    /// Whether the root does not know of a debt yet.
    pub(super) fn is_uncarried(&self) -> bool {
        self.has_charged
    }

    /// Whether changes in the sub-pool require the root to be read.
    pub(super) fn is_for_root(&self) -> bool {
        self.has_charged || self.has_given
    }

    /// The root was read together with the sub-pool.
    pub(super) fn told_root(&mut self) {
        (self.has_charged, self.has_given) = (false, false);
    }
}

impl Lease {
    /// Settles `n` atoms that nothing pays for.
    pub(crate) fn owe(&self, n: u64) {
        self.settle_late(n);
        let mut cold = self.cold();
        cold.debts.owing = cold.debts.owing.saturating_add(n);
        cold.debts.seen = self.note_debt(&mut cold);
    }

    /// The number of the view that showed the debt; 0: there is none, or it arose here.
    pub(crate) fn owes_since(&self) -> u64 {
        let cold = self.cold();
        if cold.debts.seen > 0 { cold.debts.since_no } else { 0 }
    }

    /// Whether the pool was last seen before the view of this number; the next call then reads it:
    /// it may owe by now what was seen elsewhere.
    pub(crate) fn looks_after(&self, view_no: u64) -> bool {
        let mut cold = self.cold();
        if cold.debts.view_no >= view_no {
            return false;
        }
        let looks = !cold.sealed && cold.closing != Closing::ForGood;
        cold.unseen |= looks;
        self.looked_for.store(looks, Ordering::Release);
        looks
    }

    /// Whether anything is owed; takes no lock, and is the whole answer for most leases.
    pub(crate) fn is_in_debt(&self) -> bool {
        self.in_debt.load(Ordering::Acquire)
    }

    /// Atoms owed.
    pub(crate) fn debt(&self) -> u64 {
        if !self.is_in_debt() {
            return 0;
        }
        let mut cold = self.cold();
        self.note_debt(&mut cold)
    }

    /// Whether the pool was never read; takes no lock either.
    pub(crate) fn is_unknown(&self) -> bool {
        !self.seen.load(Ordering::Acquire)
    }

    /// Atoms of the debt that can be paid from elsewhere, charged or not, even while requests hold
    /// units that could pay it on release. `None` while a payment is under way.
    pub(crate) fn payable(&self) -> Option<u64> {
        let mut cold = self.cold();
        if cold.closing == Closing::ForGood || cold.sealed {
            return Some(0);
        }
        let is_paying = cold.debts.pay.is_some() || cold.debts.paid.is_some();
        (!is_paying).then(|| self.note_debt(&mut cold))
    }

    /// Whether a payment is on its way to the store.
    pub(crate) fn is_paying(&self) -> bool {
        self.cold().debts.pay.is_some()
    }

    /// Pays what is owed, with the next call, with atoms that were taken elsewhere;
    /// [`take_paid`](Self::take_paid) returns the result. False: another payment is under way, and
    /// this one is not made.
    #[must_use]
    pub(crate) fn pay(&self, n: u64) -> bool {
        let mut cold = self.cold();
        if cold.debts.pay.is_some() || cold.debts.paid.is_some() {
            return false;
        }
        cold.debts.pay = Some(n);
        self.refused_until_ns.store(0, Ordering::Release);
        self.want(1); // so that waiters are notified
        true
    }

    /// How much the payment has paid, returned once: at most what was owed by then, and at most
    /// what was brought.
    pub(crate) fn take_paid(&self) -> Option<u64> {
        let mut cold = self.cold();
        if cold.sealed && cold.debts.pay.take().is_some() {
            cold.debts.paid = Some(0);
        }
        cold.debts.paid.take()
    }

    /// Turns into a debt what was let through while the store was away and no unit here or in the
    /// pool pays for.
    pub(super) fn own_up(&self, cold: &mut Cold) {
        let unpaid = self.used(cold).saturating_sub(cold.held());
        if unpaid > cold.debts.owing {
            cold.debts.owing = unpaid;
            self.note_debt(cold);
        }
    }

    /// Makes the root take over charges in a sub-pool, and units given back to it if the root owes.
    pub(super) fn tell_root(&self, cold: &Cold) -> Option<(Op, LeaseCall)> {
        (cold.shard.is_some() && cold.debts.is_for_root()).then(|| self.seek(cold, true))
    }

    /// The next write about debts, if there is one to make.
    pub(super) fn ask_debt(&self, cold: &mut Cold, writer: &Writer) -> Option<(Op, LeaseCall)> {
        if let Some(next) = self.tell_root(cold) {
            return Some(next);
        }
        let owing = self.chargeable(cold);
        let key = self.key(cold.shard, writer);
        let Some(view) = cold.view else {
            if owing == 0 {
                if cold.debts.absent {
                    cold.end_payment(false); // what it came for has been paid since
                }
                return None;
            }
            if !cold.debts.absent {
                return Some((Op::Look, LeaseCall::Look(key)));
            }
            // A missing sub-pool is created with what its root credits it, never with a whole
            // limit. If the root has nothing to credit, the debt is charged to the root and paid
            // there: nothing of ours is anywhere yet.
            if cold.shard.is_some() {
                if cold.stale && cold.closing == Closing::No {
                    return None; // it has not been asked yet
                }
                cold.go_to_root();
                return Some((Op::Look, LeaseCall::Look(self.key(None, writer))));
            }
            let entry = self.next_entry(cold, owing);
            let terms = cold.terms;
            let write = pool::create_charged(key, writer.incarnation, terms, entry, self.ttl);
            return Some((Op::Charge(entry), LeaseCall::Write(write)));
        };
        let unwritten = cold.unwritten(&view).filter(|_| owing > 0 && cold.shard.is_none());
        if let Some(terms) = unwritten {
            // Otherwise what a lowered limit takes away would count as free, and pay.
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key, &view, terms))));
        }
        if owing > 0 {
            let entry = self.next_entry(cold, cold.held().saturating_add(owing));
            let charge = if cold.shard.is_some() { pool::charge_to_root } else { pool::charge };
            let write = charge(key, writer.incarnation, &view, entry);
            return Some((Op::Charge(entry), LeaseCall::Write(write)));
        }
        let n = cold.debts.pay?.min(cold.owed_in_store());
        if cold.closing != Closing::No || n == 0 {
            cold.end_payment(false);
            self.changed.notify_waiters();
            return None;
        }
        cold.debts.pay = Some(n);
        let op = OPS.fetch_add(1, Ordering::Relaxed);
        if cold.shard.is_some() {
            let (root, last) = (self.key(None, writer), cold.debts.last_payment);
            let write = pool::pay_from_sub_pool(root, writer.incarnation, (last, op), n);
            return Some((Op::PayRoot(op), LeaseCall::Write(write)));
        }
        let preauthorised = view.mine.map_or(0, |mine| mine.preauthorised);
        let entry = Entry { op, held: cold.held(), preauthorised };
        let write = pool::pay(key, writer.incarnation, &view, entry, n);
        Some((Op::Pay(entry), LeaseCall::Write(write)))
    }

    /// Atoms to charge now. What open holds may still pay waits for them to end, unless none of
    /// them can pay or a payment is here.
    pub(super) fn chargeable(&self, cold: &Cold) -> u64 {
        if cold.debts.owing == 0 {
            return 0;
        }
        let short = self.short_of(cold);
        let open = match cold.closing {
            Closing::ForGood => 0,
            _ if cold.terms.limit == 0 => 0,
            _ => self.open_of(cold),
        };
        let charged = cold.owed_in_store();
        let paid = cold.debts.pay.unwrap_or(0).saturating_sub(charged);
        cold.debts.owing.min(short.saturating_sub(open).max(paid.min(short)))
    }

    /// How much of what is owed and uncharged the units here do not cover. Units leased before a
    /// limit became 0 are no longer included, and pay nothing.
    fn short_of(&self, cold: &Cold) -> u64 {
        let charged = signed(cold.owed().min(cold.withheld));
        let left = self.left.load(Ordering::Acquire).saturating_add(charged);
        if cold.terms.limit == 0 { cold.debts.owing } else { left.min(0).unsigned_abs() }
    }

    /// Takes note of a new view of the pool.
    pub(super) fn note_view(&self, cold: &mut Cold) {
        cold.debts.view_no = VIEWS.fetch_add(1, Ordering::Relaxed);
        let debt = self.note_debt(cold);
        if debt > cold.debts.seen {
            cold.debts.since_no = cold.debts.view_no;
        }
        cold.debts.seen = debt;
    }

    /// Updates the debt flag and returns what is owed, less what released units have paid; the
    /// caller holds the lock.
    pub(super) fn note_debt(&self, cold: &mut Cold) -> u64 {
        cold.debts.owing = cold.debts.owing.min(self.short_of(cold));
        // Units here beyond what the pool lacks have paid what was charged: they go back.
        let charged = match cold.terms.limit {
            0 => cold.owed(),
            _ => {
                let short = self.left.load(Ordering::Acquire).min(0).unsigned_abs();
                cold.owed().min(short.saturating_sub(cold.debts.owing))
            }
        };
        // Freed units also pay what is not charged yet, with the next ask.
        let free = cold.view.map_or(0, |view| view.free_under(cold.terms));
        let owing = cold.debts.owing.saturating_sub(free.max(0).unsigned_abs());
        let debt = charged.saturating_add(owing);
        self.in_debt.store(debt > 0, Ordering::Release);
        debt
    }
}

impl Cold {
    /// `n` atoms that were owed are now in the entry.
    pub(super) fn charged(&mut self, n: u64) {
        self.debts.owing = self.debts.owing.saturating_sub(n);
        if self.shard.is_some() {
            // It becomes a debt of the root.
            self.debts.has_charged = true;
            self.elsewhere = self.elsewhere.saturating_sub(pool::atoms(n));
            let lacks = self.elsewhere.min(0).unsigned_abs();
            self.owed_elsewhere = self.owed_elsewhere.saturating_add(n).min(lacks);
        }
    }

    pub(super) fn end_payment(&mut self, is_paid: bool) {
        if let Some(n) = self.debts.pay.take() {
            self.debts.paid = Some(if is_paid { n } else { 0 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Take;
    use super::*;
    use crate::clock::Now;
    use crate::ids::Surrogate;
    use crate::quota::pool::{PoolId, Terms};
    use crate::store::layout::Space;
    use crate::store::{Memory, Store, Written};

    const NOW: Now = Now { mono_ns: 0, wall_ms: 0 };

    /// Makes every call the lease has to make now, as this writer.
    async fn drive_as(writer: u128, store: &Memory, lease: &Lease) {
        let writer = Writer { space: Space::new("test"), incarnation: writer };
        while let Some(call) = lease.next(&writer, NOW) {
            let answer = match call {
                LeaseCall::Look(key) => store.read(key).await,
                LeaseCall::Write(write) => store.write(write).await.map(|written| match written {
                    Written::Applied(item) | Written::Refused(item) => item,
                }),
                LeaseCall::Seek(_) => unreachable!("one writer"),
            };
            lease.answered(&writer, NOW, answer).unwrap();
        }
    }

    async fn drive(store: &Memory, lease: &Lease) {
        drive_as(7, store, lease).await;
    }

    /// A lease of the one pool, by this writer.
    fn lease_by(writer: u128, terms: Terms) -> Lease {
        let (tenant, limit) = (Surrogate::test(1), "jobs/day".into());
        let pool = PoolId { tenant, limit, scope: 0, start_ms: 0 };
        Lease::new(pool, i64::MAX, terms, 1).under(writer)
    }

    /// Takes this many atoms, one by one.
    async fn take(store: &Memory, lease: &Lease, n: u64) {
        let mut taken = 0;
        while taken < n {
            match lease.take(1, NOW) {
                Take::Taken { .. } => taken += 1,
                _ => drive(store, lease).await,
            }
        }
    }

    /// The debt that another process finds.
    async fn debt_in(store: &Memory, terms: Terms) -> u64 {
        let other = lease_by(8, terms);
        other.look_first();
        drive_as(8, store, &other).await;
        other.debt()
    }

    #[tokio::test]
    async fn a_debt_that_is_learned_under_a_lowered_limit_is_not_paid_by_what_that_has_lost() {
        let (store, lease) = (Memory::new(), lease_by(7, Terms { limit: 100, rev: 1 }));
        take(&store, &lease, 60).await;
        lease.settle(60);
        lease.retarget(Terms { limit: 50, rev: 2 });
        lease.owe(lease.here() + 10);
        assert_eq!(lease.debt(), 10, "at once");
        drive(&store, &lease).await;
        assert_eq!(lease.debt(), 10, "and in the store");
    }

    #[tokio::test]
    async fn a_debt_is_paid_by_one_payment_at_a_time_and_no_more_once_its_lease_is_closed() {
        let (store, lease) = (Memory::new(), lease_by(7, Terms { limit: 10, rev: 1 }));
        take(&store, &lease, 10).await;
        lease.settle(10);
        lease.owe(9);
        let now = || (lease.debt(), lease.payable(), lease.is_paying());
        assert_eq!(now(), (9, Some(9), false));
        assert!(lease.pay(4));
        assert_eq!(now(), (9, None, true), "on its way");
        assert!(!lease.pay(1), "nor is a second one made");
        drive(&store, &lease).await;
        assert_eq!(now(), (5, None, false), "it has come, and who made it has not heard of it");
        assert!(!lease.pay(1));
        assert_eq!((lease.take_paid(), lease.take_paid()), (Some(4), None));
        assert_eq!(now(), (5, Some(5), false));
        lease.close();
        assert_eq!(now(), (5, Some(0), false));
    }

    #[tokio::test]
    async fn what_open_requests_may_still_pay_is_charged_once_they_can_not() {
        let terms = Terms { limit: 20, rev: 1 };
        let none = Terms { limit: 0, rev: 2 };
        for (ends, terms_then) in [(true, terms), (false, none)] {
            let (store, lease) = (Memory::new(), lease_by(7, terms));
            take(&store, &lease, 12).await; // and none of them has been used
            lease.owe(13);
            drive(&store, &lease).await;
            assert_eq!(debt_in(&store, terms).await, 0, "5 of the 12 would pay it");
            if ends {
                lease.close();
            } else {
                lease.retarget(none);
            }
            drive(&store, &lease).await;
            assert_eq!(debt_in(&store, terms_then).await, 5, "ends: {ends}");
        }
    }
}
