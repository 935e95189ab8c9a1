//! Resolve: an effective plan lowered into what a decision walks over. For each route, which buckets
//! and pools are asked, and for how much.
//!
//! Made once per plan and catalog (and once more for each tenant with an exception), shared by all
//! tenants on it, and read-only: the numbers that move live in the tenant's sheet.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::bucket::BucketRule;
use crate::catalog::{
    Catalog, ChargeOn, Count, Enforce, Every, MeterId, OnLeaseError, Over, Plan, Quota, RateOn,
    RouteId, Scope,
};

/// Units of a pool that is counted but never runs out: `over` without a `stop`.
const UNBOUNDED: i64 = i64::MAX / 4;

/// A plan as admission walks it.
#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) plan: Arc<Plan>,
    pub(crate) rates: Vec<RateRule>,
    pub(crate) pools: Vec<PoolRule>,
    pub(crate) quotas: Vec<QuotaRule>,
    /// One per route of the catalog, then one for requests that match none.
    routes: Vec<RoutePolicy>,
    rates_on: BTreeMap<RateOnKey, Vec<u16>>,
    quotas_of: BTreeMap<MeterId, Vec<u16>>,
    grants_of: BTreeMap<MeterId, Vec<u16>>,
    /// Some limit is by address, which only the request itself can tell.
    pub(crate) uses_ip: bool,
    /// Buckets and leases of scope `tenant`, which a sheet holds in arrays.
    pub(crate) tenant_buckets: usize,
    pub(crate) tenant_pools: usize,
}

/// A rate with its arithmetic.
#[derive(Debug)]
pub(crate) struct RateRule {
    pub(crate) id: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) meter: Option<MeterId>,
    pub(crate) rule: BucketRule,
    /// Names a scoped bucket: the words and the arithmetic, so that a changed rate starts anew.
    pub(crate) bucket_id: Arc<str>,
    /// Per second, for reports: amount and period as written.
    pub(crate) amount: u64,
    pub(crate) per: std::time::Duration,
    pub(crate) place: Place,
}

/// Where the moving number of a rule is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the tenant's sheet, at this index.
    Sheet(u16),
    /// In the table of scoped limits, by the caller's value of this scope.
    Scoped(Scope),
}

/// Units that can be leased.
#[derive(Debug)]
pub(crate) struct PoolRule {
    /// Its part of the stored key: a limit's words, `../over`, or `grant/id`.
    pub(crate) id: Arc<str>,
    pub(crate) meter: MeterId,
    pub(crate) limit: i64,
    pub(crate) every: Every,
    /// A grant's own end.
    pub(crate) expires_ms: Option<i64>,
    pub(crate) place: Place,
    /// The usual ask, from which the first lease is sized.
    pub(crate) usual_ask: u64,
    /// Whether it is a grant, and whether the plan gave it.
    pub(crate) grant: bool,
    pub(crate) of_plan: bool,
}

impl PoolRule {
    pub(crate) fn is_grant(&self) -> bool {
        self.grant
    }
}

/// A quota: the units it includes, then what is let through beyond them.
#[derive(Debug)]
pub(crate) struct QuotaRule {
    pub(crate) quota: Quota,
    /// `None`: nothing is included (`0/cycle`).
    pub(crate) included: Option<u16>,
    /// `None`: refused beyond the limit.
    pub(crate) over: Option<u16>,
    pub(crate) tenant_wide: bool,
}

/// What a tenant was given on top of its plan, or once by it.
#[derive(Clone, Debug)]
pub(crate) struct GrantTerms {
    pub(crate) id: Arc<str>,
    pub(crate) meter: MeterId,
    pub(crate) atoms: u64,
    pub(crate) expires_ms: Option<i64>,
    pub(crate) of_plan: bool,
}

/// What one route asks of a tenant on this plan.
#[derive(Debug, Default)]
pub(crate) struct RoutePolicy {
    /// Neither limited nor counted.
    pub(crate) free: bool,
    /// The feature it needs and the plan has not.
    pub(crate) missing: Option<Arc<str>>,
    pub(crate) rates: Vec<RateAsk>,
    pub(crate) meters: Vec<MeterAsk>,
    pub(crate) charge_on: ChargeOn,
    pub(crate) shadow: bool,
    /// Bytes of the response are counted.
    pub(crate) counts_response: Option<ByteMeter>,
    /// Bytes of the request are counted: it must say how long it is.
    pub(crate) counts_request: Option<MeterId>,
    /// The limits of the route for the policy header, which never changes; written by the first
    /// response that needs it.
    pub(crate) policy_header: OnceLock<Option<Bytes>>,
}

/// So much of one bucket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RateAsk {
    pub(crate) rate: u16,
    pub(crate) n: u64,
}

/// So much of one meter: drawn from all its quotas at once, or from one of its grants.
#[derive(Debug)]
pub(crate) struct MeterAsk {
    pub(crate) meter: MeterId,
    /// Atoms: the cost, or the hold.
    pub(crate) n: u64,
    pub(crate) known: Known,
    pub(crate) quotas: Vec<u16>,
    /// Pools, soonest expiry first.
    pub(crate) grants: Vec<u16>,
    /// The plan gives units of it once and no other way: without a grant there are none.
    pub(crate) once_only: bool,
}

/// When the true number of a [`MeterAsk`] is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// At admission: charged or not by the outcome.
    Cost,
    /// At admission, from the length that the request states.
    Length,
    /// When it is reported, or has passed: the index of its counter in the permit.
    Reported(u8),
    /// As its parts are: index of the part's ask on the same route, atoms of ours per atom of it.
    Sum(Vec<(u8, u64)>),
}

/// The meter of response bytes, as a body wrapper needs it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ByteMeter {
    pub(crate) meter: MeterId,
    /// Counter in the permit.
    pub(crate) counter: u8,
    /// Bytes taken at a time.
    pub(crate) chunk: u64,
    /// The body ends when no units remain.
    pub(crate) cut: bool,
}

impl Policy {
    /// Lowers `plan`. `grants` are the tenant's own, in any order.
    pub(crate) fn new(catalog: &Catalog, plan: Arc<Plan>, grants: &[GrantTerms]) -> Self {
        let scopes = plan.rates.values().flatten().map(|r| &r.scope);
        let mut scopes = scopes.chain(plan.quotas.values().flatten().map(|q| &q.scope));
        let mut policy = Self {
            uses_ip: scopes.any(|scope| *scope == Scope::Ip),
            rates: Vec::new(),
            pools: Vec::new(),
            quotas: Vec::new(),
            routes: Vec::new(),
            rates_on: BTreeMap::new(),
            quotas_of: BTreeMap::new(),
            grants_of: BTreeMap::new(),
            tenant_buckets: 0,
            tenant_pools: 0,
            plan: plan.clone(),
        };
        policy.rates_on = policy.lower_rates(&plan);
        policy.quotas_of = policy.lower_quotas(&plan);
        policy.grants_of = policy.lower_grants(&plan, grants);
        let routes = catalog.routes.iter().map(|(id, _)| Some(id));
        policy.routes =
            routes.chain([None]).map(|route| policy.lower_route(catalog, route)).collect();
        policy.size_first_leases();
        policy
    }

    /// The rules of work that is no request: of the route with its name if there is one, and for the
    /// costs it names.
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
        if route.is_none() {
            // It is no request, and nothing is set aside for what it does not name.
            for i in 0..catalog.meters.len() {
                if !named(&all, MeterId(index(i))) {
                    all.push((MeterId(index(i)), 0));
                }
            }
        }
        let mut rules = self.lower_with(catalog, route, &all);
        (rules.free, rules.counts_request, rules.counts_response) = (false, None, None);
        rules
    }

    pub(crate) fn route(&self, route: Option<RouteId>) -> &RoutePolicy {
        let last = self.routes.len() - 1;
        &self.routes[route.map_or(last, |r| usize::from(r.0).min(last))]
    }

    pub(crate) fn on_lease_error(&self) -> OnLeaseError {
        self.plan.on_lease_error
    }

    fn lower_rates(&mut self, plan: &Plan) -> BTreeMap<RateOnKey, Vec<u16>> {
        let mut by_key = BTreeMap::<RateOnKey, Vec<u16>>::new();
        for rate in plan.rates.values().flatten() {
            let place = self.bucket_place(&rate.scope);
            by_key.entry(on_key(rate.on)).or_default().push(index(self.rates.len()));
            self.rates.push(RateRule {
                id: rate.id.clone(),
                name: rate.name.clone(),
                meter: rate.meter,
                rule: BucketRule::new(rate.amount, rate.per, rate.burst),
                bucket_id: format!("{}#{}#{:?}#{}", rate.id, rate.amount, rate.per, rate.burst)
                    .into(),
                amount: rate.amount,
                per: rate.per,
                place,
            });
        }
        by_key
    }

    fn lower_quotas(&mut self, plan: &Plan) -> BTreeMap<MeterId, Vec<u16>> {
        let mut by_meter = BTreeMap::<MeterId, Vec<u16>>::new();
        for quota in plan.quotas.values().flatten().filter(|q| q.every != Every::Once) {
            let Some(limit) = quota.limit else { continue };
            let included = (limit > 0).then(|| self.pool(quota, quota.id.clone(), atoms(limit)));
            let over = (quota.over != Over::Deny).then(|| {
                let beyond = quota.stop.map_or(UNBOUNDED, |stop| atoms(stop.saturating_sub(limit)));
                self.pool(quota, format!("{}/over", quota.id).into(), beyond)
            });
            by_meter.entry(quota.meter).or_default().push(index(self.quotas.len()));
            self.quotas.push(QuotaRule {
                included,
                over,
                tenant_wide: quota.scope == Scope::Tenant,
                quota: quota.clone(),
            });
        }
        by_meter
    }

    /// Once-quotas of the plan and the tenant's own grants, soonest expiry first.
    fn lower_grants(&mut self, plan: &Plan, own: &[GrantTerms]) -> BTreeMap<MeterId, Vec<u16>> {
        let once = plan.quotas.values().flatten().filter(|q| q.every == Every::Once);
        let mut all: Vec<GrantTerms> = once
            .filter_map(|quota| {
                Some(GrantTerms {
                    id: format!("{}/{}", plan.name, quota.id).into(),
                    meter: quota.meter,
                    atoms: quota.limit?,
                    expires_ms: None,
                    of_plan: true,
                })
            })
            .chain(own.iter().cloned())
            .collect();
        all.sort_by_key(|g| (g.expires_ms.unwrap_or(i64::MAX), g.id.clone()));
        let mut by_meter = BTreeMap::<MeterId, Vec<u16>>::new();
        for grant in all {
            by_meter.entry(grant.meter).or_default().push(index(self.pools.len()));
            let place = self.pool_place(&Scope::Tenant);
            self.pools.push(PoolRule {
                id: format!("grant/{}", grant.id).into(),
                meter: grant.meter,
                limit: atoms(grant.atoms),
                every: Every::Once,
                expires_ms: grant.expires_ms,
                place,
                usual_ask: 1,
                grant: true,
                of_plan: grant.of_plan,
            });
        }
        by_meter
    }

    fn lower_route(&self, catalog: &Catalog, id: Option<RouteId>) -> RoutePolicy {
        let route = id.map(|id| &catalog.routes.as_slice()[usize::from(id.0)]);
        self.lower_with(catalog, id, route.map_or(&[][..], |r| &r.cost))
    }

    fn lower_with(
        &self,
        catalog: &Catalog,
        id: Option<RouteId>,
        cost: &[(MeterId, u64)],
    ) -> RoutePolicy {
        let route = id.map(|id| &catalog.routes.as_slice()[usize::from(id.0)]);
        let mut rules = RoutePolicy {
            free: route.is_some_and(|r| r.free),
            missing: route.and_then(|r| r.needs.clone()).filter(|feature| !self.has(feature)),
            charge_on: route.and_then(|r| r.charge_on).unwrap_or(self.plan.charge_on),
            shadow: route.and_then(|r| r.enforce).unwrap_or(self.plan.enforce) == Enforce::Shadow,
            ..RoutePolicy::default()
        };
        if rules.free {
            return rules;
        }
        self.lower_meters(catalog, cost, &mut rules);
        for ask in &mut rules.meters {
            ask.quotas = self.quotas_of.get(&ask.meter).cloned().unwrap_or_default();
            ask.grants = self.grants_of.get(&ask.meter).cloned().unwrap_or_default();
            let written = self.plan.quotas.get(&ask.meter).map_or(&[][..], |q| q);
            ask.once_only = !written.is_empty() && written.iter().all(|q| q.every == Every::Once);
        }
        let own = id.and_then(|id| self.rates_on.get(&on_key(RateOn::Route(id))));
        let shared = own.or_else(|| self.rates_on.get(&on_key(RateOn::Default)));
        let all = self.rates_on.get(&on_key(RateOn::All));
        rules.rates = all
            .into_iter()
            .chain(shared)
            .flatten()
            .filter_map(|&rate| self.rate_ask(rate, &rules.meters))
            .collect();
        rules
    }

    /// Which meters a request of the route asks for, parts before the sums they feed.
    fn lower_meters(&self, catalog: &Catalog, cost: &[(MeterId, u64)], policy: &mut RoutePolicy) {
        let mut reported = 0u8;
        for (i, meter) in catalog.meters.iter().enumerate() {
            let id = MeterId(index(i));
            let said = cost.iter().find(|(m, _)| *m == id).map(|(_, n)| *n);
            let (n, known) = match meter.count {
                Count::Sum => continue,
                Count::Cost => (said.unwrap_or(u64::from(i == 0)), Known::Cost),
                // How long the request is comes with it: see `decide`.
                Count::RequestBytes => {
                    policy.counts_request = Some(id);
                    (0, Known::Length)
                }
                Count::Reported | Count::ResponseBytes => {
                    let counter = reported;
                    reported += 1;
                    if meter.count == Count::ResponseBytes && said != Some(0) {
                        policy.counts_response = Some(ByteMeter {
                            meter: id,
                            counter,
                            chunk: meter.hold,
                            cut: meter.cut,
                        });
                    }
                    (said.unwrap_or(meter.hold), Known::Reported(counter))
                }
            };
            if n > 0 || known != Known::Cost {
                policy.meters.push(MeterAsk {
                    meter: id,
                    n,
                    known,
                    quotas: Vec::new(),
                    grants: Vec::new(),
                    once_only: false,
                });
            }
        }
        let sums = catalog.meters.iter().enumerate().filter(|(_, m)| m.count == Count::Sum);
        for (i, _) in sums {
            let id = MeterId(index(i));
            let parts: Vec<(u8, u64)> = policy
                .meters
                .iter()
                .enumerate()
                .filter_map(|(at, ask)| {
                    let feeds = &catalog.meters[usize::from(ask.meter.0)].feeds;
                    let weight = feeds.iter().find(|(sum, _)| *sum == id)?.1;
                    Some((u8::try_from(at).ok()?, weight))
                })
                .collect();
            let n = parts.iter().fold(0u64, |n, (at, weight)| {
                n.saturating_add(policy.meters[usize::from(*at)].n.saturating_mul(*weight))
            });
            if !parts.is_empty() {
                let known = Known::Sum(parts);
                policy.meters.push(MeterAsk {
                    meter: id,
                    n,
                    known,
                    quotas: Vec::new(),
                    grants: Vec::new(),
                    once_only: false,
                });
            }
        }
    }

    fn rate_ask(&self, rate: u16, meters: &[MeterAsk]) -> Option<RateAsk> {
        let n = match self.rates[usize::from(rate)].meter {
            None => 1,
            Some(meter) => meters.iter().find(|ask| ask.meter == meter)?.n,
        };
        Some(RateAsk { rate, n })
    }

    fn has(&self, feature: &str) -> bool {
        self.plan.features.get(feature).is_some_and(|f| f.is_on())
    }

    fn pool(&mut self, quota: &Quota, id: Arc<str>, limit: i64) -> u16 {
        let place = self.pool_place(&quota.scope);
        self.pools.push(PoolRule {
            id,
            meter: quota.meter,
            limit,
            every: quota.every,
            expires_ms: None,
            place,
            usual_ask: 1,
            grant: false,
            of_plan: true,
        });
        index(self.pools.len() - 1)
    }

    fn pool_place(&mut self, scope: &Scope) -> Place {
        place(scope, &mut self.tenant_pools)
    }

    fn bucket_place(&mut self, scope: &Scope) -> Place {
        place(scope, &mut self.tenant_buckets)
    }

    /// A first lease is some of the largest asks that any route makes of the pool's meter.
    fn size_first_leases(&mut self) {
        for pool in &mut self.pools {
            let asks = self.routes.iter().flat_map(|r| &r.meters).filter(|a| a.meter == pool.meter);
            pool.usual_ask = asks.map(|a| a.n).filter(|n| *n > 0).min().unwrap_or(1);
        }
    }
}

/// A rate's key, in an order that `BTreeMap` can use.
type RateOnKey = (u8, u16);

fn on_key(on: RateOn) -> RateOnKey {
    match on {
        RateOn::All => (0, 0),
        RateOn::Default => (1, 0),
        RateOn::Route(id) => (2, id.0),
    }
}

fn place(scope: &Scope, count: &mut usize) -> Place {
    match scope {
        Scope::Tenant => {
            *count += 1;
            Place::Sheet(index(*count - 1))
        }
        other => Place::Scoped(other.clone()),
    }
}

fn index(i: usize) -> u16 {
    u16::try_from(i).expect("the catalog bounds meters, routes and limits far below 65,536")
}

fn atoms(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(UNBOUNDED).min(UNBOUNDED)
}
