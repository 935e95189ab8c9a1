//! View of a hold for a simulation that keeps its own books. Looking changes nothing: a plain
//! request stays plain.

use std::sync::Arc;

use super::plain::plain_asks;
use super::{Hold, HoldState, Plain};
use crate::payers::purse;
use crate::policy::taken::DrawnFrom;
use crate::policy::{AmountSource, CounterHome, PlainAsk};
use crate::quota::lease::Lease;

impl Hold {
    /// The leases it drew from, possibly repeated, with what it holds of them: those of the sheet
    /// it was admitted under first, those that pay for further reports last.
    pub(crate) fn seen(&self) -> Vec<(Arc<Lease>, u64)> {
        let mut seen = self.seen_here();
        let later = self.list.get().map_or(&[][..], |listed| &listed.going_on);
        for hold in later {
            seen.extend(hold.seen_here());
        }
        seen.extend(later.last().into_iter().flat_map(Self::seen_to_pay));
        seen
    }

    /// The leases of quotas on reported meters.
    fn seen_to_pay(&self) -> Vec<(Arc<Lease>, u64)> {
        let (sheet, policy) = (&self.of.sheet, &self.of.sheet.policy);
        let reported = self
            .of
            .rules()
            .meters
            .iter()
            .filter(|ask| matches!(ask.known, AmountSource::Reported(_)));
        let pools =
            reported.flat_map(|ask| &ask.quotas).filter_map(|quota| policy.quotas[*quota].included);
        let whole = pools.filter(|pool| matches!(policy.pools[*pool].place, CounterHome::Sheet(_)));
        whole.map(|pool| (purse::lease_of(sheet, pool).clone(), 0)).collect()
    }

    fn seen_here(&self) -> Vec<(Arc<Lease>, u64)> {
        let sheet = &self.of.sheet;
        if self.plain != Plain::Not {
            let asks = plain_asks(self.of.rules()).iter();
            let held = |is_cost| {
                if is_cost { self.plain == Plain::Held } else { self.state != HoldState::Over }
            };
            let one = |ask: &PlainAsk| {
                let (pool, slot) = ask.from?;
                let n = if held(ask.is_cost) { ask.n } else { 0 };
                Some((sheet.lease(pool, slot).clone(), n))
            };
            return asks.filter_map(one).collect();
        }
        let one = |took: &super::Taken| match &took.from {
            DrawnFrom::Pool(pool) => Some((purse::lease_of(sheet, *pool).clone(), took.n)),
            DrawnFrom::ScopedPool(_, lease) => Some((lease.clone(), took.n)),
            DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..) => None,
        };
        self.taken().iter().filter_map(one).collect()
    }
}
