//! Single stages of a request, for benches and tests of cost. They run the code that requests run,
//! and skip none of their stage.

use std::sync::Arc;
use std::time::Duration;

use super::{Denied, Gate, Identification, TenantHandle, Waited};
use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::catalog::{Auth, RouteId};
use crate::clock::Now;
use crate::decision::Outcome;
use crate::identity::RequestView;
use crate::policy::resolve::LiveCatalog;
use crate::policy::scoped::ScopeValues;
use crate::quota::lease::Lease;
use crate::tenants::caller::KnownCaller;

impl Gate {
    /// A route of the catalog by its name.
    pub(crate) fn route_named(&self, name: &str) -> Option<RouteId> {
        self.inner.catalogs.live.load().catalog.routes.named(name)
    }

    /// The catalog in force, as a request has it from its routing.
    pub(crate) fn live_catalog(&self) -> Arc<LiveCatalog> {
        self.inner.catalogs.live.load_full()
    }

    /// A caller as identification finds it.
    pub(crate) fn caller_of(&self, tenant: &TenantHandle) -> Arc<KnownCaller> {
        Arc::new(KnownCaller {
            tenant: tenant.0.clone(),
            sheet: tenant.0.last_sheet(),
            values: ScopeValues::default(),
            named: None,
            looked_up_ns: self.inner.clock.now().mono_ns.into(),
            as_of: tenant.0.keys_since(),
            expires_ms: i64::MAX,
            vouched_until: 0,
            refreshing: std::sync::atomic::AtomicBool::new(false),
            is_kept: false,
        })
    }

    /// A request from its resolved tenant to its end: clock, sheet, decision, settlement. `None`
    /// where it would have to wait.
    pub(crate) fn pass_through(
        &self,
        caller: &Arc<KnownCaller>,
        live: &LiveCatalog,
        route: Option<RouteId>,
    ) -> Option<bool> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        if self.refresh(&caller.tenant, now).is_some() {
            return None;
        }
        let sheet = caller.clone().into_sheet(live, now);
        let waited = Waited::default();
        let mut hold = Hold::new(HoldContext { sheet, route, ip: None, work: None }, now, None);
        match self.decide(&mut hold, &waited, now) {
            Some(Denied::Wait(_)) => None,
            Some(Denied::Refuse(_, record)) => {
                inner.log_decided(record);
                Some(false)
            }
            None => {
                inner.log_decided(hold.unlogged.take());
                let ended = hold.now();
                hold.charge(true, ended);
                hold.end(Outcome::Complete { status: 200 }, ended);
                Some(true)
            }
        }
    }

    /// Step 1 alone. `None` where it would have to wait.
    pub(crate) fn is_identified(&self, view: &dyn RequestView, now: Now) -> Option<bool> {
        match self.identify(view, Auth::Required, now, 0) {
            Identification::Caller(_) => Some(true),
            Identification::Refused(_) => Some(false),
            Identification::Ask(_) => None,
        }
    }

    /// Whether the renewer has something to ask for, or is asking.
    pub(crate) fn is_renewing(&self) -> bool {
        let sheets = self.inner.tenants.active.iter().map(|tenant| tenant.last_sheet());
        let is_queued = |lease: &Arc<Lease>| lease.is_queued();
        self.inner.hub.scoped.all_leases().iter().any(is_queued)
            || sheets.into_iter().any(|sheet| sheet.open_leases().any(is_queued))
    }

    /// Compacts every tenant that can be. Returns the numbers of idle and of active tenants.
    pub(crate) async fn doze(&self) -> (usize, usize) {
        self.inner.tenants.compact_idle(Duration::ZERO, Duration::MAX).await;
        self.inner.tenants.forget_idle(self.inner.clock.now(), Duration::MAX, Duration::MAX);
        (self.inner.tenants.idle.tenants(), self.inner.tenants.active.len())
    }

    /// Lets go of every caller that was looked up; tenants stay.
    pub(crate) fn forget_callers(&self) {
        self.inner.tenants.callers.clear();
    }
}
