//! A lease of an idle tenant: the same units in a tenth of the memory.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use super::Lease;
use super::balance::Balance;
use super::call::Fixed;
use super::negotiation::Negotiation;
use crate::ids::{SubPoolNumber, Surrogate, WriterId};
use crate::quota::alert::Alerting;
use crate::quota::demand::RootSeen;
use crate::quota::pool::{PoolId, Terms, View};

/// All there is to know of an unused lease. Its owner keeps the tenant and the incarnation.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LeaseAtRest {
    limit: Arc<str>,
    start_ms: i64,
    end_ms: i64,
    ttl: Option<i64>,
    of_slot: bool,
    bills: bool,
    left: i64,
    total: u64,
    low: i64,
    free_seen: i64,
    terms: Terms,
    peak: Option<Box<Terms>>,
    view: Option<View>,
    absent: bool,
    stale: bool,
    shard: Option<SubPoolNumber>,
    elsewhere: i64,
    owed_elsewhere: u64,
    size: u64,
    granted: u64,
    granted_ns: u64,
    ceiling: u64,
    first_ask: u64,
    raised: i64,
    withheld: u64,
    seen_rev: i64,
}

impl Lease {
    /// The compact form. `None`: some of it is in use, in hand, unrecorded or in doubt.
    pub(crate) fn at_rest(&self) -> Option<LeaseAtRest> {
        // Not under the other lock: an alert that is due takes them in this order.
        let raised = self.alerts().as_ref().map_or(0, |it| it.raised());
        let (it, at) = (self.negotiation(), self.balance.load());
        let is_idle = it.is_idle(&at)
            && !self.queued.load(Ordering::SeqCst)
            && !self.dirty.load(Ordering::Acquire)
            && at.waiting == 0
            && self.fixed.pool.scope == 0;
        if !is_idle || self.is_unlogged() {
            return None;
        }
        Some(LeaseAtRest {
            limit: self.fixed.pool.limit.clone(),
            start_ms: self.fixed.pool.start_ms,
            end_ms: self.fixed.end_ms,
            ttl: self.fixed.ttl,
            of_slot: self.fixed.of_slot,
            bills: self.fixed.bills,
            left: at.left,
            total: at.total,
            low: at.low,
            free_seen: at.free,
            terms: it.terms,
            peak: it.peak.clone(),
            view: it.view,
            absent: it.debts.absent,
            stale: it.stale,
            shard: it.shard,
            elsewhere: it.root.free,
            owed_elsewhere: it.root.owed,
            size: it.size,
            granted: it.granted,
            granted_ns: it.granted_ns,
            ceiling: it.ceiling.logged,
            first_ask: it.first_ask,
            raised,
            withheld: it.withheld,
            seen_rev: it.seen_rev,
        })
    }
}

impl LeaseAtRest {
    /// Restores the lease as it was; earlier demand and refusals are forgotten.
    pub(crate) fn wake(
        self,
        tenant: Surrogate,
        incarnation: WriterId,
        mut alerting: Option<Alerting>,
    ) -> Lease {
        alerting.iter_mut().for_each(|it| it.settle(self.raised));
        let pool = PoolId { tenant, limit: self.limit, scope: 0, start_ms: self.start_ms };
        let (end_ms, ttl, of_slot, bills) = (self.end_ms, self.ttl, self.of_slot, self.bills);
        let fixed = Fixed { pool, incarnation, end_ms, ttl, of_slot, bills };
        let mut at = Balance {
            left: self.left,
            total: self.total,
            low: self.low,
            free: self.free_seen,
            is_seen: self.absent || self.view.is_some(),
            ..Balance::default()
        };
        let mut it = Negotiation {
            view: self.view,
            stale: self.stale,
            shard: self.shard,
            root: RootSeen { free: self.elsewhere, share: 0, owed: self.owed_elsewhere }.into(),
            size: self.size,
            granted: self.granted,
            granted_ns: self.granted_ns,
            peak: self.peak,
            withheld: self.withheld,
            seen_rev: self.seen_rev,
            ..Negotiation::new(self.terms, self.first_ask)
        };
        it.debts.absent = self.absent;
        it.ceiling.raise(self.ceiling);
        it.note_moved(&mut at);
        it.note_debt(&mut at);
        Lease::with(fixed, at, it).alerting(alerting)
    }

    /// The pool it belongs to, within its tenant.
    pub(crate) fn pool(&self) -> (&str, i64) {
        (&self.limit, self.start_ms)
    }

    /// Until when it has something to write, unused units or a limit that has paid part of a debt:
    /// the end of its window.
    pub(crate) fn unused_until_ms(&self) -> Option<i64> {
        let view = self.view?;
        if self.peak.is_some() {
            return Some(self.end_ms);
        }
        let mine = view.mine?;
        (self.left.saturating_add_unsigned(self.withheld) > 0
            || mine.held > mine.preauthorised.max(self.ceiling))
        .then_some(self.end_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::alert::{AlertRule, AlertTerms};

    #[test]
    fn a_lease_of_a_slot_is_one_after_its_sleep() {
        let tenant = Surrogate::test(1);
        for of_slot in [true, false] {
            let pool = PoolId { tenant, limit: "rate/default/h".into(), scope: 0, start_ms: 0 };
            let lease =
                Lease::new(pool, 3_600_000, Terms { limit: 10, rev: 1 }, 1).of_slot(of_slot);
            let woken = lease.at_rest().unwrap().wake(tenant, WriterId::test(7), None);
            assert_eq!(woken.is_of_slot(), of_slot);
        }
    }

    #[test]
    fn after_its_sleep_a_tenant_is_told_of_what_it_was_not_told_of_before() {
        let tenant = Surrogate::test(1);
        let (plan, steps) = ("free".into(), vec![(1, 10), (8, 80)]);
        let terms = AlertTerms { plan, scale: 1, limit: 10, is_over: false };
        let rule = Arc::new(AlertRule { limit: "jobs/h".into(), steps, terms });
        let alerting = || Some(Alerting::new("acme".into(), rule.clone()));
        for (told, due) in [(0, Some(10)), (1, Some(80)), (8, None)] {
            let pool = PoolId { tenant, limit: "jobs/h".into(), scope: 0, start_ms: 0 };
            let lease = Lease::new(pool, 3_600_000, Terms { limit: 10, rev: 1 }, 1);
            let lease = lease.alerting(alerting());
            lease.alert_is_told(told);
            let woken = lease.at_rest().unwrap().wake(tenant, WriterId::test(7), alerting());
            let found = woken.due_alert(Some(9)).map(|due| due.alert.percent);
            assert_eq!(found, due, "told at {told} of 10");
        }
    }
}
