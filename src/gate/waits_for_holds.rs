//! Whether what a limit lacks is only held by open requests: then it is worth asking again soon,
//! long before the limit resets.

use std::time::Duration;

use super::standing::LimitReader;
use crate::admission::permit::Hold;
use crate::policy::PoolIndex;
use crate::policy::taken::Limit;

/// How soon to ask again. How long open requests last is not known; those that a concurrency limit
/// refuses wait as long.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);

impl LimitReader<'_> {
    /// Whether `asked` atoms would be there if the open holds of this process went back, without
    /// those of the request at hand. What other processes hold is not known here.
    pub(super) fn waits_for_holds(&self, by: Limit, asked: u64, own: &Hold) -> bool {
        let policy = &self.sheet.policy;
        let unpaid = self.sheet.unpaid.still();
        let sum = |pools: &mut dyn Iterator<Item = PoolIndex>| -> i128 {
            pools.map(|pool| self.left_without_holds(pool, own)).sum()
        };
        let of_grants = |meter| {
            let unpaid = unpaid.as_ref().map_or(0, |unpaid| unpaid.of_meter(meter));
            let debtor = policy.payers(meter).and_then(|payers| payers.debtor);
            let debt = debtor.map_or(0, |pool| self.debt(pool));
            sum(&mut self.grants(meter)) - i128::from(unpaid) - i128::from(debt)
        };
        let left = match by {
            Limit::Quota(index) => {
                let rule = &policy.quotas[index];
                let granted = self.grants(rule.quota.meter).filter(|_| rule.tenant_wide);
                let pools = [rule.included, rule.over].into_iter().flatten();
                let unpaid = unpaid.as_ref().map_or(0, |unpaid| self.unpaid_of(index, unpaid));
                sum(&mut pools.chain(granted)) - i128::from(unpaid)
            }
            Limit::Granted(meter) => of_grants(meter),
            Limit::Rate(_) | Limit::None => return false,
        };
        left >= i128::from(asked)
    }

    /// What a pool would have if all requests but this one gave back what they hold of it; below
    /// nothing as far as late use is owed. What a lowered limit lacks takes nothing from grants.
    fn left_without_holds(&self, pool: PoolIndex, own: &Hold) -> i128 {
        match self.lease(pool) {
            Some(Some(lease)) => {
                let left = i128::from(lease.without_holds()) - i128::from(own.holds_of(&lease));
                left.max(-i128::from(self.debt(pool)))
            }
            Some(None) => i128::from(self.sheet.policy.pools[pool].limit),
            None => 0,
        }
    }
}
