//! Where a tenant's limits come from, where that is not its plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::{Catalog, Plan, PlanChanges};
use crate::directory::TenantRecord;

/// By a limit's id, one of `override` (an operator's), `exception` (the plan file's table of the
/// tenant) and `addon`. A limit that is not in it is the plan's.
pub(super) fn origins(
    catalog: &Catalog,
    record: &TenantRecord,
    plan: &Plan,
    now_ms: i64,
) -> BTreeMap<Arc<str>, &'static str> {
    let in_force = |until_ms: Option<i64>| until_ms.is_none_or(|end| now_ms < end);
    let exception = catalog.exception(&record.id).filter(|it| in_force(it.until_ms));
    let overrides = record.overrides.iter().filter(|it| in_force(it.until_ms));
    // One that can no longer be read is not in force.
    let overrides = overrides.filter_map(|it| catalog.parse_changes(&it.changes).ok());
    let mut origins = addons(catalog, plan);
    if let Some(exception) = exception {
        origins.extend(limits_of(&exception.changes).map(|id| (id, "exception")));
    }
    for changes in overrides {
        origins.extend(limits_of(&changes).map(|id| (id, "override")));
    }
    origins
}

/// The limits that a layer sets.
fn limits_of(changes: &PlanChanges) -> impl Iterator<Item = Arc<str>> {
    let quotas = changes.quotas.values().flatten().map(|it| it.id.clone());
    quotas.chain(changes.rates.values().flatten().map(|it| it.id.clone()))
}

/// Quotas that differ from those of the plan itself: where no layer sets them, an addon has.
fn addons(catalog: &Catalog, plan: &Plan) -> BTreeMap<Arc<str>, &'static str> {
    let own = catalog.plans.iter().find(|own| own.name == plan.name);
    let own = own.into_iter().flat_map(|own| own.quotas.values().flatten());
    let own: BTreeMap<_, _> = own.map(|it| (&it.id, it.limit)).collect();
    let quotas = plan.quotas.values().flatten();
    let differ = quotas.filter(|it| own.get(&it.id) != Some(&it.limit));
    differ.map(|it| (it.id.clone(), "addon")).collect()
}
