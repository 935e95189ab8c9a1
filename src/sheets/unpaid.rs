//! Late use not paid yet: kept with the sheet it was used under.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smallvec::SmallVec;

use crate::catalog::MeterId;
use crate::policy::scoped::KeptScopes;
use crate::policy::taken::Taken;
use crate::policy::{Policy, PoolIndex};
use crate::quota::lease::Lease;
use crate::quota::renewals::Renewals;
use crate::sheets::answers::Answers;

/// A sheet's late use that is not paid yet. `S` is the sheet, which is defined above this.
#[derive(Debug)]
pub(crate) struct Unpaid<S> {
    /// Whether there is any.
    some: AtomicBool,
    /// `None` for most sheets: most late use is paid at once.
    of: Mutex<Option<Box<WaitingUse<S>>>>,
}

/// Waiting use, locked. What is left in the end is kept.
pub(crate) struct WaitingGuard<'a, S> {
    kept: MutexGuard<'a, Option<Box<WaitingUse<S>>>>,
    waiting: Box<WaitingUse<S>>,
}

#[derive(Debug)]
pub(crate) struct WaitingUse<S> {
    pub(crate) uses: Vec<Use>,
    pub(crate) payments: Vec<Paying>,
    /// Atoms paid from beyond each quota that bills.
    pub(crate) paid_over: Vec<(PoolIndex, u64)>,
    /// Debts that units were asked for, and the lease that was asked.
    pub(crate) asked: Vec<(Arc<Lease>, Arc<Lease>, u64)>,
    /// Leases that were asked for units to pay debts, until nothing is owed: at most one for each
    /// grant and each quota.
    pub(crate) brought: Vec<Arc<Lease>>,
    /// The sheet before this one, while use waits there: it is paid first.
    pub(crate) before: Option<Arc<S>>,
}

/// Use that waits for a lease.
#[derive(Debug)]
pub(crate) struct Use {
    pub(crate) meter: MeterId,
    pub(crate) atoms: u64,
    /// The caller whose quotas of narrower scope than the tenant pay first; `None`: they have paid.
    pub(crate) narrow: Option<KeptScopes>,
    /// Whether the tenant's quotas and grants pay for it, too.
    pub(crate) whole: bool,
    /// How many of them are beyond a quota of narrower scope that bills, and how many after these,
    /// the last of all, are past its stop.
    pub(crate) over: u64,
    pub(crate) owed: u64,
    pub(crate) needs: Option<(Arc<Lease>, u64)>,
    /// The number of answers to leases that had come when it was last to be settled after that
    /// lease's; `None`: it is not to be yet.
    pub(crate) since: Option<u64>,
}

/// Units taken to pay debts, until each debtor has answered how many it took.
#[derive(Debug)]
pub(crate) struct Paying {
    /// Debtors that have not answered yet.
    pub(crate) debtors: SmallVec<[Arc<Lease>; 2]>,
    /// The most that one debtor has taken.
    pub(crate) took: u64,
    pub(crate) with: Taken,
}

impl<S> Default for Unpaid<S> {
    fn default() -> Self {
        Self { some: AtomicBool::new(false), of: Mutex::default() }
    }
}

impl<S> Default for WaitingUse<S> {
    fn default() -> Self {
        let (uses, payments, paid_over, asked, brought) = Default::default();
        Self { uses, payments, paid_over, asked, brought, before: None }
    }
}

impl<S> Unpaid<S> {
    /// Whether anything waits.
    #[inline]
    pub(crate) fn is_some(&self) -> bool {
        self.some.load(Ordering::Acquire)
    }

    /// Publishes whether anything waits, for lock-free readers.
    pub(crate) fn note(&self, waiting: &WaitingUse<S>) -> bool {
        let some = !waiting.is_clear() || waiting.before.is_some();
        self.some.store(some, Ordering::Release);
        some
    }

    /// Waiting use, held so that none of it is paid meanwhile: added to what is left of the leases,
    /// every unit counts exactly once. `None`: nothing waits.
    #[inline]
    pub(crate) fn still(&self) -> Option<Still<'_, S>> {
        self.is_some().then(|| Still(self.lock()))
    }

    pub(crate) fn lock(&self) -> WaitingGuard<'_, S> {
        // The state is whole between statements.
        let mut kept = self.of.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = kept.take().unwrap_or_default();
        WaitingGuard { kept, waiting }
    }
}

impl<S> Deref for WaitingGuard<'_, S> {
    type Target = WaitingUse<S>;

    fn deref(&self) -> &WaitingUse<S> {
        &self.waiting
    }
}

impl<S> DerefMut for WaitingGuard<'_, S> {
    fn deref_mut(&mut self) -> &mut WaitingUse<S> {
        &mut self.waiting
    }
}

impl<S> Drop for WaitingGuard<'_, S> {
    fn drop(&mut self) {
        if !self.waiting.is_empty() {
            *self.kept = Some(std::mem::take(&mut self.waiting));
        }
    }
}

impl<S> WaitingUse<S> {
    /// Whether it holds nothing at all.
    fn is_empty(&self) -> bool {
        let Self { uses, payments, paid_over, asked, brought, before } = self;
        uses.is_empty()
            && payments.is_empty()
            && paid_over.is_empty()
            && asked.is_empty()
            && brought.is_empty()
            && before.is_none()
    }

    /// Whether nothing waits under this sheet itself.
    pub(crate) fn is_clear(&self) -> bool {
        self.uses.is_empty() && self.payments.is_empty()
    }

    /// Whether a payment to this debtor is on its way.
    pub(crate) fn pays(&self, debtor: &Arc<Lease>) -> bool {
        self.payments.iter().flat_map(|it| &it.debtors).any(|of| Arc::ptr_eq(of, debtor))
    }

    /// Records a debt paid from beyond a quota. Returns how much of that is owed: use that several
    /// quotas of a meter owed, and each has paid for, is owed once.
    pub(crate) fn pays_over(&mut self, policy: &Policy, pool: PoolIndex, n: u64) -> u64 {
        let meter = |pool: PoolIndex| policy.pools[pool].meter;
        let most = |paid: &[(PoolIndex, u64)]| {
            let same = paid.iter().filter(|(of, _)| meter(*of) == meter(pool));
            same.map(|(_, n)| *n).max().unwrap_or(0)
        };
        let before = most(&self.paid_over);
        match self.paid_over.iter_mut().find(|(of, _)| *of == pool) {
            Some((_, paid)) => *paid = paid.saturating_add(n),
            None => self.paid_over.push((pool, n)),
        }
        most(&self.paid_over) - before
    }
}

impl Use {
    /// More of the same.
    pub(crate) fn join(&mut self, more: Self) {
        self.atoms = self.atoms.saturating_add(more.atoms);
        self.over = self.over.saturating_add(more.over);
        self.owed = more.owed;
        self.since = None;
    }

    /// Whether nothing has changed for it since it was tried: a caller's lease has not been
    /// answered, and lacks the units. So many callers may wait without each being tried for all
    /// the others.
    pub(crate) fn waits_still(&self, renewals: &Renewals, away: bool) -> bool {
        let Some(((lease, n), since)) = self.needs.as_ref().zip(self.since) else { return false };
        let waits = self.narrow.is_some()
            && !away
            && lease.answer_no.load(Ordering::Relaxed) <= since
            && lease.here() < *n
            && !lease.takes_no_more();
        if waits {
            lease.want(*n);
            renewals.wake(lease); // the queue may have been full
        }
        waits
    }

    /// Has it settled again once the lease that it needs has been answered. False: that has
    /// happened meanwhile.
    pub(crate) fn settles_after<S>(
        &mut self,
        answers: &Answers<S>,
        sheet: &Arc<S>,
        seen: u64,
    ) -> bool {
        let Some((lease, _)) = self.needs.as_ref().filter(|_| self.since.is_none()) else {
            return true;
        };
        let settles = answers.wait_for(lease, sheet, seen);
        self.since = settles.then_some(seen);
        settles
    }
}

/// See [`Unpaid::still`].
pub(crate) struct Still<'a, S>(WaitingGuard<'a, S>);

impl<S> Still<'_, S> {
    /// Atoms of this meter that wait for the tenant's quotas and grants, under this sheet.
    pub(crate) fn of_meter(&self, meter: MeterId) -> u64 {
        let of_meter = self.0.uses.iter().filter(|it| it.meter == meter && it.whole);
        of_meter.fold(0, |sum, it| sum.saturating_add(it.atoms))
    }

    /// Atoms of this meter that wait for a quota of narrower scope, of callers that it holds for.
    pub(crate) fn of_callers(&self, meter: MeterId, is_one: impl Fn(&KeptScopes) -> bool) -> u64 {
        let of_meter = self.0.uses.iter().filter(|it| it.meter == meter);
        let of_callers = of_meter.filter(|it| it.narrow.as_ref().is_some_and(&is_one));
        of_callers.fold(0, |sum, it| sum.saturating_add(it.atoms))
    }
}
