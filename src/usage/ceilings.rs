//! Ceilings of leases, on their way through the log: proposed with the record that is being made,
//! and in force once it is in the store. See `admission/lease/ceiling.rs`.
//!
//! Beside them: whether this process holds units that it does not use. Then it writes a record now
//! and again even if it has nothing to record, so that nobody takes it for dead.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::record::{ByWriter, PoolRow};
use crate::admission::lease::Lease;
use crate::clock::Now;

/// A lease that is gone keeps its memory for as long as it is known here: a minute at most.
const PRUNE_NS: u64 = 60_000_000_000;

/// See the [module](self). Leases are known by their address, which is theirs as long as they are
/// held here.
#[derive(Debug, Default)]
pub(super) struct Ceilings {
    /// Leases that were used since the last record.
    used: HashMap<usize, Arc<Lease>>,
    /// Leases that were ever used, for as long as they are there.
    known: HashMap<usize, Weak<Lease>>,
    /// When those that are gone were last let go of.
    pruned_ns: u64,
    /// What the record under way promises.
    proposed: Vec<(Arc<Lease>, u64)>,
}

impl Ceilings {
    /// A lease has been used, or waits for a higher ceiling.
    pub(super) fn note(&mut self, lease: Arc<Lease>) {
        self.used.insert(Arc::as_ptr(&lease).addr(), lease);
    }

    /// Adds the ceilings that are due to the rows of the record that is being made.
    pub(super) fn propose(&mut self, writer: u128, now: Now, rows: &mut ByWriter) {
        let mut leases: Vec<(usize, Arc<Lease>)> = self.used.drain().collect();
        // A table has no order of its own, and one seed shall be one run.
        leases.sort_by(|(_, a), (_, b)| a.pool().cmp(b.pool()));
        for (at, lease) in leases {
            if lease.incarnation() != writer {
                continue;
            }
            if let Some(ceiling) = lease.propose_ceiling(now) {
                let row = PoolRow { total: lease.total(), ceiling };
                let own = rows.entry(writer).or_default();
                own.pools.entry(lease.pool().clone()).or_default().raise(row);
                self.proposed.push((lease.clone(), ceiling));
            }
            self.known.insert(at, Arc::downgrade(&lease));
        }
        if now.mono_ns.saturating_sub(self.pruned_ns) >= PRUNE_NS {
            self.pruned_ns = now.mono_ns;
            self.known.retain(|_, lease| lease.strong_count() > 0);
            self.known.shrink_to(2 * self.known.len());
            self.used.shrink_to(self.known.len());
        }
    }

    /// The record is in the store: they are in force.
    pub(super) fn logged(&mut self) {
        for (lease, ceiling) in self.proposed.drain(..) {
            lease.ceiling_logged(ceiling);
        }
    }

    /// The record is not, and never will be.
    pub(super) fn dropped(&mut self) {
        self.proposed.clear();
    }

    /// Whether this process holds units that it does not use, in a window that runs.
    pub(super) fn holds_units(&mut self, now: Now) -> bool {
        let holds = |lease: Arc<Lease>| lease.window().end_ms > now.wall_ms && lease.has_unused();
        self.known.retain(|_, lease| lease.upgrade().is_some_and(holds));
        !self.known.is_empty()
    }
}
