//! Work that is no HTTP request: the same gate, with the tenant and the costs named by the program.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Denied, Gate, Waited};
use crate::admission::context::HoldContext;
use crate::admission::permit::Hold;
use crate::catalog::MeterSource;
use crate::clock::Now;
use crate::decision::Outcome;
use crate::decision::{Reason, Refusal};
use crate::error::Error;
use crate::repeated::repeated;
use crate::tenants::caller::SheetRef;
use crate::tenants::tenant::LiveTenant;

/// A tenant, found and kept in memory: what work is asked for on behalf of.
///
/// Only a gate has one: a name alone is no tenant.
///
/// ```
/// # use tallygate::{Ask, Error, Gate};
/// async fn ask(gate: &Gate) -> Result<Ask, Error> {
///     Ok(Ask::new(&gate.tenant("acme").await?, "deliver"))
/// }
/// ```
///
/// ```compile_fail,E0308
/// # use tallygate::Ask;
/// let ask = Ask::new("acme", "deliver"); // expected `&TenantHandle`
/// ```
#[derive(Clone, Debug)]
pub struct TenantHandle(pub(crate) Arc<LiveTenant>);

/// What a piece of work asks for.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # #[cfg(feature = "testing")] {
/// use tallygate::Ask;
///
/// let (gate, _clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [meter.deliveries]
///     [plan.free]
///     quota.deliveries = "1/day"
/// "#);
/// let acme = gate.tenant("acme").await?;
/// let ask = || Ask::new(&acme, "deliver").cost("deliveries", 1);
/// let permit = gate.admit(ask()).await.expect("one is included");
/// permit.settle();
/// assert!(gate.admit(ask()).await.is_err());
/// # }
/// # Ok::<(), tallygate::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Ask {
    tenant: TenantHandle,
    op: Arc<str>,
    costs: Vec<(Arc<str>, u64)>,
}

/// Admitted work. Settle it when it is done, cancel it when it was not; dropped, it counts as
/// failed (`charge-on` decides, as for a 5xx). End it before the gate is closed
/// ([`Gate::close`]): what is settled afterwards is on no record.
///
/// It ends once:
///
/// ```
/// fn deliver(permit: tallygate::Permit, done: bool) {
///     if done { permit.settle() } else { permit.cancel() }
/// }
/// ```
///
/// ```compile_fail,E0382
/// fn deliver(permit: tallygate::Permit) {
///     permit.settle();
///     permit.cancel(); // use of moved value
/// }
/// ```
#[derive(Debug)]
#[must_use = "a permit that is dropped counts as failed work"]
pub struct Permit {
    hold: Hold,
}

impl Ask {
    /// Asks for an operation on behalf of a tenant. If the plan file has a route of this name, its
    /// costs, feature and rates hold; otherwise only the costs named here and the rates for all.
    pub fn new(tenant: &TenantHandle, op: impl Into<Arc<str>>) -> Self {
        Self { tenant: tenant.clone(), op: op.into(), costs: Vec::new() }
    }

    /// For so many units of a meter, in place of what a route of this name costs of it. The costs
    /// of one meter add up.
    ///
    /// Of a meter that is `reported` the number said here is the one that counts: it is set aside,
    /// and used when the work is [settled](Permit::settle).
    #[must_use]
    pub fn cost(mut self, meter: impl Into<Arc<str>>, units: u64) -> Self {
        let meter = meter.into();
        match self.costs.iter_mut().find(|(known, _)| *known == meter) {
            Some((_, sum)) => *sum = sum.saturating_add(units),
            None => self.costs.push((meter, units)),
        }
        self
    }
}

impl TenantHandle {
    /// The tenant's outer id.
    pub fn id(&self) -> &Arc<str> {
        &self.0.core.id
    }

    /// Requests and other work of it in flight in this process. They are counted where its plan
    /// limits their number (`concurrency`); elsewhere `None`.
    pub fn in_flight(&self) -> Option<u32> {
        self.0.last_sheet().policy.plan.concurrency?;
        Some(self.0.core.in_flight.load(Ordering::Acquire))
    }
}

impl Permit {
    fn new(hold: Hold) -> Self {
        hold.of.hub().open_permits.fetch_add(1, Ordering::AcqRel);
        Self { hold }
    }

    /// The work was done: its costs are used, those of meters that are reported among them.
    pub fn settle(mut self) {
        let now = self.hold.now();
        self.hold.use_stated(now);
        self.hold.charge(true, now);
        self.hold.end(Outcome::Complete { status: 200 }, now);
    }

    /// The work was not done: everything goes back.
    pub fn cancel(mut self) {
        let now = self.hold.now();
        self.hold.charge(false, now);
        self.hold.end(Outcome::Failed, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.hold.now();
        if self.hold.of.rules().charges(Outcome::Failed) {
            self.hold.use_stated(now);
        }
        self.hold.end(Outcome::Failed, now); // does nothing if it has ended
        self.hold.of.hub().open_permits.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// The tenant with this outer id, loaded into memory.
    ///
    /// # Errors
    ///
    /// [`Error::NoTenant`], or the store's error.
    pub async fn tenant(&self, id: &str) -> Result<TenantHandle, Error> {
        let none = || Error::NoTenant(id.to_owned());
        Ok(TenantHandle(self.inner.tenant_named(id).await?.ok_or_else(none)?))
    }

    /// Admits work, waiting for a lease where memory does not have the answer.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub async fn admit(&self, ask: Ask) -> Result<Permit, Refusal> {
        let mut waited = Waited::default();
        loop {
            match self.try_admit(&ask, &waited) {
                Ok(hold) => return Ok(Permit::new(hold)),
                Err(Denied::Refuse(refusal)) => return Err(*refusal),
                Err(Denied::Wait(pending)) => waited = pending.await,
            }
        }
    }

    /// The same from memory alone: `None` if it would have to wait.
    pub fn try_admit_now(&self, ask: &Ask) -> Option<Result<Permit, Refusal>> {
        match self.try_admit(ask, &Waited::default()) {
            Ok(hold) => Some(Ok(Permit::new(hold))),
            Err(Denied::Refuse(refusal)) => Some(Err(*refusal)),
            Err(Denied::Wait(_)) => None,
        }
    }

    fn try_admit(&self, ask: &Ask, waited: &Waited) -> Result<Hold, Denied> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let live = inner.catalogs.live.load();
        if let Some(reason) = &waited.refused {
            return Err(Denied::Refuse(inner.turn_away(reason.clone(), None)));
        }
        let tenant = &ask.tenant.0;
        let sheet = SheetRef::Own(tenant.sheet(&live, now));
        if let Some(pending) = self.refresh(tenant, now) {
            return Err(Denied::Wait(super::counted(pending, waited.rounds)));
        }
        let route = live.catalog.routes.named(&ask.op);
        if ask.costs.is_empty() && route.is_some() {
            return self.held(HoldContext { sheet, route, ip: None, work: None }, waited, now);
        }
        let mut costs = Vec::with_capacity(ask.costs.len());
        for (name, units) in &ask.costs {
            let Some(meter) = live.catalog.meter(name) else {
                const TEXT: &str = "admit: the plan file has no such meter";
                repeated!(error, now.wall_ms, TEXT; meter = %name);
                let reason = Reason::NotMetered(name.clone());
                return Err(Denied::Refuse(inner.refusal(reason, Some(&sheet))));
            };
            let rules = &live.catalog.meters[usize::from(meter.0)];
            if rules.count == MeterSource::Sum {
                const TEXT: &str = "admit: a sum counts its parts; ask for those instead";
                repeated!(error, now.wall_ms, TEXT; meter = %name);
                let reason = Reason::NotMetered(name.clone());
                return Err(Denied::Refuse(inner.refusal(reason, Some(&sheet))));
            }
            costs.push((meter, units.saturating_mul(rules.scale)));
        }
        let work = Some(Arc::new(sheet.policy.work(&live.catalog, route, &costs)));
        self.held(HoldContext { sheet, route, ip: None, work }, waited, now)
    }

    fn held(&self, of: HoldContext, waited: &Waited, now: Now) -> Result<Hold, Denied> {
        let mut hold = Hold::new(of, now, None);
        match self.decide(&mut hold, waited, now) {
            None => Ok(hold),
            Some(denied) => Err(denied),
        }
    }
}
