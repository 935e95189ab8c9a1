//! A handler's view of its own request: the tenant, its plan, and the usage that it reports.

use std::sync::{Arc, MutexGuard, PoisonError};

use super::shared::SharedSpare;
use super::{Gate, Pending, Running, Waited};
use crate::admission::context::HoldContext;
use crate::admission::decide::{self, AdmissionInput, Drawn};
use crate::admission::permit::Hold;
use crate::catalog::{Catalog, Feature, MeterId, MeterSource, Plan};
use crate::clock::{Now, nanos};
use crate::decision::{LimitState, Reason, Refusal};
use crate::payers::purse::NotDrawn;
use crate::policy::resolve::Standing;
use crate::policy::{AmountSource, AskIndex, RoutePolicy};
use crate::repeated::repeated;
use crate::telemetry;
use crate::tenants::REFRESH_AGE;
use crate::tenants::caller::SheetRef;
use crate::tenants::tenant::LiveTenant;

/// An admitted request, for its handler: the layer puts it into the request's extensions. Clones
/// are handles on the same request. [`usage`](Self::usage) reports and takes units.
#[derive(Clone, Debug)]
pub struct Admitted(SharedSpare);

/// The usage of the request being handled, or of the work that a [`Permit`](crate::Permit) is for:
/// [`add`](Self::add) reports units that were used, [`take`](Self::take) takes units before they
/// are used.
///
/// It may outlive the response (a job, an upgraded connection): what is reported after the response
/// has ended is a late cost and is recorded all the same. After a 101 the connection counts as in
/// flight (`concurrency`) until the last clone is dropped: move one into the task that serves it.
///
/// Adapters hand it to handlers as an extractor; behind the tower layer it is in the extensions:
///
/// ```
/// # use std::convert::Infallible;
/// # use http::{Request, Response};
/// use tallygate::{Admitted, Refusal, Usage};
///
/// async fn chat<B>(request: Request<B>) -> Result<Response<String>, Refusal> {
///     let admitted = request.extensions().get::<Admitted>().expect("behind the layer");
///     let usage: Usage = admitted.usage();
///     usage.take("output-tokens", 500).await?; // before they are spent: a refusal is a response
///     let (answer, tokens) = ("..".to_owned(), 412);
///     usage.add("output-tokens", tokens); // the true number; the rest goes back
///     Ok(Response::new(answer))
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Usage(Admitted);

impl Admitted {
    pub(crate) fn new(gate: Gate, running: Running) -> Self {
        Self::of(gate, running.hold.into_inner())
    }

    /// The same for work that is no request.
    pub(super) fn of(gate: Gate, hold: Hold) -> Self {
        Self(SharedSpare::new(gate, hold))
    }

    /// The tenant's outer id.
    pub fn tenant(&self) -> &Arc<str> {
        &self.0.tenant
    }

    /// The plan that this request was decided under.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.0.plan
    }

    /// The name of this request's route in the plan file; `None` if it matches none.
    pub fn route(&self) -> Option<Arc<str>> {
        let hold = self.hold();
        let route = hold.of.route?;
        Some(hold.of.sheet.catalog.routes[route].name.clone())
    }

    /// The plan's value of a feature; `None` if the plan does not have it. [`Plan::require`]
    /// refuses a request without it.
    pub fn feature(&self, name: &str) -> Option<&Feature> {
        self.0.plan.features.get(name)
    }

    /// The state of this request's limits now, including exceeded soft limits
    /// ([`LimitState::past_soft`]), which headers leave out.
    pub fn limits(&self) -> Vec<LimitState> {
        let hold = self.hold();
        let inner = &self.0.gate.inner;
        let now = inner.clock.now();
        inner.limit_states(&hold, now).into_vec()
    }

    /// The user that the request was identified as, if it was.
    pub fn user(&self) -> Option<Arc<str>> {
        self.hold().of.sheet.caller()?.named.as_ref()?.user.clone()
    }

    /// The id of the API key that the request was identified by, or what the host's identification
    /// named as one.
    pub fn key(&self) -> Option<Arc<str>> {
        self.hold().of.sheet.caller()?.named.as_ref()?.key.clone()
    }

    /// The handle that reports and takes units for this request.
    pub fn usage(&self) -> Usage {
        Usage(self.clone())
    }

    pub(crate) fn hold(&self) -> MutexGuard<'_, Hold> {
        self.0.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address of the request's state, which distinguishes requests that exist at the same
    /// time.
    pub(super) fn address(&self) -> usize {
        self.0.address()
    }

    /// Whether others have a handle on the same request.
    pub(crate) fn is_shared(&self) -> bool {
        self.0.is_shared()
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.0.gate
    }
}

impl Usage {
    /// Reports that whole `units` of a meter were used. Call it whenever a number is known: reports
    /// add up. It never fails: units that no hold and no lease covers are recorded beyond the
    /// limit.
    ///
    /// A meter that the plan file does not name, or that is the sum of others, is a mistake in the
    /// program, and nothing is counted: it is logged as an error that names the nearest meter, at
    /// most once a second, and counted in `tallygate_unknown_meter_total`. [`Gate::meter`] checks a
    /// name when the program starts.
    pub fn add(&self, meter: impl AsRef<str>, units: u64) {
        self.add_named(meter.as_ref(), units);
    }

    fn add_named(&self, meter: &str, units: u64) {
        let now = self.now();
        let gate = &self.0.0.gate;
        let mut hold = self.0.hold();
        gate.keep_up(&mut hold, now);
        let catalog = hold.latest_of().sheet.catalog.clone();
        let Some(id) = catalog.meter(meter) else {
            const TEXT: &str = "usage.add: the plan file has no such meter; nothing counted";
            repeated!(error, now.wall_ms, TEXT; meter, help = catalog.meter_help(meter));
            telemetry::unknown_meter("add");
            return;
        };
        let rules = &catalog.meters[usize::from(id.0)];
        if rules.count == MeterSource::Sum {
            const TEXT: &str = "usage.add: a sum counts its parts; report those instead";
            repeated!(error, now.wall_ms, TEXT; meter);
            telemetry::unknown_meter("add");
            return;
        }
        let own = &hold.of.sheet.catalog;
        let counter = own.meter(meter).and_then(|own_id| {
            hold.of.rules().meters.iter().find_map(|ask| match ask.known {
                AmountSource::Reported(counter) if ask.meter == own_id => {
                    Some((counter, own.meters[usize::from(own_id.0)].scale))
                }
                _ => None,
            })
        });
        if let Some((counter, scale)) = counter {
            hold.report_in_turn(counter, units.saturating_mul(scale), now);
            return;
        }
        let atoms = units.saturating_mul(rules.scale);
        let latest = hold.latest();
        for (meter, n) in catalog.with_sums(id, atoms) {
            latest.report_cost(meter, n);
        }
    }

    /// The work has used so much of a meter in all, where it was asked for an estimate.
    pub(super) fn be_in_all(&self, meter: &str, units: u64) {
        let now = self.now();
        let mut hold = self.0.hold();
        let asked = {
            let catalog = &hold.of.sheet.catalog;
            let may_learn =
                |of: &AmountSource| matches!(of, AmountSource::Reported(_) | AmountSource::Cost);
            catalog.meter(meter).and_then(|id| {
                let asks = &hold.of.rules().meters;
                let ask = asks.find(|ask| ask.meter == id && may_learn(&ask.known))?;
                Some((ask, units.saturating_mul(catalog.meters[usize::from(id.0)].scale)))
            })
        };
        match asked {
            Some((ask, n)) => {
                self.0.0.gate.keep_up(&mut hold, now);
                hold.learn(ask, n, now);
            }
            None => {
                drop(hold);
                self.add_named(meter, units);
            }
        }
    }

    /// Takes whole `units` of a meter before they are used: first from the units that the request
    /// already holds (the meter's `hold`), then from quotas and grants. Taking is not using: report
    /// with [`add`](Self::add) what was used. That is charged against them, and the rest goes back
    /// at the end of the request. They are asked of the meter's rates, too: one that is exhausted
    /// refuses, and says how long to wait. More than its burst waits until all of that is there.
    ///
    /// A retry that an idempotency key makes free takes as much as the charged request used, and
    /// beyond that is charged like any other.
    ///
    /// # Errors
    ///
    /// The refusal, if a limit has too few units left. A handler returns it as its response. A
    /// meter that nothing on the route counts is refused as [`Reason::NotMetered`] and logged as an
    /// error; one that the plan file does not name is also counted, as by [`add`](Self::add).
    pub async fn take(&self, meter: impl AsRef<str>, units: u64) -> Result<(), Refusal> {
        let meter = meter.as_ref();
        let mut waited = Waited::default();
        loop {
            match self.try_take(meter, units, &waited) {
                Took::Refused(refusal) => return Err(*refusal),
                Took::Wait(pending) => waited = pending.await,
                Took::Done => return Ok(()),
            }
        }
    }

    /// The tenant's outer id.
    pub fn tenant(&self) -> &Arc<str> {
        self.0.tenant()
    }

    /// The plan that this request was decided under.
    pub fn plan(&self) -> &Arc<Plan> {
        self.0.plan()
    }

    fn try_take(&self, meter: &str, units: u64, waited: &Waited) -> Took {
        let shared = &self.0.0;
        let mut hold = self.0.hold();
        let found = {
            let catalog = &hold.of.sheet.catalog;
            catalog.meter(meter).and_then(|id| {
                let ask = hold.of.rules().meters.find(|ask| ask.meter == id)?;
                Some((ask, units.saturating_mul(catalog.meters[usize::from(id.0)].scale)))
            })
        };
        let Some((ask, n)) = found else {
            let (catalog, now_ms) = (&hold.of.sheet.catalog, self.now().wall_ms);
            if catalog.meter(meter).is_none() {
                const TEXT: &str = "usage.take: the plan file has no such meter; refused";
                repeated!(error, now_ms, TEXT; meter, help = catalog.meter_help(meter));
                telemetry::unknown_meter("take");
            } else {
                const TEXT: &str = "usage.take: nothing on this route counts such a meter";
                repeated!(error, now_ms, TEXT; meter);
            }
            let reason = Reason::NotMetered(meter.into());
            return Took::Refused(shared.gate.inner.refusal(reason, Some(&hold.of.sheet)));
        };
        shared.gate.take(&mut hold, ask, n, waited)
    }

    fn now(&self) -> Now {
        self.0.0.gate.inner.clock.now()
    }
}

impl Gate {
    /// Logs that this gate has decided a request twice and charges it twice, if what the second
    /// replaced in its extensions is of this gate. For adapters.
    #[doc(hidden)]
    #[inline]
    pub fn note_passed_twice(&self, before: Option<&Admitted>, route: Option<&str>) {
        if let Some(before) = before
            && Arc::ptr_eq(&before.0.gate.inner, &self.inner)
        {
            self.log_passed_twice(route);
        }
    }

    #[cold]
    fn log_passed_twice(&self, route: Option<&str>) {
        const TEXT: &str = "a request passes two layers of one gate, and is charged twice: leave \
                            one out, and a route that is named at its router out of the router \
                            that has a layer";
        repeated!(error, self.inner.clock.now().wall_ms, TEXT; route);
    }

    /// The tenant in memory that a request is of.
    fn tenant_of(&self, of: &HoldContext) -> Option<Arc<LiveTenant>> {
        match &of.sheet {
            SheetRef::Of(caller) | SheetRef::Newer(_, caller) => Some(caller.tenant.clone()),
            SheetRef::Own(sheet) => {
                let known = self.inner.tenants.active.get(&sheet.tenant.surrogate)?;
                Some(known.clone())
            }
        }
    }

    /// The tenant's standing now, whichever sheet the request keeps.
    fn standing_now(&self, of: &HoldContext, now: Now) -> Standing {
        let live = self.inner.catalogs.live.load();
        match self.tenant_of(of) {
            Some(tenant) => tenant.sheet(&live, now).standing.clone(),
            None => of.sheet.standing.clone(),
        }
    }

    /// Has a request that lasts draw and report by the sheet that holds now, and the tenant read
    /// again in the background when what is known of it grows old. One with an idempotency key
    /// stays as it was admitted: its claim is settled as a whole.
    pub(crate) fn keep_up(&self, hold: &mut Hold, now: Now) {
        let inner = &self.inner;
        let of = hold.latest_of();
        let live = inner.catalogs.live.load();
        let is_old = |tenant: &LiveTenant| tenant.age_in_use_ns(now) >= nanos(REFRESH_AGE);
        if of.sheet.holds(live.epoch, now) {
            let SheetRef::Of(caller) = &of.sheet else { return };
            if is_old(&caller.tenant) {
                inner.tenants.refresh_soon(&caller.tenant);
            }
            return;
        }
        if hold.is_keyed() || hold.goes_on_no_more() {
            return;
        }
        let Some(tenant) = self.tenant_of(of) else { return };
        if is_old(&tenant) {
            inner.tenants.refresh_soon(&tenant);
        }
        let sheet = tenant.sheet(&live, now);
        let (before, after) = (&of.sheet.catalog, &sheet.catalog);
        let route = match of.route {
            Some(id) if !Arc::ptr_eq(before, after) => {
                after.routes.named(&before.routes.as_slice()[usize::from(id.0)].name)
            }
            same => same,
        };
        let sheet = match &of.sheet {
            SheetRef::Own(_) => SheetRef::Own(sheet),
            SheetRef::Of(caller) | SheetRef::Newer(_, caller) => {
                SheetRef::Newer(sheet, caller.clone())
            }
        };
        let work = of.work.as_ref().map(|rules| {
            let costs = stated_costs(rules, before, &sheet.catalog);
            Arc::new(sheet.policy.work(&sheet.catalog, route, &costs))
        });
        let of = HoldContext { sheet, route, ip: of.ip, work };
        hold.go_on(of, now);
    }

    /// Takes `n` atoms for the handler of a request that runs: what is held first, and the rest
    /// by a draw.
    fn take(&self, hold: &mut Hold, ask: AskIndex, n: u64, waited: &Waited) -> Took {
        let now = self.inner.clock.now();
        if let Some(stopped) = self.before_draw(hold, waited, now) {
            return stopped;
        }
        let covered = hold.covered(ask, n);
        // A replay takes all of it for nothing, or draws all: a part is charged to no one else.
        let rest = if hold.is_replay() && covered < n { n } else { n - covered };
        let took = match rest {
            0 => Took::Done,
            rest => self.draw_here(hold, (ask, rest), decide::take_more, waited, now),
        };
        match &took {
            Took::Done => hold.promise(ask, n),
            Took::Refused(refusal) => self.inner.count_cut(hold.latest_of(), refusal),
            Took::Wait(_) => {}
        }
        took
    }

    /// Draws `n` more atoms for a request that runs, from memory, or says what to wait for. What
    /// passes of a replay is free.
    pub(crate) fn draw(&self, hold: &mut Hold, ask: AskIndex, n: u64, waited: &Waited) -> Took {
        if hold.is_replay() {
            return Took::Done;
        }
        let now = self.inner.clock.now();
        match self.before_draw(hold, waited, now) {
            Some(stopped) => stopped,
            None => self.draw_here(hold, (ask, n), decide::draw_more, waited, now),
        }
    }

    /// A stream that lasts draws from the window, plan and standing that hold now.
    fn before_draw(&self, hold: &mut Hold, waited: &Waited, now: Now) -> Option<Took> {
        let inner = &*self.inner;
        if waited.refused.is_some() || waited.rounds > super::ROUNDS {
            return Some(self.cannot_draw(hold));
        }
        let tenant = self.tenant_of(hold.latest_of());
        if let Some(pending) = tenant.as_ref().and_then(|tenant| self.refresh(tenant, now)) {
            return Some(Took::Wait(super::counted(pending, waited.rounds)));
        }
        if tenant.is_some_and(|tenant| tenant.is_gone()) {
            let refusal = inner.refusal(Reason::Unidentified, Some(&hold.latest_of().sheet));
            return Some(Took::Refused(refusal));
        }
        self.keep_up(hold, now);
        if hold.goes_on_no_more() && !hold.latest_of().sheet.holds(self.live_epoch(), now) {
            const TEXT: &str = "a request holds unused units under so many plans, windows or \
                                changes of its tenant that it takes no more: report what it uses";
            repeated!(warn, now.wall_ms, TEXT);
            return Some(self.cannot_draw(hold));
        }
        let standing = self.standing_now(hold.latest_of(), now);
        let Standing::Refused(reason) = standing else { return None };
        Some(Took::Refused(inner.refusal(reason, Some(&hold.latest_of().sheet))))
    }

    fn live_epoch(&self) -> u64 {
        self.inner.catalogs.live.load().epoch
    }

    fn cannot_draw(&self, hold: &Hold) -> Took {
        match hold.of.rules().shadow {
            true => Took::Done,
            false => {
                let reason = Reason::Unavailable;
                Took::Refused(self.inner.refusal(reason, Some(&hold.of.sheet)))
            }
        }
    }

    fn draw_here(
        &self,
        hold: &mut Hold,
        (ask, n): (AskIndex, u64),
        by: fn(&AdmissionInput<'_>, AskIndex, u64, u64) -> Result<Drawn, NotDrawn>,
        waited: &Waited,
        now: Now,
    ) -> Took {
        let inner = &*self.inner;
        let Some((ask, n)) = hold.latest_ask(ask, n) else {
            return Took::Done; // the plan file in force counts no such meter here
        };
        let root = hold;
        let hold = root.latest();
        let draw = hold.next_draw();
        let is_away = self.is_away(waited, &hold.of) || inner.hub.reach.is_away();
        let question = AdmissionInput {
            hub: hold.of.hub(),
            sheet: &hold.of.sheet,
            route: hold.of.rules(),
            scopes: hold.of.scopes(),
            now,
            length: None,
            store_away: is_away,
        };
        match by(&question, ask, n, draw) {
            Ok(drawn) => {
                hold.add_draw(ask, n, drawn);
                Took::Done
            }
            Err(NotDrawn::Need(..)) if is_away => self.cannot_draw(hold),
            Err(NotDrawn::Need(lease, n)) => {
                Took::Wait(self.wait_for(&hold.of, lease, n, waited.rounds))
            }
            Err(NotDrawn::Refused(_)) if hold.of.rules().shadow => Took::Done,
            Err(NotDrawn::Refused(refused)) => Took::Refused(inner.refusal_of(root, &refused, now)),
        }
    }
}

/// The costs that a piece of work has stated, as meters of a newer plan file. Nothing of them is
/// asked again: they say which meters its rules are about.
fn stated_costs(rules: &RoutePolicy, from: &Catalog, to: &Catalog) -> Vec<(MeterId, u64)> {
    let stated = rules.meters.iter().filter(|ask| ask.stated);
    let known = stated.filter_map(|ask| {
        let meter = &from.meters[usize::from(ask.meter.0)];
        let id = to.meter(&meter.name)?;
        Some((id, (ask.n / meter.scale.max(1)).saturating_mul(to.meters[usize::from(id.0)].scale)))
    });
    known.collect()
}

/// The outcome of taking more units.
pub(crate) enum Took {
    Done,
    Refused(Box<Refusal>),
    Wait(Pending),
}
