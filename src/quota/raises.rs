//! Leases that wait for the recorder: for a higher ceiling, or for a sign of life of this process.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use crate::quota::lease::{Lease, Listed};

/// See the [module](self).
#[derive(Default)]
pub(crate) struct CeilingRaises {
    /// Leases that may serve no more until a higher ceiling is on record.
    capped: Mutex<Vec<Arc<Lease>>>,
    /// Leases with units that other processes could take back, noted since the recorder last asked:
    /// until those units may be served or have gone back, it shows that this process lives.
    reclaimable: Mutex<Vec<Weak<Lease>>>,
    /// Wakes the recorder.
    due: Notify,
}

impl CeilingRaises {
    /// Notes a lease that waits for a higher ceiling: it is recorded soon.
    pub(crate) fn add(&self, lease: &Arc<Lease>) {
        if lease.listed.put(Listed::CAPPED) {
            locked(&self.capped).push(lease.clone());
        }
        self.hurry();
    }

    /// Takes the leases that wait for a higher ceiling.
    pub(crate) fn take(&self) -> Vec<Arc<Lease>> {
        let capped = std::mem::take(&mut *locked(&self.capped));
        capped.iter().for_each(|lease| _ = lease.listed.take(Listed::CAPPED));
        capped
    }

    /// Notes a lease whose units other processes could take back, even if none is ever used.
    pub(crate) fn note_reclaimable(&self, lease: &Arc<Lease>) {
        if lease.may_be_reclaimed() && lease.listed.put(Listed::RECLAIMABLE) {
            locked(&self.reclaimable).push(Arc::downgrade(lease));
        }
    }

    /// Takes the leases that were noted.
    pub(crate) fn take_reclaimable(&self) -> Vec<Weak<Lease>> {
        let noted = std::mem::take(&mut *locked(&self.reclaimable));
        let there = noted.iter().filter_map(Weak::upgrade);
        there.for_each(|lease| _ = lease.listed.take(Listed::RECLAIMABLE));
        noted
    }

    /// Has the recorder look before its interval is over.
    pub(crate) fn hurry(&self) {
        self.due.notify_one();
    }

    /// Returns once the recorder is to look.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }
}

/// A panic leaves nothing here half done.
fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
