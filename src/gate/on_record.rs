//! What tenants have used by day, as far as it is on record: for exports of many tenants, which
//! need none of them in memory.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::Gate;
use crate::amount::Amount;
use crate::directory::TenantRecord;
use crate::report::Granularity;
use crate::store::StoreError;

/// Usage of one meter in one day or month. [`Gate::recorded_use`] returns it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[doc(hidden)]
pub struct RecordedUse {
    /// The meter's name, which the plan file may no longer have.
    pub meter: Arc<str>,
    /// The day, or the first of the month, as a number: 20261124.
    pub day: u32,
    /// What was used.
    pub used: Amount,
}

impl Gate {
    /// What a tenant has used of each meter on these days (20261124), by day or by month of the
    /// plan file's time zone: ordered, without rows of nothing. What this and other processes have
    /// not yet written is missing, and so is what the logs of the last 400 days do not have.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn recorded_use(
        &self,
        tenant: &TenantRecord,
        by: Granularity,
        days: Range<u32>,
    ) -> Result<Vec<RecordedUse>, StoreError> {
        let inner = &*self.inner;
        let now_ms = inner.clock.now().wall_ms;
        let uses = inner.recording.ledger.uses(tenant.surrogate, |_, _| false, now_ms).await?;
        let mut sums = BTreeMap::<(Arc<str>, u32, u64), u64>::new();
        for used in uses.into_iter().filter(|used| days.contains(&used.day)) {
            let day = match by {
                Granularity::Day => used.day,
                Granularity::Month => used.day / 100 * 100 + 1,
            };
            let sum = sums.entry((used.meter, day, used.scale)).or_default();
            *sum = sum.saturating_add(used.atoms.used.0);
        }
        let row = |((meter, day, scale), atoms)| {
            let used = Amount::new(atoms, scale);
            (!used.is_zero()).then_some(RecordedUse { meter, day, used })
        };
        Ok(sums.into_iter().filter_map(row).collect())
    }

    /// What a tenant has used of each meter beyond quotas that bill, in all its billing periods; as
    /// far as it is on record.
    ///
    /// # Errors
    ///
    /// The store's error.
    #[doc(hidden)]
    pub async fn recorded_overage(
        &self,
        tenant: &TenantRecord,
    ) -> Result<BTreeMap<Arc<str>, Amount>, StoreError> {
        let inner = &*self.inner;
        let now_ms = inner.clock.now().wall_ms;
        let uses = inner.recording.ledger.uses(tenant.surrogate, |_, _| false, now_ms).await?;
        let mut sums = BTreeMap::new();
        let catalog = self.catalog();
        for meter in &catalog.meters {
            let own = uses.iter().filter(|it| it.meter == meter.name && it.scale == meter.scale);
            let over = own.fold(0_u64, |sum, it| sum.saturating_add(it.atoms.over.0));
            if over > 0 {
                sums.insert(meter.name.clone(), Amount::new(over, meter.scale));
            }
        }
        Ok(sums)
    }

    /// The names of the plan file's meters.
    #[doc(hidden)]
    pub fn meter_names(&self) -> Vec<Arc<str>> {
        self.catalog().meters.iter().map(|meter| meter.name.clone()).collect()
    }
}
