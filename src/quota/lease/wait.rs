//! Waiting for units of a lease.

use std::sync::atomic::Ordering;

use super::{Lease, signed};
use crate::clock::Clock;

impl Lease {
    /// Asks the pool for `n` atoms with its next call.
    pub(crate) fn want(&self, n: u64) {
        self.wanted.fetch_max(n, Ordering::SeqCst);
    }

    /// Waits until `n` atoms are here or known to be unavailable; the caller bounds the wait.
    /// `false`: the pool is no longer being asked for them, because it could not cover another ask
    /// or other requests were faster. Ask again.
    pub(crate) async fn answer_for(&self, n: u64, clock: &dyn Clock) -> bool {
        let _asked = WaitingAsk::count(self, n);
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let is_seen = !self.looked_for.load(Ordering::Acquire);
            let here = self.left.load(Ordering::Acquire) >= signed(n);
            if is_seen && (here || self.is_refused(n, clock.now())) {
                return true;
            }
            if self.wanted.load(Ordering::SeqCst) < n {
                return false;
            }
            changed.await;
        }
    }
}

/// Counts an ask among the waiting ones while this lives.
struct WaitingAsk<'a>(&'a Lease, u64);

impl<'a> WaitingAsk<'a> {
    fn count(lease: &'a Lease, n: u64) -> Self {
        lease.waiting.fetch_add(n, Ordering::AcqRel);
        Self(lease, n)
    }
}

impl Drop for WaitingAsk<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(self.1, Ordering::AcqRel);
    }
}
