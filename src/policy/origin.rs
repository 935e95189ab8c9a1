//! What sets a tenant's limits, where that is not its plan alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::resolve::{Edges, LiveCatalog, Parts, SetBy};
use crate::catalog::{Plan, PlanChanges, Quota};
use crate::directory::TenantRecord;

/// The id of the limit on requests in flight.
pub(crate) const CONCURRENCY: &str = "concurrency";

/// What sets a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) by: SetBy,
    /// The addons that enlarge it, and how many of each.
    pub(crate) addons: Vec<(Arc<str>, u64)>,
}

/// What is laid over a tenant's plan.
pub(crate) struct Origins {
    /// By a limit's id. One that is not in it is the plan's alone.
    pub(crate) limits: BTreeMap<Arc<str>, Origin>,
    /// The overrides in force, by their places in the record, weakest first.
    pub(crate) overrides: Vec<usize>,
}

impl LiveCatalog {
    /// What sets the limits of the plan in force for this tenant.
    pub(crate) fn origins(&self, record: &TenantRecord, plan: &Plan, now_ms: i64) -> Origins {
        let parts = self.parts(record, &mut Edges::at(now_ms));
        let mut limits = BTreeMap::new();
        for (meter, quotas) in &plan.quotas {
            let by = parts.last(|it| it.quotas.contains_key(meter));
            for it in quotas {
                let addons = self.grown_by(&parts, it);
                limits.insert(it.id.clone(), Origin { by, addons });
            }
        }
        for (key, rates) in &plan.rates {
            let by = parts.last(|it| it.rates.contains_key(key));
            let of_plan = || Origin { by, addons: Vec::new() };
            limits.extend(rates.iter().map(|it| (it.id.clone(), of_plan())));
        }
        let by = parts.last(|it| it.concurrency.is_some());
        limits.insert(CONCURRENCY.into(), Origin { by, addons: Vec::new() });
        limits.retain(|_, it| it.by != SetBy::Plan || !it.addons.is_empty());
        let overrides = parts.layers.iter().filter_map(|layer| match layer.by {
            SetBy::Override(at) => Some(at),
            _ => None,
        });
        Origins { limits, overrides: overrides.collect() }
    }

    /// The addons that enlarge a quota.
    fn grown_by(&self, parts: &Parts, quota: &Quota) -> Vec<(Arc<str>, u64)> {
        let addons = parts.addons.iter().filter_map(|(at, n)| {
            let addon = self.catalog.addons.get(*at).filter(|_| *n > 0)?;
            let adds = addon.quotas.iter().any(|it| it.meter == quota.meter && it.id == quota.id);
            (adds && quota.limit.is_some()).then(|| (addon.name.clone(), *n))
        });
        addons.collect()
    }
}

impl Parts {
    /// The strongest layer that sets something.
    fn last(&self, sets: impl Fn(&PlanChanges) -> bool) -> SetBy {
        let layer = self.layers.iter().rev().find(|layer| sets(&layer.changes));
        layer.map_or(SetBy::Plan, |layer| layer.by)
    }
}
