//! Waiting for units of a lease.

use super::Lease;
use crate::clock::Clock;

impl Lease {
    /// Waits until `n` atoms are here or known to be unavailable; the caller bounds the wait.
    /// `false`: the pool is no longer being asked for them, because it could not cover another ask
    /// or other requests were faster. Ask again.
    pub(crate) async fn answer_for(&self, n: u64, clock: &dyn Clock) -> bool {
        let _asked = self.balance.wait_for(n);
        loop {
            let mut changed = std::pin::pin!(self.balance.changed().notified());
            changed.as_mut().enable();
            let is_seen = !self.balance.is_looked_for();
            if is_seen && (self.here() >= n || self.is_refused(n, clock.now())) {
                return true;
            }
            if self.balance.wanted() < n {
                return false;
            }
            changed.await;
        }
    }
}
