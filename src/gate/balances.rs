//! Usage of a quota, computed from its pools.

use super::standing::LimitReader;
use crate::policy::QuotaRule;

impl LimitReader<'_> {
    /// What of the use beyond a quota is unpaid.
    pub(super) fn debt_of(&self, rule: &QuotaRule) -> u64 {
        if !rule.tenant_wide {
            let pools = [rule.debtor].into_iter().chain(rule.over);
            return pools.fold(0, |sum, pool| self.short(pool).saturating_add(sum));
        }
        self.debt(rule.debtor)
    }

    /// What was used beyond a quota: drawn from what is beyond it, and owed. `None`: it does not
    /// hold for this caller.
    pub(super) fn beyond(&self, rule: &QuotaRule) -> Option<u64> {
        let over = match rule.over {
            Some(pool) => {
                let whole = u64::try_from(self.sheet.policy.pools[pool].limit).ok()?;
                let more = if rule.tenant_wide { self.overdrawn(pool) } else { 0 };
                whole.saturating_sub(self.remaining(pool)?).saturating_add(more)
            }
            None => 0,
        };
        Some(over.saturating_add(self.debt_of(rule)))
    }

    /// What was used of a quota and beyond it. `None`: it has no limit, or does not hold for this
    /// caller.
    pub(super) fn used_of(&self, rule: &QuotaRule) -> Option<u64> {
        let limit = rule.quota.limit?;
        let used = match rule.included {
            Some(pool) => {
                let used = limit.saturating_sub(self.remaining(pool)?.min(limit));
                let more = if rule.tenant_wide { self.overdrawn(pool) } else { 0 };
                used.saturating_add(more)
            }
            None => 0,
        };
        Some(used.saturating_add(self.beyond(rule)?))
    }
}
