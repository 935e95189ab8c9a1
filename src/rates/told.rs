//! Limits that have refused since the last slot, as reported by the hot path.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::LimitId;
use crate::ids::Surrogate;

/// Most limits reported in one slot, about a megabyte. Others are reported in the next slot, if
/// they refuse there.
pub(super) const MAX_TOLD: usize = 8_192;

/// See the [module](self).
#[derive(Debug, Default)]
pub(crate) struct ThrottledLimits {
    by_tenant: BTreeMap<Surrogate, BTreeSet<LimitId>>,
    len: usize,
}

impl ThrottledLimits {
    /// Adds a limit, if there is more room than its tenant has already taken: so one tenant leaves
    /// half of the room to others.
    pub(crate) fn tell(&mut self, limit: LimitId) {
        let room = MAX_TOLD.saturating_sub(self.len);
        if self.by_tenant.get(&limit.tenant).map_or(0, BTreeSet::len) >= room {
            return;
        }
        let of_tenant = self.by_tenant.entry(limit.tenant).or_default();
        self.len += usize::from(of_tenant.insert(limit));
    }

    /// All of them.
    pub(crate) fn ids(self) -> BTreeSet<LimitId> {
        self.by_tenant.into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_with_many_limits_leaves_room_to_tell_of_others() {
        let id = |tenant, scope| LimitId {
            tenant: Surrogate::test(tenant),
            rate: "default/s".into(),
            scope,
        };
        let mut told = ThrottledLimits::default();
        (0..20_000).for_each(|scope| told.tell(id(1, scope)));
        told.tell(id(2, 0));
        let ids = told.ids();
        assert_eq!(ids.len(), MAX_TOLD / 2 + 1);
        assert!(ids.contains(&id(2, 0)));
    }
}
