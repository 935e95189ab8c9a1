//! Leases that no sheet holds any more: what they have left is given back once no request uses it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::clock::{Clock, Now};
use crate::holders::{Holder, is_held_only_by};
use crate::quota::incarnation::Incarnation;
use crate::quota::lease::{Lease, Listed};
use crate::quota::renewals::Renewals;

/// Retired leases looked at before other tasks get a turn: well under a millisecond.
const AT_ONCE: usize = 1_024;

/// See the [module](self).
pub(crate) struct RetiredLeases {
    list: Mutex<VecDeque<Arc<Lease>>>,
    renewals: Renewals,
    incarnation: Arc<Incarnation>,
    clock: Arc<dyn Clock>,
}

impl RetiredLeases {
    pub(crate) fn new(
        renewals: Renewals,
        incarnation: Arc<Incarnation>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { list: Mutex::default(), renewals, incarnation, clock }
    }

    /// Retires a lease.
    pub(crate) fn add(&self, lease: Arc<Lease>) {
        lease.listed.put(Listed::WANTED);
        if lease.listed.put(Listed::RETIRED) {
            self.list().push_back(lease);
        }
    }

    /// A retired lease is in use again: it leaves the list at the next pass.
    pub(crate) fn remove(&self, lease: &Arc<Lease>) {
        lease.listed.take(Listed::WANTED);
    }

    /// All of them, in use or not: the gate closes.
    pub(crate) fn take_all(&self) -> Vec<Arc<Lease>> {
        std::mem::take(&mut *self.list()).into()
    }

    /// Gives back leases with units that others can use; the rest are dropped once only this list
    /// and their tenant hold them. A request in flight keeps its lease, a caller at rest only an
    /// old sheet with it, which does not stop units that no request holds from going back.
    ///
    /// At the turn of an hour there is one for each tenant: other tasks run in between, and
    /// retiring another lease never waits for this.
    pub(crate) async fn give_back(&self) {
        let mut to_see = self.list().len();
        while to_see > 0 {
            // While drained they are in no list, so nothing is awaited before they are back.
            let some = to_see.min(AT_ONCE);
            let some: Vec<_> = {
                let mut list = self.list();
                let some = some.min(list.len());
                list.drain(..some).collect()
            };
            if some.is_empty() {
                return;
            }
            to_see -= some.len();
            let now = self.clock.now();
            let kept: Vec<_> = some.into_iter().filter(|lease| self.keeps(lease, now)).collect();
            self.list().extend(kept);
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
            if lease.incarnation() == self.incarnation.current() {
                lease.rest();
            } else {
                lease.close(); // nothing more is drawn, also for asks made while in use
            }
            self.renewals.wake(lease);
        }
        !(is_alone && (is_done || is_over)) && lease.listed.put(Listed::RETIRED)
    }

    /// A panic leaves nothing here half done.
    fn list(&self) -> MutexGuard<'_, VecDeque<Arc<Lease>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
