//! What billing asks of the ledger besides use: what was drawn beyond a quota, and, for the audit,
//! all that the logs say.

use std::collections::HashMap;
use std::sync::Mutex;

use super::super::log;
use super::super::record::PoolRow;
use super::{Fold, Ledger, PeriodUse, locked};
use crate::admission::lease::Writer;
use crate::admission::pool::PoolId;
use crate::directory::Surrogate;
use crate::store::{StoreError, StoreErrorKind};

/// How the words of a pool beyond a quota end: see `admission/policy/lower.rs`.
pub(super) const OVER: &str = "/over";

/// All that the logs say, for the audit.
pub(crate) struct Examined {
    pub(crate) uses: Vec<PeriodUse>,
    pub(crate) pools: HashMap<PoolId, HashMap<u128, PoolRow>>,
    /// Writers whose log cannot be read to its end, and why.
    pub(crate) broken: Vec<(u128, String)>,
}

impl Examined {
    /// As [`Ledger::beyond`].
    pub(crate) fn beyond(&self, tenant: Surrogate, quota: &str, span: (i64, i64)) -> u64 {
        let ours = self.pools.iter().filter(|(pool, _)| is_beyond(pool, tenant, quota, span));
        ours.flat_map(|(_, of)| of.values()).fold(0, |sum, row| sum.saturating_add(row.total))
    }
}

/// Whether a pool is what lies beyond this quota, in a window that begins in this span.
fn is_beyond(pool: &PoolId, tenant: Surrogate, quota: &str, (from, until): (i64, i64)) -> bool {
    let words = pool.limit.strip_suffix(OVER) == Some(quota);
    words && pool.tenant == tenant && (from..until).contains(&pool.start_ms)
}

impl Ledger {
    /// Atoms drawn beyond a quota, over all writers and its windows that begin in this span. As of
    /// the last [`by_period`](Self::by_period).
    pub(crate) async fn beyond(&self, tenant: Surrogate, quota: &str, span: (i64, i64)) -> u64 {
        let over = &self.locked().over;
        let ours = over.iter().filter(|(pool, _)| is_beyond(pool, tenant, quota, span));
        ours.flat_map(|(_, of)| of.values()).fold(0, |sum, total| sum.saturating_add(*total))
    }

    /// Use by period, read from every log's first slot, whatever memory holds; and the pools'
    /// rows. A log that cannot be read to its end is read as far as that goes, and named.
    pub(crate) async fn examine(&self, now_ms: i64) -> Result<Examined, StoreError> {
        let (fold, mut broken) = (Mutex::new(Fold::default()), Vec::new());
        let mut pools = HashMap::<PoolId, HashMap<u128, PoolRow>>::new();
        for incarnation in self.writers(&fold, now_ms).await? {
            let writer = Writer { incarnation, space: self.writer.space.clone() };
            let mut news = Vec::new();
            let read = log::read(&*self.store, &writer, 0, |rows, of| news.push((rows, of))).await;
            for (rows, of) in news {
                for (pool, row) in &rows.pools {
                    let of_pool = pools.entry(pool.clone()).or_default();
                    of_pool.entry(of).or_default().raise(*row);
                }
                locked(&fold).take(rows, of);
            }
            match read {
                Ok(_) => {}
                Err(error) if error.kind == StoreErrorKind::Corrupt => {
                    broken.push((incarnation, error.message));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Examined { uses: self.periods(&fold, now_ms).await?, pools, broken })
    }
}
