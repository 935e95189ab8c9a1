//! What a hold is of, and what is charged later still.

use std::num::NonZeroU128;
use std::sync::Arc;

use crate::catalog::{MeterId, RouteId};
use crate::payers::late::LateUse;
use crate::policy::RoutePolicy;
use crate::policy::scoped::ScopesOf;
use crate::sheets::hub::Hub;
use crate::tenants::caller::SheetRef;

/// What a hold is of: the tenant's sheet and the rules of the route, or of a piece of work.
#[derive(Clone, Debug)]
pub(crate) struct HoldContext {
    pub(crate) sheet: SheetRef,
    pub(crate) route: Option<RouteId>,
    /// The address it came from, hashed, where a limit is by address.
    pub(crate) ip: Option<NonZeroU128>,
    /// Rules of work that is no request of a route.
    pub(crate) work: Option<Arc<RoutePolicy>>,
}

impl HoldContext {
    #[inline]
    pub(crate) fn hub(&self) -> &Hub {
        &self.sheet.tenant.hub
    }

    /// Whose limits within the tenant hold.
    pub(crate) fn scopes(&self) -> ScopesOf<'_> {
        let without = Some(&self.hub().without_value);
        ScopesOf { known: self.sheet.scopes(), ip: self.ip, without }
    }

    #[inline]
    pub(crate) fn rules(&self) -> &RoutePolicy {
        match &self.work {
            None => self.sheet.policy.route(self.route),
            Some(work) => work,
        }
    }

    /// Counts atoms of a meter that no hold covers, and of the sums it feeds: each quota pays late.
    pub(super) fn charge_late(&self, meter: MeterId, n: u64) {
        for (meter, n) in self.sheet.catalog.with_sums(meter, n) {
            self.sheet.row.add(meter, n);
            self.late_use().pay(meter, n);
        }
        self.hub().mark_sheet_dirty(&self.sheet);
    }

    /// Of whom what no hold covers is.
    pub(super) fn late_use(&self) -> LateUse<'_> {
        let now = self.hub().clock.now();
        LateUse { sheet: &self.sheet, scopes: self.scopes(), now }
    }
}
