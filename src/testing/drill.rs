//! Stages of a request's path through the gate, for measuring the cost of each.

use std::sync::Arc;

use crate::catalog::RouteId;
use crate::clock::Now;
use crate::gate::{Gate, TenantHandle};
use crate::identity::RequestView;
use crate::policy::resolve::LiveCatalog;
use crate::tenants::caller::KnownCaller;

/// Repeated requests of a tenant in memory for one route.
#[derive(Clone, Debug)]
pub struct Drill {
    gate: Gate,
    caller: Arc<KnownCaller>,
    live: Arc<LiveCatalog>,
    route: Option<RouteId>,
}

impl Drill {
    /// Requests of this tenant for the route of this name (or for no route, if none matches).
    pub fn new(gate: &Gate, tenant: &TenantHandle, route: &str) -> Self {
        Self {
            gate: gate.clone(),
            caller: gate.caller_of(tenant),
            live: gate.live_catalog(),
            route: gate.route_named(route),
        }
    }

    /// One request from its resolved tenant to its end: reads the clock, decides limits, and
    /// settles a response of status 200. `None` if it would have to wait for a lease or a read.
    pub fn admit_and_settle(&self) -> Option<bool> {
        self.gate.pass_through(&self.caller, &self.live, self.route)
    }
}

/// Whether this request's caller is found in memory; `None` if the directory has to be asked.
pub fn is_identified(gate: &Gate, view: &dyn RequestView, now: Now) -> Option<bool> {
    gate.is_identified(view, now)
}

/// Drops every cached caller, so that the next request is a first one.
pub fn forget_callers(gate: &Gate) {
    gate.forget_callers();
}

/// Compacts every tenant that can be, as if all had been idle for a minute. Returns the numbers of
/// idle and of active tenants.
pub async fn doze(gate: &Gate) -> (usize, usize) {
    gate.doze().await
}

/// Waits until no lease is being renewed or queued for it. The next decision then depends only on
/// earlier requests, and not on the renewer's progress.
pub async fn leases_at_rest(gate: &Gate) {
    while gate.is_renewing() {
        tokio::task::yield_now().await;
    }
}
