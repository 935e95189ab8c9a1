//! Remaining units of a limit, for headers and reports: what this process holds plus what was free
//! when the pool last answered. In a split pool, what is free in this process's shard and in the
//! root; what other shards have counts as used. Read without a lock, unless units are moving
//! between the two just then: they would be counted twice, or not at all.

use super::Lease;
use super::balance::signed;

impl Lease {
    /// Atoms still available, as far as this process knows: its own, and what was free when the
    /// pool last answered, adjusted by a limit that has changed since.
    pub(crate) fn remaining(&self) -> u64 {
        u64::try_from(self.of_all()).unwrap_or(0)
    }

    /// Atoms used beyond all there are, as far as this process knows.
    pub(crate) fn short_of_all(&self) -> u64 {
        self.of_all().min(0).unsigned_abs()
    }

    /// Atoms drawn before the limit was lowered that the lowered limit does not have, and that are
    /// not owed.
    pub(crate) fn overdrawn(&self) -> u64 {
        match self.short_of_all() {
            0 => 0,
            short => short.saturating_sub(self.debt()),
        }
    }

    /// What would be available if all open holds of this process went back; negative is a debt.
    pub(crate) fn without_holds(&self) -> i64 {
        self.read(|it, at| at.of_all().saturating_add(signed(it.open_holds(at))))
    }

    /// Whether its pool has shards: what is free in others is not in
    /// [`remaining`](Self::remaining).
    pub(crate) fn is_split(&self) -> bool {
        self.negotiation().is_split()
    }

    /// The number of its last view of the pool, and when that was seen, on the monotonic clock.
    pub(crate) fn last_view(&self) -> (u64, u64) {
        let it = self.negotiation();
        (it.view_no, it.seen_ns)
    }

    /// Atoms held and not in use; negative is a debt.
    pub(crate) fn unserved(&self) -> i64 {
        self.read(|it, at| signed(it.held()).saturating_sub(signed(it.used(at))))
    }

    pub(super) fn of_all(&self) -> i64 {
        // While units may be moving, the lock is waited for.
        self.balance.of_all().unwrap_or_else(|| self.read(|_, at| at.of_all()))
    }
}
