//! The queue of leases whose pools are to be asked. Pushing never waits, and a lease is in the
//! queue or with the renewer at most once.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::quota::lease::Lease;

/// Most leases waiting for the renewer. A lease is in hand at most once, so this is a bound on
/// tenants whose leases run out in the same instant; beyond it a request retries by itself.
pub(crate) const RENEWAL_QUEUE: usize = 65_536;

/// See the [module](self). Clones are one queue.
#[derive(Clone)]
pub(crate) struct Renewals {
    queue: mpsc::Sender<Arc<Lease>>,
    clock: Arc<dyn Clock>,
}

impl Renewals {
    /// The queue, and its end at the renewer.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> (Self, mpsc::Receiver<Arc<Lease>>) {
        let (queue, renewer) = mpsc::channel(RENEWAL_QUEUE);
        (Self { queue, clock }, renewer)
    }

    /// Hands a lease to the renewer, unless it is there.
    pub(crate) fn wake(&self, lease: &Arc<Lease>) {
        if lease.queue() && self.queue.try_send(lease.clone()).is_err() {
            // Full, or the gate is closed: the next request that needs units tries again.
            lease.unqueue();
        }
    }

    /// Waits for `n` atoms that were asked for: until they are here, or known to be unavailable.
    pub(crate) async fn answer_for(&self, lease: &Arc<Lease>, n: u64) {
        while !lease.answer_for(n, &*self.clock).await {
            lease.want(n);
            self.wake(lease);
        }
    }
}
