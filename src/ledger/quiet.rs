//! Leases that have fallen quiet, on a store that one process opens at a time.
//!
//! What a killed process had leased is taken back above its ceiling alone, so that of a quiet
//! tenant up to four asks are lost until the window's end, and of one-time units for good. Where
//! nothing else can be served from them meanwhile, they go back before that: no process waits for
//! them, but the next one has them. The next call waits for the store, as a tenant's first does, so
//! leases that are small beside their limit keep what they hold.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::clock::{Now, nanos};
use crate::quota::lease::Lease;
use crate::sheets::hub::Hub;

/// A lease is quiet if no record was made of it for this long.
const QUIET: Duration = Duration::from_secs(1);

/// See the [module](self). Leases are keyed by address, which an entry is compared with again
/// before it is used.
#[derive(Debug, Default)]
pub(super) struct QuietLeases {
    /// Leases of the latest records, and when those were made: forgotten once they are quiet.
    used: HashMap<usize, (Weak<Lease>, u64)>,
}

impl QuietLeases {
    /// Notes a lease that a record is being made of.
    pub(super) fn note(&mut self, lease: &Arc<Lease>, now: Now) {
        self.used.insert(Arc::as_ptr(lease).addr(), (Arc::downgrade(lease), now.mono_ns));
    }

    /// Has those that have fallen quiet give back what is worth it.
    pub(super) fn give_back(&mut self, hub: &Hub, now: Now) {
        let mut quiet = Vec::new();
        self.used.retain(|_, (lease, used_ns)| {
            let is_quiet = now.mono_ns.saturating_sub(*used_ns) >= nanos(QUIET);
            quiet.extend(lease.upgrade().filter(|_| is_quiet));
            !is_quiet
        });
        quiet.retain(|lease| lease.is_worth_returning());
        // A hash table has no order of its own, and a seed must give one run.
        quiet.sort_by(|a, b| a.pool().cmp(b.pool()));
        for lease in quiet {
            lease.rest();
            hub.renewals.wake(&lease);
        }
    }
}
