//! How long usage has waited to be written, and why, as the host may ask at any time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::store::StoreError;

/// Written by the task, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Since when the oldest usage has waited, on the monotonic clock; 0: none waits.
    since_ns: AtomicU64,
    error: Mutex<Option<StoreError>>,
}

impl Backlog {
    /// The age of the oldest usage that waits.
    pub(crate) fn age(&self, now_ns: u64) -> Option<Duration> {
        match self.since_ns.load(Ordering::Relaxed) {
            0 => None,
            since_ns => Some(Duration::from_nanos(now_ns.saturating_sub(since_ns))),
        }
    }

    /// The error of the last write, if that failed.
    pub(crate) fn error(&self) -> Option<StoreError> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn waits_since(&self, since_ns: Option<u64>) {
        // A clock that begins at 0 is not told from no backlog by one nanosecond.
        self.since_ns.store(since_ns.map_or(0, |ns| ns.max(1)), Ordering::Relaxed);
    }

    /// Sets the error of the last write, and returns the one before.
    pub(super) fn set_error(&self, error: Option<StoreError>) -> Option<StoreError> {
        let mut last = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut last, error)
    }
}
