//! Lowering: turns a plan as written into the indices a decision walks over.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{
    AmountSource, AskIndex, Beside, BucketSlot, ByteMeter, CounterHome, CounterIndex, GrantTerms,
    LeaseSlot, MeterAsk, PlainAsk, Policy, PoolIndex, PoolRule, QuotaIndex, QuotaRule, RateIndex,
    RateRule, RoutePolicy, Together,
};
use crate::catalog::{
    Catalog, Enforce, Every, MeterId, MeterSource, Over, Plan, Quota, Rate, RateOn, Route, RouteId,
    Scope,
};
use crate::policy::bucket::BucketRule;
use crate::quota::alert::{AlertRule, AlertTerms};
use crate::table::{Index, RowCount};

/// Units of a pool that is counted but never runs out: `over` without a `stop`.
const UNBOUNDED: i64 = i64::MAX / 4;

/// A slot of a strict rate, unless its own period is longer.
const SLOT_MS: u128 = 5_000;

/// A first lease of a slot is a quarter of it: the slot's units end with it, so the lease need not
/// be small for the sake of others.
const SLOT_ASKS: u64 = 32;

/// Units leased for a strict rate belong to no meter's reports.
const NO_METER: MeterId = MeterId(u16::MAX);

/// A rate's key, in an order that `BTreeMap` can use.
pub(super) type RateOnKey = (u8, u16);

fn on_key(on: RateOn) -> RateOnKey {
    match on {
        RateOn::All => (0, 0),
        RateOn::Default => (1, 0),
        RateOn::Route(id) => (2, id.0),
    }
}

fn place<I: Index>(scope: &Scope, sheet: &mut RowCount<I>) -> CounterHome<I> {
    match scope {
        Scope::Tenant => CounterHome::Sheet(sheet.add()),
        other => CounterHome::Scoped(other.clone()),
    }
}

pub(super) fn index(i: usize) -> u16 {
    u16::try_from(i).expect("the catalog bounds meters, routes and limits far below 65,536")
}

fn atoms(units: u64) -> i64 {
    i64::try_from(units).unwrap_or(UNBOUNDED).min(UNBOUNDED)
}

/// The most that a request of any route is known in advance to ask of a meter.
fn most_asked(catalog: &Catalog, meter: MeterId) -> u64 {
    let Some(of) = catalog.meters.get(usize::from(meter.0)) else { return 1 };
    if of.count == MeterSource::Sum {
        let parts =
            catalog.meters.iter().zip(0..).filter(|(part, _)| part.count != MeterSource::Sum);
        return parts.fold(0u64, |most, (part, i)| {
            let weight = part.feeds.iter().find(|(sum, _)| *sum == meter).map_or(0, |(_, n)| *n);
            let asked = if weight > 0 { most_asked(catalog, MeterId(i)) } else { 0 };
            most.saturating_add(asked.saturating_mul(weight))
        });
    }
    let routes = catalog.routes.iter().flat_map(|(_, route)| route.cost.iter());
    let said = routes.filter(|(of, _)| *of == meter).map(|(_, n)| *n);
    said.chain([of.asked()]).max().unwrap_or(1)
}

/// Whether a meter with these quotas is only ever given to the tenant once.
fn is_once_only(quotas: &[Quota]) -> bool {
    let mut whole = quotas.iter().filter(|quota| quota.scope == Scope::Tenant).peekable();
    whole.peek().is_some() && whole.all(|quota| quota.every == Every::Once)
}

impl Policy {
    pub(super) fn lower_rates(
        &mut self,
        catalog: &Catalog,
        plan: &Plan,
        together: Together,
    ) -> BTreeMap<RateOnKey, Vec<RateIndex>> {
        let mut by_key = BTreeMap::<RateOnKey, Vec<RateIndex>>::new();
        for rate in plan.rates.values().flatten() {
            let place = self.bucket_place(&rate.scope);
            let most = rate.meter.map_or(1, |meter| most_asked(catalog, meter));
            let grain = rate.meter.map_or(1, |id| catalog.meters[usize::from(id.0)].grain);
            let slot_pool = together.leases(rate, most).then(|| self.slot_pool(rate));
            let parts = together.nodes();
            let whole = BucketRule::in_grains(rate.amount, rate.per, rate.burst, grain);
            let index = self.rates.push(RateRule {
                id: rate.id.clone(),
                name: rate.name.clone(),
                meter: rate.meter,
                // A rate leased per slot is not divided among nodes as well.
                rule: match slot_pool {
                    Some(_) => whole.leased(),
                    None => whole.among(parts),
                },
                amount: rate.amount,
                burst: rate.burst,
                per: rate.per,
                place,
                slot_pool,
            });
            by_key.entry(on_key(rate.on)).or_default().push(index);
        }
        by_key
    }

    pub(super) fn lower_quotas(
        &mut self,
        catalog: &Catalog,
        plan: &Plan,
    ) -> BTreeMap<MeterId, Vec<QuotaIndex>> {
        let mut by_meter = BTreeMap::<MeterId, Vec<QuotaIndex>>::new();
        for quota in plan.quotas.values().flatten().filter(|q| q.every != Every::Once) {
            let Some(limit) = quota.limit else { continue };
            let alerts = |is_over| {
                let tenant_wide = quota.scope == Scope::Tenant;
                let scale = catalog.meters.get(usize::from(quota.meter.0)).map_or(1, |it| it.scale);
                let plan = plan.name.clone();
                let terms = AlertTerms { plan, scale, limit, is_over };
                AlertRule::new(&quota.id, &quota.alert, terms).filter(|_| tenant_wide)
            };
            let of_included = if limit > 0 { alerts(false) } else { None };
            let debtor = self.pool(quota, quota.id.clone(), atoms(limit), of_included);
            let over = (quota.over != Over::Deny).then(|| {
                let beyond = quota.stop.map_or(UNBOUNDED, |stop| atoms(stop.saturating_sub(limit)));
                let pool =
                    self.pool(quota, format!("{}/over", quota.id).into(), beyond, alerts(true));
                self.pools[pool].billed = quota.over == Over::Bill;
                pool
            });
            if let (Some(over), Some(_)) = (over, quota.stop) {
                self.pools[over].beside = Some(Beside::Included(debtor));
                self.pools[debtor].beside = Some(Beside::Over(over));
            }
            let index = self.quotas.push(QuotaRule {
                included: (limit > 0).then_some(debtor),
                over,
                debtor,
                tenant_wide: quota.scope == Scope::Tenant,
                quota: quota.clone(),
            });
            by_meter.entry(quota.meter).or_default().push(index);
        }
        by_meter
    }

    /// Once-quotas of the plan and the tenant's own grants, soonest expiry first.
    pub(super) fn lower_grants(
        &mut self,
        plan: &Plan,
        own: &[GrantTerms],
    ) -> BTreeMap<MeterId, Vec<PoolIndex>> {
        let once = plan.quotas.values().flatten();
        let once = once.filter(|quota| quota.every == Every::Once && !quota.is_prepaid());
        let mut all: Vec<GrantTerms> = once
            .filter_map(|quota| {
                Some(GrantTerms {
                    // Not the plan's: a plan that grants more gives the difference.
                    id: quota.id.clone(),
                    meter: quota.meter,
                    atoms: quota.limit?,
                    expires_ms: None,
                    of_plan: true,
                })
            })
            .chain(own.iter().cloned())
            .collect();
        all.sort_by_key(|g| (g.expires_ms.unwrap_or(i64::MAX), !g.of_plan, g.id.clone()));
        let mut by_meter = BTreeMap::<MeterId, Vec<PoolIndex>>::new();
        for grant in all {
            let place = self.pool_place(&Scope::Tenant);
            let pool = self.pools.push(PoolRule {
                id: format!("grant/{}", grant.id).into(),
                meter: grant.meter,
                limit: atoms(grant.atoms),
                every: Every::Once,
                slot_ms: None,
                expires_ms: grant.expires_ms,
                place,
                usual_ask: 1,
                alerts: None,
                bills: false,
                billed: false,
                grant: true,
                of_plan: grant.of_plan,
                beside: None,
            });
            by_meter.entry(grant.meter).or_default().push(pool);
        }
        by_meter
    }

    /// Pools for debts, without units of their own, of meters whose units are given once (or only
    /// bought). Debts left behind by such a plan are paid by grants on a plan with quotas, too.
    pub(super) fn lower_debtors(
        &mut self,
        catalog: &Catalog,
        plan: &Plan,
    ) -> BTreeMap<MeterId, (PoolIndex, bool)> {
        let mut by_meter = BTreeMap::new();
        for (meter, quotas) in &plan.quotas {
            let once_only = is_once_only(quotas);
            let wide = |quota: &QuotaIndex| self.quotas[*quota].tenant_wide;
            let is_granted = self.grants_of.contains_key(meter)
                && self.quotas_of.get(meter).is_some_and(|quotas| quotas.iter().any(wide));
            let mut others = catalog.plans.iter().filter_map(|plan| plan.quotas.get(meter));
            let was_once_only = is_granted && others.any(|quotas| is_once_only(quotas));
            if !(once_only || was_once_only) {
                continue;
            }
            let name = &catalog.meters[usize::from(meter.0)].name;
            let place = self.pool_place(&Scope::Tenant);
            let pool = self.pools.push(PoolRule {
                id: format!("{name}/owed").into(),
                meter: *meter,
                limit: 0,
                every: Every::Once,
                slot_ms: None,
                expires_ms: None,
                place,
                usual_ask: 1,
                alerts: None,
                bills: false,
                billed: false,
                grant: false,
                of_plan: true,
                beside: None,
            });
            by_meter.insert(*meter, (pool, once_only));
        }
        by_meter
    }

    pub(super) fn lower_route(&self, catalog: &Catalog, id: Option<RouteId>) -> RoutePolicy {
        let route = id.map(|id| &catalog.routes.as_slice()[usize::from(id.0)]);
        self.lower_with(catalog, id, route.map_or(&[][..], |r| &r.cost))
    }

    pub(super) fn lower_with(
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
        if rules.free && cost.is_empty() {
            rules.plain = Some(Box::default());
            rules.costs_alone = true;
            return rules;
        }
        rules.in_flight = self.plan.concurrency.filter(|_| !rules.free);
        self.lower_meters(catalog, route, cost, &mut rules);
        for ask in &mut rules.meters {
            ask.quotas = self.quotas_of.get(&ask.meter).cloned().unwrap_or_default();
            ask.grants = self.grants_of.get(&ask.meter).cloned().unwrap_or_default();
            let payers = self.payers(ask.meter);
            (ask.debtor, ask.once_only) =
                payers.map_or((None, false), |payers| (payers.debtor, payers.once_only));
        }
        let own = id.and_then(|id| self.rates_on.get(&on_key(RateOn::Route(id))));
        let shared = own.or_else(|| self.rates_on.get(&on_key(RateOn::Default)));
        let all = self.rates_on.get(&on_key(RateOn::All));
        rules.rates = all
            .into_iter()
            .chain(shared)
            .flatten()
            .copied()
            .filter(|rate| !rules.free && self.rate_holds(*rate, &rules))
            .collect();
        rules.plain = self.plain(&rules);
        rules.costs_alone = rules.in_flight.is_none()
            && rules.plain.as_ref().is_some_and(|asks| asks.iter().all(|ask| ask.is_cost));
        rules
    }

    /// The asks in short form, if nothing about them or the rates is special.
    fn plain(&self, rules: &RoutePolicy) -> Option<Box<[PlainAsk]>> {
        let calls_of_tenant = |rate: &RateIndex| {
            let rate = &self.rates[*rate];
            rate.meter.is_none()
                && rate.slot_pool.is_none()
                && matches!(rate.place, CounterHome::Sheet(_))
        };
        if !rules.rates.iter().all(calls_of_tenant) {
            return None;
        }
        rules.meters.iter().map(|ask| self.plain_ask(ask)).collect()
    }

    fn plain_ask(&self, ask: &MeterAsk) -> Option<PlainAsk> {
        let is_cost = match ask.known {
            AmountSource::Cost => true,
            AmountSource::Reported(_) => false,
            AmountSource::Length | AmountSource::Sum(_) => return None,
        };
        let from = match ask.quotas[..] {
            _ if ask.debtor.is_some() => return None,
            _ if ask.n == 0 => None,
            [] => None,
            [quota] => {
                let pool = self.quotas[quota].included?;
                let CounterHome::Sheet(slot) = self.pools[pool].place else {
                    return None;
                };
                Some((pool, slot))
            }
            _ => return None,
        };
        Some(PlainAsk { meter: ask.meter, n: ask.n, from, is_cost })
    }

    /// The meters a request of the route asks for, parts before the sums they feed.
    pub(super) fn lower_meters(
        &self,
        catalog: &Catalog,
        route: Option<&Route>,
        cost: &[(MeterId, u64)],
        policy: &mut RoutePolicy,
    ) {
        let mut reported = RowCount::<CounterIndex>::new();
        for (i, meter) in catalog.meters.iter().enumerate() {
            let id = MeterId(index(i));
            let said = cost.iter().find(|(m, _)| *m == id).map(|(_, n)| *n);
            let said = said.or_else(|| Route::says_of(route, id, meter));
            let (n, known) = match meter.count {
                MeterSource::Sum => continue,
                MeterSource::Cost => (said.unwrap_or(u64::from(i == 0)), AmountSource::Cost),
                // The request's length arrives with it: see `decide`.
                MeterSource::RequestBytes => match said {
                    Some(n) => (n, AmountSource::Cost),
                    None => {
                        policy.counts_request = Some(id);
                        (meter.hold.max(meter.grain), AmountSource::Length)
                    }
                },
                MeterSource::Reported | MeterSource::ResponseBytes => {
                    let counter = reported.add();
                    if meter.count == MeterSource::ResponseBytes && said != Some(0) {
                        policy.counts_response = Some(ByteMeter {
                            meter: id,
                            counter,
                            chunk: meter.hold,
                            cut: meter.cut,
                        });
                    }
                    (said.unwrap_or(meter.asked()), AmountSource::Reported(counter))
                }
            };
            if n > 0 || known != AmountSource::Cost {
                let stated = cost.iter().any(|(of, _)| *of == id);
                policy.meters.push(MeterAsk { stated, ..MeterAsk::new(id, n, known) });
            }
        }
        let sums = catalog.meters.iter().enumerate().filter(|(_, m)| m.count == MeterSource::Sum);
        for (i, _) in sums {
            let id = MeterId(index(i));
            let parts: Vec<(AskIndex, u64)> = policy
                .meters
                .pairs()
                .filter_map(|(at, ask)| {
                    let feeds = &catalog.meters[usize::from(ask.meter.0)].feeds;
                    let weight = feeds.iter().find(|(sum, _)| *sum == id)?.1;
                    Some((at, weight))
                })
                .collect();
            let n = parts.iter().fold(0u64, |n, (at, weight)| {
                n.saturating_add(policy.meters[*at].n.saturating_mul(*weight))
            });
            if !parts.is_empty() {
                policy.meters.push(MeterAsk::new(id, n, AmountSource::Sum(parts)));
            }
        }
    }

    /// Whether a rate applies here: one on a meter that this route does not ask for does not.
    fn rate_holds(&self, rate: RateIndex, rules: &RoutePolicy) -> bool {
        let meter = self.rates[rate].meter;
        meter.is_none_or(|meter| rules.meters.iter().any(|ask| ask.meter == meter))
    }

    fn has(&self, feature: &str) -> bool {
        self.plan.features.get(feature).is_some_and(|f| f.is_on())
    }

    fn pool(
        &mut self,
        quota: &Quota,
        id: Arc<str>,
        limit: i64,
        alerts: Option<AlertRule>,
    ) -> PoolIndex {
        let place = self.pool_place(&quota.scope);
        self.pools.push(PoolRule {
            id,
            meter: quota.meter,
            limit,
            every: quota.every,
            slot_ms: None,
            expires_ms: None,
            place,
            usual_ask: 1,
            alerts: alerts.map(Arc::new),
            bills: quota.over == Over::Bill,
            billed: false,
            grant: false,
            of_plan: true,
            beside: None,
        })
    }

    /// The pool of a strict rate: the units of one slot.
    fn slot_pool(&mut self, rate: &Rate) -> PoolIndex {
        let per_ms = rate.per.as_millis().max(1);
        let slot_ms = per_ms.max(SLOT_MS);
        let units = u128::from(rate.amount).saturating_mul(slot_ms) / per_ms;
        let units = u64::try_from(units).unwrap_or(u64::MAX);
        let place = self.pool_place(&rate.scope);
        self.pools.push(PoolRule {
            id: format!("rate/{}", rate.id).into(),
            meter: NO_METER,
            limit: atoms(units),
            every: Every::Hour,
            slot_ms: Some(i64::try_from(slot_ms).unwrap_or(i64::MAX)),
            expires_ms: None,
            place,
            usual_ask: (units / SLOT_ASKS).max(1),
            alerts: None,
            bills: false,
            billed: false,
            grant: false,
            of_plan: true,
            beside: None,
        })
    }

    fn pool_place(&mut self, scope: &Scope) -> CounterHome<LeaseSlot> {
        place(scope, &mut self.tenant_leases)
    }

    fn bucket_place(&mut self, scope: &Scope) -> CounterHome<BucketSlot> {
        place(scope, &mut self.tenant_buckets)
    }

    /// Sizes a first lease as some of the smallest asks that any route makes of the pool's meter: a
    /// higher need shows at once.
    pub(super) fn size_first_leases(&mut self) {
        for pool in self.pools.iter_mut().filter(|pool| pool.slot_ms.is_none()) {
            let routes = self.routes.iter().chain([&self.elsewhere]);
            let asks = routes.flat_map(|r| &r.meters).filter(|a| a.meter == pool.meter);
            pool.usual_ask = asks.map(|a| a.n).filter(|n| *n > 0).min().unwrap_or(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::is_too_small;
    use super::*;

    fn catalog() -> Catalog {
        let plans = r#"
            default-plan = "free"
            [meter.pages]
            [meter.tokens]
            count = "reported"
            hold  = "30"
            [meter.credits]
            sum = { pages = 2, tokens = 1 }
            [route.scan]
            match = "GET /scan"
            cost  = { pages = 7 }
            [route.read]
            match = "GET /read"
            cost  = { pages = 3 }
            [plan.free]
            rate.default = "10/s"
        "#;
        Catalog::parse("plans.toml", plans, std::time::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn the_most_that_a_request_asks_for_is_what_the_dearest_route_costs() {
        let catalog = catalog();
        let units = |meter| {
            let id = catalog.meter(meter).unwrap();
            most_asked(&catalog, id) / catalog.meters[usize::from(id.0)].scale
        };
        assert_eq!((units("pages"), units("tokens")), (7, 30));
        assert_eq!(units("credits"), 2 * 7 + 30);
    }

    #[test]
    fn a_rate_is_too_small_where_one_request_of_each_node_passes_its_burst() {
        let catalog = catalog();
        let rate = catalog.plans[0].rates.values().flatten().next().unwrap();
        let too_small = |most, nodes| is_too_small(rate, most, nodes);
        assert!(!too_small(1, 10) && too_small(1, 11));
        assert!(!too_small(5, 2) && too_small(5, 3));
        assert!(!too_small(100, 1) && too_small(100, 2));
    }

    #[test]
    fn each_of_four_nodes_has_a_quarter_of_a_rate_that_is_not_leased_by_the_slot() {
        let catalog = catalog();
        let quarter = |together: Together| {
            let plan = Arc::new(catalog.plans[0].clone());
            let policy = Policy::new(&catalog, plan, &[], together);
            let rate = policy.rates.iter().next().unwrap();
            let pace = rate.rule.pace();
            (pace.interval_ns / pace.whole_interval_ns, rate.slot_pool.is_some())
        };
        let among = |strict| Together::Among { nodes: 4, strict };
        assert_eq!(quarter(Together::Alone), (1, false));
        assert_eq!(quarter(among(false)), (4, false));
        assert_eq!(quarter(among(true)), (1, true));
        assert_eq!(quarter(Together::Leased), (1, true));
    }

    #[test]
    fn work_costs_what_it_names_and_beside_that_what_its_route_costs() {
        let catalog = catalog();
        let plan = Arc::new(catalog.plans[0].clone());
        let policy = Policy::new(&catalog, plan, &[], Together::Alone);
        let asked = |op: &str, costs: &[(&str, u64)]| {
            let units = |(name, n): &(&str, u64)| {
                let id = catalog.meter(name).unwrap();
                (id, n * catalog.meters[usize::from(id.0)].scale)
            };
            let costs: Vec<_> = costs.iter().map(units).collect();
            let rules = policy.work(&catalog, catalog.routes.named(op), &costs);
            let of = |ask: &MeterAsk| {
                let meter = &catalog.meters[usize::from(ask.meter.0)];
                (ask.n > 0).then(|| (meter.name.to_string(), ask.n / meter.scale))
            };
            rules.meters.iter().filter_map(of).collect::<BTreeMap<_, _>>()
        };
        let expected = |all: &[(&str, u64)]| -> BTreeMap<String, u64> {
            all.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
        };
        let of_route = |pages, tokens| {
            let credits = 2 * pages + tokens;
            expected(&[("credits", credits), ("pages", pages), ("requests", 1), ("tokens", tokens)])
        };
        assert_eq!(asked("scan", &[("tokens", 5)]), of_route(7, 5));
        assert_eq!(asked("scan", &[("pages", 2)]), of_route(2, 30), "a hold, until it is reported");
        let job = expected(&[("credits", 4), ("pages", 2)]);
        assert_eq!(asked("job", &[("pages", 2)]), job, "of no route: what it names");
    }
}
