//! The gate: the whole flow of a request, on one page.
//!
//! [`Gate::admit`] (for work) and [`Gate::admit_request`] (for a request) walk the same steps. Each
//! step answers from memory, or returns what to wait for; the caller awaits that and starts again
//! from the first step. So nothing is borrowed across an await, and no step awaits.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::admission::context::HoldContext;
use crate::admission::decide::{self, AdmissionInput, AdmittedBy};
use crate::admission::permit::{Hold, HoldBox, OPEN_ENDED};
use crate::admission::reads::BytesRead;
use crate::catalog::{Auth, Catalog, RouteId};
use crate::clock::Now;
use crate::decision::{Reason, Refusal};
use crate::decision_log::Unwritten;
use crate::error::Error;
use crate::identity::RequestView;
use crate::payers::purse::NotDrawn;
use crate::quota::lease::Lease;
use crate::sheets::tenant_core::TenantCore;
use crate::telemetry::CheckSpan;

mod alert_tasks;
mod alerts;
mod as_written;
mod ask;
mod backup;
mod balances;
#[cfg(feature = "stripe")]
mod billing;
mod busiest;
mod busiest_read;
mod callers;
mod catalogs;
mod check_routes;
mod close;
mod compared;
mod credentials;
#[cfg(feature = "stripe")]
mod customers;
#[cfg(any(test, feature = "testing"))]
mod drill;
#[cfg(feature = "stripe")]
mod ends;
mod entitlements;
mod explain;
mod filtered;
mod guests;
mod health;
mod host_tables;
mod idle;
mod in_hand;
mod inner;
#[cfg(feature = "stripe")]
mod last_report;
mod limit_line;
mod logged;
mod lookup;
mod made_pepper;
mod maintain;
mod meter_name;
mod nearest;
mod news;
mod on_record;
mod once;
mod open;
#[cfg(feature = "stripe")]
mod operator_events;
#[cfg(feature = "stripe")]
pub(crate) mod outbox;
mod peek;
mod peppers;
mod pools_read;
mod promises;
mod rates;
mod recent;
#[cfg(feature = "stripe")]
mod reports;
mod reset;
mod restore;
#[cfg(feature = "stripe")]
mod scales;
mod scopes;
mod settings;
mod shared;
mod sources;
mod standing;
mod statement;
mod stores;
mod tenants;
mod top_tenants;
mod troubles;
mod unleased;
mod usage;
mod waits_for_holds;

pub(crate) use callers::Identification;
pub(crate) use inner::Inner;
use logged::About;
pub(crate) use logged::Unlogged;
pub(crate) use statement::status as status_word;

pub use ask::{Ask, Permit, TenantHandle};
#[doc(hidden)]
pub use busiest::TopTenants;
pub use close::CLOSE_WITHIN;
#[doc(hidden)]
pub use compared::{PlanChange, PlanFiles};
pub use entitlements::Entitlements;
#[doc(hidden)]
pub use filtered::{FilteredTenants, TenantFilter};
pub use health::{Health, Trouble};
pub use meter_name::MeterName;
#[doc(hidden)]
pub use on_record::RecordedUse;
pub use open::GateBuilder;
#[cfg(feature = "stripe")]
pub use operator_events::{EventApplied, EventRead};
pub use restore::{Restored, SinceCopy};
pub use settings::OnRefusal;
pub use statement::{Identified, IdentifyStep};
pub(crate) use usage::Took;
pub use usage::{Admitted, Usage};

/// Longest wait for an answer about units of a lease; then `on-lease-error` decides. Behind others,
/// whose calls are answered, a request waits for its turn as well: six seconds in all at most.
pub const LEASE_WAIT: Duration = Duration::from_millis(250);

/// Most requests of one tenant that wait for a lease at once; the next is refused at once, so that
/// a tenant whose pool is slow cannot fill memory with its requests. It is more than a process has
/// connections of one tenant.
pub const LEASE_WAITERS: u32 = 16_384;

/// Rounds of waiting for one request: its caller, its tenant, and the leases of its meters, which
/// are asked for together; where several pay for one cost, one after the other, each for all of the
/// rest and then for as much as it has. A wait behind others may take several of them. One more
/// than that is a store that does not keep up.
const ROUNDS: u8 = 24;

/// The gate of one service: identifies callers, decides their limits, and counts what they use.
/// Clones are handles on the same gate. Call [`close`](Gate::close) before the process ends: it
/// writes what was counted and gives leases back.
///
/// Open a gate with [`Gate::open`] from the service file, or with [`GateBuilder`] to supply a
/// store, a clock or hooks. Tenants and their keys are in [`Gate::directory`], their usage is in
/// [`Gate::usage_report`], and usage that other services report goes to [`Gate::ingest`].
///
/// Requests go through a layer (`middleware`, or an adapter's crate), other work through
/// [`Gate::admit`]:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use tallygate::{Ask, GateBuilder};
///
/// let service = "[store]\nkind = \"memory\"\n[[identify]]\nheader = \"x-tenant\"\n\
///                [proxy]\ntrust = [\"127.0.0.0/8\"]";
/// let plans = "default-plan = \"free\"\n[meter.jobs]\n[plan.free]\nquota.jobs = \"2/day\"";
/// let gate = GateBuilder::from_text(service).plans(plans).open().await?;
///
/// gate.directory().tenant("acme").note("signed up").save().await?;
/// let acme = gate.tenant("acme").await?;
/// for included in [true, true, false] {
///     let ask = Ask::new(&acme, "convert").cost("jobs", 1);
///     match gate.admit(ask).await {
///         Ok(permit) => permit.settle(), // the work is done here
///         Err(refusal) => assert!(!included, "{refusal}"),
///     }
/// }
/// gate.close().await?; // records what was used, and gives leases back
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Gate {
    pub(crate) inner: Arc<Inner>,
}

/// The outcome of [`Gate::admit_request`], which never waits itself.
pub enum Step {
    /// The answer.
    Done(Answer),
    /// Await this, then call [`Gate::admit_request`] again with its result. It borrows nothing.
    Wait(Pending),
}

impl Step {
    /// The name of this outcome in the span of the admission.
    fn word(&self) -> &'static str {
        match self {
            Self::Done(Answer::Refuse(_)) => "refused",
            Self::Done(_) => "allowed",
            Self::Wait(_) => "waits",
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Answer {
    /// Admitted: serve it with [`Serving`](crate::adapter::Serving), which settles its units.
    Admit(Running),
    /// The route has `auth = "none"`: nothing is limited or counted.
    Pass,
    /// Refused: [`Gate::refusal_reply`] writes the response.
    Refuse(Box<Refusal>),
}

/// A wait for the store: for a read of the directory, or for units of a lease. The only boxed
/// future of a request, made only when memory does not have the answer.
pub type Pending = Pin<Box<dyn Future<Output = Waited> + Send>>;

/// The result of awaiting a [`Pending`], for the next call. The first call of a request takes
/// `Waited::default()`.
#[derive(Debug, Default)]
pub struct Waited {
    rounds: u8,
    store_away: bool,
    refused: Option<Reason>,
    /// The tenant of which that is so, if it is known.
    refused_of: Option<Arc<str>>,
    /// The wait has come to the answer itself.
    pub(crate) answer: Option<Box<Answer>>,
}

/// An admitted request and the units that it holds. [`Serving`](crate::adapter::Serving) takes it.
#[derive(Debug)]
pub struct Running {
    pub(crate) hold: HoldBox,
}

impl Running {
    /// The counter for the bytes read of the request's body; `None` if no meter counts them.
    pub fn reads(&self) -> Option<BytesRead> {
        self.hold.read.clone()
    }
}

impl Gate {
    /// Opens a gate from its service file (`tallygate.toml`): reads that and the plan file that it
    /// names, opens the store, checks what would fail later, and logs each exception to the
    /// promises.
    ///
    /// # Errors
    ///
    /// See [`Error`]. All mistakes of a file are reported at once, each with line, column and what
    /// to write instead.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub async fn open(service_file: impl AsRef<Path>) -> Result<Self, Error> {
        Self::builder(service_file).open().await
    }

    /// Begins a gate of this service file, to supply a store, a clock or hooks: see
    /// [`GateBuilder`].
    pub fn builder(service_file: impl AsRef<Path>) -> GateBuilder {
        GateBuilder::file(service_file.as_ref())
    }

    /// Decides one request from memory, or returns what to wait for. `waited` is what the last wait
    /// of this request returned; begin with `Waited::default()`. For adapters: a host uses a layer.
    pub fn admit_request(&self, view: &dyn RequestView, waited: Waited) -> Step {
        let check = CheckSpan::begin();
        let mut step = self.check(&check, view, waited, None);
        if let Step::Done(Answer::Refuse(refusal)) = &mut step {
            refusal.call = self.describe(view);
        }
        check.came_to(|| step.word());
        step
    }

    /// One request from its header to its hold: who is calling, under which limits, and whether
    /// they admit it. `ahead`: its body is to be read, at most so many bytes, before a key is
    /// claimed.
    #[inline]
    pub(crate) fn check(
        &self,
        check: &CheckSpan,
        view: &dyn RequestView,
        waited: Waited,
        ahead: Option<u64>,
    ) -> Step {
        let inner = &*self.inner;
        let now = inner.clock.now();
        let live = inner.catalogs.live.load();

        // What waited for its claim on an idempotency key has been decided already.
        if let Some(answer) = waited.answer {
            return Step::Done(*answer);
        }
        // A wait that can only end in a refusal has said so.
        if let Some(reason) = waited.refused {
            let route = inner.route_of(&live.catalog, view);
            return self.turned_away(reason, &live.catalog, route, waited.refused_of);
        }
        let is_last = waited.rounds > ROUNDS;

        // Which route, before who is calling: some routes identify no caller.
        let route = inner.route_of(&live.catalog, view);
        let rules = route.map(|id| &live.catalog.routes.as_slice()[usize::from(id.0)]);
        // What was asked about before its body was read has been decided already.
        if rules.is_some_and(|route| route.once_by.is_some())
            && let Some(answer) = view.decided().and_then(|decided| decided.take::<Answer>())
        {
            return Step::Done(*answer);
        }
        let auth = rules.map_or(live.catalog.routes.default_auth, |r| r.auth);
        if auth == Auth::None {
            return Step::Done(Answer::Pass);
        }

        // 1 identify: who is calling. Known callers are found by a hash of what they present; for
        //   others the directory is asked, once for all who wait.
        let seen = match self.identify(view, auth, now, waited.rounds) {
            Identification::Caller(caller) => caller,
            Identification::Refused(reason) => {
                return self.turned_away(reason, &live.catalog, route, None);
            }
            Identification::Ask(_) if is_last => {
                return self.turned_away(Reason::Unavailable, &live.catalog, route, None);
            }
            Identification::Ask(pending) => return Step::Wait(counted(pending, waited.rounds)),
        };

        // 2 resolve: which plan, which limits. A sheet has it all and holds until the next edge in
        //   time or change of plan, so that this is one comparison for nearly every request.
        let needed = rules.and_then(|route| route.needs_permission.as_ref());
        let lacked = needed.filter(|permission| !seen.may(permission));
        // A trial begins with a request that may be admitted.
        let reread = match lacked {
            None => self.refresh(&seen.tenant, now),
            Some(_) => self.refresh_for_look(&seen.tenant, now),
        };
        if let Some(pending) = reread
            && !is_last
        {
            return Step::Wait(counted(pending, waited.rounds));
        }
        let sheet = seen.into_sheet(&live, now);
        check.of(&sheet.tenant.id, &sheet.policy.plan.name);
        let ip = inner.credentials.ip_scope(&sheet, view);

        // 3 decide: all limits at once, or none.
        let of = HoldContext { sheet, route, ip, work: None };
        if let Some(permission) = lacked {
            return self.not_permitted(permission, &of);
        }
        let is_open_ended = view.is_open_ended();
        let length = if is_open_ended { Some(OPEN_ENDED) } else { view.body_length().or(ahead) };
        let mut hold = HoldBox::new(Hold::new(of, now, length));
        let may_have_body = hold.length != Some(0);
        let reads = ahead.is_some() || view.counts_reads();
        if may_have_body && hold.of.rules().counts_request.is_some() && reads {
            hold.read = Some(BytesRead::default());
        }
        match self.decide(&mut hold, &waited, now) {
            None if ahead.is_some() => Step::Done(Answer::Admit(Running { hold })),
            None => match self.once_key(rules, view) {
                // A request that counts once waits for its claim.
                Some(once) => Step::Wait(self.claim(hold, once)),
                // 4 record happens when the hold ends: with the response's body, or when it is
                //   dropped.
                None => {
                    inner.log_decided(hold.unlogged.take());
                    Step::Done(Answer::Admit(Running { hold }))
                }
            },
            Some(Denied::Refuse(refusal, record)) => {
                inner.log_decided(record);
                refuse(refusal)
            }
            Some(Denied::Wait(pending)) => Step::Wait(pending),
        }
    }

    /// A request whose caller lacks the permission that its route asks for. It is no limit: neither
    /// `shadow` nor an outage of the store admits it.
    #[cold]
    fn not_permitted(&self, permission: &Arc<str>, of: &HoldContext) -> Step {
        let reason = Reason::PermissionMissing(permission.clone());
        refuse(self.inner.turn_away(reason, Some(of), &About::request(None)))
    }

    /// A request that goes no further, with its route; and its tenant, where that is known.
    #[cold]
    fn turned_away(
        &self,
        reason: Reason,
        catalog: &Catalog,
        route: Option<RouteId>,
        tenant: Option<Arc<str>>,
    ) -> Step {
        let route = route.map(|id| catalog.routes.as_slice()[usize::from(id.0)].name.clone());
        let about = About { tenant, ..About::request(route) };
        refuse(self.inner.turn_away(reason, None, &about))
    }

    /// Step 3 and its consequences, the same for requests and for other work: fills the hold (in
    /// place, because it is large), or returns why not. The caller logs the record of it: that of
    /// an admission is left in the hold, for a claim on a key may still overturn it.
    #[inline]
    fn decide(&self, hold: &mut Hold, waited: &Waited, now: Now) -> Option<Denied> {
        if !hold.take_place() {
            return self.overloaded(hold, waited, now);
        }
        self.decide_within(hold, waited, now)
    }

    /// The same for one that has a place, or needs none.
    #[inline]
    fn decide_within(&self, hold: &mut Hold, waited: &Waited, now: Now) -> Option<Denied> {
        let policy = hold.of.rules();
        let question = AdmissionInput {
            hub: hold.of.hub(),
            sheet: &hold.of.sheet,
            route: policy,
            scopes: hold.of.scopes(),
            now,
            length: hold.length,
            store_away: self.is_away(waited, &hold.of),
        };
        match decide::decide(&question, || &mut hold.list.open().taken) {
            Ok(drawn) => {
                // First: what follows calls the host's recorder of metrics, which may panic, and an
                // open hold gives back what it has drawn.
                hold.open(drawn);
                #[cfg(feature = "metrics")]
                self.inner.count_admitted(&hold.of.sheet, hold.of.route, hold.of.rules());
                if self.inner.recording.decisions.takes_admission() {
                    hold.unlogged = Some(self.inner.admission(hold, now));
                }
                None
            }
            Err(stopped) => {
                hold.leave_place();
                self.denied(hold, stopped, waited, now)
            }
        }
    }

    /// The outcome where this process has enough in progress: a refusal, but not under `shadow`.
    #[cold]
    fn overloaded(&self, hold: &mut Hold, waited: &Waited, now: Now) -> Option<Denied> {
        if hold.of.rules().shadow {
            hold.take_place_anyway();
            return self.decide_within(hold, waited, now);
        }
        let about = About::request(None);
        let refusal = self.inner.turn_away(Reason::Overloaded, Some(&hold.of), &about);
        Some(Denied::Refuse(refusal, None))
    }

    /// Whether a wait for units is pointless: the store has not answered, or the tenant is a guest,
    /// whose leases are never renewed.
    #[inline]
    fn is_away(&self, waited: &Waited, of: &HoldContext) -> bool {
        waited.store_away || self.inner.tenants.guests.has(&of.sheet.tenant)
    }

    /// The outcome of a decision against a request: a wait, a refusal, or neither under `shadow`.
    #[cold]
    fn denied(
        &self,
        hold: &mut Hold,
        stopped: NotDrawn,
        waited: &Waited,
        now: Now,
    ) -> Option<Denied> {
        let inner = &*self.inner;
        let waits = waited.rounds < ROUNDS && !self.is_away(waited, &hold.of);
        if let NotDrawn::Need(..) = &stopped
            && waits
            && inner.hub.reach.is_away()
        {
            // A store that is known to be away is not waited for.
            let waited = Waited { rounds: waited.rounds, store_away: true, ..Waited::default() };
            return self.decide(hold, &waited, now);
        }
        let (sheet, rules) = (&hold.of.sheet, hold.of.rules());
        match stopped {
            NotDrawn::Need(lease, n) if waits => {
                Some(Denied::Wait(self.wait_for(&hold.of, lease, n, waited.rounds)))
            }
            // The same code has decided; only the caller is not told.
            NotDrawn::Need(..) if rules.shadow => {
                decide::enter_anyway(sheet, rules);
                hold.take_place_anyway();
                hold.open(AdmittedBy::Listed);
                None
            }
            NotDrawn::Refused(refused) if rules.shadow && refused.reason.yields_to_shadow() => {
                inner.count_shadow(&hold.of, &refused);
                inner.log_shadowed(hold, &refused, now);
                decide::enter_anyway(sheet, rules);
                hold.take_place_anyway();
                hold.open(AdmittedBy::Listed);
                None
            }
            NotDrawn::Need(..) => {
                let about = About::request(None);
                let refusal = inner.turn_away(Reason::Unavailable, Some(&hold.of), &about);
                Some(Denied::Refuse(refusal, None))
            }
            NotDrawn::Refused(refused) => {
                let refusal = inner.refusal_of(hold, &refused, now);
                inner.count_refused(&hold.of, &refused.by, &refusal.reason);
                let record = inner.refused(hold, &refusal, now);
                Some(Denied::Refuse(refusal, Some(record)))
            }
        }
    }

    /// Waits for units of a lease, within bounds.
    fn wait_for(&self, of: &HoldContext, lease: Arc<Lease>, n: u64, rounds: u8) -> Pending {
        let inner = self.inner.clone();
        let (tenant, is_shadow) = (of.sheet.tenant.clone(), of.rules().shadow);
        Box::pin(async move {
            let mut waited = Waited { rounds: rounds + 1, ..Waited::default() };
            let id = tenant.id.clone();
            let Some(_waiting) = WaitingRequest::enter(tenant) else {
                // One that is refused nothing does not wait, and is let in without units.
                waited.store_away = is_shadow;
                waited.refused = (!is_shadow).then_some(Reason::Unavailable);
                waited.refused_of = Some(id);
                return waited;
            };
            let begun = inner.clock.now();
            inner.hub.renewals.wake(&lease);
            let (answer, line) =
                (inner.hub.renewals.answer_for(&lease, n), || inner.hub.answers.progress(&lease));
            let most = u32::from(ROUNDS.saturating_sub(rounds));
            let (answered, rounds) =
                inner.hub.reach.while_it_moves(LEASE_WAIT, most, line, answer).await;
            waited.store_away = answered.is_none();
            let took_ns = inner.clock.now().mono_ns.saturating_sub(begun.mono_ns);
            crate::telemetry::lease_wait(took_ns as f64 / 1e9, answered.is_some());
            waited.rounds =
                waited.rounds.saturating_add(u8::try_from(rounds - 1).unwrap_or(ROUNDS));
            waited
        })
    }
}

/// A request among those that wait for a lease, for as long as its wait lives: a client that goes
/// away meanwhile drops it.
struct WaitingRequest(Arc<TenantCore>);

impl WaitingRequest {
    /// `None`: too many of this tenant wait already.
    fn enter(tenant: Arc<TenantCore>) -> Option<Self> {
        let this = Self(tenant);
        (this.0.waiting.fetch_add(1, Ordering::AcqRel) < LEASE_WAITERS).then_some(this)
    }
}

impl Drop for WaitingRequest {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Why a request goes no further now.
enum Denied {
    /// With its record, unless that is logged already.
    Refuse(Box<Refusal>, Option<Unwritten>),
    Wait(Pending),
}

fn refuse(refusal: Box<Refusal>) -> Step {
    Step::Done(Answer::Refuse(refusal))
}

/// The same wait, counting those before it.
fn counted(pending: Pending, rounds: u8) -> Pending {
    Box::pin(async move { Waited { rounds: rounds + 1, ..pending.await } })
}

impl std::fmt::Debug for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(answer) => f.debug_tuple("Done").field(answer).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}
