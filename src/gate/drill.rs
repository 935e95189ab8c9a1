//! Parts of a request's way through the gate, one at a time: what benches and tests of cost measure.
//! They go through the code that requests go through, and skip nothing of their part.

use super::{Asked, Decided, Gate, Seen, TenantHandle, Waited};
use crate::admission::permit::Outcome;
use crate::admission::scoped::ScopeValues;
use crate::catalog::{Auth, RouteId};
use crate::clock::Now;
use crate::identity::RequestView;

impl Gate {
    /// A route of the catalog by its name.
    pub(crate) fn route_named(&self, name: &str) -> Option<RouteId> {
        self.inner.live.load().catalog.routes.named(name)
    }

    /// A request from its resolved tenant to its end: clock, sheet, decision, settlement. `None`
    /// where it would have to wait.
    pub(crate) fn pass_through(
        &self,
        tenant: &TenantHandle,
        route: Option<RouteId>,
    ) -> Option<bool> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let live = inner.live.load();
        let sheet = tenant.0.sheet(&live, &inner.hub, now);
        if self.refresh(&tenant.0, now).is_some() {
            return None;
        }
        let (scopes, waited) = (ScopeValues::default(), Waited::default());
        let decided = self.decide(&sheet, Asked::Route(route), &scopes, None, &waited, now);
        match decided {
            Decided::Wait(_) => None,
            Decided::Refuse(_) => Some(false),
            Decided::Hold(mut hold) => {
                let ended = inner.clock.now();
                hold.charge(true, ended);
                hold.end(Outcome::Complete { status: 200 }, ended);
                Some(true)
            }
        }
    }

    /// Step 1 alone. `None` where it would have to wait.
    pub(crate) fn is_identified(&self, view: &dyn RequestView, now: Now) -> Option<bool> {
        match self.identify(view, Auth::Required, now) {
            Seen::Caller(_) => Some(true),
            Seen::Refused(_) => Some(false),
            Seen::Ask(_) => None,
        }
    }

    /// Lets go of every caller that was looked up; tenants stay.
    pub(crate) fn forget_callers(&self) {
        self.inner.callers.clear();
    }
}
