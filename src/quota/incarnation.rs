//! The incarnation under which this process leases and records. A sealed one is replaced by
//! another.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct Incarnation {
    /// 0 before it is registered.
    current: Mutex<u128>,
    /// The incarnation that was found sealed, or 0.
    sealed: Mutex<u128>,
    /// Wakes the task that resolves tenants again under a new one.
    changed: Notify,
}

impl Incarnation {
    /// The incarnation that leases and records now.
    pub(crate) fn current(&self) -> u128 {
        *locked(&self.current)
    }

    /// Makes this one current. It is registered.
    pub(crate) fn begin(&self, incarnation: u128) {
        let before = std::mem::replace(&mut *locked(&self.current), incarnation);
        if before != 0 {
            self.changed.notify_one();
        }
    }

    /// Returns once there is a newer incarnation than at the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// This incarnation's log was sealed by another process: the recorder must begin another.
    pub(crate) fn note_sealed(&self, incarnation: u128) {
        *locked(&self.sealed) = incarnation;
    }

    /// Whether the current incarnation has been sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        let sealed = *locked(&self.sealed);
        sealed != 0 && sealed == self.current()
    }
}

/// A panic leaves nothing here half done.
fn locked(of: &Mutex<u128>) -> MutexGuard<'_, u128> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
