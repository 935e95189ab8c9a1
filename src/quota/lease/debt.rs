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

use super::balance::{Balance, signed};
use super::call::{Context, LeaseCall, Op};
use super::negotiation::{Closing, Negotiation};
use crate::quota::pool::{self, Entry, View};

/// Numbers views of pools in the order this process receives them.
static VIEWS: AtomicU64 = AtomicU64::new(1);

impl Negotiation {
    /// Notes `n` atoms settled that nothing pays for.
    pub(super) fn owe(&mut self, at: &mut Balance, n: u64) {
        self.debts.owing = self.debts.owing.saturating_add(n);
        self.debts.seen = self.note_debt(at);
    }

    /// Atoms of the debt that can be paid from elsewhere, charged or not, even while requests hold
    /// units that could pay it on release. `None` while a payment is under way.
    pub(super) fn payable(&mut self, at: &mut Balance) -> Option<u64> {
        if self.takes_no_more() {
            return Some(0);
        }
        let is_paying = self.debts.pay.is_some() || self.debts.paid.is_some();
        (!is_paying).then(|| self.note_debt(at))
    }

    /// Pays what is owed, with the next call. False: another payment is under way.
    pub(super) fn pay(&mut self, at: &mut Balance, n: u64) -> bool {
        if self.debts.pay.is_some() || self.debts.paid.is_some() {
            return false;
        }
        self.debts.pay = Some(n);
        at.refused_until_ns = 0;
        at.wanted = at.wanted.max(1); // so that waiters are notified
        true
    }

    /// How much the payment has paid, returned once.
    pub(super) fn take_paid(&mut self) -> Option<u64> {
        if self.sealed {
            self.end_payment(false);
        }
        self.debts.paid.take()
    }

    /// Turns into a debt what was let through while the store was away and no unit here or in the
    /// pool pays for.
    pub(super) fn own_up(&mut self, at: &mut Balance) {
        let unpaid = self.used(at).saturating_sub(self.held());
        if unpaid > self.debts.owing {
            self.debts.owing = unpaid;
            self.note_debt(at);
        }
    }

    /// Makes the root take over charges in a shard, and units given back to it if the root owes.
    pub(super) fn tell_root(&self, at: &Balance, with: Context<'_>) -> Option<(Op, LeaseCall)> {
        let tells = self.shard.is_some() && self.debts.is_for_root();
        tells.then(|| self.seek(at, with, false))
    }

    /// The next write about debts, if there is one to make.
    pub(super) fn ask_debt(
        &mut self,
        at: &mut Balance,
        with: Context<'_>,
    ) -> Option<(Op, LeaseCall)> {
        if let Some(next) = self.tell_root(at, with) {
            return Some(next);
        }
        let owing = self.chargeable(at);
        let Some(view) = self.view else { return self.charge_unseen(at, with, owing) };
        let (key, writer) = (with.key(self.shard), with.writer.incarnation);
        let unwritten = self.unwritten(&view).filter(|_| owing > 0 && self.shard.is_none());
        if let Some(terms) = unwritten {
            // Otherwise what a lowered limit takes away would count as free, and pay.
            return Some((Op::Relimit, LeaseCall::Write(pool::relimit(key, &view, terms))));
        }
        if owing > 0 {
            let entry = self.next_entry(at, with, self.held().saturating_add(owing));
            let charge = if self.shard.is_some() { pool::charge_to_root } else { pool::charge };
            return Some((Op::Charge(entry), LeaseCall::Write(charge(key, writer, &view, entry))));
        }
        let n = self.debts.pay?.min(self.owed_in_store());
        if self.closing != Closing::No || n == 0 {
            self.end_payment(false);
            at.wakes = true;
            return None;
        }
        self.debts.pay = Some(n);
        Some(self.payment(&view, with, n))
    }

    /// Charges a pool, or a shard, that was not seen.
    fn charge_unseen(
        &mut self,
        at: &Balance,
        with: Context<'_>,
        owing: u64,
    ) -> Option<(Op, LeaseCall)> {
        let key = with.key(self.shard);
        if owing == 0 {
            if self.debts.absent {
                self.end_payment(false); // what it came for has been paid since
            }
            return None;
        }
        if !self.debts.absent {
            return Some((Op::Look, LeaseCall::Look(key)));
        }
        // A missing shard is created with what its root credits it, never with a whole limit. If
        // the root has nothing to credit, the debt is charged to the root and paid there: nothing
        // of ours is anywhere yet.
        if self.shard.is_some() {
            if self.stale && self.closing == Closing::No {
                return None; // it has not been asked yet
            }
            self.go_to_root();
            return Some((Op::Look, LeaseCall::Look(with.key(None))));
        }
        let entry = self.next_entry(at, with, owing);
        let (writer, ttl) = (with.writer.incarnation, with.of.ttl);
        let write = pool::create_charged(key, writer, self.terms, entry, ttl);
        Some((Op::Charge(entry), LeaseCall::Write(write)))
    }

    /// A payment of `n` atoms, to the pool or from a shard to its root.
    fn payment(&self, view: &View, with: Context<'_>, n: u64) -> (Op, LeaseCall) {
        let (op, writer) = (Op::number(), with.writer.incarnation);
        if self.shard.is_some() {
            let numbers = (self.debts.last_payment, op);
            let write = pool::pay_from_sub_pool(with.key(None), writer, numbers, n);
            return (Op::PayRoot(op), LeaseCall::Write(write));
        }
        let preauthorised = view.mine.map_or(0, |mine| mine.preauthorised);
        let entry = Entry { op, held: self.held(), preauthorised };
        let write = pool::pay(with.key(None), writer, view, entry, n);
        (Op::Pay(entry), LeaseCall::Write(write))
    }

    /// Atoms to charge now. What open holds may still pay waits for them to end, unless none of
    /// them can pay or a payment is here.
    pub(super) fn chargeable(&self, at: &Balance) -> u64 {
        if self.debts.owing == 0 {
            return 0;
        }
        let short = self.short_of(at);
        let open = match self.closing {
            Closing::ForGood => 0,
            _ if self.terms.limit == 0 => 0,
            _ => self.open_holds(at),
        };
        let charged = self.owed_in_store();
        let paid = self.debts.pay.unwrap_or(0).saturating_sub(charged);
        self.debts.owing.min(short.saturating_sub(open).max(paid.min(short)))
    }

    /// How much of what is owed and uncharged the units here do not cover. Units leased before a
    /// limit became 0 are no longer included, and pay nothing.
    fn short_of(&self, at: &Balance) -> u64 {
        let charged = signed(self.owed().min(self.withheld));
        let left = at.left.saturating_add(charged);
        if self.terms.limit == 0 { self.debts.owing } else { left.min(0).unsigned_abs() }
    }

    /// Takes note of a new view of the pool.
    pub(super) fn note_view(&mut self, at: &mut Balance) {
        self.view_no = VIEWS.fetch_add(1, Ordering::Relaxed);
        let debt = self.note_debt(at);
        if debt > self.debts.seen {
            self.debts.since_no = self.view_no;
        }
        self.debts.seen = debt;
    }

    /// Updates the debt flag and returns what is owed, less what released units have paid.
    pub(super) fn note_debt(&mut self, at: &mut Balance) -> u64 {
        self.debts.owing = self.debts.owing.min(self.short_of(at));
        // Units here beyond what the pool lacks have paid what was charged: they go back.
        let charged = match self.terms.limit {
            0 => self.owed(),
            _ => {
                let short = at.left.min(0).unsigned_abs();
                self.owed().min(short.saturating_sub(self.debts.owing))
            }
        };
        // Freed units also pay what is not charged yet, with the next ask.
        let free = self.view.map_or(0, |view| view.free_under(self.terms));
        let owing = self.debts.owing.saturating_sub(free.max(0).unsigned_abs());
        let debt = charged.saturating_add(owing);
        at.is_in_debt = debt > 0;
        debt
    }

    /// `n` atoms that were owed are now in the entry.
    pub(super) fn charged(&mut self, n: u64) {
        self.debts.owing = self.debts.owing.saturating_sub(n);
        if self.shard.is_some() {
            // It becomes a debt of the root.
            self.debts.has_charged = true;
            self.root.free = self.root.free.saturating_sub(signed(n));
            let lacks = self.root.free.min(0).unsigned_abs();
            self.root.owed = self.root.owed.saturating_add(n).min(lacks);
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
    use crate::clock::Now;
    use crate::ids::{Surrogate, WriterId};
    use crate::quota::lease::{Lease, LeaseCall, Take, Writer};
    use crate::quota::pool::{PoolId, Terms};
    use crate::store::layout::Space;
    use crate::store::{Memory, Store, Written};

    const NOW: Now = Now { mono_ns: 0, wall_ms: 0 };

    /// Makes every call the lease has to make now, as this writer.
    async fn drive_as(writer: WriterId, store: &Memory, lease: &Lease) {
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
        drive_as(WriterId::test(7), store, lease).await;
    }

    /// A lease of the one pool, by this writer.
    fn lease_by(writer: WriterId, terms: Terms) -> Lease {
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
        let other = lease_by(WriterId::test(8), terms);
        other.look_first();
        drive_as(WriterId::test(8), store, &other).await;
        other.debt()
    }

    #[tokio::test]
    async fn a_debt_that_is_learned_under_a_lowered_limit_is_not_paid_by_what_that_has_lost() {
        let (store, lease) =
            (Memory::new(), lease_by(WriterId::test(7), Terms { limit: 100, rev: 1 }));
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
        let (store, lease) =
            (Memory::new(), lease_by(WriterId::test(7), Terms { limit: 10, rev: 1 }));
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
            let (store, lease) = (Memory::new(), lease_by(WriterId::test(7), terms));
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
