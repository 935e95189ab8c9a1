//! The most requests and other work in progress in this process, over all tenants. A part is kept
//! for plans that pay, so that one free plan's rush does not refuse a paying tenant.

use std::sync::atomic::{AtomicU64, Ordering};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Capacity {
    /// For plans that pay.
    most: u64,
    /// For the others.
    unkept: u64,
    in_progress: AtomicU64,
}

impl Capacity {
    /// Room for `most`, of which `kept` are for plans that pay.
    pub(crate) fn new(most: u32, kept: u32) -> Self {
        let unkept = most.saturating_sub(kept).into();
        Self { most: most.into(), unkept, in_progress: AtomicU64::new(0) }
    }

    /// Takes a place; false: there is none for such a plan.
    pub(crate) fn enter(&self, pays: bool) -> bool {
        let most = if pays { self.most } else { self.unkept };
        self.in_progress
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, |n| (n < most).then_some(n + 1))
            .is_ok()
    }

    /// Takes a place even if there is none: it is let in regardless.
    pub(crate) fn enter_anyway(&self) {
        self.in_progress.fetch_add(1, Ordering::AcqRel);
    }

    /// Gives a place back.
    pub(crate) fn leave(&self) {
        self.in_progress.fetch_sub(1, Ordering::AcqRel);
    }
}
