//! Context of a hold: its sheet and rules, and its late charges.

use std::num::NonZeroU128;
use std::sync::Arc;

use crate::catalog::{MeterId, RouteId};
use crate::clock::Now;
use crate::payers::late::LateUse;
use crate::payers::purse;
use crate::policy::scoped::ScopesOf;
use crate::policy::taken::DrawnFrom;
use crate::policy::{RateIndex, RoutePolicy};
use crate::sheets::hub::Hub;
use crate::tenants::caller::SheetRef;

/// Context of a hold: the tenant's sheet and the rules of the route, or of a piece of work.
#[derive(Clone, Debug)]
pub(crate) struct HoldContext {
    pub(crate) sheet: SheetRef,
    pub(crate) route: Option<RouteId>,
    /// The hashed address of the caller, if a limit is by address.
    pub(crate) ip: Option<NonZeroU128>,
    /// Rules of work that is no request of a route.
    pub(crate) work: Option<Arc<RoutePolicy>>,
}

impl HoldContext {
    #[inline]
    pub(crate) fn hub(&self) -> &Hub {
        &self.sheet.tenant.hub
    }

    /// The caller's values for limits within the tenant.
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

    /// Charges `n` atoms of a meter, of which nothing is held, to the rates of the route.
    fn charge_rates(&self, meter: MeterId, n: u64, now: Now) {
        let rates = &self.sheet.policy.rates;
        let of_meter = |rate: &&RateIndex| rates[**rate].meter == Some(meter);
        for rate in self.rules().rates.iter().filter(of_meter) {
            match purse::rate_of(&self.sheet, self.hub(), self.scopes(), *rate, now) {
                Some(DrawnFrom::Bucket(rate)) => purse::charge_bucket(&self.sheet, rate, n, now),
                Some(DrawnFrom::ScopedBucket(_, used)) => used.charge(n, now),
                _ => {}
            }
        }
    }

    /// Counts atoms of a meter that no hold covers, and of the sums it feeds: each quota pays late.
    pub(super) fn charge_late(&self, meter: MeterId, n: u64) {
        let now = self.hub().clock.now();
        for (meter, n) in self.sheet.catalog.with_sums(meter, n) {
            self.sheet.count_used(meter, n);
            self.late_use().pay(meter, n);
            self.charge_rates(meter, n, now);
        }
        self.sheet.mark_dirty();
    }

    /// The payer of use that no hold covers.
    pub(super) fn late_use(&self) -> LateUse<'_> {
        let now = self.hub().clock.now();
        LateUse { sheet: &self.sheet, scopes: self.scopes(), now }
    }
}
