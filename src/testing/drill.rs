//! Parts of a request's way through the gate, for measuring what each costs.

use std::sync::Arc;

use crate::catalog::RouteId;
use crate::clock::Now;
use crate::gate::{Gate, TenantHandle};
use crate::identity::RequestView;
use crate::policy::resolve::LiveCatalog;
use crate::tenants::caller::KnownCaller;

/// A tenant in memory and a route, asked again and again.
#[derive(Clone, Debug)]
pub struct Drill {
    gate: Gate,
    caller: Arc<KnownCaller>,
    live: Arc<LiveCatalog>,
    route: Option<RouteId>,
}

impl Drill {
    /// Requests of this tenant for the route of this name (or for one that matches no route).
    pub fn new(gate: &Gate, tenant: &TenantHandle, route: &str) -> Self {
        Self {
            gate: gate.clone(),
            caller: gate.caller_of(tenant),
            live: gate.live_catalog(),
            route: gate.route_named(route),
        }
    }

    /// One request from its resolved tenant to its end: the clock is read, limits are decided, and
    /// a response of status 200 settles. `None` where it would have to wait for a lease or a read.
    pub fn admit_and_settle(&self) -> Option<bool> {
        self.gate.pass_through(&self.caller, &self.live, self.route)
    }
}

/// Whether the caller of this request is found in memory: `None` where the directory has to be
/// asked.
pub fn is_identified(gate: &Gate, view: &dyn RequestView, now: Now) -> Option<bool> {
    gate.is_identified(view, now)
}

/// Lets go of every caller that was looked up, so that the next request is a first one.
pub fn forget_callers(gate: &Gate) {
    gate.forget_callers();
}

/// Puts everybody to sleep who can be, as if nobody had called for a minute. How many tenants sleep
/// then, and how many are awake.
pub async fn doze(gate: &Gate) -> (usize, usize) {
    gate.doze().await
}

/// Waits until no lease is being renewed, or waits for it. What is decided next then depends on
/// what was asked before alone, and not on how far the renewer has come meanwhile.
pub async fn leases_at_rest(gate: &Gate) {
    while gate.is_renewing() {
        tokio::task::yield_now().await;
    }
}
