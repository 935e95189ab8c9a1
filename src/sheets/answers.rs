//! Answers to leases, and the sheets whose late use or debts wait for one.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::patience::Progress;
use crate::quota::lease::Lease;
use crate::quota::renewals::Renewals;

/// Sheets waiting for answers to leases, in order of arrival.
#[derive(Debug)]
struct Waiting<S> {
    /// Keyed by the lease's address.
    places: HashMap<usize, u64>,
    sheets: BTreeMap<u64, (Arc<Lease>, Vec<Arc<S>>)>,
    next: u64,
    /// Sheets whose lease was answered and that are being paid right now.
    settling: Vec<Arc<S>>,
}

/// See the [module](self). `S` is the sheet, which is defined above this.
pub(crate) struct Answers<S> {
    waiting: Mutex<Waiting<S>>,
    /// Wakes tasks that wait for all of it to be paid.
    paid: Notify,
    /// How many answers leases have had.
    count: AtomicU64,
    renewals: Renewals,
}

/// Sheets whose lease was answered. They count as unpaid until this is dropped.
pub(crate) struct Answered<'a, S> {
    of: &'a Answers<S>,
    pub(crate) sheets: Vec<Arc<S>>,
}

impl<S> Drop for Answered<'_, S> {
    fn drop(&mut self) {
        if self.sheets.is_empty() {
            return;
        }
        let mut waiting = self.of.waiting();
        for sheet in &self.sheets {
            if let Some(at) = waiting.settling.iter().position(|it| Arc::ptr_eq(it, sheet)) {
                waiting.settling.swap_remove(at);
            }
        }
        drop(waiting);
        self.of.paid.notify_waiters();
    }
}

impl<S> Answers<S> {
    pub(crate) fn new(renewals: Renewals) -> Self {
        let (places, sheets, settling, paid, count) = Default::default();
        let waiting = Mutex::new(Waiting { places, sheets, next: 0, settling });
        Self { waiting, paid, count, renewals }
    }

    /// How many answers leases have had.
    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// How far the call for this lease has come.
    pub(crate) fn progress(&self, lease: &Lease) -> Progress {
        Progress {
            is_in_line: lease.is_in_line(),
            of_line: self.count(),
            own: lease.answer_no.load(Ordering::Relaxed),
        }
    }

    /// Has late use or debts of this sheet looked at again once the lease has been answered. False:
    /// it was answered after the first `seen` answers, perhaps to what this sheet has asked since,
    /// and there may be no other answer to wait for.
    #[must_use]
    pub(crate) fn wait_for(&self, lease: &Arc<Lease>, sheet: &Arc<S>, seen: u64) -> bool {
        let mut waiting = self.waiting();
        if lease.answer_no.load(Ordering::Relaxed) > seen {
            return false;
        }
        let Waiting { places, sheets, next, .. } = &mut *waiting;
        let place = *places.entry(Arc::as_ptr(lease).addr()).or_insert_with(|| {
            *next += 1;
            *next
        });
        let (_, sheets) = sheets.entry(place).or_insert_with(|| (lease.clone(), Vec::new()));
        if !sheets.iter().any(|known| Arc::ptr_eq(known, sheet)) {
            sheets.push(sheet.clone());
        }
        true
    }

    /// The lease has been answered: takes the sheets that wait for it.
    pub(crate) fn take(&self, lease: &Arc<Lease>) -> Answered<'_, S> {
        let mut waiting = self.waiting();
        // Under the lock, so that a sheet that asks just now either is taken here or sees it.
        let number = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        lease.answer_no.store(number, Ordering::Relaxed);
        let place = waiting.places.remove(&Arc::as_ptr(lease).addr());
        let taken = place.and_then(|place| waiting.sheets.remove(&place));
        let sheets = taken.map_or_else(Vec::new, |(_, sheets)| sheets);
        waiting.settling.extend(sheets.iter().cloned());
        Answered { of: self, sheets }
    }

    /// Asks again for the leases that late use of these sheets waits for. False: all of it has been
    /// paid.
    fn ask_again(&self, is_one: impl Fn(&Arc<S>) -> bool) -> bool {
        let waiting = self.waiting();
        let asked = waiting.sheets.values().filter(|(_, sheets)| sheets.iter().any(&is_one));
        let leases: Vec<_> = asked.map(|(lease, _)| lease.clone()).collect();
        let is_settling = waiting.settling.iter().any(is_one);
        drop(waiting);
        leases.iter().for_each(|lease| self.renewals.wake(lease));
        is_settling || !leases.is_empty()
    }

    /// Waits until the late use of these sheets has been paid or is owed; the caller bounds the
    /// wait.
    pub(crate) async fn all_paid(&self, is_one: impl Fn(&Arc<S>) -> bool) {
        loop {
            let mut paid = std::pin::pin!(self.paid.notified());
            paid.as_mut().enable();
            if !self.ask_again(&is_one) {
                return;
            }
            paid.await;
        }
    }

    /// Takes all waiting sheets, whatever they wait for.
    pub(crate) fn take_all(&self) -> Vec<Arc<S>> {
        let mut waiting = self.waiting();
        waiting.places.clear();
        let all = std::mem::take(&mut waiting.sheets);
        all.into_values().flat_map(|(_, sheets)| sheets).collect()
    }

    /// A panic leaves nothing here half done.
    fn waiting(&self) -> MutexGuard<'_, Waiting<S>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use crate::clock::Clock;
    use crate::payers::late::LateUse;
    use crate::payers::purse;
    use crate::policy::scoped::ScopesOf;
    use crate::quota::lease::Take;
    use crate::sheets::sheet::Sheet;
    use crate::table::Index;

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
        let (answers, lease) = (&inner.hub.answers, purse::lease_of(&sheet, Index::test(0)));
        assert!(answers.wait_for(lease, &sheet, answers.count()));
        let waits = |of: &Arc<Sheet>| answers.ask_again(|it| of.shares_tenant(it));
        assert!(waits(&sheet) && !waits(&other));
        let answered = answers.take(lease);
        assert!(waits(&sheet) && answers.ask_again(|_| true), "it is not paid yet");
        assert!(!waits(&other));
        drop(answered);
        assert!(!answers.ask_again(|_| true));
        // An answer that comes between asking and waiting is not waited for: it was the last.
        let before = answers.count();
        drop(answers.take(lease));
        assert!(!answers.wait_for(lease, &sheet, before) && !answers.ask_again(|_| true));
        assert!(answers.wait_for(lease, &sheet, answers.count()) && answers.ask_again(|_| true));
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
        let (hub, lease, now) = (&inner.hub, purse::lease_of(&sheet, Index::test(0)), clock.now());
        lease.want(1);
        hub.renewals.wake(lease);
        hub.renewals.answer_for(lease, 1).await;
        let all = lease.here();
        assert!(matches!(lease.take(all, now), Take::Taken { .. }));
        let meter = sheet.policy.pools[Index::test(0)].meter;
        LateUse { sheet: &sheet, scopes: ScopesOf::default(), now }.pay(meter, all);
        assert!(sheet.unpaid.is_some(), "the renewer has not run since");
        lease.release(all);
        let paid = tokio::time::timeout(
            Duration::from_secs(1),
            hub.answers.all_paid(|it| sheet.shares_tenant(it)),
        );
        paid.await.expect("without another request");
        assert_eq!((sheet.unpaid.is_some(), lease.total()), (false, all));
    }
}
