//! Draws of a request, by limit.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::catalog::MeterId;
use crate::policy::scoped::{ScopedBucket, Used};
use crate::policy::{AskIndex, PoolIndex, QuotaIndex, RateIndex};
use crate::quota::lease::Lease;

/// The limit at fault, by its index in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    None,
    Rate(RateIndex),
    Quota(QuotaIndex),
    /// Everything of a meter whose units are only ever given once: all its grants, or none. One
    /// limit, by one name, however many of them there are.
    Granted(MeterId),
}

/// What a draw pays for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PaysFor {
    /// The call itself, at a rate that counts calls: made is made, whatever its outcome.
    Call,
    /// This meter ask of the rules that the request was admitted under.
    Ask(AskIndex),
    /// Use that no request holds units for.
    LateUse,
}

/// A draw from one limit, to be settled or given back.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) from: DrawnFrom,
    pub(crate) n: u64,
    pub(crate) pays: PaysFor,
    /// The draw it belongs to: use is settled draw by draw, in order. An ask with several payers
    /// has a draw for each part, see [`PARTS`].
    pub(crate) draw: u64,
}

impl Taken {
    /// Whether it serves this meter ask.
    #[inline]
    pub(crate) fn is_of(&self, ask: AskIndex) -> bool {
        self.pays == PaysFor::Ask(ask)
    }

    /// Units of a pool, as opposed to room in a bucket.
    pub(crate) fn is_units(&self) -> bool {
        matches!(self.from, DrawnFrom::Pool(_) | DrawnFrom::ScopedPool(..))
    }

    /// Whether it serves the same ask from the same limit.
    pub(crate) fn is_from_same(&self, other: &Self) -> bool {
        self.pays == other.pays
            && match (&self.from, &other.from) {
                (DrawnFrom::Pool(one), DrawnFrom::Pool(two)) => one == two,
                (DrawnFrom::Bucket(one), DrawnFrom::Bucket(two))
                | (DrawnFrom::ScopedBucket(one, _), DrawnFrom::ScopedBucket(two, _)) => one == two,
                (DrawnFrom::ScopedPool(_, one), DrawnFrom::ScopedPool(_, two)) => {
                    Arc::ptr_eq(one, two)
                }
                _ => false,
            }
    }
}

/// Parts of one ask, as a power of two: the next ask's draws begin this much later.
pub(crate) const PARTS: u32 = 20;

/// The counter it was taken from.
#[derive(Clone, Debug)]
pub(crate) enum DrawnFrom {
    /// The bucket of this rate.
    Bucket(RateIndex),
    ScopedBucket(RateIndex, Arc<Used<ScopedBucket>>),
    /// The lease of this pool.
    Pool(PoolIndex),
    ScopedPool(PoolIndex, Arc<Lease>),
}

/// Most requests draw from four limits or fewer; more spill to the heap.
pub(crate) type TakenList = SmallVec<[Taken; 4]>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn four_draws_that_say_what_they_pay_for_fit_where_they_did() {
        assert_eq!(size_of::<PaysFor>(), 4, "in what alignment leaves beside the numbers");
        assert_eq!(size_of::<Taken>(), 40);
    }
}
