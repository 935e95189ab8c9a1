//! Draws of a request, by limit.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::catalog::MeterId;
use crate::policy::scoped::{ScopedBucket, Used};
use crate::policy::{PoolIndex, QuotaIndex, RateIndex};
use crate::quota::lease::Lease;

/// The limit at fault, by its index in the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    None,
    Rate(RateIndex),
    Quota(QuotaIndex),
    Grant(PoolIndex),
    /// Everything of a meter whose units are only ever given once: all its grants, or none.
    Granted(MeterId),
}

/// A draw from one limit, to be settled or given back.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) from: DrawnFrom,
    pub(crate) n: u64,
    /// Index of the meter ask it serves; [`CALLS`] for a bucket that counts calls.
    pub(crate) ask: u8,
    /// The draw it belongs to: use is settled draw by draw, in order. An ask with several payers
    /// has a draw for each part, see [`PARTS`].
    pub(crate) draw: u64,
}

impl Taken {
    /// Units of a pool, as opposed to room in a bucket.
    pub(crate) fn is_units(&self) -> bool {
        matches!(self.from, DrawnFrom::Pool(_) | DrawnFrom::ScopedPool(..))
    }

    /// Whether it serves the same ask from the same limit.
    pub(crate) fn is_from_same(&self, other: &Self) -> bool {
        self.ask == other.ask
            && match (&self.from, &other.from) {
                (DrawnFrom::Pool(one), DrawnFrom::Pool(two)) => one == two,
                (DrawnFrom::ScopedPool(_, one), DrawnFrom::ScopedPool(_, two)) => {
                    Arc::ptr_eq(one, two)
                }
                _ => false,
            }
    }
}

/// Parts of one ask, as a power of two: the next ask's draws begin this much later.
pub(crate) const PARTS: u32 = 20;

/// `Taken::ask` of a bucket that counts calls.
pub(crate) const CALLS: u8 = u8::MAX;

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
