//! Remaining units of a limit, for headers and reports: what this process holds plus what was free
//! when the pool last answered. In a split pool, what is free in this process's sub-pool and in the
//! root; what other sub-pools have counts as used. Read without a lock, unless units are moving
//! between the two just then: they would be counted twice, or not at all.

use std::sync::atomic::Ordering;

use super::{Lease, signed};

impl Lease {
    /// Atoms still available, as far as this process knows: its own, and what was free when the
    /// pool last answered, adjusted by a limit that has changed since.
    pub(crate) fn remaining(&self) -> u64 {
        u64::try_from(self.left_of_all()).unwrap_or(0)
    }

    /// Atoms used beyond all there are, as far as this process knows.
    pub(crate) fn short_of_all(&self) -> u64 {
        self.left_of_all().min(0).unsigned_abs()
    }

    /// Atoms drawn before the limit was lowered that the lowered limit does not have, and that are
    /// not owed.
    pub(crate) fn overdrawn(&self) -> u64 {
        match self.short_of_all() {
            0 => 0,
            short => short.saturating_sub(self.debt()),
        }
    }

    /// How far `n` atoms exceed that; negative: they are available, as far as is known.
    pub(super) fn lacking(&self, n: u64) -> i64 {
        signed(n).saturating_sub(self.left_of_all())
    }

    fn left_of_all(&self) -> i64 {
        let sum = || {
            let free = self.free_seen.load(Ordering::Acquire);
            let left = self.left.load(Ordering::Acquire);
            left.saturating_add(free)
        };
        let before = self.moves.load(Ordering::Acquire);
        let seen = sum();
        if before.is_multiple_of(2) && self.moves.load(Ordering::Acquire) == before {
            return seen;
        }
        // The sum may count units twice: read again while nothing can move.
        let _cold = self.cold();
        sum()
    }

    /// Whether its pool has sub-pools: what is free in others is not in
    /// [`remaining`](Self::remaining).
    pub(crate) fn is_split(&self) -> bool {
        let cold = self.cold();
        cold.shard.is_some() || cold.view.is_some_and(|view| view.sub_pools > 0)
    }

    /// Atoms held and not in use; negative is a debt.
    pub(crate) fn unserved(&self) -> i64 {
        let cold = self.cold();
        signed(cold.held()).saturating_sub(signed(self.used(&cold)))
    }

    /// Marks units as moving between `left` and `free_seen` until dropped; the caller has the lock.
    pub(super) fn moving(&self) -> Moving<'_> {
        self.moves.fetch_add(1, Ordering::AcqRel);
        Moving(self)
    }
}

/// See [`Lease::moving`].
pub(super) struct Moving<'a>(&'a Lease);

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        self.0.moves.fetch_add(1, Ordering::AcqRel);
    }
}
