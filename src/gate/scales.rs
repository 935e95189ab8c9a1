//! How finely pools are counted, for the audit: a pool is stored in atoms, under the name of its
//! limit.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::Inner;
use crate::catalog::Catalog;
use crate::directory::TenantRecord;
use crate::ids::Surrogate;
use crate::quota::pool::PoolId;
use crate::store::StoreError;

/// Records of tenants that were looked up; `None`: there is none.
pub(super) type Records = HashMap<Surrogate, Option<Arc<TenantRecord>>>;

impl Inner {
    /// The record of a tenant, looked up once.
    pub(super) async fn record_of(
        &self,
        tenant: Surrogate,
        records: &mut Records,
    ) -> Result<Option<Arc<TenantRecord>>, StoreError> {
        if let Some(known) = records.get(&tenant) {
            return Ok(known.clone());
        }
        let read = self.tenants.directory.lookup_tenant(tenant).await?;
        records.insert(tenant, read.clone());
        Ok(read)
    }

    /// Atoms per unit of these pools: 1, where the meter is not known any more. Those of a tenant
    /// whose record is damaged are left out, and the tenant has `failed`.
    pub(super) async fn scales<'a>(
        &self,
        pools: impl Iterator<Item = &'a PoolId>,
        records: &mut Records,
        failed: &mut BTreeMap<Surrogate, String>,
    ) -> Result<BTreeMap<&'a PoolId, u64>, StoreError> {
        let catalog = self.catalogs.live.load().catalog.clone();
        let mut scales = BTreeMap::new();
        for pool in pools {
            let scale = match scale_of(&catalog, &pool.limit) {
                Some(scale) => scale,
                None => match self.record_of(pool.tenant, records).await {
                    Ok(record) => scale_of_grant(&catalog, record.as_deref(), &pool.limit),
                    Err(error) if error.is_temporary() => return Err(error),
                    Err(error) => {
                        failed.entry(pool.tenant).or_insert_with(|| error.to_string());
                        continue;
                    }
                },
            };
            scales.insert(pool, scale);
        }
        Ok(scales)
    }
}

/// Of a pool that is named by its meter or its rate.
fn scale_of(catalog: &Catalog, limit: &str) -> Option<u64> {
    let scale = |name: &str| catalog.meters.iter().find(|it| *it.name == *name).map(|it| it.scale);
    if let Some(id) = limit.strip_prefix("rate/") {
        let mut rates = catalog.plans.iter().flat_map(|plan| plan.rates.values().flatten());
        let meter = rates.find(|rate| *rate.id == *id).and_then(|rate| rate.meter);
        return Some(meter.map_or(1, |meter| catalog.meters[usize::from(meter.0)].scale));
    }
    let quota = limit.strip_prefix("grant/").unwrap_or(limit);
    scale(quota.split_once('/')?.0)
}

/// Of a grant to this tenant: its id says nothing of its meter.
fn scale_of_grant(catalog: &Catalog, record: Option<&TenantRecord>, limit: &str) -> u64 {
    let id = limit.strip_prefix("grant/");
    let mut grants = record.iter().flat_map(|record| &record.grants);
    let grant = id.and_then(|id| grants.find(|grant| grant.id == id));
    let meter = grant.and_then(|grant| catalog.meters.iter().find(|it| *it.name == grant.meter));
    meter.map_or(1, |meter| meter.scale)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::time_at;
    use crate::directory::Grant;
    use crate::testing::START_MS;

    #[test]
    fn a_pool_is_counted_in_the_parts_of_its_meter() {
        let plans = r#"
            default-plan = "free"
            [meter.credits]
            parts = 10
            [plan.free]
            quota.credits = "100"
            rate.default  = ["5/s", "7 credits/min"]
        "#;
        let catalog = Catalog::parse("plans.toml", plans, time_at(START_MS)).unwrap();
        let rates = catalog.plans[0].rates["default"].iter();
        let metered = rates.clone().find(|rate| rate.meter.is_some()).unwrap().id.clone();
        let calls = rates.clone().find(|rate| rate.meter.is_none()).unwrap().id.clone();
        for (limit, scale) in [
            ("credits/day", Some(10)),
            ("credits/day/over", Some(10)),
            ("credits/owed", Some(10)),
            ("grant/credits/once", Some(10)),
            ("requests/day", Some(1)),
            (&*format!("rate/{metered}"), Some(10)),
            (&*format!("rate/{calls}"), Some(1)),
            ("gone/day", None),
            ("grant/pack", None),
        ] {
            assert_eq!(scale_of(&catalog, limit), scale, "{limit}");
        }
        let mut record = TenantRecord::begin(Surrogate::test(1), "acme", START_MS);
        record.grants.push(Grant::new("pack", "credits", 5));
        let of_grant = |limit: &str| scale_of_grant(&catalog, Some(&record), limit);
        assert_eq!((of_grant("grant/pack"), of_grant("grant/other")), (10, 1));
        assert_eq!((of_grant("gone/day"), scale_of_grant(&catalog, None, "grant/pack")), (1, 1));
    }
}
