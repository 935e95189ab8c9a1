//! Lowered form of a plan file. Amounts are whole **atoms**: a meter's units times its
//! [`Meter::scale`], so that fractions of a unit stay exact and no float is ever stored.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::clock::time_at;
use crate::decision::{Reason, Refusal};
use crate::toml_file::Place;

mod beyond_plan;

pub(crate) use beyond_plan::*;

/// Index of a meter in [`Catalog::meters`](super::Catalog::meters). `MeterId(0)` is always
/// `requests`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct MeterId(pub u16);

/// Index of a route in [`Catalog::routes`](super::Catalog::routes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteId(pub u16);

/// Index of a plan in [`Catalog::plans`](super::Catalog::plans).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlanId(pub u16);

/// A counted quantity.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    /// Its name in the file: `egress`.
    pub name: Arc<str>,
    /// The source of its numbers.
    pub count: MeterSource,
    /// Atoms set aside at admission, or per chunk while a body streams. 0: none.
    pub hold: u64,
    /// Whether a stream ends when no units remain (exact), or is served and recorded as over.
    pub cut: bool,
    /// Atoms per unit: its `parts`, by default a million for a `sum` and else 1. Never changes:
    /// everything stored is counted in them.
    pub scale: u64,
    /// Some route names it among its `meters`: it concerns only these routes.
    pub named: bool,
    /// Every amount that this file asks for or counts is a multiple of this many atoms: the unit of
    /// the buckets, which hold at most 32 bits. No stored data depends on it.
    pub grain: u64,
    /// Its Stripe meter, if any.
    pub stripe: Option<MeterStripe>,
    /// The meters with `count = "sum"` that this one adds to, with their atoms per atom of this
    /// one.
    pub feeds: Vec<(MeterId, u64)>,
}

impl Meter {
    /// Atoms that a request asks for on entry where the meter's number is known only later: its
    /// hold, or the smallest amount, so that debt is noticed.
    pub(crate) fn asked(&self) -> u64 {
        match self.count {
            MeterSource::Reported | MeterSource::ResponseBytes => self.hold.max(self.grain),
            MeterSource::Cost | MeterSource::RequestBytes | MeterSource::Sum => self.hold,
        }
    }
}

/// The source of a meter's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MeterSource {
    /// The `cost` of a route (`requests`: 1 each unless the route sets another).
    Cost,
    /// The handler, or the response body, reports the true number.
    Reported,
    /// Bytes of response bodies.
    ResponseBytes,
    /// Bytes of request bodies.
    RequestBytes,
    /// A weighted sum of other meters, which have it in their [`Meter::feeds`].
    Sum,
}

impl MeterSource {
    /// Whether it counts the bytes of a body.
    pub(crate) fn is_of_body(self) -> bool {
        matches!(self, Self::RequestBytes | Self::ResponseBytes)
    }
}

/// A meter's counterpart at Stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MeterStripe {
    /// `event_name` of the Stripe meter.
    pub event: String,
    /// Atoms per Stripe unit (`unit = "GB"` on bytes: 10^9).
    pub atoms_per_unit: u64,
    /// All use, or only the overage.
    pub send: Send,
}

/// The part of use that is sent to Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Send {
    /// All of it; the included amount is the price's free first tier.
    All,
    /// Only use beyond the included amount.
    Overage,
}

/// A group of endpoints with the same cost and rules.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    /// Its name in the file: `search`.
    pub name: Arc<str>,
    /// Atoms per request, by meter. A meter listed with 0 is not asked for on this route.
    pub cost: Vec<(MeterId, u64)>,
    /// The reported meters that it names as concerning it.
    pub meters: Vec<MeterId>,
    /// The feature that it requires of a plan.
    pub needs: Option<Arc<str>>,
    /// The permission that it requires of a caller.
    pub needs_permission: Option<Arc<str>>,
    /// Identified, but neither limited nor counted.
    pub free: bool,
    /// Whether callers are identified.
    pub auth: Auth,
    /// The header with a request's idempotency key, by which it counts once.
    pub once_by: Option<String>,
    /// Outcomes that are charged; `None`: the plan's setting.
    pub charge_on: Option<ChargeOn>,
    /// `shadow`: decide and record, never refuse. `None`: the plan's setting.
    pub enforce: Option<Enforce>,
}

impl Route {
    /// Atoms of a meter that the route (`None`: no route) sets as a request's cost or hold; `None`:
    /// the meter's own setting applies. A reported meter that other routes name is 0 here.
    pub(crate) fn says_of(route: Option<&Self>, id: MeterId, meter: &Meter) -> Option<u64> {
        let cost = route.and_then(|route| route.cost.iter().find(|(m, _)| *m == id));
        let concerns = || !meter.named || route.is_some_and(|route| route.meters.contains(&id));
        cost.map(|(_, n)| *n).or_else(|| (!concerns()).then_some(0))
    }
}

/// Whether callers of a route are identified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Auth {
    /// A credential is needed.
    #[default]
    Required,
    /// Without a credential the caller is the anonymous tenant.
    Optional,
    /// Callers are not identified, and nothing is limited or counted.
    None,
}

/// Whether refusals are enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enforce {
    /// They are.
    On,
    /// Decides and records by the same code, but refuses no request.
    Shadow,
}

/// The outcomes that are charged; other requests are refunded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChargeOn {
    /// By status class: index 0 is 1xx, 4 is 5xx.
    pub class: [bool; 5],
    /// Requests whose response never ended (the client went away).
    pub aborted: bool,
}

impl Default for ChargeOn {
    /// `["1xx", "2xx", "3xx", "4xx"]`, and aborted requests.
    fn default() -> Self {
        Self { class: [true, true, true, true, false], aborted: true }
    }
}

/// The subject of a limit within a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scope {
    /// The whole tenant.
    Tenant,
    /// One credential.
    Key,
    /// One user, from a claim.
    User,
    /// One address: the trusted peer's.
    Ip,
    /// A named scope from the identification.
    Named(Arc<str>),
}

impl Scope {
    /// Its word after `per`.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tenant => "tenant",
            Self::Key => "key",
            Self::User => "user",
            Self::Ip => "ip",
            Self::Named(name) => name,
        }
    }
}

/// The requests that a rate applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum RateOn {
    /// Every request.
    All,
    /// All requests whose route has no rate of its own, in one bucket.
    Default,
    /// Requests of this route, instead of the default.
    Route(RouteId),
}

/// A limit on speed.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    /// Its words, unique in a plan and stable over edits elsewhere: `search/min`, `default/s/key`,
    /// `chat/input-tokens/min`.
    pub id: Arc<str>,
    /// Its name in headers: the id without the period, where that is unique in the plan (`search`).
    pub name: Arc<str>,
    /// The requests it applies to.
    pub on: RateOn,
    /// Its meter; `None`: calls, one each, whatever they cost.
    pub meter: Option<MeterId>,
    /// This many calls, or atoms of the meter, ...
    pub amount: u64,
    /// ... per this long.
    pub per: Duration,
    /// Most at once, in the same unit as `amount`. Without `burst` in the file: the amount.
    pub burst: u64,
    /// Scope of its buckets.
    pub scope: Scope,
    /// Whether several processes lease its units slot by slot, instead of sharing the rate; `None`:
    /// the gate's setting.
    pub strict: Option<bool>,
    /// Its position in the file.
    pub place: Place,
}

/// The span of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Every {
    /// The hour of the clock.
    Hour,
    /// The local day, of 23 to 25 hours.
    Day,
    /// The local week, from Monday.
    Week,
    /// The local month.
    Month,
    /// The local year.
    Year,
    /// One month from the tenant's billing anchor.
    Cycle,
    /// The whole paid or contract period.
    Term,
    /// Granted once: a grant whose source is the plan.
    Once,
}

/// Behaviour beyond a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// Refused.
    Deny,
    /// Let through and counted.
    Allow,
    /// Let through, and the overage is owed.
    Bill,
}

/// Units granted per span.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    /// Its words: `requests/month`, `requests/day/key`, `credits/once`.
    pub id: Arc<str>,
    /// Its meter.
    pub meter: MeterId,
    /// Atoms per window; `None`: unlimited, only counted.
    pub limit: Option<u64>,
    /// The window.
    pub every: Every,
    /// Scope of the quota.
    pub scope: Scope,
    /// Behaviour beyond it.
    pub over: Over,
    /// The hard ceiling in atoms above an `allow` or `bill` limit.
    pub stop: Option<u64>,
    /// Percentages of the limit that raise an event once per window, ascending.
    pub alert: Vec<u16>,
    /// Its position in the file.
    pub place: Place,
}

impl Quota {
    /// Whether it includes nothing, so that only grants are spent.
    pub(crate) fn is_prepaid(&self) -> bool {
        self.every == Every::Once && self.limit == Some(0)
    }
}

/// A plan's value of a feature: `feature.NAME` in the plan file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feature {
    /// `true` or `false`: present or not.
    Flag(bool),
    /// A number, such as a number of seats.
    Number(i64),
    /// `"unlimited"`: as many as wanted.
    Unlimited,
    /// A text.
    Text(Arc<str>),
}

impl Feature {
    /// Whether a route that `needs` the feature may be called: it is `true`, above 0, unlimited, or
    /// a text that is not empty.
    pub fn is_on(&self) -> bool {
        match self {
            Feature::Flag(on) => *on,
            Feature::Number(n) => *n > 0,
            Feature::Unlimited => true,
            Feature::Text(text) => !text.is_empty(),
        }
    }
}

/// Behaviour of admission when it has no units and the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLeaseError {
    /// Refuse with 503.
    Deny,
    /// Admit up to this share of the limit, in hundredths of a percent: the printed overshoot.
    Allow {
        /// 200 is 2 %.
        basis_points: u32,
    },
}

/// A named set of limits and features, with everything it extends merged in. A handler gets the
/// plan of its request from [`Admitted::plan`](crate::Admitted::plan).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Its name in the file.
    pub name: Arc<str>,
    /// Stripe price lookup keys that mean this plan.
    pub(crate) prices: Vec<String>,
    /// Whether its tenants may use the kept part of the process's capacity.
    pub(crate) pays: bool,
    /// Its rates, by the key in the file (`all`, `default`, a route's name).
    pub(crate) rates: BTreeMap<Arc<str>, Vec<Rate>>,
    /// Its quotas, by meter.
    pub(crate) quotas: BTreeMap<MeterId, Vec<Quota>>,
    /// Its features, by name.
    pub features: BTreeMap<Arc<str>, Feature>,
    /// Most requests of one tenant in flight in each process; `None`: not limited.
    pub concurrency: Option<u32>,
    /// Length of the trial, from the tenant's first request; `None`: the plan is no trial.
    pub expires: Option<Duration>,
    /// Outcomes that are charged.
    pub(crate) charge_on: ChargeOn,
    /// Whether refusals are enforced.
    pub(crate) enforce: Enforce,
    /// Behaviour when there are no units and the store does not answer.
    pub(crate) on_lease_error: OnLeaseError,
}

impl Plan {
    /// Refuses a request if this plan lacks the feature, as `needs` of a route in the plan file
    /// does. For handlers whose features are sold separately within one route.
    ///
    /// # Errors
    ///
    /// The refusal, for the handler to return: 403, problem type `/problems/feature-not-in-plan`.
    #[expect(clippy::result_large_err, reason = "the type of every other refusal")]
    pub fn require(&self, feature: &str) -> Result<(), Refusal> {
        if self.features.get(feature).is_some_and(Feature::is_on) {
            return Ok(());
        }
        let mut refusal = Refusal::new(Reason::FeatureMissing(feature.into()));
        refusal.plan = Some(self.name.clone());
        Err(refusal)
    }

    /// Whether it has a quota of this meter for the whole tenant that is limited: without one,
    /// units granted on top are never spent.
    pub(crate) fn limits(&self, meter: MeterId) -> bool {
        let quotas = self.quotas.get(&meter).into_iter().flatten();
        quotas.filter(|quota| quota.scope == Scope::Tenant).any(|quota| quota.limit.is_some())
    }
}

/// Treatment of an uncached tenant by admission when the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDirectoryError {
    /// 503.
    Deny,
    /// Serve on the default plan.
    DefaultPlan,
}

/// Anchors of a tenant's `cycle` and `term`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Anchors {
    /// Start of the first cycle, Unix milliseconds.
    pub cycle_ms: i64,
    /// Whether it is a subscription's: its cycles turn when the billing service's periods do, which
    /// count in UTC.
    pub in_utc: bool,
    /// The contract or paid period, if any; without it `term` is the cycle.
    pub term: Option<Term>,
}

/// A span of time with its end; `end_ms` is the first instant after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Window {
    /// First instant, Unix milliseconds.
    pub(crate) start_ms: i64,
    /// First instant after it; `i64::MAX` for a window without end (`Once`).
    pub(crate) end_ms: i64,
}

impl Window {
    /// Its first instant.
    pub fn start(&self) -> SystemTime {
        time_at(self.start_ms)
    }

    /// The first instant after it; `None` for a window without end.
    pub fn end(&self) -> Option<SystemTime> {
        (self.end_ms != i64::MAX).then(|| time_at(self.end_ms))
    }
}
