//! Usage of a quota, computed from its pools by the same code for a refusal, which has leases only,
//! and for a report, which reads the store as well.

use crate::policy::{Policy, QuotaRule};

/// Balances of pools: from leases alone or, where nothing is leased, from the store as well.
pub(super) trait Balances {
    fn policy(&self) -> &Policy;

    /// The remainder of a pool; `None` if the caller has no value of its scope.
    fn left(&self, pool: u16) -> Option<u64>;

    /// What was used of a pool beyond all of it, by a caller whose use comes late.
    fn short(&self, pool: u16) -> u64;

    /// What late use owes of a pool.
    fn debt(&self, pool: u16) -> u64;

    /// What was used of a pool before its limit was lowered, and is more than that and not owed.
    fn overdrawn(&self, pool: u16) -> u64;

    /// What of the use beyond a quota is unpaid.
    fn debt_of(&self, rule: &QuotaRule) -> u64 {
        if !rule.tenant_wide {
            let pools = [rule.debtor].into_iter().chain(rule.over);
            return pools.fold(0, |sum, pool| self.short(pool).saturating_add(sum));
        }
        self.debt(rule.debtor)
    }

    /// What was used beyond a quota: drawn from what is beyond it, and owed. `None`: it does not
    /// hold for this caller.
    fn beyond(&self, rule: &QuotaRule) -> Option<u64> {
        let over = match rule.over {
            Some(pool) => {
                let whole = u64::try_from(self.policy().pools[usize::from(pool)].limit).ok()?;
                let more = if rule.tenant_wide { self.overdrawn(pool) } else { 0 };
                whole.saturating_sub(self.left(pool)?).saturating_add(more)
            }
            None => 0,
        };
        Some(over.saturating_add(self.debt_of(rule)))
    }

    /// What was used of a quota and beyond it. `None`: it has no limit, or does not hold for this
    /// caller.
    fn used_of(&self, rule: &QuotaRule) -> Option<u64> {
        let limit = rule.quota.limit?;
        let used = match rule.included {
            Some(pool) => {
                let used = limit.saturating_sub(self.left(pool)?.min(limit));
                let more = if rule.tenant_wide { self.overdrawn(pool) } else { 0 };
                used.saturating_add(more)
            }
            None => 0,
        };
        Some(used.saturating_add(self.beyond(rule)?))
    }
}
