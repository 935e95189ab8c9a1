//! Work other than HTTP requests: the same gate, with the tenant and the costs named by the
//! program.

use std::net::IpAddr;
use std::num::NonZeroU128;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::credentials::hashed_ip;
use super::logged::{About, Unlogged};
use super::lookup::scope_values;
use super::usage::{Admitted, Usage};
use super::{Answer, Denied, Gate, Waited};
use crate::admission::claim::{KeyFound, OnceKey};
use crate::admission::context::HoldContext;
use crate::admission::permit::{Hold, HoldBox};
use crate::catalog::{Catalog, MeterId, MeterSource};
use crate::clock::Now;
use crate::decision::Outcome;
use crate::decision::{LimitKind, Reason, Refusal};
use crate::decision_log::{Unwritten, kind};
use crate::error::Error;
use crate::identity::Caller;
use crate::repeated::repeated;
use crate::sheets::sheet::Sheet;
use crate::telemetry;
use crate::tenants::caller::{KnownCaller, SheetRef};
use crate::tenants::tenant::LiveTenant;

/// A tenant held in memory, for work on its behalf ([`Ask::new`]). [`Gate::tenant`] returns it; it
/// may be kept and cloned.
///
/// A name in its place does not compile, so a mistyped id is an error before any work is asked for:
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

/// A piece of work that asks for admission: its tenant, its operation and its costs. Pass it to
/// [`Gate::admit`].
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
///
/// Limits within the tenant (`per user`, `per key`, ..) hold for work on behalf of a caller:
/// [`user`](Self::user), [`key`](Self::key), [`scope`](Self::scope) and [`address`](Self::address)
/// say whose it is. An ask that names any of them is decided as a request of that caller would be,
/// and shares its limits; for what it leaves out, `identity.no-scope` of the service file decides.
/// An ask that names none is the program's own work: no limit within the tenant applies.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # #[cfg(feature = "testing")] {
/// use tallygate::Ask;
///
/// let (gate, _clock) = tallygate::testing::gate(r#"
///     default-plan = "free"
///     [meter.mails]
///     [plan.free]
///     quota.mails = "1/day per user"
/// "#);
/// let acme = gate.tenant("acme").await?;
/// let mail = || Ask::new(&acme, "mail").cost("mails", 1);
/// gate.admit(mail().user("ann")).await.expect("ann's one").settle();
/// assert!(gate.admit(mail().user("ann")).await.is_err());
/// gate.admit(mail().user("bob")).await.expect("bob's one").settle();
/// # }
/// # Ok::<(), tallygate::Error>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Ask {
    tenant: TenantHandle,
    op: Arc<str>,
    costs: Vec<(Arc<str>, u64)>,
    /// The caller of the request that left this to do, with its hashed address.
    left_by: Option<(Arc<KnownCaller>, Option<NonZeroU128>)>,
    /// On whose behalf; `None`: that caller's, else the program's own work.
    caller: Option<Caller>,
    ip: Option<IpAddr>,
    /// By which it is charged once.
    once: Option<OnceKey>,
}

/// Admitted work and the units that it holds. [`settle`](Self::settle) it when the work is done,
/// with the true amount if its cost was an estimate ([`settle_with`](Self::settle_with)), or
/// [`cancel`](Self::cancel) it when it was not done. End it before [`Gate::close`]: units that are
/// settled later are on no record.
///
/// Dropped without either (an early return, a panic, a task that is aborted) it counts as failed
/// work: `charge-on` of the plan file decides about its costs as for a 5xx, and the rest goes back.
/// What was reported through [`usage`](Self::usage) stays used.
///
/// Each of these methods consumes it, so it ends once:
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
pub struct Permit(Admitted);

impl Ask {
    /// An operation for a tenant, without costs of its own. If the plan file has a route named
    /// `op`, that route's costs, required feature and rates apply; otherwise only the costs added
    /// here and the rates for all routes. So a mistyped name is no error here:
    /// [`Gate::check_operations`] finds it when the program starts.
    pub fn new(tenant: &TenantHandle, op: impl Into<Arc<str>>) -> Self {
        let (left_by, caller, ip, once) = (None, None, None, None);
        let costs = Vec::new();
        Self { tenant: tenant.clone(), op: op.into(), costs, left_by, caller, ip, once }
    }

    /// What this caller's request leaves to do.
    pub(super) fn left_by(
        caller: &Arc<KnownCaller>,
        ip: Option<NonZeroU128>,
        op: impl Into<Arc<str>>,
    ) -> Self {
        let tenant = TenantHandle(caller.tenant.clone());
        Self { left_by: Some((caller.clone(), ip)), ..Self::new(&tenant, op) }
    }

    /// Charges this work once for its `id`, per tenant and operation, over restarts and processes:
    /// for jobs that a queue may deliver again. It is what `once-by` is for requests, with the same
    /// claims in the store and two writes in the same way, and the id is never forgotten once it is
    /// charged. An empty id is none.
    ///
    /// - Work that was charged under this id is admitted again and charges nothing, even if nothing
    ///   is left to its tenant; [`Permit::is_repeat`] says so. Its rates and its place of
    ///   `concurrency` are taken as always.
    /// - Work that is not settled yet (it is being done elsewhere, its process has died, it was
    ///   cancelled) is admitted like new work, and the first to settle is charged.
    ///
    /// The charge is on record once [`Gate::flush_now`] has returned after the work was settled:
    /// wait for that before the queue forgets the job.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// # use tallygate::Ask;
    /// # let (gate, _clock) = tallygate::testing::gate(r#"
    /// #     default-plan = "free"
    /// #     [meter.deliveries]
    /// #     [plan.free]
    /// #     quota.deliveries = "1/day"
    /// # "#);
    /// let acme = gate.tenant("acme").await?;
    /// let job = |id: &str| Ask::new(&acme, "deliver").cost("deliveries", 1).once(id);
    /// let permit = gate.admit(job("job-1")).await?;
    /// permit.settle();
    /// gate.flush_now().await?; // charged: the job may leave the queue
    ///
    /// let again = gate.admit(job("job-1")).await?; // paid, though nothing is left
    /// assert!(again.is_repeat());
    /// again.settle();
    /// assert!(gate.admit(job("job-2")).await.is_err());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    #[must_use]
    pub fn once(mut self, id: impl AsRef<str>) -> Self {
        let id = Some(id.as_ref()).filter(|id| !id.is_empty());
        self.once = id.map(|id| OnceKey::of_work(&self.op, id));
        self
    }

    /// Adds a cost in whole units of a meter, by its name in the plan file (or a
    /// [`MeterName`](crate::MeterName), by reference). It replaces the route's
    /// own cost on that meter; several costs on one meter add up.
    ///
    /// On a meter with `count = "reported"` this number is the usage: it is held at admission, and
    /// used when the work is [settled](Permit::settle).
    #[must_use]
    pub fn cost(mut self, meter: impl Into<Arc<str>>, units: u64) -> Self {
        let meter = meter.into();
        match self.costs.iter_mut().find(|(known, _)| *known == meter) {
            Some((_, sum)) => *sum = sum.saturating_add(units),
            None => self.costs.push((meter, units)),
        }
        self
    }

    /// Names the user on whose behalf this is, for limits `per user`: the same text that
    /// identification yields for the user's requests.
    #[must_use]
    pub fn user(self, user: impl AsRef<str>) -> Self {
        self.of_caller(|caller| caller.user(user))
    }

    /// Names the key on whose behalf this is, for limits `per key`: the id of an API key
    /// ([`NewKey::id`](crate::directory::NewKey::id)), or what identification yields as
    /// [`Caller::key`]. It proves nothing: that the key is in force was checked, if at all, when
    /// the work was accepted.
    #[must_use]
    pub fn key(self, id: impl AsRef<str>) -> Self {
        self.of_caller(|caller| caller.key(id))
    }

    /// Names a value of a scope that the host defines, for limits such as `per project`; see
    /// [`Caller::scope`]. The last value of a name counts.
    #[must_use]
    pub fn scope(self, name: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        self.of_caller(|caller| caller.scope(name, value))
    }

    /// Names the address on whose behalf this is, for limits `per ip`.
    #[must_use]
    pub fn address(mut self, ip: IpAddr) -> Self {
        self.ip = Some(ip);
        self.of_caller(|caller| caller)
    }

    fn of_caller(mut self, set: impl FnOnce(Caller) -> Caller) -> Self {
        let caller = self.caller.take().unwrap_or_else(|| Caller::new(self.tenant.id()));
        self.caller = Some(set(caller));
        self
    }

    /// What it is, for the log of decisions.
    fn about(&self) -> About {
        let (tenant, route) = (Some(self.tenant.id().clone()), Some(self.op.clone()));
        About { kind: kind::WORK, tenant, route }
    }

    /// The tenant's sheet, with the caller that the work is for.
    fn sheet(&self, sheet: Arc<Sheet>, now: Now) -> SheetRef {
        let left_by = self.left_by.as_ref().map(|(caller, _)| caller);
        let caller = match (&self.caller, left_by) {
            (None, None) => return SheetRef::Own(sheet),
            (None, Some(left_by)) => return SheetRef::Newer(sheet, left_by.clone()),
            (Some(caller), _) => caller,
        };
        let mut values = scope_values(self.tenant.0.core.surrogate, caller);
        if let Some(left_by) = left_by {
            values.complete_with(&left_by.values);
        }
        let tenant = self.tenant.0.clone();
        SheetRef::Of(Arc::new(KnownCaller::of_work(tenant, sheet, values, caller, now)))
    }

    /// The hashed address of the caller that it is for, if a limit is by address.
    fn hashed_ip(&self, sheet: &Sheet) -> Option<NonZeroU128> {
        let left_by = self.left_by.as_ref().and_then(|(_, ip)| *ip);
        let ip = hashed_ip(sheet, self.ip).or(left_by);
        ip.filter(|_| sheet.policy.uses_ip)
    }
}

impl Admitted {
    /// Work that this request leaves to do: an [`Ask`] for its tenant, on behalf of its caller, as
    /// far as identification knows that one (user, key, scopes, address), so that the limits within
    /// the tenant are shared by both. It may be asked for once the request has ended. For work that
    /// waits in a queue, keep [`tenant`](Self::tenant), [`user`](Self::user) and
    /// [`key`](Self::key) with it.
    ///
    /// ```
    /// # use tallygate::{Admitted, Gate, Refusal};
    /// async fn accept(gate: Gate, request: &Admitted) -> Result<(), Refusal> {
    ///     let permit = gate.admit(request.ask("convert").cost("pages", 12)).await?;
    ///     tokio::spawn(async move {
    ///         // .. the work ..
    ///         permit.settle();
    ///     });
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// Never: every admitted request has a caller.
    pub fn ask(&self, op: impl Into<Arc<str>>) -> Ask {
        let hold = self.hold();
        let caller = hold.of.sheet.caller().expect("an admitted request has a caller");
        Ask::left_by(caller, hold.of.ip, op)
    }
}

impl TenantHandle {
    /// The tenant's outer id.
    pub fn id(&self) -> &Arc<str> {
        &self.0.core.id
    }

    /// The number of this tenant's requests and other work in flight in this process; `None` if its
    /// plan does not limit them (`concurrency`), because they are not counted then.
    pub fn in_flight(&self) -> Option<u32> {
        self.0.last_sheet().policy.plan.concurrency?;
        Some(self.0.core.in_flight.load(Ordering::Acquire))
    }
}

impl Permit {
    fn new(gate: Gate, hold: Hold) -> Self {
        hold.of.hub().open_permits.fetch_add(1, Ordering::AcqRel);
        Self(Admitted::of(gate, hold))
    }

    /// The handle that reports and takes units while the work is being done, as a request's handler
    /// does. What it reports of a meter with `count = "reported"` replaces the cost that was asked
    /// of it: [`settle`](Self::settle) uses no more than was reported. The handle may be cloned and
    /// may outlive the permit; what it reports then is a late cost.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// # use tallygate::Ask;
    /// # let (gate, _clock) = tallygate::testing::gate(r#"
    /// #     default-plan = "free"
    /// #     [meter.tokens]
    /// #     count = "reported"
    /// #     [meter.pages]
    /// #     [plan.free]
    /// #     quota.tokens = "1000/day"
    /// # "#);
    /// let acme = gate.tenant("acme").await?;
    /// let permit = gate.admit(Ask::new(&acme, "translate").cost("tokens", 100)).await?;
    /// let usage = permit.usage();
    /// for (pages, tokens) in [(1, 80), (1, 90)] {
    ///     usage.take("tokens", 90).await?; // before they are spent: what is held goes first
    ///     usage.add("tokens", tokens);
    ///     usage.add("pages", pages);
    /// }
    /// permit.settle(); // 170 tokens
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }

    /// Whether this is a repeat of work that was charged under the same id ([`Ask::once`]) before
    /// it was admitted: its costs, and what is reported or taken up to what was charged, are free.
    /// A program that keeps results may return the first one's.
    pub fn is_repeat(&self) -> bool {
        self.0.hold().is_replay()
    }

    /// Ends the work as done: its costs are used, including those on `reported` meters of which
    /// nothing was reported.
    pub fn settle(self) {
        let mut hold = self.0.hold();
        let now = hold.now();
        hold.use_stated(now);
        hold.charge(true, now);
        hold.end(Outcome::Complete { status: 200 }, now);
    }

    /// Ends the work as done, with the true amount of one meter in whole units, which replaces what
    /// was asked of it: what is left of the estimate goes back, and what it falls short is late
    /// usage, paid by the limit's remaining units and a debt beyond them. It is the amount of the
    /// whole work: units that were reported of a `reported` meter before are a part of it.
    ///
    /// Other costs are used as they were asked. For true amounts of several meters, report them
    /// through [`usage`](Self::usage) and [`settle`](Self::settle). A meter that was not asked is
    /// counted as by [`Usage::add`], unknown ones included.
    ///
    /// ```
    /// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    /// # runtime.block_on(async {
    /// # #[cfg(feature = "testing")] {
    /// # use tallygate::Ask;
    /// # let (gate, _clock) = tallygate::testing::gate(r#"
    /// #     default-plan = "free"
    /// #     [meter.tokens]
    /// #     [plan.free]
    /// #     quota.tokens = "1000/day"
    /// # "#);
    /// let acme = gate.tenant("acme").await?;
    /// let permit = gate.admit(Ask::new(&acme, "summarise").cost("tokens", 1_000)).await?;
    /// permit.settle_with("tokens", 812); // 188 go back
    /// assert!(gate.admit(Ask::new(&acme, "summarise").cost("tokens", 188)).await.is_ok());
    /// # }
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn settle_with(self, meter: impl AsRef<str>, units: u64) {
        self.0.usage().be_in_all(meter.as_ref(), units);
        self.settle();
    }

    /// Ends the work as not done: the units that it holds go back, and nothing is counted but what
    /// was reported through [`usage`](Self::usage).
    pub fn cancel(self) {
        let mut hold = self.0.hold();
        let now = hold.now();
        hold.charge(false, now);
        hold.end(Outcome::Failed, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut hold = self.0.hold();
        let now = hold.now();
        if hold.of.rules().charges(Outcome::Failed) {
            hold.use_stated(now);
        }
        hold.end(Outcome::Failed, now); // does nothing if it has ended
        hold.of.hub().open_permits.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Gate {
    /// The tenant with this outer id, read from the directory if it is not in memory. With
    /// `identity.unknown = "create"` in the service file a missing tenant is created on the default
    /// plan.
    ///
    /// # Errors
    ///
    /// [`Error::NoTenant`] if the tenant does not exist, or [`Error::Store`] if the store fails.
    pub async fn tenant(&self, id: &str) -> Result<TenantHandle, Error> {
        let none = || Error::NoTenant(id.to_owned());
        Ok(TenantHandle(self.inner.tenants.tenant_named(id).await?.ok_or_else(none)?))
    }

    /// Admits work, or refuses it. It decides from memory, and waits for the store only where units
    /// of a lease or the tenant's record are missing there, or to claim an id ([`Ask::once`]).
    ///
    /// # Errors
    ///
    /// The [`Refusal`], with its reason, the limit and when to retry. An unknown meter, or one that
    /// is a sum, is refused as [`Reason::NotMetered`], logged as an error, and counted in
    /// `tallygate_unknown_meter_total`. An id that cannot be claimed, because the store does not
    /// answer, is [`Reason::Unavailable`], unless `on-lease-error` of the plan file allows work
    /// then: it is charged as without an id.
    pub async fn admit(&self, ask: Ask) -> Result<Permit, Refusal> {
        let (refusal, record) = match self.decide_work(&ask, false).await {
            Ok(hold) => return self.permit_once(hold, &ask).await,
            Err(refused) => refused,
        };
        // What was paid before is admitted all the same.
        let mut record = Unlogged::new(self, record);
        let Some(once) = ask.once.filter(|_| is_short(&refusal)) else { return Err(*refusal) };
        let tenant = &ask.tenant.0.core;
        if self.inner.tenants.guests.has(tenant) {
            return Err(*refusal);
        }
        match self.inner.paid(tenant, once).await {
            Ok(None) => Err(*refusal),
            Ok(Some(claim)) => {
                record.take();
                let mut hold = match self.decide_work(&ask, true).await {
                    Ok(hold) => hold,
                    Err((refusal, record)) => {
                        self.inner.log_decided(record);
                        return Err(*refusal);
                    }
                };
                let (queue, now) = (self.inner.recording.settler.queue(), self.inner.clock.now());
                hold.count_once(claim, KeyFound::Replay, queue, now);
                Ok(self.permit(hold))
            }
            Err(reason) => {
                record.take();
                Err(*self.inner.turn_away(reason, None, &ask.about()))
            }
        }
    }

    /// [`admit`](Self::admit) from memory alone; `None` if it would have to wait, as work with an
    /// id ([`Ask::once`]) always has to.
    pub fn try_admit_now(&self, ask: &Ask) -> Option<Result<Permit, Refusal>> {
        if ask.once.is_some() {
            return None;
        }
        match self.try_admit(ask, &Waited::default(), false) {
            Ok(hold) => Some(Ok(self.permit(hold))),
            Err(Denied::Refuse(refusal, record)) => {
                self.inner.log_decided(record);
                Some(Err(*refusal))
            }
            Err(Denied::Wait(_)) => None,
        }
    }

    /// The permit of work whose admission is final.
    fn permit(&self, mut hold: Hold) -> Permit {
        self.inner.log_decided(hold.unlogged.take());
        Permit::new(self.clone(), hold)
    }

    /// The decision, or the refusal with its record.
    async fn decide_work(&self, ask: &Ask, is_paid: bool) -> Result<Hold, Refused> {
        let mut waited = Waited::default();
        loop {
            match self.try_admit(ask, &waited, is_paid) {
                Ok(hold) => return Ok(hold),
                Err(Denied::Refuse(refusal, record)) => return Err((refusal, record)),
                Err(Denied::Wait(pending)) => waited = pending.await,
            }
        }
    }

    /// The permit of admitted work, once its id is claimed if it has one.
    async fn permit_once(&self, hold: Hold, ask: &Ask) -> Result<Permit, Refusal> {
        let Some(once) = ask.once else { return Ok(self.permit(hold)) };
        let claimed = self.claim(HoldBox::new(hold), once).await;
        match claimed.answer.map(|answer| *answer) {
            Some(Answer::Admit(running)) => {
                Ok(Permit::new(self.clone(), running.hold.into_inner()))
            }
            Some(Answer::Refuse(refusal)) => Err(*refusal),
            Some(Answer::Pass) | None => {
                // A claim is no pass.
                Err(*self.inner.turn_away(Reason::Unavailable, None, &ask.about()))
            }
        }
    }

    /// `is_paid`: it was charged before, so that no quota and no grant pays for it.
    fn try_admit(&self, ask: &Ask, waited: &Waited, is_paid: bool) -> Result<Hold, Denied> {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let live = inner.catalogs.live.load();
        if let Some(reason) = &waited.refused {
            return Err(refused(inner.turn_away(reason.clone(), None, &ask.about())));
        }
        let tenant = &ask.tenant.0;
        if let Some(pending) = self.refresh(tenant, now) {
            return Err(Denied::Wait(super::counted(pending, waited.rounds)));
        }
        if tenant.is_gone() {
            return Err(refused(inner.turn_away(Reason::Unidentified, None, &ask.about())));
        }
        let sheet = ask.sheet(tenant.sheet(&live, now), now);
        let ip = ask.hashed_ip(&sheet);
        let route = live.catalog.routes.named(&ask.op);
        let as_requests = route.is_some_and(|route| sheet.policy.is_work_as_requests(route));
        if ask.costs.is_empty() && as_requests && !is_paid {
            return self.held(HoldContext { sheet, route, ip, work: None }, waited, now);
        }
        let costs = self.costs_of(ask, &live.catalog, &sheet, now)?;
        let rules = || sheet.policy.work(&live.catalog, route, &costs);
        let all = Some(Arc::new(rules()));
        if !is_paid {
            return self.held(HoldContext { sheet, route, ip, work: all }, waited, now);
        }
        let paid = Some(Arc::new(rules().paid()));
        let mut hold = self.held(HoldContext { sheet, route, ip, work: paid }, waited, now)?;
        // What it takes beyond what was paid is drawn as for all work.
        hold.of.work = all;
        Ok(hold)
    }

    /// The costs that the ask names, in atoms.
    fn costs_of(
        &self,
        ask: &Ask,
        catalog: &Catalog,
        sheet: &SheetRef,
        now: Now,
    ) -> Result<Vec<(MeterId, u64)>, Denied> {
        let inner = &*self.inner;
        let mut costs = Vec::with_capacity(ask.costs.len());
        for (name, units) in &ask.costs {
            let Some(meter) = catalog.meter(name) else {
                const TEXT: &str = "admit: the plan file has no such meter";
                let help = || catalog.meter_help(name);
                repeated!(error, now.wall_ms, TEXT; meter = %name, help = help());
                telemetry::unknown_meter("admit");
                return Err(refused(inner.not_metered(name, sheet, &ask.about())));
            };
            let rules = &catalog.meters[usize::from(meter.0)];
            if rules.count == MeterSource::Sum {
                const TEXT: &str = "admit: a sum counts its parts; ask for those instead";
                repeated!(error, now.wall_ms, TEXT; meter = %name);
                telemetry::unknown_meter("admit");
                return Err(refused(inner.not_metered(name, sheet, &ask.about())));
            }
            costs.push((meter, units.saturating_mul(rules.scale)));
        }
        Ok(costs)
    }

    fn held(&self, of: HoldContext, waited: &Waited, now: Now) -> Result<Hold, Denied> {
        let mut hold = Hold::new(of, now, None);
        match self.decide(&mut hold, waited, now) {
            None => Ok(hold),
            Some(denied) => Err(denied),
        }
    }
}

/// A refusal, with its record unless that is logged already.
type Refused = (Box<Refusal>, Option<Unwritten>);

/// A refusal whose record is logged already.
fn refused(refusal: Box<Refusal>) -> Denied {
    Denied::Refuse(refusal, None)
}

/// Whether units of a quota or a grant are what the work was refused for.
fn is_short(refusal: &Refusal) -> bool {
    refusal.limit.as_ref().is_some_and(|limit| limit.kind == LimitKind::Quota)
}
