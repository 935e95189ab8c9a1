//! Effective plan of one tenant: a plan, with exceptions, overrides and addons laid over it.
//!
//! Layers merge by key, like `extends`: a rate, quota or feature named by a layer replaces the
//! whole one below, and everything else stays. Names of rates are derived anew, because they depend
//! on the rest of the plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Catalog;
use super::model::*;

impl Catalog {
    /// The plan in force: `base`, or the last plan that a layer names, with every layer laid over
    /// it, later ones winning. `base` is an id of this catalog.
    pub(crate) fn effective(&self, base: PlanId, layers: &[&PlanChanges]) -> Plan {
        let base = layers.iter().rev().find_map(|layer| layer.plan).unwrap_or(base);
        let mut plan = self.plans[usize::from(base.0)].clone();
        for layer in layers {
            plan.apply(layer);
        }
        name_rates(&mut plan);
        plan
    }

    /// The plan with addons on top: indices of this catalog's addons, with their quantities.
    ///
    /// A quota grows where the plan has one with the same words, and a feature where it is a number
    /// or missing. An unlimited one stays so.
    pub(crate) fn with_addons(&self, mut plan: Plan, bought: &[(usize, u64)]) -> Plan {
        for (index, quantity) in bought {
            let Some(addon) = self.addons.get(*index).filter(|_| *quantity > 0) else {
                continue;
            };
            for added in &addon.quotas {
                add_units(&mut plan, added, *quantity);
            }
            for (name, each) in &addon.features {
                add_feature(&mut plan, name, *each, *quantity);
            }
        }
        plan
    }
}

impl Plan {
    fn apply(&mut self, layer: &PlanChanges) {
        let own = |key: &Arc<str>| key.clone();
        self.rates.extend(layer.rates.iter().map(|(key, rates)| (own(key), rates.clone())));
        self.quotas.extend(layer.quotas.iter().map(|(meter, quotas)| (*meter, quotas.clone())));
        self.features.extend(layer.features.iter().map(|(key, on)| (own(key), on.clone())));
        self.concurrency = layer.concurrency.or(self.concurrency);
        self.enforce = layer.enforce.unwrap_or(self.enforce);
    }
}

/// Enlarges a quota. A ceiling above it moves with it, so that the largest overage stays the same.
fn add_units(plan: &mut Plan, added: &Quota, quantity: u64) {
    let more = added.limit.unwrap_or(0).saturating_mul(quantity);
    let quotas = plan.quotas.get_mut(&added.meter).into_iter().flatten();
    for quota in quotas.filter(|quota| quota.id == added.id) {
        let grown = |atoms: u64| atoms.saturating_add(more).min(super::meters::MAX_ATOMS);
        quota.limit = quota.limit.map(grown);
        quota.stop = quota.stop.map(grown);
    }
}

fn add_feature(plan: &mut Plan, name: &Arc<str>, each: i64, quantity: u64) {
    let more = each.saturating_mul(i64::try_from(quantity).unwrap_or(i64::MAX));
    match plan.features.entry(name.clone()).or_insert(Feature::Number(0)) {
        Feature::Number(n) => *n = n.saturating_add(more),
        off @ Feature::Flag(false) => *off = Feature::Number(more),
        Feature::Flag(true) | Feature::Unlimited | Feature::Text(_) => {}
    }
}

/// Gives every rate its name in headers: its id without the period where no other rate of the plan
/// would get the same name, otherwise its id.
pub(super) fn name_rates(plan: &mut Plan) {
    let mut uses: BTreeMap<String, usize> = BTreeMap::new();
    for rate in plan.rates.values().flatten() {
        *uses.entry(without_period(rate)).or_default() += 1;
    }
    for rate in plan.rates.values_mut().flatten() {
        let short = without_period(rate);
        let alone = uses.get(&short).is_some_and(|uses| *uses == 1);
        rate.name = if alone { short.into() } else { rate.id.clone() };
    }
}

/// `chat/input-tokens/min/key` as `chat/input-tokens/key`.
fn without_period(rate: &Rate) -> String {
    let period = match rate.per.as_secs() {
        60 => "min",
        3_600 => "h",
        _ => "s",
    };
    // No key, meter or scope is named like a period, so there is exactly one such part.
    let parts: Vec<&str> = rate.id.split('/').filter(|part| *part != period).collect();
    parts.join("/")
}
