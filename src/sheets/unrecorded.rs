//! Sheets and scoped leases whose totals have risen since they were last recorded.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::quota::lease::Lease;
use crate::repeated::repeated;

/// An item whose totals have risen since they were last recorded. `S` is the sheet, which is
/// defined above this.
#[derive(Debug)]
pub(crate) enum Dirty<S> {
    /// A tenant's use row and the leases in its sheet.
    Sheet(Arc<S>),
    /// A lease of a key, user or address.
    Lease(Arc<Lease>),
}

/// See the [module](self).
pub(crate) struct Unrecorded<S> {
    items: Mutex<Vec<Dirty<S>>>,
    /// Wakes the recorder where it does not wait for its interval (`durable`).
    due: Notify,
    /// The last flush is over: nothing more is recorded.
    has_ended: AtomicBool,
    clock: Arc<dyn Clock>,
}

impl<S> Unrecorded<S> {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let (items, due, has_ended) = Default::default();
        Self { items, due, has_ended, clock }
    }

    /// Notes that a sheet of this tenant has totals to record. It must not be here yet.
    pub(super) fn add_sheet(&self, sheet: &Arc<S>, tenant: &str) {
        if self.has_ended.load(Ordering::Acquire) {
            self.warn_of(tenant);
        }
        self.items().push(Dirty::Sheet(sheet.clone()));
    }

    /// Notes that a scoped lease has a total to record.
    pub(crate) fn add_lease(&self, lease: &Arc<Lease>) {
        if lease.mark_dirty() {
            self.items().push(Dirty::Lease(lease.clone()));
        }
    }

    /// Takes what is to be recorded, leaving as much capacity behind.
    pub(crate) fn take(&self) -> Vec<Dirty<S>> {
        let mut items = self.items();
        let room = Vec::with_capacity(items.capacity());
        std::mem::replace(&mut *items, room)
    }

    /// Has the recorder look, where it does not wait for its interval.
    pub(crate) fn hurry(&self) {
        self.due.notify_one();
    }

    /// Returns once the recorder is to look.
    pub(crate) async fn due(&self) {
        self.due.notified().await;
    }

    /// How many tenants and scoped leases have something to record.
    pub(crate) fn len(&self) -> usize {
        self.items().len()
    }

    /// Nothing is recorded any more. Returns for how many tenants and scoped leases there is
    /// something that is not on record.
    pub(crate) fn end(&self) -> usize {
        self.has_ended.store(true, Ordering::Release);
        self.len()
    }

    #[cold]
    fn warn_of(&self, tenant: &str) {
        const TEXT: &str = "usage after the gate was closed is not recorded: end all work before";
        repeated!(warn, self.clock.now().wall_ms, TEXT; tenant);
    }

    /// A panic leaves nothing here half done.
    fn items(&self) -> MutexGuard<'_, Vec<Dirty<S>>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
