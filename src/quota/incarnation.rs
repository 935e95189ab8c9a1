//! The incarnation under which this process leases and records. A sealed one is replaced by
//! another.

use crate::ids::WriterId;

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Incarnation {
    /// None before it is registered.
    current: Mutex<WriterId>,
    /// The incarnation that was found sealed, or none.
    sealed: Mutex<WriterId>,
    /// Wakes the task that resolves tenants again under a new one.
    changed: Notify,
}

impl Default for Incarnation {
    fn default() -> Self {
        let none = || Mutex::new(WriterId::NONE);
        Self { current: none(), sealed: none(), changed: Notify::new() }
    }
}

impl Incarnation {
    /// The incarnation that leases and records now.
    pub(crate) fn current(&self) -> WriterId {
        *locked(&self.current)
    }

    /// Makes this one current. It is registered.
    pub(crate) fn begin(&self, incarnation: WriterId) {
        let before = std::mem::replace(&mut *locked(&self.current), incarnation);
        if before != WriterId::NONE {
            self.changed.notify_one();
        }
    }

    /// Returns once there is a newer incarnation than at the last call.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// This incarnation's log was sealed by another process: the recorder must begin another.
    pub(crate) fn note_sealed(&self, incarnation: WriterId) {
        *locked(&self.sealed) = incarnation;
    }

    /// Whether the current incarnation has been sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        let sealed = *locked(&self.sealed);
        sealed != WriterId::NONE && sealed == self.current()
    }
}

/// A panic leaves nothing here half done.
fn locked(of: &Mutex<WriterId>) -> MutexGuard<'_, WriterId> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
