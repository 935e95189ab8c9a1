//! An effective plan, lowered for decisions: for each route, the buckets and pools to ask, and for
//! how much.
//!
//! Made once per plan and catalog (and again for each tenant with an exception), shared by all
//! tenants on it, and read-only: the counters are in the tenant's sheet.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use crate::catalog::{
    Catalog, ChargeOn, Every, MeterId, OnLeaseError, Plan, Quota, Rate, RouteId, Scope,
};
use crate::decision::Outcome;
use crate::policy::bucket::BucketRule;
use crate::policy::taken::{DrawnFrom, Limit};
use crate::quota::alert::AlertRule;
use crate::table::{RowCount, Table, index_type};
use crate::wire::{HeaderItem, PolicyText};

pub(crate) mod bucket;
mod lower;
pub(crate) mod origin;
pub(crate) mod resolve;
pub(crate) mod scoped;
pub(crate) mod taken;

use lower::{RateOnKey, index};

index_type! {
    /// Of a rate in [`Policy::rates`].
    RateIndex
}

index_type! {
    /// Of a quota in [`Policy::quotas`].
    QuotaIndex
}

index_type! {
    /// Of a pool in [`Policy::pools`].
    PoolIndex
}

index_type! {
    /// Of a meter ask in [`RoutePolicy::meters`].
    AskIndex
}

index_type! {
    /// Of the counter in a hold of a number that is reported or streamed.
    CounterIndex
}

index_type! {
    /// Of a bucket in a tenant's sheet.
    BucketSlot
}

index_type! {
    /// Of a lease in a tenant's sheet.
    LeaseSlot
}

/// A plan in the form admission walks.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) plan: Arc<Plan>,
    pub(crate) rates: Table<RateIndex, Vec<RateRule>>,
    pub(crate) pools: Table<PoolIndex, Vec<PoolRule>>,
    pub(crate) quotas: Table<QuotaIndex, Vec<QuotaRule>>,
    /// One per route of the catalog.
    routes: Vec<RoutePolicy>,
    /// For requests that match no route.
    elsewhere: RoutePolicy,
    rates_on: BTreeMap<RateOnKey, Vec<RateIndex>>,
    quotas_of: BTreeMap<MeterId, Vec<QuotaIndex>>,
    grants_of: BTreeMap<MeterId, Vec<PoolIndex>>,
    /// The debt pools of meters that this plan, or another, grants and never includes; and whether
    /// this plan does.
    debtors: BTreeMap<MeterId, (PoolIndex, bool)>,
    /// Whether some limit is by address, which only the request itself has.
    pub(crate) uses_ip: bool,
    /// The buckets and leases of scope `tenant`, which a sheet holds in arrays.
    pub(crate) tenant_buckets: RowCount<BucketSlot>,
    pub(crate) tenant_leases: RowCount<LeaseSlot>,
    /// The counters of units that went back, by meter; each looked up by the first of them.
    #[cfg(feature = "metrics")]
    refunds: OnceLock<Box<[OnceLock<crate::telemetry::Refunds>]>>,
}

/// A rate with its arithmetic.
#[derive(Debug)]
pub(crate) struct RateRule {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) meter: Option<MeterId>,
    pub(crate) rule: BucketRule,
    /// For reports: amount, burst and period as written.
    pub(crate) amount: u64,
    pub(crate) burst: u64,
    pub(crate) per: std::time::Duration,
    pub(crate) place: CounterHome<BucketSlot>,
    /// The pool of its units in one slot, if it is strict and the store is shared.
    pub(crate) slot_pool: Option<PoolIndex>,
}

/// The place of a rule's counter: a bucket's, or a lease's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CounterHome<I> {
    /// In the tenant's sheet.
    Sheet(I),
    /// In the table of scoped limits, by the caller's value of this scope.
    Scoped(Scope),
}

impl<I> CounterHome<I> {
    /// The scope by whose values it is found; `None`: the tenant has one counter.
    pub(crate) fn scope(&self) -> Option<&Scope> {
        match self {
            Self::Sheet(_) => None,
            Self::Scoped(scope) => Some(scope),
        }
    }
}

/// Units that can be leased.
#[derive(Debug)]
pub(crate) struct PoolRule {
    /// Its part of the stored key: a limit's name, `../over`, or `grant/id`.
    pub(crate) id: Arc<str>,
    pub(crate) meter: MeterId,
    pub(crate) limit: i64,
    pub(crate) every: Every,
    /// Instead of `every`: the length in milliseconds of a strict rate's slot.
    pub(crate) slot_ms: Option<i64>,
    /// A grant's own end.
    pub(crate) expires_ms: Option<i64>,
    pub(crate) place: CounterHome<LeaseSlot>,
    /// The usual ask, which sizes the first lease.
    pub(crate) usual_ask: u64,
    pub(crate) alerts: Option<Arc<AlertRule>>,
    /// Whether its quota bills; and whether it is the part beyond that: units drawn are owed.
    pub(crate) bills: bool,
    pub(crate) billed: bool,
    /// Whether it is a grant, and whether the plan gave it.
    pub(crate) grant: bool,
    pub(crate) of_plan: bool,
    /// The pool on the other side of its limit, if a `stop` covers both together.
    pub(crate) beside: Option<Beside>,
}

/// The other pool of a limit.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    Included(PoolIndex),
    Over(PoolIndex),
}

impl PoolRule {
    pub(crate) fn is_grant(&self) -> bool {
        self.grant
    }
}

/// A quota: the units it includes, then those it lets through beyond them.
#[derive(Debug)]
pub(crate) struct QuotaRule {
    pub(crate) quota: Quota,
    /// `None`: nothing is included (`0/cycle`).
    pub(crate) included: Option<PoolIndex>,
    /// `None`: refused beyond the limit.
    pub(crate) over: Option<PoolIndex>,
    /// The pool that records its debts: that of its included units, even if there are none.
    pub(crate) debtor: PoolIndex,
    pub(crate) tenant_wide: bool,
}

/// A grant to a tenant, on top of its plan or given once by it.
#[derive(Clone, Debug)]
pub(crate) struct GrantTerms {
    pub(crate) id: Arc<str>,
    pub(crate) meter: MeterId,
    pub(crate) atoms: u64,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) of_plan: bool,
}

/// The rules of one route on this plan.
#[derive(Debug, Default)]
pub(crate) struct RoutePolicy {
    /// Neither limited nor counted.
    pub(crate) free: bool,
    /// The feature it needs and the plan lacks.
    pub(crate) missing: Option<Arc<str>>,
    /// The rates that apply.
    pub(crate) rates: Vec<RateIndex>,
    pub(crate) meters: Table<AskIndex, Vec<MeterAsk>>,
    /// The same in short form, where nothing about them is special.
    pub(crate) plain: Option<Box<[PlainAsk]>>,
    /// Most requests of the tenant in flight; `None`: not limited, and so not counted.
    pub(crate) in_flight: Option<u32>,
    /// It is plain, and once its costs are decided a request has nothing left to settle: it holds
    /// costs alone, and is not counted while in flight.
    pub(crate) costs_alone: bool,
    pub(crate) charge_on: ChargeOn,
    pub(crate) shadow: bool,
    /// Bytes of the response are counted.
    pub(crate) counts_response: Option<ByteMeter>,
    /// Bytes of the request are counted: it must say how long it is.
    pub(crate) counts_request: Option<MeterId>,
    /// The counter of admitted requests; looked up by the first of them.
    #[cfg(feature = "metrics")]
    pub(crate) admitted: OnceLock<crate::telemetry::Decisions>,
    /// The route's limits as headers name them, which never change; made by the first response that
    /// needs them.
    pub(crate) line: OnceLock<RouteLine>,
}

/// The limits of one route as headers name them; made by the first response that shows them.
#[derive(Debug, Default)]
pub(crate) struct RouteLine {
    pub(crate) items: Vec<(Limit, HeaderItem)>,
    /// The policy header, if the caller has a value for every limited scope.
    pub(crate) policy: Option<PolicyText>,
}

impl RoutePolicy {
    /// The same rules for work whose units are paid already: its rates and its place hold, and no
    /// quota or grant pays.
    pub(crate) fn paid(mut self) -> Self {
        (self.plain, self.costs_alone) = (None, false);
        for ask in &mut self.meters {
            (ask.quotas, ask.grants) = (Vec::new(), Vec::new());
            (ask.debtor, ask.once_only) = (None, false);
        }
        self
    }

    /// The rates, quotas and one-time units that hold for its requests.
    pub(crate) fn limits(&self) -> impl Iterator<Item = Limit> + '_ {
        let rates = self.rates.iter().map(|rate| Limit::Rate(*rate));
        let units = self.meters.iter().flat_map(|ask| {
            let granted = ask.once_only.then_some(Limit::Granted(ask.meter));
            ask.quotas.iter().map(|quota| Limit::Quota(*quota)).chain(granted)
        });
        rates.chain(units)
    }

    /// The asks that grow with this one, and by how much: itself, and the sums it feeds.
    pub(crate) fn fed_by(&self, ask: AskIndex) -> impl Iterator<Item = (AskIndex, u64)> + '_ {
        self.meters.pairs().filter_map(move |(i, meter)| match &meter.known {
            _ if i == ask => Some((i, 1)),
            AmountSource::Sum(parts) => {
                let (_, weight) = parts.iter().find(|(part, _)| *part == ask)?;
                Some((i, *weight))
            }
            _ => None,
        })
    }

    /// Whether `charge-on` charges this outcome.
    #[inline]
    pub(crate) fn charges(&self, outcome: Outcome) -> bool {
        let class = |status: u16| usize::from(status / 100).clamp(1, 5) - 1;
        match outcome {
            Outcome::Complete { status } => self.charge_on.class[class(status)],
            Outcome::Failed => self.charge_on.class[4],
            Outcome::Aborted => self.charge_on.aborted,
        }
    }
}

/// An ask that is drawn in one way only: from what the one quota of the whole tenant includes, or
/// from nothing. A route with no other asks, and only rates that count calls of the whole tenant,
/// is *plain*: what its requests took follows from the route and needs no list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlainAsk {
    pub(crate) meter: MeterId,
    pub(crate) n: u64,
    /// The pool, and the slot of its lease in a sheet; `None` if no quota applies.
    pub(crate) from: Option<(PoolIndex, LeaseSlot)>,
    /// Known at admission, as opposed to reported.
    pub(crate) is_cost: bool,
}

/// An amount of one meter, drawn from all its quotas at once or from one of its grants.
#[derive(Debug)]
pub(crate) struct MeterAsk {
    pub(crate) meter: MeterId,
    /// Atoms: the cost, or the hold.
    pub(crate) n: u64,
    pub(crate) known: AmountSource,
    /// A cost states the number, as opposed to the meter's `hold`.
    pub(crate) stated: bool,
    pub(crate) quotas: Vec<QuotaIndex>,
    /// Pools, soonest expiry first.
    pub(crate) grants: Vec<PoolIndex>,
    /// The plan gives its units once and no other way: without a grant there are none.
    pub(crate) once_only: bool,
    /// If that is so, or was on another plan: the pool that records a debt, which a grant pays.
    pub(crate) debtor: Option<PoolIndex>,
}

/// The limits that supply the units of one meter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Payers<'a> {
    pub(crate) meter: MeterId,
    pub(crate) quotas: &'a [QuotaIndex],
    /// Pools, soonest expiry first.
    pub(crate) grants: &'a [PoolIndex],
    pub(crate) once_only: bool,
    /// See [`MeterAsk::debtor`].
    pub(crate) debtor: Option<PoolIndex>,
}

impl MeterAsk {
    /// The amount for this many bytes of a request.
    pub(crate) fn of_length(&self, rules: &RoutePolicy, bytes: u64) -> u64 {
        match &self.known {
            AmountSource::Length => bytes,
            AmountSource::Sum(parts) => parts.iter().fold(0, |sum: u64, (part, weight)| {
                let part = rules.meters[*part].of_length(rules, bytes);
                sum.saturating_add(part.saturating_mul(*weight))
            }),
            AmountSource::Cost | AmountSource::Reported(_) => 0,
        }
    }

    pub(crate) fn payers(&self) -> Payers<'_> {
        let Self { meter, quotas, grants, once_only, debtor, .. } = self;
        Payers { meter: *meter, quotas, grants, once_only: *once_only, debtor: *debtor }
    }

    /// An ask of a meter with no quota known yet.
    fn new(meter: MeterId, n: u64, known: AmountSource) -> Self {
        let (quotas, grants, stated) = (Vec::new(), Vec::new(), false);
        Self { meter, n, known, stated, quotas, grants, once_only: false, debtor: None }
    }
}

/// When the true number of a [`MeterAsk`] is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AmountSource {
    /// At admission: charged or not by the outcome.
    Cost,
    /// As the bytes of the request are read; the stated length only reserves, up to the hold.
    Length,
    /// When it is reported, or has passed: its counter in the hold.
    Reported(CounterIndex),
    /// As its parts are: the part's ask on the same route, our atoms per atom of it.
    Sum(Vec<(AskIndex, u64)>),
}

/// The meter of response bytes, as a body wrapper needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteMeter {
    pub(crate) meter: MeterId,
    pub(crate) counter: CounterIndex,
    /// Bytes taken at a time.
    pub(crate) chunk: u64,
    /// The body ends when no units remain.
    pub(crate) cut: bool,
}

/// How rates apply across the processes that may open a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Together {
    /// There is one process: its buckets are the rates.
    Alone,
    /// Each of `nodes` nodes has an equal part of every rate, except rates leased per slot: those
    /// declared `strict`, those that declare nothing if that is the default here, and those too
    /// small for so many nodes (see [`is_too_small`]).
    Among {
        /// The number of nodes.
        nodes: usize,
        /// The default for a rate that declares nothing.
        strict: bool,
    },
    /// All are leased per slot: the number of nodes is unknown.
    Leased,
}

/// Whether a rate is too small to be shared by this many nodes: if each admitted one request of
/// this size, as it does from a full part of the rate, they would pass its burst together. Such a
/// rate is leased per slot, whatever it declares.
fn is_too_small(rate: &Rate, most_asked: u64, nodes: usize) -> bool {
    let nodes = u64::try_from(nodes).unwrap_or(u64::MAX);
    nodes > 1 && rate.burst < nodes.saturating_mul(most_asked.clamp(1, rate.burst.max(1)))
}

impl Together {
    /// How many nodes share rates, as far as is known.
    pub(crate) fn nodes(self) -> usize {
        match self {
            Self::Among { nodes, .. } => nodes,
            Self::Alone | Self::Leased => 1,
        }
    }

    /// Whether a rate is leased per slot, given the most a request asks of it.
    fn leases(self, rate: &Rate, most_asked: u64) -> bool {
        match self {
            Self::Alone => false,
            Self::Among { strict, nodes } => {
                rate.strict.unwrap_or(strict) || is_too_small(rate, most_asked, nodes)
            }
            Self::Leased => true,
        }
    }
}

impl Policy {
    /// Lowers `plan` for a process that applies its rates in this way. `grants` are the tenant's
    /// own, in any order.
    pub(crate) fn new(
        catalog: &Catalog,
        plan: Arc<Plan>,
        grants: &[GrantTerms],
        together: Together,
    ) -> Self {
        let scopes = plan.rates.values().flatten().map(|r| &r.scope);
        let mut scopes = scopes.chain(plan.quotas.values().flatten().map(|q| &q.scope));
        let mut policy = Self {
            uses_ip: scopes.any(|scope| *scope == Scope::Ip),
            rates: Table::new(),
            pools: Table::new(),
            quotas: Table::new(),
            routes: Vec::new(),
            elsewhere: RoutePolicy::default(),
            rates_on: BTreeMap::new(),
            quotas_of: BTreeMap::new(),
            grants_of: BTreeMap::new(),
            debtors: BTreeMap::new(),
            tenant_buckets: RowCount::new(),
            tenant_leases: RowCount::new(),
            #[cfg(feature = "metrics")]
            refunds: OnceLock::new(),
            plan: plan.clone(),
        };
        policy.rates_on = policy.lower_rates(catalog, &plan, together);
        policy.quotas_of = policy.lower_quotas(catalog, &plan);
        policy.grants_of = policy.lower_grants(&plan, grants);
        policy.debtors = policy.lower_debtors(catalog, &plan);
        let routes = catalog.routes.iter();
        policy.routes = routes.map(|(id, _)| policy.lower_route(catalog, Some(id))).collect();
        policy.elsewhere = policy.lower_route(catalog, None);
        policy.size_first_leases();
        policy
    }

    /// The payers of a meter's units; `None`: nothing limits it for the whole tenant.
    pub(crate) fn payers(&self, meter: MeterId) -> Option<Payers<'_>> {
        let quotas = self.quotas_of.get(&meter).map_or(&[][..], |quotas| quotas);
        let grants = self.grants_of.get(&meter).map_or(&[][..], |grants| grants);
        let debtor = self.debtors.get(&meter);
        let is_limited = debtor.is_some() || quotas.iter().any(|q| self.quotas[*q].tenant_wide);
        let once_only = debtor.is_some_and(|(_, once_only)| *once_only);
        let debtor = debtor.map(|(pool, _)| *pool);
        is_limited.then_some(Payers { meter, quotas, grants, once_only, debtor })
    }

    /// Counts atoms of a meter of its catalog that were due or held, and went back.
    #[cfg(feature = "metrics")]
    pub(crate) fn count_refund(&self, catalog: &Catalog, meter: MeterId, atoms: u64) {
        let at = usize::from(meter.0);
        let empty = || catalog.meters.iter().map(|_| OnceLock::new()).collect();
        let all = self.refunds.get_or_init(empty);
        if let (Some(refunds), Some(meter)) = (all.get(at), catalog.meters.get(at)) {
            let new = || crate::telemetry::Refunds::new(&self.plan.name, &meter.name, meter.scale);
            refunds.get_or_init(new).count(atoms);
        }
    }

    /// The pool that units were taken from.
    fn pool_of(&self, from: &DrawnFrom) -> Option<&PoolRule> {
        match from {
            DrawnFrom::Pool(pool) | DrawnFrom::ScopedPool(pool, _) => Some(&self.pools[*pool]),
            DrawnFrom::Bucket(_) | DrawnFrom::ScopedBucket(..) => None,
        }
    }

    /// Whether that is beyond a quota that bills.
    pub(crate) fn bills(&self, from: &DrawnFrom) -> bool {
        self.pool_of(from).is_some_and(|pool| pool.billed)
    }

    /// Whether that is a rate: its bucket, or the units of its slot. It pays for nothing.
    pub(crate) fn is_of_rate(&self, from: &DrawnFrom) -> bool {
        self.pool_of(from).is_none_or(|pool| pool.slot_ms.is_some())
    }

    /// Whether that is a grant.
    pub(crate) fn grants(&self, from: &DrawnFrom) -> bool {
        self.pool_of(from).is_some_and(PoolRule::is_grant)
    }

    /// Meters that may be in debt.
    pub(crate) fn limited(&self) -> impl Iterator<Item = MeterId> + '_ {
        let once_only = self.debtors.iter().filter(|(_, (_, once_only))| *once_only);
        self.quotas_of.keys().chain(once_only.map(|(meter, _)| meter)).copied()
    }

    /// The rules of work that is no request: those of the route with its name if there is one, for
    /// the costs it states.
    pub(crate) fn work(
        &self,
        catalog: &Catalog,
        route: Option<RouteId>,
        costs: &[(MeterId, u64)],
    ) -> RoutePolicy {
        let mut all: Vec<(MeterId, u64)> = costs.to_vec();
        let of_route =
            route.map_or(&[][..], |id| &catalog.routes.as_slice()[usize::from(id.0)].cost);
        let named = |all: &[(MeterId, u64)], meter| all.iter().any(|(m, _)| *m == meter);
        for (meter, n) in of_route {
            if !named(&all, *meter) {
                all.push((*meter, *n));
            }
        }
        let is_free = route.is_some_and(|id| catalog.routes.as_slice()[usize::from(id.0)].free);
        let only_named = route.is_none() || (is_free && !all.is_empty());
        // It is no request: it has no body, and on no route of requests nothing is set aside for
        // meters it does not name.
        for (i, meter) in catalog.meters.iter().enumerate() {
            let id = MeterId(index(i));
            if (only_named || meter.count.is_of_body()) && !named(&all, id) {
                all.push((id, 0));
            }
        }
        let mut rules = self.lower_with(catalog, route, &all);
        (rules.free, rules.counts_request, rules.counts_response) = (false, None, None);
        rules
    }

    /// Whether work of this route that names no costs has the rules of its requests: those that
    /// measure no body.
    pub(crate) fn is_work_as_requests(&self, route: RouteId) -> bool {
        let rules = self.route(Some(route));
        rules.free || (rules.counts_request.is_none() && rules.counts_response.is_none())
    }

    /// The rules of a route; those for no route, if this policy was made without it.
    #[inline]
    pub(crate) fn route(&self, route: Option<RouteId>) -> &RoutePolicy {
        let rules = route.and_then(|route| self.routes.get(usize::from(route.0)));
        rules.unwrap_or(&self.elsewhere)
    }

    pub(crate) fn on_lease_error(&self) -> OnLeaseError {
        self.plan.on_lease_error
    }
}
