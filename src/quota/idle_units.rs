//! Tracks until when compacted tenants hold units: as long as they do, the recorder shows that this
//! process is alive.

use std::sync::atomic::{AtomicI64, Ordering};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct IdleUnits {
    until_ms: AtomicI64,
}

impl Default for IdleUnits {
    fn default() -> Self {
        Self { until_ms: AtomicI64::new(i64::MIN) }
    }
}

impl IdleUnits {
    /// Notes a compacted tenant that holds units until then.
    pub(crate) fn hold_until(&self, until_ms: i64) {
        self.until_ms.fetch_max(until_ms, Ordering::AcqRel);
    }

    /// No compacted tenant holds units after this instant.
    pub(crate) fn hold_only_until(&self, until_ms: i64) {
        self.until_ms.store(until_ms, Ordering::Release);
    }

    /// Whether compacted tenants hold units in a current window.
    pub(crate) fn are_held(&self, now_ms: i64) -> bool {
        self.until_ms.load(Ordering::Acquire) > now_ms
    }
}
