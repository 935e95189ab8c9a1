//! Use by the time at which it was recorded, for the rare period whose end was learned of late.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::super::log;
use super::super::record::{Rows, UseKey};
use super::{Ledger, PeriodKey};
use crate::ids::WriterId;
use crate::quota::lease::Writer;
use crate::sheets::use_row::RowAtoms;
use crate::store::StoreError;

impl Ledger {
    /// The amount recorded of each of these by its instants, Unix milliseconds. Reads every log
    /// from its first slot. A fold counts from the time of its last slot. Settled claims have no
    /// time, and count as recorded before.
    pub(crate) async fn recorded_by(
        &self,
        instants: &BTreeMap<PeriodKey, Vec<i64>>,
        now_ms: i64,
    ) -> Result<BTreeMap<PeriodKey, Vec<RowAtoms>>, StoreError> {
        let mut totals = HashMap::<(WriterId, UseKey), Vec<RowAtoms>>::new();
        for incarnation in self.writers(&self.fold, now_ms).await? {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let fold = |at_ms: i64, rows: Rows, of: WriterId| {
                for (key, total) in rows.uses {
                    let Some(by_ms) = instants.get(&key.period_key()) else { continue };
                    let known = totals.entry((of, key)).or_insert_with(|| none(by_ms));
                    let known = known.iter_mut().zip(by_ms).filter(|(_, by_ms)| at_ms <= **by_ms);
                    known.for_each(|(known, _)| known.raise(total));
                }
            };
            log::read_dated(&*self.store, &writer, 0, fold).await?;
        }
        let zeros = instants.iter().map(|(key, by_ms)| (key.clone(), none(by_ms)));
        let mut sums: BTreeMap<PeriodKey, Vec<RowAtoms>> = zeros.collect();
        for ((_, key), totals) in totals {
            let sums = sums.get_mut(&key.period_key()).into_iter().flatten();
            sums.zip(totals).for_each(|(sum, total)| sum.add(total));
        }
        let tenants: BTreeSet<_> = instants.keys().map(|(_, tenant, ..)| *tenant).collect();
        for tenant in tenants {
            let claimed = self.read_claims(&self.fold, tenant, now_ms).await?;
            for ((meter, scale, period_ms, _, account), total) in
                claimed.iter().flat_map(|claimed| claimed.iter())
            {
                let key = (account.clone(), tenant, meter.clone(), *scale, *period_ms);
                let sums = sums.get_mut(&key).into_iter().flatten();
                sums.for_each(|sum| sum.add(*total));
            }
        }
        Ok(sums)
    }
}

fn none(instants: &[i64]) -> Vec<RowAtoms> {
    vec![RowAtoms::default(); instants.len()]
}
