//! Use that no hold covers: a number that is larger than what was set aside for it, or that nobody
//! set anything aside for. Each quota of its meter pays: from what it includes, as far as that is
//! known to go, then from what is beyond. What neither has is a debt of this process.

use std::sync::Arc;

use super::decide;
use super::lease::Lease;
use super::policy::{Place, QuotaRule};
use super::scoped::ScopesOf;
use super::sheet::Sheet;
use crate::catalog::MeterId;
use crate::clock::Now;

/// Whose use it is, and of when.
#[derive(Clone, Copy)]
pub(crate) struct LateUse<'a> {
    pub(crate) sheet: &'a Arc<Sheet>,
    /// Whose limits within the tenant hold.
    pub(crate) scopes: ScopesOf<'a>,
    pub(crate) now: Now,
    /// A quota whose window began later does not pay.
    pub(crate) at_ms: i64,
}

impl LateUse<'_> {
    /// Every quota of this meter pays for `n` atoms.
    pub(crate) fn pay(self, meter: MeterId, n: u64) {
        let quotas = self.sheet.policy.quotas.iter();
        quotas.filter(|quota| quota.quota.meter == meter).for_each(|quota| self.pay_of(quota, n));
    }

    /// This quota pays for `n` atoms.
    pub(crate) fn pay_of(self, quota: &QuotaRule, n: u64) {
        let lease = |pool: Option<u16>| pool.and_then(|pool| self.lease(pool));
        match (lease(quota.included), lease(quota.over)) {
            (Some(included), Some(over)) => {
                let here = n.min(included.remaining());
                self.settle(&included, here);
                self.settle(&over, n - here);
            }
            (Some(lease), None) | (None, Some(lease)) => self.settle(&lease, n),
            (None, None) => {}
        }
    }

    fn settle(self, lease: &Arc<Lease>, n: u64) {
        if n == 0 || lease.pool().start_ms > self.at_ms {
            return;
        }
        let hub = &self.sheet.tenant.hub;
        lease.settle_late(n);
        if lease.pool().scope != 0 {
            hub.soil_lease(lease);
        }
        hub.wake(lease);
    }

    /// `None`: the quota is for a scope that the caller has no value of, or there is no more room
    /// for leases of such.
    fn lease(self, pool: u16) -> Option<Arc<Lease>> {
        match &self.sheet.policy.pools[usize::from(pool)].place {
            Place::Sheet(_) => Some(decide::lease_of(self.sheet, pool).clone()),
            Place::Scoped(scope) => {
                let value = self.scopes.of(scope)?;
                self.sheet.scoped_lease(pool, value, self.now)
            }
        }
    }
}
