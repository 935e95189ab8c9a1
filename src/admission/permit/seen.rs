//! What a hold holds, for a simulation that keeps its own books. Looking changes nothing: a plain
//! request stays plain.

use std::sync::Arc;

use super::plain::plain_asks;
use super::{Hold, Plain, State};
use crate::admission::decide::{self, From};
use crate::admission::lease::Lease;
use crate::admission::policy::PlainAsk;

impl Hold {
    /// The leases it drew from, in no order and perhaps more than once, with what it holds of them.
    pub(crate) fn seen(&self) -> Vec<(Arc<Lease>, u64)> {
        let sheet = &self.of.sheet;
        if self.plain != Plain::Not {
            let asks = plain_asks(self.of.rules()).iter();
            let held = |is_cost| {
                if is_cost { self.plain == Plain::Held } else { self.state != State::Over }
            };
            let one = |ask: &PlainAsk| {
                let (pool, slot) = ask.from?;
                let n = if held(ask.is_cost) { ask.n } else { 0 };
                Some((sheet.lease(pool, slot).clone(), n))
            };
            return asks.filter_map(one).collect();
        }
        let one = |took: &super::Taken| match &took.from {
            From::Pool(pool) => Some((decide::lease_of(sheet, *pool).clone(), took.n)),
            From::ScopedPool(lease) => Some((lease.clone(), took.n)),
            From::Bucket(_) | From::ScopedBucket(..) => None,
        };
        self.taken().iter().filter_map(one).collect()
    }
}
