//! What a lease of a sub-pool wants, what it sees of the root, and how much feeds a sub-pool.

use crate::quota::pool::{self, Terms, View};

/// A sub-pool is fed for this many leases at once: more of the writers that share it will ask soon.
pub(super) const LEASES_AHEAD: i64 = 8;

/// A feed is at most one part in this of what is free (5 %), like a lease of a pool ...
const SHARE_OF_FREE: i64 = 20;

/// ... and, once more sub-pools were fed, one part in this for each of them: if all are fed at once
/// they have less than half of it, so that the rest goes where it is needed.
const SHARE_EACH: i64 = 2;

/// The root's state, for a lease of a sub-pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RootSeen {
    /// Free units there, and a sub-pool's share of them.
    pub(crate) free: i64,
    pub(crate) share: i64,
    pub(crate) owed: u64,
}

/// A lease's demand on its sub-pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    /// Atoms missing for a waiting ask, and atoms of a usual lease.
    pub(crate) need: u64,
    pub(crate) wish: u64,
    /// The limit in the asking process's catalog.
    pub(crate) terms: Terms,
    /// Whether a sub-pool may still be created: not long after its window's end.
    pub(crate) may_make: bool,
    /// Whether the root is read even if the sub-pool has enough.
    pub(crate) of_root: bool,
}

impl RootSeen {
    /// The root with this view.
    pub(crate) fn of(view: &View) -> Self {
        // 16-bit numbers: their product is in range.
        let parts = SHARE_EACH * i64::from(view.sub_pools);
        let share = view.free.max(0) / parts.max(SHARE_OF_FREE);
        Self { free: view.free, share, owed: view.owed() }
    }
}

/// Whether a sub-pool with this much free is to be fed for leases of this size before it is empty,
/// given the share its root would give it: a feed must at least double it.
pub(crate) fn is_thin(free: i64, share: i64, wish: u64) -> bool {
    ahead(free.max(0), share, wish) > free.max(0)
}

/// Atoms to feed ahead of need.
pub(super) fn ahead(here: i64, share: i64, wish: u64) -> i64 {
    let leases = pool::atoms(wish).saturating_mul(LEASES_AHEAD);
    leases.saturating_sub(here).min(share)
}
