//! Resolves a tenant's directory record to the policy in force now.
//!
//! Precedence: an operator's override in the directory, then the `[tenant.x]` table, then the plan
//! that was assigned, then `default-plan`; and what the `[billing]` table sets for the payment
//! state. Addons come on top of that. Pure, and the same for the same record, catalog and instant;
//! `until_ms` is when it may change by itself, `since_ms` when it last did.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::catalog::{Anchors, Catalog, MeterId, PaymentRule, PlanChanges, PlanId, Sold};
use crate::decision::{Payment, Reason};
use crate::directory::{PaymentState, SoldAddon, TenantRecord};
use crate::policy::{GrantTerms, Policy, Together};
use crate::quota::lease::MOST;
use crate::repeated::repeated;

/// Whether a tenant may call at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Good,
    Refused(Reason),
}

/// The result of resolving a tenant against a catalog.
#[derive(Clone, Debug)]
pub(crate) struct Resolved {
    pub(crate) policy: Arc<Policy>,
    pub(crate) standing: Standing,
    pub(crate) anchors: Anchors,
    /// The latest end that has passed: before it, something else is in force.
    pub(crate) since_ms: i64,
    /// When to resolve again: an exception, a grant, a grace or a trial ends.
    pub(crate) until_ms: i64,
    /// Billing account in force.
    pub(crate) account: Option<Arc<str>>,
    /// Catalog revision, then tenant version: decides which limits win in a pool.
    pub(crate) rev: i64,
}

/// What a tenant's policy is made of.
pub(super) struct Parts {
    /// Weakest first.
    pub(super) layers: Vec<Layer>,
    /// The plan beneath them, by the payment state.
    plan: PlanId,
    standing: Standing,
    /// Addons by their place in the catalog, and how many of each.
    pub(super) addons: Vec<(usize, u64)>,
}

/// An exception over a plan.
pub(super) struct Layer {
    pub(super) by: SetBy,
    pub(super) changes: PlanChanges,
}

/// What sets a limit of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetBy {
    Plan,
    /// The `[tenant.x]` table.
    Exception,
    /// An operator's override, by its place in the record.
    Override(usize),
}

/// A catalog in force, with the policies that tenants without exceptions share.
#[derive(Debug)]
pub(crate) struct LiveCatalog {
    pub(crate) catalog: Arc<Catalog>,
    /// Number of the publication in the store.
    pub(crate) revision: u64,
    /// Counts the catalogs of this process.
    pub(crate) epoch: u64,
    policies: Vec<OnceLock<Arc<Policy>>>,
    /// How its rates apply across the processes that share the store.
    pub(crate) together: Together,
}

impl LiveCatalog {
    pub(crate) fn new(catalog: Arc<Catalog>, revision: u64, epoch: u64) -> Self {
        let policies = catalog.plans.iter().map(|_| OnceLock::new()).collect();
        Self { catalog, revision, epoch, policies, together: Together::Alone }
    }

    /// The same catalog under a new epoch: everything resolved under this one is resolved again.
    #[must_use]
    pub(crate) fn next(&self) -> Self {
        self.followed_by(self.catalog.clone(), self.revision)
    }

    /// Replaces it by another catalog.
    #[must_use]
    pub(crate) fn followed_by(&self, catalog: Arc<Catalog>, revision: u64) -> Self {
        let next = Self::new(catalog, revision, self.epoch + 1);
        Self { together: self.together, ..next }
    }

    /// Sets how its rates apply.
    #[must_use]
    pub(crate) fn together(self, together: Together) -> Self {
        Self { together, ..self }
    }

    /// Sets the number of nodes that share its rates.
    #[must_use]
    pub(crate) fn among(self, nodes: usize) -> Self {
        match self.together {
            Together::Among { strict, .. } => self.together(Together::Among { nodes, strict }),
            Together::Alone | Together::Leased => self,
        }
    }

    /// Resolves this tenant at `now_ms`.
    pub(crate) fn resolve(&self, record: &TenantRecord, now_ms: i64) -> Resolved {
        let mut edges = Edges::at(now_ms);
        edges.pass_grants(record);
        let Parts { layers, plan, mut standing, addons } = self.parts(record, &mut edges);
        let term = layers.iter().rev().find_map(|layer| layer.changes.term);
        let policy = self.policy(record, plan, layers, &addons, now_ms);
        if let Some(life) = policy.plan.expires {
            let from = record.first_request_ms.unwrap_or(now_ms);
            if !edges.before(from.saturating_add(millis(life))) {
                standing = owed(Payment::TrialOver);
            }
        }
        if record.suspended {
            standing = Standing::Refused(Reason::Suspended);
        }
        Resolved {
            policy,
            standing,
            anchors: record.era(now_ms).anchors(term),
            since_ms: edges.last_ms,
            until_ms: edges.next_ms,
            account: record.payer().map(Arc::from),
            rev: self.rev(record, &edges),
        }
    }

    /// What a tenant's policy is made of.
    pub(super) fn parts(&self, record: &TenantRecord, edges: &mut Edges) -> Parts {
        let layers = self.layers(record, edges);
        let assigned = self.assigned(record, edges.now_ms);
        let base = layers.iter().rev().find_map(|layer| layer.changes.plan).unwrap_or(assigned);
        let (plan, standing) = self.paid(record, base, edges);
        // Addons belong to the plan that was bought, not to what is left of it without payment.
        let addons = if plan == base { self.addons(record, base, edges) } else { Vec::new() };
        Parts { layers, plan, standing, addons }
    }

    /// Exceptions in force, weakest first.
    fn layers(&self, record: &TenantRecord, edges: &mut Edges) -> Vec<Layer> {
        let mut layers = Vec::new();
        let exception = self.catalog.exception(&record.id);
        match exception.filter(|e| e.until_ms.is_none_or(|end| edges.before(end))) {
            Some(exception) => {
                layers.push(Layer { by: SetBy::Exception, changes: exception.changes.clone() });
            }
            // An exception that has ended is a past edge, even if it ended before the start.
            None => edges.passed += u32::from(exception.is_none()),
        }
        for (at, own) in record.overrides.iter().enumerate() {
            if own.until_ms.is_some_and(|end| !edges.before(end)) {
                continue;
            }
            match self.catalog.parse_changes(&own.changes) {
                Ok(changes) => layers.push(Layer { by: SetBy::Override(at), changes }),
                // Checked when it was made; the plan file has lost a name since.
                Err(errors) => {
                    let now_ms = edges.now_ms;
                    repeated!(error, now_ms, "override ignored"; tenant = %record.id, %errors);
                }
            }
        }
        layers
    }

    /// The plan of the tenant's record. A bought one is found by its price: the file may have
    /// given it another name since.
    fn assigned(&self, record: &TenantRecord, now_ms: i64) -> PlanId {
        let catalog = &self.catalog;
        let means = |price: &String| match catalog.sold_at(price) {
            Some(Sold::Plan(plan)) => Some(plan),
            _ => None,
        };
        if let Some(plan) = record.plan_prices().iter().find_map(means) {
            return plan;
        }
        let Some(name) = &record.plan else {
            return catalog.default_plan;
        };
        catalog.plan(name).unwrap_or_else(|| {
            const TEXT: &str = "unknown plan: the default plan applies";
            let (tenant, help) = (&record.id, || self.catalog.plan_help(name));
            repeated!(error, now_ms, TEXT; %tenant, plan = %name, help = help());
            catalog.default_plan
        })
    }

    /// Addons that count, by their place in the catalog: a bought one is found by its price. One no
    /// longer in the plan file adds nothing, nor one whose payment is past due beyond its grace.
    fn addons(&self, record: &TenantRecord, base: PlanId, edges: &mut Edges) -> Vec<(usize, u64)> {
        let named = |name: &str| self.catalog.addons.iter().position(|addon| *addon.name == *name);
        if record.sold_addons.is_empty() {
            return record.addons.iter().filter_map(|(name, n)| Some((named(name)?, *n))).collect();
        }
        let means = |price: &String| match self.catalog.sold_at(price) {
            Some(Sold::Addon(at)) => Some(at),
            _ => None,
        };
        let mut counts = |past_due_ms: Option<i64>| {
            past_due_ms.is_none_or(|from_ms| {
                let rule = &self.catalog.billing.past_due;
                rule_at(rule, from_ms, base, edges) == (base, Standing::Good)
            })
        };
        let sold = record.sold_addons.iter().filter(|addon| counts(addon.past_due_ms));
        let place = |addon: &SoldAddon| {
            let at = addon.prices.iter().find_map(means).or_else(|| named(&addon.name));
            Some((at?, addon.quantity))
        };
        sold.filter_map(place).collect()
    }

    /// Applies the payment state to the plan.
    fn paid(&self, record: &TenantRecord, plan: PlanId, edges: &mut Edges) -> (PlanId, Standing) {
        let billing = &self.catalog.billing;
        let rule = match record.payment {
            PaymentState::Good => return (plan, Standing::Good),
            PaymentState::Trialing => &billing.trialing,
            PaymentState::PastDue => &billing.past_due,
            PaymentState::Unpaid => &billing.unpaid,
            PaymentState::Canceled => &billing.canceled,
        };
        rule_at(rule, record.payment_since_ms, plan, edges)
    }

    fn policy(
        &self,
        record: &TenantRecord,
        base: PlanId,
        layers: Vec<Layer>,
        addons: &[(usize, u64)],
        now_ms: i64,
    ) -> Arc<Policy> {
        let grants = grants(record, &self.catalog, now_ms);
        let at = usize::from(base.0);
        if layers.is_empty() && grants.is_empty() && addons.is_empty() {
            let shared = &self.policies[at];
            let make = || {
                let plan = Arc::new(self.catalog.plans[at].clone());
                Arc::new(Policy::new(&self.catalog, plan, &[], self.together))
            };
            return shared.get_or_init(make).clone();
        }
        // The payment rule has chosen the base: an exception's own `plan` only suggested one.
        let layers = layers.into_iter();
        let layers: Vec<PlanChanges> =
            layers.map(|layer| PlanChanges { plan: None, ..layer.changes }).collect();
        let plan = self.catalog.effective(base, &layers.iter().collect::<Vec<_>>());
        let plan = self.catalog.with_addons(plan, addons);
        Arc::new(Policy::new(&self.catalog, Arc::new(plan), &grants, self.together))
    }

    /// The publication whose catalog this revision of terms is of.
    pub(crate) fn publication_of(rev: i64) -> u64 {
        u64::try_from(rev >> 30).unwrap_or(0)
    }

    /// Orders states by newness: a newer catalog, then a newer record, then a later time. Each part
    /// is cut to its bits; 2^33 catalogs, 2^24 changes of one tenant and 63 ends are enough.
    fn rev(&self, record: &TenantRecord, edges: &Edges) -> i64 {
        let part = |n: u64, bits: u32| i64::try_from(n & ((1 << bits) - 1)).unwrap_or(0);
        part(self.revision, 33) << 30
            | part(record.version, 24) << 6
            | part(u64::from(edges.passed.min(63)), 6)
    }
}

/// The effect of a payment rule on a plan since this instant.
fn rule_at(
    mut rule: &PaymentRule,
    mut from_ms: i64,
    plan: PlanId,
    edges: &mut Edges,
) -> (PlanId, Standing) {
    loop {
        match rule {
            PaymentRule::Full => return (plan, Standing::Good),
            PaymentRule::Plan(other) => return (*other, Standing::Good),
            PaymentRule::PaymentRequired => return (plan, owed(Payment::Unpaid)),
            PaymentRule::Grace(grace, then) => {
                from_ms = from_ms.saturating_add(millis(*grace));
                if edges.before(from_ms) {
                    return (plan, Standing::Good);
                }
                rule = then;
            }
        }
    }
}

/// The instants at which a tenant's policy changes by itself.
pub(super) struct Edges {
    now_ms: i64,
    /// The latest past edge.
    last_ms: i64,
    /// The next edge.
    next_ms: i64,
    /// The number of past edges, without those of grants.
    passed: u32,
}

impl Edges {
    pub(super) fn at(now_ms: i64) -> Self {
        Self { now_ms, last_ms: i64::MIN, next_ms: i64::MAX, passed: 0 }
    }

    /// A grant's end is an edge: it is not drawn from after that. Not counted: it changes no limit
    /// of a pool.
    fn pass_grants(&mut self, record: &TenantRecord) {
        for end_ms in record.grants.iter().filter_map(|grant| grant.expires_ms) {
            self.is_ahead(end_ms);
        }
    }

    /// Whether this edge is still ahead.
    fn before(&mut self, end_ms: i64) -> bool {
        let ahead = self.is_ahead(end_ms);
        self.passed += u32::from(!ahead);
        ahead
    }

    fn is_ahead(&mut self, end_ms: i64) -> bool {
        let ahead = self.now_ms < end_ms;
        if ahead {
            self.next_ms = self.next_ms.min(end_ms);
        } else {
            self.last_ms = self.last_ms.max(end_ms);
        }
        ahead
    }
}

fn grants(record: &TenantRecord, catalog: &Catalog, now_ms: i64) -> Vec<GrantTerms> {
    let meter = |name: &str| {
        let at = catalog.meters.iter().position(|m| &*m.name == name)?;
        Some(MeterId(u16::try_from(at).ok()?))
    };
    let in_force = record.grants.iter().filter(|g| g.expires_ms.is_none_or(|end| end > now_ms));
    in_force
        .filter_map(|grant| {
            let meter = meter(&grant.meter)?;
            let scale = catalog.meters[usize::from(meter.0)].scale;
            Some(GrantTerms {
                id: grant.id.as_str().into(),
                meter,
                atoms: grant.units.saturating_mul(scale).min(MOST),
                expires_ms: grant.expires_ms,
                of_plan: false,
            })
        })
        .collect()
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

fn owed(what: Payment) -> Standing {
    Standing::Refused(Reason::PaymentRequired(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::time_at;
    use crate::ids::Surrogate;
    use crate::table::Index;
    use crate::testing::START_MS;

    const DAY_MS: i64 = 86_400_000;

    /// The exception in it lasts through the day after [`START_MS`].
    const PLANS: &str = r#"
        default-plan = "free"
        timezone     = "UTC"
        [meter.jobs]
        [plan.free]
        quota.jobs = "10/day"
        [plan.pro]
        quota.jobs    = "100/day"
        feature.seats = 1
        [addon.other]
        adds = { feature.seats = 1 }
        [addon.pack]
        adds = { quota.jobs = "5/day" }
        [billing]
        canceled = "free"
        [tenant.globex]
        quota.jobs = "1k/day"
        until      = 2026-03-18
        note       = "a launch"
    "#;

    fn live() -> LiveCatalog {
        LiveCatalog::new(
            Arc::new(Catalog::parse("plans.toml", PLANS, time_at(START_MS)).unwrap()),
            1,
            1,
        )
    }

    fn on_pro(id: &str) -> TenantRecord {
        let mut record = TenantRecord::begin(Surrogate::test(1), id, START_MS);
        record.plan = Some("pro".to_owned());
        record
    }

    /// The units that the one quota of its plan includes.
    fn jobs(resolved: &Resolved) -> i64 {
        resolved.policy.pools[Index::test(0)].limit
    }

    #[test]
    fn addons_are_times_their_number_and_end_with_the_plan_they_were_bought_for() {
        let (live, mut acme) = (live(), on_pro("acme"));
        assert_eq!(jobs(&live.resolve(&acme, START_MS)), 100);
        acme.addons.extend([("pack".to_owned(), 3), ("of another file".to_owned(), 7)]);
        assert_eq!(jobs(&live.resolve(&acme, START_MS)), 115);
        acme.payment = PaymentState::Canceled;
        assert_eq!(jobs(&live.resolve(&acme, START_MS)), 10);
    }

    #[test]
    fn an_exceptions_end_is_newer_to_other_processes_than_what_held_before_it() {
        let (live, globex) = (live(), on_pro("globex"));
        let before = live.resolve(&globex, START_MS);
        assert_eq!(jobs(&before), 1_000);
        let after = live.resolve(&globex, before.until_ms);
        assert_eq!(after.since_ms, before.until_ms);
        assert!(before.until_ms <= START_MS + 2 * DAY_MS);
        assert_eq!((jobs(&after), after.until_ms), (100, i64::MAX));
        assert!(after.rev > before.rev, "{} after {}", after.rev, before.rev);
    }

    #[test]
    fn another_plan_file_leaves_rates_to_as_many_nodes_as_there_were() {
        let together = Together::Among { nodes: 3, strict: true };
        let live = live().together(together);
        let next = live.followed_by(live.catalog.clone(), 2);
        assert_eq!((next.together, live.next().together), (together, together));
    }
}
