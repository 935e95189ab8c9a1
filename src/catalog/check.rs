//! Whole-file checks: requests that no limit could ever admit, use that would be charged twice,
//! routes without a limit.
//!
//! A limit is checked in every plan that has it and reported once, where it is written.

use std::collections::{BTreeMap, BTreeSet};

use super::limits::is_limited;
use super::model::*;
use super::{Catalog, Place};
use crate::toml_file::{Findings, TableLine, TomlTable, unknown_help};

/// Runs every check over a lowered file.
pub(super) fn check(
    report: &mut Findings<'_>,
    catalog: &Catalog,
    top: TomlTable<'_>,
    send: &[bool],
) {
    features(report, catalog, top);
    let costs = Costs::of(catalog);
    for plan in &catalog.plans {
        plan_limits(report, catalog, &costs, plan);
    }
    for exception in catalog.tenants.values() {
        let plan = catalog.effective(catalog.default_plan, &[&exception.changes]);
        plan_limits(report, catalog, &costs, &plan);
    }
    written_send(report, catalog, top, send);
    paid_twice(report, catalog, top);
    idle_topups(report, catalog, top);
    // A broken file has more serious errors than a route without a limit.
    if report.is_clean() {
        unlimited_routes(report, catalog, top);
        idle_addons(report, catalog, top);
    }
}

/// Checks an override's limits within the default plan.
pub(super) fn check_override(report: &mut Findings<'_>, catalog: &Catalog, changes: &PlanChanges) {
    let plan = catalog.effective(catalog.default_plan, &[changes]);
    let costs = Costs::of(catalog);
    for rate in changes.rates.values().flatten() {
        check_rate(report, catalog, &costs, &plan, rate);
    }
    for quota in changes.quotas.values().flatten() {
        check_quota(report, catalog, &costs, &plan, quota);
    }
}

/// Atoms of each meter that one request asks for, by route; the last row is for requests on no
/// route.
struct Costs(Vec<BTreeMap<MeterId, u64>>);

impl Costs {
    fn of(catalog: &Catalog) -> Self {
        let of = |route: Option<&Route>| {
            let mut asked = BTreeMap::new();
            for (n, meter) in catalog.meters.iter().enumerate() {
                let id = MeterId(n as u16);
                let base =
                    if id.0 == 0 { 1_u64.saturating_mul(meter.scale) } else { meter.asked() };
                let own = Route::says_of(route, id, meter).unwrap_or(base);
                add(&mut asked, id, own);
                for (sum, weight) in &meter.feeds {
                    add(&mut asked, *sum, own.saturating_mul(*weight));
                }
            }
            asked
        };
        let routes = catalog.routes.as_slice().iter().map(Some);
        Self(routes.chain([None]).map(of).collect())
    }

    /// Atoms that a request on this route asks of a meter; `None` is a request on no route.
    fn get(&self, route: Option<RouteId>, meter: MeterId) -> u64 {
        let row = route.map_or(self.0.len() - 1, |id| usize::from(id.0));
        self.0.get(row).and_then(|row| row.get(&meter)).copied().unwrap_or(0)
    }
}

fn add(asked: &mut BTreeMap<MeterId, u64>, meter: MeterId, atoms: u64) {
    let sum = asked.entry(meter).or_insert(0);
    *sum = sum.saturating_add(atoms);
}

/// The limited routes that a plan may call, and finally the requests on no route.
fn open_routes<'c>(
    catalog: &'c Catalog,
    plan: &'c Plan,
) -> impl Iterator<Item = (Option<RouteId>, &'c str)> {
    let has = |need: &std::sync::Arc<str>| plan.features.get(need).is_some_and(Feature::is_on);
    let open = move |route: &Route| is_limited(route) && route.needs.as_ref().is_none_or(has);
    let routes = catalog.routes.iter().filter(move |(_, route)| open(route));
    routes.map(|(id, route)| (Some(id), &*route.name)).chain([(None, "")])
}

/// Refuses limits that a single request would exceed.
fn plan_limits(report: &mut Findings<'_>, catalog: &Catalog, costs: &Costs, plan: &Plan) {
    for rate in plan.rates.values().flatten() {
        check_rate(report, catalog, costs, plan, rate);
    }
    for quota in plan.quotas.values().flatten() {
        check_quota(report, catalog, costs, plan, quota);
    }
}

fn check_rate(
    report: &mut Findings<'_>,
    catalog: &Catalog,
    costs: &Costs,
    plan: &Plan,
    rate: &Rate,
) {
    let Some(meter) = rate.meter else { return };
    let held = |route: Option<RouteId>| match (rate.on, route) {
        (RateOn::All, _) | (RateOn::Default, None) => true,
        (RateOn::Default, Some(id)) => !plan.rates.contains_key(&catalog.routes[id].name),
        (RateOn::Route(on), route) => route == Some(on),
    };
    let worst = open_routes(catalog, plan)
        .filter(|(route, _)| held(*route))
        .map(|(route, name)| (costs.get(route, meter), name))
        .max_by_key(|(cost, _)| *cost);
    if let Some((cost, route)) = worst.filter(|(cost, _)| *cost > rate.burst) {
        let (cost, on) = (units(catalog, meter, cost), on_route(route));
        let message = format!(
            "the burst of `{}` is smaller than one request{on}, which costs {cost}",
            rate.id
        );
        report.error_at(rate.place, message, format!("write `burst {cost}` or more"));
    }
}

fn check_quota(
    report: &mut Findings<'_>,
    catalog: &Catalog,
    costs: &Costs,
    plan: &Plan,
    quota: &Quota,
) {
    let most = match quota.over {
        Over::Deny => quota.limit,
        Over::Allow | Over::Bill => quota.stop,
    };
    // A limit of 0 that denies has been refused already.
    let Some(most) = most.filter(|most| *most > 0 || quota.over != Over::Deny) else {
        return;
    };
    let worst = open_routes(catalog, plan)
        .map(|(route, name)| (costs.get(route, quota.meter), name))
        .max_by_key(|(cost, _)| *cost);
    if let Some((cost, route)) = worst.filter(|(cost, _)| *cost > most) {
        let (cost, on) = (units(catalog, quota.meter, cost), on_route(route));
        let message =
            format!("the quota `{}` is smaller than one request{on}, which costs {cost}", quota.id);
        report.error_at(quota.place, message, format!("write {cost} or more"));
    }
}

fn on_route(route: &str) -> String {
    if route.is_empty() { String::new() } else { format!(" on `{route}`") }
}

/// Atoms in units, rounded up.
fn units(catalog: &Catalog, meter: MeterId, atoms: u64) -> String {
    let meter = &catalog.meters[usize::from(meter.0)];
    let bytes = meter.count.is_of_body();
    format!("{}{}", atoms.div_ceil(meter.scale), if bytes { "B" } else { "" })
}

/// Requires that a feature needed by a route, or extended by an addon, is in some plan, addon or
/// exception.
fn features(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>) {
    let plans = catalog.plans.iter().flat_map(|plan| plan.features.keys());
    let tenants = tables(top, "tenant").into_iter().filter_map(|(_, t)| t.table("feature"));
    let tenants: Vec<&str> = tenants.flat_map(TomlTable::entries).map(|entry| entry.name).collect();
    let in_plans: BTreeSet<&str> = plans.map(|name| &**name).chain(tenants).collect();
    let added = catalog.addons.iter().flat_map(|addon| &addon.features);
    let sold: BTreeSet<&str> = in_plans.iter().copied().chain(added.map(|(n, _)| &**n)).collect();
    let needed = catalog.routes.as_slice().iter().filter_map(|route| route.needs.as_deref());
    let useful: BTreeSet<&str> = in_plans.iter().copied().chain(needed).collect();

    for (_, table) in tables(top, "route") {
        let Some(needs) = table.text("needs").filter(|n| !sold.contains(n.text)) else {
            continue;
        };
        let message = format!("no plan has the feature `{}`", needs.text);
        let help = unknown_help(needs.text, sold.iter().copied());
        report.error(needs.span, message, help);
    }
    for (_, table) in tables(top, "addon") {
        let added = table.table("adds").and_then(|adds| adds.table("feature"));
        for entry in added.map(TomlTable::entries).unwrap_or_default() {
            if !useful.contains(entry.name) {
                let message = format!("no plan has the feature `{}`", entry.name);
                let help = unknown_help(entry.name, useful.iter().copied());
                report.error(entry.span, message, help);
            }
        }
    }
}

/// The tables of a kind, with the positions of their names.
fn tables<'a>(top: TomlTable<'a>, kind: &str) -> Vec<(TableLine<'a>, TomlTable<'a>)> {
    let entries = top.table(kind).map(TomlTable::entries).unwrap_or_default();
    entries.into_iter().filter_map(|e| TomlTable::of(e.node).map(|table| (e, table))).collect()
}

/// Every quota of the file.
fn all_quotas(catalog: &Catalog) -> impl Iterator<Item = &Quota> {
    let plans = catalog.plans.iter().flat_map(|plan| plan.quotas.values());
    let tenants = catalog.tenants.values().flat_map(|tenant| tenant.changes.quotas.values());
    plans.chain(tenants).flatten()
}

/// The meters with billed overage, and those among them with an included amount.
fn billed(catalog: &Catalog) -> (BTreeSet<MeterId>, BTreeSet<MeterId>) {
    let bills: Vec<&Quota> = all_quotas(catalog).filter(|quota| quota.over == Over::Bill).collect();
    let all: BTreeSet<MeterId> = bills.iter().map(|quota| quota.meter).collect();
    let mut included: BTreeSet<MeterId> =
        bills.iter().filter(|q| q.limit.is_some_and(|n| n > 0)).map(|q| q.meter).collect();
    let added = catalog.addons.iter().flat_map(|addon| &addon.quotas).map(|quota| quota.meter);
    included.extend(added.filter(|meter| all.contains(meter)));
    (all, included)
}

/// Requires an explicit `send`: it decides who gives the included amount away.
fn written_send(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>, send: &[bool]) {
    let (_, included) = billed(catalog);
    for (entry, table) in tables(top, "meter") {
        let at = catalog.meters.iter().position(|meter| *meter.name == *entry.name);
        let Some(at) = at.filter(|n| included.contains(&MeterId(*n as u16))) else {
            continue;
        };
        let written = send.get(at).copied().unwrap_or(true);
        if let Some(span) = table.key_span("stripe").filter(|_| !written) {
            let message =
                format!("`send` is missing: a plan bills `{}` beyond what it includes", entry.name);
            let help = "write `send = \"overage\"`, or `\"all\"` if the price's first tier is free";
            report.error(span, message, help);
        }
    }
}

/// Warns where Stripe would bill units that were paid for otherwise: it sees all use, but no
/// top-ups.
fn paid_twice(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>) {
    let (billed, _) = billed(catalog);
    let all = |meter: &MeterId| {
        let stripe = catalog.meters[usize::from(meter.0)].stripe.as_ref();
        billed.contains(meter) && stripe.is_some_and(|stripe| stripe.send == Send::All)
    };
    let mut warn = |kind: &str, name: &str, meter: MeterId| {
        let spans = tables(top, kind).into_iter().find(|(entry, _)| entry.name == name);
        let Some((entry, _)) = spans else { return };
        let place = report.mark(entry.span);
        let meter = &catalog.meters[usize::from(meter.0)].name;
        report.warn(place, format!(
            "`{meter}` sends all use to Stripe, which does not know what {kind}.{name} paid for: \
             write `send = \"overage\"`"
        ));
    };
    for topup in &catalog.topups {
        let twice = topup.adds.iter().map(|(meter, _)| *meter).find(|meter| all(meter));
        twice.into_iter().for_each(|meter| warn("topup", &topup.name, meter));
    }
    for addon in &catalog.addons {
        let twice = addon.quotas.iter().map(|quota| quota.meter).find(|meter| all(meter));
        twice.into_iter().for_each(|meter| warn("addon", &addon.name, meter));
    }
}

/// Refuses top-ups of meters that no plan limits: they would never be spent.
fn idle_topups(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>) {
    let limits = |meter: MeterId| {
        let of_tenant = |quota: &Quota| quota.scope == Scope::Tenant && quota.limit.is_some();
        all_quotas(catalog).any(|quota| quota.meter == meter && of_tenant(quota))
    };
    for (_, table) in tables(top, "topup") {
        for line in table.table("adds").map(TomlTable::entries).unwrap_or_default() {
            let name = line.name;
            if catalog.meter(name).is_some_and(|meter| !limits(meter)) {
                let message = format!("no plan limits `{name}`: nothing of this would be spent");
                let help = format!("write `quota.{name} = \"prepaid\"` in the plans that spend it");
                report.error(line.span, message, help);
            }
        }
    }
}

/// Warns of each route that a plan may call without any limit.
fn unlimited_routes(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>) {
    let costs = Costs::of(catalog);
    for (entry, _) in tables(top, "plan") {
        let Some(id) = catalog.plan(entry.name) else {
            continue;
        };
        let plan = &catalog.plans[usize::from(id.0)];
        let place = report.mark(entry.span);
        for (route, name) in open_routes(catalog, plan).filter(|(route, _)| route.is_some()) {
            let on_rates = ["all", "default", name];
            let rated =
                on_rates.iter().any(|key| plan.rates.get(*key).is_some_and(|r| !r.is_empty()));
            let asked = |quota: &Quota| {
                quota.limit.is_some()
                    && (costs.get(route, quota.meter) > 0 || is_streamed(catalog, quota.meter))
            };
            if !rated && !plan.quotas.values().flatten().any(asked) {
                report.warn(
                    place,
                    format!("plan `{}` has no limit on the route `{name}`", plan.name),
                );
            }
        }
    }
}

fn is_streamed(catalog: &Catalog, meter: MeterId) -> bool {
    let counted = |count: MeterSource| !matches!(count, MeterSource::Cost | MeterSource::Sum);
    let feeds = |part: &&Meter| part.feeds.iter().any(|(sum, _)| *sum == meter);
    counted(catalog.meters[usize::from(meter.0)].count)
        || catalog.meters.iter().filter(feeds).any(|part| counted(part.count))
}

/// Warns where an addon adds to nothing in a plan that is sold.
fn idle_addons(report: &mut Findings<'_>, catalog: &Catalog, top: TomlTable<'_>) {
    let sold = |plan: &&Plan| !plan.prices.is_empty();
    for (entry, _) in tables(top, "addon") {
        let Some(addon) = catalog.addons.iter().find(|a| *a.name == *entry.name) else {
            continue;
        };
        let place: Place = report.mark(entry.span);
        for plan in catalog.plans.iter().filter(sold) {
            for added in &addon.quotas {
                let has = plan.quotas.get(&added.meter).map(Vec::as_slice).unwrap_or_default();
                let grows = has.iter().any(|q| q.id == added.id || q.limit.is_none());
                if !has.is_empty() && !grows {
                    report.warn(
                        place,
                        format!(
                            "addon `{}` adds to `{}`, which plan `{}` does not have",
                            addon.name, added.id, plan.name
                        ),
                    );
                }
            }
        }
    }
}
