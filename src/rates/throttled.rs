//! Limits that have refused since the last slot, as reported by the hot path.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ids::LimitId;
use crate::ids::Surrogate;

/// Most limits reported in one slot, about a megabyte. Others are reported in the next slot, if
/// they refuse there.
pub(super) const MOST_THROTTLED: usize = 8_192;

/// Reports of the hot path to the task that shares rates.
#[derive(Debug)]
pub(crate) struct Throttled {
    /// Whether rates are shared with other nodes.
    is_shared: AtomicBool,
    /// Limits that have refused since the last slot, and the slot's number.
    limits: Mutex<ThrottledLimits>,
    slot: AtomicU16,
}

impl Default for Throttled {
    fn default() -> Self {
        Self {
            is_shared: AtomicBool::new(false),
            limits: Mutex::default(),
            slot: AtomicU16::new(1),
        }
    }
}

impl Throttled {
    /// Rates are shared with other nodes from now on.
    pub(crate) fn share(&self) {
        self.is_shared.store(true, Ordering::Relaxed);
    }

    /// Whether rates are shared with other nodes.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared.load(Ordering::Relaxed)
    }

    /// The number of the current reporting slot; never 0.
    pub(crate) fn slot(&self) -> u16 {
        self.slot.load(Ordering::Relaxed)
    }

    /// Reports a limit that has refused.
    pub(crate) fn add(&self, limit: LimitId) {
        self.limits().add(limit);
    }

    /// Takes the reported limits and begins another slot.
    pub(crate) fn take(&self) -> BTreeSet<LimitId> {
        let next = |slot: u16| Some(slot.checked_add(1).unwrap_or(1));
        let _ = self.slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        std::mem::take(&mut *self.limits()).ids()
    }

    /// A panic leaves nothing here half done.
    fn limits(&self) -> MutexGuard<'_, ThrottledLimits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct ThrottledLimits {
    by_tenant: BTreeMap<Surrogate, BTreeSet<LimitId>>,
    len: usize,
}

impl ThrottledLimits {
    /// Adds a limit, if there is more room than its tenant has already taken: so one tenant leaves
    /// half of the room to others.
    pub(super) fn add(&mut self, limit: LimitId) {
        let room = MOST_THROTTLED.saturating_sub(self.len);
        if self.by_tenant.get(&limit.tenant).map_or(0, BTreeSet::len) >= room {
            return;
        }
        let of_tenant = self.by_tenant.entry(limit.tenant).or_default();
        self.len += usize::from(of_tenant.insert(limit));
    }

    /// All of them.
    pub(super) fn ids(self) -> BTreeSet<LimitId> {
        self.by_tenant.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_with_many_limits_leaves_room_for_those_of_others() {
        let id = |tenant, scope| LimitId {
            tenant: Surrogate::test(tenant),
            rate: "default/s".into(),
            scope,
        };
        let mut limits = ThrottledLimits::default();
        (0..20_000).for_each(|scope| limits.add(id(1, scope)));
        limits.add(id(2, 0));
        let ids = limits.ids();
        assert_eq!(ids.len(), MOST_THROTTLED / 2 + 1);
        assert!(ids.contains(&id(2, 0)));
    }
}
