//! Decides whether a pool is read before it is created: where other processes have probably created
//! it, a read costs a fifth of a refused write.

use std::sync::atomic::{AtomicU32, Ordering};

/// Out of 256 new pools, how many must already exist for this process to read before creating.
const LOOK_FIRST: u32 = 256 / 5;

/// The initial guess of a process that shares its store: it reads first, until two pools in a row
/// were missing.
const EXPECTED: u32 = 256 / 4;

/// Out of 256 pools this process was about to create, how many already existed, lately.
#[derive(Debug, Default)]
pub(crate) struct FirstReads(AtomicU32);

impl FirstReads {
    /// Other processes may have created pools: most that a fresh process looks for exist.
    pub(crate) fn expect_pools(&self) {
        self.0.store(EXPECTED, Ordering::Relaxed);
    }

    /// Notes whether a pool this process had not seen existed.
    pub(crate) fn pool_was_there(&self, there: bool) {
        // A race may lose one update, which costs nothing.
        let before = self.0.load(Ordering::Relaxed);
        let after = (before * 7 + if there { 256 } else { 0 }) / 8;
        self.0.store(after, Ordering::Relaxed);
    }

    /// Whether reading first is cheaper.
    pub(crate) fn are_cheaper(&self) -> bool {
        self.0.load(Ordering::Relaxed) > LOOK_FIRST
    }
}
