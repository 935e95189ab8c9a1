//! The tenants that were changed last, numbered in the order in which this process learned of it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::Surrogate;

/// Changes that are kept for look-ups under way: a look-up that lasts for longer than so many
/// changes is made once more.
const RECENT: usize = 256;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Recent {
    changed: Mutex<HeardChanges>,
    /// When a value was last read from the directory, or kept because it could not be read, on the
    /// monotonic clock.
    read_ns: AtomicU64,
    /// Everything read before this time is in doubt.
    doubted_ns: AtomicU64,
}

#[derive(Debug, Default)]
struct HeardChanges {
    so_far: u64,
    last: VecDeque<Surrogate>,
    /// The number of the change by which everything came into doubt last.
    doubt: u64,
}

impl Recent {
    /// How many changes were heard of so far: to be asked before something is read.
    pub(super) fn so_far(&self) -> u64 {
        self.locked().so_far
    }

    /// Notes a change, and returns its number.
    pub(super) fn note(&self, tenant: Surrogate) -> u64 {
        let mut changed = self.locked();
        changed.so_far += 1;
        changed.last.push_back(tenant);
        if changed.last.len() > RECENT {
            changed.last.pop_front();
        }
        changed.so_far
    }

    /// Any tenant may have changed.
    pub(super) fn doubt(&self, now_ns: u64) {
        let mut changed = self.locked();
        changed.so_far += 1;
        changed.doubt = changed.so_far;
        changed.last.clear(); // so this change is none of those in mind
        self.doubted_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// Whether what was read then may lack a change that was announced.
    pub(super) fn is_in_doubt(&self, read_ns: u64) -> bool {
        read_ns <= self.doubted_ns.load(Ordering::Relaxed)
    }

    /// Whether this tenant may have been changed after so many changes had been heard of: what was
    /// read since then may be from before.
    pub(super) fn has_changed(&self, tenant: Surrogate, as_of: u64) -> bool {
        let changed = self.locked();
        let since = usize::try_from(changed.so_far - as_of).unwrap_or(usize::MAX);
        since > changed.last.len() || changed.last.iter().rev().take(since).any(|it| *it == tenant)
    }

    /// Whether everything came into doubt after so many changes had been heard of: also what was
    /// read since then, as it may be from before. To be asked once that is in its table, where a
    /// doubt that comes later finds it.
    pub(super) fn has_doubted(&self, as_of: u64) -> bool {
        as_of < self.locked().doubt
    }

    /// Notes that a value was read from the directory, or kept, and will be trusted for a while.
    pub(super) fn reads(&self, now_ns: u64) {
        self.read_ns.fetch_max(now_ns, Ordering::Relaxed);
    }

    /// When that was last noted.
    pub(super) fn read_ns(&self) -> u64 {
        self.read_ns.load(Ordering::Relaxed)
    }

    fn locked(&self) -> MutexGuard<'_, HeardChanges> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
